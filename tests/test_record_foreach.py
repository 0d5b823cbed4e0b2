"Many tensors in one operation: exact, equal to the sums made set by set, few kernels, and nothing read by the host"
import math
from functools import partial
import numpy as np, pytest, torch
from numpy.testing import assert_allclose
from torch import nn
from torchvision.models import resnet50, vit_b_16
from fastai.optimizer import Adam, OptimWrapper, SGD
from fastai_clr_ext.record import *
from fastai_clr_ext.record import foreach
from fastai_clr_ext.record.foreach import (StepTensors, cut, join, step_tensors, uses_lists)
from fastai_clr_ext.record.params import ParamSet
from fastai_clr_ext.record.statistics import measure
from fastai_clr_ext.train import *
from bench import kernels
from conftest import use_lists
from record_helpers import *

NAMES = ['mean_abs', 'max', 'zeros', 'nonfinite', 'norm']

def of(*grads, group=0):
    "A set of parameters with these gradients; None for one that has none"
    params = []
    for g in grads:
        p = nn.Parameter(torch.zeros(2) if g is None else torch.zeros(g.shape, dtype=g.dtype, device=g.device))
        p.grad = g
        params.append(p)
    u = ParamSet('', group, params)
    u.gather()
    return u

def together(*sets): return StepTensors(list(sets), [p for u in sets for p in u.trainable])

def values(*sets, names=NAMES):
    "`(n_sets, n_values)`"
    s = together(*sets)
    return torch.stack(s.by_set(*measure(s, names)), 1).numpy()

def expected(u):
    "In float64, by other formulas"
    g = np.concatenate([p.grad.detach().double().numpy().ravel() for p in u.trainable])
    return [np.abs(g).sum(), np.abs(g).max(), (g!=0).sum(), (~np.isfinite(g)).sum(), np.sqrt((g**2).sum())]

# ---- right

@pytest.mark.parametrize('dtype', [torch.float32, torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_sums_are_those_of_float64(dtype):
    "Both ways, of entries that are equal, random, large and small; a float16 sum of the first would be infinite"
    torch.manual_seed(0)
    sets = [of(torch.full((3_000_001,), .1234, dtype=dtype)),
            of(torch.randn(300, 300).to(dtype), torch.randn(7).to(dtype)),
            of(torch.linspace(1e-3, 9e3, 70_000).to(dtype), torch.zeros(50, 3, dtype=dtype))]
    want = [expected(u) for u in sets]
    assert_allclose(values(*sets), want, rtol=1e-10)
    one_by_one = [[v.item() for v in measure(u, NAMES)] for u in sets]
    assert_allclose(one_by_one, want, rtol=1e-6)

@pytest.mark.parametrize('bad', [math.inf, -math.inf, math.nan])
def test_entries_that_are_not_finite(bad):
    "They are counted, they are not 0, and they spoil the sums of their own set alone"
    u,v = of(torch.tensor([1., bad, 0.]), torch.tensor([bad, 2.])),of(torch.tensor([3., -4.]))
    got = values(u, v)
    assert got[0][2:4].tolist()==[4, 2] and not np.isfinite(got[0][[0, 1, 4]]).any()
    assert got[1].tolist()==[7, 4, 2, 0, 5]
    assert_allclose([v.item() for v in measure(u, NAMES)], got[0])

def test_the_smallest_number_is_not_zero():
    assert values(of(torch.tensor([1e-45, -1e-45, 0.])), names=['zeros']).item()==2

def test_sets_without_gradients_and_of_many_sizes():
    sets = [of(None), of(torch.ones(3)), of(*[torch.full((2,), float(i)) for i in range(5)]), of(None, None)]
    got = values(*sets)
    assert np.isnan(got[[0, 3]]).all() and got[1].tolist()==[3, 1, 3, 0, pytest.approx(3**.5)]
    assert got[2].tolist()==[20, 4, 8, 0, pytest.approx(60**.5)]

def test_types_may_differ_within_a_set():
    small = torch.tensor([1e-300], dtype=torch.float64)
    u = of(torch.full((4,), .5, dtype=torch.float16), torch.tensor([3., -4.]), small)
    assert_allclose(values(u)[0], expected(u), rtol=1e-10)

def test_the_order_in_memory_does_not_matter():
    "Weights of convolutions may lie in memory by channel; a copy is a view of them, and pairs belong together"
    g = torch.randn(4, 3, 5, 5).to(memory_format=torch.channels_last)
    u = of(g)
    assert_allclose(values(u)[0], expected(u), rtol=1e-10)
    flat = join([g, g.contiguous()], [g, g])
    assert torch.equal(*flat.split(300)) and torch.equal(flat[:300], g.permute(0, 2, 3, 1).flatten())

@pytest.mark.parametrize('piece', [1, 3, 4, 7, 100])
def test_lists_are_cut_by_their_entries(piece, monkeypatch):
    monkeypatch.setattr('fastai_clr_ext.record.foreach.PIECE', piece)
    sizes = [3, 1, 9, 1, 1, 2]
    stretches = cut(sizes)
    assert [i for part in stretches for i in range(*part.indices(6))]==list(range(6))
    for part in stretches: assert sum(sizes[part])<=piece or len(sizes[part])==1
    for a,b in zip(stretches, stretches[1:]): assert sum(sizes[a])+sizes[b][0]>piece, 'not cut without need'

OPTIMIZERS = {'SGD': partial(SGD, mom=.9), 'Adam': Adam, "torch's AdamW": partial(OptimWrapper, opt=torch.optim.AdamW)}

@pytest.mark.parametrize('per', ['group', 'layer', 'param'])
@pytest.mark.parametrize('opt', OPTIMIZERS)
def test_a_fit_is_recorded_as_set_by_set(mlp, opt, per, monkeypatch):
    "Every statistic, with a frozen group that is unfrozen between fits, clipping, and a skipped step"
    def tables():
        learn = mlp(opt_func=OPTIMIZERS[opt], cbs=GradRecorder(STATS, per=per, adam=opt!='SGD'))
        learn.freeze_to(1)
        learn.fit_one_cycle_ext(1, .01)
        learn.unfreeze()
        learn.fit_one_cycle_ext(1, .01)
        return learn.recorder.grads, learn.recorder.grad_quantiles()
    one_by_one = tables()
    use_lists(monkeypatch)
    calls = []
    real = StepTensors.by_set
    monkeypatch.setattr(StepTensors, 'by_set', lambda self, *measured: calls.append(1) or real(self, *measured))
    for got,want in zip(tables(), one_by_one):
        assert list(got)==list(want) and len(got)==len(want)
        for name in got:
            if got[name].dtype==object or name=='layer': assert (got[name]==want[name]).all()
            else: assert_allclose(got[name], want[name], rtol=3e-6, atol=3e-7 if name=='cosine' else 0, err_msg=name)
    assert calls, 'the second was measured in lists'

class SometimesSparse(nn.Module):
    "Its embedding has a gradient at every second step, a sparse one, so that lists and set by set take turns"
    def __init__(self):
        super().__init__()
        self.emb,self.scale,self.lin,self.n = (nn.Embedding(7, 5, sparse=True), nn.Parameter(torch.tensor(2.)),
                                               nn.Linear(1, 6), 0)
    def forward(self, x):
        self.n += 1
        out = self.lin(x.view(-1, 1)).sum(1)*self.scale
        return out + self.emb(torch.tensor([1])).sum() if self.n%4 in (1, 2) else out

def test_the_cosine_where_lists_and_set_by_set_take_turns(mlp, monkeypatch):
    "It is right, or missing behind a change from one to the other"
    use_lists(monkeypatch)
    opt = partial(OptimWrapper, opt=torch.optim.SGD)
    tape,learn = Tape(),mlp(model=SometimesSparse(), opt_func=opt, cbs=GradRecorder('cosine'),
                            splitter=lambda m: [[m.emb.weight], [m.scale, *m.lin.parameters()]])
    def copy(what):
        params = [(n, p) for n,p in learn.model.named_parameters() if p.grad is not None]
        return {n: (p.grad if what else p).detach().to_dense().double().clone() for n,p in params}
    tape.copy = copy
    learn.fit(1, 1e-3, cbs=tape)
    cosines = learn.recorder.grads.query('group==1').cosine.to_numpy()
    vectors = [torch.cat([g.ravel() for n,g in step['g'].items() if not n.startswith('emb')]) for step in tape.steps]
    want = [float(a@b/(a.norm()*b.norm())) for a,b in zip(vectors, vectors[1:])]
    known = np.isfinite(cosines[1:])
    assert known.any() and not known.all()
    assert_allclose(cosines[1:][known], np.array(want)[known], rtol=2e-6)

def test_steps_may_be_counted_on_the_device_for_some_parameters_only(mlp, monkeypatch):
    "`fused` may be an option of one parameter group"
    def record():
        learn = mlp(opt_func=OPTIMIZERS["torch's AdamW"], cbs=GradRecorder(adam=True))
        learn.fit_one_cycle_ext(1, .01)
        return learn.recorder.grads
    want = record()
    use_lists(monkeypatch)
    real,calls = foreach.adam_moments,[]
    def moments(*args):
        calls.append(1)
        m,v,step = real(*args)
        return m, v, torch.tensor(float(step)) if len(calls)%3==0 else step
    monkeypatch.setattr(foreach, 'adam_moments', moments)
    got = record()
    for name in ('sqrt_v', 'eff_step', 'eff_step_max'): assert_allclose(got[name], want[name], rtol=3e-6)

def test_corrections_of_no_momentum_and_of_many_steps():
    hypers = [dict(mom=0., sqr_mom=.99), dict(mom=.9, sqr_mom=.999)]
    for steps in ([3, 1000], [torch.tensor(3.), torch.tensor(1000.)], [3, torch.tensor(1000.)]):
        c1,c2 = foreach.list_corrections(hypers, steps)
        assert_allclose([float(c) for c in c1+c2], [1, 1-.9**1000, 1-.99**3, 1-.999**1000], rtol=1e-6)

def test_copies_of_half_precision_are_widened():
    "A difference of two half-precision weights would be rounded"
    halves = [torch.ones(3, dtype=torch.float16), torch.ones(2, dtype=torch.bfloat16)]
    for t in halves: assert join([t], [t]).dtype==torch.float32
    assert join([torch.ones(2, dtype=torch.float64)], [torch.ones(2)]).dtype==torch.float64

# ---- when

def test_a_cpu_measures_set_by_set():
    assert [uses_lists(torch.device(name)) for name in ('cpu', 'cuda', 'mps')]==[False, True, True]

def test_what_does_not_go_into_a_list(monkeypatch):
    use_lists(monkeypatch)
    sparse = of(torch.eye(3).to_sparse())
    assert step_tensors([of(torch.ones(2))]) is not None
    assert step_tensors([of(torch.ones(2)), sparse]) is None
    assert step_tensors([of(torch.tensor([1j]))]) is None
    assert step_tensors([of(None)]) is None
    assert step_tensors([of(torch.ones(2)), of(torch.ones(2, device='meta'))]) is None

def test_the_table_of_sets_is_made_again_for_other_parameters_only(monkeypatch):
    use_lists(monkeypatch)
    u = of(torch.ones(2), torch.ones(3))
    first = step_tensors([u])
    u.gather()
    assert step_tensors([u], first) is first
    u.params[0].grad = None
    u.gather()
    second = step_tensors([u], first)
    assert second is not first and second.sizes==[3]

# ---- cheap

@pytest.fixture(scope='module')
def fake_device():
    "torch's fake tensors on a CUDA device, as torch has them since some version after 2.7"
    try:
        with kernels.FakeTensorMode(): torch.empty(2, device='cuda')[0]
    except RuntimeError as e: pytest.skip(f'this torch can not index a fake CUDA tensor: {e}')

KERNELS = {'HistoryRecorder': 3, 'GradRecorder': 16, 'max, zeros, nonfinite': 30, 'adam=True': 40,
           "adam=True, torch's": 40, 'adam=True, fused': 40, "per='layer'": 40, "per='param'": 40,
           "all, per='layer'": 70, 'cosine': 40, 'weight': 20, 'update': 30}

@pytest.mark.parametrize('case', KERNELS)
def test_a_step_is_a_handful_of_kernels(fake_device, case):
    "As many for 40 layers as for 10; none of them reads"
    found = [kernels.steps(partial(kernels.deep_mlp, n, 8), *kernels.CASES[case])[2].n for n in (10, 40)]
    assert found[0]==found[1]<=KERNELS[case]
    assert kernels.steps(kernels.small_resnet, *kernels.CASES[case], n_groups=3)[2].n==found[0]

@pytest.mark.parametrize('make_model', [resnet50, vit_b_16, kernels.deep_mlp], ids=list(kernels.MODELS))
def test_the_models_that_people_train(fake_device, make_model):
    for case in ('GradRecorder', 'max, zeros, nonfinite', 'HistoryRecorder'):
        count = kernels.steps(make_model, *kernels.CASES[case], n_steps=2)[1]
        assert count.n<=KERNELS[case]

@pytest.mark.parametrize('case', ['DivergenceGuard', 'DivergenceGuard, Adam', 'DivergenceGuard, fused'])
def test_a_guard_between_its_looks(fake_device, case):
    found = kernels.steps(partial(kernels.deep_mlp, 40, 8), *kernels.CASES[case], n_steps=9)
    assert max(count.n for count in found[1:])<=12 and kernels.mean_over_looks(found)<=12

def test_a_look_is_seen(fake_device):
    "The tenth batch of a guard reads, so the counts above would have seen it"
    with pytest.raises(Exception, match='_to_copy'):
        kernels.steps(partial(kernels.deep_mlp, 2, 8), *kernels.CASES['DivergenceGuard'], n_steps=10)

READS = {'item': lambda t: t.item(), 'float': float, 'cpu': lambda t: t.cpu(), 'bool': bool,
         'tolist': lambda t: t.tolist(), 'nonzero': lambda t: t.nonzero(),
         'numpy': lambda t: t.cpu().numpy(), 'to': lambda t: t.to('cpu')}

@pytest.mark.parametrize('read', READS)
def test_any_read_is_seen(fake_device, read):
    class Reads(GradRecorder):
        def before_step(self):
            super().before_step()
            READS[read](self.now.loss.sum())
    with pytest.raises(Exception, match='_to_copy|_local_scalar_dense|nonzero'):
        kernels.steps(partial(kernels.deep_mlp, 2, 8), Reads)

@pytest.mark.parametrize('case,most', [('GradRecorder', .02), ('weight', .02), ('max, zeros, nonfinite', 2.1),
                                       ('adam=True', 2.1), ('cosine', 3.1), ('adam=True, fused', 3.1)])
def test_memory_over_that_of_the_gradients(fake_device, case, most):
    make_model = partial(kernels.deep_mlp, 20, 200)
    found = kernels.steps(make_model, *kernels.CASES[case])
    assert max(count.peak for count in found)<most*kernels.n_bytes(make_model)

def test_copies_are_made_a_piece_at_a_time(fake_device, monkeypatch):
    monkeypatch.setattr('fastai_clr_ext.record.foreach.PIECE', 100_000)
    make_model = partial(kernels.deep_mlp, 20, 200) # 804,000 entries
    found = kernels.steps(make_model, *kernels.CASES['max, zeros, nonfinite'])
    assert max(count.peak for count in found) < .35*kernels.n_bytes(make_model)

@pytest.mark.parametrize('n_tensors,size,launches', [(1, 10, 1), (110, 10, 1), (111, 10, 2), (1, 65_536*320, 1),
                                                     (1, 65_536*320+1, 2), (330, 10, 3)])
def test_launches_of_a_list(n_tensors, size, launches):
    "110 tensors or 320 blocks of 65,536 entries go into a launch"
    assert kernels.list_launches([torch.empty(size, device='meta')]*n_tensors, 1)==launches
