"Cycles in loops of torch and callbacks of fastai"
import json
import numpy as np, pytest, torch
from numpy.testing import assert_allclose, assert_array_equal
from fastai.callback.schedule import ParamScheduler
from fastai.test_utils import synth_learner
from fastai_clr_ext.schedule import *
from conftest import Spy

def torch_opt(**kwargs):
    ps = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
    return torch.optim.SGD([dict(params=[p]) for p in ps], lr=.1, **{'momentum': .9} | kwargs)

def run_torch(opt, sched, n):
    rows = []
    for _ in range(n):
        rows.append([(g['lr'], g['momentum'], g['weight_decay']) for g in opt.param_groups])
        opt.step(); sched.step()
    return np.array(rows)

def test_as_torch_sets_the_table():
    c = Cycle([Phase('up', .5, lr=(.1, 1), mom=(.95, .85), wd=(.1, 0)), Phase('down', .5, lr=(1, 0), mom=.9, wd=0)])
    opt = torch_opt()
    rows,t = run_torch(opt, c.as_torch(opt, 21, [.1, .5]), 21),c.table(21, [.1, .5])
    for i,k in enumerate(('lr', 'mom', 'wd')): assert_array_equal(rows[:,:,i], t[k])
    sched = c.as_torch(torch_opt(), 21, 1.)
    for _ in range(30): sched.optimizer.step(); sched.step()
    assert sched.get_last_lr()==[0, 0], 'after the end the last value stays'

def test_as_torch_resumes():
    c,opt,opt2 = one_cycle(),torch_opt(),torch_opt()
    sched = c.as_torch(opt, 40, 1.)
    whole = run_torch(torch_opt2 := torch_opt(), c.as_torch(torch_opt2, 40, 1.), 40)
    first = run_torch(opt, sched, 15)
    state = json.loads(json.dumps(sched.state_dict()))
    again = c.as_torch(opt2, 40, 1.)
    again.load_state_dict(state)
    assert_array_equal(np.concatenate([first, run_torch(opt2, again, 25)]), whole)
    assert again.state_dict()['last_epoch']==40
    with pytest.raises(ValueError, match='n_iter of the state must be that of this scheduler, 41; got 40'):
        c.as_torch(torch_opt(), 41, 1.).load_state_dict(state)

def test_as_torch_without_momentum_and_with_unknown_hypers():
    with pytest.warns(UserWarning, match='momentum 0'): sched = one_cycle().as_torch(torch_opt(momentum=0), 11, 1.)
    assert list(sched.table)==['lr'] and sched.optimizer.param_groups[0]['momentum']==0
    with pytest.raises(ValueError, match=r"be among those of the optimizer.*got \['sqr_mom'\]"):
        Cycle([Phase('a', 1, sqr_mom=.99)]).as_torch(torch_opt(), 10, 1.)
    with pytest.raises(ValueError, match='one value for each of the 2'):
        one_cycle().as_torch(torch_opt(), 10, [1., 2., 3.])

def test_as_torch_by_group_keeps_what_is_left_alone():
    opt = torch_opt()
    rows = run_torch(opt, ByGroup([Cycle([Phase('a', 1, lr=1)]), one_cycle()]).as_torch(opt, 11, [.1, 1.]), 11)
    assert_array_equal(rows[:,0], [[.1, .9, 0]]*11)
    assert_array_equal(rows[:,1,1], one_cycle().table(11)['mom'])
    opt = torch_opt()
    rows = run_torch(opt, ByGroup([Cycle([Phase('a', 1, mom=.5)]), one_cycle()]).as_torch(opt, 11, 1.), 11)
    assert_array_equal(rows[:,0], [[.1, .5, 0]]*11)
    with pytest.raises(ValueError, match='one for each of the 2 parameter groups; got 3'):
        ByGroup([constant()]*3).as_torch(torch_opt(), 10, 1.)

def test_as_torch_with_adam_cycles_beta1():
    p = torch.nn.Parameter(torch.zeros(1))
    opt = torch.optim.AdamW([p], lr=.1, betas=(.9, .98))
    sched = one_cycle().as_torch(opt, 11, 1.)
    for _ in range(5): opt.step(); sched.step()
    assert_allclose(opt.param_groups[0]['betas'], (one_cycle().table(11)['mom'][5], .98))

def test_as_scheds_drive_fastai():
    spy,learn = Spy(),synth_learner(n_trn=8)
    c = one_cycle_fastai(pct_start=.5)
    learn.fit(2, cbs=[ParamScheduler(c.as_scheds(.3)), spy])
    assert_allclose(np.array(spy.column('lr'))[:,0], c.table(16, .3)['lr'], rtol=1e-5)
    assert_allclose(np.array(spy.column('mom'))[:,0], c.table(16, .3)['mom'], rtol=1e-5)

TORCH_BAD = [(lambda o: one_cycle().as_torch(None, 10, 1.), 'optimizer must be a torch optimizer'),
             (lambda o: one_cycle().as_torch(o, 10, 1., last_epoch=-5), 'last_epoch must'),
             (lambda o: one_cycle().as_torch(o, 10, 1.).load_state_dict(None), 'state_dict must')]

@pytest.mark.parametrize('call,says', TORCH_BAD, ids=[s for _,s in TORCH_BAD])
def test_bad_input_outside_the_loop(call, says):
    with pytest.raises(ValueError, match=says): call(torch_opt())
