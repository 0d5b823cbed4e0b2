import copy, json, os, pickle, shutil, subprocess, sys, warnings
from functools import partial
from pathlib import Path
import numpy as np, pandas as pd, pytest, torch
from hypothesis import given, settings, strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose, assert_array_equal
from pandas.testing import assert_frame_equal
from fastai.callback.core import (Callback, CancelBatchException, CancelEpochException, CancelFitException,
                                  CancelStepException, CancelTrainException, CancelValidException)
from fastai.callback.progress import CSVLogger
from fastai.callback.schedule import *
from fastai.callback.training import GradientAccumulation, GradientClip
from fastai.data.core import Datasets
from fastai.learner import load_learner
from fastai.metrics import AvgMetric, mse
from fastai.optimizer import Adam, OptimWrapper, SGD
from fastai_clr_ext.record import *
from fastai_clr_ext.record import *
from fastai_clr_ext.record.log import pack, unpack
from fastai_clr_ext.train import *
from fastai_clr_ext.record import *
from fastai_clr_ext.schedule import *
from conftest import Raise, Spy, ValidateAt, make_mlp
from test_record_gradients import CpuAmp, Overflow, to_x, to_y

@settings(max_examples=200, deadline=None)
@given(arrays(np.float64, st.tuples(st.integers(1, 8), st.integers(0, 5)), elements=st.floats(allow_subnormal=False)))
def test_packing_loses_nothing(a): assert_array_equal(unpack(*pack(a)), a)

@settings(max_examples=100, deadline=None)
@given(arrays(np.int64, st.tuples(st.integers(1, 8), st.integers(0, 5))))
def test_packing_whole_numbers_loses_nothing(a): assert_array_equal(unpack(*pack(a)), a)

class Stop(Callback):
    "Raises at one event of one training batch"
    order,run_valid = 2000,False
    def __init__(self, event, at, what): self.event,self.at,self.what = event,at,what
    def __call__(self, name):
        if name==self.event and self.learn.training and self.learn.train_iter==self.at:
            self.at = None # once: fastai counts the next batch by the same number
            raise self.what

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

def one_cycle_phases(n): return sum(([name]*(hi-lo) for name,lo,hi in one_cycle().spans(n)), [])

def test_epochs_and_stages(mlp):
    learn = mlp(metrics=mse, cbs=HistoryRecorder())
    for name,n in (('head', 1), ('body', 2), ('body', 1), (None, 1)):
        if name: learn.stage = type('Stage', (), {'name': name})
        learn.fit(n)
        if name: del learn.stage
    h = learn.recorder.history
    assert h.epochs.columns.tolist()==['fit', 'stage', 'epoch', 'train_loss', 'valid_loss', 'mse']
    assert h.epochs.iloc[-1].tolist()[3:]==list(learn.recorder.values[-1]) and h.epochs.fit.tolist()==[0, 1, 1, 2, 3]
    s = h.stages
    assert (s.stage.tolist()==['head', 'body', ''] and s.n_batches.tolist()==[10, 30, 10]
            and s.first_fit.tolist()==[0, 1, 3] and s.last_fit.tolist()==[0, 2, 3])
    assert s.mse.tolist()==[h.epochs.mse[i] for i in (0, 3, 4)]
    assert h.steps.stage.tolist()==['head']*10 + ['body']*30 + ['']*10

@pytest.mark.parametrize('event,what,outcome', [
    ('after_loss', KeyboardInterrupt(), 'unfinished'), ('after_loss', CancelFitException(), 'cancelled'),
    ('after_loss', CancelTrainException(), 'finished'), ('after_loss', CancelEpochException(), 'finished'),
    ('none', None, 'finished')])
def test_outcome(mlp, event, what, outcome):
    learn = mlp(cbs=HistoryRecorder())
    try: learn.fit(1, cbs=Stop(event, 5, what))
    except KeyboardInterrupt as e: pass
    assert learn.recorder.history.fits.outcome.tolist()==[outcome]
    learn.fit(1)
    assert learn.recorder.history.fits.outcome.tolist()==[outcome, 'finished']

def test_what_begins_a_fit_and_trains_nothing(mlp):
    learn = mlp(cbs=GradRecorder())
    learn.validate(); learn.get_preds()
    with pytest.raises(ValueError, match='No training is recorded'): learn.recorder.history
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

@pytest.mark.parametrize('event', ['after_pred', 'after_loss', 'before_step'])
def test_an_interrupted_batch_has_no_gradient_of_the_next(mlp, event):
    "fastai counts the next batch by the same number"
    learn = mlp(cbs=GradRecorder())
    learn.fit(2, cbs=Stop(event, 3, CancelTrainException()))
    df = learn.recorder.history.steps
    assert (df.train_iter.tolist()[2:5]==[2, 3, 3]
            and df.mean_abs_0.isna().tolist()==[False]*3 + [True] + [False]*(len(df)-4))
    assert df.epoch.tolist()[2:5]==[0, 0, 1]

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

def test_stages_count_epochs_that_were_trained(mlp):
    learn = mlp(cbs=HistoryRecorder())
    learn.fit_one_cycle_ext(5, .01, start_epoch=3)
    learn.fit(4, cbs=Stop('after_loss', 15, CancelFitException()))
    assert (learn.recorder.history.stages.n_epoch.tolist()==[2, 1]
            and learn.recorder.history.fits.n_epoch.tolist()==[5, 4])

@pytest.mark.parametrize('name', ['run[lr=0.1].npz', 'a b*?.npz', 'größe', 'x.npz.part1'])
def test_odd_file_names(mlp, tmp_path, name):
    learn = mlp(n_trn=20, cbs=[GradRecorder(), SaveHistory(tmp_path/name, every=6)])
    with pytest.raises(KeyboardInterrupt): learn.fit(1, cbs=Raise(19, KeyboardInterrupt()))
    assert len(RunHistory.load(tmp_path/name))==18 and len(list(tmp_path.iterdir()))==3
    learn.fit(1)
    assert [p.name for p in tmp_path.iterdir()]==[name] and len(RunHistory.load(tmp_path/name))==40

def test_copies_do_not_overwrite_each_other(mlp, tmp_path):
    learn = mlp(cbs=[HistoryRecorder(), SaveHistory(tmp_path/'x.npz')])
    learn.fit(1)
    twin = copy.deepcopy(learn)
    learn.fit(1)
    with pytest.raises(ValueError, match='path must be new, or hold the history of this learner'): twin.fit(1)
    twin.remove_cb(SaveHistory); twin.fit(3); twin.add_cb(SaveHistory(tmp_path/'x.npz'))
    with pytest.raises(ValueError, match='path must be new, or hold the history of this learner'):
        twin.fit(1) # longer, but of other fits
    old = mlp(cbs=[HistoryRecorder(), SaveHistory(tmp_path/'x.npz')])
    old.recorder.history = RunHistory.load(tmp_path/'x.npz').tail(10)
    with pytest.raises(ValueError, match='path must be new, or hold the history of this learner'):
        old.fit_one_cycle_ext(1)
    assert len(RunHistory.load(tmp_path/'x.npz'))==20

def test_a_later_fit_writes_only_what_is_new(mlp, tmp_path):
    learn = mlp(cbs=[HistoryRecorder(), SaveHistory(tmp_path/'x.npz', every=5)])
    learn.fit(3)
    with pytest.raises(KeyboardInterrupt): learn.fit(1, cbs=Raise(7, KeyboardInterrupt()))
    with np.load(tmp_path/'x.npz.part0') as f: assert json.loads(str(f['meta']))['since']==[30, 0]
    assert len(RunHistory.load(tmp_path/'x.npz'))==35

def test_saving_minds_nothing_where_nothing_is_trained(mlp, tmp_path):
    learn = mlp(cbs=HistoryRecorder())
    learn.fit(1)
    learn.recorder.history.save(tmp_path/'x.npz')
    other = mlp(cbs=[HistoryRecorder(), SaveHistory(tmp_path/'x.npz')])
    other.validate(); other.get_preds(); other.lr_find(show_plot=False)
    with pytest.raises(ValueError, match='path must be new'): other.fit(1)

def test_a_folder_that_is_gone_does_not_end_the_training(mlp, tmp_path):
    (tmp_path/'s').mkdir()
    learn = mlp(cbs=[HistoryRecorder(), SaveHistory(tmp_path/'s'/'x.npz', every=4)])
    shutil.rmtree(tmp_path/'s')
    with pytest.warns(UserWarning, match='could not be written: No such file'): learn.fit(1)
    assert learn.recorder.history.fits.outcome.tolist()==['finished']

class CancelAtOnce(Callback):
    order = -5
    def before_fit(self): raise CancelFitException

def test_a_fit_that_is_cancelled_at_once(mlp, tmp_path):
    learn = mlp(cbs=[GradRecorder('clipped'), SaveHistory(tmp_path/'x.npz'), CSVLogger(append=True), ForwardHistory()],
                path=tmp_path)
    learn.remove_cb(CSVLogger); learn.fit(1, cbs=CancelAtOnce())
    with pytest.raises(ValueError, match='No training is recorded'): learn.recorder.history

def test_array_metrics_survive_a_file(mlp, tmp_path):
    learn = mlp(cbs=HistoryRecorder(), metrics=AvgMetric(lambda i, t: torch.tensor(2.)))
    learn.fit(1)
    h = learn.recorder.history
    h.epoch_rows[0]['several'] = np.array([1, 2])
    assert RunHistory.load(h.save(tmp_path/'x.npz')).epochs.several[0]==[1, 2]

@pytest.fixture(scope='module')
def saved(tmp_path_factory):
    "The bytes of a file and its rows"
    learn,path = make_mlp(cbs=GradRecorder()),tmp_path_factory.mktemp('saved')/'x.npz'
    learn.fit(1)
    return learn.recorder.history.save(path).read_bytes(),learn.recorder.history.steps

@pytest.mark.parametrize('seed', range(60))
def test_damaged_bytes_are_refused_or_harmless(saved, tmp_path, seed):
    rng,data = np.random.default_rng(seed),bytearray(saved[0])
    for i in rng.integers(0, len(data), 3): data[i] ^= int(rng.integers(1, 256))
    (tmp_path/'y.npz').write_bytes(data)
    try: back = RunHistory.load(tmp_path/'y.npz')
    except ValueError as e: assert 'y.npz' in str(e)
    else: assert_frame_equal(back.steps, saved[1])

def test_one_recorder_only(mlp):
    learn = mlp(cbs=[HistoryRecorder(), GradRecorder()])
    with pytest.raises(ValueError, match='have one HistoryRecorder or GradRecorder'): learn.fit_one_cycle_ext(1)
    assert learn.opt is None
    with pytest.raises(ValueError, match='have one HistoryRecorder or GradRecorder'): learn.fit(1)

@pytest.mark.parametrize('kind', ['alone', 'grads', 'layers', 'adam'])
def test_save_and_load(mlp, tmp_path, kind):
    learn = mlp(cbs=dict(alone=HistoryRecorder(), grads=GradRecorder(('max', 'hist')),
                         layers=GradRecorder(per='param', every=3), adam=GradRecorder(adam=True))[kind],
                opt_func=Adam, metrics=mse)
    learn.fit_one_cycle_ext(2, .1)
    learn.freeze(); learn.fit(1, .01, cbs=CpuAmp()); learn.unfreeze()
    with pytest.raises(KeyboardInterrupt):
        learn.fit_one_cycle_ext(1, .1, sched=constant(), cbs=Raise(3, KeyboardInterrupt()))
    h = learn.recorder.history
    assert h.save(tmp_path/'run.npz')==tmp_path/'run.npz'
    back = RunHistory.load(tmp_path/'run.npz')
    for name in ('steps', 'epochs', 'fits', 'stages'): assert_frame_equal(getattr(back, name), getattr(h, name))
    if kind!='alone': assert_frame_equal(back.grads, h.grads)
    if kind=='grads': assert_frame_equal(back.grad_quantiles(), h.grad_quantiles())
    assert [p.name for p in tmp_path.iterdir()]==['run.npz']
    learn.recorder.history = back
    learn.fit_one_cycle_ext(1, .1)
    assert (learn.recorder.history.fits.outcome.tolist()==['finished', 'finished', 'unfinished', 'finished']
            and len(h)==34)

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

def test_a_callable_annealer_is_kept_as_text(mlp, tmp_path):
    learn = mlp()
    learn.fit_one_cycle_ext(1, .1, anneal=lambda start, end, pos: start + (end-start)*pos)
    learn.recorder.history.save(tmp_path/'run.npz')
    assert 'Cycle(' in RunHistory.load(tmp_path/'run.npz').fits.sched[0]

KILLED = '''
import sys, os, warnings
warnings.simplefilter('ignore')
sys.path.insert(0, sys.argv[2])
from test_record_gradients import *
from fastai.test_utils import synth_learner
class Kill(Callback):
    def before_batch(self):
        if self.training and self.learn.train_iter==27: os.kill(os.getpid(), 9)
learn = synth_learner(n_trn=40, cbs=[GradRecorder(), SaveHistory(sys.argv[1], every=5), Kill()])
learn.fit(1)
'''

def test_a_kill_loses_at_most_every(tmp_path, mlp):
    r = subprocess.run([sys.executable, '-c', KILLED, str(tmp_path/'run.npz'), str(Path(__file__).parent)],
                       capture_output=True)
    assert r.returncode==-9, r.stderr.decode()[-2000:]
    back = RunHistory.load(tmp_path/'run.npz')
    assert len(back)==25 and len(back.grads)==25 and back.fits.outcome.tolist()==['unfinished']
    learn = mlp(cbs=[GradRecorder(), SaveHistory(tmp_path/'run.npz', every=5)])
    with pytest.raises(ValueError, match='path must be new, or hold the history of this learner'):
        learn.fit_one_cycle_ext(1)
    learn.recorder.history = back
    learn.fit_one_cycle_ext(1)
    assert [p.name for p in tmp_path.iterdir()]==['run.npz']
    assert RunHistory.load(tmp_path/'run.npz').steps.fit.tolist()==[0]*25 + [1]*10

def test_parts_hold_only_what_is_new(mlp, tmp_path):
    learn = mlp(n_trn=40, cbs=[GradRecorder(), SaveHistory(tmp_path/'run.npz', every=10)])
    with pytest.raises(KeyboardInterrupt): learn.fit(1, cbs=Raise(39, KeyboardInterrupt()))
    assert sorted(p.name for p in tmp_path.iterdir())==['run.npz.part0', 'run.npz.part1', 'run.npz.part2']
    for i in range(3):
        with np.load(tmp_path/f'run.npz.part{i}') as f:
            assert len(f['batch_log.0.0.2'])==10 and json.loads(str(f['meta']))['since']==[10*i, 10*i]
    assert len(RunHistory.load(tmp_path/'run.npz'))==30
    (tmp_path/'run.npz.part1').unlink()
    with pytest.raises(ValueError, match='follow the part before it, which is missing; '
                                         'got .first row 20, after 10 rows'): RunHistory.load(tmp_path/'run.npz')

def test_a_kill_between_one_file_and_its_parts_being_removed(mlp, tmp_path, monkeypatch):
    learn = mlp(cbs=[GradRecorder(), SaveHistory(tmp_path/'run.npz', every=4)])
    monkeypatch.setattr(Path, 'unlink', lambda self, missing_ok=False: None)
    learn.fit(1)
    assert len(list(tmp_path.iterdir()))==4
    loaded = RunHistory.load(tmp_path/'run.npz')
    for name in ('steps', 'epochs', 'fits', 'grads'):
        assert_frame_equal(getattr(loaded, name), getattr(learn.recorder.history, name))
    assert list(loaded.fits.outcome)==['finished']
    with pytest.raises(KeyboardInterrupt): learn.fit(1, cbs=Raise(5, KeyboardInterrupt())) # its parts add rows
    assert len(RunHistory.load(tmp_path/'run.npz'))==14
    learn.fit(1) # and are left, too
    assert list(RunHistory.load(tmp_path/'run.npz').fits.outcome)==['finished', 'unfinished', 'finished']

def test_a_full_disk_does_not_end_the_training(mlp, tmp_path, monkeypatch):
    learn = mlp(cbs=[GradRecorder(), SaveHistory(tmp_path/'run.npz', every=4)])
    def full(*args, **kwargs): raise OSError(28, 'No space left on device')
    monkeypatch.setattr(np, 'savez', full)
    with pytest.warns(UserWarning, match='the history could not be written: No space left on device.*run.npz'):
        learn.fit(1)
    assert len(learn.recorder.history)==10 and not list(tmp_path.iterdir())
    with pytest.raises(OSError, match='No space left'): learn.recorder.history.save(tmp_path/'run.npz')
    monkeypatch.undo()
    learn.fit(1)
    assert len(RunHistory.load(tmp_path/'run.npz'))==20

def npz(path, **arrays): np.savez(path, **arrays); return path.with_suffix('.npz')

def damage(path, **changes):
    "The file with some arrays or fields of its text replaced"
    with np.load(path) as f: arrays = {k: f[k] for k in f.files}
    meta = json.loads(str(arrays['meta'])) | {k: v for k,v in changes.items() if not hasattr(v, 'shape')}
    return npz(path, **arrays | {k: v for k,v in changes.items() if hasattr(v, 'shape')}
                       | {'meta': np.array(json.dumps(meta))})

BAD_FILES = {
    'truncated': (lambda p: p.write_bytes(p.read_bytes()[:len(p.read_bytes())//2]),
                  'whole and without pickled objects.*run.npz'),
    'empty': (lambda p: p.write_bytes(b''), 'whole and without'),
    'text': (lambda p: p.write_text('hello'), 'whole and without'),
    'a pickle': (lambda p: p.write_bytes(pickle.dumps({'meta': 1})), 'whole and without pickled objects'),
    'pickled objects inside': (lambda p: damage(p, **{'batch_log.0.0.0': np.array([{}], dtype=object)}),
                               'without pickled objects'),
    'newer': (lambda p: damage(p, format=99), 'be at most 1: a newer fastai_clr_ext wrote it; got 99'),
    'newer and unreadable': (lambda p: damage(p, format=99, names='?'), 'be at most 1: a newer'),
    'another npz': (lambda p: npz(p, x=np.ones(3)), 'whole and without'),
    'where is not whole numbers': (lambda p: damage(p, **{'batch_log.0.0.0': np.full(6, np.nan)}),
                                   'columns that do not belong together'),
    'rows of unknown fits': (lambda p: damage(p, fits=[], epochs=[]), 'rows of unknown fits'),
    'columns of other lengths': (lambda p: damage(p, **{'batch_log.0.1.2': np.zeros((3, 0))}),
                                 'columns that do not belong together'),
    'missing': (lambda p: p.unlink(), 'path must be a history file that exists'),
    'no fits': (lambda p: damage(p, fits=None), 'whole and without'),
    'rows below 0': (lambda p: damage(p, since=[-1, 0]), 'since are no counts'),
    'epochs of unknown fits': (lambda p: damage(p, epochs=[dict(fit=7, epoch=0)]), 'epochs are of unknown fits'),
    'unknown reasons': (lambda p: damage(p, **{'batch_log.0.0.0': np.array([0, 0, 0, 0, 0, 77])}), 'unknown reasons')}

@pytest.mark.parametrize('kind', BAD_FILES)
def test_bad_files(mlp, tmp_path, kind):
    learn,(make,says) = mlp(cbs=GradRecorder()),BAD_FILES[kind]
    learn.fit(1)
    learn.recorder.history.save(tmp_path/'run.npz')
    make(tmp_path/'run.npz')
    with pytest.raises(ValueError, match=says): RunHistory.load(tmp_path/'run.npz')

def test_nan_in_a_file_is_a_gap(mlp, tmp_path):
    learn = mlp(cbs=GradRecorder())
    learn.fit(1)
    p = learn.recorder.history.save(tmp_path/'run.npz')
    damage(p, **{'batch_log.0.2.0': np.array([np.nan]), 'batch_log.0.2.1': np.array([-1]),
                 'batch_log.0.2.2': np.zeros((10, 0))})
    df = RunHistory.load(p).steps
    assert df.loss.isna().all() and df.smooth_loss.isna().all() and df.norm_0.notna().all()

def test_parts_of_another_history(mlp, tmp_path):
    for name in 'ab':
        learn = mlp(cbs=HistoryRecorder())
        learn.fit(1)
        learn.recorder.history.save(tmp_path/f'{name}.npz')
    (tmp_path/'b.npz').rename(tmp_path/'a.npz.part0')
    with pytest.raises(ValueError, match='go on with the fits of the part before it'): RunHistory.load(tmp_path/'a.npz')

BAD = [(lambda d: RunHistory(0), 'block_size must'),
       (lambda d: SaveHistory(d/'x.npz', every=0), 'every must be a whole number of batches'),
       (lambda d: SaveHistory(d/'no'/'x.npz'), 'path must be a file in a folder that exists'),
       (lambda d: SaveHistory(d), 'path must be a file in'),
       (lambda d: SaveHistory(3), 'path must be a file name; got 3'),
       (lambda d: RunHistory().steps, 'No training is recorded'),
       (lambda d: RunHistory().stages, 'No training is recorded'),
       (lambda d: RunHistory().grads, 'No gradients are recorded'),
       (lambda d: RunHistory.load(None), 'path must be a file name; got None'),
       (lambda d: RunHistory.load(d/'no.npz'), 'path must be a history file that exists')]

@pytest.mark.parametrize('i', range(len(BAD)))
def test_bad_input(tmp_path, i):
    with pytest.raises(ValueError, match=BAD[i][1]): BAD[i][0](tmp_path)

def test_bad_history(mlp):
    with pytest.raises(ValueError, match='history must be a RunHistory'): mlp().recorder.history = pd.DataFrame()
    with pytest.raises(ValueError, match='SaveHistory must have a HistoryRecorder'):
        mlp().fit(1, cbs=SaveHistory('x.npz'))

def a_million(monkeypatch, n, n_groups=3):
    "A history with n steps, its rows written as a fit would, without a network"
    h,cpu = RunHistory(),torch.device('cpu')
    h.fit_rows.append(dict(id='x', stage='', n_iter=1000, phases=[], n_steps=n))
    hypers = [[k, g] for g in range(n_groups) for k in ('wd', 'sqr_mom', 'lr', 'mom', 'eps')]
    a,b = (cpu, (1,), dict(hypers=hypers)),(cpu, (n_groups, 2), dict(units=[['', g] for g in range(n_groups)],
                                                                     columns=['total', 'norm']))
    noise = torch.randn(64, n_groups, 2)
    for i in range(n):
        lr = .1+i*1e-7
        h.batch_log.add([0, i//1000, i%1000, i, i, 0],
                        [v for g in range(n_groups) for v in (.01, .99, lr/(g+1), .9+i*1e-8, 1e-5)],
                        a).copy_(noise[i%64,0,0])
        h.grad_log.add([0, i, i, i//1000], [10]*n_groups, b, is_open=True).copy_(noise[i%64])
        h.grad_log.close()
    return h

def test_memory_of_a_million_steps_of_three_groups(monkeypatch):
    "At most 100 MB on the host with Adam's five hyper-parameters in each group; the device's block doesn't grow"
    h = a_million(monkeypatch, 8*1024)
    size = sum(sys.getsizeof(a) for log in (h.batch_log, h.grad_log) for b in log.blocks for packed in b[:-1]
               for a in packed)/(7*1024)*1e6
    assert size < 100e6 and h.grad_log.values.shape==(1024, 3, 2)

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

def test_files_of_a_like_name_are_other_files(mlp, tmp_path):
    "`wd0.1` is no part of `wd0`"
    kept = {}
    for name in ('wd0', 'wd0.1', 'wd0.2'):
        learn = mlp(cbs=HistoryRecorder())
        learn.fit(1)
        kept[name] = learn.recorder.history.save(tmp_path/name).read_bytes()
    learn.recorder.history.save(tmp_path/'wd0')
    assert (tmp_path/'wd0.1').read_bytes()==kept['wd0.1'] and len(RunHistory.load(tmp_path/'wd0').fits)==1

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

@pytest.mark.parametrize('cb,says', [(lambda d: ForwardHistory(), 'have one of'),
                                     (lambda d: SaveHistory(d/'other.npz'), 'hold the history of this learner')])
def test_a_refused_fit_leaves_no_row(mlp, tmp_path, cb, says):
    other = mlp(cbs=HistoryRecorder())
    other.fit(1)
    other.recorder.history.save(tmp_path/'other.npz')
    learn = mlp(cbs=GradRecorder())
    with pytest.raises(ValueError, match=says): learn.fit(1, cbs=cb(tmp_path))
    assert 'run_history' not in vars(learn.recorder)
    learn.add_cb(cb(tmp_path)).lr_find(show_plot=False) # which nothing of this is about

def test_metrics_of_one_name(mlp):
    metrics = [AvgMetric(lambda a, b, k=k: torch.tensor(float(k))) for k in range(3)] # all are called `<lambda>`
    learn = mlp(cbs=HistoryRecorder(), metrics=metrics)
    for m in metrics[:1]: m.func.__name__ = 'valid_loss'
    learn.fit(1)
    row = learn.recorder.history.epochs.iloc[0]
    assert [row[k] for k in ('valid_loss_2', '<lambda>', '<lambda>_2')]==[0, 1, 2] and row.valid_loss>0

def test_a_metric_that_no_file_can_hold_does_not_end_the_training(mlp, tmp_path):
    learn = mlp(metrics=AvgMetric(lambda a, b: 1.), cbs=[HistoryRecorder(), SaveHistory(tmp_path/'run.npz')])
    class Odd(Callback):
        order = HistoryRecorder.order+.05
        def after_epoch(self):
            endless = []
            endless.append(endless)
            self.learn.recorder.history.epoch_rows[-1]['odd'] = endless
    with pytest.warns(UserWarning, match='the training goes on'): learn.fit(1, cbs=Odd())
    assert list(learn.recorder.history.fits.outcome)==['finished']

def test_a_path_must_be_a_file(mlp, tmp_path):
    learn = mlp(cbs=HistoryRecorder())
    learn.fit(1)
    os.mkfifo(tmp_path/'pipe')
    (tmp_path/'loop').symlink_to(tmp_path/'loop')
    (tmp_path/'run.npz.part0').mkdir() # no part of anything
    for name in ('pipe', 'loop', 'nul\0', 'x'*300):
        for f in (learn.recorder.history.save, SaveHistory):
            with pytest.raises(ValueError, match='path must be a file'): f(tmp_path/name)
    with pytest.raises(ValueError, match='path must be a'): RunHistory.load(tmp_path/'loop')
    assert (tmp_path/'pipe').is_fifo()
    learn.recorder.history.save(tmp_path/'run.npz')
    assert len(RunHistory.load(tmp_path/'run.npz'))==10

def of_first(k, f):
    "A file whose text differs in the first of a list"
    def change(p):
        with np.load(p) as arrays: meta = json.loads(str(arrays['meta']))
        damage(p, **{k: [f(o) if i==0 else o for i,o in enumerate(meta[k])]})
    return change

def other_names(log, k, f):
    def change(p):
        with np.load(p) as arrays: names = json.loads(str(arrays['meta']))['names']
        names[log][0][k] = f(names[log][0][k])
        damage(p, names=names)
    return change

BAD_TEXT = {
    'a fit with nothing but its id': of_first('fits', lambda o: {'id': o['id']}),
    'phases that are none': of_first('fits', lambda o: o | {'phases': [[1]]}),
    'an epoch without number': of_first('epochs', lambda o: {'fit': 0}),
    'a column less': other_names('grad_log', 'columns', lambda o: o[:-1]),
    'another column': other_names('grad_log', 'columns', lambda o: ['x', *o[1:]]),
    'a unit that is none': other_names('grad_log', 'units', lambda o: [3, *o[1:]]),
    'a rate that is none': other_names('batch_log', 'hypers', lambda o: ['lr', *o[1:]]),
    'more rows than there are': lambda p: damage(p, rows=[99, 99]),
    'one log': lambda p: damage(p, since=[0]),
    'texts for numbers': lambda p: damage(p, **{'batch_log.0.2.2': np.full((10, 1), 'x')})}

@pytest.mark.parametrize('kind', BAD_TEXT)
def test_files_whose_text_is_wrong(mlp, tmp_path, kind):
    learn = mlp(cbs=GradRecorder(adam=True), opt_func=Adam)
    learn.fit(1)
    p = learn.recorder.history.save(tmp_path/'run.npz')
    BAD_TEXT[kind](p)
    with pytest.raises(ValueError, match='path must be a history file.*run.npz'): RunHistory.load(p)

def interrupt_at(n:int):
    "Ctrl-C before the `n`-th line of `Log`"
    seen = 0
    def line(frame, event, arg):
        nonlocal seen
        if event=='line':
            seen += 1
            if seen==n: raise KeyboardInterrupt
        return line
    return lambda frame, event, arg: line if frame.f_code.co_filename.endswith('log.py') and \
        frame.f_code.co_name in ('add', 'undo', 'close', '_begin', 'all_blocks') else None

def test_no_line_of_the_log_is_a_bad_place_for_ctrl_c(mlp, tmp_path):
    plain = mlp(n_trn=3, cbs=GradRecorder())
    plain.fit(1)
    want,n,stopped = plain.recorder.history.steps,0,True
    while stopped:
        n,stopped = n+1,False
        learn = mlp(n_trn=3, cbs=[GradRecorder(), SaveHistory(tmp_path/f'{n}.npz', every=1)])
        learn.recorder.history = RunHistory(block_size=2)
        sys.settrace(interrupt_at(n))
        try: learn.fit(1)
        except KeyboardInterrupt: stopped = True
        finally: sys.settrace(None)
        learn.fit(1)
        h = RunHistory.load(tmp_path/f'{n}.npz')
        assert_frame_equal(h.steps, learn.recorder.history.steps)
        first = h.steps.query('fit==0 and skipped==""')
        assert_frame_equal(first[['step', 'loss', 'norm_1']], want[['step', 'loss', 'norm_1']].iloc[:len(first)])
        assert len(h.steps.query(f'fit=={len(h.fits)-1} and skipped==""'))==3
    assert n>40, 'many places were tried'

def test_ratios_to_weights_of_0(mlp):
    learn = mlp(cbs=GradRecorder('weight', per='param'))
    for m in learn.model[::2]: torch.nn.init.zeros_(m.bias)
    learn.fit(1)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        df = learn.recorder.grads
        learn.recorder.history.steps
    assert np.isinf(df[(df.layer=='0.bias') & (df.step==0)].grad_weight).all()

def test_what_a_kill_left_half_written_is_removed(mlp, tmp_path):
    mine = ['.run.npz.0123abcd', '.run.npz.part2.0123abcd']
    others = ['.run.npz2.0123abcd', '.run.npz.part2', '.run.npz.x']
    for name in mine+others: (tmp_path/name).write_text('half')
    mlp(cbs=[HistoryRecorder(), SaveHistory(tmp_path/'run.npz')]).fit(1)
    assert sorted(p.name for p in tmp_path.iterdir())==sorted([*others, 'run.npz'])

def test_a_file_of_a_newer_version_is_not_overwritten(mlp, tmp_path):
    learn = mlp(cbs=[HistoryRecorder(), SaveHistory(tmp_path/'run.npz')])
    learn.fit(1)
    for version,says in [(2, 'be at most 1: a newer fastai_clr_ext wrote it; got 2'), (True, 'format is no number')]:
        damage(tmp_path/'run.npz', format=version)
        before = (tmp_path/'run.npz').read_bytes()
        with pytest.raises(ValueError, match=says): learn.fit(1)
        assert (tmp_path/'run.npz').read_bytes()==before and len(learn.recorder.history)==10
