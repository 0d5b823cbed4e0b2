"Phases and annealers"
import numpy as np, pytest
from numpy.testing import assert_allclose
from fastai.callback.schedule import sched_cos, sched_exp, sched_lin
from fastai_clr_ext.schedule import *

BAD = {
    'negative length': (lambda: Phase('a', -.5, lr=1), r"pct of phase 'a' must lie in \(0, 1\]; got -0.5"),
    'nan length': (lambda: Phase('a', float('nan'), lr=1), r'pct of phase'),
    'no hypers': (lambda: Phase('a', 1), 'set at least one hyper-parameter'),
    'unknown annealer': (lambda: Phase('a', 1, lr=(0, 1, 'cubic')), 'anneal must be one of'),
    'power of lin': (lambda: Phase('a', 1, lr=(0, 1, ('lin', 2))), 'without a power'),
    'power': (lambda: Phase('a', 1, lr=(0, 1, ('poly', -1))), "power of 'poly' must be a number above 0"),
    'exp to 0': (lambda: Phase('a', 1, lr=(1, 0, 'exp')), "annealer 'exp'"),
    'lr below 0': (lambda: Phase('a', 1, lr=(-1, 1)), "lr of phase 'a' must be at least 0; got -1"),
    'momentum 1': (lambda: Phase('a', 1, mom=(.9, 1)), r'must lie in \[0, 1\); got 1'),
    'text': (lambda: Phase('a', 1, lr='fast'), 'must be a value'),
}

@pytest.mark.parametrize('call,says', BAD.values(), ids=BAD.keys())
def test_bad_input(call, says):
    with pytest.raises(ValueError, match=says): call()

@pytest.mark.parametrize('name,theirs', [('lin', sched_lin), ('cos', sched_cos), ('exp', sched_exp)])
def test_annealers_equal_fastai(name, theirs):
    pos = np.linspace(0, 1, 101)
    assert_allclose(ANNEALERS[name](.3, 2e-4, pos, None), [theirs(.3, 2e-4, p) for p in pos], rtol=1e-11)
    assert ANNEALERS[name](.3, 2e-4, np.array([1.]), None)[0]==2e-4

def test_a_callable_annealer_gets_floats():
    seen = []
    c = one_cycle(anneal=lambda s, e, p: seen.append(type(p)) or sched_cos(s, e, p))
    assert_allclose(c.table(50)['lr'], one_cycle(anneal='cos').table(50)['lr'], rtol=1e-12)
    assert set(seen)=={float}
