import numpy as np
from numpy.testing import assert_array_equal
from fastai_clr_ext.schedule import one_cycle
from two_processes import guarded, in_two_processes, one_cycle_recorded

def test_two_processes_share_the_batches_and_one_cycle(tmp_path):
    "Each of two processes sees 4 of 8 batches an epoch: the cycle spans these, and both record the averaged gradient"
    a,b = in_two_processes(one_cycle_recorded, tmp_path)
    assert_array_equal(np.array(a['lr'])[:,0], one_cycle().table(8, .1)['lr'])
    assert a==b and a['plan']==((0, 0, 8),) and len(a['grads']['step'])==16

def test_processes_decide_together(tmp_path):
    "The loss of one process explodes: both stop, after the same batch, for the same reason"
    a,b = in_two_processes(guarded, tmp_path)
    assert a==b and a['divergence'][:2]==('loss', 7) and a['n']==8, 'three of the last five are high at batch 7'
    assert abs(a['divergence'][2]-5e5)<5e3, 'the mean of both'
