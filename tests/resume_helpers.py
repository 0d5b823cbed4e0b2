"Trainings that are killed and resumed, and what has to be equal in the end"
import multiprocessing, os, random, signal, warnings
import numpy as np, torch
from torch import nn
from fastai.basics import *
from fastai.callback.training import GradientAccumulation
from fastai.callback.rnn import rnn_cbs
from fastai.data.core import TfmdDL
from fastai.text.data import LMDataLoader
from fastai.text.models.awdlstm import AWD_LSTM
from fastai.text.models.core import SequentialRNN, LinearDecoder
from fastai.callback.progress import ProgressCallback
from fastai.callback.tracker import EarlyStoppingCallback, SaveModelCallback
from fastai_clr_ext.all import *
from conftest import CpuAmp

class Noisy:
    "Items that draw from Python's, numpy's and torch's generators, as augmentation does"
    def __init__(self, n, noise=.1): self.n,self.noise = n,noise
    def __len__(self): return self.n
    def __getitem__(self, i):
        x = torch.tensor([i/self.n, (i%3)/3]) + self.noise*torch.randn(2)
        return x + self.noise*random.random(), x.sum(0, keepdim=True) + self.noise*np.random.rand()

class Stream(torch.utils.data.IterableDataset):
    "The same, one after the other"
    def __iter__(self): return iter([Noisy(28)[i] for i in range(28)])

class Shake(ItemTransform):
    "A random transform of batches"
    def encodes(self, b): return b[0]*(1+.1*torch.rand(1)), b[1]

def loaders(n=28, bs=4, n_workers=0, noise=.1, **kwargs):
    train = TfmdDL(Noisy(n, noise), bs=bs, shuffle=True, num_workers=n_workers, after_batch=Shake(), **kwargs)
    return DataLoaders(train, TfmdDL(Noisy(10, noise), bs=5, num_workers=n_workers))

def net(): return nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(.2), nn.Linear(8, 1))
def halves(m): return [list(m[:2].parameters()), list(m[4].parameters())]

def quiet(learn):
    learn.logger = lambda row: None
    return learn.remove_cb(ProgressCallback)

def make(make_dls=loaders, **kwargs):
    "A learner of two groups that is the same each time"
    set_seed(3)
    own = dict(loss_func=MSELossFlat(), opt_func=partial(SGD, mom=.9), splitter=halves, metrics=mae, lr=.05)
    return quiet(Learner(make_dls(), net(), **own | kwargs))

def language_model():
    "A small AWD-LSTM, which keeps its hidden state from batch to batch"
    set_seed(3)
    texts = [torch.randint(0, 12, (n,)) for n in (40, 60, 50, 70)]
    dls = DataLoaders(LMDataLoader(texts, bs=2, seq_len=9, shuffle=True), LMDataLoader(texts[:1], bs=2, seq_len=9))
    body = AWD_LSTM(12, 6, 7, 2, pad_token=0)
    model = SequentialRNN(body, LinearDecoder(12, 6, .1, tie_encoder=body.encoder, bias=True))
    return quiet(Learner(dls, model, loss_func=CrossEntropyLossFlat(), opt_func=Adam, cbs=rnn_cbs(2., 1.)))

def torch_loaders():
    "Loaders of torch, with a generator of their own"
    generator = torch.Generator().manual_seed(1)
    train = torch.utils.data.DataLoader(Noisy(28), batch_size=4, shuffle=True, generator=generator)
    return DataLoaders(train, torch.utils.data.DataLoader(Noisy(10), batch_size=5), device='cpu')

def streamed():
    "A loader over a stream that says how long it is"
    train = TfmdDL(Stream(), bs=4, n=28, num_workers=0)
    train._n_inp = 1 # fastai would draw an item in the first batch to find it out, which is then missing in the stream
    return DataLoaders(train, TfmdDL(Noisy(10), bs=5, num_workers=0))

STAGES = [Stage('head', 1.5, .05, -1), Stage('all', 2, slice(.01, .05))]

class Case:
    "A training: what makes the learner, what trains it, what only this fit is given"
    def __init__(self, make=make, train=lambda learn, cbs: learn.fit_one_cycle_ext(3, .05, cbs=cbs), cbs=list,
                 stage_cbs=dict):
        self.make,self.train,self.cbs,self.stage_cbs = make,train,cbs,stage_cbs

CASES = {
    'sgd': Case(),
    'adam': Case(lambda: make(opt_func=Adam, cbs=GradRecorder(['hist', 'clipped', 'weight'], adam=True))),
    'workers': Case(lambda: make(partial(loaders, n_workers=2))),
    'accumulation': Case(cbs=lambda: [GradientAccumulation(12)]),
    'amp': Case(lambda: make(opt_func=ranger), cbs=lambda: [CpuAmp()]),
    'torch optimizer': Case(lambda: make(opt_func=partial(OptimWrapper, opt=torch.optim.AdamW))),
    'fit': Case(train=lambda learn, cbs: learn.fit(3, .05, cbs=cbs), cbs=lambda: [HistoryRecorder()]),
    'trackers': Case(lambda: make(opt_func=partial(RMSProp, mom=.9),
                                  cbs=DivergenceGuard(every=3, on='rewind', keep_every=5)),
                     cbs=lambda: [SaveModelCallback('mae', comp=np.less), EarlyStoppingCallback(patience=5)]),
    'stages': Case(train=lambda learn, cbs: learn.fit_stages(STAGES, cbs), cbs=lambda: [GradRecorder()]),
    'recipe': Case(lambda: make(opt_func=Adam), lambda learn, cbs: learn.fine_tune_long(2, .05, cbs=cbs)),
    'start_epoch': Case(train=lambda learn, cbs: learn.fit_one_cycle_ext(4, .05, start_epoch=1, cbs=cbs)),
    'by group': Case(train=lambda learn, cbs: learn.fit_one_cycle_ext(3, .05, sched={-1: one_cycle()}, cbs=cbs)),
    'language model': Case(language_model), 'torch loaders': Case(lambda: make(torch_loaders)),
    'stream': Case(lambda: make(streamed)),
}

def outcome(learn):
    "Everything that has to be equal, in plain values"
    history,recorder = learn.recorder.history,learn.recorder
    fits = history.fits.drop(columns=['started', 'seconds', 'cbs'])
    found = dict(model=learn.model.state_dict(), opt=learn.opt.state_dict(), steps=history.steps, epochs=history.epochs,
                 fits=fits, stages=history.stages.drop(columns='seconds'), losses=recorder.losses, lrs=recorder.lrs,
                 iters=recorder.iters, values=[list(row) for row in recorder.values], hps=vars(recorder).get('hps'),
                 plans=[plan.df for plan in vars(recorder).get('plans', [])],
                 random=torch.rand(3), np=np.random.rand(3), python=random.random())
    if len(history.grad_log): found['grads'] = history.grads
    return found

def differences(a, b, where=''):
    "Where two outcomes differ"
    if isinstance(a, dict): return [d for k in {**a, **b} for d in differences(a.get(k), b.get(k), f'{where}.{k}')]
    if isinstance(a, (list, tuple, L)):
        if len(a)!=len(b): return [f'{where}: {len(a)} and {len(b)}']
        return [d for i,(x,y) in enumerate(zip(a, b)) for d in differences(x, y, f'{where}[{i}]')]
    if isinstance(a, torch.Tensor): is_same = torch.equal(a, b) or bool((a.isnan()&b.isnan()).all())
    elif hasattr(a, 'equals'): is_same = a.equals(b)
    elif isinstance(a, np.ndarray): is_same = np.array_equal(a, b, equal_nan=True)
    else: is_same = a==b or (a!=a and b!=b)
    return [] if is_same else [f'{where}: {str(a)[:300]} and {str(b)[:300]}']

class KillAt(Callback):
    "Kills the process at the n-th event, before or behind all other callbacks, or while a checkpoint is written"
    def __init__(self, n, order): self.n,self.order,self.count = n,order,0
    def __call__(self, name):
        self.count += 1
        if self.count==self.n: os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(name)

def in_child(f, *args):
    "Run a function in a forked process; its exit code, -9 if it was killed"
    process = multiprocessing.get_context('fork').Process(target=f, args=args)
    process.start()
    process.join(120)
    assert process.exitcode is not None, 'it hangs'
    return process.exitcode

def begin(case, path, every, killer, folder):
    "Begin a training that is killed"
    os.chdir(folder)
    CASES[case].train(CASES[case].make(), [FitCheckpoint(path, every=every), killer, *CASES[case].cbs()])

def go_on(case, path, killer, folder):
    "Go on with it, as a new process with other random states; leave the outcome in a file unless it is killed"
    os.chdir(folder)
    warnings.simplefilter('error', UserWarning) # such as one of a loader that gives fewer batches than it says
    learn = CASES[case].make()
    set_seed(99)
    learn.resume_fit(path, [*([killer] if killer else []), *CASES[case].cbs()], stage_cbs=CASES[case].stage_cbs())
    torch.save(outcome(learn), folder/'outcome.pt')

def whole(case, folder):
    "Train without a checkpoint, and count the events"
    os.chdir(folder)
    learn,counter = CASES[case].make(),KillAt(10**9, 0)
    CASES[case].train(learn, [counter, *CASES[case].cbs()])
    torch.save(outcome(learn) | dict(n_events=counter.count), folder/'outcome.pt')
