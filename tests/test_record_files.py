"Files of histories: whole, checked field by field, and at most `every` batches behind"
import copy, json, os, pickle, shutil, subprocess, sys
from pathlib import Path
from types import SimpleNamespace
import numpy as np, pytest, torch
from pandas.testing import assert_frame_equal
from fastai.callback.core import Callback
from fastai.callback.schedule import *
from fastai.metrics import AvgMetric, mse
from fastai.optimizer import Adam
from fastai_clr_ext.schedule import *
from fastai_clr_ext.record import *
from fastai_clr_ext.record.files import Written, holds_beginning
from fastai_clr_ext.train import *
from conftest import CpuAmp, Raise, make_mlp

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

def test_a_history_with_fewer_rows_of_one_kind_does_not_replace_a_file(mlp, tmp_path):
    learn = mlp(cbs=GradRecorder())
    learn.fit(1)
    learn.recorder.history.save(tmp_path/'x.npz') # 10 batches, 10 rows of gradients
    learn.fit(1)
    learn.recorder.history = learn.recorder.history.tail(0, 15) # 20 batches, 5 rows of gradients
    learn.add_cb(SaveHistory(tmp_path/'x.npz'))
    with pytest.raises(ValueError, match='path must be new, or hold the history of this learner'): learn.fit(1)

@pytest.mark.parametrize('in_files,rows,fits,known,is_resumed,expected', [
    ('', (0, 0), None, None, False, True), ('a', (1, 0), None, None, False, False),
    ('a', (5, 2), 'a', (5, 2), False, True), ('a', (5, 2), 'ab', (9, 2), False, True),
    ('a', (6, 2), 'a', (5, 2), False, False), ('a', (5, 3), 'a', (5, 2), False, False),
    ('ab', (5, 2), 'a', (9, 9), False, False), ('b', (5, 2), 'a', (5, 2), False, False),
    ('a', (6, 2), 'a', (5, 2), True, True), ('ab', (9, 2), 'a', (5, 2), True, True),
    ('b', (1, 0), 'a', (5, 2), True, False)])
def test_which_files_hold_the_beginning_of_a_history(in_files, rows, fits, known, is_resumed, expected):
    "A letter is a fit; files may be ahead only of a history that was resumed"
    written = Written([dict(id=letter) for letter in in_files], 0, rows, [])
    history = None if fits is None else SimpleNamespace(
        fit_rows=[dict(id=letter) for letter in fits], is_resumed=is_resumed, batch_log=range(known[0]),
        grad_log=range(known[1]))
    assert holds_beginning(written, history)==expected

def test_saving_makes_one_file_of_all_parts(mlp, tmp_path):
    path,learn = tmp_path/'run.npz',mlp(cbs=GradRecorder())
    with pytest.raises(KeyboardInterrupt):
        learn.fit(1, cbs=[SaveHistory(path, every=2), Raise(7, KeyboardInterrupt())])
    assert len(list(tmp_path.iterdir()))>1
    learn.recorder.history.save(path)
    assert [p.name for p in tmp_path.iterdir()]==['run.npz'] and len(RunHistory.load(path))==8

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

def test_a_callable_annealer_is_kept_as_text(mlp, tmp_path):
    learn = mlp()
    learn.fit_one_cycle_ext(1, .1, anneal=lambda start, end, pos: start + (end-start)*pos)
    learn.recorder.history.save(tmp_path/'run.npz')
    assert 'Cycle(' in RunHistory.load(tmp_path/'run.npz').fits.sched[0]

KILLED = '''
import sys, os, warnings
warnings.simplefilter('ignore')
from fastai.callback.core import Callback
from fastai.test_utils import synth_learner
from fastai_clr_ext.record import *
class Kill(Callback):
    def before_batch(self):
        if self.training and self.learn.train_iter==27: os.kill(os.getpid(), 9)
learn = synth_learner(n_trn=40, cbs=[GradRecorder(), SaveHistory(sys.argv[1], every=5), Kill()])
learn.fit(1)
'''

def test_a_kill_loses_at_most_every(tmp_path, mlp):
    r = subprocess.run([sys.executable, '-c', KILLED, str(tmp_path/'run.npz')], capture_output=True)
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
    'rows of unknown fits': (lambda p: damage(p, fits=[], epochs=[]), r'fit must be at least 0 and below 0; got \[0\]'),
    'columns of other lengths': (lambda p: damage(p, **{'batch_log.0.1.2': np.zeros((3, 0))}),
                                 'columns that do not belong together'),
    'missing': (lambda p: p.unlink(), 'path must be a history file that exists'),
    'no fits': (lambda p: damage(p, fits=None), 'whole and without'),
    'rows below 0': (lambda p: damage(p, since=[-1, 0]), r'since must be a count for each of .*; got \[-1, 0\]'),
    'epochs of unknown fits': (lambda p: damage(p, epochs=[dict(fit=7, epoch=0)]),
                               "fit must be the number of one of the file's 1 fits; got 7"),
    'unknown reasons': (lambda p: damage(p, **{'batch_log.0.0.0': np.array([0, 0, 0, 0, 0, 77])}),
                        r'skipped must be at least 0 and below 5; got \[77\]')}

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

BAD = {
    'every': (lambda d: SaveHistory(d/'x.npz', every=0), 'every must be a whole number of batches'),
    'no folder': (lambda d: SaveHistory(d/'no'/'x.npz'), 'path must be a file in a folder that exists'),
    'a folder': (lambda d: SaveHistory(d), 'path must be a file in'),
    'a number': (lambda d: SaveHistory(3), 'path must be a path; got 3'),
    'load nothing': (lambda d: RunHistory.load(None), 'path must be a file name; got None'),
    'load no file': (lambda d: RunHistory.load(d/'no.npz'), 'path must be a history file that exists'),
}

@pytest.mark.parametrize('call,says', BAD.values(), ids=BAD.keys())
def test_bad_input(tmp_path, call, says):
    with pytest.raises(ValueError, match=says): call(tmp_path)

def test_files_of_a_like_name_are_other_files(mlp, tmp_path):
    "`wd0.1` is no part of `wd0`"
    kept = {}
    for name in ('wd0', 'wd0.1', 'wd0.2'):
        learn = mlp(cbs=HistoryRecorder())
        learn.fit(1)
        kept[name] = learn.recorder.history.save(tmp_path/name).read_bytes()
    learn.recorder.history.save(tmp_path/'wd0', overwrite=True)
    assert (tmp_path/'wd0.1').read_bytes()==kept['wd0.1'] and len(RunHistory.load(tmp_path/'wd0').fits)==1

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

def test_what_a_kill_left_half_written_is_removed(mlp, tmp_path):
    mine = ['.run.npz.0123abcd', '.run.npz.part2.0123abcd']
    others = ['.run.npz2.0123abcd', '.run.npz.part2', '.run.npz.x']
    for name in mine+others: (tmp_path/name).write_text('half')
    mlp(cbs=[HistoryRecorder(), SaveHistory(tmp_path/'run.npz')]).fit(1)
    assert sorted(p.name for p in tmp_path.iterdir())==sorted([*others, 'run.npz'])

def test_a_file_of_a_newer_version_is_not_overwritten(mlp, tmp_path):
    learn = mlp(cbs=[HistoryRecorder(), SaveHistory(tmp_path/'run.npz')])
    learn.fit(1)
    for version,says in [(2, 'be at most 1: a newer fastai_clr_ext wrote it; got 2'),
                         (True, 'format must be a whole number above 0; got True')]:
        damage(tmp_path/'run.npz', format=version)
        before = (tmp_path/'run.npz').read_bytes()
        with pytest.raises(ValueError, match=says): learn.fit(1)
        assert (tmp_path/'run.npz').read_bytes()==before and len(learn.recorder.history)==10

def test_cycles_with_more_phases_than_batches_can_be_saved_and_loaded(mlp, tmp_path):
    "Each of 40 fits of one batch had 900 phases in its row: 4.7 million characters, which no reader takes"
    learn = mlp(n_trn=1)
    cycle = one_cycle().repeat(300)
    for _ in range(40):
        with pytest.warns(UserWarning, match='Phases without a batch'): learn.fit_one_cycle_ext(1, 1e-3, sched=cycle)
    back = RunHistory.load(learn.recorder.history.save(tmp_path/'x.npz'))
    assert len(back.fits)==40 and back.fits.sched[0]=='900 phases, batches: 1'
    assert all(len(row['phases'])==1 for row in back.fit_rows)

def test_what_no_reader_takes_is_not_written(mlp, tmp_path):
    learn = mlp()
    learn.fit_one_cycle_ext(1, .01)
    learn.recorder.history.fit_rows[0]['sched'] = 'x'*3_000_000
    with pytest.raises(ValueError, match='must be a text of at most 2,020,000 characters'):
        learn.recorder.history.save(tmp_path/'x.npz')
    assert not list(tmp_path.iterdir())
