"One cycle: what was trained is what was planned, and wrong arguments change nothing"
import json, time, warnings
from functools import partial
from pathlib import Path
import matplotlib.pyplot as plt, numpy as np, pytest, torch
from numpy.testing import assert_allclose, assert_array_equal
from torch import nn
from fastcore.foundation import L
from fastai.callback.core import Callback, CancelBatchException, CancelFitException
from fastai.callback.schedule import ParamScheduler, SchedLin
from fastai.callback.tracker import EarlyStoppingCallback, ReduceLROnPlateau, SaveModelCallback
from fastai.callback.training import GradientAccumulation, ShortEpochCallback
from fastai.optimizer import Adam, Lamb, OptimWrapper, RMSProp, SGD, ranger
from fastai_clr_ext.schedule import *
from fastai_clr_ext.schedule.presets import PRESETS
from fastai_clr_ext.record import *
from fastai_clr_ext.train import *
from fastai_clr_ext.plot import *
from conftest import Raise, Spy, ValidateAt, make_mlp, without_address
from train_helpers import snapshot

CASES = [c for c in json.loads(Path(__file__).with_name('legacy_schedules.json').read_text())
         if c['kind']=='use_clr_beta' or (c['kind']=='use_clr' and c['n_iter']<9310)]

@pytest.mark.parametrize('c', CASES, ids=lambda c: f"{c['kind']}-{c['n_iter']}")
def test_trained_with_what_0_7_set(mlp, c):
    spy,learn = Spy(),mlp(n_trn=c['n_iter'])
    second = 'pct' if c['kind']=='use_clr_beta' else 'cut_div'
    learn.fit_one_cycle_ext(1, c['lr_max'], cbs=spy, **{c['kind']: (c['div'], c[second], c['max_mom'], c['min_mom'])})
    lr,mom = np.array(spy.column('lr')),np.array(spy.column('mom'))
    for g in range(2):
        assert_allclose(lr[c['batches'],g], c['lr'], rtol=1e-12, atol=0)
        assert_allclose(mom[c['batches'],g], c['mom'], rtol=1e-12, atol=0)

@pytest.mark.parametrize('lr_max,rates', [
    (.1, (.1, .1)), (slice(.1), (.01, .1)), (slice(.001, .1), (.001, .1)), ([.2, .3], (.2, .3)),
    (np.array([.2, .3]), (.2, .3)), (None, (.01, .01))], ids=str)
def test_rates_trained_equal_the_preview(mlp, lr_max, rates):
    spy,learn = Spy(),mlp()
    plan = learn.preview_one_cycle_ext(3, lr_max, pct_start=.3, anneal='cos', moms=(.9, .8, .85), div=20, div_final=500,
                                       pct_final=.2)
    learn.fit_one_cycle_ext(3, lr_max, pct_start=.3, anneal='cos', moms=(.9, .8, .85), div=20, div_final=500,
                            pct_final=.2, cbs=spy)
    assert_allclose(plan.lr_max, rates)
    for k in ('lr', 'mom'):
        assert_array_equal(spy.column(k), plan.table[k])
        assert_array_equal(plan.df[k].to_numpy().reshape(30, 2), plan.table[k])
    assert_array_equal(np.array(spy.column('lr'))[-1], plan.table['lr'][-1])
    assert_allclose(np.array(spy.column('lr')).max(0), rates)
    assert_allclose(np.array(spy.column('lr'))[-1], np.array(rates)/500, rtol=1e-12)

def test_same_groups_as_fastai(mlp):
    "A slice means what it means to fastai's own method"
    for lr_max in (slice(.1), slice(1e-4, .1), [.1, .2], .3):
        theirs = mlp(); theirs.create_opt(); theirs.opt.set_hyper('lr', lr_max)
        assert_allclose(group_lrs(lr_max, 2), [h['lr'] for h in theirs.opt.hypers])

def test_hps_and_fastai_plots(mlp):
    learn = mlp()
    learn.fit_one_cycle_ext(2, slice(.01, .1))
    t = one_cycle().table(20, [.01, .1])
    assert_array_equal(learn.recorder.hps['lr'], t['lr'][:,1])
    assert_array_equal(learn.recorder.hps['mom'], t['mom'][:,1])
    learn.recorder.plot_sched(); learn.recorder.plot_loss()
    assert learn.recorder.lrs==t['lr'][:,1].tolist()

@pytest.mark.parametrize('start', [1, 2, 3])
def test_start_epoch_continues_the_same_cycle(mlp, start):
    spy,learn = Spy(),mlp()
    learn.fit_one_cycle_ext(4, .1, start_epoch=start, cbs=spy)
    assert_array_equal(np.array(spy.column('lr'))[:,0], one_cycle().table(40, .1)['lr'][10*start:])
    plan = learn.recorder.plans[-1]
    assert plan.trained_ranges==((0, 10*start, 40),) and len(learn.recorder.hps['lr'])==40-10*start
    assert plan.df.train_iter.tolist()==sorted([*range(40-10*start)]*2)

@pytest.mark.parametrize('cbs', [
    [], [lambda: SaveModelCallback(fname='best')], [lambda: EarlyStoppingCallback(patience=5)],
    [lambda: SaveModelCallback(fname='best', every_epoch=True), lambda: EarlyStoppingCallback(patience=5)]])
def test_start_epoch_shows_callbacks_no_epoch_that_was_not_trained(mlp, tmp_path, cbs):
    "fastai's raise an IndexError, because they see epochs without a loss"
    learn = mlp(path=tmp_path)
    learn.fit_one_cycle_ext(4, .01, start_epoch=2, cbs=[make() for make in cbs])
    assert len(learn.recorder.values)==len(learn.recorder.iters)==2 and len(learn.recorder.losses)==20
    ax = learn.recorder.plot_loss(skip_start=0)
    assert [len(line.get_xdata()) for line in ax.lines]==[20, 2]
    assert learn.recorder.history.epochs.epoch.tolist()==[2, 3]

@pytest.mark.parametrize('opt_func', [Adam, Lamb, ranger, partial(RMSProp, mom=.9), partial(SGD, mom=.9),
                                      partial(OptimWrapper, opt=torch.optim.AdamW),
                                      partial(OptimWrapper, opt=partial(torch.optim.SGD, momentum=.9))],
                         ids=without_address)
def test_momentum_or_beta1_of_every_optimizer(mlp, opt_func):
    spy,learn = Spy(),mlp(opt_func=opt_func)
    learn.fit_one_cycle_ext(1, .01, cbs=spy)
    assert_allclose(np.array(spy.column('mom'))[:,0], one_cycle().table(10)['mom'], rtol=1e-15)
    assert_allclose(np.array(spy.column('lr'))[:,0], one_cycle().table(10, .01)['lr'], rtol=1e-15)

@pytest.mark.parametrize('opt_func,why', [
    (partial(OptimWrapper, opt=torch.optim.Adagrad), 'has no momentum'),
    (partial(SGD, mom=0), 'was built with momentum 0'),
    (partial(OptimWrapper, opt=torch.optim.SGD), 'was built with momentum 0')], ids=without_address)
def test_no_momentum_one_warning(mlp, opt_func, why):
    spy,learn = Spy(),mlp(opt_func=opt_func)
    with pytest.warns(UserWarning, match=why) as w: learn.fit_one_cycle_ext(1, .01, cbs=spy)
    assert len([o for o in w if 'only the other hyper-parameters are cycled' in str(o.message)])==1
    assert_allclose(np.array(spy.column('lr'))[:,0], one_cycle().table(10, .01)['lr'])
    assert not any(h.get('mom', 0) for row in spy.rows for h in row), 'momentum was switched on'
    assert list(learn.recorder.hps)==['lr']

def test_moms_default_to_the_learner(mlp):
    spy,learn = Spy(),mlp(moms=(.9, .7, .8))
    learn.fit_one_cycle_ext(1, cbs=spy)
    assert_allclose(np.array(spy.column('mom'))[[0, 4, -1],0], [.9, .7, .8])

def test_any_schedule(mlp):
    c = Cycle([Phase('up', .5, lr=(.1, 1), wd=(.1, .01), eps=1e-6, sqr_mom=(.9, .999)),
               Phase('down', .5, lr=(1, 0), wd=.01, eps=1e-5, sqr_mom=.999)])
    spy,learn = Spy(),mlp(opt_func=Adam)
    learn.fit_one_cycle_ext(2, .1, sched=c, cbs=spy)
    for k,v in c.table(20, .1).items(): assert_array_equal(np.array(spy.column(k))[:,0], v)

@pytest.mark.parametrize('sched', [[constant(), one_cycle()], {-1: one_cycle()}, {1: one_cycle(), 0: constant()},
                                   ByGroup([constant(), one_cycle()])], ids=['list', 'dict', 'both', 'ByGroup'])
def test_groups_on_their_own_cycles(mlp, sched):
    spy,learn = Spy(),mlp()
    plan = learn.preview_one_cycle_ext(2, slice(.01, .1), sched=sched)
    learn.fit_one_cycle_ext(2, slice(.01, .1), sched=sched, cbs=spy)
    lr,mom = np.array(spy.column('lr')),np.array(spy.column('mom'))
    assert_allclose(lr[:,0], .01)
    assert_array_equal(lr[:,1], one_cycle().table(20, .1)['lr'])
    assert (mom[:,0]==.9).all(), 'a group whose cycle leaves momentum alone keeps the optimizer\'s'
    assert_array_equal(mom[:,1], one_cycle().table(20)['mom'])
    assert np.isnan(plan.table['mom'][:,0]).all()

def test_accumulation_does_not_slow_the_cycle(mlp):
    spy,learn = Spy(),mlp()
    learn.fit_one_cycle_ext(2, .1, cbs=[spy, GradientAccumulation(32)])
    assert_array_equal(np.array(spy.column('lr'))[:,0], one_cycle().table(20, .1)['lr'][1::2])

@pytest.mark.parametrize('what', [KeyboardInterrupt, ZeroDivisionError, CancelFitException], ids=lambda e: e.__name__)
def test_a_stopped_fit_keeps_its_plan(mlp, what):
    learn = mlp()
    learn.fit_one_cycle_ext(1, .1)
    try: learn.fit_one_cycle_ext(2, .1, cbs=Raise(12, what('stop')))
    except (KeyboardInterrupt, ZeroDivisionError): pass
    assert [p.trained_ranges for p in learn.recorder.plans]==[((0, 0, 10),), ((0, 0, 13),)]
    assert_array_equal(learn.recorder.hps['lr'], one_cycle().table(20, .1)['lr'][:13])
    assert not [cb for cb in learn.cbs if isinstance(cb, CycleScheduler)]
    learn.fit_one_cycle_ext(1, .1)
    assert len(learn.recorder.plans)==3

def test_short_epochs_follow_the_full_table(mlp):
    spy,learn = Spy(),mlp()
    learn.fit_one_cycle_ext(2, .1, cbs=[spy, ShortEpochCallback(.4)])
    t = one_cycle().table(20, .1)['lr']
    n = len(spy.rows)//2
    assert_array_equal(np.array(spy.column('lr'))[:,0], np.r_[t[:n], t[10:10+n]])
    assert learn.recorder.hps['lr']==np.r_[t[:n], t[10:10+n]].tolist()
    df = learn.recorder.plans[-1].df.query('group==0')
    assert df.train_iter.tolist()==list(range(2*n)) and df.epoch.tolist()==[0]*n + [1]*n

class SkipOdd(Callback):
    order = 0
    def before_batch(self):
        if self.learn.training and self.learn.iter%2: raise CancelBatchException

def test_a_skipped_batch_is_counted_but_not_trained(mlp):
    learn = mlp()
    learn.fit_one_cycle_ext(2, .1, cbs=[SkipOdd(), GradRecorder()])
    plan,grads = learn.recorder.plans[-1],learn.recorder.grads
    assert (plan.df.query('group==0').train_iter.tolist()==grads.query('group==0').train_iter.tolist()
            ==list(range(0, 20, 2)))
    both = grads.merge(plan.df.drop(columns='epoch'), on=['train_iter', 'group'])
    assert_array_equal(both.query('group==0').lr, one_cycle().table(20, .1)['lr'][::2])

def test_a_loader_longer_than_it_says_stays_on_the_last_value(mlp):
    spy,learn = Spy(),mlp()
    learn.dls.train.__class__ = type('Short', (learn.dls.train.__class__,), {'__len__': lambda self: 6})
    learn.fit_one_cycle_ext(1, .1, cbs=spy)
    assert_array_equal(np.array(spy.column('lr'))[:,0],
                       np.r_[one_cycle().table(6, .1)['lr'], [one_cycle().table(6, .1)['lr'][-1]]*4])

def test_a_cycle_without_a_rate_trains_at_lr_max(mlp):
    spy,learn = Spy(),mlp()
    learn.fit_one_cycle_ext(1, [.2, .3], sched=Cycle([Phase('a', 1, mom=(.9, .8))]), cbs=spy)
    assert (np.array(spy.column('lr'))==[.2, .3]).all()
    assert [l.get_ydata().tolist() for l in learn.recorder.plot_lr().lines]==[[.2]*10, [.3]*10]

def test_the_optimizer_that_is_there_is_planned_for(mlp):
    "It may have other groups than a new one; looking at a new one leaves it where it is"
    learn = mlp()
    learn.opt = SGD(learn.model.parameters(), lr=.1, mom=.9)
    for reset_opt,n_groups in ((False, 1), (True, 2)):
        assert len(learn.preview_one_cycle_ext(1, .1, reset_opt=reset_opt).lr_max)==n_groups
    assert len(learn.opt.param_lists)==1

def test_reset_opt_and_frozen_groups(mlp):
    spy,learn = Spy(),mlp()
    learn.freeze()
    learn.fit_one_cycle_ext(1, slice(.01, .1), cbs=spy)
    assert not any(p.requires_grad for p in learn.model[0].parameters())
    assert_allclose(np.array(spy.column('lr')).max(0), [.01, .1])
    opt = learn.opt
    learn.fit_one_cycle_ext(1, .1, reset_opt=True)
    assert learn.opt is not opt

def test_a_bare_callback_takes_its_lengths_from_the_fit(mlp):
    spy,learn = Spy(),mlp()
    learn.fit(3, cbs=[CycleScheduler(Plan(one_cycle(), (.1, .2), n_epoch=1, n_iter=1)), spy])
    assert_array_equal(spy.column('lr'), one_cycle().table(30, [.1, .2])['lr'])

def test_answers_only_its_own_events(mlp):
    asked = []
    class Watched(CycleScheduler):
        def __getattribute__(self, k): asked.append(k); return super().__getattribute__(k)
    learn = mlp()
    cb = Watched(Plan(one_cycle(), (.1, .1), 1, 10))
    learn.add_cb(cb); learn.n_epoch = 1
    asked.clear(); cb('after_pred')
    assert 'after_pred' not in asked and 'run' not in asked

FIT_BAD = {
    'n_epoch 0': (dict(n_epoch=0),
                  'n_epoch must be a whole number of epochs, at least 1 and at most 20,000,000; got 0'),
    'n_epoch float': (dict(n_epoch=1.5), 'n_epoch must be a whole number.*got 1.5'),
    'n_epoch bool': (dict(n_epoch=True), 'n_epoch must'),
    'lr_max 0': (dict(lr_max=0.), 'lr_max must be a rate above 0 and at most'),
    'lr_max below 0': (dict(lr_max=-.1), 'lr_max must'),
    'lr_max nan': (dict(lr_max=float('nan')), 'lr_max must.*nan'),
    'lr_max list': (dict(lr_max=[.1, .2, .3]), 'lr_max must have one value for each of the 2 parameter groups'),
    'lr_max slice': (dict(lr_max=slice(-1, .1)), 'lr_max must be slice'),
    'lr_max slice from 0': (dict(lr_max=slice(0, .1)), 'lr_max must be slice'),
    'lr_max slice to 0': (dict(lr_max=slice(.01, 0)), 'lr_max must be slice'),
    'lr_max empty slice': (dict(lr_max=slice(None)), 'lr_max must be slice'),
    'lr_max text': (dict(lr_max='1e-3'), 'lr_max must'),
    'div': (dict(div=1.), 'div must be above 1'),
    'pct_start': (dict(pct_start=1.2), 'pct_start must lie in'),
    'pct_final': (dict(pct_final=-.1), 'pct_final must lie in'),
    'together': (dict(pct_start=.6, pct_final=.5), r'pct_start must lie in \(0, 0.5\)'),
    'moms': (dict(moms=(.95, 1., .95)), r'moms must be 3 momenta in \[0, 1\)'),
    'two moms': (dict(moms=(.95, .85)), 'moms must be 3 momenta'),
    'moms number': (dict(moms=.9), 'moms must be 3 momenta'),
    **{f'use_clr_beta {v!r}': (dict(use_clr_beta=v),
                               r'use_clr_beta must be \(div, pct\) or \(div, pct, max_mom, min_mom\)')
       for v in ((), (10,), (10, 13, .95), (10, 13, .95, .85, 1), 'text', 10, (10, 'a'))},
    'pct 100': (dict(use_clr_beta=(10, 100)), r'percentage in \(0, 100\)'),
    'use_clr': (dict(use_clr=(10,)), r'use_clr must be \(div, cut_div\)'),
    'two cycles': (dict(use_clr_beta=(10, 13), use_clr=(10, 4)), 'one of use_clr_beta, use_clr and sched'),
    'beta and shape': (dict(use_clr_beta=(10, 13), pct_start=.3), 'use_clr_beta must be given without pct_start'),
    'beta and moms': (dict(use_clr_beta=(10, 13), moms=(.95, .85, .95)), 'without moms'),
    'sched and shape': (dict(sched=constant(), div=25.), 'sched must be given without div'),
    'sched and sampling': (dict(sched=constant(), sampling='torch'), 'without sampling'),
    'sched name': (dict(sched='wsdd'), "sched must be a Cycle or one of.*'wsd'.*got 'wsdd'"),
    'sched needs': (dict(sched='clr_07'), "sched must be a cycle that needs no arguments.*got 'clr_07'"),
    'sched type': (dict(sched=1), 'sched must be a Cycle, a name'),
    'sched short': (dict(sched=[constant()]), 'one cycle for each of the 2 parameter groups'),
    'sched group': (dict(sched={2: constant()}), r'numbers in \[-2, 2\)'),
    'sched twice': (dict(sched={1: constant(), -1: constant()}), 'name each group once'),
    'sched of none': (dict(sched={0: None}), 'list of one Cycle for each'),
    'hyper': (dict(sched=Cycle([Phase('a', 1, sqr_mom=.9)])), r"be among those of the optimizer.*got \['sqr_mom'\]"),
    'wd twice': (dict(wd=.1, sched=Cycle([Phase('a', 1, wd=.9)])), 'wd must be left to the cycle'),
    'wd nan': (dict(wd=float('nan')), 'wd must be at least 0'),
    'wd below 0': (dict(wd=-1), 'wd must be at least 0'),
    'wd text': (dict(wd='x'), 'wd must be at least 0'),
    'wd list': (dict(wd=[.1, .2, .3]), r'wd must be at least 0 and at most 1e\+09, or one such value for each'),
    'cbs': (dict(cbs=['x']), r"cbs must be Callbacks; got \['x'\]"),
    'anneal raises': (dict(anneal=lambda s, e, p: 1/0),
                      r'anneal must be a callable that gives a number.*ZeroDivisionError'),
    'anneal takes two': (dict(anneal=lambda s, e: 1), 'anneal must be a callable.*TypeError'),
    'anneal nan': (dict(anneal=lambda s, e, p: float('nan')),
                   "lr of phase 'warm-up', as its annealer .* gives it, must be at least 0"),
    'anneal below 0': (dict(anneal=lambda s, e, p: -1), "lr of phase 'warm-up'.*must be at least 0"),
    'overshoot': (dict(sched=Cycle([Phase('a', 1, lr=1, mom=(.5, .9, ('rise', .01)))])),
                  r"mom of phase 'a'.*must lie in \[0, 1\)"),
    'no group': (dict(sched={}), 'sched must name at least one'),
    'group True': (dict(sched={True: constant()}), 'the groups of sched'),
    'start_epoch array': (dict(start_epoch=np.array([0, 1])), 'start_epoch must'),
    'moms array': (dict(moms=np.array(.5)), 'moms must be 3 momenta'),
    'huge': (dict(n_epoch=10**400), 'n_epoch must'), 'huge rate': (dict(lr_max=10**400), 'lr_max must'),
    'sampling': (dict(sampling='middle'), 'sampling must be one of'),
    'anneal': (dict(anneal='cubic'), 'anneal must be one of'),
    'start_epoch': (dict(n_epoch=2, start_epoch=2), r'start_epoch must be a whole number in \[0, 2\); got 2'),
    'start_epoch below 0': (dict(start_epoch=-1), 'start_epoch must'),
}

@pytest.mark.parametrize('made', [False, True], ids=['no optimizer', 'optimizer'])
@pytest.mark.parametrize('method', ['fit_one_cycle_ext', 'preview_one_cycle_ext'])
@pytest.mark.parametrize('kwargs,says', FIT_BAD.values(), ids=FIT_BAD.keys())
def test_bad_input_changes_nothing(mlp, method, made, kwargs, says):
    learn = mlp()
    if made: learn.create_opt()
    weights = [p.clone() for p in learn.model.parameters()]
    before = learn.opt, learn.lr, list(learn.cbs), [dict(h) for h in learn.opt.hypers] if made else None
    with pytest.raises(ValueError, match=says): getattr(learn, method)(**{'n_epoch': 1} | kwargs)
    assert before==(learn.opt, learn.lr, list(learn.cbs), [dict(h) for h in learn.opt.hypers] if made else None)
    assert all(torch.equal(a, b) for a,b in zip(weights, learn.model.parameters()))

def test_empty_training_set(mlp):
    learn = mlp()
    learn.dls.train.drop_last,learn.dls.train.bs = True,10_000
    with pytest.raises(ValueError, match='the training set must have at least one batch'): learn.fit_one_cycle_ext(1)

def test_unknown_arguments_are_refused(mlp):
    for method in ('fit_one_cycle_ext', 'preview_one_cycle_ext'):
        with pytest.raises(TypeError, match='use_clr_betta'): getattr(mlp(), method)(1, use_clr_betta=(10, 13))

def test_preview_leaves_the_learner_and_its_wrapped_optimizer(mlp):
    learn = mlp(opt_func=partial(SGD, mom=.9, lr=.3))
    plan = learn.preview_one_cycle_ext(1)
    assert learn.opt is None and learn.lr==.01 and plan.lr_max==(.3, .3), 'a rate in the partial wins, as in fit'
    opt = OptimWrapper(opt=torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=.1, momentum=.9))
    learn = mlp(opt_func=opt)
    opt.opt.state['x'] = 1
    learn.preview_one_cycle_ext(1)
    assert opt.opt.state['x']==1

def test_preview_draws_on_the_axes_given(mlp):
    ax = plt.subplots()[1]
    plan = mlp().preview_one_cycle_ext(2, slice(.01, .1), ax=ax)
    assert len(ax.lines)==2 and len(ax.figure.axes)==2
    assert '<table' in plan._repr_html_()
    assert len(plan.summary())==6

@pytest.mark.parametrize('event,order', [('before_epoch', 0), ('before_epoch', 70), ('after_epoch', 0),
                                         ('after_epoch', 70)])
def test_a_validation_within_the_fit_leaves_the_cycle_alone(mlp, event, order):
    class Kept(Spy):
        def before_fit(self): self.rows = vars(self).get('rows', [])
    plain,learn = mlp(),mlp()
    plain.fit_one_cycle_ext(3, .1, cbs=(want := Spy()))
    learn.fit_one_cycle_ext(3, .1, cbs=[got := Kept(), ValidateAt(event, order)])
    assert got.column('lr')==want.column('lr') and got.column('mom')==want.column('mom')
    assert learn.recorder.hps==plain.recorder.hps and len(learn.recorder.plans)==1

# nothing changes before everything is made and checked

class NeedsPath(Callback):
    def __init__(self, path): self.path = path

class Refuses(Callback):
    "Looks at the fit and refuses it"
    def check_fit(self, learn, opt, cbs): raise ValueError('this callback must not be used')

elsewhere = make_mlp(cbs=GradRecorder())

REFUSED = {
    'class that needs an argument': (lambda: NeedsPath, r'classes that need no argument; got NeedsPath: .*path'),
    'SaveHistory': (lambda: SaveHistory, 'classes that need no argument; got SaveHistory'),
    'class among callbacks': (lambda: [GradRecorder(), NeedsPath], 'got NeedsPath'),
    'class that refuses': (lambda: Refuses, 'this callback must not be used'),
    'guard twice': (lambda: [DivergenceGuard, DivergenceGuard()], 'have one DivergenceGuard'),
    'of another learner': (lambda: elsewhere.cbs[-1], 'GradRecorder must be in one learner only'),
    'given twice': (lambda: [cb := GradRecorder(), cb], 'be callbacks that are given once'),
    'unknown monitor': (lambda: SaveModelCallback(monitor='roc_auc'),
                        "monitor of save_model must be recorded.*'roc_auc'"),
    'unknown monitor of a class': (lambda: partial_class(EarlyStoppingCallback, monitor='f1'), "monitor of .*got 'f1'"),
    'ReduceLROnPlateau': (lambda: ReduceLROnPlateau(), 'have nothing beside the cycle that sets lr too'),
    'ReduceLROnPlateau class': (lambda: ReduceLROnPlateau, 'have nothing beside the cycle that sets lr too'),
    'ParamScheduler': (lambda: ParamScheduler({'mom': SchedLin(.9, .8)}), 'beside the cycle that sets mom too'),
    'another cycle': (lambda: CycleScheduler(Plan(one_cycle(), (.1, .1), 1, 10)), 'that sets lr, mom too'),
    'in a generator': (lambda: (cb for cb in [Refuses()]), 'this callback must not be used'),
    'no callback': (lambda: [GradRecorder(), 1], r'cbs must be Callbacks; got \[1\]'),
}

def partial_class(cls, **kwargs):
    return type(cls.__name__, (cls,), dict(__init__=lambda self: cls.__init__(self, **kwargs)))

@pytest.mark.parametrize('before', ['new', 'trained'])
@pytest.mark.parametrize('method', ['fit_one_cycle_ext', 'preview_one_cycle_ext', 'fit_stages', 'preview_stages'])
@pytest.mark.parametrize('make_cbs,says', REFUSED.values(), ids=REFUSED.keys())
def test_refused_callbacks_change_nothing(mlp, method, before, make_cbs, says):
    learn = mlp()
    if before=='trained': learn.fit_one_cycle_ext(1, .01)
    was = snapshot(learn)
    first = [Stage('a', 1), Stage('b', 1)] if 'stages' in method else 1
    with pytest.raises(ValueError, match=says): getattr(learn, method)(first, cbs=make_cbs())
    assert snapshot(learn)==was
    learn.fit(1) # a plain fit works, with nothing left over
    assert learn.opt.hypers[0]['lr']==learn.lr

@pytest.mark.parametrize('make', [lambda cbs: (cb for cb in cbs), iter, lambda cbs: map(lambda cb: cb, cbs), tuple, L])
@pytest.mark.parametrize('method', ['fit_one_cycle_ext', 'fit_stages', 'stage'])
def test_callbacks_come_in_anything_that_is_looped_over_once(mlp, make, method):
    learn,spy = mlp(),Spy()
    cbs = make([spy, GradRecorder])
    if method=='stage': learn.fit_stages([Stage('a', 1, cbs=cbs)])
    else: getattr(learn, method)(1 if method=='fit_one_cycle_ext' else [Stage('a', 1)], cbs=cbs)
    assert len(spy.rows)==10 and len(learn.recorder.grads)==20
    assert not [cb for cb in learn.cbs if cb is spy]

def test_the_example_of_a_class_without_its_argument_leaves_no_cycle_behind(mlp):
    learn = mlp()
    with pytest.raises(ValueError, match='got SaveHistory'): learn.fit_one_cycle_ext(1, .5, cbs=SaveHistory)
    spy = Spy()
    learn.fit(1, .02, cbs=spy)
    assert set(np.ravel(spy.column('lr')))=={.02}

# two that write the same

MOM_ALONE = Cycle([Phase('a', 1, mom=(.95, .85))])

@pytest.mark.parametrize('cb,sched', [(ReduceLROnPlateau(patience=1), MOM_ALONE),
                                      (ParamScheduler({'lr': SchedLin(.1, .01)}), MOM_ALONE),
                                      (ParamScheduler({'mom': SchedLin(.9, .8)}), constant())])
def test_a_cycle_that_leaves_it_alone_works_beside(mlp, cb, sched):
    learn = mlp()
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        learn.fit_one_cycle_ext(2, .1, sched=sched, cbs=[cb, spy := Spy()])
    name = sched.hypers[0]
    assert_allclose(np.array(spy.column(name)), learn.recorder.plans[-1].table[name])

def test_plain_fit_refuses_two_writers_too(mlp):
    learn = mlp()
    cycle = CycleScheduler(Plan(constant(), (.1, .1), 1, 10))
    with pytest.raises(ValueError, match='beside the cycle that sets lr too'):
        learn.fit(1, cbs=[cycle, ReduceLROnPlateau(), HistoryRecorder()])
    assert cycle not in learn.cbs and not learn.recorder.losses

class SetsRate(Callback):
    "Sets the rate by hand, at an event, from a batch on"
    def __init__(self, event, at, value, order, key='lr'):
        self.at,self.value,self.order,self.key = at,value,order,key
        setattr(self, event, self.write)
    def write(self):
        if self.learn.training and self.learn.train_iter>=self.at: self.learn.opt.set_hyper(self.key, self.value)

@pytest.mark.parametrize('event,order', [('before_batch', 70), ('after_pred', 0), ('after_loss', 200),
                                         ('before_step', 0)])
@pytest.mark.parametrize('key,value', [('lr', .007), ('mom', .5)])
def test_what_another_callback_set_is_what_the_plan_says(mlp, event, order, key, value):
    learn,spy = mlp(),Spy()
    with pytest.warns(UserWarning, match=f'Something beside the cycle set {key} in 6 batches: batch 4 was trained with '
                                         f'{value:g} instead of') as caught:
        learn.fit_one_cycle_ext(1, .1, cbs=[SetsRate(event, 4, value, order, key), spy])
    assert caught[0].filename==__file__, 'it points at the fit'
    plan = learn.recorder.plans[-1]
    for name in ('lr', 'mom'):
        assert plan.table[name].tolist()==spy.column(name)
        assert learn.recorder.hps[name]==[row[-1] for row in spy.column(name)]
    assert set(plan.table[key][4:].ravel())=={value}
    assert plan.df[key].tolist()==np.ravel(spy.column(key)).tolist()
    steps = learn.recorder.history.steps
    assert steps[f'{key}_0'].tolist()==[row[0] for row in spy.column(key)]
    drawn = plan.plot(show_moms=False).lines if key=='lr' else plot_plans([plan], 'mom').lines
    assert set(np.asarray(drawn[0].get_ydata())[4:])=={value}

def test_what_is_trained_as_planned_is_not_warned_of(mlp):
    with warnings.catch_warnings():
        warnings.simplefilter('error', UserWarning)
        learn = mlp()
        learn.fit_one_cycle_ext(2, .1, cbs=[GradRecorder(), SaveModelCallback(fname='x', monitor='train_loss')])
    assert not learn.recorder.plans[-1].changed
    Path(learn.path/learn.model_dir/'x.pth').unlink()

# numbers

@pytest.mark.parametrize('kind', [torch.tensor, np.float64, np.float32, np.array])
def test_numbers_of_numpy_and_torch(mlp, kind):
    ours,theirs = mlp(),mlp()
    theirs.fit_one_cycle_ext(2, .5, div=8., wd=.25, pct_start=.25, start_epoch=1)
    ours.fit_one_cycle_ext(kind(2.), kind(.5), div=kind(8.), wd=kind(.25), pct_start=kind(.25), start_epoch=kind(1.))
    assert ours.recorder.plans==theirs.recorder.plans
    assert [p.tolist() for p in ours.model.parameters()]==[p.tolist() for p in theirs.model.parameters()]
    stage = Stage('a', kind(.5), slice(kind(.125), kind(.5)), -1, wd=[kind(0.), kind(.5)])
    assert stage==Stage('a', .5, slice(.125, .5), -1, wd=[0., .5])
    ours.fit_stages([stage])

@pytest.mark.parametrize('attribute', ['lr', 'wd'])
def test_numbers_of_numpy_as_the_learners_own(mlp, attribute):
    learn = mlp(**{attribute: np.float32(.125)})
    learn.fit_one_cycle_ext(1, cbs=(spy := Spy()))
    if attribute=='wd': assert set(np.ravel(spy.column('wd')))=={.125}
    else: assert np.max(spy.column('lr'))==.125

@pytest.mark.parametrize('kwargs,says', [
    (dict(n_epoch=10**9), r'n_epoch must give at most 10,000,000 batches, 10 in each epoch|n_epoch must be .* at most'),
    (dict(n_epoch=5*10**6), 'n_epoch must give at most 10,000,000 batches, 10 in each epoch; got 5000000'),
    (dict(lr_max=1e300), r'lr_max must be a rate above 0 and at most 1e\+09'),
    (dict(sched=lambda: one_cycle().repeat(10**9)), 'n_cycles must be .* at most 3,333'),
    (dict(sched=lambda: triangular(10**9)), 'n_cycles must be .* at most 5,000'),
    (dict(sched=lambda: one_cycle().in_steps(10**9)), 'n_steps must be .* at most 10,000')])
def test_numbers_that_would_fill_the_memory_are_refused_at_once(mlp, kwargs, says):
    learn,start = mlp(),time.perf_counter()
    with pytest.raises(ValueError, match=says):
        learn.fit_one_cycle_ext(**dict(n_epoch=1) | {k: v() if callable(v) else v for k,v in kwargs.items()})
    assert time.perf_counter()-start<1

# any length

@pytest.mark.filterwarnings('ignore:.*too few for the cycle')
@pytest.mark.parametrize('n_trn', [1, 2, 3, 5])
@pytest.mark.parametrize('preset', PRESETS)
def test_every_preset_trains_every_length(mlp, preset, n_trn):
    needed = dict(clr_beta_07=(10, 10), clr_07=(10, 4)).get(preset, ())
    learn,cycle = mlp(n_trn),PRESETS[preset](*needed)
    learn.fit_one_cycle_ext(1, .1, sched=cycle if needed else preset, cbs=(spy := Spy()))
    assert len(spy.rows)==n_trn
    assert np.array(spy.column('lr'))[:,1].tolist()==cycle.table(n_trn, .1)['lr'].tolist()

def test_too_few_batches_are_warned_of_once(mlp):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        learn = mlp(2)
        learn.fit_one_cycle_ext(1, .1)
        learn.recorder.plans[-1].plot()
    said = [w for w in caught if 'too few' in str(w.message)]
    assert [str(w.message) for w in said]==['2 batches are too few for the cycle. Phases without a batch: cool-down']
    assert said[0].filename==__file__

# loaders that give another number of batches than they say

class Lies:
    "A loader whose length is not the number of its batches"
    def __init__(self, dl, n): self.dl,self.n = dl,n
    def __len__(self): return self.n
    def __iter__(self): return iter(self.dl)
    def __getattr__(self, k):
        if k=='dl': raise AttributeError(k)
        return getattr(self.dl, k)

@pytest.mark.parametrize('says,trained,beyond', [(100, '20 of the 200', 0), (3, '6 of the 6', 14),
                                                 (11, '20 of the 22', 0)])
def test_a_loader_with_a_wrong_length_is_said(mlp, says, trained, beyond):
    learn = mlp()
    learn.dls.loaders[0] = Lies(learn.dls.train, says)
    text = f'says that it has {says} batches.*: {trained} batches of the cycle were trained, and {beyond} beyond'
    with pytest.warns(UserWarning, match=text): learn.fit_one_cycle_ext(2, .1)

@pytest.mark.parametrize('cbs', [lambda: ShortEpochCallback(.5), lambda: GradientAccumulation(32)])
def test_what_a_callback_cuts_short_is_no_wrong_length(mlp, cbs):
    with warnings.catch_warnings():
        warnings.simplefilter('error', UserWarning)
        mlp().fit_one_cycle_ext(2, .1, cbs=cbs())

def test_a_loader_without_a_length(mlp):
    class Stream(Lies):
        def __len__(self): raise TypeError
    for call in (lambda learn: learn.fit_one_cycle_ext(1), lambda learn: learn.fit_stages([Stage('a', 1)])):
        learn = mlp()
        learn.dls.loaders[0] = Stream(learn.dls.train, 0)
        with pytest.raises(ValueError, match='the training loader must have a length'): call(learn)

def test_a_plan_for_other_groups_is_refused(mlp):
    for n in (1, 3):
        learn = mlp()
        with pytest.raises(ValueError, match='plan must have a rate for each of the 2 parameter groups'):
            learn.fit(1, cbs=CycleScheduler(Plan(one_cycle(), (.1,)*n, 1, 10)))

def test_the_warning_counts_what_is_trained(mlp):
    with pytest.warns(UserWarning, match='^2 batches are too few'): mlp(20).fit_stages([Stage('a', .1, .01)])

def test_a_cycle_without_a_rate_can_be_seen(mlp):
    sched = Cycle([Phase('a', 1, mom=(.95, .85))])
    plan = mlp().preview_one_cycle_ext(1, .1, sched=sched)
    assert list(plan.table)==['mom'] and sched.plot().lines[0].get_ydata()[-1]==.85
    mlp().preview_stages([Stage('a', 1, sched=sched)])

@pytest.mark.parametrize('given,says', [
    (dict(wd=float('nan')), 'wd of the learner must'), (dict(wd='x'), 'wd of the learner must'),
    (dict(wd=[.1, .2, .3]), 'wd of the learner must'), (dict(wd=-1), 'wd of the learner must'),
    (dict(wd=1e300), 'wd of the learner must'), (dict(lr=[]), 'lr of the learner must'),
    (dict(lr=None), 'lr of the learner must'), (dict(lr=float('nan')), 'lr of the learner must'),
    (dict(lr=slice(None)), 'must be slice')], ids=str)
def test_rates_and_weight_decay_of_the_learner_are_checked(mlp, given, says):
    learn = mlp(**given)
    with pytest.raises(ValueError, match=says): learn.fit_one_cycle_ext(1)
    assert not len(learn.recorder.history)

def test_a_rate_set_behind_the_step_was_not_trained(mlp, recwarn):
    "The cycle writes the next batch's rate before it is trained, so nothing was trained beside the plan"
    class Late(Callback):
        def after_step(self):
            if self.train_iter==2: self.learn.opt.set_hyper('lr', 5.)
    learn = mlp()
    learn.fit_one_cycle_ext(1, .1, cbs=Late())
    assert_allclose(learn.recorder.hps['lr'], one_cycle().table(10, .1)['lr'])
    assert not [w for w in recwarn if 'beside the cycle' in str(w.message)]

def test_a_torch_optimizer_without_a_wrapper_is_refused_by_name(mlp):
    with pytest.raises(ValueError, match="opt_func must make a fastai Optimizer; wrap one of torch's"):
        mlp(opt_func=torch.optim.SGD).fit_one_cycle_ext(1)

@pytest.mark.parametrize('stage', ['pretraining', 3, None])
def test_a_users_own_attribute_called_stage(mlp, stage):
    learn = mlp()
    learn.stage = stage
    learn.fit_one_cycle_ext(1)
    assert learn.recorder.history.fits.stage[0]=='' and learn.stage==stage

def test_a_random_annealer_is_kept_as_it_was_trained(mlp):
    rng = np.random.default_rng(0)
    def noisy(start, end, pos): return start + (end-start)*pos + abs(rng.normal(0, .02))
    learn = mlp()
    learn.fit_one_cycle_ext(1, .1, sched=Cycle([Phase('a', 1, lr=(.2, 1, noisy))]))
    trained = learn.recorder.history.steps.lr_1
    assert_allclose(learn.recorder.hps['lr'], trained)
    assert_allclose(learn.recorder.plans[-1].table['lr'][:,-1], trained)

def test_an_error_names_the_parameter_that_was_given():
    with pytest.raises(ValueError, match=r"decay must be one of \['1-sqrt', 'lin'"): wsd(decay='nope')
