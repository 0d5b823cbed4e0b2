import copy
import numpy as np, pandas as pd, pytest, torch
from numpy.testing import assert_allclose
from torch import nn
from torch.amp import GradScaler, autocast
from fastai.callback.core import Callback, CancelBatchException
from fastai.callback.fp16 import MixedPrecision
from fastai.callback.schedule import *
from fastai.callback.training import GradientAccumulation, GradientClip
from fastai.data.core import Datasets
from fastai.learner import load_learner
from fastai_clr_ext.record import *
from fastai_clr_ext.one_cycle import *
from fastai_clr_ext.plot import *
from conftest import two_groups

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
    assert_allclose(df[['step', 'group', 'mean_abs', 'norm', 'n_params']].to_numpy(float), np.array(want, dtype=float), rtol=1e-6)

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
    check(learn.recorder.grads, plain_loop(model, keep.batches, n_acc=2, scale=2)) # fastai divides each loss by n_acc/bs
    assert sorted(learn.recorder.grads.train_iter.unique())==[1, 3, 5, 7, 9]

def test_before_clipping(mlp):
    learn,keep = mlp(cbs=GradRecorder()),Keep()
    model = copy.deepcopy(learn.model)
    learn.fit(1, 1e-30, wd=0, cbs=[keep, GradientClip(1e-3)]) # a rate too small to move, so that clipping changes nothing but the gradients
    check(learn.recorder.grads, plain_loop(model, keep.batches, lr=1e-30))
    assert learn.recorder.grads.norm.min() > .1

class CpuAmp(MixedPrecision):
    "fastai's mixed precision with a real scaler that works without a GPU"
    def before_fit(self):
        self.learn.scaler = GradScaler('cpu', init_scale=2.**10, growth_interval=1000)
        self.autocast,self.scales = autocast('cpu', enabled=False),[]

class Overflow(Callback):
    "Puts an infinity into one gradient at one iteration"
    order,run_valid = MixedPrecision.order-1,False
    def __init__(self, at): self.at = at
    def before_step(self):
        if self.learn.train_iter==self.at: next(self.learn.model.parameters()).grad.fill_(float('inf'))

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
    with pytest.raises(ValueError, match='No gradients are recorded'): fresh.recorder.grads

def test_unfreezing_changes_the_count_only(mlp):
    learn = mlp(cbs=GradRecorder())
    learn.freeze(); learn.fit(1); learn.unfreeze(); learn.fit(1); learn.freeze(); learn.fit(1)
    assert learn.recorder.grads.groupby('fit').group.unique().map(list).tolist()==[[1], [0, 1], [1]], 'zero gradients left on a frozen group are no row'

class Raise(Callback):
    order = 2000
    def __init__(self, at, what): self.at,self.what = at,what
    def before_step(self):
        if self.learn.train_iter==self.at: raise self.what

@pytest.mark.parametrize('what', [KeyboardInterrupt('stop'), RuntimeError('stop')], ids=['ctrl-c', 'error'])
def test_what_was_recorded_survives(mlp, what):
    learn = mlp()
    with pytest.raises(type(what)): learn.fit(2, cbs=[GradRecorder(), Raise(13, what)])
    assert learn.recorder.grads.train_iter.max()==13 and len(learn.recorder.grads)==28
    learn.fit(1, cbs=GradRecorder())
    assert learn.recorder.grads.groupby('fit').size().tolist()==[28, 20]

def test_cancelled_batches_leave_a_gap(mlp):
    class Skip(Callback):
        def before_batch(self):
            if self.training and self.learn.train_iter%2: raise CancelBatchException
    learn = mlp(cbs=GradRecorder())
    learn.fit(1, cbs=Skip())
    assert learn.recorder.grads.train_iter.unique().tolist()==[0, 2, 4, 6, 8]

def test_blocks_join_without_a_seam(mlp):
    whole,cut = mlp(cbs=GradRecorder()),mlp(cbs=GradRecorder())
    cut.recorder.grad_log = GradLog(block_size=3)
    for learn in (whole, cut):
        torch.manual_seed(1); learn.dls.train.rng.seed(1)
        learn.fit(2)
    assert len(cut.recorder.grad_log.rows)==6 and not whole.recorder.grad_log.rows
    pd.testing.assert_frame_equal(cut.recorder.grads, whole.recorder.grads)

def to_x(i): return torch.tensor([i/100])
def to_y(i): return torch.tensor([i/50 + 1])

def test_export_and_load(mlp, tmp_path):
    learn = mlp(cbs=GradRecorder())
    learn.dls = Datasets(range(176), [[to_x], [to_y]], splits=[range(160), range(160, 176)]).dataloaders(bs=16, num_workers=0)
    learn.fit_one_cycle_ext(1, .1)
    learn.path = tmp_path
    learn.export()
    back = load_learner(tmp_path/'export.pkl')
    pd.testing.assert_frame_equal(back.recorder.grads, learn.recorder.grads)
    assert back.recorder.plans==learn.recorder.plans
    learn.fit(1)
    assert len(learn.recorder.grads)==40

def test_nothing_leaves_the_device_in_the_loop(mlp, monkeypatch):
    "On a GPU each of these would wait for the device; here they are counted instead"
    learn,used = mlp(cbs=GradRecorder()),[]
    inside = []
    orig = GradRecorder.before_step
    def watched(self):
        inside.append(1)
        try: orig(self)
        finally: inside.pop()
    monkeypatch.setattr(GradRecorder, 'before_step', watched)
    for name in ('item', 'tolist', 'cpu', 'numpy', '__float__', '__int__', '__bool__', '__array__', 'to'):
        real = getattr(torch.Tensor, name)
        def spy(self, *args, real=real, name=name, **kwargs):
            if inside and not (name=='to' and args[0]==self.device): used.append(name)
            return real(self, *args, **kwargs)
        monkeypatch.setattr(torch.Tensor, name, spy)
    learn.fit(2)
    assert not used and len(learn.recorder.grads)==40

def test_half_precision_and_sparse_gradients():
    w = nn.Parameter(torch.zeros(300, 300, dtype=torch.float16)); w.grad = torch.full((300, 300), 2., dtype=torch.float16)
    total,norm,n = grad_sums([w])
    assert (total.item(), norm.item(), n)==(180_000., 600., 90_000), 'a float16 sum would be infinite'
    emb = nn.Embedding(10, 4, sparse=True)
    emb(torch.tensor([1, 1, 3])).sum().backward()
    total,norm,n = grad_sums(list(emb.parameters()))
    assert (total.item(), n)==(12., 40) and norm.item()==pytest.approx((4*4+4)**.5)

def test_two_recorders_are_refused(mlp):
    learn = mlp(cbs=GradRecorder())
    with pytest.raises(ValueError, match='must have one GradRecorder.*got 2'): learn.fit(1, cbs=GradRecorder())
    learn.fit(1)
    assert len(learn.recorder.grads)==20

def test_no_recorder_in_the_learner(mlp):
    from fastai.learner import Recorder
    learn = mlp(cbs=GradRecorder())
    learn.remove_cb(Recorder)
    with pytest.raises(ValueError, match='must have a Recorder'): learn.fit(1)
