"What tells one thing from another: the same in every process, and no more than there is to tell"
import json, logging, subprocess, sys, threading
from functools import partial
from pathlib import Path
import numpy as np, pytest, torch
from torch.nn import functional as F
from fastai.callback.core import Callback
from fastai.callback.mixup import MixUp
from fastai.losses import CrossEntropyLossFlat
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
