import os, shutil, time, matplotlib, matplotlib.pyplot as plt, numpy as np, pandas as pd, pytest, torch
from functools import partial
from pathlib import Path
from hypothesis import given, settings, strategies as st
from matplotlib.lines import Line2D
from numpy.testing import assert_allclose, assert_array_equal
from fastai.callback.core import Callback, CancelStepException
from fastai.callback.training import GradientAccumulation
from fastai.metrics import mse
from fastai.optimizer import Adam, OptimWrapper
from fastai.torch_core import trainable_params
from torch import nn
from fastai_clr_ext.plot import live
from fastai_clr_ext.core.figures import EnvelopeLine, envelope
from fastai_clr_ext.plot.live import ShownFigure
from fastai_clr_ext.all import *
from fastai_clr_ext.record.log import pack

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
    assert_allclose(learn.recorder.plot_grads('norm', per_group=False, beta=None).lines[0].get_ydata(), norm,
                    rtol=1e-12)

@pytest.mark.parametrize('per', ['layer', 'param'])
def test_finer_rows_add_up_to_the_group(mlp, per):
    a,b = mlp(cbs=GradRecorder()),mlp(cbs=GradRecorder(per=per))
    for learn in (a, b):
        torch.manual_seed(1); learn.dls.train.rng.seed(1)
        learn.fit(1)
    for kwargs in (dict(), dict(per_group=False), dict(what='norm')):
        for x,y in zip(a.recorder.plot_grads(**kwargs).lines, b.recorder.plot_grads(**kwargs).lines):
            assert_allclose(x.get_ydata(), y.get_ydata(), rtol=1e-6)

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
    ax = learn.recorder.plot_grads(per_group=False)
    raw,sm,_ = [l.get_ydata() for l in ax.lines]
    assert ax.lines[2].get_xdata().tolist()==[3, 6] and ax.lines[2].get_label()=='not finite'
    assert np.isnan(raw[[3, 6]]).all() and np.isfinite(np.delete(raw, [3, 6])).all()
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
    assert_allclose(np.concatenate([ax.lines[2].get_ydata(), ax.lines[3].get_ydata()]),
                    np.r_[one_cycle().table(20, .01)['lr'], one_cycle().table(10, .01)['lr']])
    assert ax.lines[3].get_xdata().tolist()==list(range(20, 30))
    assert len(ax.figure.axes)==1 and ax.get_ylabel()=='learning rate'
    ax = learn.recorder.plot_lr(show_moms=True, log_y=True)
    assert ax.get_yscale()=='log' and len(ax.figure.axes)==2
    assert [t.get_text() for t in ax.get_legend().get_texts()]==['lr, group 0', 'lr, group 1', UNITS['mom']]
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

# What was recorded, made by hand, so that figures don't depend on a training

def made(n=400, n_epoch=8, bad=(), groups=2, seed=0, stages=('head', 'body')):
    "Two stages of one cycle each, two groups, Adam's statistics and a histogram; NaN where told"
    rng,h = np.random.default_rng(seed),RunHistory()
    columns = (['total', 'norm', 'weight_norm'] + [f'bin {k}' for k in range(-40, 24)]
               + ['update_norm', 'total_sqrt_v', 'total_step', 'max_step'])
    for f,stage in enumerate(stages):
        plan = Plan(one_cycle(), tuple(.1/10**(groups-1-g) for g in range(groups)), n_epoch//2, n//n_epoch)
        h.fit_rows.append(dict(id=f'{seed}{f}', started='', stage=stage, n_epoch=plan.n_epoch, n_iter=plan.n_iter,
                               phases=[list(o) for o in plan.cycle.spans(plan.n)], n_batches=plan.n,
                               n_steps=plan.n, seconds=1., outcome='finished', lr_max=list(plan.lr_max)))
        for i in range(plan.n):
            k,g = f*plan.n+i,np.exp(-i/100)+.2*rng.random((groups, len(columns)))
            loss = float('nan') if k in bad else 2*np.exp(-k/150)+.3*rng.random()
            h.batch_log.add([f, i//plan.n_iter, i%plan.n_iter, i, i, 0],
                            [plan.table[c][i,j] for j in range(groups) for c in ('lr', 'mom')],
                            (torch.device('cpu'), (1,),
                             dict(hypers=[[c, j] for j in range(groups) for c in ('lr', 'mom')])))[0] = loss
            g[:,3:67] = rng.multinomial(100, np.eye(64)[30]*.5 + np.eye(64)[34]*.3 + np.eye(64)[38]*.2, size=groups)
            if k in bad: g[0,:2] = np.inf
            h.grad_log.add([f, i, i, i//plan.n_iter], [100]*groups,
                           (torch.device('cpu'), g.shape, dict(units=[['', j] for j in range(groups)],
                                                               columns=columns))).copy_(torch.tensor(g))
        for e in range(plan.n_epoch):
            h.epoch_rows.append(dict(fit=f, epoch=e, train_loss=1/(e+1+f), valid_loss=1.2/(e+1+f), accuracy=.5+.05*e))
    return h

ONE = ['plot_lr', 'plot_grads', 'plot_grad_heatmap', 'plot_grad_spread', 'plot_losses', 'plot_vs_lr']
MANY = {'plot_adam': 3, 'plot_cycle': 4, 'plot_metrics': 1, 'plot_stages': 2}
ALL = [*ONE, *MANY]

def axes_of(o): return list(np.atleast_1d(o))

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
    if name=='plot_grad_heatmap': xs = [ax.collections[0].get_coordinates()[0,[0,-1],0] - [0, 1]]
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
        assert (np.isnan(ax.lines[0].get_ydata()[[100, 101, 250]]).all()
                and np.isfinite(ax.lines[0].get_ydata()).sum()==397)
    assert len(h.plot_cycle()[2].get_legend().get_texts())==3
    assert h.summary(0).value['first loss that is not finite']==100

def test_layers_and_parameters(mlp):
    learn = mlp(cbs=GradRecorder('max', per='layer'))
    learn.fit_one_cycle_ext(1)
    df = learn.recorder.grads
    ax = learn.recorder.plot_grads('max_abs', layers=['2', '0'], beta=None)
    for l,name in zip(ax.lines, ('2', '0')): assert_array_equal(l.get_ydata(), df[df.layer==name].max_abs)
    heat = learn.recorder.plot_grad_heatmap('max_abs', log=False).collections[0]
    assert_allclose(heat.get_array(), [df[df.layer==name].max_abs for name in ('0', '2')])

def test_heat_map_columns_are_means():
    h = made()
    rows = h.plot_grad_heatmap(n_cols=40).collections[0].get_array()
    want = h.grads.query('group==1').mean_abs.to_numpy().reshape(40, 10).mean(1)
    assert_allclose(rows[1], want)

def test_spread_is_the_quantiles():
    h = made()
    ax = h.plot_grad_spread(of=1)
    q = h.grad_quantiles([.05, .25, .5, .75, .95]).query('group==1')
    assert_array_equal(ax.lines[0].get_ydata(), q['q0.5'])
    band = ax.collections[0].get_paths()[0].vertices[:,1]
    assert band.min()==q['q0.05'].min() and band.max()==q['q0.95'].max()

def test_adam_panels():
    h = made()
    axs = h.plot_adam(beta=None)
    df = h.grads
    for ax,what in zip(axs, ('sqrt_v', 'eff_step')):
        for g in (0, 1): assert_array_equal(ax.lines[g].get_ydata(), df[df.group==g][what])
    assert [a.get_ylabel() for a in axs]==['mean √v̂', 'mean effective step', 'learning rate']

def test_metrics_and_losses_at_their_true_place():
    h = made()
    line = h.plot_metrics('accuracy')[0].lines[0]
    assert (line.get_xdata().tolist()==[49, 99, 149, 199, 249, 299, 349, 399]
            and line.get_ydata().tolist()==h.epochs.accuracy.tolist())
    valid = [l for l in h.plot_losses().lines if l.get_label()=='valid'][0]
    assert valid.get_ydata().tolist()==h.epochs.valid_loss.tolist()
    assert not [l for l in h.plot_losses(with_valid=False).lines if l.get_label()=='valid']
    with pytest.raises(ValueError, match=r"names must be among \['train_loss', 'valid_loss', 'accuracy'\]"):
        h.plot_metrics('f1')

@pytest.mark.parametrize('what', ['loss', 'norm', 'accuracy'])
def test_against_the_rate(what):
    h = made()
    line = h.plot_vs_lr(what, fit=0, beta=None).lines[0]
    df = h.steps.query('fit==0')
    peak = df.lr_1.to_numpy().argmax()
    if what=='accuracy': assert_array_equal(line.get_xydata(), np.c_[df.lr_1[49], .5])
    else:
        y = df.loss if what=='loss' else (df.norm_0**2 + df.norm_1**2)**.5
        assert_allclose(line.get_xydata(), np.c_[df.lr_1, y][:peak+1])
    assert_array_equal(h.plot_vs_lr().lines[0].get_ydata(),
                       h.steps.query('fit==1').loss[:peak+1], 'the last fit if none is named')
    with pytest.raises(ValueError, match="what must be 'loss', one of"): h.plot_vs_lr('f1')

def test_stage_names_and_phases():
    ax = made().plot_stages()[0]
    assert [t.get_text() for t in ax.texts if t.get_fontweight()=='bold']==['head', 'body']
    assert ('cool-down' in [t.get_text() for t in ax.texts]
            and [l.get_linestyle() for l in ax.lines if len(l.get_xdata())==2]==['-'])
    assert len(ax.patches)==4, 'warm-up and annihilation of both are shaded'

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

# Summary

def test_summary_numbers():
    h = made(n=2000, n_epoch=20)
    s,df = h.summary(0).value,h.steps.query('fit==0')
    assert s['peak rate']==pytest.approx(.1)
    m = ((df.mean_abs_0+df.mean_abs_1)/2).to_numpy()
    k,last = np.array([smooth(m)/np.median(smooth(m))]).ravel(),(df.phase=='annihilation').to_numpy()
    inside = (k<=1.5) & (k>=1/1.5)
    best,run = 0,0
    for i,ok in enumerate(inside):
        run = run+1 if ok else 0
        if run>best: best,end = run,i
    a = slice(end-best+1, end+1)
    assert (s['plateau']==pytest.approx(np.median(m[a]))
            and s['unevenness']==pytest.approx(np.quantile(m[a], .95)/np.median(m[a])))
    assert f'from iteration {end-best+1} to {end},' in h.summary(0)['in words']['plateau']
    pos = np.arange(last.sum())/last.sum()
    slope = np.cov(pos, np.log(m[last]))[0,1]/np.var(pos, ddof=1)
    assert s['fall while annihilating']==pytest.approx(np.exp(slope))
    gaps = h.epochs.query('fit==0').eval('valid_loss-train_loss').tolist()
    assert (s['gap before'], s['gap after'])==pytest.approx((gaps[8], gaps[9])) and s['skipped']==0

def test_summary_of_other_fits(mlp):
    learn = mlp()
    learn.fit_one_cycle_ext(1, .01, cbs=GradientAccumulation(32))
    s = learn.recorder.summary()
    assert (s['in words']['plateau']=='no gradients are recorded (GradRecorder)'
            and s['in words']['skipped']=='5 accumulation' and 'fall while annihilating' not in s.index)
    learn.fit(1, cbs=GradRecorder())
    s = learn.recorder.summary()
    assert 'fall while annihilating' not in s.index and s['in words']['seconds']=='finished'
    with pytest.raises(ValueError, match=r'fit must be a whole number in \[-2, 2\)'): learn.recorder.summary(5)

# A million points

def columns_of(line):
    "Lowest and highest value in each pixel column"
    x,y = line.get_xdata(),line.get_ydata()
    px = np.floor(line.get_transform().transform(np.c_[x, np.ones(len(x))])[:,0])
    return pd.DataFrame(dict(px=px, y=y)).groupby('px').y.agg(['min', 'max'])

@pytest.mark.parametrize('zoom', [None, (1000, 9000)])
def test_the_envelope_is_that_of_all_points(monkeypatch, zoom):
    rng = np.random.default_rng(0)
    y = rng.normal(size=200_000)
    y[777] = 50; y[[5000, 5001]] = np.nan
    fig,ax = plt.subplots()
    line = EnvelopeLine(np.arange(len(y)), y)
    ax.add_line(line); ax.autoscale_view()
    if zoom: ax.set_xlim(*zoom)
    want,drawn = columns_of(line),[]
    monkeypatch.setattr(Line2D, 'draw', lambda self, renderer: drawn.append(
        (self.get_xdata().copy(), self.get_ydata().copy())) if self is line else None)
    fig.canvas.draw()
    (x,y2), = drawn
    assert len(x) < 6*len(want)
    thin = EnvelopeLine(x, y2); thin.set_transform(line.get_transform())
    pd.testing.assert_frame_equal(columns_of(thin), want)
    assert np.isnan(y2).sum()==len({c for c in np.floor(line.get_transform().transform(
        np.c_[[5000, 5001], [1, 1]])[:,0])}), 'a gap stays one'
    assert len(line.get_xdata())==200_000, 'the line keeps its data'

@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from([-1., 0., 1., 2., float('nan')])),
                min_size=1, max_size=40))
def test_envelope(points):
    points = sorted(points, key=lambda p: p[0])
    column,y = np.array([c for c,_ in points]),np.array([v for _,v in points])
    keep = envelope(column, y)
    assert (np.diff(keep)>0).all()
    for c in set(column.tolist()):
        mine,all_ = y[keep][column[keep]==c],y[column==c]
        assert np.isnan(mine).any()==np.isnan(all_).any()
        if np.isfinite(all_).any(): assert (np.nanmin(mine), np.nanmax(mine))==(np.nanmin(all_), np.nanmax(all_))
        assert len(mine)<=6

def test_a_million_steps_draw_quickly():
    "Under 2 s on a quiet machine; the bound here is wider because others may share it"
    h,n = RunHistory(),1_000_000
    i,plan = np.arange(n),one_cycle().table(n, [.01, .1, 1.])
    h.fit_rows.append(dict(stage='', n_iter=1000, phases=[list(o) for o in one_cycle().spans(n)], n_steps=n))
    where,noise = (np.c_[i*0, i//1000, i%1000, i, i, i*0],
                   np.abs(np.random.default_rng(0).normal(size=(n, 6))).astype(np.float32).astype(float))
    hypers = dict(hypers=[['lr', 0], ['lr', 1], ['lr', 2]])
    units = dict(units=[['', 0], ['', 1], ['', 2]], columns=['total', 'norm'])
    cuts = range(0, n, 1024)
    h.batch_log.blocks = [(*map(pack, (where[a:a+1024], plan['lr'][a:a+1024], noise[a:a+1024,:1])), hypers)
                          for a in cuts]
    h.grad_log.blocks = [(*map(pack, (where[a:a+1024][:,[0, 4, 3, 1]], np.full((len(i[a:a+1024]), 3), 10.),
                                       noise[a:a+1024])), units) for a in cuts]
    h.plot_grads(fit=0, skip_end=n-10) # what is made once
    start = time.thread_time()
    h.plot_grads().figure.canvas.draw()
    assert time.thread_time()-start < 6

# Live

def test_live_figure(mlp, monkeypatch):
    import IPython.display
    shown,clock = [],[0.]
    monkeypatch.setattr(live, 'IN_NOTEBOOK', True)
    monkeypatch.setattr(time, 'perf_counter', lambda: clock[0])
    class Handle:
        def update(self, fig): shown.append(('update', len(fig.axes)))
    def display(fig, display_id):
        shown.append(('display', len(fig.axes)))
        return Handle()
    monkeypatch.setattr(IPython.display, 'display', display)
    class Tick(Callback):
        run_valid = False
        def before_batch(self): clock[0] += .4
    learn = mlp(cbs=[GradRecorder(), ShowCycle(every=1.)])
    learn.fit(1, cbs=Tick())
    assert shown==[('display', 4)] + [('update', 4)]*2 + [('update', 4)], 'at 1.2, 2.4 and 3.6 s, then the whole'
    assert not plt.get_fignums()
    shown.clear()
    learn.lr_find(show_plot=False); learn.get_preds(); learn.validate()
    assert not shown

def test_silent_outside_a_notebook(mlp):
    learn = mlp(cbs=[GradRecorder(), ShowCycle()])
    learn.fit(1)
    assert learn.show_cycle.now is None
    for kwargs in (dict(every=0), dict(share=1.)):
        with pytest.raises(ValueError, match='must'): ShowCycle(**kwargs)

def test_drawing_is_a_small_share(monkeypatch):
    clock = [0.]
    monkeypatch.setattr(time, 'perf_counter', lambda: clock[0])
    shown = ShowCycle(every=1., share=.05)
    shown.learn = SimpleNamespace(recorder=SimpleNamespace(history=None))
    shown.now = ShownFigure(next_time=1.)
    shown.now.draw = lambda history: clock.__setitem__(0, clock[0]+.5)
    clock[0] = 2.
    shown.after_batch()
    assert shown.now.next_time==2+.5/.05

# Reference images

PICTURES = {'lr': lambda h: h.plot_lr(show_moms=True), 'grads': lambda h: h.plot_grads(),
            'cycle': lambda h: h.plot_cycle(), 'adam': lambda h: h.plot_adam(),
            'heatmap': lambda h: h.plot_grad_heatmap(), 'spread': lambda h: h.plot_grad_spread()}

@pytest.mark.parametrize('name', PICTURES)
def test_picture(name, tmp_path):
    "As looked at once; UPDATE_PICTURES=1 draws them anew, to be looked at again"
    from matplotlib.testing.compare import compare_images
    want,got = Path(__file__).parent/'pictures'/f'{name}.png',tmp_path/f'{name}.png'
    with plt.style.context('default'):
        fig = axes_of(PICTURES[name](made(bad=(120,))))[0].figure
        fig.savefig(got, dpi=50, metadata={'Software': None})
    if os.environ.get('UPDATE_PICTURES'): shutil.copy(got, want)
    tol = 2 if matplotlib.__version__.startswith('3.11.') else 30 # versions place text differently
    assert compare_images(str(want), str(got), tol) is None

@pytest.mark.parametrize('kwargs,says', [
    (dict(what='max'), r"what must be one of \['mean_abs', 'norm'"), (dict(beta=1.), r'beta must lie in \[0, 1\)'),
    (dict(skip_start=-1), 'skip_start must'),
    (dict(skip_start=30), r'skip_start must be a whole number in \[0, 30\)')], ids=str)
def test_bad_input(learn, kwargs, says):
    n = len(plt.get_fignums())
    with pytest.raises(ValueError, match=says): learn.recorder.plot_grads(**kwargs)
    assert len(plt.get_fignums())==n, 'no empty figure is left behind'

# What users met

class SkipBad(Callback):
    "Spoils the predictions of two batches, and skips their steps"
    order,run_valid = -5,False
    def after_pred(self):
        if self.learn.train_iter in (5, 6): self.learn.pred = self.learn.pred*float('nan')
    def before_step(self):
        if not self.learn.loss.isfinite(): raise CancelStepException

def test_a_loss_that_was_not_finite_is_said_also_if_its_step_was_skipped(mlp):
    learn = mlp(cbs=[SkipBad(), HistoryRecorder()])
    learn.fit_one_cycle_ext(1, .01)
    assert learn.recorder.summary().value['first loss that is not finite']==5
    assert [l.get_xdata().tolist() for l in learn.recorder.plot_losses().lines if l.get_label()=='not finite']==[[5, 6]]

def test_spread_of_a_frozen_body(mlp):
    learn = mlp(cbs=GradRecorder('hist'))
    learn.freeze(); learn.fit_one_cycle_ext(1, .01)
    whole,head = (learn.recorder.plot_grad_spread(of=of).lines[0].get_ydata() for of in (None, 1))
    assert_array_equal(whole, head)
    assert np.isfinite(whole).all()

def test_fits_with_different_numbers_of_groups(mlp):
    learn = mlp(cbs=GradRecorder())
    learn.fit_one_cycle_ext(1, .01)
    learn.splitter = trainable_params
    learn.fit_one_cycle_ext(1, .03, reset_opt=True)
    assert (learn.recorder.summary().value['peak rate']==pytest.approx(.03)
            and learn.recorder.summary(0).value['peak rate']==pytest.approx(.01))
    assert learn.recorder.plot_vs_lr().lines and learn.recorder.plot_lr().lines

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

def overlaps(ax):
    ax.figure.canvas.draw()
    boxes = [t.get_window_extent() for t in ax.texts if t.get_text()]
    return [(a, b) for i,a in enumerate(boxes) for b in boxes[i+1:] if a.overlaps(b)]

def test_names_do_not_run_into_each_other(mlp):
    learn = mlp(n_trn=5, model=nn.Sequential(*[nn.Linear(1, 1) for _ in range(5)]),
                splitter=lambda m: [list(c.parameters()) for c in m])
    learn.fine_tune_gradual(10, .01, 1)
    assert not overlaps(learn.recorder.plot_stages()[0])

def test_a_second_history_does_not_shade_again():
    ax = made().plot_grads(per_group=False, label='A')
    n = len(ax.patches),len(ax.texts)
    made(seed=1).plot_grads(per_group=False, label='B', ax=ax)
    assert (len(ax.patches), len(ax.texts))==n and [t.get_text() for t in ax.get_legend().get_texts()]==['A', 'B']

def test_many_groups_have_a_short_legend():
    h = made(n=80, groups=30)
    for name in ('plot_lr', 'plot_grads', 'plot_adam', 'plot_cycle'):
        assert len(axes_of(getattr(h, name)())[0].get_legend().get_texts())==3
    assert len(h.plot_grad_heatmap().get_yticks())<=25

@pytest.mark.parametrize('per', ['layer', 'param'])
def test_every_statistic_of_finer_rows_is_that_of_the_group(mlp, per):
    "Means, norms, largest and counts of what was recorded finer, put together, against what was recorded by group"
    hs = []
    for how in ('group', per):
        learn = mlp(cbs=GradRecorder(('max', 'zeros', 'nonfinite', 'weight', 'clipped'), per=how, adam=True),
                    opt_func=Adam)
        torch.manual_seed(1); learn.dls.train.rng.seed(1)
        learn.freeze(); learn.fit(1, 1e-3); learn.unfreeze(); learn.fit(1, 1e-3, cbs=GradientAccumulation(32))
        hs.append(learn.recorder.history)
    a,b = (h.steps for h in hs)
    names = [f'{k}_{g}' for k in GRAD_LABELS if can_add_up(k) for g in (0, 1)]
    assert set(names) <= set(a) and set(names) <= set(b)
    for k in names: assert_allclose(b[k], a[k], rtol=1e-5, atol=1e-12, err_msg=k)
    for x,y in zip(hs[0].plot_adam(), hs[1].plot_adam()):
        assert len(x.lines)==len(y.lines)>2
        for l,m in zip(x.lines, y.lines): assert_allclose(l.get_ydata(), m.get_ydata(), rtol=1e-5)
