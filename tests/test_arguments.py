"Every argument of every public name: what is wrong is refused by name, at once, and nothing is changed"
import json, re, time, warnings
from pathlib import Path
import matplotlib.pyplot as plt, numpy as np, pytest, torch
from hypothesis import given, settings, strategies as st
from fastai_clr_ext.all import GradRecorder
from argument_calls import BAD, CALLS
from conftest import make_mlp
from train_helpers import snapshot

pytestmark = pytest.mark.filterwarnings('ignore')

#: Name, argument, position of the wrong value in `BAD`, and what the error must say
TABLE = json.loads(Path(__file__).with_name('argument_errors.json').read_text())

@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch): monkeypatch.chdir(tmp_path)

@pytest.mark.parametrize('name', CALLS)
def test_what_is_right_is_taken(name): CALLS[name]()

@pytest.mark.parametrize('name', CALLS)
def test_each_argument_has_its_error(name):
    rows = [row for row in TABLE if row[0]==name]
    assert {argument for _,argument,_,_ in rows}==set(CALLS[name].base), 'the table has every argument'
    for _,argument,i,says in rows:
        with pytest.raises(ValueError, match=re.escape(says)): CALLS[name](**{argument: BAD[i]})

def test_the_table_is_long_enough(): assert len(TABLE)>=150

def refusal(call, changed):
    "What a call says to wrong arguments; None if it takes them. Anything but our own error comes out"
    start = time.perf_counter()
    try: call(**changed)
    except ValueError as e:
        assert ' must ' in str(e) and '; got ' in str(e), f'{changed}: {e}'
        assert time.perf_counter()-start<5, f'{changed} took too long'
        return str(e)
    return None

#: A method of a learner, by its name
METHODS = ['fit_one_cycle_ext', 'preview_one_cycle_ext', 'fit_stages', 'preview_stages', 'fine_tune_long',
           'fine_tune_two_cycles', 'fine_tune_gradual']

whole = st.one_of(st.integers(-3, 3), st.integers(10**8, 10**40), st.integers(-10**40, -10**8)) # no long trainings
numbers = st.one_of(st.floats(), whole, st.floats().map(np.float32), st.floats(-3, 3).map(torch.tensor))
values = st.one_of(st.sampled_from(BAD), numbers, st.text(max_size=5), st.lists(numbers, max_size=4),
                   st.tuples(numbers, numbers), st.dictionaries(st.integers(-2, 2), numbers, max_size=2),
                   st.binary(max_size=3))

@settings(max_examples=1500, deadline=None, derandomize=True)
@given(st.data())
def test_whatever_is_given_is_taken_or_refused_by_name(data):
    name = data.draw(st.sampled_from([name for name,call in CALLS.items() if name not in METHODS and call.base]))
    argument = data.draw(st.sampled_from(list(CALLS[name].base)))
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        refusal(CALLS[name], {argument: data.draw(values)})
    plt.close('all')

@settings(max_examples=500, deadline=None, derandomize=True)
@given(st.data())
def test_a_refused_call_leaves_the_learner_as_it_was(data):
    name = data.draw(st.sampled_from(METHODS))
    base = CALLS[name].base
    names = data.draw(st.lists(st.sampled_from(list(base)), min_size=1, max_size=2))
    changed = {argument: data.draw(values) for argument in names}
    learn = data.draw(st.sampled_from(LEARNERS))
    was = repr(snapshot(learn)) # NaN is NaN here
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        said = refusal(lambda **kwargs: getattr(learn, name)(**base | kwargs), changed)
    if said is not None: assert repr(snapshot(learn))==was, f'{name}({changed}) was refused and changed the learner'
    plt.close('all')

LEARNERS = [make_mlp(), make_mlp(cbs=GradRecorder())]
LEARNERS[1].fit(1)
