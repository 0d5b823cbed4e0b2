"Runs say how far they are while they train, in any process"
import re, time
import pytest
from compare_helpers import *
from fastai_clr_ext.compare import compare, progress
from fastai_clr_ext.compare.progress import RunProgress, RunsWatch, read_progress
from fastai_clr_ext.core.progress import Progress
from conftest import make_mlp

def slow(learn):
    "A policy that takes about five seconds, ten looks at it"
    class Wait(Callback):
        def before_batch(self): time.sleep(.25)
    learn.fit(2, cbs=Wait())

def test_the_file_holds_the_batches_that_were_trained(tmp_path, monkeypatch):
    monkeypatch.setattr(progress, 'WRITE_SECONDS', 0)
    file = tmp_path/'a'
    seen = []
    class Look(Callback):
        order = 2000
        def after_batch(self): seen.append(file.read_text())
    learn = make_mlp(cbs=RunProgress(file, 20))
    assert file.read_text()=='0 20', 'so that one knows what is training'
    learn.fit(2, cbs=Look())
    trained = [f'{i} 20' for i in range(1, 11)] + ['10 20']*2 + [f'{i} 20' for i in range(11, 21)] + ['20 20']*2
    assert seen==trained, 'a validation has two batches, which do not count'

def test_the_file_is_written_twice_a_second_at_most(tmp_path, monkeypatch):
    class Clock:
        now = 0.
        def monotonic(self): return self.now
    clock,written = Clock(),[]
    monkeypatch.setattr(progress, 'time', clock)
    monkeypatch.setattr(Path, 'write_text', lambda self, text: written.append(text))
    cb = RunProgress(tmp_path/'a', 100)
    for _ in range(100):
        clock.now += 1/8
        cb.after_batch()
    assert written==[f'{i} 100' for i in range(0, 101, 4)]

def test_a_file_that_cannot_be_written_or_read(tmp_path):
    learn = make_mlp(cbs=RunProgress(tmp_path/'no such folder'/'a', 20))
    learn.fit(1)
    assert len(learn.recorder.losses)==10
    for text in ('', '3', 'x y', '3 4 5'):
        (tmp_path/'a').write_text(text)
        assert read_progress(tmp_path/'a') is None
    assert read_progress(tmp_path/'none') is None
    (tmp_path/'a').write_text('30 20')
    assert read_progress(tmp_path/'a')==1, 'a policy may train more than n_epoch says'

def test_fraction_by_hand(tmp_path, capsys):
    with Progress('training', every=0, is_live=False) as display:
        watch = RunsWatch({name: f'run {name}' for name in 'abcd'}, tmp_path, display)
        (tmp_path/'a').write_text('5 10')
        (tmp_path/'b').write_text('1 4')
        watch.poll()
        assert watch.fraction()==(.5+.25)/4
        watch.ended('a', 'accuracy 0.9', 'best so far: a')
        assert watch.fraction()==(1+.25)/4
        (tmp_path/'c').write_text('0 4')
        watch.poll()
        assert watch.fraction()==(1+.25)/4
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(' 19%  run a + run b  about')
    assert lines[1].startswith('1 of 4  run a  accuracy 0.9  about')
    assert lines[2].startswith(' 31%  run b + run c; best so far: a  about')

def test_the_time_counts_from_the_first_run_that_trains(tmp_path):
    "Workers take seconds to start"
    with Progress('training', is_live=False) as display:
        watch = RunsWatch(dict(a='run a', b='run b'), tmp_path, display)
        restarts = []
        display.restart = lambda: restarts.append(list(watch.parts))
        watch.poll()
        assert restarts==[]
        for text in ('0 4', '1 4'):
            (tmp_path/'a').write_text(text)
            watch.poll()
        watch.ended('a')
        watch.poll()
        (tmp_path/'b').write_text('0 4')
        watch.poll()
        assert len(restarts)==1

@pytest.mark.parametrize('n_workers', [None, 2])
def test_progress_comes_from_inside_the_runs(tmp_path, capsys, monkeypatch, n_workers):
    monkeypatch.setattr(Progress.__init__, '__defaults__', (.5, None))
    compare(make_line, {'a': slow, 'b': slow}, seeds=1, n_epoch=2, n_workers=n_workers, out=tmp_path/'c')
    out = capsys.readouterr().out
    shown = [int(percent) for percent in re.findall(r'^ *(\d+)%  \S.*seed 0', out, flags=re.M)]
    assert [percent for percent in shown if percent not in (0, 50, 100)] and shown==sorted(shown), out
    assert re.search('a, seed 0 [+] b, seed 0', out) is not None or n_workers is None, out
    rows = re.findall(r'^\d of 2  [ab], seed 0  valid_loss \S+ +\d+ s', out, flags=re.M)
    assert len(rows)==2, out

def test_it_changes_no_result_and_no_folder(tmp_path):
    policies = {'constant': constant(), '1cycle': one_cycle()}
    args = dict(seeds=2, n_epoch=2, lr_max=.05)
    quiet = compare(make_line, policies, out=tmp_path/'quiet', with_bar=False, **args)
    shown = compare(make_line, policies, out=tmp_path/'shown', with_bar=True, n_workers=2, **args)
    plans = [(tmp_path/name/'comparison.json').read_text() for name in ('quiet', 'shown')]
    assert plans[0]==plans[1]
    assert files(tmp_path/'quiet')==files(tmp_path/'shown')
    assert quiet.df.drop(columns='seconds').to_dict()==shown.df.drop(columns='seconds').to_dict()
    again = compare(make_line, policies, out=tmp_path/'shown', with_bar=True, **args) # goes on: nothing is trained
    assert again.df.to_dict()==shown.df.to_dict()

def files(folder): return sorted(str(path.relative_to(folder)) for path in folder.rglob('*'))
