"What tells one thing from another: the same in every process, and no more than there is to tell"
import json, logging, subprocess, sys, threading
from functools import lru_cache, partial, wraps
from pathlib import Path
from types import ModuleType
import numpy as np, pytest, torch
from torch.nn import functional as F
from fastai.callback.core import Callback
from fastai.callback.mixup import MixUp
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat
from fastai.metrics import AvgMetric
from fastai.callback.training import GradientClip # for SETTINGS # noqa: F401
from fastai.optimizer import Adam, OptimWrapper, SGD # noqa: F401
from compare_helpers import *
from fastai_clr_ext.compare import *
from fastai_clr_ext.schedule import Cycle, Phase, constant

class Thing(Callback):
    def __init__(self, x): self.x = x

class Knot:
    def __init__(self, n): self.n,self.itself,self.f = n,[self]*3,self.tell
    def tell(self): return self.n

changed = np.arange(5000)
changed[2500] = 1
def loss(weight): return CrossEntropyLossFlat(weight=torch.tensor([1., weight]))

#: Two that are the same, and another
CASES = {'number': (lambda: .1, lambda: np.float64(.1), lambda: .2),
         'array': (lambda: np.arange(5000), lambda: np.arange(5000), lambda: changed),
         'tensor': (lambda: torch.arange(3), lambda: torch.arange(3), lambda: torch.arange(3.)),
         'bytes': (lambda: b'x'*999 + b'a', lambda: b'x'*999 + b'a', lambda: b'x'*999 + b'b'),
         'logger': (lambda: logging.getLogger('a'), lambda: logging.getLogger('a'), lambda: logging.getLogger('b')),
         'generator': (lambda: np.random.default_rng(0), lambda: np.random.default_rng(0),
                       lambda: np.random.default_rng(1)),
         'path': (lambda: Path('a'), lambda: Path('a'), lambda: Path('b')),
         'method': (lambda: Knot(1).tell, lambda: Knot(1).tell, lambda: Knot(2).tell),
         'knot': (lambda: Knot(1), lambda: Knot(1), lambda: Knot(2)),
         'partial': (lambda: partial(sum, start=1), lambda: partial(sum, start=1), lambda: partial(sum, start=2)),
         'loss': (lambda: loss(1.), lambda: loss(1.), lambda: loss(2.)),
         'callback': (lambda: MixUp(.4), lambda: MixUp(.4), lambda: MixUp(.5)),
         'lock': (threading.Lock, threading.Lock, lambda: 1)}

@pytest.mark.parametrize('kind', CASES)
def test_things_are_told_apart(kind):
    a,again,other = [canonical_text(Thing(make())) for make in CASES[kind]]
    assert a==again!=other and len(a)<20_000 and ' at 0x' not in a

def test_words_are_the_same_in_every_process(tmp_path):
    code = f'''import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_compare_identity import CASES, Thing, canonical_text
print([canonical_text(Thing(make())) for makes in CASES.values() for make in makes])'''
    said = [subprocess.run([sys.executable, '-W', 'ignore', '-c', code], capture_output=True, text=True, cwd=tmp_path,
                           env={'PYTHONHASHSEED': str(seed)}).stdout for seed in (1, 2)]
    assert said[0]==said[1]!=''

def test_a_policy_has_no_address():
    text = policy_text(Cycle([Phase('x', 1., lr=(1., .1, lambda a, b, p: a))]))
    assert '<function' in text and ' at 0x' not in text
    assert policy_text(constant(moms=.9)).startswith('Cycle([')

def test_other_data_or_callbacks_are_another_comparison(tmp_path):
    compare(make_shifted, POLICIES, seeds=1, out=tmp_path, **quick)
    for change,name in [(dict(by=100.), 'batches'), (dict(cbs=[MixUp]), 'callbacks, learner')]:
        with pytest.raises(ValueError, match=f'that one differs in .*{name}'):
            compare(partial(make_shifted, **change), POLICIES, seeds=1, out=tmp_path, **quick)
    compare(make_shifted, POLICIES, seeds=2, out=tmp_path, **quick)

class Policy:
    "Made with a rate"
    def __init__(self, lr): self.lr = lr
    def __call__(self, learn): learn.fit(2, self.lr)

@pytest.mark.parametrize('name,a,b', [
    ('callbacks', [partial(Rescale, 1.)], [partial(Rescale, .001)]),
    ('callbacks', [partial(MixUp, .4)], [partial(MixUp, .2)]),
    ('loss', dict(loss_func=torch.nn.HuberLoss(delta=1.)), dict(loss_func=torch.nn.HuberLoss(delta=.01))),
    ('loss', dict(loss_func=partial(F.huber_loss, delta=1.)), dict(loss_func=partial(F.huber_loss, delta=.01))),
    ('loss', dict(loss_func=eval('lambda p,t: F.mse_loss(p, t)')), dict(loss_func=eval('lambda p,t: F.l1_loss(p, t)'))),
    ('optimizer', dict(opt_func=lambda p, lr: SGD(p, lr, mom=.9)), dict(opt_func=lambda p, lr: Adam(p, lr)))],
    ids=lambda o: o if isinstance(o, str) else '')
def test_other_settings_are_another_comparison(name, a, b, tmp_path):
    make = lambda o: lambda seed: make_with(seed, *o) if isinstance(o, list) else make_line(seed, **o)
    for _ in range(2): compare(make(a), POLICIES, seeds=1, out=tmp_path, **quick)
    with pytest.raises(ValueError, match=f'that one differs in {name}$|that one differs in {name}[,;]'):
        compare(make(b), POLICIES, seeds=1, out=tmp_path, **quick)

def test_another_object_that_is_a_policy_is_another_comparison(tmp_path):
    go = lambda lr: compare(make_line, {'mine': Policy(lr), 'flat': constant()}, n_epoch=2, seeds=1,
                            lr_max={'flat': .05}, out=tmp_path, with_bar=False)
    assert go(.1).record['policies'][0]['what']=='Policy{lr=0.1}'
    go(.1)
    with pytest.raises(ValueError, match='differs in policies'): go(.2)

SETTINGS = '''
import sys
sys.path.insert(0, {here!r})
from test_compare_identity import *
make = lambda seed: make_with(seed, GradientClip, MixUp, opt_func=partial(OptimWrapper, opt=my_sgd),
                              loss_func=lambda p, t: F.mse_loss(p, t))
compare(make, POLICIES, seeds=int(sys.argv[2]), out=sys.argv[1], **quick)
'''

def test_another_process_goes_on(tmp_path):
    "No address in memory and no order of a set tells one comparison from itself"
    (tmp_path/'script.py').write_text(SETTINGS.format(here=str(Path(__file__).parent)))
    for n in (1, 2):
        p = start(tmp_path/'script.py', tmp_path/'out', n)
        assert not p.wait(), p.stderr.read()
    assert 'OptimWrapper(opt=my_sgd)' in (tmp_path/'out'/'comparison.json').read_text()

def test_cycles_of_other_functions_are_other_policies(tmp_path):
    go = lambda anneal: compare(make_line, {'a': Cycle([Phase('x', 1., lr=(1., .1, anneal))]), 'b': constant()},
                                seeds=1, out=tmp_path, **quick)
    go(lambda a, b, p: a + (b-a)*p); go(lambda a, b, p: a + (b-a)*p)
    with pytest.raises(ValueError, match='differs in policies'): go(lambda a, b, p: a + (b-a)*p*p)

def test_rates_as_slices_are_the_same_however_they_are_typed(tmp_path):
    go = lambda lr: compare(make_two, POLICIES, seeds=1, n_epoch=1, lr_max=lr, out=tmp_path, with_bar=False)
    for lr in (slice(1, 2), slice(1., np.float64(2))): go(lr)
    with pytest.raises(ValueError, match='differs in lr_max'): go(slice(1, 3))

def test_batches_that_differ_each_time_tell_nothing(tmp_path):
    "A loader whose order is not the seed's: it can't be known whether it is the same, so it is not refused"
    made = []
    def make(seed):
        made.append(seed)
        return make_shifted(seed, by=float(len(made)))
    for n in (1, 2): compare(make, POLICIES, seeds=n, out=tmp_path, **quick)
    assert json.loads((tmp_path/'comparison.json').read_text())['batches'] is None

# ---- code that changed

some_rate = .1
def helper(x): return x*some_rate

def by_default(lr=.1): return lambda learn, lr=lr: learn.fit(2, lr)
def by_keyword(lr=.1): return eval('lambda learn, *, lr=lr: learn.fit(2, lr)', {'lr': lr})
def by_closure(lr=.1): return lambda learn: learn.fit(2, lr)
def by_inner(lr=.1):
    def policy(learn):
        def inner(): return learn.fit(2, lr)
        return inner()
    return policy
def by_array(lr=.1):
    many = np.full(1000, lr)
    return lambda learn, lrs=many: learn.fit(2, lrs[500])
def by_two_closures(lr=.1):
    inner = by_closure(lr)
    return lambda learn: inner(learn)
def by_global(lr=.1): return eval('lambda learn: learn.fit(2, lr)', {'lr': lr})
def by_function(lr=.1):
    space = {}
    exec(f'def deep(): return {lr}\ndef rate(): return deep()\ndef policy(learn): learn.fit(2, rate())', space)
    return space['policy']
def by_dict(lr=.1): return eval('lambda learn: learn.fit(2, rates["a"])', {'rates': {'a': lr}})
def by_inner_global(lr=.1): return eval('lambda learn: (lambda: learn.fit(2, lr))()', {'lr': lr})
def by_module(lr=.1):
    module = ModuleType('my_rates')
    module.lr = lr
    return eval('lambda learn: learn.fit(2, my_rates.lr)', {'my_rates': module})
def by_class(lr=.1):
    class Mine:
        rate = lr
        def __call__(self, learn): learn.fit(2, self.rate)
    return Mine()
def by_method(lr=.1):
    class Mine:
        def train(self, learn): learn.fit(2, lr)
    return Mine().train
def by_base(lr=.1):
    class Base:
        @staticmethod
        def rate(): return lr
    class Mine(Base):
        def __call__(self, learn): learn.fit(2, self.rate())
    return Mine()
def by_property(lr=.1):
    class Mine:
        @property
        def rate(self): return lr
        def __call__(self, learn): learn.fit(2, self.rate)
    return Mine()
def by_slots(lr=.1):
    policy = Slotted()
    policy.lr = lr
    return policy
def by_partial(lr=.1): return partial(lambda learn, f: learn.fit(2, f()), f=partial(float, lr))
def by_wrapper(lr=.1): return wraps(helper)(by_closure(lr))
def by_cache(lr=.1): return lru_cache(by_closure(lr))
def by_attribute(lr=.1):
    def policy(learn): learn.fit(2, policy.lr)
    policy.lr = lr
    return policy
def by_set(lr=.1): return lambda learn, lrs=frozenset({lr, 'a', 'b', 'c'}): learn.fit(2, lrs)
def by_key(lr=.1): return lambda learn, lrs={(lr,): 1}: learn.fit(2, lrs)

class Slotted:
    __slots__ = ('lr',)
    def __call__(self, learn): learn.fit(2, self.lr)

MADE = [by_default, by_keyword, by_closure, by_inner, by_array, by_two_closures, by_global, by_function, by_dict,
        by_inner_global, by_module, by_class, by_method, by_base, by_property, by_slots, by_partial, by_wrapper,
        by_cache, by_attribute, by_set, by_key]

@pytest.mark.parametrize('make', MADE, ids=lambda f: f.__name__)
def test_what_a_function_uses_is_part_of_it(make):
    assert canonical_text(make(.1))==canonical_text(make(.1))!=canonical_text(make(.2))

def test_code_is_described_the_same_in_every_process(tmp_path):
    code = f'''import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_compare_identity import MADE, canonical_text
print([canonical_text(make()) for make in MADE])'''
    said = [subprocess.run([sys.executable, '-W', 'ignore', '-c', code], capture_output=True, text=True, cwd=tmp_path,
                           env={'PYTHONHASHSEED': str(seed)}).stdout for seed in (1, 2)]
    assert said[0]==said[1] and len(said[0])>1000

@pytest.mark.parametrize('make', [by_closure, by_global, by_class], ids=lambda f: f.__name__)
def test_a_folder_of_other_code_is_refused(make, tmp_path):
    go = lambda lr: compare(make_line, {'mine': make(lr), 'flat': constant()}, n_epoch=2, seeds=1,
                            lr_max={'flat': .05}, out=tmp_path, with_bar=False)
    go(.1); go(.1)
    with pytest.raises(ValueError, match='differs in policies'): go(.2)

class Net(torch.nn.Linear):
    "Its forward pass depends on something that is neither weight nor name"
    def __init__(self, act): super().__init__(1, 1); self.act = act
    def forward(self, x): return self.act(super().forward(x))

def scaled_loss(by): return lambda p, t: F.mse_loss(p, t)*by
def first_metric(by): return AvgMetric(lambda p, t: (p-t).abs().mean()*by)

@pytest.mark.parametrize('name,make', [
    ('loss', lambda x: dict(loss_func=scaled_loss(x))),
    ('loss', lambda x: dict(loss_func=type('Loss', (), dict(__call__=lambda self, p, t: F.mse_loss(p, t)*x))())),
    ('metrics', lambda x: dict(metrics=first_metric(x))),
    ('model', lambda x: dict(model=Net(lambda y: y*x))),
    ('model', lambda x: dict(model=torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.Dropout(x)))),
    ('model', lambda x: dict(model=torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.Hardtanh(-9, 90*x)))),
    ('optimizer', lambda x: dict(opt_func=lambda p, lr: SGD(p, lr, mom=x))),
    ('settings', lambda x: dict(moms=(x, x, x))), ('settings', lambda x: dict(train_bn=x>.5)),
    ('settings', lambda x: dict(splitter=lambda m: [list(m.parameters())][:int(1+x)]))],
    ids=lambda o: o if isinstance(o, str) else '')
def test_code_of_a_learner_is_part_of_a_comparison(name, make, tmp_path):
    def made(x):
        def make_learner(seed):
            torch.manual_seed(seed)
            return make_line(seed, **make(x)) if 'model' not in make(x) else with_model(seed, make(x)['model'])
        return make_learner
    settings = dict(seeds=1, out=tmp_path, higher=True, **quick)
    for _ in range(2): compare(made(.1), POLICIES, **settings)
    with pytest.raises(ValueError, match=f'that one differs in {name}; got'): compare(made(.9), POLICIES, **settings)

def with_model(seed, model):
    learn = make_line(seed)
    return Learner(learn.dls, model, loss_func=learn.loss_func, opt_func=learn.opt_func, lr=.01)

# ---- what can't be described

def nested(n):
    x = []
    for _ in range(n): x = [x]
    return x

UNKNOWABLE = {'many objects': (lambda: [[i] for i in range(100_001)], 'more than 100,000 objects'),
              'deep': (lambda: nested(100), 'objects more than 60 deep'),
              'generator': (lambda: (i for i in range(3)), 'a generator'),
              'much data': (lambda: np.zeros(70_000_000), 'more than 500,000,000 bytes of data')}

@pytest.mark.parametrize('kind', UNKNOWABLE)
def test_what_cannot_be_described_is_not_gone_on_with(kind, tmp_path):
    make,why = UNKNOWABLE[kind]
    def policy(held): return lambda learn: learn.fit(2, .05) if held is not None else None
    held = make()
    assert canonical_text(policy(held))==f'cannot be told apart: it holds {why}'
    if kind!='generator': return # which only this process can copy
    policies = {'mine': Holder(held), 'flat': constant()}
    go = lambda: compare(make_line, policies, n_epoch=2, seeds=1, lr_max={'flat': .05}, out=tmp_path, with_bar=False)
    assert len(go().df)==2
    with pytest.raises(ValueError, match=r"out must be a new folder, because policies\['mine'\] cannot be told apart: "
                                         'it holds a generator; got'): go()

class Holder:
    "Holds something, which a copy shares"
    def __init__(self, held): self.held = held
    def __call__(self, learn): learn.fit(2, .05)
    def __deepcopy__(self, memo): return self

def test_settings_that_vary_are_not_gone_on_with(tmp_path):
    import uuid
    make = lambda seed: make_line(seed, cbs=Thing(uuid.uuid4().hex))
    compare(make, POLICIES, seeds=1, out=tmp_path, **quick)
    with pytest.raises(ValueError, match='out must be a new folder, because callbacks cannot be told apart: it differs '
                                         'between two learners of one seed'):
        compare(make, POLICIES, seeds=1, out=tmp_path, **quick)

def test_functions_that_use_each_other_and_themselves_end():
    space = {}
    exec('def a(n): return b(n-1)\ndef b(n): return a(n-1) if n else c\nclass c:\n  def f(self): return a(c())', space)
    other = {}
    exec('def a(n): return b(n-1)\ndef b(n): return a(n-2) if n else c\nclass c:\n  def f(self): return a(c())', other)
    assert canonical_text(space['a'])==canonical_text(space['a'])!=canonical_text(other['a'])
