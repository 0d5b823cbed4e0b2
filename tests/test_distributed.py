import numpy as np, pytest
from numpy.testing import assert_array_equal
from fastai_clr_ext.schedule import one_cycle
from two_processes import guarded, in_two_processes, one_cycle_recorded

@pytest.fixture(scope='module')
def both(tmp_path_factory):
    "What two processes gave, by function: they are started once, which takes ten seconds"
    return in_two_processes(tmp_path_factory.mktemp('both'), one_cycle_recorded, guarded)

def test_two_processes_share_the_batches_and_one_cycle(both):
    "Each of two processes sees 4 of 8 batches an epoch: the cycle spans these, and both record the averaged gradient"
    a,b = both['one_cycle_recorded']
    assert_array_equal(np.array(a['lr'])[:,0], one_cycle().table(8, .1)['lr'])
    assert a==b and a['plan']==((0, 0, 8),) and len(a['grads']['step'])==16

def test_processes_decide_together(both):
    "The loss of one process explodes: both stop, after the same batch, for the same reason"
    a,b = both['guarded']
    assert a==b and a['divergence'][:2]==('loss', 7) and a['n']==8, 'three of the last five are high at batch 7'
    assert abs(a['divergence'][2]-5e5)<5e3, 'the mean of both'
