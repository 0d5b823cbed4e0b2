"Figures of rates, losses, metrics and stages"
from functools import partial
import matplotlib.pyplot as plt, numpy as np, pytest, torch
from numpy.testing import assert_allclose, assert_array_equal
from fastai.callback.schedule import *
from fastai.callback.training import GradientAccumulation
from fastai.optimizer import OptimWrapper
from fastai.torch_core import trainable_params
from fastai_clr_ext.core import *
from fastai_clr_ext.schedule import *
from fastai_clr_ext.record import *
from fastai_clr_ext.train import *
from fastai_clr_ext.plot import *
from plot_helpers import *

def test_lr(learn):
    ax = plt.subplots()[1]
    assert learn.recorder.plot_lr(ax=ax) is ax
    assert_allclose(np.concatenate([ax.lines[2].get_ydata(), ax.lines[3].get_ydata()]),
                    np.r_[one_cycle().table(20, .01)['lr'], one_cycle().table(10, .01)['lr']])
    assert ax.lines[3].get_xdata().tolist()==list(range(20, 30))
    assert len(ax.figure.axes)==1 and ax.get_ylabel()=='learning rate'
    ax = learn.recorder.plot_lr(show_moms=True, log_y=True)
    assert ax.get_yscale()=='log' and len(ax.figure.axes)==2
    assert [t.get_text() for t in ax.get_legend().get_texts()]==['lr, group 0', 'lr, group 1', HYPER_LABELS['mom']]
    assert 'warm-up' in [t.get_text() for t in ax.texts]

def test_lr_of_a_continued_cycle_shows_its_part(mlp):
    learn = mlp()
    learn.fit_one_cycle_ext(2, .01, start_epoch=1)
    ax = learn.recorder.plot_lr()
    assert_array_equal(ax.lines[0].get_xydata(), np.c_[np.arange(10), one_cycle().table(20, .01)['lr'][10:]])

def test_both_plots_put_the_second_fit_at_the_same_place(mlp):
    learn = mlp(cbs=GradRecorder())
    for _ in range(2): learn.fit_one_cycle_ext(1, .01, cbs=GradientAccumulation(48)) # steps at 2, 5 and 8 of 10 batches
    ax = learn.recorder.plot_grads(per_group=False, window=1)
    assert ax.lines[0].get_xdata().tolist()==[2, 5, 8, 10, 12, 15, 18] and np.isnan(ax.lines[0].get_ydata()[3])
    assert learn.recorder.plot_lr().lines[1].get_xdata()[0]==10

def test_groups_of_momentum_differ(mlp):
    learn = mlp()
    learn.fit_one_cycle_ext(1, .01, sched=[one_cycle(), one_cycle(moms=(.9, .8, .9))])
    ax = learn.recorder.plot_lr(show_moms=True)
    assert [t.get_text() for t in ax.get_legend().get_texts()]==['learning rate', 'mom, group 0', 'mom, group 1']
    assert len({l.get_color() for l in ax.figure.axes[1].lines})==2
    learn = mlp()
    learn.fit_one_cycle_ext(1, .01, sched={-1: one_cycle()})
    ax = learn.recorder.plot_lr(show_moms=True)
    assert_array_equal(ax.figure.axes[1].lines[0].get_ydata(), [.9]*10), 'a group left alone is drawn as it was'

def test_style_by_any_name(learn):
    assert learn.recorder.plot_lr(ls=':').lines[0].get_linestyle()==':'
    assert learn.recorder.plot_lr(linestyle=':', c='k').lines[0].get_color()=='k'

def test_fits_with_and_without_momentum(mlp):
    learn = mlp(opt_func=partial(OptimWrapper, opt=torch.optim.Adagrad))
    with pytest.warns(UserWarning, match='no momentum'): learn.fit_one_cycle_ext(1, .01)
    assert len(learn.recorder.plot_lr(show_moms=True).figure.axes)==1
    axs = learn.recorder.plot_cycle()
    assert len(axs)==3 and axs[1].texts[0].get_text()=='the optimizer has no momentum'

def test_metrics_and_losses_at_their_true_place():
    h = made()
    line = h.plot_metrics('accuracy')[0].lines[0]
    assert line.get_xdata().tolist()==[49, 99, 149, 199, 224, 249, 299, 349, 399]
    assert_array_equal(line.get_ydata(), np.insert(h.epochs.accuracy, 4, np.nan), 'a gap between the fits')
    valid = [l for l in h.plot_losses().lines if l.get_label()=='valid'][0]
    assert_array_equal(valid.get_ydata(), np.insert(h.epochs.valid_loss, 4, np.nan))
    assert not [l for l in h.plot_losses(with_valid=False).lines if l.get_label()=='valid']
    with pytest.raises(ValueError, match=r"names must be among \['train_loss', 'valid_loss', 'accuracy'\]"):
        h.plot_metrics('f1')

@pytest.mark.parametrize('what', ['loss', 'norm', 'accuracy'])
def test_against_the_rate(what):
    h = made()
    line = h.plot_vs_lr(what, fit=0, window=1).lines[0]
    df = h.steps.query('fit==0')
    peak = df.lr_1.to_numpy().argmax()
    if what=='accuracy': assert_array_equal(line.get_xydata(), np.c_[df.lr_1[49], .5])
    else:
        y = df.loss if what=='loss' else (df.norm_0**2 + df.norm_1**2)**.5
        assert_allclose(line.get_xydata(), np.c_[df.lr_1, y][:peak+1])
    assert_array_equal(h.plot_vs_lr().lines[0].get_ydata(),
                       h.steps.query('fit==1').loss[:peak+1], 'the last fit if none is named')
    with pytest.raises(ValueError, match="what must be 'loss', one of"): h.plot_vs_lr('f1')

def test_fits_with_different_numbers_of_groups(mlp):
    learn = mlp(cbs=GradRecorder())
    learn.fit_one_cycle_ext(1, .01)
    learn.splitter = trainable_params
    learn.fit_one_cycle_ext(1, .03, reset_opt=True)
    assert (learn.recorder.summary().value['peak rate']==pytest.approx(.03)
            and learn.recorder.summary(0).value['peak rate']==pytest.approx(.01))
    assert learn.recorder.plot_vs_lr().lines and learn.recorder.plot_lr().lines

def test_stage_names_and_phases():
    ax = made().plot_stages()[0]
    assert [t.get_text() for t in ax.texts if t.get_fontweight()=='bold']==['head', 'body']
    assert ('cool-down' in [t.get_text() for t in ax.texts]
            and [l.get_linestyle() for l in ax.lines if len(l.get_xdata())==2]==['-'])
    assert len(shades_of(ax))==4, 'warm-up and annihilation of both are shaded'

def test_lr_find_grads(mlp):
    learn = mlp(cbs=GradRecorder())
    with pytest.raises(ValueError, match='No lr_find is recorded. Give GradRecorder'):
        learn.recorder.plot_lr_find_grads()
    learn.lr_find(show_plot=False)
    lrs = list(learn.recorder.lrs)
    axs = learn.recorder.plot_lr_find_grads()
    smoothed = axs[0].lines[1]
    assert_allclose(smoothed.get_xdata()[:len(lrs)], lrs[:len(smoothed.get_xdata())])
    grads = learn.recorder.lr_find_history.grads
    total = grads.assign(t=grads.mean_abs*grads.n_params).groupby('step')[['t', 'n_params']].sum()
    assert_allclose(axs[1].lines[0].get_ydata(), total.t/total.n_params)
    learn.fit(1)
    assert len(learn.recorder.history)==10, 'what the finder did is no part of the history'

def look(ax):
    "What a figure shows, but for its axes' limits"
    lines = [(np.asarray(l.get_xdata(), float).tolist(), np.round(np.asarray(l.get_ydata(), float), 9).tolist(),
              l.get_color(), str(l.get_linestyle()), l.get_linewidth(), l.get_label())
             for one in ax.figure.axes for l in one.lines]
    texts = [(t.get_text(), t.get_fontweight()) for t in ax.texts]
    shades = shades_of(ax)
    labels = [(one.get_xlabel(), one.get_ylabel()) for one in ax.figure.axes]
    legend = [t.get_text() for t in ax.get_legend().get_texts()]
    return dict(lines=sorted(map(str, lines)), texts=texts, shades=shades, labels=labels, legend=legend)

def test_a_preview_looks_like_what_is_trained(mlp):
    learn = mlp()
    stages = stages_long(3, .01, head_epochs=1)
    before,after = plt.subplots()[1],plt.subplots()[1]
    learn.preview_stages(stages, ax=before)
    learn.fit_stages(stages)
    learn.recorder.plot_lr(show_moms=True, ax=after)
    want,got = look(before),look(after)
    for key in want: assert got[key]==want[key], key
    assert before.get_xlim()==pytest.approx(after.get_xlim()) and before.get_ylim()==pytest.approx(after.get_ylim())

def test_losses_of_two_runs_on_one_axes_have_colours_and_names_of_their_own():
    ax = made().plot_losses(label='a')
    made(seed=1).plot_losses(label='b', ax=ax)
    names = [t.get_text() for t in ax.get_legend().get_texts()]
    assert names==['a, train', 'a, valid', 'b, train', 'b, valid', 'raw', 'smoothed']
    color = {line.get_label(): line.get_color() for line in ax.lines}
    assert color['a, train']==color['a, valid']!=color['b, train']==color['b, valid']
