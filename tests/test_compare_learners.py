"Fresh learners: equal for equal seeds, and nothing shared"
import pytest, torch
from compare_helpers import *
from fastai_clr_ext.compare.identity import weights_digest
from fastai_clr_ext.compare.learners import check_make_learner, fresh_learner, isolated, what_varies

def test_equal_seeds_give_equal_learners():
    a,b,c = [fresh_learner(make_line, seed) for seed in (1, 1, 2)]
    assert weights_digest(a.model)==weights_digest(b.model)!=weights_digest(c.model)
    first = [next(iter(learn.dls.train))[0] for learn in (a, b)]
    assert torch.equal(*first), 'and the same batches'

def test_isolated_puts_everything_back():
    torch.manual_seed(5)
    state,n = torch.get_rng_state(),torch.get_num_threads()
    with isolated(0, 1):
        assert torch.get_num_threads()==1
        torch.rand(3)
    assert torch.equal(torch.get_rng_state(), state) and torch.get_num_threads()==n

def test_what_cannot_be_found_out_is_none():
    found = what_varies(dict(a='1', b='1', c='1', d=None, e=None), dict(a='1', b='2', c=None, d='1', e=None))
    assert found==dict(a=False, b=True, c=None, d=None, e=None)

shared = make_line(0)

@pytest.mark.parametrize('make,says', [
    (shared, 'a function from a seed to a Learner, which makes a new one each time'),
    (None, 'a function from a seed to a Learner'), (lambda seed: shared, 'the same object twice'),
    (lambda seed: None, 'a Learner with a Recorder'),
    (lambda seed: (torch.manual_seed(0), make_line(0))[1], 'its seed.*RandomSplitter'),
    (lambda seed: make_line(seed, cbs=KEPT), 'new callbacks each time')])
def test_what_make_learner_must_do(make, says):
    with pytest.raises(ValueError, match=f'make_learner must .*{says}'): check_make_learner(make)

class Kept(Callback): pass

KEPT = Kept()
