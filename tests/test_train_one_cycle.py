"One cycle: what was trained is what was planned, and wrong arguments change nothing"
import json
from functools import partial
from pathlib import Path
import matplotlib.pyplot as plt, numpy as np, pytest, torch
from numpy.testing import assert_allclose, assert_array_equal
from torch import nn
from fastai.callback.core import Callback, CancelBatchException, CancelFitException
from fastai.callback.training import GradientAccumulation, ShortEpochCallback
from fastai.optimizer import Adam, Lamb, OptimWrapper, RMSProp, SGD, ranger
from fastai_clr_ext.schedule import *
from fastai_clr_ext.record import *
from fastai_clr_ext.train import *
from fastai_clr_ext.plot import *
from conftest import Raise, Spy, ValidateAt, without_address

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
    'n_epoch 0': (dict(n_epoch=0), 'n_epoch must be a whole number of at least 1; got 0'),
    'n_epoch float': (dict(n_epoch=1.5), 'n_epoch must be a whole number.*got 1.5'),
    'n_epoch bool': (dict(n_epoch=True), 'n_epoch must'),
    'lr_max 0': (dict(lr_max=0.), 'lr_max must be a finite rate above 0'),
    'lr_max below 0': (dict(lr_max=-.1), 'lr_max must'),
    'lr_max nan': (dict(lr_max=float('nan')), 'lr_max must.*nan'),
    'lr_max list': (dict(lr_max=[.1, .2, .3]), 'lr_max must have one value for each of the 2 parameter groups'),
    'lr_max slice': (dict(lr_max=slice(-1, .1)), 'lr_max must be slice'),
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
    'no batch': (dict(use_clr_beta=(10, 95)), 'n_iter must give every phase a batch; got 10'),
    'use_clr': (dict(use_clr=(10,)), r'use_clr must be \(div, cut_div\)'),
    'use_clr no batch': (dict(use_clr=(10, 20)), 'n_iter must give every phase a batch'),
    'two cycles': (dict(use_clr_beta=(10, 13), use_clr=(10, 4)), 'one of use_clr_beta, use_clr and sched'),
    'beta and shape': (dict(use_clr_beta=(10, 13), pct_start=.3), 'use_clr_beta must be given without pct_start'),
    'beta and moms': (dict(use_clr_beta=(10, 13), moms=(.95, .85, .95)), 'without moms'),
    'sched and shape': (dict(sched=constant(), div=25.), 'sched must be given without div'),
    'sched and sampling': (dict(sched=constant(), sampling='torch'), 'without sampling'),
    'sched type': (dict(sched='wsd'), 'sched must be a Cycle'),
    'sched short': (dict(sched=[constant()]), 'one cycle for each of the 2 parameter groups'),
    'sched group': (dict(sched={2: constant()}), r'numbers in \[-2, 2\)'),
    'sched twice': (dict(sched={1: constant(), -1: constant()}), 'name each group once'),
    'sched of none': (dict(sched={0: None}), 'list of one Cycle for each'),
    'hyper': (dict(sched=Cycle([Phase('a', 1, sqr_mom=.9)])), r"be among those of the optimizer.*got \['sqr_mom'\]"),
    'wd twice': (dict(wd=.1, sched=Cycle([Phase('a', 1, wd=.9)])), 'wd must be left to the cycle'),
    'wd nan': (dict(wd=float('nan')), 'wd must be at least 0'),
    'wd below 0': (dict(wd=-1), 'wd must be at least 0'),
    'wd text': (dict(wd='x'), 'wd must be at least 0'),
    'wd list': (dict(wd=[.1, .2, .3]), 'wd must be at least 0, or one such value for each'),
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
