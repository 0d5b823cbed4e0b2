"Raw and smoothed curves: what they show is what was recorded"
from pathlib import Path
import matplotlib.pyplot as plt, numpy as np, pytest
from numpy.testing import assert_allclose, assert_array_equal
from torch import nn
from fastai.callback.core import Callback, CancelStepException
from fastai.callback.training import GradientAccumulation
from fastai_clr_ext.core.figures import PARTLY, RAW, SMOOTHED
from fastai_clr_ext.schedule import *
from fastai_clr_ext.record import *
from fastai_clr_ext.train import *
from fastai_clr_ext.plot import *
from fastai_clr_ext.plot.curves import is_alone, running_median, with_gaps
from plot_helpers import *

# real fits of ten kinds: mean |g| and losses, made by bench/histories.py
HISTORIES = np.load(Path(__file__).parent/'histories.npz')

def local_median(y, i, window):
    "Median of the nearest values, as many on both sides as there are, at least an eighth of the window"
    half = window//2
    near = min(half, max(half//4, 2, min(i, len(y)-1-i)))
    return np.median([y[j] for j in range(len(y)) if abs(i-j)<=near])

@pytest.mark.parametrize('name', HISTORIES.files)
def test_the_smoothed_curve_stays_with_the_raw_one(name):
    "Within 15 % of the local median, on a log scale; of a long fit at 400 places, of which 100 are at its ends"
    y = np.exp(HISTORIES[name]/1000.)
    n = int(name.split()[1])
    smoothed = running_median(y)
    ends = np.r_[:50, n-50:n]
    places = range(n) if n<=400 else np.unique(np.r_[ends, np.linspace(0, n-1, 300).astype(int)])
    window = max(n//20, 3)
    want = [local_median(y, i, window) for i in places] if n<=2000 else [fast_median(y, i, window) for i in places]
    assert abs(np.log(smoothed[list(places)]/want)).max() < np.log(1.15)

def fast_median(y, i, window):
    half = window//2
    near = min(half, max(half//4, 2, min(i, len(y)-1-i)))
    return np.median(y[max(i-near, 0):i+near+1])

@pytest.mark.parametrize('n', [400, 2000, 100_000])
@pytest.mark.parametrize('shape', [
    lambda t: np.where(t<.8, 1, 100**(-(t-.8)/.2)), lambda t: np.exp(-5*t), lambda t: np.where(t<.5, 1, .03),
    lambda t: 1+20*np.exp(-t*50)], ids=['annihilation', 'decay', 'jump', 'spikes at the start'])
def test_a_known_curve_is_found_again(n, shape):
    "Noise of 30 % around a known curve; its spikes, 1 in 50, are ten times as high"
    rng = np.random.default_rng(0)
    t = np.arange(n)/n
    truth = shape(t)
    y = truth*np.exp(.3*rng.normal(size=n))*np.where(rng.random(n)<.02, 10, 1)
    error = abs(np.log(running_median(y)/truth))
    assert np.quantile(error, .95)<np.log(1.4 if n==400 else 1.15)
    if n>400: assert error[[0, -1]].max()<np.log(1.35), 'also at both ends'

def test_a_fall_at_the_end_is_not_hidden():
    "The exponential mean that was drawn before ends at 40 times this curve"
    y = np.r_[np.full(16, 1e-3), np.geomspace(1e-3, 1e-6, 5)]
    assert running_median(y)[-1]<=2*y[-2]

@pytest.mark.parametrize('window', [1, 2, 3, 4, 11, 1000])
def test_a_window_of_ones_own(window):
    y = np.random.default_rng(1).normal(size=60)
    assert_allclose(running_median(y, window), [local_median(y, i, window) for i in range(60)])

@pytest.mark.parametrize('window', [None, 1, 2, 3, 4, 11, 12, 16, 17, 1000])
@pytest.mark.parametrize('n', [60, 97, 100])
def test_a_long_curve_has_the_same_medians(n, window, monkeypatch):
    "From some length on another filter is used"
    y = np.random.default_rng(1).normal(size=n)
    want = running_median(y, window)
    monkeypatch.setattr('fastai_clr_ext.plot.curves.LONG_CURVE', 0)
    assert_allclose(running_median(y, window), want)
    y[7] = np.nan
    got = running_median(y, window)
    assert np.isnan(got[7]) and np.isfinite(np.delete(got, 7)).all()

def test_what_is_not_finite_is_left_out_and_stays_a_gap():
    y = np.array([1, np.nan, 3, np.inf, 5, 6, 7])
    got = running_median(y, 3)
    assert np.isnan(got[[1, 3]]).all() and got[[0, 2, 4]].tolist()==[1, 3, 5.5]
    assert np.isnan(running_median(np.full(5, np.nan))).all() and not len(running_median(np.array([])))

# gaps

def curve(ax, kind): return [line for line in ax.lines if line.get_gid()==kind]

def gaps(line):
    "Places at which a line is broken"
    x,y = line.get_xydata().T
    return x[np.isnan(y)].tolist()

class Skip(Callback):
    "Cancels the steps of some batches"
    order = 5
    def __init__(self, *at): self.at = at
    def before_step(self):
        if self.learn.train_iter in self.at: raise CancelStepException

def test_a_curve_is_broken_between_fits_and_at_skipped_steps(mlp):
    learn = mlp(cbs=GradRecorder())
    learn.fit_one_cycle_ext(1, .01, cbs=Skip(4, 5))
    learn.fit_one_cycle_ext(1, .01)
    ax = learn.recorder.plot_grads(per_group=False)
    for kind in (RAW, SMOOTHED): assert gaps(curve(ax, kind)[0])==[4.5, 9.5]

def test_accumulation_does_not_break_a_curve(mlp):
    learn = mlp(cbs=GradRecorder())
    learn.fit_one_cycle_ext(2, .01, cbs=GradientAccumulation(48))
    assert gaps(curve(learn.recorder.plot_grads(per_group=False), RAW)[0])==[]

def test_a_single_value_between_gaps_is_a_dot(mlp):
    assert is_alone(np.array([1, np.nan, 2, 3, np.nan, 4])).tolist()==[True, False, False, False, False, True]
    learn = mlp(cbs=GradRecorder())
    learn.fit_one_cycle_ext(1, .01, cbs=Skip(3, 5))
    ax = learn.recorder.plot_grads(per_group=False)
    dots = [line for line in ax.lines if line.get_marker()=='.']
    assert [line.get_xdata().tolist() for line in dots]==[[4], [4]], 'raw and smoothed'

def test_with_gaps():
    x,y = with_gaps(np.array([0, 1, 5]), np.array([1., 2, 3]), np.array([False, True]))
    assert x.tolist()==[0, 1, 3, 5]
    assert_array_equal(y, [1, 2, np.nan, 3])

class Body(nn.Module):
    def __init__(self):
        super().__init__()
        self.body,self.head = nn.Sequential(nn.Linear(1, 30), nn.BatchNorm1d(30), nn.Linear(30, 30)),nn.Linear(30, 1)
    def forward(self, x): return self.head(self.body(x))

def split(model): return [list(model.body.parameters()), list(model.head.parameters())]

def test_normalisation_layers_of_a_frozen_group_are_marked(mlp):
    "While the body is frozen, 60 of its 1050 parameters have gradients"
    learn = mlp(cbs=GradRecorder(), model=Body(), splitter=split)
    learn.fine_tune_long(1, .01, head_epochs=1)
    assert learn.recorder.history.fit_rows[0]['group_sizes']==[1050, 31]
    ax = learn.recorder.plot_grads()
    n = len(learn.recorder.history)//2
    partly, = curve(ax, PARTLY)
    known = partly.get_xdata()[np.isfinite(partly.get_ydata())]
    assert known.tolist()==list(range(n)) and partly.get_linestyle()==':'
    whole = curve(ax, SMOOTHED)[0]
    assert whole.get_xdata()[np.isfinite(whole.get_ydata())].tolist()==list(range(n, 2*n))
    assert 'most of it frozen' in [t.get_text() for t in ax.get_legend().get_texts()]

def test_a_group_without_gradients_is_a_gap(mlp):
    learn = mlp(cbs=GradRecorder())
    learn.fit_one_cycle_ext(1, .01)
    learn.freeze()
    learn.fit_one_cycle_ext(1, .01)
    learn.unfreeze()
    learn.fit_one_cycle_ext(1, .01)
    ax = learn.recorder.plot_grads()
    first = curve(ax, RAW)[0]
    assert gaps(first)==[14.5] and set(range(10, 20)).isdisjoint(first.get_xdata())
    assert not curve(ax, PARTLY)

# what is drawn

def test_raw_and_smoothed_are_in_the_legend():
    ax = made().plot_grads(per_group=False)
    assert [t.get_text() for t in ax.get_legend().get_texts()]==['all groups', 'raw', 'smoothed']
    raw,smoothed = curve(ax, RAW)[0],curve(ax, SMOOTHED)[0]
    assert raw.get_alpha()<.5 and raw.get_linewidth()<smoothed.get_linewidth()
    ax = made().plot_grads(per_group=False, window=1)
    assert not curve(ax, RAW) and [t.get_text() for t in ax.get_legend().get_texts()]==['all groups']

def test_each_fit_is_smoothed_on_its_own():
    h = made()
    y = ((h.steps.mean_abs_0+h.steps.mean_abs_1)/2).to_numpy()
    smoothed = curve(h.plot_grads(per_group=False), SMOOTHED)[0].get_ydata()
    assert_allclose(smoothed, np.r_[running_median(y[:200]), np.nan, running_median(y[200:])], rtol=1e-6)

@pytest.mark.parametrize('what', ['sqrt_v', 'eff_step'])
def test_what_is_not_noisy_is_drawn_as_measured(what):
    h = made(groups=1)
    ax = h.plot_adam()[['sqrt_v', 'eff_step'].index(what)]
    assert len(ax.lines)==2 and not curve(ax, RAW), 'the curve and the border'
    y = h.steps[f'{what}_0'].to_numpy()
    assert_allclose(ax.lines[0].get_ydata(), np.insert(y, 200, np.nan))

@pytest.mark.parametrize('window', [0, -1, 1.5, True, 'a', float('nan')])
@pytest.mark.parametrize('name', ['plot_grads', 'plot_cycle', 'plot_losses', 'plot_vs_lr'])
def test_windows_that_are_none(name, window):
    with pytest.raises((ValueError, TypeError), match='window must'): getattr(made(n=80), name)(window=window)
    assert not plt.get_fignums()

def test_every_second_step_skipped(mlp):
    "No two steps follow each other, so there is no line to draw: raw and smoothed are dots"
    learn = mlp(n_trn=40, cbs=GradRecorder())
    learn.fit_one_cycle_ext(1, .01, cbs=Skip(*range(1, 40, 2)))
    ax = learn.recorder.plot_grads(per_group=False)
    dots = [line for line in ax.lines if line.get_marker()=='.']
    assert [line.get_xdata().tolist() for line in dots]==[list(range(0, 40, 2))]*2

def test_bands_of_quantiles_have_gaps_and_crosses(mlp):
    learn = mlp(cbs=GradRecorder('hist'))
    learn.fit_one_cycle_ext(1, .01, cbs=Skip(4))
    learn.fit_one_cycle_ext(1, .01)
    ax = learn.recorder.plot_grad_spread()
    assert gaps(ax.lines[0])==[4, 9.5]

def test_against_the_rate_each_fit_is_smoothed_on_its_own():
    h = made(stages=('a', 'a'))
    line = [line for line in h.plot_vs_lr(stage='a').lines if line.get_gid()==SMOOTHED][0]
    first,second = [h.steps.query(f'fit=={fit}').loss[:91].to_numpy() for fit in (0, 1)]
    assert_allclose(line.get_ydata(), np.r_[running_median(first), np.nan, running_median(second)])

def test_a_legend_is_not_kept_away_from_shades(mlp):
    "The validation losses lie in a corner that is shaded; the legend goes to one that is free"
    h = made()
    ax = h.plot_losses()
    ax.figure.canvas.draw()
    box = ax.get_legend().get_window_extent()
    for line in ax.lines:
        if not len(line.get_xdata()) or line.get_gid()=='clr-fits' or line.get_marker()=='x': continue
        points = ax.transData.transform(np.column_stack(line.get_data()))
        assert not any(box.contains(x, y) for x,y in points if np.isfinite(y))

def test_a_heat_map_has_borders_and_names_what_is_not_finite(mlp):
    ax = made(bad=(120,)).plot_grad_heatmap()
    assert [line.get_xdata()[0] for line in ax.lines if line.get_gid()=='clr-fits']==[199.5] and not shades_of(ax)
    assert [line.get_xdata().tolist() for line in ax.lines if line.get_label()=='not finite']==[[120]]

@pytest.mark.parametrize('every', [2, 5])
def test_steps_that_were_not_asked_for_are_no_gaps(mlp, every):
    learn = mlp(n_trn=40, cbs=GradRecorder(every=every))
    learn.fit_one_cycle_ext(1, .01)
    learn.fit_one_cycle_ext(1, .01)
    ax = learn.recorder.plot_grads(per_group=False)
    for kind in (RAW, SMOOTHED): assert len(gaps(curve(ax, kind)[0]))==1, 'between the fits'
    assert not [line for line in ax.lines if line.get_marker()=='.']

def test_groups_with_different_phases_are_not_shaded(mlp):
    learn = mlp()
    learn.fit_one_cycle_ext(1, .01, sched=[one_cycle(), constant()])
    ax = learn.recorder.plot_lr()
    assert not ax.texts and not shades_of(ax)
    learn.fit_one_cycle_ext(1, .01, sched=[one_cycle(), one_cycle(div=5)])
    assert [t.get_text() for t in learn.recorder.plot_lr(fit=-1).texts]==['warm-up', 'cool-down', 'annihilation']

@pytest.mark.parametrize('n', [1, 2, 3, 9])
def test_a_few_steps_are_not_smoothed(n):
    y = np.random.default_rng(0).normal(size=n)
    assert_array_equal(running_median(y), y)

class FreezeFor(Callback):
    "Freezes the first group for some batches in the middle of a fit"
    order = 0
    def before_batch(self):
        if not self.training or self.train_iter not in (3, 6): return
        for p in self.learn.opt.param_lists[0]:
            p.requires_grad_(self.train_iter==6)
            p.grad = None

def test_a_group_that_is_frozen_in_the_middle_of_a_fit_is_a_gap(mlp):
    learn = mlp(cbs=GradRecorder())
    learn.fit_one_cycle_ext(1, .01, cbs=FreezeFor())
    ax = learn.recorder.plot_grads()
    raw = curve(ax, RAW)
    assert gaps(raw[0])==[4] and {3, 4, 5}.isdisjoint(raw[0].get_xdata()[np.isfinite(raw[0].get_ydata())])
    assert gaps(raw[1])==[]
