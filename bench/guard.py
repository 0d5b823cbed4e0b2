"""How often `DivergenceGuard` is right, and how soon: `python -m bench.guard`, three minutes on one core

Two networks on scikit-learn's digits, 1cycles of 12 epochs (264 batches), 20 seeds each: at rates that are high and
train (any alarm is false), and at rates that are too high. Printed as the table of
`nbs/34_train.guard.ipynb`. The cost is
the time spent inside the callback over that of a whole step."""
import time, warnings
from functools import partial
from statistics import median

warnings.simplefilter('ignore')
import torch
from torch import nn
from fastai.callback.progress import ProgressCallback
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat
from fastai.optimizer import Adam, SGD
from fastai.torch_core import set_seed
from fastai_clr_ext.all import *

MODELS = {'resnet8': partial(cifar_resnet, 8, 1),
          'two layers': lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))}
OPTS = {'SGD': partial(SGD, mom=.9), 'Adam': Adam}
CASES = [('resnet8', 'SGD', 1.), ('two layers', 'SGD', .3), ('two layers', 'Adam', .03), ('resnet8', 'SGD', 30.),
         ('two layers', 'SGD', 10.), ('resnet8', 'Adam', 100.), ('two layers', 'Adam', 100.)]

class Timed(DivergenceGuard):
    "Counts the time spent inside"
    inside = 0.
    def __call__(self, event_name):
        start = time.thread_time()
        try: super().__call__(event_name)
        finally: self.inside += time.thread_time()-start

def fit(model, opt, lr, seed)->tuple:
    "What was found, the last smoothed loss, share of the guard in the thread's time"
    set_seed(seed)
    guard,learn = Timed(),Learner(digits_dls(seed=seed), MODELS[model](), loss_func=CrossEntropyLossFlat(),
                                  opt_func=OPTS[opt]).remove_cb(ProgressCallback)
    learn.logger = lambda *_: None
    start = time.thread_time()
    learn.fit_one_cycle_ext(12, lr, cbs=guard)
    return learn.recorder.divergence, float(learn.recorder.losses[-1]), guard.inside/(time.thread_time()-start)

def row(model, opt, lr, n_seeds=20)->str:
    found,losses,shares = zip(*[fit(model, opt, lr, seed) for seed in range(n_seeds)])
    ends = sorted(d.found+1 for d in found if d)
    when = f'{ends[0]}, {median(ends):g}, {ends[-1]}' if ends else '–'
    return (f'| {model} | {opt} | {lr:g} | {len(ends)} of {n_seeds} | {when} | {median(losses):.3g} '
            f'| {100*median(shares):.1f} % |')

if __name__=='__main__':
    torch.set_num_threads(1)
    print('| network | optimizer | peak rate | alarms | batches until stopped: first, median, last '
          '| last smoothed loss, median | time inside |\n|---|---|---|---|---|---|---|')
    for case in CASES: print(row(*case), flush=True)
