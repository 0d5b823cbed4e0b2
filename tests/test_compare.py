import atexit, json, os, signal, subprocess, sys, time
from contextlib import suppress
from functools import partial
from pathlib import Path
import joblib, numpy as np, pandas as pd, pytest, torch
from fastai.callback.core import Callback
from fastai.callback.fp16 import MixedPrecision
from fastai.callback.mixup import MixUp
from fastai.callback.training import GradientAccumulation, GradientClip
from fastai.data.core import DataLoaders
from fastai.learner import Learner
from fastai.losses import MSELossFlat
from fastai.metrics import AvgMetric
from fastai.optimizer import Adam, OptimWrapper, SGD
from fastai.test_utils import synth_dbunch
from torch.nn import functional as F
from torch.utils.data import TensorDataset
from fastai_clr_ext.compare import *
from fastai_clr_ext.train import Stage, stages_long
from fastai_clr_ext.train import DivergenceGuard
from fastai_clr_ext.record import HistoryRecorder, RunHistory
from fastai_clr_ext.record import GradRecorder
from fastai_clr_ext.compare import *
from fastai_clr_ext.compare import *
from fastai_clr_ext.schedule import Cycle, Phase, clr_beta_07, constant, one_cycle
from fastai_clr_ext.compare import *

def make_line(seed, **kwargs):
    "A line to fit: 10 batches of 16, a new model each time"
    return Learner(synth_dbunch(n_train=10, n_valid=2), torch.nn.Linear(1, 1),
                   **dict(loss_func=MSELossFlat(), opt_func=partial(SGD, mom=.9), lr=.01) | kwargs)

def make_with(seed, *cbs, **kwargs): return make_line(seed, **kwargs).add_cbs([make() for make in cbs])

POLICIES = {'constant': constant(moms=.9), '1cycle': one_cycle()}
quick = dict(n_epoch=2, lr_max=.05, with_bar=False)
numbers = lambda c: c.df.drop(columns='seconds')
same = lambda a, b: pd.testing.assert_frame_equal(numbers(a), numbers(b))

def test_one_row_a_run():
    c = compare(make_line, POLICIES, seeds=[4, 9], **quick)
    assert list(c.df)==['policy', 'seed', 'train_loss', 'valid_loss', 'diverged', 'n_steps', 'seconds', 'error']
    assert (list(zip(c.df.policy, c.df.seed))==[('constant', 4), ('1cycle', 4), ('constant', 9), ('1cycle', 9)]
            and (c.df.n_steps==20).all() and not c.df.diverged.any())
    assert c.record['metric']=='valid_loss' and not c.record['higher']

def test_a_run_is_what_training_by_hand_gives():
    "The same weights and batches by plain means: seeds set before the learner is made and before it trains"
    from fastai.torch_core import set_seed
    c = compare(make_line, {**POLICIES, 'mine': lambda learn: learn.fit(2, .05)}, seeds=[3], n_epoch=2,
                lr_max={'constant': .05, '1cycle': .05}, with_bar=False)
    set_seed(3, reproducible=True)
    learn = make_line(3)
    for dl in learn.dls.loaders: dl.rng.seed(3)
    set_seed(3, reproducible=True)
    with learn.no_bar(), learn.no_logging(): learn.fit(2, .05)
    assert c.df.set_index('policy').valid_loss['mine']==learn.recorder.values[-1][1]

@pytest.mark.parametrize('cb', [None, HistoryRecorder, partial(GradRecorder, 'max')], ids=['none', 'history', 'grads'])
@pytest.mark.parametrize('grads', [True, False])
def test_gradients_are_recorded_whatever_recorder_the_learner_has(cb, grads, tmp_path):
    make = lambda seed: make_line(seed, cbs=cb and cb())
    c = compare(make, POLICIES, seeds=[1], out=tmp_path/'out', grads=grads, **quick)
    h = RunHistory.load(next((tmp_path/'out'/'runs').glob('*.npz')))
    assert not c.df.error.any() and bool(len(h.grad_log))==(grads or isinstance(cb, partial))
    assert not isinstance(cb, partial) or 'max_abs' in h.grads

def test_every_policy_sees_the_same_weights_and_batches(tmp_path):
    def look(learn, name):
        seen = [p.detach().clone() for p in learn.model.parameters()]
        learn.fit(1, 0.) # nothing moves
        torch.save([o.tolist() for o in seen] + [float(o) for o in learn.recorder.losses], tmp_path/name)
    def wasteful(learn, name):
        torch.rand(1000); np.random.rand(7)
        look(learn, name)
    shared = synth_dbunch(n_train=10) # one set of loaders for all learners
    maker = lambda seed: Learner(shared, torch.nn.Linear(1, 1), loss_func=MSELossFlat(), lr=.01)
    compare(maker, {'a': lambda learn: look(learn, 'a'), 'b': lambda learn: wasteful(learn, 'b')},
            n_epoch=1, seeds=[5], with_bar=False)
    a,b = [torch.load(tmp_path/k) for k in 'ab']
    assert a==b and len(a)==2+10

def test_the_learners_rate_is_said():
    policies = POLICIES | {'mine': lambda learn: learn.fit(2)}
    c = compare(make_line, policies, seeds=1, n_epoch=2, with_bar=False)
    same(c, compare(make_line, policies, seeds=1, n_epoch=2, lr_max=dict.fromkeys(POLICIES, .01), with_bar=False))
    assert [p['lr_max'] for p in c.record['policies']]==[.01, .01, None]

def test_the_same_numbers_twice_and_with_any_number_of_workers(tmp_path):
    torch.manual_seed(7)
    before = torch.get_rng_state(), torch.get_num_threads()
    a = compare(make_line, POLICIES, seeds=3, **quick)
    assert (torch.equal(before[0], torch.get_rng_state())
            and before[1]==torch.get_num_threads()), 'what was there before is there after'
    same(a, compare(make_line, POLICIES, seeds=3, **quick))
    same(a, compare(make_line, POLICIES, seeds=3, n_workers=2, **quick))
    back = compare(make_line, POLICIES, seeds=[2, 1, 0], **quick)
    key = ['seed', 'policy']
    pd.testing.assert_frame_equal(numbers(a).sort_values(key, ignore_index=True),
                                  numbers(back).sort_values(key, ignore_index=True))

def test_threads_as_workers_take_turns():
    a = compare(make_line, POLICIES, seeds=3, **quick)
    with joblib.parallel_config('threading', n_jobs=3): same(a, compare(make_line, POLICIES, seeds=3, **quick))

def test_nothing_is_trained_twice(tmp_path):
    log = tmp_path/'log'
    def counted(learn):
        with log.open('a') as f: f.write('x')
        learn.fit(2, .05)
    policies = {'constant': constant(), 'mine': counted}
    args = quick | dict(lr_max={'constant': .05}, out=tmp_path/'out')
    a = compare(make_line, policies, seeds=2, **args)
    b = compare(make_line, policies, seeds=2, **args)
    assert log.read_text()=='xx' and a.record==b.record
    c = compare(make_line, policies, seeds=4, **args)
    assert log.read_text()=='xxxx' and numbers(c)[:4].equals(numbers(a))
    fewer = compare(make_line, policies, seeds=[1], **args)
    assert log.read_text()=='xxxx' and len(fewer.df)==2

def test_steps_are_counted_for_real():
    "Two batches make one step; a step that was cancelled is none"
    accumulate = lambda learn: learn.fit(2, .05, cbs=GradientAccumulation(32))
    with pytest.raises(ValueError, match=r"take 20 optimizer steps, as 'constant' did; got 10"):
        compare(make_line, {'constant': constant(), 'half': accumulate}, seeds=1, n_epoch=2, with_bar=False)
    c = compare(make_line, {'half': accumulate, 'also': lambda learn: learn.fit(2, .02, cbs=GradientAccumulation(32))},
                seeds=1, n_epoch=2, with_bar=False)
    assert c.df.n_steps.tolist()==[10, 10]

@pytest.mark.parametrize('order', [MixedPrecision.order, RunWatch.order+1], ids=['before it is seen', 'after'])
def test_a_cancelled_step_is_tried_but_not_done(order):
    from fastai.callback.core import CancelStepException
    class Skip(Callback):
        def before_step(self):
            if self.train_iter in (3, 4): raise CancelStepException
    learn = make_line(0)
    learn.add_cb(watch := RunWatch())
    (skip := Skip()).order = order
    with learn.no_bar(), learn.no_logging(): learn.fit(1, cbs=skip)
    assert (watch.n_steps, watch.n_tried, watch.n_batches)==(8, 10, 10)

@pytest.mark.parametrize('policy', [lambda learn: learn.fit(1, .05), lambda learn: learn.fit(3, .05),
                                    lambda learn: None], ids=['short', 'long', 'nothing'])
def test_unequal_budgets_are_refused(policy):
    with pytest.raises(ValueError, match=r"policies\['mine'\] must train n_epoch epochs, which have 20 batches"):
        compare(make_line, {'constant': constant(), 'mine': policy}, seeds=3, n_epoch=2, with_bar=False)

def test_lost_runs_are_results():
    def fails(learn): raise RuntimeError('no memory')
    policies = {'constant': constant(), 'wild': lambda learn: learn.fit(2, 1e12), 'fails': fails}
    c = compare(make_line, policies, seeds=2, n_epoch=2, lr_max={'constant': .05}, with_bar=False)
    df = c.df.set_index('policy')
    assert (df.diverged.to_dict()=={'constant': False, 'wild': True, 'fails': False}
            and df.error['fails'].tolist()==['RuntimeError: no memory']*2)
    assert c.summary().n_lost.tolist()==[0, 2, 2] and (c.summary().verdict[1:]=='cannot tell').all()
    assert c.outcomes[['wild', 'fails']].isna().all(axis=None)

@pytest.mark.parametrize('lr', [10., 100.])
def test_what_becomes_too_large_has_diverged_and_can_be_reported(lr, tmp_path):
    "A loss of 1e21 is finite"
    policies = {'constant': constant(moms=.9), 'wild': lambda learn: learn.fit(2, lr)}
    c = compare(make_line, policies, seeds=1, n_epoch=2, lr_max={'constant': .05}, out=tmp_path, with_bar=False)
    assert c.df.diverged.tolist()==[False, True] and c.outcomes.wild.isna().all()
    assert '1 of 1' in c.to_markdown() and read_record(tmp_path).record==c.record

def test_texts_that_no_file_can_hold_are_reported(tmp_path):
    def fails(learn): raise OSError('no file \udce4')
    c = compare(make_line, {'constant': constant(), 'fails': fails}, seeds=1, n_epoch=2, lr_max={'constant': .05},
                situation=dict(about='x'*20_000, sizes=[1, 1e15]), out=tmp_path, with_bar=False)
    assert c.df.error[1]=='OSError: no file ?' and read_record(tmp_path).to_html()

def test_a_run_that_was_stopped_because_it_diverged():
    from fastai.callback.tracker import TerminateOnNaNCallback
    wild = lambda learn: learn.fit(2, 1e12, cbs=TerminateOnNaNCallback())
    c = compare(make_line, {'constant': constant(), 'wild': wild}, seeds=1, n_epoch=2,
                lr_max={'constant': .05}, with_bar=False)
    assert c.df.diverged.tolist()==[False, True] and c.df.n_steps[1]<20

def test_tuning_is_equal_and_apart(tmp_path):
    "Three trials each, on a seed and a validation set that are not reported; the best of them is used"
    c = compare(make_line, POLICIES, n_epoch=2, seeds=2, tune=[1e-4, .05, 1e12], out=tmp_path, with_bar=False)
    assert [(p['n_trials'], p['lr_max']) for p in c.record['policies']]==[(3, .05), (3, .05)]
    assert [r['diverged'] for r in c.record['tuning']]==[False, False, True]*2 and TUNE_SEED not in c.df.seed.values
    trials = [json.loads(p.read_text()) for p in (tmp_path/'tuning').glob('*.json')]
    assert len(trials)==6 and {t['seed'] for t in trials}=={TUNE_SEED}
    assert {t['n_batches'] for t in trials if not t['diverged']}=={16}, 'a fifth of ten batches is held out'
    same(c, compare(make_line, POLICIES, n_epoch=2, seeds=2, lr_max=.05, with_bar=False))

def test_what_is_held_out_is_not_trained_on():
    learn = make_line(0)
    valid = {tuple(map(float, o)) for o in learn.dls.valid_ds}
    hold_out(learn, .25)
    parts = [{tuple(map(float, o)) for o in ds} for ds in (learn.dls.train_ds, learn.dls.valid_ds)]
    assert list(map(len, parts))==[120, 40] and not parts[0] & parts[1] and not (parts[0] | parts[1]) & valid

def slow(learn):
    time.sleep(.15)
    learn.fit(2, .05)

def long_one(out, n_workers=None):
    return compare(make_line, {'constant': constant(), 'slow': slow}, seeds=6, n_epoch=2, lr_max={'constant': .05},
                   out=out, n_workers=n_workers, with_bar=False)

SCRIPT = '''
import sys
sys.path.insert(0, {here!r})
from test_compare import long_one
print(long_one(sys.argv[1], int(sys.argv[2]) or None).df.drop(columns='seconds').to_json())
'''

def start(script, out, n_workers):
    return subprocess.Popen([sys.executable, '-W', 'ignore', script, out, str(n_workers)], stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True, start_new_session=True)

def wait_for(out, n, p):
    until = time.time()+60
    while len(list(out.glob('runs/*.json')))<n and time.time()<until and p.poll() is None: time.sleep(.02)

def children(pid):
    "Worker processes of joblib"
    kids = []
    for task in Path(f'/proc/{pid}/task').iterdir():
        with suppress(FileNotFoundError): kids += (task/'children').read_text().split() # unless the thread has ended
    kids = [Path(f'/proc/{k}') for k in kids]
    return [int(k.name) for k in kids if k.exists() and b'popen_loky' in (k/'cmdline').read_bytes()]

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

class Marked:
    "Trains, and writes down that it began; `dies` times its process is killed instead"
    def __init__(self, folder, dies=0, rest=0.): self.folder,self.dies,self.rest = folder,dies,rest
    def __call__(self, learn):
        (self.folder/f'{time.time_ns()}').touch()
        time.sleep(self.rest)
        if len(list(self.folder.iterdir()))<=self.dies: os.kill(os.getpid(), signal.SIGKILL)
        learn.fit(1, .05)

def marked(tmp_path, dies, n_workers=2):
    "A run that is under way when another one's process dies so many times, and how often each began"
    folders = [tmp_path/name for name in ('slow', 'killer')]
    for f in folders: f.mkdir()
    policies = dict(slow=Marked(folders[0], rest=3.), killer=Marked(folders[1], dies))
    try: return compare(make_line, policies, seeds=1, n_epoch=1, n_workers=n_workers, out=tmp_path/'out',
                        with_bar=False)
    finally: assert len(list(folders[0].iterdir()))==1, 'the run beside it is not begun again'

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

def test_workers_end_as_programs_do(tmp_path):
    "What they do at their end is done"
    def talk(learn):
        atexit.register((tmp_path/f'{os.getpid()}').touch)
        learn.fit(2, .05)
    compare(make_line, {'constant': constant(), 'talk': talk}, seeds=2, n_workers=2,
            **quick | dict(lr_max={'constant': .05}))
    assert list(tmp_path.iterdir())

def test_half_written_files_are_removed(tmp_path):
    (tmp_path/'.comparison.json.0c25b700').write_text('{')
    compare(make_line, POLICIES, seeds=1, out=tmp_path, **quick)
    (tmp_path/'runs'/'.00-0.npz.0a76ccd2').touch()
    compare(make_line, POLICIES, seeds=1, out=tmp_path, **quick)
    assert not list(tmp_path.rglob('.*'))

@pytest.mark.parametrize('name', ['.mine.json.deadbeef', 'notes/.mine.json.deadbeef', 'note.txt'])
def test_files_of_a_folder_that_is_refused_stay(name, tmp_path):
    (tmp_path/name).parent.mkdir(exist_ok=True)
    (tmp_path/name).touch()
    with pytest.raises(ValueError, match='out must be a new or empty folder'):
        compare(make_line, POLICIES, seeds=1, out=tmp_path, **quick)
    assert (tmp_path/name).exists()

def test_stages_of_another_budget(tmp_path):
    policies = {'one': one_cycle(), 'B': stages_long(budget=3, base_lr=.05, head_epochs=.5)}
    with pytest.raises(ValueError, match=r"policies\['B'\]: stages must have 2 epochs in all, as n_epoch says; got 3"):
        compare(make_two, policies, seeds=1, n_epoch=2, out=tmp_path/'out', with_bar=False)
    assert not (tmp_path/'out').exists()

def test_too_many_seeds():
    with pytest.raises(ValueError, match='seeds must be a number of at least 1 and at most 1000.*got 99999999999'):
        compare(make_line, POLICIES, seeds=99999999999, **quick)

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
from test_compare import *
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

def test_ctrl_c_keeps_what_is_done(tmp_path):
    calls = []
    def interrupted(learn):
        calls.append(1)
        if len(calls)==2: raise KeyboardInterrupt
        learn.fit(2, .05)
    policies = {'constant': constant(), 'mine': interrupted}
    args = quick | dict(lr_max={'constant': .05}, out=tmp_path)
    with pytest.raises(KeyboardInterrupt): compare(make_line, policies, seeds=3, **args)
    assert len(list((tmp_path/'runs').glob('*.json')))==3 and not list((tmp_path/'runs').glob('*.part'))
    assert len(compare(make_line, policies, seeds=3, **args).df)==6 and len(calls)==4

kept = make_line(0)
@pytest.mark.parametrize('change,says', [
    (dict(policies={'a': constant()}), 'policies must be a dict of two or more'),
    (dict(policies=[constant()]*2), 'policies must be a dict'),
    (dict(policies={'a': constant(), 'A': constant()}), 'differ in more than capitals'),
    (dict(policies={'a': constant(), 'b ': constant()}), 'one line of 1 to 80'),
    (dict(policies={'a': constant(), 'b': 3}), r"policies\['b'\] must be a cycle"),
    (dict(policies={'a': constant(), 'b': clr_beta_07(10, 95)}), 'give every phase a batch'),
    (dict(seeds=0), 'seeds must'), (dict(seeds=[]), 'seeds must'), (dict(seeds=[1, 1]), 'different whole numbers'),
    (dict(seeds=-1), 'seeds must'), (dict(seeds=[2**31-1]), 'seeds must'), (dict(seeds='5'), 'seeds must'),
    (dict(n_epoch=0), 'n_epoch must'), (dict(n_threads=0), 'n_threads must'),
    (dict(lr_max={'constant': .1}), 'lr_max must have a rate for each policy'), (dict(lr_max=-1), 'lr_max must'),
    (dict(tune=[.1, .2]), 'tune must be given without lr_max'),
    (dict(tune=[.1, .2], lr_max=[.1]), 'tune must be given without lr_max'),
    (dict(tune=[.1, .2], lr_max=slice(.1)), 'tune must be given without lr_max'),
    (dict(lr_max=None, tune=[.1, .1]), 'tune must be a list of different rates'),
    (dict(lr_max=None, tune=[0]), 'tune must be a list'), (dict(baseline='z'), 'baseline must'),
    (dict(metric='accuracy'), "metric must be one of"), (dict(level=95), 'level must'),
    (dict(margin=-1), 'margin must'), (dict(method='z'), 'method must'), (dict(higher=1), 'higher must'),
    (dict(make_learner=lambda seed: kept), 'the same object twice'),
    (dict(make_learner=lambda seed: Learner(kept.dls, kept.model, loss_func=MSELossFlat())), 'the same object twice'),
    (dict(make_learner=lambda seed: (torch.manual_seed(0), make_line(0))[1]), 'use its seed'),
    (dict(make_learner=lambda seed: (torch.seed(), make_line(0))[1]), 'the same initial weights for the same seed'),
    (dict(make_learner=lambda seed: 3), 'return a Learner'), (dict(make_learner=3), 'be a function')],
    ids=lambda o: '' if isinstance(o, str) else ','.join(o))
def test_bad_input(change, says, tmp_path):
    args = dict(make_learner=make_line, policies=POLICIES, seeds=2, out=tmp_path/'out') | quick | change
    with pytest.raises(ValueError, match=says): compare(**args)
    assert not (tmp_path/'out').exists(), 'refused before anything was written'

def test_callbacks_that_go_from_run_to_run():
    with pytest.raises(ValueError, match=r"make_learner must make new callbacks each time: .*; got \['Rescale'\]"):
        compare(partial(make_line, cbs=Rescale(1.)), POLICIES, seeds=1, **quick)

def test_a_pretrained_start_is_allowed_when_it_is_said():
    fixed = lambda seed: (torch.manual_seed(0), make_line(0))[1]
    assert len(compare(fixed, POLICIES, seeds=2, same_start=True, **quick).df)==4

def test_unpicklable_functions_with_workers():
    import threading
    lock = threading.Lock()
    def maker(seed): return lock and make_line(seed)
    with pytest.raises(ValueError, match='picklable for workers'):
        compare(maker, POLICIES, seeds=1, n_workers=2, **quick)

def test_one_seed_has_no_interval():
    c = compare(make_line, POLICIES, seeds=1, **quick)
    assert c.summary().verdict['1cycle']=='cannot tell' and '1 seed to compare: no interval' in repr(c)

def test_a_folder_of_something_else(tmp_path):
    compare(make_line, POLICIES, seeds=1, out=tmp_path/'a', **quick)
    for change,name in [
            (dict(n_epoch=3), 'n_epoch'), (dict(lr_max=.1), 'lr_max'), (dict(n_threads=2), 'n_threads'),
            (dict(policies={'constant': constant(), '1cycle': one_cycle(div=5)}), 'policies'),
            (dict(make_learner=partial(make_line, wd=.1)), 'learner'),
            (dict(make_learner=lambda seed: (torch.manual_seed(seed+1), make_line(seed))[1]), 'weights')]:
        with pytest.raises(ValueError, match=f'that one differs in .*{name}'):
            compare(**dict(make_learner=make_line, policies=POLICIES, seeds=1, out=tmp_path/'a') | quick | change)
    (tmp_path/'b').mkdir(); (tmp_path/'b'/'thesis.txt').write_text('mine')
    with pytest.raises(ValueError, match='out must be a new or empty folder'):
        compare(make_line, POLICIES, seeds=1, out=tmp_path/'b', **quick)
    with pytest.raises(ValueError, match='out must be a folder'):
        compare(make_line, POLICIES, seeds=1, out=tmp_path/'b'/'thesis.txt', **quick)

def test_policies_in_another_order_are_the_same_comparison(tmp_path):
    whole = compare(make_line, POLICIES, seeds=2, **quick)
    compare(make_line, POLICIES, seeds=2, out=tmp_path, **quick)
    for f in list((tmp_path/'runs').glob('1cycle-*')): f.unlink() # as if it was stopped
    turned = compare(make_line, dict(reversed(POLICIES.items())), seeds=2, out=tmp_path, **quick)
    by_run = lambda c: numbers(c).sort_values(['policy', 'seed'], ignore_index=True)
    pd.testing.assert_frame_equal(by_run(turned), by_run(whole))
    assert turned.record['baseline']=='1cycle', 'the first of this call'

class Shifted(torch.utils.data.Dataset):
    "The same inputs with other targets"
    def __init__(self, ds, by): self.ds,self.by = ds,by
    def __len__(self): return len(self.ds)
    def __getitem__(self, i): return self.ds[i][0],self.ds[i][1]*self.by

def make_shifted(seed, by=1., cbs=()):
    learn = make_with(seed, *cbs)
    train,valid = learn.dls.train,learn.dls.valid
    learn.dls = DataLoaders(train.new(Shifted(train.dataset, by)), valid.new(Shifted(valid.dataset, by)))
    return learn

def test_other_data_or_callbacks_are_another_comparison(tmp_path):
    compare(make_shifted, POLICIES, seeds=1, out=tmp_path, **quick)
    for change,name in [(dict(by=100.), 'batches'), (dict(cbs=[MixUp]), 'callbacks, learner')]:
        with pytest.raises(ValueError, match=f'that one differs in .*{name}'):
            compare(partial(make_shifted, **change), POLICIES, seeds=1, out=tmp_path, **quick)
    compare(make_shifted, POLICIES, seeds=2, out=tmp_path, **quick)

class Policy:
    "Made with a rate"
    def __init__(self, lr): self.lr = lr
    def __call__(self, learn): learn.fit(2, self.lr)

class Rescale(Callback):
    "Gradients times a factor"
    def __init__(self, by): self.by = by
    def before_step(self):
        for p in self.model.parameters(): p.grad *= self.by

def my_sgd(params, lr, **kwargs): return torch.optim.SGD(params, lr)

@pytest.mark.parametrize('name,a,b', [
    ('callbacks', [partial(Rescale, 1.)], [partial(Rescale, .001)]),
    ('callbacks', [partial(MixUp, .4)], [partial(MixUp, .2)]),
    ('loss', dict(loss_func=torch.nn.HuberLoss(delta=1.)), dict(loss_func=torch.nn.HuberLoss(delta=.01))),
    ('loss', dict(loss_func=partial(F.huber_loss, delta=1.)), dict(loss_func=partial(F.huber_loss, delta=.01))),
    ('loss', dict(loss_func=eval('lambda p,t: F.mse_loss(p, t)')), dict(loss_func=eval('lambda p,t: F.l1_loss(p, t)'))),
    ('optimizer', dict(opt_func=lambda p, lr: SGD(p, lr, mom=.9)), dict(opt_func=lambda p, lr: Adam(p, lr)))],
    ids=lambda o: o if isinstance(o, str) else '')
def test_other_settings_are_another_comparison(name, a, b, tmp_path):
    make = lambda o: lambda seed: make_with(seed, *o) if isinstance(o, list) else make_line(seed, **o)
    for _ in range(2): compare(make(a), POLICIES, seeds=1, out=tmp_path, **quick)
    with pytest.raises(ValueError, match=f'that one differs in {name}$|that one differs in {name}[,;]'):
        compare(make(b), POLICIES, seeds=1, out=tmp_path, **quick)

def test_another_object_that_is_a_policy_is_another_comparison(tmp_path):
    go = lambda lr: compare(make_line, {'mine': Policy(lr), 'flat': constant()}, n_epoch=2, seeds=1,
                            lr_max={'flat': .05}, out=tmp_path, with_bar=False)
    assert go(.1).record['policies'][0]['what']=='Policy{lr=0.1}'
    go(.1)
    with pytest.raises(ValueError, match='differs in policies'): go(.2)

SETTINGS = '''
import sys
sys.path.insert(0, {here!r})
from test_compare import *
make = lambda seed: make_with(seed, GradientClip, MixUp, opt_func=partial(OptimWrapper, opt=my_sgd),
                              loss_func=lambda p, t: F.mse_loss(p, t))
compare(make, POLICIES, seeds=int(sys.argv[2]), out=sys.argv[1], **quick)
'''

def test_another_process_goes_on(tmp_path):
    "No address in memory and no order of a set tells one comparison from itself"
    (tmp_path/'script.py').write_text(SETTINGS.format(here=str(Path(__file__).parent)))
    for n in (1, 2):
        p = start(tmp_path/'script.py', tmp_path/'out', n)
        assert not p.wait(), p.stderr.read()
    assert 'OptimWrapper(opt=my_sgd)' in (tmp_path/'out'/'comparison.json').read_text()

def test_plain_loaders_of_torch():
    def make(seed):
        loaders = [torch.utils.data.DataLoader(ds, 16, shuffle=ds is not old.valid_ds) for old in [synth_dbunch()]
                   for ds in (old.train_ds, old.valid_ds)]
        return Learner(DataLoaders(*loaders), torch.nn.Linear(1, 1), loss_func=MSELossFlat(), opt_func=SGD, lr=.01)
    policies = {'a': constant(moms=None), 'b': one_cycle(moms=None)}
    a,b = [compare(make, policies, n_epoch=1, seeds=2, with_bar=False) for _ in range(2)]
    same(a, b)
    assert not a.df.error.any() and a.record['situation']['device']=='cpu'

class Grow(Callback):
    "Scales the gradient more with every batch it has ever seen"
    n = 0
    def before_step(self):
        self.n += 1
        for p in self.model.parameters(): p.grad *= 1+self.n/10

def test_callbacks_of_stages_are_fresh_in_every_run(tmp_path):
    policies = {'a': [Stage('all', 2, .01, cbs=[Grow()])], 'b': constant()}
    kwargs = dict(n_epoch=2, lr_max={'b': .01}, with_bar=False)
    many = compare(make_line, policies, seeds=2, out=tmp_path, **kwargs)
    pd.testing.assert_frame_equal(numbers(many)[2:].reset_index(drop=True),
                                  numbers(compare(make_line, policies, seeds=[1], **kwargs)))

def test_what_callbacks_save_is_their_run_s(tmp_path, monkeypatch):
    from fastai.callback.tracker import SaveModelCallback
    monkeypatch.chdir(tmp_path)
    make = lambda seed: make_with(seed, SaveModelCallback)
    a,b = [compare(make, POLICIES, seeds=2, n_workers=n, **quick) for n in (None, 2)]
    same(a, b)
    assert not a.df.error.any() and not list(tmp_path.iterdir())

@pytest.mark.parametrize('value', [torch.ones(3), 'high', np.ones(3)], ids=str)
def test_a_metric_that_is_no_number(value):
    metric = AvgMetric(named('odd'))
    metric = type('Odd', (AvgMetric,), dict(value=property(lambda self: value)))(named('odd'))
    c = compare(lambda seed: make_line(seed, metrics=metric), POLICIES, seeds=1, **quick)
    assert c.df.error.str.contains("the metric 'odd' must be a number; got").all()

def test_cycles_of_other_functions_are_other_policies(tmp_path):
    go = lambda anneal: compare(make_line, {'a': Cycle([Phase('x', 1., lr=(1., .1, anneal))]), 'b': constant()},
                                seeds=1, out=tmp_path, **quick)
    go(lambda a, b, p: a + (b-a)*p); go(lambda a, b, p: a + (b-a)*p)
    with pytest.raises(ValueError, match='differs in policies'): go(lambda a, b, p: a + (b-a)*p*p)

def test_rates_as_slices_are_the_same_however_they_are_typed(tmp_path):
    go = lambda lr: compare(make_two, POLICIES, seeds=1, n_epoch=1, lr_max=lr, out=tmp_path, with_bar=False)
    for lr in (slice(1, 2), slice(1., np.float64(2))): go(lr)
    with pytest.raises(ValueError, match='differs in lr_max'): go(slice(1, 3))

def test_data_of_which_no_part_can_be_held_out(tmp_path):
    from fastai.tabular.all import TabularDataLoaders, tabular_learner
    df = pd.DataFrame(dict(x=np.arange(64.), y=np.arange(64.)))
    dls = TabularDataLoaders.from_df(df, cont_names=['x'], y_names='y', bs=8, valid_idx=list(range(16)))
    make = lambda seed: tabular_learner(dls, layers=[4], lr=.01)
    assert not compare(make, POLICIES, n_epoch=1, seeds=1, with_bar=False).df.error.any()
    with pytest.raises(ValueError, match="tune must be None: no part of the training set can be held out; got A"):
        compare(make, POLICIES, n_epoch=1, seeds=1, tune=[.1, .2], out=tmp_path/'out', with_bar=False)
    assert not (tmp_path/'out').exists()

def test_batches_that_differ_each_time_tell_nothing(tmp_path):
    "A loader whose order is not the seed's: it can't be known whether it is the same, so it is not refused"
    made = []
    def make(seed):
        made.append(seed)
        return make_shifted(seed, by=float(len(made)))
    for n in (1, 2): compare(make, POLICIES, seeds=n, out=tmp_path, **quick)
    assert json.loads((tmp_path/'comparison.json').read_text())['batches'] is None

@pytest.mark.parametrize('again', [dict(metric='train_loss'), dict(higher=True)], ids=str)
def test_rates_in_a_record_are_those_that_were_trained(again, tmp_path):
    "Also if another reading chooses other rates in the folder of a comparison that was tuned"
    tuned = dict(n_epoch=2, seeds=2, tune=[1e-4, .003, .05], out=tmp_path, with_bar=False)
    first = compare(make_line, POLICIES, **tuned)
    c = compare(make_line, POLICIES, **tuned | again)
    said = {p['name']: p['lr_max'] for p in c.record['policies']}
    for r in c.record['runs']:
        stem = f'{r["policy"]}-{r["seed"]}-*.npz'
        peaks = [RunHistory.load(p).steps.lr_0.max() for p in (tmp_path/'runs').glob(stem)]
        assert r['lr_max']==said[r['policy']] and any(p==pytest.approx(r['lr_max']) for p in peaks)
    same(compare(make_line, POLICIES, n_epoch=2, seeds=2, lr_max=said, with_bar=False), c)
    same(compare(make_line, POLICIES, **tuned), first)

def test_a_rate_that_no_trial_could_use_is_said():
    with pytest.warns(UserWarning, match="no trial of 'constant' ended well: its lowest rate, 1e\\+12, is used"):
        compare(make_line, POLICIES, n_epoch=2, seeds=1, tune=np.array([1e12, 1e13]), with_bar=False)

@pytest.mark.parametrize('text', ['{"policy": "con', '[]', '{}', 'null', '{"policy": "constant", "seed": 0}'])
def test_a_broken_run_file_is_named(text, tmp_path):
    compare(make_line, POLICIES, seeds=1, out=tmp_path, **quick)
    path = next((tmp_path/'runs').glob('constant-0-*.json'))
    path.write_text(text)
    with pytest.raises(ValueError, match=path.name): compare(make_line, POLICIES, seeds=1, out=tmp_path, **quick)
    (tmp_path/'comparison.json').write_text(text[:5])
    with pytest.raises(ValueError, match='comparison.json'):
        compare(make_line, POLICIES, seeds=1, out=tmp_path, **quick)

def test_keywords_that_nobody_takes():
    with pytest.raises(TypeError, match="compare.*foo"): compare(make_line, POLICIES, foo=1, **quick)

def test_plots_draw_what_was_asked(tmp_path):
    import matplotlib.pyplot as plt
    c = compare(make_line, POLICIES, seeds=3, **quick)
    axs = plt.subplots(1, 2)[1]
    got = c.plot(axs)
    assert (got is axs and 'valid_loss' in axs[0].get_ylabel()
            and np.allclose(axs[0].lines[0].get_ydata(), c.outcomes.iloc[0]))
    s = c.summary()
    assert (axs[1].containers[0].lines[0].get_xdata()==pytest.approx(s.gain.iloc[1])
            and '1cycle: ' in axs[1].get_yticklabels()[0].get_text())
    ax = c.plot_curves('train_loss')
    assert np.allclose(ax.lines[0].get_ydata(), c.record['runs'][0]['curves']['train_loss'])
    assert len(c.plot_grads())==2

def test_the_record_is_the_comparison(tmp_path):
    c = compare(make_line, POLICIES, seeds=2, out=tmp_path, situation={'data': 'a line'}, **quick)
    other = read_record(tmp_path)
    assert (other.record==c.record==json.loads((tmp_path/'record.json').read_text())
            and other.record['situation']['data']=='a line')
    same(other, c)
    assert (c.record['situation']['optimizer']=='SGD(mom=0.9)'
            and c.record['budget']=={'n_epoch': 2, 'n_batches': 20, 'n_steps': 20, 'n_threads': 1})

class TwoLayers(torch.nn.Sequential):
    def __init__(self): super().__init__(torch.nn.Linear(1, 4), torch.nn.ReLU(), torch.nn.Linear(4, 1))

def make_two(seed):
    "Two parameter groups, so that a head can be trained alone"
    return Learner(synth_dbunch(n_train=10, n_valid=2), TwoLayers(), loss_func=MSELossFlat(),
                   opt_func=partial(SGD, mom=.9), lr=.01,
                   splitter=lambda m: [list(m[0].parameters()), list(m[2].parameters())])

def test_lists_of_stages_are_policies_and_every_run_leaves_its_history(tmp_path):
    policies = {'one': one_cycle(), 'B': stages_long(budget=2, base_lr=.05, head_epochs=.5),
                'by hand': lambda learn: learn.fit_one_cycle_ext(2, .05)}
    c = compare(make_two, policies, seeds=2, n_epoch=2, lr_max={'one': .05}, out=tmp_path/'c', with_bar=False)
    assert (c.df.n_steps==20).all() and not c.df.error.notna().any()
    for row in c.df.itertuples():
        h = RunHistory.load(*(tmp_path/'c'/'runs').glob(f'{row.policy.replace(" ", "_")}-{row.seed}-*.npz'))
        assert len(h)==20 and h.epochs.valid_loss.iloc[-1]==row.valid_loss and len(h.grads)
        if row.policy=='B': assert h.stages.stage.tolist()==['head', 'all'] and h.stages.n_steps.tolist()==[5, 15]

def test_a_history_without_gradients(tmp_path):
    compare(make_line, POLICIES, seeds=1, grads=False, out=tmp_path/'c', **quick)
    h = RunHistory.load(next((tmp_path/'c'/'runs').glob('*.npz')))
    assert len(h)==20 and not len(h.grad_log)

def test_a_guarded_run_counts_as_diverged(tmp_path):
    def guarded(seed):
        learn = make_line(seed)
        return learn.add_cb(DivergenceGuard(skip=2, patience=2, every=2))
    with pytest.warns(UserWarning, match='diverged'):
        c = compare(guarded, {'good': one_cycle(), 'too high': constant()}, n_epoch=2, seeds=1,
                    lr_max={'good': .05, 'too high': 3.}, with_bar=False)
    assert c.df.set_index('policy').diverged.to_dict()=={'good': False, 'too high': True}

def test_a_run_that_was_rewound_is_judged_by_its_end():
    make = lambda seed: make_with(seed, partial(DivergenceGuard, on='rewind', skip=2, patience=2, every=2))
    with pytest.warns(UserWarning, match='diverged'):
        c = compare(make, {'good': one_cycle(), 'too high': constant()}, n_epoch=2, seeds=1,
                    lr_max={'good': .05, 'too high': 3.}, with_bar=False)
    assert not c.df.diverged.any() and (c.df.valid_loss<2).all()

def make_default_loaders(seed):
    "Loaders as fastai makes them, with processes of their own"
    torch.manual_seed(0)
    x = torch.randn(64, 1)
    dls = DataLoaders.from_dsets(TensorDataset(x, 2*x+1), TensorDataset(x, 2*x+1), bs=16, num_workers=2)
    torch.manual_seed(seed)
    return Learner(dls, torch.nn.Linear(1, 1), loss_func=MSELossFlat(), opt_func=partial(SGD, mom=.9), lr=.01)

def test_fastais_own_loaders_with_workers():
    a,b = [compare(make_default_loaders, POLICIES, seeds=1, n_workers=n, **quick) for n in (1, 2)]
    assert not a.df.error.notna().any() and (a.df.n_steps==8).all()
    same(a, b)

def fails(learn): raise OSError('disk full')

def test_when_every_run_fails_that_is_the_result(tmp_path):
    c = compare(make_line, {'a': fails, 'b': fails}, n_epoch=1, seeds=2, with_bar=False)
    assert (c.df.error.tolist()==['OSError: disk full']*4 and c.outcomes.isna().all(axis=None)
            and 'never both ended well' in repr(c))
    assert c.to_html(tmp_path/'x.html') and c.to_markdown(tmp_path/'x.md')

def test_what_failed_is_tried_again(tmp_path):
    def once(learn):
        if not (tmp_path/'there').exists(): raise OSError('disk full')
        learn.fit_one_cycle_ext(2, .05)
    args = dict(n_epoch=2, seeds=1, lr_max={'good': .05}, out=tmp_path/'c', with_bar=False)
    before = compare(make_line, {'good': one_cycle(), 'once': once}, **args)
    (tmp_path/'there').touch()
    after = compare(make_line, {'good': one_cycle(), 'once': once}, **args)
    assert before.df.error.notna().tolist()==[False, True] and after.df.error.notna().tolist()==[False, False]
    assert before.df.seconds[0]==after.df.seconds[0], 'what ended well is not trained again'

def named(name):
    f = lambda inp, targ: torch.tensor(7.)
    f.__name__ = name
    return f

@pytest.mark.parametrize('name', ['error', 'seconds', 'seed', 'time', 'valid_loss', 'a\nb', 'x'*100])
def test_names_that_no_metric_may_have(name):
    with pytest.raises(ValueError, match='the metrics of the learner must have names of one line'):
        compare(lambda seed: make_line(seed, metrics=AvgMetric(named(name))), POLICIES, seeds=1, **quick)

@pytest.mark.parametrize('name,higher', [('accuracy', True), ('error_rate', False), ('perplexity', False),
                                         ('mse', False), ('_rmse', False), ('mae', False), ('RMSE', False),
                                         ('f1_score', True)])
def test_which_way_is_better(name, higher):
    c = compare(lambda seed: make_line(seed, metrics=AvgMetric(named(name))), POLICIES, seeds=1, **quick)
    assert c.record['higher'] is higher

def test_another_rate_of_the_learner_is_another_comparison(tmp_path):
    go = lambda lr: compare(lambda seed: make_line(seed, lr=lr), POLICIES, n_epoch=1, seeds=1, out=tmp_path/'c',
                            with_bar=False)
    go(.01)
    with pytest.raises(ValueError, match='differs in learner'): go(.02)

@pytest.mark.parametrize('change,says', [
    *[(dict(situation=s), 'situation must be a dict of up to 50 names to numbers of up to 1e') for s in (
        {'p': Path('x')}, {'flops': 3e18}, {'flops': 10**18}, {'t': 'x'*20_001}, {'half': '\ud800'}, {'n': [0]*1001},
        {str(i): i for i in range(51)}, {'nan': float('nan')}, {1: 2}, [])],
    (dict(n_workers=0), 'n_workers must be None or'), (dict(seeds=0), r'seeds must be .*; got 0'),
    (dict(policies={'a': fails, 'b': fails}, lr_max=3.), 'lr_max must be None where no policy is a cycle')])
def test_more_bad_input(change, says):
    args = dict(policies=POLICIES, seeds=1) | quick | change
    with pytest.raises(ValueError, match=says): compare(make_line, **args)

@pytest.mark.parametrize('recorder', [dict(train_metrics=True), dict(valid_metrics=False)], ids=str)
def test_a_recorder_of_other_metrics(recorder):
    def make(seed):
        learn = make_line(seed)
        vars(learn.recorder).update(recorder)
        return learn
    with pytest.raises(ValueError, match='the recorder of the learner must have train_metrics=False and valid_metrics'):
        compare(make, POLICIES, seeds=1, **quick)

@pytest.mark.parametrize('loaders', [0, 1], ids=['no', 'an empty'])
def test_no_batches_to_validate_on(loaders):
    def make(seed):
        learn = make_line(seed)
        empty = learn.dls.valid.new(TensorDataset(torch.zeros(0, 1), torch.zeros(0, 1)))
        learn.dls = DataLoaders(learn.dls.train, *[empty]*loaders)
        return learn
    with pytest.raises(ValueError, match='make_learner must give batches to train on and batches to validate on; got'):
        compare(make, POLICIES, seeds=1, **quick)

def test_a_third_loader_may_be_empty():
    def make(seed):
        learn = make_line(seed)
        loaders = learn.dls.loaders
        learn.dls = DataLoaders(*loaders, loaders[1].new(TensorDataset(torch.zeros(0, 1), torch.zeros(0, 1))))
        return learn
    assert not compare(make, POLICIES, seeds=1, **quick).df.error.any()
