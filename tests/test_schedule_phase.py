"Phases and annealers"
import numpy as np, pytest
from numpy.testing import assert_allclose
from fastai.callback.schedule import sched_cos, sched_exp, sched_lin
from fastai_clr_ext.schedule import *
from fastai_clr_ext.schedule.phase import phase_values

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
    'momentum below 0': (lambda: Phase('a', 1, mom=(-.1, .9)), r'must lie in \[0, 1\); got -0.1'),
    'text': (lambda: Phase('a', 1, lr='fast'), 'must be a value'),
    'no name': (lambda: Phase('', 1, lr=1), 'a phase name must be a non-empty string'),
    'a number as annealer': (lambda: Phase('a', 1, lr=(0, 1, 3)), 'anneal must be one of'),
    'power in words': (lambda: Phase('a', 1, lr=(0, 1, ('poly', '2'))), "power of 'poly' must be a number above 0"),
}

@pytest.mark.parametrize('call,says', BAD.values(), ids=BAD.keys())
def test_bad_input(call, says):
    with pytest.raises(ValueError, match=says): call()

@pytest.mark.parametrize('name,theirs', [('lin', sched_lin), ('cos', sched_cos), ('exp', sched_exp)])
def test_annealers_equal_fastai(name, theirs):
    pos = np.linspace(0, 1, 101)
    assert_allclose(ANNEALERS[name](.3, 2e-4, pos, None), [theirs(.3, 2e-4, p) for p in pos], rtol=1e-11)
    assert ANNEALERS[name](.3, 2e-4, np.array([1.]), None)[0]==2e-4

@pytest.mark.parametrize('anneal,start,end,middle', [
    ('exp', .5, .125, .25), ('inv_sqrt', 1, .5, .4**.5), ('poly', 0, 1, .25), (('poly', 3), 1, 0, .875),
    ('poly_decay', 1, 0, .5), (('poly_decay', 2), 1, 0, .25), ('rise', 0, 1, .5), (('rise', 4), 0, 1, .25),
    ('fall', 1, 0, .5), (('fall', .25), 1, 0, .25)], ids=str)
def test_annealers_at_the_ends_and_in_the_middle(anneal, start, end, middle):
    "The middle is worked out by hand; `inv_sqrt` has 1/lr² = 1 and 4 at its ends"
    spec = Phase('a', 1, lr=(start, end, anneal)).hypers['lr']
    assert_allclose(phase_values('a', 'lr', spec, np.array([0., .5, 1.])), [start, middle, end], rtol=1e-12)

@pytest.mark.parametrize('name,value', [('lr', -1.), ('lr', np.inf), ('lr', np.nan), ('mom', 1.), ('wd', np.inf),
                                        ('other', np.nan)])
def test_values_of_a_callable_are_checked(name, value):
    with pytest.raises(ValueError, match=f"{name} of phase 'a', as its annealer"):
        phase_values('a', name, (.5, .5, lambda start, end, pos: value), np.array([.5]))

def test_a_callable_annealer_gets_floats():
    seen = []
    c = one_cycle(anneal=lambda s, e, p: seen.append(type(p)) or sched_cos(s, e, p))
    assert_allclose(c.table(50)['lr'], one_cycle(anneal='cos').table(50)['lr'], rtol=1e-12)
    assert set(seen)=={float}
