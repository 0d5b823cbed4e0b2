"What all figures of a history have in common"
import os, shutil
from pathlib import Path
import matplotlib, matplotlib.pyplot as plt, numpy as np, pandas as pd, pytest
from matplotlib.testing.compare import compare_images
from matplotlib.text import Text
from numpy.testing import assert_array_equal
from fastai.callback.core import Callback
from fastai.metrics import mse
from fastai.optimizer import Adam
from fastai_clr_ext.record import *
from fastai_clr_ext.train import *
from fastai_clr_ext.plot import *
from plot_helpers import *

ONE = ['plot_lr', 'plot_grads', 'plot_grad_heatmap', 'plot_grad_spread', 'plot_losses', 'plot_vs_lr']

MANY = {'plot_adam': 3, 'plot_cycle': 4, 'plot_metrics': 1, 'plot_stages': 2}

ALL = [*ONE, *MANY]

@pytest.mark.parametrize('name', ALL)
def test_contract(name):
    "Axes in, axes out, labels and legend, the history and rcParams as they were"
    h = made()
    before,rc = h.steps,dict(plt.rcParams)
    n = MANY.get(name, 1)
    axs = axes_of(plt.subplots(n)[1])
    given = dict(axs=axs) if name in MANY else dict(ax=axs[0])
    out = getattr(h, name)(**given)
    assert axes_of(out)==axs and (isinstance(out, np.ndarray) if name in MANY else out is axs[0])
    assert all(a.get_ylabel() for a in axs) and axs[-1].get_xlabel() in ('iteration (batch)', 'learning rate')
    assert all(a.lines or a.collections for a in axs), 'none is left empty'
    assert name in ('plot_grad_heatmap', 'plot_metrics') or axs[0].get_legend()
    pd.testing.assert_frame_equal(h.steps, before)
    assert dict(plt.rcParams)==rc
    figures = plt.get_fignums()
    getattr(h, name)()
    assert len(plt.get_fignums())==len(figures)+1, 'a figure of its own without axes'

@pytest.mark.parametrize('name', ALL)
@pytest.mark.parametrize('fmt', ['png', 'svg', 'pdf'])
def test_can_be_saved(name, fmt, tmp_path):
    axes_of(getattr(made(n=80), name)())[0].figure.savefig(tmp_path/f'x.{fmt}')
    assert (tmp_path/f'x.{fmt}').stat().st_size > 2000

@pytest.mark.parametrize('name', [o for o in ALL if o!='plot_metrics'])
@pytest.mark.parametrize('part,lo,hi', [(dict(stage='body'), 200, 400), (dict(fit=0), 0, 200),
                                        (dict(fit=-1, skip_start=50), 250, 400), (dict(skip_end=300), 0, 100),
                                        (dict(stage='head', skip_start=10, skip_end=20), 10, 180)], ids=str)
def test_parts(name, part, lo, hi):
    "Every plot draws the part asked for, at its place among all batches"
    h = made()
    if name=='plot_vs_lr' and set(part)=={'skip_end'}: return # it draws the last fit alone
    ax = axes_of(getattr(h, name)(**part))[0]
    if name=='plot_vs_lr':
        lr = h.steps.lr_1.to_numpy()
        assert ({round(float(v), 12) for l in ax.lines for v in l.get_xdata()}
                <= {round(float(v), 12) for v in lr[lo:hi]})
        return
    if name=='plot_grad_heatmap': xs = [ax.collections[0].get_coordinates()[0,[0,-1],0] + [.5, -.5]]
    else: xs = [l.get_xdata() for l in ax.lines if len(l.get_xdata())>2]
    assert min(x[0] for x in xs)==lo and max(x[-1] for x in xs)==hi-1

@pytest.mark.parametrize('name', [o for o in ALL if o!='plot_vs_lr']) # which draws the last fit alone
@pytest.mark.parametrize('part,says', [
    (dict(stage='neck'), r"stage must be one of \['head', 'body'\]; got 'neck'"),
    (dict(fit=2), r'fit must be a whole number in \[-2, 2\)'),
    (dict(fit=0, stage='body'), "fit must belong to the stage 'body'"),
    (dict(skip_end=400), r'skip_end must be a whole number in \[0, 400\)'),
    (dict(skip_start=200, skip_end=200), 'skip_start and skip_end together must leave something of 400'),
    (dict(skip_start=1.5), 'skip_start must')], ids=str)
def test_bad_parts(name, part, says):
    with pytest.raises(ValueError, match=says): getattr(made(n=400), name)(**part)
    assert not plt.get_fignums(), 'no empty figure is left behind'

@pytest.mark.parametrize('name', MANY)
def test_wrong_number_of_axes(name):
    with pytest.raises(ValueError, match=f'axs must be {MANY[name]} axes; got 5'):
        getattr(made(), name)(axs=plt.subplots(5)[1])

@pytest.mark.parametrize('name', ALL)
def test_one_step(mlp, name):
    learn = mlp(n_trn=1, cbs=GradRecorder('hist', adam=True), opt_func=Adam, metrics=mse)
    learn.fit(1)
    if name=='plot_vs_lr':
        with pytest.raises(ValueError, match='its schedule has no warm-up'): learn.recorder.plot_vs_lr()
    else: axes_of(getattr(learn.recorder, name)())[0].figure.canvas.draw()

@pytest.mark.parametrize('name', ALL)
def test_nothing_trained(mlp, name):
    with pytest.raises(ValueError, match='No training is recorded. Train with'): getattr(RunHistory(), name)()
    with pytest.raises(ValueError, match='No training is recorded. Train with'): getattr(mlp().recorder, name)()
    assert not plt.get_fignums()

@pytest.mark.parametrize('name,says', [('plot_grads', 'Give GradRecorder'), ('plot_grad_heatmap', 'Give GradRecorder'),
                                       ('plot_adam', 'Give GradRecorder'),
                                       ('plot_grad_spread', "GradRecorder's stats must have included 'hist'")])
def test_what_is_missing_is_named(mlp, name, says):
    learn = mlp()
    learn.fit_one_cycle_ext(1)
    with pytest.raises(ValueError, match=says): getattr(learn.recorder, name)()
    learn.fit(1, cbs=GradRecorder('max', per='layer'))
    with pytest.raises(ValueError, match='adam=True, which records'): learn.recorder.plot_adam()
    with pytest.raises(ValueError, match=r"what must be among what was recorded, \['mean_abs', 'norm', 'max_abs'\]; "
                                         "GradRecorder"): learn.recorder.plot_grads('cosine')
    with pytest.raises(ValueError, match=r"layers must be among \['0', '2'\]; got 'x'"):
        learn.recorder.plot_grads(layers='x')
    with pytest.raises(ValueError, match='the learner must have metrics'): learn.recorder.plot_metrics()
    with pytest.raises(ValueError, match=r"layers must be None for a history of groups"): made().plot_grads(layers='0')
    with pytest.raises(ValueError, match=r'of must be None or one of'): made().plot_grad_spread(of=7)
    assert not plt.get_fignums()

def test_not_finite_is_a_gap_and_marked():
    h = made(bad=(100, 101, 250))
    for name in ('plot_losses', 'plot_grads'):
        ax = getattr(h, name)()
        marks = [l for l in ax.lines if l.get_label()=='not finite']
        assert len(marks)==1 and marks[0].get_xdata().tolist()==[100, 101, 250]
        x,y = ax.lines[0].get_xydata().T
        assert x[np.isnan(y)].tolist()==[100, 101, 199.5, 250] and np.isfinite(y).sum()==397
    names = [t.get_text() for t in h.plot_cycle()[2].get_legend().get_texts()]
    assert names==['train', 'not finite', 'valid', 'raw', 'smoothed']
    assert h.summary(0).loc['losses that are not finite'].tolist()==[2, 'the first at iteration 100']

def test_a_loaded_history_draws_the_same(tmp_path):
    h = made()
    back = RunHistory.load(h.save(tmp_path/'x.npz'))
    for name in ALL:
        for a,b in zip(axes_of(getattr(h, name)()), axes_of(getattr(back, name)())):
            assert len(a.lines)==len(b.lines)
            for x,y in zip(a.lines, b.lines): assert_array_equal(x.get_xydata(), y.get_xydata())

def test_two_histories_on_one_axes():
    ax = made().plot_grads(per_group=False, label='1cycle')
    made(seed=1, stages=('', '')).plot_grads(per_group=False, label='constant', ax=ax)
    named = [l for l in ax.lines if not l.get_label().startswith('_')]
    assert ([l.get_label() for l in named]==['1cycle', 'constant'] and len({l.get_color() for l in named})==2
            and len({l.get_linestyle() for l in named})==2), 'told apart in grey too'

def test_a_second_history_does_not_shade_again():
    ax = made().plot_grads(per_group=False, label='A')
    n = len(ax.collections),len(ax.texts)
    made(seed=1).plot_grads(per_group=False, label='B', ax=ax)
    names = [t.get_text() for t in ax.get_legend().get_texts()]
    assert (len(ax.collections), len(ax.texts))==n and names[:2]==['A', 'B']

def test_many_groups_have_a_short_legend():
    h = made(n=80, groups=30)
    for name in ('plot_lr', 'plot_grads', 'plot_adam', 'plot_cycle'):
        legend = axes_of(getattr(h, name)())[0].get_legend()
        names = [t.get_text() for t in legend.get_texts() if t.get_text() not in ('raw', 'smoothed')]
        assert len(names)==3 and legend.get_title().get_text()=='3 of 30'
    assert len(h.plot_grad_heatmap().get_yticks())<=25

class AllBad(Callback):
    def after_pred(self): self.learn.pred = self.learn.pred*float('nan')

@pytest.mark.parametrize('name,args', [('plot_grads', {}), ('plot_cycle', {}), ('plot_losses', dict(log_y=True)),
                                       ('plot_adam', {})])
def test_a_fit_that_is_all_nan_can_be_drawn(mlp, name, args, tmp_path):
    learn = mlp(cbs=[GradRecorder(adam=True), AllBad()], opt_func=Adam)
    learn.fit_one_cycle_ext(1, .01)
    axs = axes_of(getattr(learn.recorder, name)(**args))
    axs[0].figure.savefig(tmp_path/'x.png')
    assert any(l.get_label()=='not finite' for l in axs[0].lines) or name=='plot_cycle'

# reference images

PICTURES = {'lr': lambda h: h.plot_lr(show_moms=True), 'grads': lambda h: h.plot_grads(),
            'cycle': lambda h: h.plot_cycle(), 'adam': lambda h: h.plot_adam(),
            'heatmap': lambda h: h.plot_grad_heatmap(), 'spread': lambda h: h.plot_grad_spread()}

pictures = Path(__file__).parent/'pictures'

def hide_text(figure):
    "Leave out what versions of matplotlib draw differently: every text, tick labels included"
    sides = dict.fromkeys(['labelbottom', 'labeltop', 'labelleft', 'labelright'], False)
    for ax in figure.axes: ax.tick_params(which='both', **sides)
    figure.draw_without_rendering() # makes the texts that are made when a figure is drawn
    for text in figure.findobj(Text): text.set_visible(False)
    figure.set_size_inches((60*figure.get_size_inches()).round()/60 + .001) # whole pixels, rounded up or down

def check_picture(figure, name, folder, dpi, tolerance):
    "Compare a figure with its reference; UPDATE_PICTURES=1 draws the reference anew, to be looked at again"
    want,got = pictures/f'{name}.png',folder/f'{name}.png'
    figure.savefig(got, dpi=dpi, metadata={'Software': None})
    if os.environ.get('UPDATE_PICTURES'): shutil.copy(got, want)
    assert compare_images(str(want), str(got), tolerance) is None

@pytest.mark.parametrize('name', PICTURES)
def test_picture(name, tmp_path):
    "As looked at once: with its text as matplotlib 3.11 draws it, without it as every version does"
    is_reference = matplotlib.__version__.startswith('3.11.')
    with plt.style.context('default'):
        figure = axes_of(PICTURES[name](made(bad=(120,))))[0].figure
        if is_reference: check_picture(figure, name, tmp_path, 50, 2)
        hide_text(figure)
        check_picture(figure, f'{name}-lines', tmp_path, 60, 2 if is_reference else 20) # others move axes by a pixel
