"Figures of gradients"
import time
import matplotlib.pyplot as plt, numpy as np, pytest, torch
from numpy.testing import assert_allclose, assert_array_equal
from fastai.callback.core import Callback
from fastai.callback.training import GradientAccumulation
from fastai.optimizer import Adam
from fastai_clr_ext.schedule import *
from fastai_clr_ext.record import *
from fastai_clr_ext.record.log import pack
from fastai_clr_ext.train import *
from fastai_clr_ext.plot import *
from plot_helpers import *

@pytest.mark.parametrize('what', ['mean_abs', 'norm'])
def test_grads_per_group(learn, what):
    df,ax = learn.recorder.grads,plt.subplots()[1]
    before = df.copy()
    assert learn.recorder.plot_grads(what, ax=ax) is ax
    for g in (0, 1):
        (raw,smoothed),y = ax.lines[2*g:2*g+2],df[df.group==g][what].to_numpy()
        x = np.insert(np.arange(30.), 20, 19.5)
        assert_array_equal(raw.get_xydata(), np.c_[x, np.insert(y, 20, np.nan)])
        middles = [np.median(y[max(i-1, 0):i+2]) if i not in (0, 29) else np.median(y[[i, i+1 if i==0 else i-1]])
                   for i in range(30)]
        middles[19],middles[20] = np.median(y[18:20]),np.median(y[20:22])
        assert_allclose(smoothed.get_xydata(), np.c_[x, np.insert(middles, 20, np.nan)], rtol=1e-10)
        assert raw.get_color()==smoothed.get_color()
    assert ax.get_xlabel()=='iteration (batch)' and ax.get_ylabel()==GRAD_LABELS[what] and ax.get_yscale()=='log'
    assert [t.get_text() for t in ax.get_legend().get_texts()]==['group 0', 'group 1', 'raw', 'smoothed']
    assert ax.lines[-1].get_xdata()[0]==19.5, 'where the second fit begins'
    assert df.equals(before) and learn.recorder.grads.equals(before)

def test_grads_of_all_groups(learn):
    df = learn.recorder.grads
    ax = learn.recorder.plot_grads(per_group=False, window=1, skip_start=5, log_y=False, label='run')
    total = [(d.mean_abs*d.n_params).sum()/d.n_params.sum() for _,d in df.groupby(['fit', 'step'])]
    x = np.insert(np.arange(5., 30), 15, 19.5)
    assert_allclose(ax.lines[0].get_xydata(), np.c_[x, np.insert(total[5:], 15, np.nan)], rtol=1e-12)
    assert len(ax.lines)==2 and ax.get_yscale()=='linear' and ax.get_legend().get_texts()[0].get_text()=='run'
    norm = [(d.norm**2).sum()**.5 for _,d in df.groupby(['fit', 'step'])]
    assert_allclose(learn.recorder.plot_grads('norm', per_group=False, window=1).lines[0].get_ydata(),
                    np.insert(norm, 20, np.nan), rtol=1e-12)

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

@pytest.mark.parametrize('kwargs,says', [
    (dict(what='max'), r"what must be one of \['mean_abs', 'norm'"),
    (dict(window=0), 'window must be a whole number of steps'),
    (dict(skip_start=-1), 'skip_start must'),
    (dict(skip_start=30), r'skip_start must be a whole number in \[0, 30\)')], ids=str)
def test_bad_input(learn, kwargs, says):
    n = len(plt.get_fignums())
    with pytest.raises(ValueError, match=says): learn.recorder.plot_grads(**kwargs)
    assert len(plt.get_fignums())==n, 'no empty figure is left behind'

def test_layers_and_parameters(mlp):
    learn = mlp(cbs=GradRecorder('max', per='layer'))
    learn.fit_one_cycle_ext(1)
    df = learn.recorder.grads
    ax = learn.recorder.plot_grads('max_abs', layers=['2', '0'], window=1)
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
    ax = h.plot_grad_spread(of=1, window=1)
    q = h.grad_quantiles([.05, .25, .5, .75, .95]).query('group==1')
    assert_array_equal(ax.lines[0].get_ydata(), np.insert(q['q0.5'], 200, np.nan))
    band = ax.collections[0].get_paths()[0].vertices[:,1]
    assert band.min()==q['q0.05'].min() and band.max()==q['q0.95'].max()
    smoothed = h.plot_grad_spread(of=1).lines[0].get_ydata()
    assert_allclose(smoothed[100], np.median(q['q0.5'][95:106])), 'a twentieth of 200 steps'

def test_spread_of_a_frozen_body(mlp):
    learn = mlp(cbs=GradRecorder('hist'))
    learn.freeze(); learn.fit_one_cycle_ext(1, .01)
    whole,head = (learn.recorder.plot_grad_spread(of=of).lines[0].get_ydata() for of in (None, 1))
    assert_array_equal(whole, head)
    assert np.isfinite(whole).all()

def test_adam_panels():
    h = made()
    axs = h.plot_adam()
    df = h.grads
    for ax,what in zip(axs, ('sqrt_v', 'eff_step')):
        for g in (0, 1): assert_array_equal(ax.lines[g].get_ydata(), np.insert(df[df.group==g][what], 200, np.nan))
    assert [a.get_ylabel() for a in axs]==['mean √v̂', 'mean effective step', 'learning rate']

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

@pytest.mark.parametrize('n', [2, 3, 5, 40])
def test_ticks_of_a_heat_map_are_whole_batches(mlp, n):
    learn = mlp(n_trn=n, cbs=GradRecorder(per='layer'))
    learn.fit(1)
    ax = learn.recorder.plot_grad_heatmap()
    ax.figure.canvas.draw()
    assert all(float(tick).is_integer() for tick in ax.get_xticks()) and ax.get_xlim()==(-.5, n-.5)
