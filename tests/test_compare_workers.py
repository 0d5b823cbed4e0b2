"Processes that die, are killed or outlive their parent"
import atexit, os, signal, sys, time
from pathlib import Path
import joblib, pytest
from compare_helpers import *
from fastai_clr_ext.compare import *
from fastai_clr_ext.schedule import constant

def test_threads_as_workers_take_turns():
    a = compare(make_line, POLICIES, seeds=3, **quick)
    with joblib.parallel_config('threading', n_jobs=3): same(a, compare(make_line, POLICIES, seeds=3, **quick))

SCRIPT = '''
import sys
sys.path.insert(0, {here!r})
from compare_helpers import long_one
print(long_one(sys.argv[1], int(sys.argv[2]) or None).df.drop(columns='seconds').to_json())
'''

@pytest.fixture(scope='module')
def stopped(tmp_path_factory):
    d = tmp_path_factory.mktemp('stopped')
    (d/'script.py').write_text(SCRIPT.format(here=str(Path(__file__).parent)))
    return d, numbers(long_one(d/'whole')).to_json()

def test_a_killed_comparison_goes_on(stopped):
    d,whole = stopped
    p = start(d/'script.py', d/'cut', 0)
    wait_for(d/'cut', 5, p)
    os.kill(p.pid, signal.SIGKILL); p.wait()
    done = {f: f.read_bytes() for f in (d/'cut'/'runs').glob('*.json')}
    assert 5<=len(done)<12
    assert numbers(long_one(d/'cut')).to_json()==whole
    assert all(f.read_bytes()==b for f,b in done.items()), 'nothing that was done is done again'

@pytest.mark.skipif(sys.platform!='linux', reason='finds workers in /proc')
def test_a_killed_worker_costs_its_run(stopped):
    d,whole = stopped
    p = start(d/'script.py', d/'worker', 2)
    wait_for(d/'worker', 3, p)
    os.kill(children(p.pid)[0], signal.SIGKILL)
    out,err = p.communicate()
    assert out.strip()==whole and p.returncode==0, err[-2000:]

def test_a_run_is_begun_again_alone(tmp_path):
    assert len(marked(tmp_path, 2).df)==2 and len(list((tmp_path/'killer').iterdir()))==3

def test_a_run_that_always_dies_is_given_up(tmp_path):
    with pytest.raises(RuntimeError, match="'killer' with seed 0 died 3 times. Is there enough memory for 2 at once"):
        marked(tmp_path, 9)

@pytest.fixture
def dask_cluster():
    "Two processes that a scheduler of Dask gives work to"
    distributed = pytest.importorskip('distributed')
    with (distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
          distributed.Client(cluster), joblib.parallel_config('dask')): yield cluster

def test_a_dask_cluster_gives_the_same_numbers_and_loses_one_run_to_a_kill(dask_cluster, tmp_path):
    there = compare(make_line, POLICIES, seeds=2, **quick)
    with joblib.parallel_config('sequential'): same(there, compare(make_line, POLICIES, seeds=2, **quick))
    assert len(marked(tmp_path, 1, None).df)==2 and len(list((tmp_path/'killer').iterdir()))==2

class Awkward(Exception):
    "Can't be unpickled, since its arguments aren't those of `__init__`"
    def __init__(self, a, b): super().__init__(f'{a} {b}')

class OnlyHere:
    "Makes learners in the process it was made in"
    def __init__(self): self.pid = os.getpid()
    def __call__(self, seed):
        if os.getpid()!=self.pid: raise Awkward('no', 'way')
        return make_line(seed)

def test_an_error_that_cannot_be_read_is_no_death(tmp_path):
    with pytest.raises(Exception, match='un-serialize'):
        compare(OnlyHere(), POLICIES, seeds=1, n_workers=2, out=tmp_path, **quick)

def test_a_dask_cluster_never_waits_for_a_run_that_cannot_end(dask_cluster, tmp_path, monkeypatch):
    monkeypatch.setattr(dask_cluster.scheduler, 'allowed_failures', 1)
    with pytest.raises(RuntimeError, match="'killer' with seed 0 died 2 times. Is there enough memory for 2 at once"):
        marked(tmp_path, 9, None)
    with pytest.raises(Exception, match='no way'): compare(OnlyHere(), POLICIES, seeds=1, out=tmp_path/'out2', **quick)

def test_workers_end_as_programs_do(tmp_path):
    "What they do at their end is done"
    def talk(learn):
        atexit.register((tmp_path/f'{os.getpid()}').touch)
        learn.fit(2, .05)
    compare(make_line, {'constant': constant(), 'talk': talk}, seeds=2, n_workers=2,
            **quick | dict(lr_max={'constant': .05}))
    assert list(tmp_path.iterdir())

@pytest.mark.skipif(sys.platform!='linux', reason='finds workers in /proc')
def test_workers_end_soon_after_their_parent(stopped):
    d,_ = stopped
    p = start(d/'script.py', d/'orphans', 2)
    wait_for(d/'orphans', 3, p)
    kids = children(p.pid)
    os.kill(p.pid, signal.SIGKILL); p.wait()
    until = time.time()+15
    alive = lambda: [k for k in kids if Path(f'/proc/{k}').exists()
                     and 'State:\tZ' not in Path(f'/proc/{k}/status').read_text()]
    while alive() and time.time()<until: time.sleep(.1)
    assert kids and not alive()

SLOW = '''
import sys
sys.path.insert(0, {here!r})
from compare_helpers import *
slow = [Marked(Path(sys.argv[1])/name, rest=3.) for name in 'ab']
compare(make_line, dict(zip('ab', slow)), seeds=1, n_epoch=1, n_workers=2, out=Path(sys.argv[1])/'out', with_bar=False)
'''

def test_a_run_is_ended_though_its_parent_is_gone(tmp_path):
    for name in 'ab': (tmp_path/name).mkdir()
    (tmp_path/'script.py').write_text(SLOW.format(here=str(Path(__file__).parent)))
    p,until = start(tmp_path/'script.py', tmp_path, 2),time.time()+60
    while not all(any((tmp_path/name).iterdir()) for name in 'ab') and time.time()<until: time.sleep(.02)
    os.kill(p.pid, signal.SIGKILL); p.wait()
    assert not list(tmp_path.glob('out/runs/*.json'))
    while len(list(tmp_path.glob('out/runs/*.json')))<2 and time.time()<until: time.sleep(.1)
    assert len(list(tmp_path.glob('out/runs/*.json')))==2

@pytest.mark.skipif(sys.platform!='linux', reason='finds workers in /proc')
def test_no_process_is_left(tmp_path):
    def fail(learn): raise KeyboardInterrupt
    compare(make_line, POLICIES, seeds=2, n_workers=2, **quick)
    with pytest.raises(KeyboardInterrupt):
        compare(make_line, {'constant': constant(), 'mine': fail}, seeds=2, n_epoch=1, n_workers=2, out=tmp_path,
                with_bar=False)
    until = time.time()+2
    while children(os.getpid()) and time.time()<until: time.sleep(.05)
    assert not children(os.getpid())

def test_unpicklable_functions_with_workers():
    import threading
    lock = threading.Lock()
    def maker(seed): return lock and make_line(seed)
    with pytest.raises(ValueError, match='picklable for workers'):
        compare(maker, POLICIES, seeds=1, n_workers=2, **quick)
