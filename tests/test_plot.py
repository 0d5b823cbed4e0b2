import matplotlib.pyplot as plt, numpy as np, pytest, torch
from numpy.testing import assert_allclose, assert_array_equal
from fastai.callback.core import Callback
from fastai.callback.training import GradientAccumulation
from fastai_clr_ext.all import *

@pytest.fixture
def learn(mlp):
    learn = mlp(cbs=GradRecorder())
    learn.fit_one_cycle_ext(2, slice(.001, .01))
    learn.fit_one_cycle_ext(1, .01)
    return learn

def debiased(y, beta):
    "fastai's smooth loss, step by step"
    m,out = 0,[]
    for i,v in enumerate(y): m = beta*m + (1-beta)*v; out.append(m/(1-beta**(i+1)))
    return out

@pytest.mark.parametrize('what', ['mean_abs', 'norm'])
def test_grads_per_group(learn, what):
    df,ax = learn.recorder.grads,plt.subplots()[1]
    before = df.copy()
    assert learn.recorder.plot_grads(what, ax=ax) is ax
    for g in (0, 1):
        (raw,first,second),y = ax.lines[3*g:3*g+3],df[df.group==g][what].to_numpy()
        assert_array_equal(raw.get_xydata(), np.c_[np.arange(30), y])
        assert_allclose(first.get_xydata(), np.c_[np.arange(20), debiased(y[:20], .98)], rtol=1e-10)
        assert_allclose(second.get_xydata(), np.c_[np.arange(20, 30), debiased(y[20:], .98)], rtol=1e-10)
        assert raw.get_color()==first.get_color()==second.get_color()
    assert ax.get_xlabel()=='iteration (batch)' and ax.get_ylabel()==GRAD_LABELS[what] and ax.get_yscale()=='log'
    assert [t.get_text() for t in ax.get_legend().get_texts()]==['group 0', 'group 1']
    assert ax.lines[-1].get_xdata()[0]==19.5, 'where the second fit begins'
    assert df.equals(before) and learn.recorder.grads.equals(before)

def test_grads_of_all_groups(learn):
    df = learn.recorder.grads
    ax = learn.recorder.plot_grads(per_group=False, beta=None, skip_start=5, log_y=False, label='run')
    total = [(d.mean_abs*d.n_params).sum()/d.n_params.sum() for _,d in df.groupby(['fit', 'step'])]
    assert_allclose(ax.lines[0].get_xydata(), np.c_[np.arange(5, 30), total[5:]], rtol=1e-12)
    assert len(ax.lines)==2 and ax.get_yscale()=='linear' and ax.get_legend().get_texts()[0].get_text()=='run'
    norm = [(d.norm**2).sum()**.5 for _,d in df.groupby(['fit', 'step'])]
    assert_allclose(learn.recorder.plot_grads('norm', per_group=False, beta=None).lines[0].get_ydata(), norm, rtol=1e-12)

@pytest.mark.parametrize('per', ['layer', 'param'])
def test_finer_rows_add_up_to_the_group(mlp, per):
    a,b = mlp(cbs=GradRecorder()),mlp(cbs=GradRecorder(per=per))
    for learn in (a, b):
        torch.manual_seed(1); learn.dls.train.rng.seed(1)
        learn.fit(1)
    for kwargs in (dict(), dict(per_group=False), dict(what='norm')):
        for x,y in zip(a.recorder.plot_grads(**kwargs).lines, b.recorder.plot_grads(**kwargs).lines): assert_allclose(x.get_ydata(), y.get_ydata(), rtol=1e-6)

def test_nan_stays_nan(mlp):
    "A gap in both curves where a gradient was not finite, never a finite value made of the other groups"
    bad = {3: float('nan'), 6: float('inf')}
    class Spoil(Callback):
        order = 10
        def before_step(self):
            if self.learn.train_iter in bad: self.learn.model[0].weight.grad.fill_(bad[self.learn.train_iter])
    class Heal(Callback):
        order = 20
        def before_step(self):
            if self.learn.train_iter in bad: self.learn.opt.zero_grad()
    learn = mlp(cbs=GradRecorder())
    learn.fit(1, .01, cbs=[Spoil(), Heal()])
    raw,sm = [l.get_ydata() for l in learn.recorder.plot_grads(per_group=False).lines]
    assert np.isnan(raw[3]) and np.isinf(raw[6]) and np.isfinite(np.delete(raw, [3, 6])).all()
    assert np.isnan(sm[[3, 6]]).all() and np.isfinite(np.delete(sm, [3, 6])).all()

def test_two_runs_on_one_axes_differ(learn, mlp):
    other = mlp(cbs=GradRecorder()); other.fit_one_cycle_ext(1)
    ax = learn.recorder.plot_grads(per_group=False, label='a')
    other.recorder.plot_grads(per_group=False, label='b', ax=ax)
    named = [l for l in ax.lines if not l.get_label().startswith('_')]
    assert [l.get_label() for l in named]==['a', 'b'] and len({l.get_color() for l in named})==2

def test_style_goes_to_the_raw_curve(learn):
    ax = learn.recorder.plot_grads(per_group=False, color='k', lw=3)
    assert ax.lines[0].get_color()=='k' and ax.lines[0].get_linewidth()==3

def test_lr(learn):
    ax = plt.subplots()[1]
    assert learn.recorder.plot_lr(ax=ax) is ax
    assert_allclose(np.concatenate([ax.lines[1].get_ydata(), ax.lines[3].get_ydata()]), np.r_[one_cycle().table(20, .01)['lr'], one_cycle().table(10, .01)['lr']])
    assert ax.lines[3].get_xdata().tolist()==list(range(20, 30))
    assert len(ax.figure.axes)==1 and ax.get_ylabel()=='learning rate'
    ax = learn.recorder.plot_lr(show_moms=True, log_y=True)
    assert ax.get_yscale()=='log' and len(ax.figure.axes)==2
    assert [t.get_text() for t in ax.get_legend().get_texts()]==['lr, group 0', 'lr, group 1', 'mom']
    assert 'warm-up' in [t.get_text() for t in ax.texts]

def test_lr_of_a_continued_cycle_shows_its_part(mlp):
    learn = mlp()
    learn.fit_one_cycle_ext(2, .01, start_epoch=1)
    ax = learn.recorder.plot_lr()
    assert_array_equal(ax.lines[0].get_xydata(), np.c_[np.arange(10), one_cycle().table(20, .01)['lr'][10:]])

def test_both_plots_put_the_second_fit_at_the_same_place(mlp):
    learn = mlp(cbs=GradRecorder())
    for _ in range(2): learn.fit_one_cycle_ext(1, .01, cbs=GradientAccumulation(48)) # steps at 2, 5 and 8 of 10 batches
    ax = learn.recorder.plot_grads(per_group=False, beta=None)
    assert ax.lines[0].get_xdata().tolist()==[2, 5, 8, 12, 15, 18]
    assert learn.recorder.plot_lr().lines[1].get_xdata()[0]==10

def test_groups_of_momentum_differ(mlp):
    learn = mlp()
    learn.fit_one_cycle_ext(1, .01, sched=[one_cycle(), one_cycle(moms=(.9, .8, .9))])
    ax = learn.recorder.plot_lr(show_moms=True)
    assert [t.get_text() for t in ax.get_legend().get_texts()]==['lr', 'mom, group 0', 'mom, group 1']
    assert len({l.get_color() for l in ax.figure.axes[1].lines})==2
    learn = mlp()
    learn.fit_one_cycle_ext(1, .01, sched={-1: one_cycle()})
    assert 'mom, group 0' not in [t.get_text() for t in learn.recorder.plot_lr(show_moms=True).get_legend().get_texts()]

def test_style_by_any_name(learn):
    assert learn.recorder.plot_lr(ls=':').lines[0].get_linestyle()==':'
    assert learn.recorder.plot_lr(linestyle=':', c='k').lines[0].get_color()=='k'

def test_fits_with_and_without_momentum(mlp):
    learn = mlp()
    learn.fit_one_cycle_ext(1, .01, sched=constant())
    learn.fit_one_cycle_ext(1, .01)
    ax = learn.recorder.plot_lr(show_moms=True)
    assert ax.figure.axes[1].lines[0].get_xdata().tolist()==list(range(10, 20))

@pytest.mark.parametrize('kwargs,says', [(dict(what='max'), r"what must be one of \['mean_abs', 'norm'\]; got 'max'"), (dict(beta=1.), r'beta must lie in \[0, 1\)'),
                                         (dict(skip_start=-1), 'skip_start must'), (dict(skip_start=30), r'skip_start must be a whole number in \[0, 30\)')], ids=str)
def test_bad_input(learn, kwargs, says):
    n = len(plt.get_fignums())
    with pytest.raises(ValueError, match=says): learn.recorder.plot_grads(**kwargs)
    assert len(plt.get_fignums())==n, 'no empty figure is left behind'

def test_nothing_recorded(mlp):
    with pytest.raises(ValueError, match='No gradients are recorded. Give GradRecorder'): mlp().recorder.plot_grads()
    with pytest.raises(ValueError, match='No schedule is recorded. Train with'): mlp().recorder.plot_lr()
    assert not plt.get_fignums()
