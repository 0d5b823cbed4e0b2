"What tells one thing from another: the same in every process, and no more than there is to tell"
import logging, subprocess, sys, threading
from functools import partial
from pathlib import Path
import numpy as np, pytest, torch
from fastai.callback.core import Callback
from fastai.callback.mixup import MixUp
from fastai.losses import CrossEntropyLossFlat
from fastai_clr_ext.compare import *
from fastai_clr_ext.compare import canonical_text
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
from test_identity import CASES, Thing, canonical_text
print([canonical_text(Thing(make())) for makes in CASES.values() for make in makes])'''
    said = [subprocess.run([sys.executable, '-W', 'ignore', '-c', code], capture_output=True, text=True, cwd=tmp_path,
                           env={'PYTHONHASHSEED': str(seed)}).stdout for seed in (1, 2)]
    assert said[0]==said[1]!=''

def test_a_policy_has_no_address():
    text = policy_text(Cycle([Phase('x', 1., lr=(1., .1, lambda a, b, p: a))]))
    assert '<function' in text and ' at 0x' not in text
    assert policy_text(constant(moms=.9)).startswith('Cycle([')
