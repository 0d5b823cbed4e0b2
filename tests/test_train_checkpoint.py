import math, os, signal, threading, time, pytest, resource, torch
from contextlib import redirect_stdout
from pathlib import Path
from fastai.callback.core import Callback
from fastai.callback.training import GradientAccumulation
from fastai_clr_ext.all import *
from fastai_clr_ext.train.checkpoint import Signals, older_path, write_checkpoint
from fastai_clr_ext.train.contents import read_checkpoint
from conftest import ValidateAt
from resume_helpers import CASES, differences, in_child, make, outcome

@pytest.fixture(autouse=True)
def ctrl_c_interrupts():
    "Where tests run in the background, SIGINT may be ignored"
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)

class After(Callback):
    "Does something after so many batches, behind all others"
    order,run_valid = FitCheckpoint.order+1,False
    def __init__(self, n, do): self.n,self.do,self.count = n,do,0
    def after_batch(self):
        self.count += 1 # a validation within the fit sets fastai's own count to 0
        if self.count==self.n: self.do()

def interrupt(): raise KeyboardInterrupt

class Watch(Callback):
    "Notes after which batches the file has changed"
    order,run_valid = FitCheckpoint.order+2,False
    def __init__(self, path): self.path,self.stamp,self.written = path,None,[]
    def after_batch(self):
        stamp = self.path.stat().st_mtime_ns if self.path.exists() else None
        if stamp!=self.stamp: self.written.append(self.train_iter)
        self.stamp = stamp

def stopped(path, n, *cbs, every=1, learn=None, **kwargs):
    "A fit of three epochs of 7 batches that ends by Ctrl-C after so many"
    learn = make() if learn is None else learn
    with pytest.raises(KeyboardInterrupt):
        learn.fit_one_cycle_ext(3, .05, cbs=[FitCheckpoint(path, every, **kwargs), After(n, interrupt), *cbs])
    return learn

@pytest.mark.parametrize('every,expected', [(1, list(range(1, 22))), (3, [3, 6, 7, 9, 12, 14, 15, 18, 21]),
                                            (100, [1, 7, 14, 21])])
def test_it_writes_after_so_many_batches_and_at_the_end_of_each_epoch(tmp_path, every, expected):
    "and after the first batch, so that a folder that can't be written is found early"
    make().fit_one_cycle_ext(3, .05, cbs=[FitCheckpoint(tmp_path/'a.pt', every), watch := Watch(tmp_path/'a.pt')])
    assert watch.written==sorted({1, *expected})

def test_by_default_it_writes_as_often_as_it_costs_1_percent(tmp_path, monkeypatch):
    "Writing takes a tenth of a second each time, by a clock of our own; a batch takes 3"
    now = 0.
    def clock(): return now
    def write(path, contents, keep):
        nonlocal now
        now += .1
        write_checkpoint(path, contents, keep)
    class Train(Callback):
        run_valid = False
        def before_batch(self):
            nonlocal now
            now += 3
    monkeypatch.setattr('fastai_clr_ext.train.checkpoint.time.perf_counter', clock)
    monkeypatch.setattr('fastai_clr_ext.train.checkpoint.write_checkpoint', write)
    watch = Watch(tmp_path/'a.pt')
    make().fit(3, .05, cbs=[FitCheckpoint(tmp_path/'a.pt'), Train(), watch])
    assert watch.written==[1, 5, 9, 13, 17, 21], 'after ten seconds: four batches; and at the end'

def test_it_waits_for_a_step_where_gradients_are_accumulated(tmp_path):
    watch = Watch(tmp_path/'a.pt')
    make().fit(2, .05, cbs=[FitCheckpoint(tmp_path/'a.pt', 1), GradientAccumulation(12), watch])
    assert watch.written==[3, 6, 9, 12], 'every third batch steps'

@pytest.mark.parametrize('case', CASES)
def test_a_fit_is_what_it_would_be_without(tmp_path, monkeypatch, case):
    monkeypatch.chdir(tmp_path)
    case,results = CASES[case],[]
    for cbs in ([], [FitCheckpoint('run.pt', every=2)]):
        learn = case.make()
        case.train(learn, [*cbs, *case.cbs()])
        results.append(outcome(learn))
    assert differences(*results)==[]

def test_a_file_runs_no_code(tmp_path):
    "torch reads it without classes, and a file with one is refused"
    stopped(tmp_path/'a.pt', 5)
    torch.load(tmp_path/'a.pt', weights_only=True)
    torch.save({'format': 1, 'run': Path('.')}, tmp_path/'bad.pt')
    with pytest.raises(ValueError, match='path must be a file that FitCheckpoint wrote, whole; got .*bad.pt'):
        make().resume_fit(tmp_path/'bad.pt')

@pytest.mark.parametrize('damage', [lambda data: data[:len(data)//2], lambda data: b'', lambda data: b'not ours'])
def test_a_damaged_file_is_named(tmp_path, damage):
    path = tmp_path/'a.pt'
    stopped(path, 5)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=f'path must be a file that FitCheckpoint wrote.*{path}'):
        make().resume_fit(path)

def test_older_files_are_kept(tmp_path):
    path = tmp_path/'a.pt'
    stopped(path, 6, keep=4)
    places = [read_checkpoint(p)['batch'] for p in (path, *[older_path(path, n) for n in (1, 2, 3)])]
    assert places==[6, 5, 4, 3]
    assert sorted(p.name for p in tmp_path.iterdir())==['a-1.pt', 'a-2.pt', 'a-3.pt', 'a.pt']

def test_older_files_are_kept_without_links(tmp_path, monkeypatch):
    def no_links(*args): raise OSError('no links here')
    monkeypatch.setattr(os, 'link', no_links)
    test_older_files_are_kept(tmp_path)

def die_while_writing(path):
    "Write once, and be killed in the middle of the second time"
    def half(contents, f):
        write = save(contents, f)
        if f.tell() and path.exists():
            f.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        return write
    save,torch.save = torch.save,half
    stopped(path, 6)

def test_a_kill_while_writing_leaves_the_file_before(tmp_path):
    path = tmp_path/'a.pt'
    assert in_child(die_while_writing, path)==-signal.SIGKILL
    assert read_checkpoint(path)['batch']==1 and len(list(tmp_path.iterdir()))==2
    make().resume_fit(path, After(0, interrupt))
    assert [p.name for p in tmp_path.iterdir()]==['a.pt'], 'what the kill left is removed'

def fill_the_disk(path):
    "Train where no file may be larger than 200 kB, after a checkpoint was written"
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    learn = make(cbs=GradRecorder())
    def limit(): resource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.RLIM_INFINITY))
    with pytest.warns(UserWarning, match='could not be written: .*the training goes on, and what was written before'):
        learn.fit_one_cycle_ext(3, .05, cbs=[FitCheckpoint(path, 1), After(4, limit)])
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    after = outcome(learn)
    whole = make(cbs=GradRecorder())
    whole.fit_one_cycle_ext(3, .05)
    assert differences(outcome(whole), after)==[] and read_checkpoint(path)['batch']==4

def test_a_full_disk_warns_and_trains_on(tmp_path): assert in_child(fill_the_disk, tmp_path/'a.pt')==0

def test_a_run_that_has_not_ended_is_not_replaced(tmp_path):
    path = tmp_path/'a.pt'
    stopped(path, 5)
    for cbs in (FitCheckpoint(path), [FitCheckpoint(path)]):
        learn = make()
        with pytest.raises(ValueError, match='path must be a new file, or one of a run that has ended'):
            learn.fit_one_cycle_ext(1, .05, cbs=cbs)
        assert learn.opt is None
    with pytest.raises(ValueError, match='has ended'): make().fit(1, cbs=FitCheckpoint(path))
    make().fit_one_cycle_ext(1, .05, cbs=FitCheckpoint(path, overwrite=True))
    make().fit_one_cycle_ext(1, .05, cbs=FitCheckpoint(path))
    assert read_checkpoint(path)['has_ended']

def test_one_callback_writes_for_all_fits_of_a_learner(tmp_path):
    learn = make(cbs=FitCheckpoint(tmp_path/'a.pt', 1))
    ids = set()
    for _ in range(2):
        learn.fit_one_cycle_ext(1, .05)
        learn.fit(1)
        ids.add(read_checkpoint(tmp_path/'a.pt')['run']['id'])
    assert len(ids)==2

@pytest.mark.parametrize('event', ['after_epoch', 'before_epoch'])
def test_a_validation_within_the_fit_changes_nothing(tmp_path, event):
    stopped(tmp_path/'a.pt', 10, ValidateAt(event))
    assert read_checkpoint(tmp_path/'a.pt')['epoch']==1 and read_checkpoint(tmp_path/'a.pt')['batch']==3

def test_lr_find_writes_nothing(tmp_path):
    learn = make(cbs=FitCheckpoint(tmp_path/'a.pt', 1))
    with redirect_stdout(None): learn.lr_find(num_it=20, show_plot=False)
    assert not (tmp_path/'a.pt').exists()
    learn.fit_one_cycle_ext(1, .05)
    assert (tmp_path/'a.pt').exists()

def test_a_cycle_that_has_no_name_in_a_file_is_refused_before_the_first_batch(tmp_path):
    learn = make()
    with pytest.raises(ValueError, match='be a name or a function with a name to be written to a file'):
        learn.fit_one_cycle_ext(1, .05, anneal=lambda start,end,pos: start, cbs=FitCheckpoint(tmp_path/'a.pt'))
    assert learn.opt is None

def slow_fit(path, n_workers):
    "A fit that takes a second"
    class Slow(Callback):
        run_valid = False
        def after_loss(self):
            if self.train_iter==3: (path.parent/'ready').touch()
            if self.train_iter>=3: time.sleep(.2)
    learn = CASES['workers' if n_workers else 'sgd'].make()
    learn.fit_one_cycle_ext(3, .05, cbs=[FitCheckpoint(path, 100), Slow()])

def signalled(path, number, n_workers=0, to_workers=False):
    "Send a signal into the fit; the exit code of its process"
    def run():
        os.setsid()
        with open(os.devnull, 'w') as null: os.dup2(null.fileno(), 2)
        slow_fit(path, n_workers)
    pid = os.fork()
    if not pid:
        try: run()
        except KeyboardInterrupt: os._exit(130)
        os._exit(0)
    while not (path.parent/'ready').exists(): time.sleep(.01)
    (os.killpg if to_workers else os.kill)(pid, number)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

@pytest.mark.parametrize('number,code', [(signal.SIGTERM, -signal.SIGTERM), (signal.SIGINT, 130)])
@pytest.mark.parametrize('n_workers,to_workers', [(0, False), (2, False), (2, True)])
def test_a_signal_waits_for_the_batch_and_then_acts(tmp_path, number, code, n_workers, to_workers):
    "Nothing is lost: the batch that was trained when it came is in the file"
    assert signalled(tmp_path/'a.pt', number, n_workers, to_workers)==code
    held = read_checkpoint(tmp_path/'a.pt')
    assert (held['epoch'], held['batch'])==(0, 4)

def test_signals_act_as_before_outside_training(tmp_path):
    "Handlers are what they were, however the fit ends"
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    learn = make()
    learn.fit_one_cycle_ext(1, .05, cbs=FitCheckpoint(tmp_path/'a.pt'))
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]==before
    stopped(tmp_path/'a.pt', 3)
    with pytest.raises(KeyboardInterrupt): signal.raise_signal(signal.SIGINT)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]==before

def test_signals_act_as_before_once_an_error_has_ended_the_fit(tmp_path):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    def fail(): raise OSError('a batch that fails')
    with pytest.raises(OSError, match='a batch that fails'):
        make().fit_one_cycle_ext(1, .05, cbs=[FitCheckpoint(tmp_path/'a.pt', 1), After(3, fail)])
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]==before

class Lost(Callback):
    "The loss is NaN from the fourth batch on"
    def after_loss(self):
        if self.training and self.train_iter>=3: self.learn.loss = self.learn.loss_grad = self.learn.loss_grad*math.nan

def test_a_run_whose_first_stage_is_stopped_has_ended(tmp_path):
    "No stage follows a divergence, so that nothing is left to go on with"
    cbs = [FitCheckpoint(tmp_path/'a.pt', 1), Lost(), DivergenceGuard(every=1)]
    with pytest.warns(UserWarning, match='diverged'):
        make().fit_stages([Stage('a', 1, .05, -1), Stage('b', 1, .05)], cbs)
    assert read_checkpoint(tmp_path/'a.pt')['has_ended']

def test_a_second_signal_acts_at_once(mlp):
    class TwoSignals(Callback):
        def before_fit(self):
            signals = Signals(self.learn)
            signals.hold()
            signal.raise_signal(signal.SIGINT)
            self.held = True
            signal.raise_signal(signal.SIGINT)
    learn = mlp(cbs=TwoSignals())
    with pytest.raises(KeyboardInterrupt): learn.fit(1)
    assert learn.two_signals.held

def test_it_works_in_a_thread(tmp_path):
    errors = []
    def run():
        try: make().fit_one_cycle_ext(1, .05, cbs=FitCheckpoint(tmp_path/'a.pt'))
        except BaseException as e: errors.append(e)
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert not errors and (tmp_path/'a.pt').exists()

def test_no_file_of_another_run_is_shifted_away(tmp_path):
    "`run-1.pt` may be the newest file of a run of that name, or no checkpoint at all"
    stopped(tmp_path/'run-1.pt', 5)
    with pytest.raises(ValueError, match='be a new file, or one of a run that has ended.*run-1.pt'):
        make().fit_one_cycle_ext(1, .05, cbs=FitCheckpoint(tmp_path/'run.pt', keep=2))
    (tmp_path/'run-1.pt').write_text('mine')
    with pytest.raises(ValueError, match='wrote.*run-1.pt.*overwrite=True replaces it'):
        make().fit_one_cycle_ext(1, .05, cbs=FitCheckpoint(tmp_path/'run.pt', keep=2))

def test_a_learners_own_checkpoint_is_refused_before_the_fit_begins(tmp_path):
    "Ctrl-C, then the same cell again"
    learn = make(cbs=FitCheckpoint(tmp_path/'a.pt', 1))
    with pytest.raises(KeyboardInterrupt): learn.fit_one_cycle_ext(1, .05, cbs=After(3, interrupt))
    with pytest.raises(ValueError, match='^path must be a new file'): learn.fit_one_cycle_ext(1, .05)

def test_a_lazy_model_can_be_written(tmp_path):
    def lazy(): return torch.nn.Sequential(torch.nn.LazyLinear(4), torch.nn.ReLU(), torch.nn.Linear(4, 1))
    def make_learner():
        learn = make(splitter=lambda m: [list(m.parameters())])
        learn.model = lazy()
        return learn
    learn = make_learner()
    learn.fit(1, .05, cbs=FitCheckpoint(tmp_path/'a.pt', 1))
    assert read_checkpoint(tmp_path/'a.pt')['has_ended']
