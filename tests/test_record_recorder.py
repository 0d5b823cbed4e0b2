"The recorder: one row for each batch, whatever else happens in the fit"
import warnings
from functools import partial
import numpy as np, pandas as pd, pytest, torch
from numpy.testing import assert_allclose, assert_array_equal
from pandas.testing import assert_frame_equal
from torch import nn
from fastai.callback.core import (Callback, CancelBatchException, CancelEpochException, CancelFitException,
                                  CancelStepException, CancelTrainException, CancelValidException)
from fastai.callback.progress import CSVLogger
from fastai.callback.schedule import *
from fastai.callback.training import GradientAccumulation, GradientClip
from fastai.data.core import Datasets
from fastai.learner import Metric, load_learner
from fastai.losses import CrossEntropyLossFlat, MSELossFlat
from fastai.metrics import AvgMetric, mse
from fastai.optimizer import Adam, OptimWrapper, SGD
from fastai_clr_ext.schedule import *
from fastai_clr_ext.record import *
from fastai_clr_ext.record.fits import loss_name
from fastai_clr_ext.record.recorder import unique_names
from fastai_clr_ext.train import *
from fastai_clr_ext.plot import *
from conftest import CpuAmp, Raise, Spy, ValidateAt
from record_helpers import *

#: Companion; callbacks; the iterations that must have no step, and why; error that comes out; batches in all
COMPANIONS = {
    'alone': ([], {}, None, 10), 'amp': ([CpuAmp], {}, None, 10),
    'overflow': ([CpuAmp, partial(Overflow, 4)], {4: 'overflow'}, None, 10),
    'accumulation of 2': ([partial(GradientAccumulation, 32)],
                          dict.fromkeys([0, 2, 4, 6, 8], 'accumulation'), None, 10),
    'accumulation of 4': ([partial(GradientAccumulation, 64)],
                          dict.fromkeys([0, 1, 2, 4, 5, 6, 8, 9], 'accumulation'), None, 10),
    'clip': ([partial(GradientClip, .1)], {}, None, 10),
    'clip and accumulation': ([partial(GradientClip, .1), partial(GradientAccumulation, 32)],
                              dict.fromkeys([0, 2, 4, 6, 8], 'accumulation'), None, 10),
    'amp, clip, accumulation, overflow': ([CpuAmp, partial(GradientClip, .1), partial(GradientAccumulation, 32),
                                           partial(Overflow, 5)],
                                          dict.fromkeys([0, 2, 4, 6, 8], 'accumulation') | {5: 'overflow'}, None, 10),
    'ctrl-c in batch 6': ([partial(Raise, 6, KeyboardInterrupt('stop'))], {6: 'interrupted'}, KeyboardInterrupt, 7),
    'error in batch 6': ([partial(Raise, 6, RuntimeError('stop'))], {6: 'interrupted'}, RuntimeError, 7),
    'batch cancelled at once': ([partial(Stop, 'before_batch', 3, CancelBatchException())], {3: 'cancelled'}, None, 10),
    'batch cancelled after the loss': ([partial(Stop, 'after_loss', 3, CancelBatchException())],
                                       {3: 'cancelled'}, None, 10),
    'step cancelled': ([partial(Stop, 'before_step', 3, CancelStepException())], {3: 'cancelled'}, None, 10),
    'fit cancelled': ([partial(Stop, 'after_loss', 3, CancelFitException())], {3: 'interrupted'}, None, 4),
    'training cancelled': ([partial(Stop, 'after_loss', 3, CancelTrainException())], {3: 'interrupted'}, None, 4)}

@pytest.mark.parametrize('recorder', [HistoryRecorder, GradRecorder])
@pytest.mark.parametrize('name', COMPANIONS)
def test_a_row_for_each_batch(mlp, name, recorder):
    make,gaps,error,n = COMPANIONS[name]
    learn,came = mlp(cbs=recorder()),None
    try: learn.fit(1, .01, cbs=[f() for f in make])
    except (KeyboardInterrupt, RuntimeError) as e: came = type(e)
    assert came is error
    df = learn.recorder.history.steps
    assert df.train_iter.tolist()==list(range(n))
    assert {i: why for i,why in zip(df.train_iter, df.skipped) if why}==gaps
    taken = df[df.skipped=='']
    assert taken.step.tolist()==list(range(n-len(gaps))) and df.step[df.skipped!=''].isna().all()
    fit = learn.recorder.history.fits.iloc[0]
    assert (fit.n_batches, fit.n_steps)==(n, n-len(gaps))
    if recorder is GradRecorder:
        grads = learn.recorder.grads
        assert (sorted(grads.train_iter.unique())==sorted(taken.train_iter)
                and df.mean_abs_1.isna().tolist()==[i in gaps for i in range(n)])
        assert_array_equal(taken.norm_0, grads[grads.group==0].norm)

@pytest.mark.parametrize('sign', [1, -1])
def test_losses_are_fastais(mlp, sign):
    learn,losses = mlp(cbs=HistoryRecorder(), lr=1e-4,
                       loss_func=lambda p, t: sign*((p.view(-1)-t.view(-1))**2).mean()),[]
    class Keep(Callback):
        run_valid = False
        def after_loss(self): losses.append(self.learn.loss.item())
    for _ in range(2):
        learn.fit(2, cbs=Keep())
        df = learn.recorder.history.steps.tail(20)
        assert_allclose(df.smooth_loss, learn.recorder.losses, rtol=1e-5)
    assert_array_equal(learn.recorder.history.steps.loss, losses)

def one_cycle_phases(n): return sum(([name]*(hi-lo) for name,lo,hi in one_cycle().spans(n)), [])

@pytest.mark.parametrize('opt_func', [partial(SGD, mom=.9), Adam, partial(OptimWrapper, opt=torch.optim.AdamW)],
                         ids=['sgd', 'adam', 'torch'])
def test_hyper_parameters_and_phases_are_those_trained(mlp, opt_func):
    learn,spy = mlp(opt_func=opt_func),Spy()
    learn.fit_one_cycle_ext(3, slice(.001, .01), cbs=spy)
    df,plan = learn.recorder.history.steps,learn.recorder.plans[-1]
    for g in (0, 1):
        for k in ('lr', 'mom'): assert_array_equal(df[f'{k}_{g}'], [row[g] for row in spy.column(k)])
    assert df.phase.tolist()==plan.df.query('group==1').phase.tolist()
    learn.fit(1)
    assert len(learn.recorder.history)==30, 'a plain fit has no recorder'
    learn.fit_one_cycle_ext(4, .01, start_epoch=2)
    again = learn.recorder.history.steps.iloc[30:]
    assert (again.phase.tolist()==one_cycle_phases(40)[20:] and again.epoch.unique().tolist()==[2, 3]
            and again.train_iter.tolist()==list(range(20)))

@pytest.mark.parametrize('event,what,outcome', [
    ('after_loss', KeyboardInterrupt(), 'unfinished'), ('after_loss', CancelFitException(), 'cancelled'),
    ('after_loss', CancelTrainException(), 'finished'), ('after_loss', CancelEpochException(), 'finished'),
    ('none', None, 'finished')])
def test_outcome(mlp, event, what, outcome):
    learn = mlp(cbs=HistoryRecorder())
    try: learn.fit(1, cbs=Stop(event, 5, what))
    except KeyboardInterrupt: pass
    assert learn.recorder.history.fits.outcome.tolist()==[outcome]
    learn.fit(1)
    assert learn.recorder.history.fits.outcome.tolist()==[outcome, 'finished']

def test_what_begins_a_fit_and_trains_nothing(mlp):
    learn = mlp(cbs=GradRecorder())
    learn.validate(); learn.get_preds()
    assert not len(learn.recorder.history)
    learn.fit(1); before = learn.recorder.history.steps
    learn.lr_find(show_plot=False)
    assert_allclose(learn.recorder.lr_find_history.steps.lr_1[:len(learn.recorder.lrs)],
                    learn.recorder.lrs[:len(learn.recorder.lr_find_history)])
    learn.validate(); learn.get_preds()
    assert_frame_equal(learn.recorder.history.steps, before)
    assert len(learn.recorder.lr_find_history)>10 and learn.recorder.lr_find_history.steps.lr_0.is_monotonic_increasing

class Eval(Callback):
    "Keeps batch normalisation as it is, as people do who fine-tune"
    def before_train(self): self.learn.model.eval()

class Dropout(Callback):
    def before_validate(self): self.learn.model.train()

def test_the_models_own_mode_does_not_matter(mlp):
    learn,spy = mlp(cbs=[GradRecorder(), Eval(), Dropout()]),Spy()
    learn.fit_one_cycle_ext(1, .01, cbs=spy)
    assert_array_equal([g[1]['lr'] for g in spy.rows], one_cycle().table(10, .01)['lr'])
    assert len(learn.recorder.history)==10 and len(learn.recorder.grads)==20
    learn.get_preds(cbs=Dropout())
    assert len(learn.recorder.history.fits)==1

def test_epochs_of_a_cancelled_training(mlp):
    learn = mlp(cbs=HistoryRecorder(), metrics=mse)
    learn.fit(2, cbs=Stop('after_batch', 3, CancelTrainException()))
    e = learn.recorder.history.epochs
    assert np.isnan(e.train_loss[0]) and e.train_loss.notna()[1] and e.valid_loss[0]==pytest.approx(e.mse[0])

def odd(name):
    f = lambda inp, targ: 7.
    f.__name__ = name
    return f

def test_metrics_named_as_columns(mlp, tmp_path):
    names = ['fit', 'stage', 'epoch', 'seconds', 'outcome', 'n_epoch', 'smooth_loss', 'first_fit']
    learn = mlp(cbs=HistoryRecorder(), metrics=[odd(k) for k in names])
    learn.fit(2)
    h = learn.recorder.history
    assert (h.epochs.epoch.tolist()==[0, 1] and (h.epochs[[f'{k}_metric' for k in names]]==7).all(axis=None)
            and h.stages.outcome_metric.tolist()==[7.])
    assert RunHistory.load(h.save(tmp_path/'x.npz')).epochs.equals(h.epochs)

class CancelAtOnce(Callback):
    order = -5
    def before_fit(self): raise CancelFitException

def test_a_fit_that_is_cancelled_at_once(mlp, tmp_path):
    learn = mlp(cbs=[GradRecorder('clipped'), SaveHistory(tmp_path/'x.npz'), CSVLogger(append=True), ForwardHistory()],
                path=tmp_path)
    learn.remove_cb(CSVLogger); learn.fit(1, cbs=CancelAtOnce())
    assert not len(learn.recorder.history)

def test_one_recorder_only(mlp):
    learn = mlp(cbs=[HistoryRecorder(), GradRecorder()])
    with pytest.raises(ValueError, match='have one HistoryRecorder or GradRecorder'): learn.fit_one_cycle_ext(1)
    assert learn.opt is None
    with pytest.raises(ValueError, match='have one HistoryRecorder or GradRecorder'): learn.fit(1)

def test_export_and_load(mlp, tmp_path):
    learn = mlp(cbs=GradRecorder())
    learn.dls = Datasets(range(176), [[to_x], [to_y]],
                         splits=[range(160), range(160, 176)]).dataloaders(bs=16, num_workers=0)
    learn.fit_one_cycle_ext(1, .1)
    learn.path = tmp_path
    learn.export()
    back = load_learner(tmp_path/'export.pkl')
    assert_frame_equal(back.recorder.history.steps, learn.recorder.history.steps)
    assert_frame_equal(back.recorder.grads, learn.recorder.grads)
    assert back.recorder.plans==learn.recorder.plans
    back.dls = learn.dls
    back.fit_one_cycle_ext(1, .1)
    assert len(back.recorder.history)==20 and len(learn.recorder.history)==10
    learn.fit(1)
    assert len(learn.recorder.grads)==40

def test_bad_history(mlp):
    with pytest.raises(ValueError, match='history must be a RunHistory'): mlp().recorder.history = pd.DataFrame()
    with pytest.raises(ValueError, match='SaveHistory must have a HistoryRecorder'):
        mlp().fit(1, cbs=SaveHistory('x.npz'))

class SkipEarly(Callback):
    "Cancels batches before the recorder is asked"
    def __init__(self, which, order=0): self.which,self.order = which,order
    def before_batch(self):
        if self.training and self.train_iter in self.which: raise CancelBatchException

@pytest.mark.parametrize('recorder', [HistoryRecorder, GradRecorder])
@pytest.mark.parametrize('order', [0, 20])
@pytest.mark.parametrize('which', [[0], [3, 4], range(8)], ids=str)
def test_a_batch_that_is_cancelled_before_the_recorder_sees_it(mlp, recorder, order, which):
    learn = mlp(cbs=[recorder(), SkipEarly(which, order)])
    for _ in range(2): learn.fit(1)
    steps = learn.recorder.history.steps
    n = len(learn.dls.train)
    assert len(steps)==2*n and learn.recorder.history.fits.n_batches.tolist()==[n, n]
    assert (steps.skipped=='cancelled').tolist()==[i in which for i in steps.train_iter]
    assert steps.step.notna().sum()==2*(n-len(set(which) & set(range(n))))

def test_a_cancelled_batch_is_no_part_of_an_accumulated_gradient(mlp):
    learn = mlp(cbs=[HistoryRecorder(), GradientAccumulation(48), SkipEarly([1], 20)])
    learn.fit(1)
    assert learn.recorder.history.steps.skipped.tolist()[:4]==['accumulation', 'cancelled', 'accumulation', '']

@pytest.mark.parametrize('kwargs', [{}, dict(train_metrics=True)], ids=str)
def test_an_epoch_whose_validation_is_cancelled(mlp, kwargs):
    "What was not measured is missing; the epoch's time is none of its values"
    class NoValidation(Callback):
        def before_validate(self):
            if self.epoch==0: raise CancelValidException
    learn = mlp(cbs=[HistoryRecorder(), NoValidation()], metrics=mse)
    vars(learn.recorder).update(kwargs)
    learn.fit(2)
    epochs = learn.recorder.history.epochs
    assert epochs.valid_loss.isna().tolist()==[True, False] and epochs.train_loss.notna().all()
    assert 'time' not in epochs and all(isinstance(v, float) for v in epochs.filter(like='mse').to_numpy().ravel())

@pytest.mark.parametrize('what', ['validate', 'get_preds'])
@pytest.mark.parametrize('event,order', [('after_epoch', 0), ('after_epoch', 11), ('after_epoch', 60),
                                         ('before_epoch', 0)])
def test_validation_within_a_fit_leaves_it_one_fit(mlp, tmp_path, event, order, what):
    plain,learn = mlp(cbs=GradRecorder(), metrics=mse),mlp(cbs=GradRecorder(), metrics=mse)
    plain.fit(3)
    learn.fit(3, cbs=[ValidateAt(event, order, what), SaveHistory(tmp_path/'run.npz')])
    h,want = learn.recorder.history,plain.recorder.history
    same = ['fit', 'epoch', 'step', 'skipped', 'loss', 'mean_abs_0', 'norm_1'] # fastai counts `train_iter` anew
    assert_frame_equal(h.steps[same], want.steps[same])
    assert list(h.fits.outcome)==['finished'] and h.fits.n_steps[0]==30
    assert h.grads.epoch.tolist()==want.grads.epoch.tolist()
    same = ['fit', 'epoch', 'valid_loss', 'mse'] # its smoothed loss, too
    assert_frame_equal(h.epochs[same], want.epochs[same])
    assert h.epochs.train_loss[0]==want.epochs.train_loss[0] and h.epochs.train_loss.notna().all()
    assert [p.name for p in tmp_path.iterdir()]==['run.npz'], 'its parts are one file'
    assert_frame_equal(RunHistory.load(tmp_path/'run.npz').steps, h.steps)

def test_validation_within_a_step_ends_nothing(mlp):
    learn = mlp(cbs=[GradRecorder(stats='clipped'), GradientClip(1.)])
    learn.fit(2, cbs=ValidateAt('before_step'))
    assert list(learn.recorder.history.fits.outcome)==['finished']
    learn.fit(1)
    assert learn.recorder.grads.clipped_norm.tail(10).notna().all()

def test_after_an_interrupted_fit_and_a_validation(mlp, tmp_path):
    learn = mlp(cbs=[GradRecorder(stats=('clipped', 'update')), SaveHistory(tmp_path/'run.npz', every=4)])
    with pytest.raises(KeyboardInterrupt): learn.fit(1, cbs=Raise(5, KeyboardInterrupt()))
    learn.validate(); learn.get_preds()
    assert list(learn.recorder.history.fits.outcome)==['unfinished']
    learn.fit(1)
    assert list(learn.recorder.history.fits.outcome)==['unfinished', 'finished']
    assert_frame_equal(RunHistory.load(tmp_path/'run.npz').steps, learn.recorder.history.steps)
    learn.remove_cb(GradRecorder).remove_cb(SaveHistory)
    learn.fit(1)
    assert len(learn.recorder.history)==16 and not [cb for cb in learn.cbs if cb.name=='_after_clip']

@pytest.mark.parametrize('cb,says', [(lambda d: ForwardHistory(), 'have somewhere to send to'),
                                     (lambda d: SaveHistory(d/'other.npz'), 'hold the history of this learner')])
def test_a_refused_fit_leaves_no_row(mlp, tmp_path, cb, says):
    other = mlp(cbs=HistoryRecorder())
    other.fit(1)
    other.recorder.history.save(tmp_path/'other.npz')
    learn = mlp(cbs=GradRecorder())
    with pytest.raises(ValueError, match=says): learn.fit(1, cbs=cb(tmp_path))
    assert not len(learn.recorder.history)
    learn.add_cb(cb(tmp_path)).lr_find(show_plot=False) # which nothing of this is about

def test_metrics_of_one_name(mlp):
    metrics = [AvgMetric(lambda a, b, k=k: torch.tensor(float(k))) for k in range(3)] # all are called `<lambda>`
    learn = mlp(cbs=HistoryRecorder(), metrics=metrics)
    for m in metrics[:1]: m.func.__name__ = 'valid_loss'
    learn.fit(1)
    row = learn.recorder.history.epochs.iloc[0]
    assert [row[k] for k in ('valid_loss_2', '<lambda>', '<lambda>_2')]==[0, 1, 2] and row.valid_loss>0

class PerClass(Metric):
    "A metric with a value for each class, as scikit-learn's with `average=None`"
    def __init__(self, values): self.values = values
    def reset(self): pass
    def accumulate(self, learn): pass
    @property
    def value(self): return self.values
    @property
    def name(self): return 'per_class'

@pytest.mark.parametrize('values', [np.array([.5, .6]), torch.tensor([.5, .6]), np.eye(2), [.5, .6], 'good', {'a': 1}],
                         ids=lambda v: type(v).__name__)
def test_what_is_not_one_number_is_left_out_by_name(mlp, values):
    learn = mlp(metrics=[PerClass(values), mse], cbs=HistoryRecorder())
    with pytest.warns(UserWarning, match='leaves out per_class: not one number') as caught: learn.fit(2)
    assert caught[0].filename==__file__
    history = learn.recorder.history
    assert list(history.epochs)==['fit', 'stage', 'epoch', 'train_loss', 'valid_loss', 'mse']
    assert history.epochs.mse.notna().all(), 'the others are in their own columns'
    assert len(learn.recorder.plot_metrics())==1
    with pytest.raises(ValueError, match="names must be among .*got 'per_class'"):
        learn.recorder.plot_metrics('per_class')

@pytest.mark.parametrize('value', [None, float('nan'), torch.tensor(.5), np.float32(.5), 1])
def test_one_number_of_any_kind_is_kept(mlp, value):
    learn = mlp(metrics=PerClass(value), cbs=HistoryRecorder())
    with warnings.catch_warnings():
        warnings.simplefilter('error', UserWarning)
        learn.fit(1)
    assert 'per_class' in learn.recorder.history.epochs

# found by an attack on the package

class NextRate(Callback):
    "A scheduler as many write it: after the step, for the next one"
    def before_fit(self): self.used = []
    def before_step(self): self.used.append(self.opt.hypers[-1]['lr'])
    def after_step(self): self.opt.set_hyper('lr', .1/(len(self.used)+1))

def test_a_row_has_the_rate_of_its_step_whatever_is_set_behind_it(mlp):
    cb = NextRate()
    learn = mlp(cbs=[HistoryRecorder(), cb])
    learn.fit(1, .1)
    assert cb.used[1]==.05 and learn.recorder.history.steps.lr_1.tolist()==cb.used

@pytest.mark.parametrize('shape', [(1, 1), (1, 1, 1), (1,), ()])
def test_a_loss_of_any_shape_with_one_number(mlp, shape):
    learn = mlp(loss_func=lambda pred, y: ((pred-y)**2).mean().reshape(shape))
    learn.fit_one_cycle_ext(1, .01)
    assert learn.recorder.history.steps.loss.notna().all()

def test_a_loss_of_several_numbers_is_their_mean(mlp):
    "As fastai's own `Recorder` has it, where a callback makes the number that is derived"
    class Mean(Callback):
        def after_loss(self): self.learn.loss_grad = self.learn.loss_grad.mean()
    learn = mlp(loss_func=lambda pred, y: (pred-y)**2)
    learn.fit_one_cycle_ext(1, .01, cbs=Mean())
    theirs = [float(loss) for loss in learn.recorder.losses]
    assert learn.recorder.history.steps.smooth_loss.tolist()==pytest.approx(theirs, rel=1e-5)

def test_no_metric_takes_the_name_of_a_column(mlp):
    learn = mlp(cbs=HistoryRecorder())
    learn.fit(1)
    h = learn.recorder.history
    for column in {*h.stages.columns, *h.epochs.columns} - {'train_loss', 'valid_loss'}:
        assert unique_names([column])!=[column]

def test_epochs_that_fastai_skips_have_no_row(mlp):
    learn = mlp(cbs=HistoryRecorder())
    learn.fit(3, start_epoch=2)
    assert learn.recorder.history.epochs.epoch.tolist()==[2]

def test_an_epoch_that_is_cancelled_at_its_start_has_no_row(mlp):
    class CancelSecond(Callback):
        def before_epoch(self):
            if self.epoch==1: raise CancelEpochException
    learn = mlp(cbs=HistoryRecorder())
    learn.fit(3, cbs=CancelSecond())
    assert learn.recorder.history.epochs.epoch.tolist()==[0, 2] and len(learn.recorder.history)==20

def test_a_recorder_outside_a_fit_keeps_nothing():
    recorder = HistoryRecorder()
    assert recorder.state_dict()=={}
    recorder.load_state_dict({})
    assert recorder.now is None

class FitWithin(Callback):
    "Trains the learner within its own fit"
    def __init__(self, event): setattr(self, event, self.train); self.is_done = False
    def train(self):
        if self.is_done: return
        self.is_done = True
        self.learn.fit(1, .01)

@pytest.mark.parametrize('event', ['before_epoch', 'after_epoch', 'before_batch'])
@pytest.mark.parametrize('fit', [
    lambda learn, cb: learn.fit_one_cycle_ext(3, .1, cbs=cb),
    lambda learn, cb: learn.fit(3, .1, cbs=[HistoryRecorder(), cb])], ids=['cycle', 'plain'])
def test_a_fit_within_a_fit_is_refused(mlp, event, fit):
    learn = mlp()
    with pytest.raises(ValueError, match='must not call fit within a fit of the same learner'):
        fit(learn, FitWithin(event))
    learn.fit_one_cycle_ext(1, .01)
    assert len(learn.recorder.history.fits.query("outcome=='finished'"))==1

def test_another_learner_may_be_trained_within_a_fit(mlp):
    other = mlp()
    class TrainOther(Callback):
        def before_epoch(self): other.fit_one_cycle_ext(1, .01)
    learn = mlp()
    learn.fit_one_cycle_ext(2, .01, cbs=TrainOther())
    assert len(learn.recorder.history)==20==len(other.recorder.history)

class AddGroup(Callback):
    "Adds a parameter group while training"
    def before_batch(self):
        if not self.training or self.train_iter!=3: return
        self.learn.model.extra = nn.Parameter(torch.ones(3))
        self.learn.opt.opt.add_param_group(dict(params=[self.learn.model.extra], lr=.5))

class UseGroup(Callback):
    def after_loss(self):
        if self.training and hasattr(self.learn.model, 'extra'):
            self.learn.loss_grad = self.learn.loss_grad + self.learn.model.extra.sum()

def test_a_group_that_is_added_while_training_is_recorded(mlp):
    learn = mlp(opt_func=partial(OptimWrapper, opt=torch.optim.SGD), splitter=lambda m: [list(m.parameters())],
                cbs=[GradRecorder(), AddGroup(), UseGroup()])
    learn.fit(1, .01)
    steps = learn.recorder.history.steps
    assert steps.lr_1.isna().tolist()==[True]*3+[False]*7 and (steps.lr_1[3:]==.5).all()
    assert steps.mean_abs_1.isna().tolist()==[True]*3+[False]*7 and (steps.mean_abs_1[3:]==1).all()
    assert learn.recorder.history.fit_rows[0]['group_sizes']==[sum(p.numel() for p in learn.opt.param_lists[0]), 3]

def test_a_cycle_refuses_a_group_that_is_added_while_training(mlp):
    learn = mlp(opt_func=partial(OptimWrapper, opt=partial(torch.optim.SGD, momentum=.9)),
                splitter=lambda m: [list(m.parameters())])
    with pytest.raises(ValueError, match='must keep its 1 parameter groups while a cycle'):
        learn.fit_one_cycle_ext(1, .1, cbs=AddGroup())
    assert len(learn.recorder.plans[0].trained[0])==3, 'what was trained before is kept'

def test_a_lazy_model_has_its_sizes(mlp):
    learn = mlp(model=nn.Sequential(nn.LazyLinear(4), nn.LazyLinear(1)), splitter=lambda m: [list(m.parameters())])
    learn.fit_one_cycle_ext(1, .01)
    row = learn.recorder.history.fit_rows[0]
    assert (row['n_params'], row['n_trainable'], row['group_sizes'])==(13, 13, [13])

def test_the_last_epoch_of_a_stage_is_its_last_also_if_it_is_nan(mlp):
    class Spoil(Callback):
        def before_epoch(self):
            if self.epoch!=1: return
            with torch.no_grad(): self.learn.model[0].weight.fill_(float('nan'))
    learn = mlp(metrics=mse)
    learn.fit_one_cycle_ext(2, .01, cbs=Spoil())
    last = learn.recorder.history.stages.iloc[-1]
    assert last[['train_loss', 'valid_loss', 'mse']].isna().all()
    summary = learn.recorder.summary()
    assert np.isnan(summary.value['gap after'])
    axs = learn.recorder.plot_metrics()
    assert [line.get_xdata().tolist() for line in axs[0].lines if line.get_label()=='not finite']==[[19]]

class CtrlC(Callback):
    order = 500
    def after_batch(self):
        if self.training and self.train_iter==5: raise KeyboardInterrupt

@pytest.mark.parametrize('kind', [HistoryRecorder, GradRecorder])
def test_a_recorder_of_an_interrupted_fit_serves_a_new_learner(mlp, kind):
    cb,first = kind(),mlp()
    with pytest.raises(KeyboardInterrupt): first.fit_one_cycle_ext(1, .01, cbs=[cb, CtrlC()])
    learn = mlp()
    learn.fit_one_cycle_ext(1, .01, cbs=cb)
    assert len(first.recorder.history)==5 and len(learn.recorder.history)==10

@pytest.mark.parametrize('event,order', [('before_validate', 0), ('after_validate', 60), ('before_epoch', 0),
                                         ('after_epoch', 0)])
def test_metrics_of_an_epoch_in_which_a_callback_validates(mlp, event, order):
    "The validation of the epoch is the one that is recorded, not that on the training set"
    class LookAtTraining(Callback):
        busy = False
        def look(self):
            if self.busy: return
            self.busy = True
            with self.learn.no_bar(), self.learn.no_logging(): self.learn.validate(ds_idx=0)
            self.busy = False
    LookAtTraining.order = order
    setattr(LookAtTraining, event, LookAtTraining.look)
    look = LookAtTraining()
    class Truth(Callback):
        "Adds up the losses of the epochs' own validations"
        order = 100
        def before_train(self): self.sums = []
        def after_batch(self):
            if not self.training and not look.busy: self.sums.append((float(self.loss)*len(self.x), len(self.x)))
        def after_validate(self):
            if not look.busy: self.means = getattr(self, 'means', []) + [np.divide(*np.sum(self.sums, axis=0))]
    truth = Truth()
    learn = mlp(metrics=mse)
    learn.fit_one_cycle_ext(2, .01, cbs=[look, truth])
    epochs = learn.recorder.history.epochs
    assert_allclose(epochs.valid_loss, truth.means, rtol=1e-5)
    assert_allclose(epochs.mse, truth.means, rtol=1e-5)
    assert epochs.train_loss.notna().all()

def test_losses_have_names(mlp):
    def mine(pred, y): return ((pred-y)**2).mean()
    for loss,name in ((MSELossFlat(), 'MSELoss'), (CrossEntropyLossFlat(), 'CrossEntropyLossFlat'), (mine, 'mine'),
                      (nn.L1Loss(), 'L1Loss')):
        assert loss_name(loss)==name

class Forwards(Callback):
    "Gives another callback's events on, as wrappers do"
    order,run_valid = 5,False
    def __init__(self, f): self.f = f
    def __getattr__(self, name):
        if name=='after_step': return object.__getattribute__(self, 'f')
        return super().__getattr__(name)

class AddsAnother(Callback):
    "Adds a callback in the middle of a fit"
    run_valid = False
    def __init__(self, cb): self.cb = cb
    def before_batch(self):
        if self.learn.train_iter==2: self.learn.add_cb(self.cb)

def by_keyword(f):
    cb = Callback(after_step=f)
    cb.order = 5
    return cb

@pytest.mark.parametrize('make_cb', [by_keyword, Forwards, lambda f: AddsAnother(by_keyword(f))],
                         ids=['by keyword', 'a wrapper', 'in the middle'])
def test_a_step_counts_whoever_raises_behind_it(mlp, make_cb):
    learn = mlp(cbs=GradRecorder('update'))
    def fails(*_):
        if learn.train_iter==3: raise RuntimeError('behind the step')
    with pytest.raises(RuntimeError, match='behind the step'): learn.fit(1, cbs=make_cb(fails))
    steps = learn.recorder.history.steps
    assert steps.skipped.tolist()==['']*4 and len(learn.recorder.grads)==2*4
    assert learn.recorder.grads.update_norm.notna().all()
