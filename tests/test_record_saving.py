"Saving while training: a second writer, files that are removed, thousands of parts, and what may be replaced"
import json, subprocess, sys
import numpy as np, pytest
from pandas.testing import assert_frame_equal
from fastai.callback.core import Callback
from fastai_clr_ext.record import *
from fastai_clr_ext.record import saving
from conftest import Raise

class At(Callback):
    "Calls a function after some training batches"
    order = SaveHistory.order+1
    def __init__(self, calls): self.calls = calls
    def after_batch(self):
        if self.training: self.calls.get(self.learn.train_iter-1, lambda: None)()

def fit_and(mlp, path, calls, every=2, n=10, **kwargs):
    "A history of one fit; `calls` are made when batches have ended"
    learn = mlp(n_trn=n, cbs=[GradRecorder(), SaveHistory(path, every=every, **kwargs), At(calls)])
    learn.fit(1)
    return learn.recorder.history

def all_histories(folder):
    "The ids of the fits in every history that a folder holds, and their rows"
    names = {p.name.partition('.part')[0] for p in folder.iterdir()}
    histories = [RunHistory.load(folder/name) for name in names]
    return {h.fit_rows[-1]['id']: len(h) for h in histories}

# ---- two writers

@pytest.mark.parametrize('at', [0, 1, 4, 8, 9])
def test_a_second_writer_in_the_middle_loses_nothing(mlp, tmp_path, at):
    "The second begins after some batches of the first and ends before it"
    path,second = tmp_path/'run.npz',[]
    def begin():
        try: second.append(fit_and(mlp, path, {}))
        except ValueError as e: second.append(str(e))
    if at<1: # nothing is written yet: the first to write a second time moves
        moved = 'another process writes to .*run.npz: this history goes on in .*run-2.npz'
        with pytest.warns(UserWarning, match=moved):
            first = fit_and(mlp, path, {at: begin})
        assert all_histories(tmp_path)=={h.fit_rows[-1]['id']: 10 for h in (first, *second)}
    else:
        first = fit_and(mlp, path, {at: begin})
        assert 'path must be new, or hold the history of this learner' in second[0], 'before its first batch'
        assert all_histories(tmp_path)=={first.fit_rows[-1]['id']: 10}

def test_a_kill_behind_a_move_loses_at_most_every(mlp, tmp_path):
    "The parts beside the new name are found again"
    path = tmp_path/'run.npz'
    learn = mlp(cbs=[GradRecorder(), SaveHistory(path, every=2), At({0: lambda: fit_and(mlp, path, {})})])
    with pytest.warns(UserWarning, match='goes on in .*run-2.npz'), pytest.raises(KeyboardInterrupt):
        learn.fit(1, cbs=Raise(7, KeyboardInterrupt()))
    assert len(RunHistory.load(tmp_path/'run-2.npz'))==6 and len(RunHistory.load(path))==10

def test_both_go_on_with_the_same_history(mlp, tmp_path):
    path = tmp_path/'run.npz'
    fit_and(mlp, path, {})
    learns = [mlp(cbs=[GradRecorder(), SaveHistory(path, every=2)]) for _ in range(2)]
    for learn in learns: learn.recorder.history = RunHistory.load(path)
    with pytest.warns(UserWarning, match='another process writes to'):
        learns[0].fit(1, cbs=At({0: lambda: learns[1].fit(1)}))
    assert all_histories(tmp_path)=={learn.recorder.history.fit_rows[-1]['id']: 20 for learn in learns}
    learns[0].fit(1) # goes on where it went, without a word
    assert len(RunHistory.load(tmp_path/'run-2.npz'))==30

@pytest.mark.parametrize('what', ['save', 'overwrite'])
def test_a_file_that_appears_is_not_replaced(mlp, tmp_path, what):
    "Whether by `history.save`, or by a second fit that may overwrite"
    path,others = tmp_path/'run.npz',[]
    def appear():
        other = mlp(cbs=HistoryRecorder())
        if what=='overwrite': other.add_cb(SaveHistory(path, overwrite=True))
        other.fit(1)
        if what=='save': other.recorder.history.save(path, overwrite=True)
        others.append(other.recorder.history)
    with pytest.warns(UserWarning, match='another process writes to'): first = fit_and(mlp, path, {5: appear})
    assert all_histories(tmp_path)=={h.fit_rows[-1]['id']: 10 for h in (first, *others)}

RACE = '''
import sys, time, warnings
warnings.simplefilter('ignore')
from pathlib import Path
from fastai.callback.core import Callback
from fastai.test_utils import synth_learner
from fastai_clr_ext.record import *
class Wait(Callback):
    order = SaveHistory.order+1
    def before_batch(self):
        if self.training and self.learn.train_iter==0:
            Path(sys.argv[2]).touch()
            while not all(Path(p).exists() for p in sys.argv[2:]): time.sleep(.001)
learn = synth_learner(n_trn=50, cbs=[GradRecorder(), SaveHistory(sys.argv[1], every=1), Wait()])
with learn.no_bar(), learn.no_logging(): learn.fit(2)
print(learn.recorder.history.fit_rows[-1]['id'])
'''

def test_processes_that_begin_at_once_lose_nothing(tmp_path):
    (tmp_path/'runs').mkdir()
    flags = [str(tmp_path/f'{i}') for i in range(3)]
    def start(i):
        return subprocess.Popen([sys.executable, '-c', RACE, str(tmp_path/'runs'/'x.npz'), flags[i], *flags],
                                stdout=subprocess.PIPE, text=True)
    processes = [start(i) for i in range(3)]
    ids = [p.communicate()[0].strip() for p in processes]
    assert all_histories(tmp_path/'runs')==dict.fromkeys(ids, 100)
    assert len(list((tmp_path/'runs').iterdir()))==3

# ---- files that are removed

@pytest.mark.parametrize('kill', [True, False])
@pytest.mark.parametrize('name', ['run.npz', 'run.npz.part0', 'run.npz.part2', '*.part[01]', '*.part*', '*'])
def test_a_file_that_is_removed_is_written_again(mlp, tmp_path, name, kill):
    path = tmp_path/'run.npz'
    learn = mlp(cbs=[GradRecorder(), SaveHistory(path, every=2)])
    learn.fit(1)
    def remove():
        for p in tmp_path.glob(name): p.unlink()
    def die():
        if kill: raise KeyboardInterrupt
    learn.add_cb(At({7: remove, 9: die}))
    try: learn.fit(1)
    except KeyboardInterrupt: assert kill
    back = RunHistory.load(path)
    assert_frame_equal(back.steps, learn.recorder.history.steps)
    assert len(back)==20 and len(back.grads)==len(learn.recorder.history.grads)

# ---- many parts

class Counted(SaveHistory):
    "Counts the function calls of each writing, which unlike its time don't depend on the machine"
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.counts = []
    def after_batch(self):
        self.counts.append(0)
        def count(frame, event, arg): self.counts[-1] += event in ('call', 'c_call')
        sys.setprofile(count)
        try: super().after_batch()
        finally: sys.setprofile(None)

def test_the_two_thousandth_part_costs_what_the_first_did(mlp, tmp_path):
    learn = mlp(n_trn=2000, cbs=[GradRecorder(), counted := Counted(tmp_path/'x.npz', every=1)])
    learn.fit(1)
    early,late = [np.median(counted.counts[i:i+64]) for i in (64, 1936)]
    assert 300<early and late<1.3*early, 'it was 10 times as much, and grew with the parts'

def test_parts_are_as_many_as_the_digits_of_their_number():
    "In base 32: after 1057 = 1*1024 + 1*32 + 1 writings there are three files"
    parts = []
    for n in range(1, 3000):
        n_merged,weight = saving.count_merged(parts)
        parts = [*parts[:len(parts)-n_merged], saving.Part(None, None, weight)]
        expected = [1024]*(n//1024) + [32]*(n//32%32) + [1]*(n%32)
        assert [part.weight for part in parts]==expected

def test_parts_are_put_together(mlp, tmp_path):
    "1,100 parts of one row leave 34 + 2 files, and a kill between writing and removing is harmless"
    learn = mlp(n_trn=1100, cbs=[GradRecorder(), SaveHistory(tmp_path/'x.npz', every=1)])
    def die(): raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt): learn.fit(1, cbs=At({1098: die}))
    weights = [1024] + [32]*2 + [1]*11
    assert len(list(tmp_path.iterdir()))==len(weights) and sum(weights)==1099
    back = RunHistory.load(tmp_path/'x.npz')
    assert_frame_equal(back.steps, learn.recorder.history.steps)
    assert back.fit_rows==learn.recorder.history.fit_rows

@pytest.mark.parametrize('n_kept', range(0, 32, 6))
def test_a_kill_while_parts_are_put_together(mlp, tmp_path, monkeypatch, n_kept):
    def remove_some(parts):
        for path in list(reversed(parts))[:len(parts)-n_kept]: path.unlink()
    monkeypatch.setattr(saving, 'remove_parts', remove_some)
    learn = mlp(n_trn=40, cbs=[GradRecorder(), SaveHistory(tmp_path/'x.npz', every=1)])
    with pytest.raises(KeyboardInterrupt): learn.fit(1, cbs=Raise(35, KeyboardInterrupt()))
    assert len(RunHistory.load(tmp_path/'x.npz'))==35

def test_a_part_holds_no_fit_or_epoch_that_is_in_files(mlp, tmp_path):
    "So that it does not grow with the number of fits"
    learn = mlp(n_trn=4, cbs=[HistoryRecorder(), SaveHistory(tmp_path/'x.npz', every=2)])
    for _ in range(5): learn.fit(2)
    with pytest.raises(KeyboardInterrupt): learn.fit(2, cbs=Raise(7, KeyboardInterrupt()))
    metas = []
    for p in sorted(tmp_path.glob('*.part*')):
        with np.load(p) as f: metas.append(json.loads(str(f['meta'])))
    assert [(m['first'], len(m['fits']), len(m['epochs'])) for m in metas]==[
        ([4, 10], 2, 0), ([5, 10], 1, 0), ([5, 10], 1, 1), ([5, 11], 1, 0)]
    back = RunHistory.load(tmp_path/'x.npz')
    assert len(back.fits)==6 and len(back.epochs)==11 and len(back)==46
    (tmp_path/'x.npz').unlink()
    with pytest.raises(ValueError, match='follow the part before it, which is missing'):
        RunHistory.load(tmp_path/'x.npz')

# ---- one rule for what is replaced

WRITERS = {'save': lambda learn, path, **kwargs: learn.recorder.history.save(path, **kwargs),
           'SaveHistory': lambda learn, path, **kwargs: learn.fit(1, cbs=SaveHistory(path, **kwargs))}
OTHERS = {'another history': lambda mlp, path: fit_and(mlp, path, {}),
          'a text': lambda mlp, path: path.write_text('mine'),
          'parts': lambda mlp, path: [fit_and(mlp, path, {}), path.rename(f'{path}.part3')]}

@pytest.mark.parametrize('other', OTHERS)
@pytest.mark.parametrize('writer', WRITERS)
def test_another_file_is_replaced_only_if_that_is_asked_for(mlp, tmp_path, writer, other):
    path,learn = tmp_path/'x.npz',mlp(cbs=HistoryRecorder())
    OTHERS[other](mlp, path)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    learn.fit(1)
    with pytest.raises(ValueError, match='overwrite=True replaces it'): WRITERS[writer](learn, path)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()}==before
    WRITERS[writer](learn, path, overwrite=True)
    assert [p.name for p in tmp_path.iterdir()]==['x.npz']
    assert_frame_equal(RunHistory.load(path).steps, learn.recorder.history.steps)
    WRITERS[writer](learn, path) # its own beginning may be replaced
    assert_frame_equal(RunHistory.load(path).steps, learn.recorder.history.steps)

@pytest.mark.parametrize('writer', WRITERS)
def test_overwrite_must_be_a_flag(mlp, tmp_path, writer):
    learn = mlp(cbs=HistoryRecorder())
    learn.fit(1)
    with pytest.raises(ValueError, match="overwrite must be True or False; got 'yes'"):
        WRITERS[writer](learn, tmp_path/'x.npz', overwrite='yes')
