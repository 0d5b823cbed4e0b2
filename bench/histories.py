"""Mean |g| and losses of real fits, for the tests of what figures draw: `python -m bench.histories OUT.npz`

Ten kinds of fits, each of 20, 60, 200, 2,000 and 100,000 batches, about half an hour on one core, no network. Logs are
stored as whole numbers of 16 bits, 1/1000 apart (an error of 0.05 %), and of the longest fits mean |g| alone."""
import sys, warnings
from functools import partial

warnings.simplefilter('ignore')
import numpy as np, torch
from torch import nn
from torch.utils.data import TensorDataset
from fastai.callback.progress import ProgressCallback
from fastai.data.core import DataLoaders, TfmdDL
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat, MSELossFlat
from fastai.optimizer import Adam, SGD
from fastai.torch_core import set_seed
from sklearn.datasets import load_diabetes, load_digits
from fastai_clr_ext.all import *

LENGTHS = [20, 60, 200, 2_000, 100_000]
STEPS_IN_LOG = 1_000 # Whole numbers for a factor of e

class Rows(nn.Module):
    "Reads an image row by row"
    def __init__(self):
        super().__init__()
        self.rnn,self.out = nn.LSTM(8, 16, batch_first=True),nn.Linear(16, 10)
    def forward(self, x): return self.out(self.rnn(x.view(-1, 8, 8))[0][:,-1])

class Words(nn.Module):
    "Takes pixels for words"
    def __init__(self):
        super().__init__()
        self.words,self.out = nn.EmbeddingBag(17*64, 16),nn.Linear(16, 10)
    def forward(self, x): return self.out(self.words((x*16).long() + 17*torch.arange(64)))

def mlp(n_in=64, n_out=10, *between):
    return nn.Sequential(nn.Linear(n_in, 32), *between, nn.ReLU(), nn.Linear(32, n_out))

def images():
    return nn.Sequential(nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8),
                         nn.ReLU(), nn.Flatten(), nn.Linear(128, 10))

SGD_MOM = partial(SGD, mom=.9)
#: Of each kind: the network, the optimizer, the peak rate, the cycle, the size of a batch
KINDS = {
    'constant rate': (mlp, SGD_MOM, .05, constant(moms=.9), 64),
    '1cycle': (mlp, SGD_MOM, .4, one_cycle(), 64),
    'use_clr_beta': (images, SGD_MOM, .2, clr_beta_07(10, 13.68, .95, .85), 32),
    'Adam 1cycle': (mlp, Adam, 1e-2, one_cycle(), 64),
    'Adam constant': (images, Adam, 1e-3, constant(moms=.9), 16),
    'dropout': (partial(mlp, 64, 10, nn.Dropout(.5)), Adam, 3e-3, one_cycle_fastai(), 64),
    'recurrent': (Rows, Adam, 1e-2, wsd(), 64),
    'embeddings': (Words, Adam, 1e-2, warmup_cosine(), 64),
    'small batches': (mlp, SGD_MOM, .02, one_cycle(), 4),
    'regression': (partial(mlp, 10, 1), SGD_MOM, 1e-2, step_decay(), 32)}

def data(kind, bs, n_iter):
    "Loaders of which an epoch has `n_iter` batches"
    x,y = load_diabetes(return_X_y=True) if kind=='regression' else load_digits(return_X_y=True)
    x = torch.tensor(x*20 if kind=='regression' else x/16, dtype=torch.float32)
    y = torch.tensor((y-152)/77, dtype=torch.float32)[:,None] if kind=='regression' else torch.tensor(y)
    rows = torch.randint(len(x), (bs*n_iter,))
    train = TfmdDL(TensorDataset(x[rows], y[rows]), bs=bs, shuffle=True, num_workers=0)
    return DataLoaders(train, TfmdDL(TensorDataset(x[:8], y[:8]), bs=8, num_workers=0))

def train(kind, n):
    "One fit of `n` batches: its mean |g| and its losses"
    net,opt,lr,cycle,bs = KINDS[kind]
    set_seed(n)
    n_iter = min(n, 20)
    loss_func = MSELossFlat() if kind=='regression' else CrossEntropyLossFlat()
    learn = Learner(data(kind, bs, n_iter), net(), loss_func=loss_func, opt_func=opt, cbs=GradRecorder())
    learn.remove_cb(ProgressCallback)
    with learn.no_logging(): learn.fit_one_cycle_ext(n//n_iter, lr, sched=cycle)
    history = learn.recorder.history
    return history.mean_grads(), history.steps.loss.to_numpy()

def packed(values): return np.round(np.log(values)*STEPS_IN_LOG).astype(np.int16)

def main(out):
    torch.set_num_threads(1)
    arrays = {}
    for n in LENGTHS:
        for kind in KINDS:
            grads,losses = train(kind, n)
            arrays[f'grads {n} {kind}'] = packed(grads)
            if n<LENGTHS[-1]: arrays[f'losses {n} {kind}'] = packed(losses)
            print(n, kind, f'{grads[0]:.3g} to {grads[-1]:.3g}', flush=True)
            np.savez_compressed(out, **arrays)

if __name__=='__main__': main(sys.argv[1])
