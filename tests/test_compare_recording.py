"What a record says beside the numbers"
import pytest
from compare_helpers import *
from fastai_clr_ext.compare import *

def run(policy='a', seed=0, **more): return made()['runs'][0] | dict(policy=policy, seed=seed) | more

def test_nothing_to_say(): assert notes_on([run(), run('b')])==[]

@pytest.mark.parametrize('others,says', [
    ([run('b', inputs=['x', 'y'])], "'b' with seed 0: the same targets and other inputs than 'a', from epoch 1 on"),
    ([run('b', targets=['c', 'x'])], "'b' with seed 0: other items, or in another order than 'a', from epoch 2 on"),
    ([run('b', validation='x')], "'b' with seed 0: judged on another validation set than 'a'"),
    ([run('b', end='error', why='OSError: x')]*2, "An exception ended 2 runs of 'b', which has no result. The"),
    ([run('b', seed=i, inputs=['x']) for i in range(3)] + [run(seed=i) for i in (1, 2)], "'b' with seed 2")], ids=str)
def test_what_misleads_is_warned_of(others, says):
    with pytest.warns(UserWarning) as warned: notes = notes_on([run(), *others])
    assert says in notes[0] and says in str(warned[0].message)

def test_many_runs_are_not_all_named():
    with pytest.warns(UserWarning):
        note, = notes_on([run(seed=i) for i in range(40)] + [run('b', seed=i, inputs=['x', 'y']) for i in range(40)])
    assert note.count('with seed')==10

def test_unknown_constants_and_the_users_rule():
    unknown = run(constant_loss=None)
    assert 'a run that learned nothing counts as one that ended well' in notes_on([unknown])[0]
    with pytest.warns(UserWarning): notes = notes_on([run(), run('b', end='error', why='x', constant_loss=None)])
    assert len(notes)==1, 'an exception before the first batch says nothing of the loss'
    assert notes_on([unknown], never)==[], 'it takes the place of the constant'
