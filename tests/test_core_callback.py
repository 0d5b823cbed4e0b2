"Base classes of callbacks: which events they answer, what an error says, and what a validation leaves alone"
import copy, pickle, warnings
from types import SimpleNamespace
import pytest, torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from fastai.callback.core import Callback, CancelFitException
from fastai.callback.progress import CSVLogger
from fastai.callback.schedule import *
from fastai.learner import Recorder
from fastai.optimizer import Adam
from fastai_clr_ext.core.callback import (CANCELS, EventCallback, FitCallback, check_only_one, check_recorder,
                                          is_lr_find, unwrap_model)
from fastai_clr_ext.record import *
from fastai_clr_ext.train import *
from fastai_clr_ext.plot import *
from conftest import Raise, ValidateAt

# EventCallback

class Failing(EventCallback):
    answers = {'before_batch'}
    def __init__(self, error): self.error = error
    def before_batch(self): raise self.error

class MyError(Exception): pass

@pytest.mark.parametrize('error,says', [
    (ValueError('rate'), 'rate'), (MyError('mine', 2), 'mine'), (KeyError('key'), 'key'), (RuntimeError(), ''),
    (ZeroDivisionError('division'), 'division')], ids=lambda o: type(o).__name__ if isinstance(o, Exception) else '')
def test_an_error_names_the_callback_and_the_event(mlp, error, says):
    with pytest.raises(type(error)) as e: mlp().fit(1, cbs=Failing(error))
    assert e.value is error
    assert e.value.args[0]==f'Exception occurred in `Failing` when calling event `before_batch`:\n\t{says}'

@pytest.mark.parametrize('kind', [*CANCELS, KeyboardInterrupt, SystemExit], ids=lambda e: e.__name__)
def test_what_cancels_or_interrupts_passes_unchanged(kind):
    error = kind('as it was')
    cb = Failing(error)
    cb.learn = SimpleNamespace(training=True)
    with pytest.raises(kind) as e: cb('before_batch')
    assert e.value is error and e.value.args==('as it was',)

def test_all_of_fastais_cancellations_are_known():
    import fastai.callback.core as core
    theirs = {v for k,v in vars(core).items() if k.startswith('Cancel') and k.endswith('Exception')}
    assert set(CANCELS)==theirs and len(CANCELS)==7

class Calls(EventCallback):
    "Answers some events, and has methods for others"
    answers = {'before_fit', 'before_batch', 'after_epoch', 'after_fit'}
    def __init__(self): self.calls = []
    def before_fit(self): self.calls.append('before_fit')
    def before_batch(self): self.calls.append(f'batch {self.learn.training}')
    def after_epoch(self): self.calls.append('after_epoch')
    def after_fit(self): self.calls.append('after_fit')
    def after_batch(self): self.calls.append('not in answers')
    def before_epoch(self): self.calls.append('not in answers')

def test_only_answers_are_called_and_the_batch_loop_only_in_training(mlp):
    cb = Calls()
    mlp(n_trn=3).fit(2, cbs=cb)
    epoch = ['batch True']*3 + ['after_epoch']
    assert cb.calls==['before_fit', *epoch, *epoch, 'after_fit']

def test_nothing_is_looked_up_for_other_events():
    asked = []
    class Watched(Calls):
        def __getattribute__(self, name):
            asked.append(name)
            return super().__getattribute__(name)
    cb = Watched()
    asked.clear()
    cb('after_pred')
    assert not set(asked) & {'after_pred', 'run', 'learn'}

def test_run_is_reset_after_the_fit(mlp):
    class Once(Calls):
        def before_batch(self):
            super().before_batch()
            self.run = False
    cb = Once()
    learn = mlp(n_trn=3)
    learn.fit(2, cbs=cb)
    assert cb.calls==['before_fit', 'batch True'] and cb.run, 'it is quiet to the end of the fit, and no longer'
    learn.fit(1, cbs=cb)
    assert cb.calls.count('batch True')==2

# FitCallback

class Counting(FitCallback):
    "Counts the batches of each fit"
    answers = {'before_fit', 'before_batch', 'after_fit'}
    def __init__(self): self.counts = []
    def before_batch(self):
        if self.now is None: self.now = []
        self.now.append(self.learn.train_iter)
    def after_fit(self): self.counts.append(self.ended())

@pytest.mark.parametrize('what', ['validate', 'get_preds'])
@pytest.mark.parametrize('event,order', [('after_epoch', -20), ('after_epoch', 60), ('before_epoch', 0),
                                         ('after_train', 0)])
def test_a_validation_within_the_fit_leaves_now(mlp, event, order, what):
    cb = Counting()
    learn = mlp(n_trn=3)
    learn.fit(2, cbs=[cb, ValidateAt(event, order, what)])
    fits = [rows for rows in cb.counts if rows is not None]
    assert len(fits)==1 and len(fits[0])==6 and cb.now is None and cb.outer is None
    learn.validate()
    assert cb.counts[-1] is fits[0], 'the callback has left the learner'

def test_a_validation_of_its_own_ends_nothing(mlp):
    learn = mlp(n_trn=3, cbs=Counting())
    learn.validate()
    assert learn.counting.counts==[None]
    learn.fit(1)
    assert len(learn.counting.counts[-1])==3

def test_after_an_interrupted_fit_the_next_begins_anew(mlp):
    learn = mlp(n_trn=4, cbs=Counting())
    with pytest.raises(KeyboardInterrupt): learn.fit(1, cbs=Raise(2, KeyboardInterrupt()))
    learn.validate()
    learn.fit(1)
    assert learn.counting.counts[-1]==[0, 1, 2, 3] and learn.counting.now is None and learn.counting.outer is None

def test_the_state_of_a_fit_is_not_pickled():
    cb = Counting()
    cb.now,cb.outer,cb.kept = [1],[2],3
    for back in (pickle.loads(pickle.dumps(cb)), copy.deepcopy(cb)):
        assert (back.now, back.outer, back.kept)==(None, None, 3)

# helpers

def test_the_finder_is_seen_whatever_the_model_has(mlp):
    seen = []
    class See(Callback):
        def before_batch(self): seen.append(is_lr_find(self.learn))
    learn = mlp(cbs=See())
    learn.model.lr_finder = True
    learn.fit(1)
    assert not any(seen) and not is_lr_find(learn)
    seen.clear()
    learn.lr_find(show_plot=False)
    assert seen and all(seen) and not is_lr_find(learn)

class WithModule(nn.Module):
    "A model whose own submodule is called `module`"
    def __init__(self):
        super().__init__()
        self.module = nn.Linear(1, 1)

def test_wrappers_are_taken_off(tmp_path):
    model = WithModule()
    assert unwrap_model(model) is model
    assert unwrap_model(nn.DataParallel(model)) is model
    assert unwrap_model(torch.compile(model)) is model
    assert unwrap_model(torch.compile(nn.DataParallel(torch.compile(model)))) is model
    torch.distributed.init_process_group('gloo', init_method=f'file://{tmp_path/"store"}', rank=0, world_size=1)
    try: assert unwrap_model(DistributedDataParallel(model)) is model
    finally: torch.distributed.destroy_process_group()

def test_checks_of_the_learners_callbacks(mlp):
    learn = mlp()
    check_recorder(learn, 'Mine')
    learn.remove_cb(Recorder)
    learn.model.recorder = 'of the model'
    with pytest.raises(ValueError, match="Mine must have fastai's Recorder in the learner, which draws; got"):
        check_recorder(learn, 'Mine', 'draws')
    check_only_one(Calls, [Calls(), Recorder], 'Calls')
    check_only_one(EventCallback, [Calls], 'EventCallback')
    for cbs,got in (([], r'\[\]'), ([Calls(), Calls], r"\['Calls', 'Calls'\]")):
        with pytest.raises(ValueError, match=f'learn.cbs must have one Calls, or it is counted twice; got {got}'):
            check_only_one(Calls, cbs, 'Calls', 'it is counted twice')

# fastai warns when a callback sets an attribute that the model has

#: What parts of models may be called, and callbacks of ours called something once
NAMES = ('params', 'units', 'trend', 'tables', 'kept', 'columns', 'sets', 'pending', 'plan', 'path', 'handle',
         'row', 'rows', 'cycle', 'table', 'state', 'steps', 'stage', 'epoch_rows', 'begun', 'grad', 'where', 'stats',
         'weights', 'memory', 'targets', 'next_time', 'n_step', 'ids', 'best', 'last', 'found', 'phases', 'skip')

def named_like_our_state():
    "A network with an attribute of each name"
    class Named(nn.Sequential): pass
    for name in NAMES: setattr(Named, name, 'of the model')
    return Named(nn.Linear(1, 8), nn.ReLU(), nn.Linear(8, 1))

CALLBACKS = {
    'GradRecorder': lambda path: GradRecorder(stats=STATS, adam=True),
    'HistoryRecorder': lambda path: HistoryRecorder(),
    'SaveHistory': lambda path: [HistoryRecorder(), SaveHistory(path/'run.npz', every=3)],
    'DivergenceGuard': lambda path: DivergenceGuard(every=3),
    'rewinding': lambda path: DivergenceGuard(on='rewind', every=3, keep_every=2),
    'ForwardHistory': lambda path: [HistoryRecorder(), CSVLogger(path/'log.csv'), ForwardHistory(3)],
    'ShowCycle': lambda path: [HistoryRecorder(), ShowCycle()]}

class CancelLast(Callback):
    def after_batch(self):
        if self.training and self.train_iter==15: raise CancelFitException

@pytest.mark.parametrize('name', [*CALLBACKS, 'fit_one_cycle_ext', 'fit_stages'])
def test_no_attribute_of_the_model_is_shadowed(mlp, tmp_path, name):
    learn = mlp(model=named_like_our_state(), opt_func=Adam, path=tmp_path)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        if name=='fit_one_cycle_ext': learn.fit_one_cycle_ext(2)
        elif name=='fit_stages': learn.fit_stages([Stage('a', .5, freeze_to=-1), Stage('b', 1.5)])
        else:
            learn.add_cbs(CALLBACKS[name](tmp_path))
            validate = [] if name=='ForwardHistory' else [ValidateAt('after_epoch')] # CSVLogger does not survive it
            learn.fit(2, cbs=[CancelLast(), *validate])
            learn.lr_find(show_plot=False)
            learn.fit(1)
    shadowed = [str(w.message) for w in caught if 'shadowing' in str(w.message)]
    assert not shadowed, shadowed

def test_a_callback_that_is_taken_out_during_an_event(mlp):
    class TakesOut(Callback):
        order = -100
        def after_epoch(self): self.learn.remove_cb(GradRecorder)
    learn = mlp(cbs=[GradRecorder(), TakesOut()])
    learn.fit(2)
    assert len(learn.recorder.history)==10 and not any(isinstance(cb, GradRecorder) for cb in learn.cbs)
