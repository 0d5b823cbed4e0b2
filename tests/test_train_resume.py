import random, pytest, torch
from collections import Counter, defaultdict, deque
from functools import cache, partial
from pathlib import Path
from tempfile import mkdtemp
import numpy as np
from fastai.callback.core import Callback
from fastai.callback.mixup import CutMix, MixUp
from fastai.callback.progress import CSVLogger
from fastai.callback.tracker import SaveModelCallback
from fastai.data.core import DataLoaders, TfmdDL
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat
from fastai.optimizer import Adam
from fastai.torch_core import set_seed
from torch.utils.data import TensorDataset
from fastai_clr_ext.all import *
from fastai_clr_ext.train.contents import read_checkpoint
from fastai_clr_ext.train.resume import Place, same_fraction
from resume_helpers import CASES, STAGES, KillAt, Noisy, begin, differences, go_on, in_child, loaders, make, net
from resume_helpers import outcome, quiet, whole
from test_train_checkpoint import After, interrupt, stopped

NO_KILL = 10**9

@cache
def trained_whole(case):
    "The outcome of a training that nothing interrupts, and how many events it has"
    folder = Path(mkdtemp())
    assert in_child(whole, case, folder)==0
    return torch.load(folder/'outcome.pt', weights_only=False)

POINTS = [(case, i) for case in CASES for i in range(2 if case in ('workers', 'language model') else 3)]

@pytest.mark.parametrize('case,i', POINTS, ids=[f'{case}, kill {i}' for case,i in POINTS])
def test_a_killed_training_comes_out_bit_for_bit(tmp_path, monkeypatch, case, i):
    "kill -9 at a random event; every other one is killed again after the resume"
    rng = random.Random(f'{case} {i}')
    path,order = tmp_path/'run.pt',rng.choice([-100, 10**6])
    expected = trained_whole(case)
    n = rng.randint(30, expected['n_events']-40)
    assert in_child(begin, case, path, rng.choice([None, 1, 3, 5]), KillAt(n, order), tmp_path)==-9
    if i%2: in_child(go_on, case, path, KillAt(rng.randint(40, 80), order), tmp_path)
    assert in_child(go_on, case, path, KillAt(NO_KILL, order), tmp_path)==0
    after = torch.load(tmp_path/'outcome.pt', weights_only=False)
    assert differences({**expected, 'n_events': 0}, {**after, 'n_events': 0})==[]

def test_there_are_forty_points(): assert len(POINTS)>=40

class RaiseIn(Callback):
    "Raises Ctrl-C in an event of the second epoch, before or behind the others; in its third batch if it has several"
    def __init__(self, event=None, order=0): self.event,self.order,self.count = event,order,0
    def __call__(self, name):
        if name!=self.event or self.learn.epoch!=1: return
        self.count += 1
        if self.count==(3 if name in OF_BATCHES else 1): raise KeyboardInterrupt

OF_BATCHES = ['before_batch', 'after_pred', 'after_loss', 'before_backward', 'before_step', 'after_step', 'after_batch']
OF_EPOCHS = ['before_epoch', 'before_train', 'after_train', 'before_validate', 'after_validate', 'after_epoch']

@pytest.mark.parametrize('order', [-1000, 10**6], ids=['before others', 'behind others'])
@pytest.mark.parametrize('event', OF_BATCHES+OF_EPOCHS)
def test_ctrl_c_in_any_event(tmp_path, event, order):
    path = tmp_path/'run.pt'
    with pytest.raises(KeyboardInterrupt):
        make().fit_one_cycle_ext(3, .05, cbs=[FitCheckpoint(path, 1), RaiseIn(event, order)])
    held = read_checkpoint(path)
    n_batch = 7 if event in OF_EPOCHS else 3 if event=='after_batch' and order>0 else 2
    assert (held['epoch'], held['batch'])==((0, 7) if event in OF_EPOCHS[:2] else (1, n_batch))
    learn = make()
    set_seed(9)
    learn.resume_fit(path, RaiseIn())
    assert differences(trained_whole('sgd') | dict(n_events=0), outcome(learn) | dict(n_events=0))==[]

def test_an_error_in_a_data_worker(tmp_path):
    class Breaks(Noisy):
        def __getitem__(self, i):
            if Path(tmp_path/'break').exists(): raise OSError('the disk of the data is gone')
            return super().__getitem__(i)
    def make_learner():
        def breaking(): return DataLoaders(TfmdDL(Breaks(28), bs=4, shuffle=True, num_workers=2), loaders().valid)
        return make(breaking)
    expected = make_learner()
    expected.fit_one_cycle_ext(3, .05)
    expected = outcome(expected)
    broken,path = make_learner(),tmp_path/'run.pt'
    with pytest.raises(OSError, match='the disk of the data is gone'):
        broken.fit_one_cycle_ext(3, .05, cbs=[FitCheckpoint(path, 2), After(9, (tmp_path/'break').touch)])
    (tmp_path/'break').unlink()
    learn = make_learner()
    learn.resume_fit(path, After(0, interrupt))
    assert differences(expected, outcome(learn))==[]

CHANGED = {
    'batch size': (lambda: make(partial(loaders, bs=7)), r"n_iter: 7 before, 4 now.*bs: 4 before, 7 now"),
    'data': (lambda: make(partial(loaders, n=40)), r'n_iter: 7 before, 10 now.*n_items: 28 before, 40 now'),
    'items': (lambda: make(partial(loaders, n=27)), r"n_items: 28 before, 27 now"),
    'workers': (lambda: make(partial(loaders, n_workers=1)), r'num_workers: 0 before, 1 now'),
    'model': (lambda: changed_model(), r"model, optimizer and loss.*model: \['0.weight', \[8, 2\]\] before"),
    'optimizer': (lambda: make(opt_func=Adam), r"model, optimizer and loss.*opt: 'SGD' before, 'Adam' now"),
    'groups': (lambda: make(splitter=lambda m: [list(m.parameters())]), r'group_sizes: '),
    'loss': (lambda: make(loss_func=torch.nn.L1Loss()), r"loss_func: 'MSELoss' before, 'L1Loss' now"),
}

def changed_model():
    learn = make()
    learn.model = torch.nn.Sequential(*[torch.nn.Linear(2, 9), torch.nn.BatchNorm1d(9), *list(net())[2:4],
                                        torch.nn.Linear(9, 1)])
    return learn

@pytest.mark.parametrize('what', CHANGED)
def test_what_has_changed_is_named_and_nothing_is_changed(tmp_path, what):
    stopped(tmp_path/'run.pt', 10)
    make_changed,match = CHANGED[what]
    learn = make_changed()
    weights,history = {k: v.clone() for k,v in learn.model.state_dict().items()},learn.recorder.history
    with pytest.raises(ValueError, match=match): learn.resume_fit(tmp_path/'run.pt', After(0, interrupt))
    assert differences(weights, learn.model.state_dict())==[] and learn.opt is None
    assert learn.recorder.history is history and 'all_batches' not in vars(learn)

def test_versions_that_have_changed_are_named(tmp_path, monkeypatch):
    stopped(tmp_path/'run.pt', 10)
    monkeypatch.setattr('fastai_clr_ext.train.facts.versions', lambda: dict(torch='99'))
    with pytest.raises(ValueError, match='versions: '): make().resume_fit(tmp_path/'run.pt', After(0, interrupt))

def test_callbacks_that_are_missing_are_named(tmp_path):
    stopped(tmp_path/'run.pt', 10, CSVLogger(tmp_path/'a.csv'))
    with pytest.raises(ValueError, match=r"callbacks that only that fit was given.*none of \['After', 'CSVLogger'\]"):
        make().resume_fit(tmp_path/'run.pt')

def test_another_history_is_not_lost(tmp_path):
    stopped(tmp_path/'run.pt', 10)
    learn = make()
    learn.fit_one_cycle_ext(1, .05)
    with pytest.raises(ValueError, match='learn.recorder.history must be empty or of the run that goes on'):
        learn.resume_fit(tmp_path/'run.pt', After(0, interrupt))
    learn.recorder.history = RunHistory()
    learn.resume_fit(tmp_path/'run.pt', After(0, interrupt))

def test_the_same_learner_may_go_on(tmp_path):
    "After Ctrl-C in a notebook: rows behind the checkpoint are trained again"
    learn = stopped(tmp_path/'run.pt', 10, every=4)
    assert len(learn.recorder.history)==10
    learn.resume_fit(tmp_path/'run.pt', After(0, interrupt))
    assert differences(trained_whole('sgd') | dict(n_events=0), outcome(learn) | dict(n_events=0))==[]

@pytest.mark.parametrize('args,words', [
    (dict(path='missing.pt'), 'path must be a file that FitCheckpoint wrote'),
    (dict(n_epoch=0), 'n_epoch must be a whole number of epochs'),
    (dict(n_epoch=4), 'n_epoch: 3 before, 4 now'),
    (dict(rescale='yes'), 'rescale must be True or False'),
    (dict(stage_cbs=[]), 'stage_cbs must be a dict or None'),
    (dict(cbs=3), 'cbs must be Callbacks')], ids=str)
def test_wrong_arguments(tmp_path, args, words):
    stopped(tmp_path/'run.pt', 10)
    with pytest.raises(ValueError, match=words):
        make().resume_fit(**dict(path=tmp_path/'run.pt', cbs=After(0, interrupt)) | args)

@pytest.mark.parametrize('n_epoch,n_iter,expected', [
    (3, 7, (1, 3)), (3, 14, (1, 6)), (6, 7, (2, 6)), (3, 4, (1, 2)), (1, 1, (0, 1)), (30, 70, (14, 20))])
def test_the_same_fraction(n_epoch, n_iter, expected):
    "10 of 21 batches were trained: by hand, 10/21 of the new number, and the batch within its epoch"
    saved = dict(epoch=1, batch=3, run=dict(n_epoch=3, n_iter=7))
    assert same_fraction(saved, None, None, n_epoch, n_iter)==Place(*expected, None)

class Rates(Callback):
    "Notes place and rate of each batch"
    order,run_valid = 1000,False
    def before_fit(self): self.rows = []
    def before_step(self): self.rows.append((self.learn.epoch, self.learn.iter, self.learn.opt.hypers[-1]['lr']))

@pytest.mark.parametrize('changed,args', [(partial(loaders, bs=2), {}), (loaders, dict(n_epoch=6)),
                                          (partial(loaders, n_workers=1), {})])
def test_a_changed_run_goes_on_at_the_same_fraction(tmp_path, changed, args):
    "The rest of the cycle is what the table of the new run says"
    stopped(tmp_path/'run.pt', 10)
    learn,rates = make(changed),Rates()
    n_epoch,n_iter = args.get('n_epoch', 3),len(learn.dls.train)
    n = n_epoch*n_iter
    learn.resume_fit(tmp_path/'run.pt', [After(0, interrupt), rates], rescale=True, **args)
    n_before = round(10/21*n)
    assert [lr for _,_,lr in rates.rows]==one_cycle().table(n, .05)['lr'][n_before:].tolist()
    assert [divmod(i, n_iter) for i in range(n_before, n)]==[(epoch, i) for epoch,i,_ in rates.rows]
    history = learn.recorder.history
    assert history.fits.n_batches.tolist()==[10, n-n_before] and len(learn.recorder.losses)==10+n-n_before
    assert abs(learn.pct_train-1)<1e-9 and read_checkpoint(tmp_path/'run.pt')['has_ended']

def test_a_changed_run_can_be_killed_and_go_on_too(tmp_path):
    stopped(tmp_path/'run.pt', 10)
    results = []
    for n_killed in (0, 13):
        path = tmp_path/f'run{n_killed}.pt'
        path.write_bytes((tmp_path/'run.pt').read_bytes())
        learn = make(partial(loaders, bs=2))
        set_seed(4)
        if n_killed:
            with pytest.raises(KeyboardInterrupt):
                learn.resume_fit(path, [After(n_killed, interrupt), FitCheckpoint(path, 1)], rescale=True)
            learn = make(partial(loaders, bs=2))
            learn.resume_fit(path, After(0, interrupt))
        else: learn.resume_fit(path, After(0, interrupt), rescale=True)
        results.append(outcome(learn))
    assert differences(*results)==[]

def test_a_run_of_stages_has_no_other_number_of_epochs(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        make().fit_stages(STAGES, [FitCheckpoint(tmp_path/'run.pt', 1), After(5, interrupt)])
    with pytest.raises(ValueError, match='n_epoch must be None for a run of stages; got 5'):
        make().resume_fit(tmp_path/'run.pt', After(0, interrupt), n_epoch=5, rescale=True)

@pytest.mark.parametrize('n,expected', [(5, [5, 11, 28]), (9, [9, 4, 28]), (15, [11, 4, 20])])
def test_stages_of_a_changed_run_go_on_at_the_same_fraction(tmp_path, n, expected):
    "Stages of 11 and 14 batches, then of 21 and 28: a batch size of 2 makes 14 of an epoch's 7"
    with pytest.raises(KeyboardInterrupt):
        make().fit_stages(STAGES, [FitCheckpoint(tmp_path/'run.pt', 1), After(n, interrupt)])
    learn = make(partial(loaders, bs=2))
    learn.resume_fit(tmp_path/'run.pt', After(0, interrupt), rescale=True)
    assert learn.recorder.history.fits.n_batches.tolist()==expected

def test_stages_have_callbacks_of_their_own(tmp_path):
    "Those of one stage are given by its name"
    path = tmp_path/'run.pt'
    def stages(): return [Stage('head', 1, .05, -1, cbs=Rates()), Stage('all', 2, .05)]
    with pytest.raises(KeyboardInterrupt): make().fit_stages(stages(), [FitCheckpoint(path, 1), After(10, interrupt)])
    make().resume_fit(path, After(0, interrupt))
    with pytest.raises(KeyboardInterrupt):
        make().fit_stages(stages(), [FitCheckpoint(path, 1), After(5, interrupt)])
    with pytest.raises(ValueError, match=r"none of \['Rates'\]"): make().resume_fit(path, After(0, interrupt))
    with pytest.raises(ValueError, match=r"stage_cbs must name stages, of which there are \['head', 'all'\]"):
        make().resume_fit(path, After(0, interrupt), stage_cbs={'tail': Rates()})
    rates = Rates()
    make().resume_fit(path, After(0, interrupt), stage_cbs={'head': rates})
    assert len(rates.rows)==7

def test_a_history_that_is_saved_goes_on_in_its_file(tmp_path):
    "The file is ahead of the checkpoint when the process is killed"
    def cbs(): return [SaveHistory(tmp_path/'run.npz', every=1), After(0, interrupt)]
    with pytest.raises(KeyboardInterrupt):
        make().fit_one_cycle_ext(3, .05, cbs=[FitCheckpoint(tmp_path/'run.pt', 4), SaveHistory(tmp_path/'run.npz', 1),
                                              After(10, interrupt)])
    assert len(RunHistory.load(tmp_path/'run.npz'))==10
    make().resume_fit(tmp_path/'run.pt', cbs())
    history = RunHistory.load(tmp_path/'run.npz')
    assert differences(trained_whole('sgd')['steps'], history.steps)==[]

def test_rows_are_sent_once(tmp_path):
    class Writer:
        "Stands for TensorBoard's"
        def __init__(self): self.steps = []
        def add_scalar(self, name, value, step, *args, **kwargs):
            if name.endswith('loss'): self.steps.append(step)
        def add_histogram_raw(self, *args, **kwargs): pass
        def flush(self): pass
    first,second = Writer(),Writer()
    stopped(tmp_path/'run.pt', 10, ForwardHistory(every=1, writer=first), every=1)
    make().resume_fit(tmp_path/'run.pt', [After(0, interrupt), ForwardHistory(every=1, writer=second)])
    assert sorted({*first.steps})==list(range(10)) and sorted({*second.steps})==list(range(10, 21))

def test_a_run_that_has_ended_trains_nothing(tmp_path):
    learn = make()
    learn.fit_one_cycle_ext(2, .05, cbs=FitCheckpoint(tmp_path/'run.pt'))
    expected = outcome(learn)
    again = make()
    again.resume_fit(tmp_path/'run.pt', rates := Rates())
    assert rates.rows==[] and differences(expected, outcome(again))==[]

def test_the_best_of_all_is_loaded_at_the_end(tmp_path, monkeypatch):
    "The best epoch was before the kill: its file is loaded, and its value known"
    monkeypatch.chdir(tmp_path)
    class Worse(Callback):
        "Spoils the metric of later epochs"
        order = 55 # between `Recorder` and trackers
        def after_epoch(self): self.learn.recorder.values[-1][-1] += self.learn.epoch
    def cbs(): return [SaveModelCallback('mae', comp=np.less), Worse()]
    whole_run = make(path=tmp_path)
    whole_run.fit_one_cycle_ext(3, .05, cbs=cbs())
    stopped('run.pt', 16, *cbs(), learn=make(path=tmp_path))
    learn = make(path=tmp_path)
    learn.resume_fit('run.pt', [After(0, interrupt), *cbs()])
    assert differences(whole_run.model.state_dict(), learn.model.state_dict())==[]

def test_it_goes_on_writing_the_same_file(tmp_path):
    "with the same `every` and `keep`, so that it can be killed again"
    stopped(tmp_path/'run.pt', 8, keep=2)
    with pytest.raises(KeyboardInterrupt): make().resume_fit(tmp_path/'run.pt', After(12, interrupt))
    held = read_checkpoint(tmp_path/'run.pt')
    assert (held['epoch'], held['batch'], held['run']['every'])==(1, 6, 1) and (tmp_path/'run-1.pt').exists()

def gentle(start, end, pos): return start + (end-start)*pos**2

def test_a_callable_annealer_is_given_again(tmp_path):
    cycle = Cycle([Phase('up', .5, lr=(.1, 1), anneal=gentle), Phase('down', .5, lr=(1, 0))])
    with pytest.raises(KeyboardInterrupt):
        make().fit_one_cycle_ext(3, .05, sched=cycle, cbs=[FitCheckpoint(tmp_path/'run.pt', 1), After(10, interrupt)])
    with pytest.raises(ValueError, match="annealers must have the callable 'gentle'"):
        make().resume_fit(tmp_path/'run.pt', After(0, interrupt))
    rates = Rates()
    make().resume_fit(tmp_path/'run.pt', [After(0, interrupt), rates], annealers={'gentle': gentle})
    assert [lr for _,_,lr in rates.rows]==cycle.table(21, .05)['lr'][10:].tolist()

@pytest.mark.parametrize('n_workers', [0, 2])
@pytest.mark.parametrize('n', [8, 9, 10])
def test_a_part_of_an_epoch_goes_on(tmp_path, n, n_workers):
    "The first stage has an epoch and a half: 11 batches"
    def make_learner(): return make(partial(loaders, n_workers=n_workers))
    path,results = tmp_path/'run.pt',[]
    whole_run = make_learner()
    whole_run.fit_stages(STAGES)
    results.append(outcome(whole_run))
    cbs = [FitCheckpoint(path, 1), After(n, interrupt)]
    with pytest.raises(KeyboardInterrupt): make_learner().fit_stages(STAGES, cbs)
    learn = make_learner()
    learn.resume_fit(path, After(0, interrupt))
    results.append(outcome(learn))
    assert differences(*results)==[]

@pytest.mark.parametrize('mix', [MixUp, CutMix])
def test_a_loss_that_is_mixed_is_the_learners(tmp_path, mix):
    "`MixUp` puts a method of its own in the place of the loss, for a fit"
    def make_learner():
        set_seed(3)
        items = TensorDataset(torch.rand(28, 1, 4, 4), torch.arange(28)%2)
        dls = DataLoaders(TfmdDL(items, bs=4, shuffle=True, num_workers=0), TfmdDL(items, bs=4, num_workers=0))
        return quiet(Learner(dls, torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 2)),
                             loss_func=CrossEntropyLossFlat()))
    whole_run = make_learner()
    whole_run.fit_one_cycle_ext(3, .05, cbs=mix())
    expected = outcome(whole_run)
    stopped(tmp_path/'run.pt', 10, mix(), learn=make_learner())
    learn = make_learner()
    learn.resume_fit(tmp_path/'run.pt', [After(0, interrupt), mix()])
    assert differences(expected, outcome(learn))==[]

class RunningLoss(torch.nn.Module):
    "Keeps a mean of its own, in a buffer and in a number"
    def __init__(self):
        super().__init__()
        self.register_buffer('mean', torch.zeros(1))
        self.n = 0
    def forward(self, pred, targ):
        if pred.requires_grad:
            self.mean = .9*self.mean + .1*pred.detach().mean()
            self.n += 1
        return ((pred.view(-1)-targ.view(-1))**2).mean()*(1+self.mean.item()**2+.01*self.n)

def test_a_loss_keeps_what_it_has_learned(tmp_path):
    whole_run = make(loss_func=RunningLoss())
    whole_run.fit_one_cycle_ext(3, .05)
    expected = outcome(whole_run)
    stopped(tmp_path/'run.pt', 10, learn=make(loss_func=RunningLoss()))
    learn = make(loss_func=RunningLoss())
    learn.resume_fit(tmp_path/'run.pt', After(0, interrupt))
    assert differences(expected, outcome(learn))==[]

class Predict(Callback):
    "Predicts after each epoch"
    busy = False
    def after_epoch(self):
        if self.busy: return
        self.busy = True
        self.learn.get_preds(ds_idx=1)
        self.busy = False

def test_predictions_within_the_fit(tmp_path):
    "fastai then draws an item once, to know its types; a new process must not draw it again"
    whole_run = make()
    whole_run.fit_one_cycle_ext(3, .05, cbs=Predict())
    expected = outcome(whole_run)
    stopped(tmp_path/'run.pt', 10, Predict())
    learn = make()
    learn.resume_fit(tmp_path/'run.pt', [After(0, interrupt), Predict()])
    assert differences(expected, outcome(learn))==[]

def test_a_plain_fit_that_was_recorded_is_recorded_again(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        make().fit(3, .05, cbs=[FitCheckpoint(tmp_path/'run.pt', 1), HistoryRecorder(), After(10, interrupt)])
    learn = make()
    learn.resume_fit(tmp_path/'run.pt', After(0, interrupt))
    assert len(learn.recorder.history)==21

class Odd(Callback):
    "Moves the weights by what it keeps: generators, a bounded deque, a `Counter`, counts with a default"
    run_valid = False
    def __init__(self):
        self.rng,self.rngs = random.Random(1),[np.random.default_rng(2), torch.Generator().manual_seed(3)]
        self.last,self.counts,self.seen = deque(maxlen=3),Counter(),defaultdict(int)
        self.same = self.counts
    def after_batch(self):
        self.last.append(self.learn.loss.item())
        self.same['a'] += 1
        self.seen[self.iter] += 1
        move = self.rng.random() + self.rngs[0].random() + torch.rand(1, generator=self.rngs[1]).item()
        move += sum(self.last) + self.counts['a'] + self.seen[2]
        for p in self.learn.model.parameters(): p.data += 1e-3*move

def test_a_callback_may_keep_odd_things(tmp_path, recwarn):
    whole_run = make()
    whole_run.fit_one_cycle_ext(3, .05, cbs=Odd())
    expected = outcome(whole_run)
    stopped(tmp_path/'run.pt', 10, Odd())
    learn = make()
    learn.resume_fit(tmp_path/'run.pt', [After(0, interrupt), odd := Odd()])
    assert differences(expected, outcome(learn))==[] and odd.last.maxlen==3 and odd.same is odd.counts
    assert not [w for w in recwarn if 'FitCheckpoint' in str(w.message)]

def test_what_a_callback_keeps_and_no_file_can_hold_is_named_once(tmp_path):
    class Keeps(Callback):
        def before_fit(self): self.items,self.f,self.n = iter([1, 2]),print,3
    with pytest.warns(UserWarning, match=r'FitCheckpoint can not write Keeps.items: after a resume') as found:
        stopped(tmp_path/'run.pt', 10, Keeps())
    assert len(found)==1

def test_the_run_goes_on_under_its_name(tmp_path):
    "From the file before the last: the same batches, and the newest file is written again"
    path = tmp_path/'run.pt'
    stopped(path, 10, keep=2)
    learn = make()
    learn.resume_fit(tmp_path/'run-1.pt', After(0, interrupt))
    assert differences(trained_whole('sgd') | dict(n_events=0), outcome(learn) | dict(n_events=0))==[]
    assert not can_resume(path) and sorted(p.name for p in tmp_path.iterdir())==['run-1.pt', 'run.pt']

def test_fastais_scheduler_is_explained(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        make().fit_one_cycle(3, .05, cbs=[FitCheckpoint(tmp_path/'run.pt', 1), After(10, interrupt)])
    with pytest.raises(ValueError, match="ParamScheduler: give it again.*sched='one_cycle_fastai'"):
        make().resume_fit(tmp_path/'run.pt', After(0, interrupt))
