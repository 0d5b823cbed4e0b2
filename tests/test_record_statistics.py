"Every statistic, against plain numpy and against gradients and weights kept at each step"
import json, re, warnings
from pathlib import Path
import numpy as np, pandas as pd, pytest, torch
from numpy.testing import assert_allclose
from torch import nn
from fastai.callback.core import Callback
from functools import partial
from fastai.optimizer import Adam, OptimWrapper, SGD
from fastai_clr_ext.record import *
from fastai_clr_ext.record.params import ParamSet
from fastai_clr_ext.record.statistics import measure
from conftest import use_lists
from record_helpers import *

def resnet():
    from fastai_clr_ext.situations import cifar_resnet
    return cifar_resnet(8, n_in=1, n_out=1)

class Shared(nn.Module):
    "Two layers that share one weight"
    def __init__(self):
        super().__init__()
        self.a,self.b,self.out = nn.Linear(8, 8),nn.Linear(8, 8),nn.Linear(8, 1)
        self.b.weight = self.a.weight
    def forward(self, x): return self.out(self.b(self.a(x.view(-1, 1).expand(-1, 8)).relu()))

class Embed(nn.Module):
    def __init__(self): super().__init__(); self.e,self.out = nn.Embedding(20, 4),nn.Linear(4, 1)
    def forward(self, x): return self.out(self.e(x.view(-1).mul(3).long().clamp(-9, 9) + 9))

class Pixels(nn.Module):
    def __init__(self): super().__init__(); self.m = resnet()
    def forward(self, x): return self.m(x.view(-1, 1, 1, 1).expand(-1, 1, 4, 4) * torch.linspace(-1, 1, 16).view(4, 4))

MODELS = {'mlp': lambda: nn.Sequential(nn.Linear(1, 8), nn.ReLU(), nn.Linear(8, 1)), 'shared': Shared,
          'embedding': Embed, 'resnet': Pixels}

@pytest.mark.parametrize('per', ['group', 'layer', 'param'])
@pytest.mark.parametrize('model', MODELS)
@pytest.mark.parametrize('path', ['joined', 'each alone', 'lists', 'cut lists'])
def test_every_statistic_by_plain_means(mlp, model, per, path, monkeypatch):
    if path=='each alone': monkeypatch.setattr('fastai_clr_ext.record.measure.SMALL_TENSOR', 0)
    if 'lists' in path: use_lists(monkeypatch)
    if path=='cut lists': monkeypatch.setattr('fastai_clr_ext.record.foreach.PIECE', 70)
    torch.manual_seed(0)
    tape,learn = Tape(),mlp(n_trn=5, model=MODELS[model](), splitter=lambda m: [list(m.parameters())],
                            cbs=GradRecorder(STATS, per=per))
    if model=='resnet':
        for p in learn.model.m[1].parameters(): p.requires_grad_(False) # a frozen part
    learn.fit(1, .01, wd=.1, cbs=tape)
    names = list(tape.steps[0]['g'])
    unit = {'group': lambda n: '', 'layer': lambda n: n.rpartition('.')[0], 'param': lambda n: n}[per]
    df = learn.recorder.grads
    rows = df.assign(layer=df.get('layer', '')).set_index(['step', 'layer'])
    assert len(rows)==5*len({unit(n) for n in names})
    cat = lambda d, us: torch.cat([d[n].ravel() for n in us])
    for i,s in enumerate(tape.steps):
        for u in {unit(n) for n in names}:
            us,r = [n for n in names if unit(n)==u],rows.loc[(i, u)]
            g,w,new = (cat(s[k], us) for k in ('g', 'w', 'new'))
            want = dict(mean_abs=g.abs().mean(), norm=g.norm(), n_params=len(g), max_abs=g.abs().max(),
                        n_zero=(g==0).sum(), n_nonfinite=0, weight_norm=w.norm(), scale_free=g.abs().mean()*w.norm(),
                        grad_weight=g.norm()/w.norm(), update_norm=(new-w).norm(),
                        update_weight=(new-w).norm()/w.norm())
            if i:
                prev = cat(tape.steps[i-1]['g'], us)
                want['cosine'] = g@prev/(g.norm()*prev.norm())
            else: assert np.isnan(r.cosine)
            for k,v in want.items():
                tol = 2e-4 if k.startswith('update') else 2e-6 # the change is a difference of float32 weights
                if np.isfinite(float(v)):
                    assert r[k]==pytest.approx(float(v), rel=tol, abs=1e-7 if k in ('cosine',) or k.startswith('update')
                                               else 1e-12), (k, u, i)

def test_large_and_small_tensors_together(mlp):
    tape,learn = Tape(),mlp(n_trn=2, cbs=GradRecorder(STATS, adam=True), opt_func=Adam,
                            model=nn.Sequential(nn.Linear(1, 300), nn.ReLU(), nn.Linear(300, 300), nn.ReLU(),
                                                nn.Linear(300, 1)), splitter=lambda m: [list(m.parameters())])
    learn.fit(1, .01, wd=0, cbs=tape)
    for r,s in zip(learn.recorder.grads.itertuples(), tape.steps):
        g,moved = [torch.cat([t.ravel() for t in o])
                   for o in (s['g'].values(), [s['new'][n]-s['w'][n] for n in s['w']])]
        assert (r.mean_abs, r.norm, r.max_abs, r.n_zero)==pytest.approx(
            (g.abs().mean().item(), g.norm().item(), g.abs().max().item(), (g==0).sum().item()), rel=2e-6)
        assert (r.eff_step, r.eff_step_max)==pytest.approx((moved.abs().mean().item(), moved.abs().max().item()),
                                                           rel=1e-3, abs=1e-7)

def test_every_statistic_of_a_tensor_of_millions(mlp):
    "It is worked on in parts; and torch's own norm in float32 is 4e-5 off at this size on a CPU"
    tape,learn = Tape(),mlp(n_trn=1, opt_func=Adam, cbs=GradRecorder([*STATS, 'clipped'], per='param', adam=True),
                            model=nn.Sequential(nn.Linear(1, 1501), nn.Linear(1501, 2003), nn.ReLU(),
                                                nn.Linear(2003, 1)), splitter=lambda m: [list(m.parameters())])
    learn.fit(1, .01, wd=0, cbs=tape)
    s,r = tape.steps[0],learn.recorder.grads.query("layer=='1.weight'").iloc[0]
    g,w,new = [o['1.weight'] for o in (s['g'], s['w'], s['new'])]
    assert (g.abs()>1e-3).sum()>1e5 and (g==0).sum()>1e5, 'both kinds in many parts'
    assert (r.mean_abs, r.norm, r.clipped_norm, r.weight_norm)==pytest.approx(
        (g.abs().mean().item(), g.norm().item(), g.norm().item(), w.norm().item()), rel=1e-6)
    assert (r.max_abs, r.n_zero, r.n_nonfinite)==(g.abs().max().item(), (g==0).sum().item(), 0)
    bins = learn.recorder.history.raw_grads().query("layer=='1.weight'").iloc[0]
    assert sum(bins[f'bin {i}'] for i in range(-40, 24))==g.numel()
    assert r.update_norm==pytest.approx((new-w).norm().item(), rel=1e-4)
    assert r.sqrt_v==pytest.approx(g.abs().mean().item(), rel=1e-5), 'v̂ is the square of the first gradient'
    moved = (new-w).abs()
    assert (r.eff_step, r.eff_step_max)==pytest.approx((moved.mean().item(), moved.max().item()), rel=1e-3)

def test_quantiles_within_the_bin(mlp):
    tape,learn = Tape(),mlp(cbs=GradRecorder('hist'))
    learn.fit(1, cbs=tape)
    q = learn.recorder.grad_quantiles((.25, .75)).query('group==0').reset_index()
    assert list(learn.recorder.grad_quantiles(.25))[-1]=='q0.25', 'a single one'
    for i,s in enumerate(tape.steps):
        g = torch.cat([s['g'][n].ravel() for n in ('0.weight', '0.bias')]).abs()
        for p in (.25, .75):
            lo,hi = torch.quantile(g, p, interpolation='lower'),torch.quantile(g, p, interpolation='higher')
            if lo>2.**-39: assert lo/2 <= q[f'q{p}'][i] <= 2*hi
    plain = mlp(cbs=GradRecorder())
    plain.fit(1)
    with pytest.raises(ValueError, match="included 'hist'"): plain.recorder.grad_quantiles()

def test_quantiles_of_nan_and_zero():
    history,bins = RunHistory(),torch.zeros(64)
    names = dict(units=[['', 0]], columns=['total', 'norm'] + [f'bin {k}' for k in range(-40, 24)])
    history.fit_rows.append(dict(stage='', phases=[]))
    for i,(b,n) in enumerate([(None, 5), (0, 5), (40, 5)]):
        history.batch_log.add([0, 0, i, i, i, 0], [], (torch.device('cpu'), (1,), dict(hypers=[])))
        row = history.grad_log.add([0, i, i, 0], [n], (torch.device('cpu'), (1, 66), names))
        row[0] = torch.cat([torch.ones(2), bins if b is None else torch.eye(64)[b]*n])
    assert history.grad_quantiles([.5])['q0.5'].fillna(-1).tolist()==[-1, 0, 2**.5]

def test_nonfinite_and_zero_entries(mlp):
    class Spoil(Callback):
        order = 10.4
        def before_step(self):
            g = self.learn.model[0].weight.grad
            g.copy_(torch.tensor([0, 0, torch.inf, torch.nan, 1e-45, -1e-45, -torch.inf, 1]).view(8, 1))
    learn = mlp(n_trn=1, cbs=GradRecorder(('zeros', 'nonfinite'), per='param'))
    learn.fit(1, cbs=Spoil())
    r = learn.recorder.grads.query("layer=='0.weight'").iloc[0]
    assert (r.n_nonfinite, r.n_zero)==(3, 2) and not np.isfinite(r.mean_abs)

def test_ratios_to_weights_of_0(mlp):
    learn = mlp(cbs=GradRecorder('weight', per='param'))
    for m in learn.model[::2]: torch.nn.init.zeros_(m.bias)
    learn.fit(1)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        df = learn.recorder.grads
        learn.recorder.history.steps
    assert np.isinf(df[(df.layer=='0.bias') & (df.step==0)].grad_weight).all()

# the table

#: As `nbs/22_record.statistics.ipynb` describes it: name, columns that users see, statistics that come along
DOCUMENTED = {
    'mean_abs': (['mean_abs'], ()), 'norm': (['norm', 'n_params'], ()), 'max': (['max_abs'], ()),
    'zeros': (['n_zero'], ()), 'nonfinite': (['n_nonfinite'], ()), 'hist': ([], ()),
    'weight': (['weight_norm', 'scale_free', 'grad_weight'], ()), 'cosine': (['cosine'], ()),
    'clipped': (['clipped_norm'], ()), 'update': (['update_norm', 'update_weight'], ('weight',)),
    'adam': (['sqrt_v', 'eff_step', 'eff_step_max'], ('update', 'weight'))}
ALWAYS = ['mean_abs', 'norm', 'n_params']

def test_the_table_is_the_documented_one():
    assert {name: (list(s.shows), s.needs) for name,s in STATISTICS.items()}==DOCUMENTED
    assert [name for name,s in STATISTICS.items() if s.always]==['mean_abs', 'norm']
    assert set(STATS)==set(DOCUMENTED)-{'mean_abs', 'norm', 'adam'}
    for name,s in STATISTICS.items(): assert set(s.needs)<=set(STATISTICS) and name not in s.needs
    raw = [column for s in STATISTICS.values() for column in s.columns]
    assert len(raw)==len(set(raw)), 'each raw column belongs to one statistic'

def test_every_column_but_the_count_has_a_label_of_its_own():
    shown = [column for columns,_ in DOCUMENTED.values() for column in columns]
    assert list(GRAD_LABELS)==[column for column in shown if column!='n_params']
    assert len(set(GRAD_LABELS.values()))==len(GRAD_LABELS) and all(GRAD_LABELS.values())
    ratios = {'scale_free', 'grad_weight', 'cosine', 'update_weight'}
    assert {column for column in shown if not can_add_up(column)}==ratios
    assert not can_add_up('bin 0') and not can_add_up('total') and not can_add_up('unknown')

def test_the_documentation_names_every_column():
    nb = json.loads((Path(__file__).parent.parent/'nbs'/'22_record.statistics.ipynb').read_text(encoding='utf-8'))
    text = ''.join(''.join(cell['source']) for cell in nb['cells'] if cell['cell_type']=='markdown')
    rows = [line.split('|')[1:4] for line in text.splitlines() if line.startswith('|')]
    documented = {first.strip(): set(re.findall(r'`(\w+)`', columns)) for first,columns,_ in rows[2:]}
    assert documented['always']==set(ALWAYS)
    for name in STATS:
        if name!='hist': assert set(DOCUMENTED[name][0])<=documented[f"`'{name}'`"]
    assert set(DOCUMENTED['adam'][0])<=documented['`adam=True`']

@pytest.mark.parametrize('name', [*STATS, 'adam'])
def test_each_name_records_its_columns_in_a_fit(mlp, name):
    cb = GradRecorder(adam=True) if name=='adam' else GradRecorder(name)
    learn = mlp(n_trn=3, cbs=cb, opt_func=Adam)
    learn.fit(1)
    columns = {*ALWAYS, *DOCUMENTED[name][0]}
    for need in DOCUMENTED[name][1]: columns |= set(DOCUMENTED[need][0])
    got = learn.recorder.grads
    assert set(got)-{'fit', 'step', 'train_iter', 'epoch', 'group'}==columns
    later = got[got.step>0] # the first step has no cosine
    assert later.notna().all(axis=None) and len(got)==6
    assert ('bin 0' in learn.recorder.history.raw_grads())==(name=='hist')

# derive and add_up, against plain numpy

def random_layers(seed):
    "Gradients, gradients before, weights, updates and Adam's numbers of some layers of several sizes"
    rng = np.random.default_rng(seed)
    layers = []
    for n in rng.integers(1, 50, rng.integers(2, 7)):
        g = rng.normal(size=n)*rng.choice([0, 1, 1, 1e-3, 1e3], n)
        layers.append(dict(g=g, before=rng.normal(size=n), w=rng.normal(size=n)*10, update=rng.normal(size=n)*.01,
                           clipped=g/3, root=np.abs(rng.normal(size=n)), move=np.abs(rng.normal(size=n))))
    return layers

def raw_columns(layer):
    "What is recorded of one layer, by definition"
    g = layer['g']
    return dict(n_params=len(g), total=np.abs(g).sum(), norm=np.linalg.norm(g), max_abs=np.abs(g).max(),
                n_nonzero=np.count_nonzero(g), n_nonfinite=0, weight_norm=np.linalg.norm(layer['w']),
                inner=g@layer['before'], prev_norm=np.linalg.norm(layer['before']),
                clipped_norm=np.linalg.norm(layer['clipped']), update_norm=np.linalg.norm(layer['update']),
                total_sqrt_v=layer['root'].sum(), total_step=layer['move'].sum(), max_step=layer['move'].max())

def shown_columns(layer):
    "What users see of one layer, or of several joined, by definition"
    g,w = layer['g'],layer['w']
    norm = lambda a: np.sqrt((a*a).sum())
    return dict(mean_abs=np.mean(np.abs(g)), norm=norm(g), n_params=g.size, max_abs=max(abs(g)), n_zero=(g==0).sum(),
                n_nonfinite=0, weight_norm=norm(w), scale_free=np.mean(np.abs(g))*norm(w), grad_weight=norm(g)/norm(w),
                cosine=(g*layer['before']).sum()/(norm(g)*norm(layer['before'])) if norm(g) else np.nan,
                clipped_norm=norm(layer['clipped']), update_norm=norm(layer['update']),
                update_weight=norm(layer['update'])/norm(w), sqrt_v=np.mean(layer['root']),
                eff_step=np.mean(layer['move']), eff_step_max=max(layer['move']))

@pytest.mark.parametrize('seed', range(10))
def test_derive_and_add_up_by_plain_numpy(seed):
    layers = random_layers(seed)
    raw = pd.DataFrame([raw_columns(layer) for layer in layers])
    want = pd.DataFrame([shown_columns(layer) for layer in layers])
    derived = derive({k: v.to_numpy() for k,v in raw.items()})
    assert set(derived)==set(want)
    for k,v in derived.items(): assert_allclose(v, want[k], rtol=1e-12, atol=1e-15, err_msg=k)
    for k,v in derive(raw).items(): assert_allclose(v, want[k], rtol=1e-12, atol=1e-15, err_msg=k)
    whole = shown_columns({k: np.concatenate([layer[k] for layer in layers]) for k in layers[0]})
    one_step = {k: np.asarray(v, dtype=float)[None] for k,v in derived.items()}
    for k in filter(can_add_up, derived):
        total = add_up(k, one_step[k], one_step['n_params'])
        assert_allclose(total, [whole[k]], rtol=1e-12, err_msg=k)

def test_a_set_without_gradients_is_left_out_and_a_nan_is_not():
    nan = np.nan
    n_params = np.array([[2, 6], [2, nan], [nan, nan], [2, 6]])
    a = np.array([[4., 8.], [4., nan], [nan, nan], [4., nan]]) # only in the last row is a value itself NaN
    values = dict(n_params=n_params, mean_abs=a, norm=a, max_abs=a, n_zero=a)
    for name,want in dict(mean_abs=[(2*4+6*8)/8, 4, nan, nan], norm=[(16+64)**.5, 4, nan, nan],
                          max_abs=[8, 4, nan, nan], n_zero=[12, 4, nan, nan], n_params=[8, 2, nan, 8]).items():
        assert_allclose(add_up(name, values[name], values["n_params"]), want, err_msg=name)

def test_only_what_was_recorded_is_derived_and_a_ratio_to_0_is_infinite():
    values = dict(n_params=np.array([4, 4]), total=np.array([8., 0]), norm=np.array([4., 0.]))
    assert {k: v.tolist() for k,v in derive(values).items()}==dict(mean_abs=[2, 0], norm=[4, 0], n_params=[4, 4])
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        out = derive(values | dict(weight_norm=np.zeros(2)))
    assert out['grad_weight'][0]==np.inf and np.isnan(out['grad_weight'][1])

# quantiles and smoothing

@pytest.mark.parametrize('seed', range(5))
def test_quantiles_are_in_the_bin_of_the_entry(seed):
    rng = np.random.default_rng(seed)
    g = np.exp2(rng.uniform(-38, 22, 301))
    bins = np.histogram(np.log2(g), bins=np.arange(-40, 25))[0][None]
    for q,got in zip((.1, .5, .9), hist_quantiles(bins, np.array([301]), [.1, .5, .9])):
        entry = np.sort(g)[int(np.ceil(q*301))-1] # the first of which a fraction q is not larger
        assert got[0]==2**(np.floor(np.log2(entry))+.5)
    assert np.isnan(hist_quantiles(bins, np.array([302]), [.5])).all(), 'an entry was NaN'

def slow_smooth(y, beta):
    "fastai's smooth loss, value by value; what is not finite leaves a gap but time goes on"
    total = weight = 0.
    out = []
    for v in y:
        total,weight = total*beta,weight*beta
        if np.isfinite(v): total,weight = total+v,weight+1
        out.append(total/weight if np.isfinite(v) else np.nan)
    return out

@pytest.mark.parametrize('beta', [0., .5, .98])
def test_smoothing_value_by_value(beta):
    y = np.random.default_rng(0).normal(size=200)
    assert_allclose(smooth(y, beta), slow_smooth(y, beta), rtol=1e-9)
    y[[0, 50, 51, 199]] = np.nan, np.inf, -np.inf, np.nan
    assert_allclose(smooth(y, beta), slow_smooth(y, beta), rtol=1e-9)
    assert np.isnan(smooth(np.full(3, np.nan), beta)).all() and smooth(np.array([2.]), beta).tolist()==[2.]

# sparse gradients

class Bag(nn.Module):
    "Two embeddings, of which one meets the same word several times in a batch"
    def __init__(self, sparse):
        super().__init__()
        self.word = nn.Embedding(30, 4, sparse=sparse)
        self.bag = nn.EmbeddingBag(50, 4, mode='sum', sparse=sparse)
        self.out = nn.Linear(4, 1)
    def forward(self, x):
        i = x.view(-1).mul(3).long().clamp(-9, 9) + 9
        return self.out(self.word(i) + self.bag(i[:,None].expand(-1, 3)))

PLAIN = {'fastai SGD': partial(SGD), 'torch SGD': partial(OptimWrapper, opt=torch.optim.SGD)}

@pytest.mark.parametrize('opt', PLAIN)
@pytest.mark.parametrize('per', ['group', 'layer', 'param'])
def test_sparse_gradients_give_the_numbers_of_dense_ones(mlp, opt, per):
    both = []
    for sparse in (True, False):
        torch.manual_seed(0)
        learn = mlp(n_trn=5, model=Bag(sparse), splitter=lambda m: [[*m.word.parameters(), *m.out.parameters()],
                                                                    list(m.bag.parameters())],
                    opt_func=PLAIN[opt], cbs=GradRecorder(STATS, per=per))
        learn.wd = 0.
        learn.fit(1, .01)
        both.append(learn)
    sparse,dense = [learn.recorder.grads for learn in both]
    pd.testing.assert_frame_equal(sparse, dense, check_exact=False, rtol=1e-4, atol=1e-7) # of updates
    assert (dense.n_zero>0).any() and (sparse.n_zero>0).any()
    sparse,dense = [learn.recorder.grad_quantiles((.05, .5, .8, .99)) for learn in both]
    assert dense.notna().all(axis=None) and (dense.filter(like='q')==0).any(axis=None)
    pd.testing.assert_frame_equal(sparse, dense)

def test_the_gradients_of_sparse_adam_are_those_that_it_got(mlp):
    learn,tape = mlp(n_trn=5, model=Bag(True), splitter=lambda m: [[m.word.weight, m.bag.weight]],
                     opt_func=partial(OptimWrapper, opt=torch.optim.SparseAdam),
                     cbs=GradRecorder(STATS)),Tape()
    learn.model.out.requires_grad_(False)
    learn.fit(1, .01, cbs=tape)
    q = learn.recorder.grad_quantiles((.5, .9))
    for i,(s,r) in enumerate(zip(tape.steps, learn.recorder.grads.itertuples())):
        g = torch.cat([t.ravel() for t in s['g'].values()])
        moved = torch.cat([(s['new'][n]-s['w'][n]).ravel() for n in s['w']])
        assert (r.mean_abs, r.norm, r.max_abs)==pytest.approx(
            (g.abs().mean().item(), g.norm().item(), g.abs().max().item()), rel=1e-5)
        assert (r.n_params, r.n_zero)==(len(g), (g==0).sum())
        assert r.update_norm==pytest.approx(moved.norm().item(), rel=1e-4)
        for p in (.5, .9):
            low,high = [torch.quantile(g.abs(), p, interpolation=how) for how in ('lower', 'higher')]
            assert low/2 <= q[f'q{p}'][i] <= 2*high
    assert len(q)==5 and (q['q0.5']==0).all()

@pytest.mark.parametrize('n', [7, 2**24+1, 2**25+3])
def test_entries_that_are_not_stored_are_counted_exactly(n):
    p = nn.Parameter(torch.zeros(1).expand(n)) # takes no memory
    for at,values in (([1, 1, 5], [3., 1., 0.]), ([], []), ([2], [np.nan])):
        p.grad = torch.sparse_coo_tensor([at], torch.tensor(values), (n,))
        u = ParamSet('', 0, [p])
        assert u.gather()
        total,nonzero,nonfinite,*bins = [float(v) for v in measure(u, ['mean_abs', 'zeros', 'nonfinite', 'hist'])]
        stored = {'135': [4., 0.], '2': [np.nan]}.get(''.join(map(str, at)).replace('115', '135'), [])
        assert total==pytest.approx(sum(stored), nan_ok=True)
        assert nonzero==np.count_nonzero(stored) and nonfinite==np.isnan(stored).sum()
        assert sum(bins)==n-np.isnan(stored).sum() and (bins[42]==1)==(4. in stored)
        median = hist_quantiles(np.array([bins]), np.array([n]), [.5])[0, 0]
        assert np.isnan(median) if np.isnan(stored).any() else median==0

@pytest.mark.filterwarnings('ignore:Sparse')
@pytest.mark.parametrize('layout', ['sparse_coo', 'sparse_csr', 'sparse_csc'])
def test_every_sparse_layout(layout):
    g = torch.tensor([[0., 3., 0.], [-4., 0., 0.]])
    p = nn.Parameter(torch.ones(2, 3).to_sparse(layout=getattr(torch, layout)))
    p.grad = g.to_sparse(layout=getattr(torch, layout))
    u = ParamSet('', 0, [p])
    u.gather()
    total,norm,*bins = [float(v) for v in measure(u, ['mean_abs', 'hist', 'norm'])[:1]
                        + measure(u, ['norm']) + measure(u, ['hist'])]
    assert (total, norm, u.n_params, bins[0], sum(bins))==(7, 5, 6, 4, 6)
