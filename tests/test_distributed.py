import time, numpy as np, pytest, torch
from numpy.testing import assert_allclose, assert_array_equal
from fastai.data.core import DataLoaders
from fastai_clr_ext.all import *
from fastai_clr_ext.train.contents import read_checkpoint
from conftest import make_mlp
from processes import (
    accumulated, after_kill, all_batches_seen, forwarded, guarded, in_processes, killed, launch, one_cycle_recorded,
    refused, resumed, staged, terminated)
from resume_helpers import differences

@pytest.fixture(scope='module')
def folder(tmp_path_factory): return tmp_path_factory.mktemp('two')

@pytest.fixture(scope='module')
def two(folder):
    "What two processes gave, by function: they are started once, which takes ten seconds"
    other = make_mlp(4)
    other.fit_one_cycle_ext(1, .05)
    other.recorder.history.save(folder/'taken.npz')
    return in_processes(2, folder, one_cycle_recorded, guarded, all_batches_seen, accumulated, staged, forwarded,
                        refused, resumed, terminated)

@pytest.fixture(scope='module')
def three(tmp_path_factory):
    "The same for three processes"
    return in_processes(3, tmp_path_factory.mktemp('three'), one_cycle_recorded, guarded, all_batches_seen)

@pytest.fixture(params=[2, 3], ids=['two processes', 'three processes'])
def some(request): return request.param, request.getfixturevalue({2: 'two', 3: 'three'}[request.param])

def test_processes_share_the_batches_and_one_cycle(some):
    "Each of n processes sees 12/n of 12 batches an epoch: the cycle spans these, and all record the averaged gradient"
    n,results = some
    found = results['one_cycle_recorded']
    n_iter = 12//n
    assert_array_equal(np.array(found[0]['lr'])[:,0], one_cycle().table(2*n_iter, .1)['lr'])
    assert all(each==found[0] for each in found)
    assert found[0]['plan']==((0, 0, 2*n_iter),) and len(found[0]['grads']['step'])==4*n_iter

def test_processes_decide_together(some):
    "The loss of one process explodes: all stop, after the same batch, for the same reason"
    n,results = some
    found = results['guarded']
    assert all(each==found[0] for each in found)
    assert found[0]['divergence'][:2]==('loss', 7), 'three of the last five are high at batch 7'
    assert abs(found[0]['divergence'][2]-1e6/n)<5e3, 'the mean of all'

def test_gradients_are_those_of_one_process_with_the_whole_batch(some):
    "Also of the last batch of an epoch, which is shorter in each process"
    _,results = some
    found = results['all_batches_seen']
    shares = zip(*[each['batches'] for each in found])
    batches = [tuple(torch.cat(parts) for parts in zip(*share)) for share in shares]
    assert len({len(x) for x,_ in batches})==2, 'the last ones are uneven'
    n_iter = len(batches)//2
    class Given:
        "Gives the same batches in one process"
        def __init__(self): self.epoch = -1
        def __len__(self): return n_iter
        def __iter__(self):
            self.epoch += 1
            return iter(batches[self.epoch*n_iter:(self.epoch+1)*n_iter])
    learn = make_mlp(5, cbs=GradRecorder())
    learn.dls = DataLoaders(Given(), learn.dls.valid, device='cpu')
    for p,value in zip(learn.model.parameters(), found[0]['before']): p.data.copy_(value)
    learn.fit_one_cycle_ext(2, .1)
    for each in found:
        for p,value in zip(learn.model.parameters(), each['weights']): torch.testing.assert_close(p.data, value)
        assert_allclose(learn.recorder.grads['mean_abs'], each['grads']['mean_abs'], rtol=1e-4)
        assert_allclose(learn.recorder.grads['norm'], each['grads']['norm'], rtol=1e-4)

def test_accumulation_may_leave_gradients_in_their_process(two):
    "With DDP's `no_sync` until the batch that steps: the same steps, weights and records"
    for each in two['accumulated']:
        a,b = each['synced'],each['not_synced']
        assert a['skipped']==b['skipped']==['accumulation', 'accumulation', '']*4
        assert_allclose(a['grads']['mean_abs'], b['grads']['mean_abs'], rtol=1e-5)
        for p,q in zip(a['weights'], b['weights']): torch.testing.assert_close(p, q)

def test_stages_and_one_history_in_one_file(two, folder):
    a,b = two['staged']
    assert a['stages']['stage']==['head', 'all'] and a['stages']['n_steps']==b['stages']['n_steps']==[3, 6]
    history = RunHistory.load(folder/'stages.npz')
    assert history.stages.smooth_loss.tolist()==a['stages']['smooth_loss'] and len(history)==9

def test_only_the_first_process_sends(two):
    first,second = two['forwarded']
    assert first['n']>0 and second['n']==0

@pytest.mark.parametrize('name', ['fit_one_cycle_ext', 'fit_stages', 'fit', 'resume_fit'])
def test_what_one_process_refuses_all_refuse(two, name):
    "None is left waiting for the others"
    first,second = [each[name] for each in two['refused']]
    is_resume = name=='resume_fit'
    reason = 'path must be a file that FitCheckpoint wrote' if is_resume else 'hold the history of this learner'
    assert reason in first[0] and 'the process of rank 0 raised ValueError' in second[0] and reason in second[0]
    assert max(first[1], second[1])<20
    assert (first[2], second[2])==(name!='fit', name!='fit'), 'before an optimizer is made'

def test_a_fit_goes_on_in_all_processes(two):
    "Bit for bit; what is recorded is that of the first process"
    first,second = two['resumed']
    assert differences(first['whole'], first['after'])==[]
    assert differences(second['whole']['model'], second['after']['model'])==[]
    assert differences(second['whole']['opt'], second['after']['opt'])==[]
    assert first['files']==second['files']==['run.pt']

def test_a_signal_to_one_ends_all_at_one_batch(two, folder):
    first,second = two['terminated']
    held = read_checkpoint(folder/'term.pt')
    assert first==second==dict(n=10) and (held['epoch'], held['batch'])==(1, 5)

def test_a_killed_process_ends_the_others_and_the_fit_goes_on(tmp_path):
    begun = time.time()
    assert launch(2, tmp_path, killed).returncode==1 and time.time()-begun<60
    first,second = in_processes(2, tmp_path, after_kill)['after_kill']
    assert differences(first['whole'], first['after'])==[]
    assert differences(second['whole']['model'], second['after']['model'])==[]
