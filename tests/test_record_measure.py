"Sums over gradients: precision, odd tensors, and the moments of every relative of Adam"
from functools import partial
import numpy as np, pytest, torch
from torch import nn
from fastai.optimizer import Adam, Lamb, OptimWrapper, RAdam, RMSProp, ranger
from fastai_clr_ext.record import *
from fastai_clr_ext.record.measure import (adam_moments, adam_sums, aligned_parts, bias_correction, cosine_parts,
                                           histogram, l2_norm, update_norm, weight_norm)
from fastai_clr_ext.record.params import ParamSet
from fastai_clr_ext.record.statistics import measure
from fastai_clr_ext.train import *
from conftest import Spy, use_lists
from record_helpers import *

def sums(*params):
    u = ParamSet('', 0, list(params))
    u.gather()
    return *(v.item() for v in measure(u, ['mean_abs', 'norm'])), u.n_params

def test_half_precision_and_sparse_gradients():
    w = nn.Parameter(torch.zeros(300, 300, dtype=torch.float16))
    w.grad = torch.full((300, 300), 2., dtype=torch.float16)
    assert sums(w)==(180_000., 600., 90_000), 'a float16 sum would be infinite'
    w = nn.Parameter(torch.zeros(250, 160, dtype=torch.float16))
    w.grad = torch.full((250, 160), 2., dtype=torch.float16)
    assert sums(w)==(80_000., 400., 40_000), 'and a small one is joined'
    emb = nn.Embedding(10, 4, sparse=True)
    emb(torch.tensor([1, 1, 3])).sum().backward()
    assert sums(*emb.parameters())==(12., pytest.approx((4*4+4)**.5), 40)
    emb.weight.grad = None
    emb(torch.tensor([], dtype=torch.long)).sum().backward()
    u = ParamSet('', 0, [emb.weight])
    assert u.gather() and not any(measure(u, ['mean_abs', 'max', 'zeros', 'norm'])), 'no entry is stored'
    assert [int(n) for n in measure(u, ['hist'])]==[40] + [0]*63

def test_complex_parameters():
    w = nn.Parameter(torch.tensor([3+4j, 0])); w.grad,u = w.detach().clone(),ParamSet('', 0, [w])
    u.gather()
    assert [v.item() for v in measure(u, ['mean_abs', 'max', 'zeros', 'norm'])]==[5., 5., 1, 5.] and w.grad[0]==3+4j
    assert l2_norm([w.detach()])==5

def test_norms_are_right_for_the_magnitudes_that_the_docs_name():
    for scale in (1e-18, 1e-9, 1e9, 1e18):
        w = nn.Parameter(torch.zeros(500)); w.grad = torch.linspace(.1, 1, 500)*scale
        (u := ParamSet('', 0, [w])).gather()
        assert measure(u, ['norm'])[0].item()==pytest.approx(w.grad.double().norm().item(), rel=1e-6)

def test_norm_and_cosine_of_many_entries():
    "torch's own norm in float32 is 6e-5 and 1e-3 off here on a CPU"
    for g in (torch.full((3_000_001,), .0123), torch.randn(3_000_001)):
        w = nn.Parameter(torch.zeros_like(g)); w.grad,u = g.clone(),ParamSet('', 0, [w])
        u.gather()
        assert measure(u, ['norm'])[0].item()==pytest.approx(g.double().norm().item(), rel=1.5e-6)
        assert torch.equal(w.grad, g)
        cosine_parts(u); u.release(done=True); u.gather()
        dot,norm = cosine_parts(u)
        assert (dot/norm**2).item()==pytest.approx(1, rel=3e-6)

def test_parts_are_of_the_same_entries_whatever_the_order_of_the_memory():
    a = torch.arange(1024.*90*9).view(1024, 90, 3, 3)
    b = a.to(memory_format=torch.channels_last)
    for first,second in ((a, b), (b, a)):
        parts = list(aligned_parts(first, second))
        assert len(parts)==4 and all(torch.equal(x, y) for x,y in parts)
        assert torch.equal(torch.cat([x for x,_ in parts]).sort().values, a.flatten())
    storage = b.untyped_storage().data_ptr()
    assert all(x.untyped_storage().data_ptr()==storage for x,_ in aligned_parts(b, b)), 'no copy is made'

@pytest.mark.parametrize('sides,whole', [([3.], 3), ([3., 4.], 5), ([2., 3., 6.], 7), ([1., 2., 4., 10.], 11)])
def test_norms_of_any_number_of_tensors(sides, whole):
    "Right angles in one to four dimensions; an update has a tensor for each large weight"
    assert l2_norm([torch.tensor([side]) for side in sides])==whole
    u = ParamSet('', 0, [])
    u.weights,u.trainable = [torch.zeros(2**17) for _ in sides],[torch.zeros(2**17) for _ in sides]
    for weight,side in zip(u.trainable, sides): weight[5] = side
    assert update_norm(u)==[whole] and weight_norm(u)==[0]

def test_what_lies_outside_is_in_the_outermost_bins():
    "Bin 40 begins at 1, the lowest at 2**-40 and the highest at 2**23"
    a = torch.tensor([0., 2.**-60, 2.**-39.5, 1., 1.9, 2.**23, 2.**23.99, 2.**24, 2.**24.5, 2.**60, float('inf')])
    assert {i: int(n) for i,n in enumerate(histogram(a)) if n}=={0: 3, 40: 2, 63: 6}

def test_histogram_counts_beyond_float32():
    class U: grads,n_unstored = [torch.zeros(2**24+3), torch.ones(5)],0
    counts = measure(U, ['hist'])
    assert counts[0]==2**24+3 and counts[40]==5

def test_the_bias_of_no_momentum(): assert bias_correction(0., torch.tensor(3.))==1==bias_correction(0., 3)

def test_parameters_of_one_group_whose_steps_differ():
    "The correction is each parameter's own: one was trained two steps longer than the other"
    a,b = [nn.Parameter(torch.tensor([1., 2.])) for _ in range(2)]
    opt = Adam([a, b], lr=.1, eps=.3, wd=0.)
    a.grad = torch.tensor([.5, -1.]); opt.step(); opt.step()
    b.grad,before = torch.tensor([2., .1]),torch.stack([a, b]).detach().clone()
    u = ParamSet('', 0, [a, b]); u.gather()
    opt.step()
    moved = (torch.stack([a, b])-before).abs()
    root = torch.stack([a.grad.abs(), b.grad.abs()]).sum() # of a constant gradient √v̂ is |g|
    assert ([v.item() for v in adam_sums(u, opt, opt.hypers)]
            ==pytest.approx([root.item(), moved.sum().item(), moved.max().item()], rel=1e-5))

def test_half_precision_adam_is_finite(mlp):
    w = nn.Parameter(torch.zeros(300_000, dtype=torch.float16))
    w.grad,u = torch.ones_like(w),ParamSet('', 0, [w])
    u.gather()
    opt = Adam([w], lr=.01, eps=1e-4); opt.step()
    assert all(np.isfinite(v.item()) for v in adam_sums(u, opt, opt.hypers))

ADAMS = {'Adam': Adam, 'Lamb': Lamb, 'RAdam': RAdam, 'ranger': ranger, 'RMSProp': RMSProp,
         'RMSProp mom': partial(RMSProp, mom=.9),
         **{f'torch {c.__name__}': partial(OptimWrapper, opt=c)
            for c in (torch.optim.Adam, torch.optim.AdamW, torch.optim.NAdam, torch.optim.RAdam, torch.optim.RMSprop)},
         'torch RMSprop mom': partial(OptimWrapper, opt=partial(torch.optim.RMSprop, momentum=.9)),
         'torch amsgrad': partial(OptimWrapper, opt=partial(torch.optim.Adam, amsgrad=True))}

REAL = ['Adam', 'RMSProp', 'RMSProp mom', 'torch Adam', 'torch AdamW', 'torch RMSprop', 'torch RMSprop mom',
        'torch amsgrad']

BIASED = [k for k in ADAMS if 'RMS' not in k and k!='torch amsgrad'] # what Kingma and Ba's formula is the whole of

@pytest.mark.filterwarnings('ignore:The optimizer was built with momentum 0')
@pytest.mark.parametrize('path', ['set by set', 'lists'])
@pytest.mark.parametrize('name', ADAMS)
def test_the_effective_step(mlp, name, path, monkeypatch):
    "Where the formula is the whole update, it is what the weights moved by, to what float32 leaves of a difference"
    if path=='lists': use_lists(monkeypatch)
    tape,learn = Tape(),mlp(opt_func=ADAMS[name], cbs=GradRecorder(adam=True))
    learn.fit_one_cycle_ext(2, .01, wd=0, cbs=tape) # β₁ is cycled
    df = learn.recorder.grads
    assert (df[['sqrt_v', 'eff_step', 'eff_step_max']] > 0).all().all()
    for i,s in enumerate(tape.steps if name in REAL else []):
        for g in (0, 1):
            moved = torch.cat([(s['new'][n]-s['w'][n]).abs().ravel() for n in s['g'] if n.startswith(f'{2*g}.')])
            r = df[(df.step==i) & (df.group==g)].iloc[0]
            want = moved.mean().item(), moved.max().item()
            assert (r.eff_step, r.eff_step_max)==pytest.approx(want, rel=1e-3, abs=1e-7)

@pytest.mark.filterwarnings('ignore:The optimizer was built with momentum 0')
def count_on_device(monkeypatch):
    "Give the counts of steps as tensors, as torch's fused Adam keeps them on a device"
    def moments(*args):
        m,v,step = adam_moments(*args)
        return m, v, None if step is None else torch.tensor(float(step))
    monkeypatch.setattr('fastai_clr_ext.record.foreach.adam_moments', moments)

@pytest.mark.filterwarnings('ignore:The optimizer was built with momentum 0')
@pytest.mark.parametrize('sqr_mom', [.99, .999, .99999])
@pytest.mark.parametrize('path', ['set by set', 'lists', 'counts on the device'])
@pytest.mark.parametrize('name', BIASED)
def test_adams_formula(mlp, name, sqr_mom, path, monkeypatch):
    "As worked out in float64 from the gradients alone, whether or not it is the whole update"
    if path!='set by set': use_lists(monkeypatch)
    if path=='counts on the device': count_on_device(monkeypatch)
    torchs = name.startswith('torch')
    opt_func = partial(ADAMS[name], **dict(betas=(.9, sqr_mom)) if torchs else dict(sqr_mom=sqr_mom))
    tape,spy,learn = Tape(),Spy(),mlp(opt_func=opt_func, cbs=GradRecorder(adam=True))
    learn.fit_one_cycle_ext(2, .01, wd=0, cbs=[tape, spy])
    df = learn.recorder.grads
    m,v = [dict.fromkeys(tape.steps[0]['g'], 0.) for _ in range(2)]
    for i,(s,hypers) in enumerate(zip(tape.steps, spy.rows)):
        for g,h in enumerate(hypers):
            names = [n for n in s['g'] if n.startswith(f'{2*g}.')]
            m |= {n: h['mom']*m[n] + (1-h['mom'])*s['g'][n] for n in names}
            v |= {n: h['sqr_mom']*v[n] + (1-h['sqr_mom'])*s['g'][n]**2 for n in names}
            c1,c2 = 1-h['mom']**(i+1), 1-h['sqr_mom']**(i+1)
            root = torch.cat([(v[n]/c2).sqrt().ravel() for n in names])
            step = torch.cat([(h['lr']*(m[n]/c1)/((v[n]/c2).sqrt()+h['eps'])).abs().ravel() for n in names])
            r = df[(df.step==i) & (df.group==g)].iloc[0]
            assert r.sqrt_v==pytest.approx(root.mean().item(), rel=1e-6)
            assert (r.eff_step, r.eff_step_max)==pytest.approx((step.mean().item(), step.max().item()), rel=1e-6)

@pytest.mark.parametrize('small', [2**16, 0], ids=['joined', 'each alone'])
def test_sqrt_v_and_steps_by_hand(mlp, monkeypatch, small):
    "v̂ of Adam from the gradients alone, in float64; with a large ε, the weights' moves"
    monkeypatch.setattr('fastai_clr_ext.record.measure.SMALL_TENSOR', small)
    tape,learn = Tape(),mlp(opt_func=partial(Adam, eps=.3), cbs=GradRecorder(adam=True))
    learn.fit(1, .01, wd=0, cbs=tape)
    v = {n: 0. for n in tape.steps[0]['g']}
    for i,s in enumerate(tape.steps):
        v = {n: .99*v[n] + .01*g**2 for n,g in s['g'].items()}
        want = torch.cat([(v[n]/(1-.99**(i+1))).sqrt().ravel() for n in v if n.startswith('0')]).mean()
        r = learn.recorder.grads.query(f'step=={i} and group==0').iloc[0]
        moved = torch.cat([(s['new'][n]-s['w'][n]).abs().ravel() for n in v if n.startswith('0')])
        assert r.sqrt_v==pytest.approx(want.item(), rel=1e-5)
        assert (r.eff_step, r.eff_step_max)==pytest.approx((moved.mean().item(), moved.max().item()),
                                                           rel=1e-3, abs=1e-7)

def test_centered_rmsprop(mlp):
    tape,learn = Tape(),mlp(opt_func=partial(OptimWrapper, opt=partial(torch.optim.RMSprop, centered=True, alpha=.5)),
                            cbs=GradRecorder(adam=True))
    learn.fit(1, .01, wd=0, cbs=tape)
    for i,s in enumerate(tape.steps):
        moved = torch.cat([(s['new'][n]-s['w'][n]).abs().ravel() for n in s['w'] if n.startswith('0')])
        assert (learn.recorder.grads.query(f'step=={i} and group==0').eff_step.item()
                ==pytest.approx(moved.mean().item(), rel=1e-3))
