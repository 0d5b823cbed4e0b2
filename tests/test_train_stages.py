"Stages: what is trained is what was shown, what is kept is what was promised"
import pickle
from functools import partial
import matplotlib.pyplot as plt, numpy as np, pytest, torch
from numpy.testing import assert_allclose, assert_array_equal
from torch import nn
from fastai.callback.core import Callback, CancelFitException
from fastai.callback.tracker import EarlyStoppingCallback, SaveModelCallback, TrackerCallback
from fastai.callback.training import GradientAccumulation
from fastai.learner import Metric
from fastai.optimizer import Adam, OptimWrapper, SGD
from fastai_clr_ext.schedule import *
from fastai_clr_ext.record import *
from fastai_clr_ext.train import *
from fastai_clr_ext.train.stages import FirstBatches, PartialEpoch
from fastai_clr_ext.plot import *
from conftest import Raise
from train_helpers import *

class Score(Metric):
    "A metric with given values, epoch by epoch"
    value,name = None,'score'
    def __init__(self, values): self.script = iter(values)
    def reset(self): self.value = None
    def accumulate(self, learn):
        if self.value is None: self.value = next(self.script)

# what is trained

STARTS = {('head', 0): 0, ('all', 0): 10, ('all', 1): 20}

@pytest.mark.parametrize('start', STARTS)
def test_a_run_can_start_with_a_later_stage(make, start):
    "What is trained is the rest of the plan, and what a stage would have frozen is frozen"
    stages = [Stage('head', 1, .1, -1), Stage('all', 2, slice(.01, .1))]
    learn,log = make(n_trn=10),Rows()
    plan = plan_stages(learn, stages)
    learn.fit_stages(stages, log, start=start)
    rest = plan.df[plan.df.group==0].iloc[STARTS[start]:]
    assert [row[0]['lr'] for row in log.rows]==rest.lr.tolist()
    assert learn.recorder.history.stages.stage.tolist()==list(dict.fromkeys(rest.stage))

def test_a_run_that_starts_again_has_one_row_for_each_stage(make):
    "The history goes on, and the optimizer's state is kept within a stage"
    stages = [Stage('head', 1, .1, -1), Stage('all', 3, .1)]
    class Stop(Callback):
        def before_epoch(self):
            if vars(self.learn)['stage'].name=='all' and self.epoch==2: raise KeyboardInterrupt
    learn = make(n_trn=10)
    with pytest.raises(KeyboardInterrupt): learn.fit_stages(stages, Stop())
    state = learn.opt.state_dict()['state'][0]['grad_avg'].clone()
    class First(Callback):
        run_valid = False
        def before_batch(self):
            if self.iter==0: self.state = self.learn.opt.state_dict()['state'][0]['grad_avg'].clone()
    learn.fit_stages(stages, first := First(), start=('all', 2))
    table = learn.recorder.history.stages
    assert table.stage.tolist()==['head', 'all'] and table.n_epoch.tolist()==[1, 3]
    assert table.n_batches.tolist()==[10, 30]
    assert torch.equal(first.state, state)

@pytest.mark.parametrize('start', ['all', ('tail', 0), ('all', 2), ('all', -1), ('all', .5), ('all',), 3, (0, 1)])
def test_a_start_that_is_not_there(make, start):
    learn = make()
    with pytest.raises(ValueError, match='start must (be the name of a stage|name an epoch of)'):
        learn.fit_stages([Stage('head', 1, .1, -1), Stage('all', 2, .1)], start=start)
    assert learn.opt is None

@pytest.mark.parametrize('n_trn', [10, 7])
@pytest.mark.parametrize('stages', [
    TWO,
    [Stage('a', .5, .1, -1), Stage('b', 1.3, [.1, .2, .3], -2, wd=.1),
     Stage('c', 2.7, None, 0, clr_beta_07(4, 20, .95, .85))],
    [Stage('a', 1, .1, 1, constant(.8)), Stage('gone', 0, .1), Stage('b', 1, .1, 0, {-1: one_cycle()})],
    [Stage('a', .5, .1, -1), Stage('b', 1.5, .1)]], ids=['two', 'parts', 'by group', 'halves'])
def test_trained_equals_the_preview(make, stages, n_trn):
    learn,log = make(n_trn=n_trn),Rows()
    plan = learn.preview_stages(stages)
    assert learn.opt is None
    learn.fit_stages(stages, cbs=log)
    df = plan.df
    assert [n for n in log.names for _ in range(3)]==df.stage.tolist()
    for k in ('lr', 'mom'):
        want = df[k].to_numpy().reshape(-1, 3)
        assert_array_equal(np.where(np.isnan(want), log.column(k), want), log.column(k))
    first = {s.name: s.freeze_to%3 for s in stages}
    groups = [0, 0, 0, 0, 1, 1, 2, 2]
    is_bn = [False, False, True, True] + [False]*4
    for name,on in zip(log.names, log.grads): assert on==[g>=first[name] or bn for g,bn in zip(groups, is_bn)]
    assert len(learn.recorder.plans)==len({*log.names}) and [len(p.trained[0]) for p in learn.recorder.plans]==[
        log.names.count(s.name) for s in stages if s.n_epoch]

@pytest.mark.parametrize('train_bn', [True, False])
def test_batch_norm_of_a_frozen_body_follows_train_bn(make, train_bn):
    learn,log = make(train_bn=train_bn),Rows()
    mean = learn.model[1].running_mean.clone()
    plan = learn.preview_stages([Stage('head', 1, .1, -1)])
    learn.fit_stages([Stage('head', 1, .1, -1)], cbs=log)
    assert log.grads[0][2:4]==[train_bn]*2 and plan.n_train==[[16*train_bn, 0, 9]]
    assert not torch.equal(mean, learn.model[1].running_mean), 'statistics move either way, as in fastai'

def test_hypers_that_a_stage_does_not_set_are_those_before_the_run(make):
    learn,log = make(opt_func=partial(SGD, mom=.7, wd=.01)),Rows()
    learn.fit_stages([Stage('a', 1, .1, -1, wd=.3), Stage('b', 1, .1, 0, constant()),
                      Stage('c', 1, .1, 0, constant(.5)), Stage('d', 1, .1, 0, constant())], cbs=log)
    assert set(log.column('wd')[:10].flat)=={.3} and set(log.column('wd')[10:].flat)=={.01}
    assert (set(log.column('mom')[10:20].flat)=={.7} and set(log.column('mom')[20:30].flat)=={.5}
            and set(log.column('mom')[30:].flat)=={.7})

# fractions of an epoch

@pytest.mark.parametrize('n_epoch,n_iter,before,n', [
    (.5, 10, 0, 5), (.5, 11, 0, 6), (9.5, 11, .5, 104), (.1, 10, 0, 1), (.3, 10, 0, 3), (1/3, 9, 0, 3), (2, 7, .5, 14),
    (.04, 10, 0, 0), (.29, 100, 0, 29)])
def test_batches_of_a_fraction(n_epoch, n_iter, before, n): assert n_batches(n_epoch, n_iter, before)==n

@pytest.mark.parametrize('n_iter', [7, 10, 11, 64])
@pytest.mark.parametrize('cuts', [(.5, 9.5), (.3, .3, .4), (1/3, 1/3, 1/3), (.15, 2.35, .5, 4)], ids=str)
def test_stages_that_add_up_to_whole_epochs_train_their_batches(cuts, n_iter):
    before = np.cumsum([0, *cuts])
    assert sum(n_batches(c, n_iter, b) for c,b in zip(cuts, before))==round(sum(cuts)*n_iter)

def test_a_fraction_ends_within_an_epoch_and_is_recorded_as_a_whole(make):
    seen = []
    class Seen(Callback):
        run_valid = True
        def before_batch(self): seen.append(self.learn.training)
    learn = make(metrics=Score([1., 2., 3.]))
    learn.fit_stages([Stage('half', .5, .1, -1), Stage('more', 1.5, .1)], cbs=Seen())
    assert seen==([True]*5 + [False]*2) + ([True]*10 + [False]*2) + ([True]*5 + [False]*2)
    assert ([len(v) for v in learn.recorder.values]==[3, 3]
            and [v[2] for v in learn.recorder.values]==[2., 3.]), 'no column is missing'
    assert [p.trained_ranges for p in learn.recorder.plans]==[((0, 0, 5),), ((0, 0, 15),)]
    assert learn.recorder.hps['lr'][-1]==pytest.approx(.1/1000) and len(learn.recorder.losses)==15
    assert learn.pct_train==pytest.approx(1.)
    assert type(learn.dls.train).__name__!='FirstBatches' and len(learn.dls.train)==10

def test_a_fraction_of_by_group_cycles_accumulation_and_gradients(make):
    learn,log = make(),Rows()
    learn.fit_stages([Stage('part', .6, .1, 0, {-1: one_cycle()})], cbs=[log, GradientAccumulation(32), GradRecorder()])
    assert_array_equal(log.column('lr')[:,2], one_cycle().table(6, .1)['lr'][1::2])
    assert sorted(learn.recorder.grads.train_iter.unique())==[1, 3, 5]

def test_the_shorter_loader_asks_the_loader(make):
    dl = make().dls.train
    s = FirstBatches(dl, 3)
    assert len(s)==3 and len(list(s))==3 and s.bs==dl.bs and s.dataset is dl.dataset
    with pytest.raises(AttributeError): object.__new__(FirstBatches).bs
    assert pickle.loads(pickle.dumps(FirstBatches([1, 2, 3], 2))).n==2

# what is kept from stage to stage

class State(Callback):
    "Optimizer state of the head at the first step of each stage, before it, and at the end of each fit"
    order,run_valid = 1000,False
    def __init__(self): self.starts,self.ends = [],[]
    def state(self):
        opt,p = self.learn.opt,self.learn.opt.param_lists[-1][0]
        s = opt.opt.state.get(p, {}) if isinstance(opt, OptimWrapper) else opt.state[p]
        return {k: v.clone() if torch.is_tensor(v) else v for k,v in s.items() if k not in ('force_train', 'do_wd')}
    def before_train(self):
        if self.learn.epoch==0: self.starts.append(self.state())
    def after_fit(self): self.ends.append(self.state())

@pytest.mark.parametrize('opt_func,keys', [
    (partial(SGD, mom=.9), {'grad_avg'}), (Adam, {'grad_avg', 'sqr_avg', 'step'}),
    (partial(OptimWrapper, opt=torch.optim.Adam), {'exp_avg', 'exp_avg_sq', 'step'})],
    ids=['SGD', 'Adam', 'torch Adam'])
@pytest.mark.parametrize('keep', [True, False])
def test_optimizer_state_is_kept_or_cleared(make, opt_func, keys, keep):
    learn,state = make(opt_func=opt_func),State()
    learn.fit_stages([Stage('a', 1, .01, -1), Stage('b', 1, .01, 0, keep_opt=keep)], cbs=state)
    assert state.ends[0].keys()==keys and state.starts[0]=={}
    if not keep: assert state.starts[1]=={}
    else:
        assert state.starts[1].keys()==keys
        for k,v in state.ends[0].items():
            assert torch.equal(v, state.starts[1][k]) if torch.is_tensor(v) else v==state.starts[1][k]

def test_state_from_before_the_run_is_the_first_stages_choice(make):
    for keep in (True, False):
        learn,state = make(),State()
        learn.fit(1, .01)
        learn.fit_stages([Stage('a', 1, .01, 0, keep_opt=keep)], cbs=state)
        assert bool(state.starts[0])==keep

@pytest.mark.parametrize('keep', [True, False])
def test_what_is_frozen_again_does_not_move(make, keep):
    learn,kept = make(opt_func=partial(SGD, mom=.9, wd=.1), train_bn=False),[]
    class Keep(Callback):
        def before_fit(self): kept.append([p.detach().clone() for p in learn.model.parameters()])
    learn.fit_stages([Stage('all', 1, .1), Stage('head', 1, .1, -1, keep_opt=keep)], cbs=Keep())
    now = list(learn.model.parameters())
    assert not torch.equal(kept[0][0], kept[1][0])
    for was,p in zip(kept[1][:-2], now[:-2]): assert torch.equal(was, p)
    assert not torch.equal(kept[1][-1], now[-1])

@pytest.mark.parametrize('reset', [True, False])
def test_the_best_model_is_that_of_all_stages(make, tmp_path, capsys, reset):
    learn = make(metrics=Score([1., 9., 2., 5., 3.]), path=tmp_path)
    save,kept = SaveModelCallback(monitor='score', reset_on_fit=reset),[]
    class Keep(Callback):
        order = 100
        def after_epoch(self): kept.append([p.detach().clone() for p in learn.model.parameters()])
    learn.fit_stages([Stage('a', 2, .05, -1), Stage('b', 3, .05)], cbs=[save, Keep()])
    assert save.best==9. and save.reset_on_fit is reset and capsys.readouterr().out.count('Better model')==2
    for was,p in zip(kept[1], learn.model.parameters()): assert torch.equal(was, p)

def test_a_tracker_of_the_learner_starts_anew_with_each_run(make, tmp_path, capsys):
    learn = make(metrics=Score([9., 9., 1., 2.]), path=tmp_path)
    save = SaveModelCallback(monitor='score')
    learn.add_cb(save)
    for _ in range(2): learn.fit_stages([Stage('a', 1, .05, -1), Stage('b', 1, .05)])
    assert save.best==2.

def test_early_stopping_ends_its_stage_and_compares_with_the_best_of_all(make, capsys):
    learn,log = make(metrics=Score([9., 8., 7., 6., 1., 2., 3.])),Rows()
    learn.fit_stages([Stage('a', 5, .05, -1), Stage('b', 5, .05)],
                     cbs=[log, EarlyStoppingCallback(monitor='score', patience=2)])
    assert (log.names.count('a'), log.names.count('b'))==(30, 20), (
        'a: 9 then two worse; b: two that are no better than 9')

def test_callback_classes_are_made_once(make, capsys):
    made = []
    class Once(Callback):
        def __init__(self): made.append(1)
    learn = make()
    learn.fit_stages(TWO, cbs=Once)
    assert len(made)==1 and not [cb for cb in learn.cbs if isinstance(cb, Once)]

def test_callbacks_of_a_stage_are_there_for_that_stage(make):
    log = Rows()
    make().fit_stages([TWO[0], Stage('all', 2, .1, cbs=log)])
    assert log.names==['all']*20

# how it ends

@pytest.mark.parametrize('what', [KeyboardInterrupt, ZeroDivisionError])
def test_stage_is_gone_however_the_run_ends(make, what):
    learn,save = make(),TrackerCallback()
    with pytest.raises(what): learn.fit_stages(TWO, cbs=[save, Raise(12, what('stop'))])
    assert ('stage' not in vars(learn) and save.reset_on_fit
            and [len(p.trained[0]) for p in learn.recorder.plans]==[10, 13])
    assert not [cb for cb in learn.cbs if isinstance(cb, (TrackerCallback, PartialEpoch))]

def test_a_cancelled_fit_ends_its_stage_a_divergence_the_run(make):
    log = Rows()
    make().fit_stages(TWO, cbs=[log, Raise(3, CancelFitException())])
    assert log.names==['head']*4 + ['all']*4
    class Nan(Callback):
        def after_loss(self):
            if self.learn.train_iter==3: self.learn.loss = self.learn.loss*float('nan')
    log,learn = Rows(),make()
    with pytest.warns(UserWarning, match="stage 'head'"): learn.fit_stages(TWO, cbs=[log, DivergenceGuard(), Nan()])
    assert log.names==['head']*10 and learn.recorder.divergence.stage=='head'
    learn.fit_stages(TWO, cbs=DivergenceGuard())
    assert learn.recorder.divergence is None

def test_a_divergence_that_is_only_recorded_is_kept_to_the_end_of_the_run(make):
    class Nan(Callback):
        def after_loss(self):
            if vars(self.learn)['stage'].name=='head' and self.learn.train_iter==3:
                self.learn.loss = self.learn.loss*float('nan')
    log,learn = Rows(),make()
    with pytest.warns(UserWarning, match='recorded'):
        learn.fit_stages(TWO, cbs=[log, DivergenceGuard(on='record'), Nan()])
    assert len(log.names)==30 and learn.recorder.divergence.stage=='head'

# bad input, learner unchanged

MORE = SaveModelCallback(monitor='accuracy')

RUN_BAD = {
    'empty': ([], 'stages must have one of at least a batch'),
    'all empty': ([Stage('a', 0)], "stages must have one of at least a batch; got \\['a'\\]"),
    'no stage': ([('head', 1)], 'stages must be a list of Stages'),
    'names': ([Stage('a', 1), Stage('a', 1)], 'the names of stages must be unique'),
    'freeze_to high': ([TWO[0], Stage('all', 1, .1, 3)], r"stage 'all': freeze_to must lie in \[-3, 3\).*got 3"),
    'freeze_to low': ([TWO[0], Stage('all', 1, .1, -4)], "stage 'all': freeze_to must lie in"),
    'rates': ([TWO[0], Stage('all', 1, [.1, .2])], "stage 'all': lr_max must have one value for each of the 3"),
    'rate': ([TWO[0], Stage('all', 1, -.1)], "stage 'all': lr_max must"),
    'no batch': ([Stage('head', .01, .1, -1), TWO[1]],
                 "stage 'head': n_epoch must give at least one batch: an epoch has 10; got 0.01"),
    'wd list': ([TWO[0], Stage('all', 1, .1, wd=[.1, .2])], "stage 'all': wd must"),
    'sched': ([TWO[0], Stage('all', 1, .1, sched='cos')], "stage 'all': sched must be a Cycle"),
    'cbs': ([TWO[0], Stage('all', 1, .1, cbs='save')], "stage 'all': cbs must be Callbacks"),
    'monitor': ([TWO[0], Stage('all', 1, .1, cbs=MORE)],
                (r"stage 'all': monitor of save_model must be recorded, one of \['train_loss', 'valid_loss'\]; "
                 "got 'accuracy'")),
    'two recorders': ([TWO[0], Stage('all', 1, .1, cbs=[GradRecorder(), GradRecorder()])],
                      "stage 'all': learn.cbs must have one"),
    'adam': ([TWO[0], Stage('all', 1, .1, cbs=GradRecorder(adam=True))], "stage 'all': adam must be False"),
}

@pytest.mark.parametrize('made', [False, True], ids=['no optimizer', 'optimizer'])
@pytest.mark.parametrize('method', ['fit_stages', 'preview_stages'])
@pytest.mark.parametrize('stages,says', RUN_BAD.values(), ids=RUN_BAD.keys())
def test_bad_stages_change_nothing(make, stages, says, method, made):
    learn,log = make(),Rows()
    if made:
        learn.freeze_to(-2)
        learn.fit(1, .01)
    tell = lambda: (learn.opt, learn.lr, list(learn.cbs), [p.requires_grad for p in learn.model.parameters()],
                    [dict(h) for h in learn.opt.hypers] if made else None,
                    [sorted(learn.opt.state[p]) for p in learn.model.parameters()] if made else None,
                    sorted(vars(learn)), sorted(vars(learn.recorder)))
    weights,before = [p.clone() for p in learn.model.parameters()],tell()
    with pytest.raises(ValueError, match=says): getattr(learn, method)(stages, cbs=log)
    assert tell()==before and not log.rows and all(torch.equal(a, b) for a,b in zip(weights, learn.model.parameters()))

BAD = {
    'n_epoch': (lambda: Stage('a', -1),
                "stage 'a': n_epoch must be a number of epochs, at least 0 and at most 1,000,000; got -1"),
    'n_epoch text': (lambda: Stage('a', '1'), 'n_epoch must'),
    'n_epoch nan': (lambda: Stage('a', float('nan')), 'n_epoch must'),
    'name': (lambda: Stage('', 1), 'the name of a stage must'),
    'freeze_to': (lambda: Stage('a', 1, freeze_to=[0, 1]), "stage 'a': freeze_to must be the number"),
    'freeze_to bool': (lambda: Stage('a', 1, freeze_to=True), 'freeze_to must'),
    'keep_opt': (lambda: Stage('a', 1, keep_opt=1), 'keep_opt must be True or False'),
    'wd': (lambda: Stage('a', 1, wd=-1), "stage 'a': wd must be at least 0 and at most 1e\\+09, or one such value"),
    'wd text': (lambda: Stage('a', 1, wd=['x']), 'wd must be at least 0'),
    'sched': (lambda: Stage('a', 1, sched=1), "stage 'a': sched must be a Cycle, a name, a list"),
}

@pytest.mark.parametrize('make_bad,says', BAD.values(), ids=BAD.keys())
def test_bad_values_are_named(make_bad, says):
    with pytest.raises(ValueError, match=says): make_bad()

def test_a_stage_that_leaves_nothing_to_train(mlp):
    learn = mlp(splitter=lambda m: [list(m.parameters()), []])
    with pytest.raises(ValueError, match="stage 'head': freeze_to must leave a parameter to train"):
        learn.preview_stages([Stage('head', 1, .1, -1)])

def test_preview_draws_and_says(make):
    ax = plt.subplots()[1]
    plan = make().preview_stages(TWO, ax=ax)
    assert len(ax.lines)>=3 and {'head', 'all'}<={t.get_text() for t in ax.texts} and '<table' in plan._repr_html_()
    s = plan.summary()
    assert (s.stage.tolist()==['head']*3 + ['all']*3 and s.n_train.tolist()==[16, 0, 9, 32, 72, 9]
            and s.n_batch.tolist()==[10]*3 + [20]*3)
    assert_allclose(s.lr_peak, [.1, .1, .1, .001, .01, .1])

def test_the_history_of_a_run_of_stages(make):
    learn = make()
    stages = stages_long(budget=2, base_lr=.05, head_epochs=.5)
    plans = learn.preview_stages(stages)
    learn.fit_stages(stages, cbs=GradRecorder())
    h,df = learn.recorder.history,learn.recorder.history.steps
    assert (h.stages.stage.tolist()==['head', 'all']
            and df.stage.tolist()==['head']*(n := h.fits.n_batches[0]) + ['all']*(len(df)-n))
    for f,plan in enumerate(plans.plans):
        mine = df[df.fit==f]
        for g in range(len(plan.lr_max)):
            np.testing.assert_allclose(mine[f'lr_{g}'], plan.table['lr'][plan.trained[0],g])
        assert mine.phase.tolist()==plan.df.query(f'group=={len(plan.lr_max)-1}').phase.tolist()
    assert df.n_params_0[:n].max() < df.n_params_0[n:].min(), 'of a frozen group only batch normalisation trains'
    ax = learn.recorder.plot_stages()[0]
    assert [t.get_text() for t in ax.texts if t.get_fontweight()=='bold']==['head', 'all']

# found by an attack on the package

class ValidateFirst(Callback):
    "Validates before each epoch, which sets fastai's number of the epoch to 0"
    order,busy = 0,False
    def before_epoch(self):
        if self.busy: return
        self.busy = True
        with self.learn.no_bar(), self.learn.no_logging(): self.learn.validate()
        self.busy = False

@pytest.mark.parametrize('n_epoch', [.5, 1.5, 2.3])
@pytest.mark.parametrize('cbs', [[], [ValidateFirst]], ids=['alone', 'validating'])
def test_a_part_of_an_epoch_is_a_part_whatever_validates_in_between(mlp, n_epoch, cbs, recwarn):
    learn = mlp()
    learn.fit_stages([Stage('a', n_epoch, .01)], cbs=cbs)
    assert len(learn.recorder.history)==round(10*n_epoch)
    assert not [w for w in recwarn if 'training loader' in str(w.message)], 'the loader has the length that it says'

def test_a_lazy_model_is_refused_before_anything_is_trained(mlp):
    "fastai can't freeze or unfreeze parameters that have no size yet"
    learn = mlp(model=nn.Sequential(nn.LazyLinear(4), nn.Linear(4, 1)),
                splitter=lambda m: [list(part.parameters()) for part in m])
    with pytest.raises(ValueError, match='the model must have no lazy parameters'): learn.fine_tune_long(1, .01)
    learn.model(learn.dls.one_batch()[0])
    learn.fine_tune_long(1, .01)

def test_a_sched_of_other_things_is_refused():
    with pytest.raises(ValueError, match='sched must be a Cycle'): Stage('a', 1, .1, sched=[1])
    d = Stage('a', 1, .1, sched={-1: one_cycle()}).to_dict() | {'sched': {'groups': [[[], None]]}}
    with pytest.raises(ValueError, match='the groups of sched must be'): Stage.from_dict(d)

def test_the_plan_of_a_stage_in_which_more_was_trained(mlp):
    learn = mlp(n_trn=5)
    loader = learn.dls.train
    class Longer(type(loader)):
        def __iter__(self):
            for _ in range(2): yield from super().__iter__()
    loader.__class__ = Longer
    with pytest.warns(UserWarning, match='gave another number'): learn.fit_stages([Stage('a', 1.5, .01)])
    assert set(learn.recorder.plans[-1].df.phase)<={'warm-up', 'cool-down', 'annihilation'}
