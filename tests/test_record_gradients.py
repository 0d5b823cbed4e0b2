"The gradients of each step, against a plain loop"
import copy, pickle
from functools import partial
import numpy as np, pandas as pd, pytest, torch
from numpy.testing import assert_allclose
from torch import nn
from fastai.callback.core import (Callback, CancelBackwardException, CancelBatchException, CancelStepException,
                                  CancelTrainException)
from fastai.callback.schedule import *
from fastai.callback.training import GradientAccumulation, GradientClip
from fastai.optimizer import Adam, OptimWrapper, SGD
from fastai_clr_ext.record import *
from fastai_clr_ext.record.gradients import GradState
from fastai_clr_ext.train import *
from fastai_clr_ext.plot import *
from conftest import CpuAmp, Raise, two_groups
from record_helpers import *

COLUMNS = ['fit', 'step', 'train_iter', 'epoch', 'group', 'mean_abs', 'norm', 'n_params']

class Keep(Callback):
    "The batches that a fit trains on, so that a plain loop can train on the same"
    run_valid = False
    def before_fit(self): self.batches = []
    def before_batch(self): self.batches.append((self.x.clone(), self.y.clone()))

def plain_loop(model, batches, freeze=(), lr=.01, mom=.9, n_acc=1, scale=1):
    "What the record must say, by plain autograd: rows of (mean |g|, norm, count) for each group, at each step"
    groups = two_groups(model)
    for g in freeze:
        for p in groups[g]: p.requires_grad_(False)
    opt = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=lr, momentum=mom)
    rows = []
    for i,(x,y) in enumerate(batches):
        (((model(x).view(-1)-y.view(-1))**2).mean()/scale).backward()
        if (i+1)%n_acc: continue
        row = []
        for ps in groups:
            gs = torch.cat([p.grad.ravel() for p in ps if p.requires_grad] or [torch.zeros(0)]).double()
            row.append((gs.abs().sum()/len(gs), gs.square().sum().sqrt(), len(gs)) if len(gs) else None)
        rows.append(row)
        opt.step(); opt.zero_grad()
    return rows

def check(df, rows, fit=0):
    df = df[df.fit==fit]
    want = [(s, g, *r) for s,row in enumerate(rows) for g,r in enumerate(row) if r]
    assert len(df)==len(want)
    assert_allclose(df[['step', 'group', 'mean_abs', 'norm', 'n_params']].to_numpy(float), np.array(want, dtype=float),
                    rtol=1e-6)

@pytest.mark.parametrize('frozen', [False, True])
def test_equals_a_plain_loop(mlp, frozen):
    learn,keep = mlp(cbs=GradRecorder()),Keep()
    if frozen: learn.freeze()
    model = copy.deepcopy(learn.model)
    learn.fit(2, .01, wd=0, cbs=keep)
    check(learn.recorder.grads, plain_loop(model, keep.batches, freeze=[0] if frozen else []))
    assert learn.recorder.grads.columns.tolist()==COLUMNS
    assert learn.recorder.grads.epoch.tolist()==np.repeat([0, 1], 10*(2-frozen)).tolist()

def test_accumulation_gives_the_whole_gradient_once(mlp):
    learn,keep = mlp(cbs=GradRecorder()),Keep()
    model = copy.deepcopy(learn.model)
    learn.fit(1, .01, wd=0, cbs=[keep, GradientAccumulation(32)])
    # fastai divides each loss by n_acc/bs
    check(learn.recorder.grads, plain_loop(model, keep.batches, n_acc=2, scale=2))
    assert sorted(learn.recorder.grads.train_iter.unique())==[1, 3, 5, 7, 9]

def test_before_clipping(mlp):
    learn,keep = mlp(cbs=GradRecorder()),Keep()
    model = copy.deepcopy(learn.model)
    # a rate too small to move, so that clipping changes nothing but the gradients
    learn.fit(1, 1e-30, wd=0, cbs=[keep, GradientClip(1e-3)])
    check(learn.recorder.grads, plain_loop(model, keep.batches, lr=1e-30))
    assert learn.recorder.grads.norm.min() > .1

def test_unscaled_and_an_overflow_is_a_gap(mlp):
    learn,keep = mlp(cbs=GradRecorder()),Keep()
    model = copy.deepcopy(learn.model)
    learn.fit(1, .01, wd=0, cbs=[keep, CpuAmp(), Overflow(4)])
    df = learn.recorder.grads
    assert sorted(df.train_iter.unique())==[0, 1, 2, 3, 5, 6, 7, 8, 9] and sorted(df.step.unique())==list(range(9))
    check(df, plain_loop(model, [b for i,b in enumerate(keep.batches) if i!=4]))

@pytest.mark.parametrize('give', ['learner', 'add_cb', 'cbs', 'class'])
def test_ways_to_give_it(mlp, give):
    learn = mlp(**({'cbs': GradRecorder()} if give=='learner' else {'cbs': GradRecorder} if give=='class' else {}))
    if give=='add_cb': learn.add_cb(GradRecorder())
    learn.fit_one_cycle_ext(1, .1, cbs=GradRecorder() if give=='cbs' else None)
    assert len(learn.recorder.grads)==20
    assert learn.recorder.plot_grads().lines
    learn.fit(1)
    assert len(learn.recorder.grads)==(20 if give=='cbs' else 40), 'kept after a second fit'

def test_quiet_where_nothing_is_trained(mlp):
    learn = mlp(cbs=GradRecorder())
    learn.fit(1)
    before = learn.recorder.grads
    learn.validate(); learn.get_preds()
    learn.lr_find(show_plot=False)
    pd.testing.assert_frame_equal(learn.recorder.grads, before)
    learn.fit(1)
    assert learn.recorder.grads.fit.unique().tolist()==[0, 1]
    fresh = mlp(cbs=GradRecorder())
    fresh.lr_find(show_plot=False)
    with pytest.warns(UserWarning, match='No gradients are recorded') as caught: assert not len(fresh.recorder.grads)
    assert caught[0].filename==__file__

def test_unfreezing_changes_the_count_only(mlp):
    learn = mlp(cbs=GradRecorder())
    learn.freeze(); learn.fit(1); learn.unfreeze(); learn.fit(1); learn.freeze(); learn.fit(1)
    assert (learn.recorder.grads.groupby('fit').group.unique().map(list).tolist()
            ==[[1], [0, 1], [1]]), 'zero gradients left on a frozen group are no row'

@pytest.mark.parametrize('what', [KeyboardInterrupt('stop'), RuntimeError('stop')], ids=['ctrl-c', 'error'])
def test_what_was_recorded_survives(mlp, what):
    learn = mlp()
    with pytest.raises(type(what)): learn.fit(2, cbs=[GradRecorder(), Raise(13, what)])
    assert learn.recorder.grads.train_iter.max()==12 and len(learn.recorder.grads)==26, 'the step at 13 was never done'
    learn.fit(1, cbs=GradRecorder())
    assert learn.recorder.grads.groupby('fit').size().tolist()==[26, 20]

def test_cancelled_batches_leave_a_gap(mlp):
    class Skip(Callback):
        def before_batch(self):
            if self.training and self.learn.train_iter%2: raise CancelBatchException
    learn = mlp(cbs=GradRecorder())
    learn.fit(1, cbs=Skip())
    assert learn.recorder.grads.train_iter.unique().tolist()==[0, 2, 4, 6, 8]

@pytest.mark.parametrize('kwargs', [{}, dict(stats=STATS, per='param'), dict(adam=True)],
                         ids=['default', 'all', 'adam'])
def test_nothing_leaves_the_device_in_the_loop(mlp, monkeypatch, kwargs):
    "On a GPU each of these would wait for the device; here they are counted instead"
    learn,used = mlp(cbs=GradRecorder(**kwargs), opt_func=Adam),[]
    inside = []
    for event in ('before_batch', 'before_step', 'after_step'):
        real = getattr(GradRecorder, event)
        def watched(self, real=real):
            inside.append(1)
            try: real(self)
            finally: inside.pop()
        monkeypatch.setattr(GradRecorder, event, watched)
    for name in ('item', 'tolist', 'cpu', 'numpy', '__float__', '__int__', '__bool__', '__array__', 'to'):
        real = getattr(torch.Tensor, name)
        def spy(self, *args, real=real, name=name, **kwargs):
            if inside and not (name=='to' and (isinstance(args[0], torch.dtype) or args[0]==self.device)):
                used.append(name)
            return real(self, *args, **kwargs)
        monkeypatch.setattr(torch.Tensor, name, spy)
    learn.fit(2)
    assert not used and learn.recorder.grads.step.nunique()==20

def test_counts_beyond_float32():
    rows = torch.full((2, 3), torch.nan, dtype=torch.float64)
    GradState([], {}, (), values=rows).write(1, 1, [torch.tensor(2**24+1), torch.tensor(1.5)])
    assert rows[1,1:].tolist()==[2**24+1, 1.5] and rows.isnan().sum()==4

def test_nothing_is_kept_between_steps(mlp):
    "Neither gradients, which the optimizer may free, nor copies of the weights"
    kept = []
    class Look(Callback):
        def after_batch(self):
            if self.training: kept.extend([u.grads, u.weights] for u in rec.now.grad.sets)
    rec = GradRecorder(adam=True)
    mlp(cbs=rec, opt_func=Adam).fit(1, cbs=Look())
    assert len(kept)==20 and all(o==[[], None] for o in kept)

def test_a_check_returns_the_callback(mlp, tmp_path):
    learn = mlp(opt_func=Adam)
    learn.create_opt()
    for cb in (HistoryRecorder(), GradRecorder(), GradRecorder(adam=True), SaveHistory(tmp_path/'x.npz')):
        assert cb.check_fit(learn, learn.opt, [cb]) is cb

def test_two_recorders_are_refused(mlp):
    learn = mlp(cbs=GradRecorder())
    with pytest.raises(ValueError, match='learn.cbs must have one HistoryRecorder or GradRecorder'):
        learn.fit(1, cbs=GradRecorder())
    learn.fit(1)
    assert len(learn.recorder.grads)==20

def test_no_recorder_in_the_learner(mlp):
    from fastai.learner import Recorder
    learn = mlp(cbs=GradRecorder())
    learn.remove_cb(Recorder)
    with pytest.raises(ValueError, match="GradRecorder must have fastai's Recorder"): learn.fit(1)

@pytest.mark.parametrize('opt_func', [SGD, partial(OptimWrapper, opt=torch.optim.Adagrad)], ids=['SGD', 'Adagrad'])
def test_adam_of_an_optimizer_without_squares(mlp, opt_func):
    learn = mlp(opt_func=opt_func, cbs=GradRecorder(adam=True))
    with pytest.raises(ValueError, match='adam must be False for an optimizer that keeps no mean of squared gradients'):
        learn.fit(1)

@pytest.mark.parametrize('every', [1, 2, 3])
def test_every(mlp, every):
    whole,some = [mlp(cbs=GradRecorder(adam=True, every=e), opt_func=Adam) for e in (1, every)]
    for learn in (whole, some):
        torch.manual_seed(1); learn.dls.train.rng.seed(1)
        learn.fit(2)
    df = whole.recorder.grads
    pd.testing.assert_frame_equal(some.recorder.grads, df[df.step%every==0].reset_index(drop=True))

class CancelLate(Callback):
    "Cancels a step after it was recorded"
    order,run_valid = 20,False
    def __init__(self, at): self.at = at
    def before_step(self):
        if self.learn.train_iter in self.at: raise CancelStepException

@pytest.mark.parametrize('what', [CancelBatchException, CancelTrainException], ids=lambda e: e.__name__)
def test_a_step_that_never_came_is_no_row(mlp, what):
    class Late(Callback):
        order = 20
        def before_step(self):
            if self.learn.train_iter in (3, 12): raise what
    learn = mlp(cbs=GradRecorder('update'))
    learn.fit(2, cbs=Late())
    df = learn.recorder.grads.query('group==0')
    assert (not {3, 12} & set(df.train_iter) and df.step.tolist()==list(range(len(df)))
            and not df.update_norm.isna().any())

class Alternating(nn.Module):
    "Uses a layer in one batch of three"
    def __init__(self): super().__init__(); self.a,self.b,self.i = nn.Linear(1, 1),nn.Linear(1, 1),0
    def forward(self, x):
        self.i += 1
        return self.a(x) + (self.b(x)*5 if self.i%3==1 else 0)

def test_cosine_of_other_parameters_is_nan(mlp):
    learn = mlp(model=Alternating(), splitter=lambda m: [list(m.parameters())], cbs=GradRecorder('cosine'),
                opt_func=partial(OptimWrapper, opt=torch.optim.SGD))
    learn.fit(1)
    cosine = learn.recorder.grads.cosine
    assert (cosine.dropna().abs()<=1+1e-6).all() and cosine.isna().tolist()==[i%3!=2 for i in range(10)]

def test_second_derivatives(mlp):
    class Graph(Callback):
        def before_backward(self):
            self.learn.loss_grad.backward(create_graph=True)
            raise CancelBackwardException
    learn = mlp(cbs=[GradRecorder(STATS), Graph()])
    learn.fit(1)
    assert len(learn.recorder.grads)==20

def test_nothing_large_stays_after_the_fit(mlp):
    learn = mlp(cbs=GradRecorder(STATS, adam=True), opt_func=Adam)
    learn.fit(1)
    assert learn.grad_recorder.now is None
    with pytest.raises(KeyboardInterrupt): learn.fit(1, cbs=Raise(3, KeyboardInterrupt()))
    back = pickle.loads(pickle.dumps(learn.grad_recorder.now.grad.sets))
    assert all(not vars(u) for u in back)

def test_a_refused_recorder_leaves_the_learner(mlp):
    learn = mlp()
    with pytest.raises(ValueError, match='adam must be False'):
        learn.fit_one_cycle_ext(1, .3, wd=.5, cbs=GradRecorder(adam=True))
    assert learn.opt is None
    learn.create_opt()
    with pytest.raises(ValueError, match='adam must be False'):
        learn.fit_one_cycle_ext(1, .3, wd=.5, cbs=GradRecorder(adam=True))
    assert learn.opt.hypers[0]['lr']==.01

@pytest.mark.parametrize('every', [1, 2])
def test_a_step_cancelled_later_is_taken_back(mlp, every):
    learn = mlp(cbs=GradRecorder('update', every=every))
    learn.fit(1, cbs=CancelLate((3, 4)))
    df = learn.recorder.grads.query('group==0')
    assert df.step.tolist()==list(range(0, 8, every)) and not df.update_norm.isna().any()
    assert df.train_iter.tolist()==[0, 1, 2, 5, 6, 7, 8, 9][::every]

def test_the_norm_after_clipping_too(mlp):
    learn,seen = mlp(cbs=GradRecorder('clipped'), opt_func=partial(SGD, mom=.9, decouple_wd=False)),[]
    class Look(Callback):
        order,run_valid = GradientClip.order+1,False
        def before_step(self):
            seen.append([torch.cat([p.grad.flatten() for p in ps]).norm().item() for ps in self.learn.opt.param_lists])
    learn.fit(1, .01, wd=.1, cbs=[GradientClip(.5), Look()])
    df = learn.recorder.grads
    assert_allclose(df.clipped_norm, np.ravel(seen), rtol=1e-6)
    total = df.groupby('step').clipped_norm.apply(lambda o: (o**2).sum()**.5)
    assert_allclose(total, .5, rtol=1e-4) # both groups together were clipped to .5
    assert (df.norm > df.clipped_norm).all()
    with pytest.raises(KeyboardInterrupt): learn.fit(1, cbs=[GradientClip(.5), Raise(3, KeyboardInterrupt())])
    learn.fit(1)
    assert ([type(cb).__name__ for cb in learn.cbs].count('AfterClip')==0
            and learn.recorder.grads.clipped_norm.notna().all())

RECORDER_BAD = [(dict(stats='median'), "stats must be among"), (dict(stats=[1]), 'stats must'),
                (dict(stats=None), 'stats must'), (dict(per='module'), "per must be 'group', 'layer' or 'param'"),
                (dict(every=0), 'every must be a whole number of at least 1'), (dict(every=1.5), 'every must'),
                (dict(adam='yes'), 'adam must be True or False')]

@pytest.mark.parametrize('kwargs,says', RECORDER_BAD, ids=str)
def test_bad_requests(kwargs, says):
    with pytest.raises(ValueError, match=says): GradRecorder(**kwargs)

def test_complex_parameters_and_adam(mlp):
    model = nn.Sequential(nn.Linear(1, 8), nn.ReLU(), nn.Linear(8, 1))
    model[2].shift = nn.Parameter(torch.zeros(3, dtype=torch.cfloat))
    with pytest.raises(ValueError, match='adam must be False for complex parameters.*complex64'):
        mlp(model=model, cbs=GradRecorder(adam=True), opt_func=Adam).fit(1)

def test_the_cosine_is_with_a_step_that_was_done(mlp):
    class Cancel(Callback):
        order = 12
        def before_step(self):
            if self.learn.train_iter==3: raise CancelStepException
    tape,learn = Tape(),mlp(n_trn=6, cbs=GradRecorder('cosine'), splitter=lambda m: [list(m.parameters())])
    learn.fit(1, .1, cbs=[tape, Cancel()])
    g = [torch.cat([t.ravel() for t in s['g'].values()]) for s in tape.steps]
    df = learn.recorder.grads.set_index('train_iter')
    assert 3 not in df.index and df.cosine[4]==pytest.approx((g[4]@g[2]/g[4].norm()/g[2].norm()).item(), rel=1e-5)

def test_what_an_interrupted_fit_leaves_is_removed(mlp):
    class Stop(Callback):
        order = 12
        def before_step(self): raise KeyboardInterrupt
    learn = mlp()
    with pytest.raises(KeyboardInterrupt): learn.fit(1, cbs=[GradRecorder('clipped'), Stop()])
    learn.model[0].requires_grad_(False)
    for p in learn.model[0].parameters(): p.grad = None
    learn.fit(1)
    assert 'clip' not in str(learn.cbs).lower() and len(learn.recorder.losses)==10

def test_lazy_modules(mlp):
    learn = mlp(model=nn.Sequential(nn.LazyLinear(3), nn.ReLU(), nn.Linear(3, 1)), cbs=GradRecorder())
    learn.fit(1)
    assert learn.recorder.grads.n_params.tolist()==[6, 4]*10

def test_predictions_need_no_optimizer(mlp):
    "A recorder that needs squares of gradients keeps quiet while nothing is trained"
    learn = mlp(cbs=GradRecorder(adam=True), opt_func=Adam)
    assert len(learn.get_preds()[0]) and learn.validate()[0]>0
    with pytest.raises(ValueError, match='adam must be False'): mlp(cbs=GradRecorder(adam=True)).fit(1)

@pytest.mark.parametrize('event', ['after_pred', 'after_loss', 'before_step'])
def test_an_interrupted_batch_has_no_gradient_of_the_next(mlp, event):
    "fastai counts the next batch by the same number"
    learn = mlp(cbs=GradRecorder())
    learn.fit(2, cbs=Stop(event, 3, CancelTrainException()))
    df = learn.recorder.history.steps
    assert (df.train_iter.tolist()[2:5]==[2, 3, 3]
            and df.mean_abs_0.isna().tolist()==[False]*3 + [True] + [False]*(len(df)-4))
    assert df.epoch.tolist()[2:5]==[0, 0, 1]

@pytest.mark.parametrize('per', ['layer', 'param'])
@pytest.mark.parametrize('part', [False, True], ids=['whole', 'a part'])
def test_a_compiled_model_is_recorded_as_the_users(mlp, per, part):
    def net(): return nn.Sequential(nn.Linear(1, 8), nn.ReLU(), nn.Linear(8, 1))
    model = net()
    if part: model[0] = torch.compile(model[0], backend='eager')
    else: model = torch.compile(model, backend='eager')
    both = []
    for m in (model, net()):
        torch.manual_seed(0)
        for p in m.parameters(): nn.init.normal_(p)
        learn = mlp(model=m, splitter=lambda m: [list(m.parameters())], cbs=GradRecorder(STATS, per=per))
        learn.fit(1, .01)
        both.append(learn.recorder.grads)
    pd.testing.assert_frame_equal(*both, rtol=1e-4)
    assert set(both[0].layer)==({'0', '2'} if per=='layer' else {'0.weight', '0.bias', '2.weight', '2.bias'})

@pytest.mark.parametrize('stats', ['weight', 'update', 'cosine', 'clipped', 'hist', 'max'])
@pytest.mark.parametrize('adam', [False, True])
def test_every_recorder_can_be_pickled(mlp, stats, adam):
    back = pickle.loads(pickle.dumps(GradRecorder(stats, adam=adam)))
    assert back.columns==GradRecorder(stats, adam=adam).columns
    learn = mlp(cbs=back, opt_func=Adam)
    learn.fit(1)
    assert len(learn.recorder.grads)==20

class Complex(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.c = nn.Parameter(torch.randn(1, 1, dtype=torch.cfloat))
    def forward(self, x): return (x.to(torch.cfloat)@self.c).abs()

def test_the_update_of_complex_parameters(mlp):
    class Tape(Callback):
        order = 11.5
        def before_fit(self): self.rows = []
        def before_step(self): self.before = self.learn.model.c.detach().clone()
        def after_step(self):
            change = torch.view_as_real(self.learn.model.c.detach()-self.before).double()
            self.rows.append(float(change.square().sum().sqrt()))
    tape = Tape()
    learn = mlp(model=Complex(), splitter=lambda m: [list(m.parameters())], cbs=[GradRecorder('update'), tape])
    learn.fit_one_cycle_ext(1, 1e-2)
    assert_allclose(learn.recorder.grads.update_norm, tape.rows, rtol=1e-5)

def test_the_gradients_of_a_model_that_takes_the_place_of_another(mlp):
    class Swap(Callback):
        order = 0
        def before_epoch(self):
            if self.epoch!=1: return
            self.learn.model = copy.deepcopy(self.learn.model)
            self.learn.create_opt()
    class Truth(Callback):
        order = 12
        def before_fit(self): self.rows = []
        def before_step(self): self.rows.append(float(sum(p.grad.abs().sum() for p in self.learn.model.parameters())))
    truth = Truth()
    learn = mlp(cbs=[GradRecorder(), truth])
    learn.fit(2, .01, cbs=Swap())
    grads = learn.recorder.grads
    total = (grads.mean_abs*grads.n_params).groupby([grads.fit, grads.step]).sum()
    assert_allclose(total, truth.rows, rtol=1e-5)
