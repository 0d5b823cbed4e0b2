"Cycles in loops of torch and callbacks of fastai"
import copy, json
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

@pytest.mark.parametrize('order', ['optimizer first', 'scheduler first'])
def test_as_torch_resumes(order):
    c,opt,opt2,opt3 = one_cycle(),torch_opt(),torch_opt(),torch_opt()
    sched = c.as_torch(opt, 40, 1.)
    whole = run_torch(opt3, c.as_torch(opt3, 40, 1.), 40)
    first = run_torch(opt, sched, 15)
    state = json.loads(json.dumps(sched.state_dict()))
    again = c.as_torch(opt2, 40, 1.)
    loads = [lambda: opt2.load_state_dict(opt.state_dict()), lambda: again.load_state_dict(state)]
    for load in loads if order=='optimizer first' else reversed(loads): load()
    assert_array_equal(np.concatenate([first, run_torch(opt2, again, 25)]), whole)
    assert again.state_dict()['last_epoch']==40
    with pytest.raises(ValueError, match='n_iter of the state must be that of this scheduler, 41; got 40'):
        c.as_torch(torch_opt(), 41, 1.).load_state_dict(state)

def test_loading_touches_the_scheduler_alone():
    opt = torch_opt()
    sched = one_cycle().as_torch(opt, 20, 1.)
    run_torch(opt, sched, 9)
    state,before = sched.state_dict(),[dict(g) for g in opt.param_groups]
    run_torch(opt, sched, 5)
    now = [dict(g) for g in opt.param_groups]
    sched.load_state_dict(state | {'optimizer': 'theirs', 'unknown': 1})
    assert [dict(g) for g in opt.param_groups]==now!=before, 'the optimizer has its own state'
    assert sched.optimizer is opt and not hasattr(sched, 'unknown') and sched.last_epoch==9
    sched.load_state_dict(state | {'last_epoch': -1})
    sched.step()
    assert opt.param_groups[0]['lr']==.1, 'before the first batch is a position too'

def sequential(opt):
    parts = [one_cycle().as_torch(opt, 10, 1.), torch.optim.lr_scheduler.ExponentialLR(opt, .9)]
    return torch.optim.lr_scheduler.SequentialLR(opt, parts, [10])

def chained(opt):
    return torch.optim.lr_scheduler.ChainedScheduler([one_cycle().as_torch(opt, 30, 1.)], optimizer=opt)

@pytest.mark.filterwarnings('ignore:The epoch parameter', 'ignore:Detected call')
@pytest.mark.parametrize('make', [sequential, chained])
@pytest.mark.parametrize('order', ['optimizer first', 'scheduler first'])
@pytest.mark.parametrize('at', [3, 10, 12])
def test_inside_the_schedulers_of_torch(make, order, at):
    opt,opt2 = torch_opt(),torch_opt()
    sched = make(opt)
    run_torch(opt, sched, at)
    states = copy.deepcopy((opt.state_dict(), sched.state_dict()))
    rest = run_torch(opt, sched, 10)
    again = make(opt2)
    loads = [lambda: opt2.load_state_dict(states[0]), lambda: again.load_state_dict(states[1])]
    for load in loads if order=='optimizer first' else reversed(loads): load()
    assert_array_equal(run_torch(opt2, again, 10), rest)

def test_a_rate_that_is_a_tensor_is_filled_in_place():
    p = torch.nn.Parameter(torch.zeros(1))
    rate = torch.tensor(.5)
    opt = torch.optim.AdamW([p], lr=rate)
    reads = []
    class Watched(torch.Tensor):
        "Notes what would copy it to the host"
        def item(self): reads.append('item'); return super().item()
        def __float__(self): reads.append('float'); return super().__float__()
        def __array__(self, *args): reads.append('array'); return super().__array__(*args)
    opt.param_groups[0]['lr'] = rate = rate.as_subclass(Watched)
    sched = one_cycle().as_torch(opt, 11, 1.)
    reads.clear() # what torch itself does when a scheduler is made is its own
    for _ in range(4):
        opt.step()
        sched.step()
    assert opt.param_groups[0]['lr'] is rate and float(rate.as_subclass(torch.Tensor))==pytest.approx(1.)
    assert not reads

@pytest.mark.parametrize('change', [lambda o: o.add_param_group(dict(params=[torch.nn.Parameter(torch.zeros(1))])),
                                    lambda o: o.param_groups.pop()])
def test_groups_that_change_are_refused_before_anything_moves(change):
    opt = torch_opt()
    sched = one_cycle().as_torch(opt, 20, 1.)
    run_torch(opt, sched, 4)
    change(opt)
    before = sched.state_dict(),[dict(g) for g in opt.param_groups]
    with pytest.raises(ValueError, match='the optimizer must have the 2 parameter groups'): sched.step()
    assert (sched.state_dict(), [dict(g) for g in opt.param_groups])==before

def test_last_epoch_needs_a_loaded_optimizer():
    with pytest.raises(ValueError, match=r'last_epoch must be -1 unless.*groups \[0, 1\] have no initial_lr; got 3'):
        one_cycle().as_torch(torch_opt(), 20, 1., last_epoch=3)
    opt = torch_opt()
    run_torch(opt, one_cycle().as_torch(opt, 20, 1.), 4)
    assert one_cycle().as_torch(opt, 20, 1., last_epoch=3).get_last_lr()==[one_cycle().table(20)['lr'][4]]*2

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

def go_to(sched, last_epoch): sched.load_state_dict(sched.state_dict() | dict(last_epoch=last_epoch))

@pytest.mark.filterwarnings('ignore:The epoch parameter', 'ignore:Detected call')
def test_a_step_may_go_to_any_batch():
    sched = one_cycle().as_torch(torch_opt(), 20, 1.)
    for batch in (7, 0, 30):
        sched.step(batch)
        assert sched.get_last_lr()==[one_cycle().table(20)['lr'][min(batch, 19)]]*2

def test_phases_without_a_batch_are_named():
    with pytest.warns(UserWarning, match='^2 batches are too few for the cycle. Phases without a batch: cool-down$'):
        one_cycle().as_torch(torch_opt(), 2, 1.)

TORCH_BAD = [(lambda o: one_cycle().as_torch(None, 10, 1.), 'optimizer must be of the class Optimizer'),
             (lambda o: one_cycle().as_torch(o, 10, 1., last_epoch=-5), 'last_epoch must'),
             (lambda o: one_cycle().as_torch(o, 10, 1., last_epoch=0), 'last_epoch must be -1 unless'),
             (lambda o: one_cycle().as_torch(o, 10, 1.).step(-1), 'epoch must be a whole number'),
             (lambda o: one_cycle().as_torch(o, 10, 1.).step(.5), 'epoch must be a whole number'),
             (lambda o: go_to(one_cycle().as_torch(o, 10, 1.), -2), 'the last_epoch of the state must'),
             (lambda o: go_to(one_cycle().as_torch(o, 10, 1.), None), 'the last_epoch of the state must'),
             (lambda o: one_cycle().as_torch(o, 10, 1.).load_state_dict(None), 'state_dict must')]

@pytest.mark.parametrize('call,says', TORCH_BAD, ids=[s for _,s in TORCH_BAD])
def test_bad_input_outside_the_loop(call, says):
    with pytest.raises(ValueError, match=says): call(torch_opt())
