"Named cycles, against the original classes of fastai and torch"
import json
from pathlib import Path
import numpy as np, pytest, torch
from numpy.testing import assert_allclose
from fastai.callback.progress import ProgressCallback
from fastai.callback.schedule import fine_tune # and `fit_one_cycle`, `fit_flat_cos` # noqa: F401
from fastai.test_utils import synth_learner
from fastai_clr_ext.schedule import *
from fastai_clr_ext.schedule.presets import PRESETS
from conftest import Spy

CASES = json.loads(Path(__file__).with_name('legacy_schedules.json').read_text())
"What the original classes of fastai 0.7 and v1 set, batch by batch; made by running those classes"

def legacy(c):
    if c['kind']=='use_clr_beta': return clr_beta_07(c['div'], c['pct'], c['max_mom'], c['min_mom'])
    if c['kind']=='use_clr': return clr_07(c['div'], c['cut_div'], c['max_mom'], c['min_mom'])
    return one_cycle_v1((c['max_mom'], c['min_mom']), c['div_factor'], c['pct_start'], c['final_div'])

@pytest.mark.parametrize('c', CASES, ids=lambda c: f"{c['kind']}-{c['n_iter']}-{c['lr_max']}")
def test_legacy_classes(c):
    t = legacy(c).table(c['n_iter'], c['lr_max'])
    assert_allclose(t['lr'][c['batches']], c['lr'], rtol=1e-12, atol=0)
    assert_allclose(t['mom'][c['batches']], c['mom'], rtol=1e-12, atol=0)

@pytest.mark.parametrize('cut_div', range(2, 200))
def test_clr_07_cuts_where_integer_division_does(cut_div):
    for n in (3*cut_div, 7*cut_div, 7*cut_div+1, 1000*cut_div):
        assert clr_07(10, cut_div).table(n)['lr'].argmax()==n//cut_div

# the installed fastai, trained for real

def trained(fit, n_trn, n_epoch, **kwargs):
    "What the optimizer was set to at each step of a fit"
    spy = Spy()
    learn = synth_learner(n_trn=n_trn, n_val=1).remove_cb(ProgressCallback)
    learn.logger = lambda *_: None
    getattr(learn, fit)(n_epoch, cbs=spy, **kwargs)
    return {k: np.array(spy.column(k))[:,0] for k in ('lr', 'mom')}

rng = np.random.default_rng(0)

FASTAI = [dict(div=rng.uniform(1.5, 50), div_final=10**rng.uniform(0, 6), pct_start=rng.uniform(.05, .8),
               moms=tuple(rng.uniform(.5, .99, 3).tolist()))
          for _ in range(200)]

def test_fit_one_cycle_of_fastai():
    "Excluded: so large a pct_start that annealing gets no batch, which we refuse and fastai trains"
    for i,kw in enumerate(FASTAI):
        n_trn,n_epoch,lr = 5+i%7, 1+i%4, 10**rng.uniform(-4, 1)
        t = trained('fit_one_cycle', n_trn, n_epoch, lr_max=lr, **kw)
        mine = one_cycle_fastai(**kw).table(n_trn*n_epoch, lr)
        for k in t: assert_allclose(mine[k], t[k], rtol=1e-7, atol=0, err_msg=f'{k} of {kw} over {n_trn}x{n_epoch}')

def test_fit_flat_cos_of_fastai():
    for i in range(200):
        n_trn,n_epoch,lr = 5+i%7, 1+i%4, 10**rng.uniform(-4, 1)
        kw = dict(div_final=10**rng.uniform(0, 6), pct_start=rng.uniform(.05, .8))
        t = trained('fit_flat_cos', n_trn, n_epoch, lr=lr, **kw)
        assert_allclose(flat_cos(**kw).table(n_trn*n_epoch, lr)['lr'], t['lr'], rtol=1e-7, atol=0,
                        err_msg=f'{kw} over {n_trn}x{n_epoch}')

# the installed torch, stepped for real

def stepped(sched_class, n, adam=False, **kwargs):
    "Rate and momentum that a torch scheduler sets, batch by batch"
    p = torch.nn.Parameter(torch.zeros(1))
    opt = torch.optim.Adam([p], lr=.1) if adam else torch.optim.SGD([p], lr=.1, momentum=.9)
    sched,lrs,moms = sched_class(opt, **kwargs),[],[]
    for i in range(n):
        g = opt.param_groups[0]
        lrs.append(g['lr']); moms.append(g['betas'][0] if adam else g['momentum'])
        opt.step()
        if i<n-1: sched.step()
    return np.array(lrs), np.array(moms)

def test_one_cycle_lr_of_torch():
    "Excluded: pct_start>=.5 with three phases (torch never anneals), phases of no batch (torch divides by 0 or skips)"
    r = np.random.default_rng(1)
    for i in range(200):
        three,n = bool(i%2), int(r.integers(20, 400))
        kw = dict(pct_start=r.uniform(.11, .44 if three else .9), anneal_strategy=('cos', 'linear')[i%3==0],
                  cycle_momentum=i%5>0, base_momentum=r.uniform(.5, .9), max_momentum=r.uniform(.9, .99),
                  div_factor=r.uniform(2, 50), final_div_factor=10**r.uniform(-1, 5), three_phase=three)
        lr_max = 10**r.uniform(-4, 1)
        lrs,moms = stepped(torch.optim.lr_scheduler.OneCycleLR, n, adam=i%7==0, max_lr=lr_max, total_steps=n, **kw)
        t = one_cycle_torch(**kw).table(n, lr_max)
        assert_allclose(t['lr'], lrs, rtol=1e-12, atol=1e-15*lr_max, err_msg=str(kw))
        if kw['cycle_momentum']: assert_allclose(t['mom'], moms, rtol=1e-12, atol=0, err_msg=str(kw))
        else: assert 'mom' not in t

def test_cyclic_lr_of_torch():
    r = np.random.default_rng(2)
    for i in range(200):
        up,down,n_cycles,mode = (int(r.integers(2, 30)), int(r.integers(2, 30)), int(r.integers(1, 6)),
                                 ('triangular', 'triangular2', 'exp_range')[i%3])
        n,div,lr_max,gamma = (up+down)*n_cycles, r.uniform(1.5, 50), 10**r.uniform(-4, 1), r.uniform(.97, 1)
        lrs,moms = stepped(torch.optim.lr_scheduler.CyclicLR, n, base_lr=lr_max/div, max_lr=lr_max, step_size_up=up,
                           step_size_down=down, mode=mode, gamma=gamma,
                           cycle_momentum=True, base_momentum=.8, max_momentum=.95)
        t = triangular(n_cycles, div, up/(up+down), mode, decay=gamma**n, moms=(.95, .8)).table(n, lr_max)
        assert_allclose(t['lr'], lrs, rtol=1e-12, atol=0, err_msg=f'{mode} {up} {down} {n_cycles}')
        assert_allclose(t['mom'], moms, rtol=1e-12, atol=0)

CONTINUOUS = [one_cycle(), clr_beta_07(10, 13.68, .95, .85), clr_07(32, 8, .95, .85), one_cycle_v1(),
              one_cycle_fastai(), one_cycle_torch(), one_cycle_torch(three_phase=True),
              *[triangular(4, mode=m, moms=(.95, .85)) for m in ('triangular', 'triangular2', 'exp_range')],
              constant(.9), warmup_cosine(), wsd(), flat_cos()]

@pytest.mark.parametrize('c', CONTINUOUS, ids=range(len(CONTINUOUS)))
def test_no_jump_between_phases(c):
    for p,q in zip(c.phases, c.phases[1:]):
        for name in c.hypers: assert p.hypers[name][1]==pytest.approx(q.hypers[name][0], abs=1e-15)
    pos = np.linspace(0, 1, 20001)
    for name in c.hypers:
        assert np.abs(np.diff([c.at(x, name) for x in pos])).max() < .02 # `wsd` leaves its plateau by a square root

BAD = {
    'div': (lambda: one_cycle(div=1), 'div must be above 1.*got 1'),
    'div nan': (lambda: one_cycle(div=float('nan')), 'div must be above 1'),
    'div_final': (lambda: one_cycle(div_final=.5), 'div_final must be at least 1; math.inf ends at 0; got 0.5'),
    'pct_start': (lambda: one_cycle(pct_start=0), r'pct_start must lie in \(0, 0.9\)'),
    'pct_final': (lambda: one_cycle(pct_final=1), r'pct_final must lie in \[0, 1\)'),
    'together': (lambda: one_cycle(pct_start=.6, pct_final=.5),
                 r'pct_start must lie in \(0, 0.5\) when pct_final=0.5; got 0.6'),
    'div_final unused': (lambda: one_cycle(pct_final=0, div_final=100), 'div_final must be None when pct_final=0'),
    'moms': (lambda: one_cycle(moms=(.9, .8)), r'moms must be 3 momenta in \[0, 1\)'),
    'pct of 100': (lambda: clr_beta_07(10, 100), r'percentage in \(0, 100\)'),
    'pct of 0': (lambda: clr_beta_07(10, 0), r'percentage in \(0, 100\)'),
    'three values': (lambda: clr_beta_07(10, 10, .95), r'\(max_mom, min_mom\) of use_clr_beta must be 2 momenta'),
    'cut_div': (lambda: clr_07(10, 1), 'cut_div of use_clr must be above 1'),
    'three phases': (lambda: one_cycle_torch(pct_start=.6, three_phase=True),
                     'pct_start must be below .5 with three_phase'),
    'anneal_strategy': (lambda: one_cycle_torch(anneal_strategy='exp'), "be 'cos' or 'linear'"),
    'milestones': (lambda: step_decay((.5, .5)), 'milestones must be increasing'),
    'gamma': (lambda: step_decay(gamma=1), r'gamma must lie in \(0, 1\)'),
    'mode': (lambda: triangular(mode='saw'), 'mode must be'),
    'flat all the time': (lambda: flat_cos(pct_start=1), r'pct_start must lie in \(0, 1\); got 1'),
    'v1 without a rise': (lambda: one_cycle_v1(pct_start=0), r'pct_start must lie in \(0, 1\); got 0'),
    'fastai without a rise': (lambda: one_cycle_fastai(pct_start=0), r'pct_start must lie in \(0, 1\); got 0'),
    'torch without a rise': (lambda: one_cycle_torch(pct_start=0), r'pct_start must lie in \(0, 1\); got 0'),
    'nothing but decay': (lambda: wsd(0, 1), r'pct_decay must lie in \(0, 1\); got 1'),
    'no power': (lambda: polynomial(0), 'power must be above 0; got 0'),
    'no warm-up': (lambda: inverse_sqrt(0), r'pct_warmup must lie in \(0, 1\); got 0'),
    'nothing left': (lambda: triangular(mode='exp_range', decay=0), r'decay must lie in \(0, 1\]; got 0'),
    'more than the height': (lambda: triangular(decay=1.5), r'decay must lie in \(0, 1\]; got 1.5'),
    'decay in words': (lambda: triangular(decay='slow'), r"decay must lie in \(0, 1\]; got 'slow'"),
    'wsd': (lambda: wsd(.5, .5), r'pct_warmup must lie in \[0, 0.5\)'),
}

@pytest.mark.parametrize('call,says', BAD.values(), ids=BAD.keys())
def test_bad_input(call, says):
    with pytest.raises(ValueError, match=says): call()

DEFAULTS = [
    (one_cycle(), 'endpoint', {'warm-up': .45, 'cool-down': .45, 'annihilation': .1}),
    (one_cycle(pct_final=0), 'endpoint', {'warm-up': .5, 'cool-down': .5}),
    (clr_beta_07(10, 20), 'fastai07', {'warm-up': .4, 'cool-down': .4, 'annihilation': .2}),
    (clr_07(10, 4), 'fastai07', {'warm-up': .25, 'cool-down': .75}),
    (one_cycle_v1(), 'fastai1', {'warm-up': .3, 'annealing': .7}),
    (one_cycle_fastai(), 'fastai', {'warm-up': .25, 'annealing': .75}),
    (flat_cos(), 'fastai', {'flat': .75, 'annealing': .25}),
    (one_cycle_torch(), 'torch', {'warm-up': .3, 'annealing': .7}),
    (one_cycle_torch(three_phase=True), 'torch', {'warm-up': .3, 'cool-down': .3, 'annihilation': .4}),
    (warmup_cosine(), 'endpoint', {'warm-up': .05, 'annealing': .95}),
    (wsd(), 'endpoint', {'warm-up': .05, 'stable': .75, 'decay': .2}), (polynomial(), 'endpoint', {'decay': 1}),
    (inverse_sqrt(), 'endpoint', {'warm-up': .1, 'decay': .9}), (constant(), 'endpoint', {'constant': 1}),
    (step_decay(), 'endpoint', {'step 1': .5, 'step 2': .25, 'step 3': .25}),
    (triangular(2), 'no_endpoint', {'up 1': .25, 'down 1': .25, 'up 2': .25, 'down 2': .25})]

@pytest.mark.parametrize('cycle,sampling,phases', DEFAULTS, ids=range(len(DEFAULTS)))
def test_phases_lengths_and_sampling_by_default(cycle, sampling, phases):
    assert cycle.sampling==sampling and {p.name: p.pct for p in cycle.phases}==pytest.approx(phases)

# schedules of other libraries, for every length

def linear(a, b, n): return [a+(b-a)*i/n for i in range(n)]

def transformers_wsd(n_warm, n_stable, n_decay, low, shape):
    "What `get_wsd_schedule` of Transformers multiplies the rate with, by its documentation"
    def fall(p): return {'linear': 1-p, 'cosine': (1+np.cos(np.pi*p))/2, '1-sqrt': 1-np.sqrt(p)}[shape]
    return [*linear(0, 1, n_warm), *[1]*n_stable, *[low+(1-low)*fall(i/n_decay) for i in range(n_decay)]]

@pytest.mark.filterwarnings('ignore:.* too few for')
@pytest.mark.parametrize('shape,decay', [('linear', 'lin'), ('cosine', 'cos'), ('1-sqrt', '1-sqrt')])
def test_wsd_of_transformers(shape, decay):
    rng = np.random.default_rng(1)
    for n in range(4, 501):
        n_warm,n_decay = int(rng.integers(0, n//2)), int(rng.integers(1, n//2))
        theirs = transformers_wsd(n_warm, n-n_warm-n_decay, n_decay, 0, shape)
        ours = wsd(n_warm/n, n_decay/n, decay, np.inf, np.inf, sampling='no_endpoint').table(n)['lr']
        assert_allclose(ours, theirs, rtol=0, atol=1e-9, err_msg=f'{n_warm} and {n_decay} of {n}')

def test_cosine_of_timm_and_of_torch():
    "timm's `CosineLRScheduler` with `warmup_prefix`, and torch's `SequentialLR` of `LinearLR` and `CosineAnnealingLR`"
    rng = np.random.default_rng(2)
    for n in range(4, 501):
        n_warm,low = int(rng.integers(1, n-1)), 10**rng.uniform(-6, -1)
        ours = warmup_cosine(n_warm/n, 100, 1/low, sampling='no_endpoint').table(n)['lr']
        fall = [low + (1-low)*(1+np.cos(np.pi*i/(n-n_warm)))/2 for i in range(n-n_warm)]
        assert_allclose(ours, [*linear(.01, 1, n_warm), *fall], rtol=0, atol=1e-9, err_msg=f'{n_warm} of {n}')
        opt = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.)
        parts = [torch.optim.lr_scheduler.LinearLR(opt, .01, 1., n_warm),
                 torch.optim.lr_scheduler.CosineAnnealingLR(opt, n-n_warm, low)]
        both = torch.optim.lr_scheduler.SequentialLR(opt, parts, [n_warm])
        assert_allclose(ours, rates_of(both, n), rtol=0, atol=1e-12, err_msg=f'{n_warm} of {n}')

def rates_of(scheduler, n):
    rates = []
    for _ in range(n):
        rates.append(scheduler.get_last_lr()[0])
        scheduler.optimizer.step()
        scheduler.step()
    return rates

@pytest.mark.parametrize('power', [.5, 1, 2, 3.7])
def test_polynomial_of_torch(power):
    for n in (*range(4, 60), 250, 500):
        opt = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.)
        theirs = rates_of(torch.optim.lr_scheduler.PolynomialLR(opt, n, power), n)
        assert_allclose(polynomial(power, sampling='no_endpoint').table(n)['lr'], theirs, rtol=1e-9, atol=1e-12)

def test_inverse_sqrt_of_the_paper():
    "Vaswani et al.: min(i/warm, sqrt(warm/i)), up to their factor"
    rng = np.random.default_rng(3)
    for n in range(4, 501):
        n_warm = int(rng.integers(1, n-1))
        theirs = [min(i/n_warm, (n_warm/i)**.5) if i else 0 for i in range(n)]
        ours = inverse_sqrt(n_warm/n, np.inf, sampling='no_endpoint').table(n)['lr']
        assert_allclose(ours, theirs, rtol=0, atol=1e-9, err_msg=f'{n_warm} of {n}')

@pytest.mark.parametrize('name', PRESETS)
def test_every_preset_takes_a_sampling_and_any_number(name):
    needed = dict(clr_beta_07=(10, 10), clr_07=(10, 4)).get(name, ())
    c = PRESETS[name](*needed, sampling='endpoint')
    assert c.sampling=='endpoint' and len(c.table(50)['lr'])==50
    same = PRESETS[name](*[torch.tensor(x) for x in needed], sampling='endpoint')
    assert same==c==PRESETS[name](*[np.float32(x) for x in needed], sampling='endpoint')

@pytest.mark.parametrize('preset,names', [(one_cycle, ('div', 'div_final', 'pct_start')), (wsd, ('div', 'pct_decay')),
                                          (one_cycle_torch, ('pct_start', 'div_factor')), (polynomial, ('power',))])
@pytest.mark.parametrize('kind', [torch.tensor, np.float64, np.array])
def test_numbers_of_numpy_and_torch(preset, names, kind):
    values = dict(div=8., div_final=64., pct_start=.25, pct_decay=.25, div_factor=16., power=2.)
    given = {name: values[name] for name in names}
    assert preset(**{name: kind(v) for name,v in given.items()})==preset(**given)

def test_a_percentage_below_one_is_warned_of():
    with pytest.warns(UserWarning, match='0.1368 means 0.00137 of the batches') as caught:
        clr_beta_07(10, .1368, .95, .85)
    assert caught[0].filename==__file__

def test_no_annihilation_at_zero():
    with pytest.raises(ValueError, match='pct_final must be 0 when div=inf'): one_cycle(np.inf)
    assert one_cycle(np.inf, pct_final=0).table(11)['lr'][[0, 5, 10]].tolist()==[0, 1, 0]
