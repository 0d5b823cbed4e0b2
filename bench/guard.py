"""How often `DivergenceGuard` is right, and how soon: `python -m bench.guard`, some minutes on one core, no network

Eleven kinds of fits that train, in which every alarm is false, and ten kinds into which a divergence is planted, each
with 20 seeds. The guard only records, so that every fit goes on to its end and shows whether it was lost. Printed
as the tables of `nbs/34_train.guard.ipynb`. The rule was chosen with seeds 100 to 111, not among the 20.
`python -m bench.guard cost` measures the share of the guard in the time of a step."""
import argparse, time, warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from statistics import median

warnings.simplefilter('ignore')
import numpy as np, torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import TensorDataset
from fastai.callback.core import Callback
from fastai.callback.progress import ProgressCallback
from fastai.callback.training import GradientAccumulation
from fastai.data.core import DataLoaders, TfmdDL
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat, MSELossFlat
from fastai.optimizer import Adam, SGD
from fastai.torch_core import set_seed
from fastai_clr_ext.all import *

MOMENTUM = partial(SGD, mom=.9)

# ---- networks, data and losses

def two_layers(n_in=64, n_out=10):
    return nn.Sequential(nn.Flatten(), nn.Linear(n_in, 64), nn.ReLU(), nn.Linear(64, n_out))

class Rows(nn.Module):
    "Reads an image row by row"
    def __init__(self):
        super().__init__()
        self.rnn,self.out = nn.LSTM(8, 32, batch_first=True),nn.Linear(32, 10)
    def forward(self, x): return self.out(self.rnn(x.view(-1, 8, 8))[0][:,-1])

class TurnBack(torch.autograd.Function):
    "Turns the gradient round, so that what comes before it works against what comes after it"
    @staticmethod
    def forward(ctx, x): return x.view_as(x)
    @staticmethod
    def backward(ctx, g): return -g

class Adversaries(nn.Module):
    "A network that imitates the data, and one that tells both apart"
    def __init__(self):
        super().__init__()
        self.make,self.judge = two_layers(4, 2),two_layers(2, 1)
    def forward(self, x): return self.judge(torch.cat([x, TurnBack.apply(self.make(torch.randn(len(x), 4)))]))

def judge_loss(pred, y):
    "The first half of the predictions is about data, the second about imitations"
    is_data = (torch.arange(len(pred)) < len(pred)//2).float()
    return F.binary_cross_entropy_with_logits(pred[:,0], is_data)

def density_loss(pred, y):
    "-log of a normal density, without its constant: negative where the prediction is good"
    return ((y[:,0]-pred[:,0]).square()*(-2*pred[:,1]).exp()/2 + pred[:,1]).mean()

def loaders(x, y, seed, bs=64):
    dl = TfmdDL(TensorDataset(x, y), bs=bs, shuffle=True, drop_last=True, num_workers=0)
    dl.rng.seed(seed)
    return DataLoaders(dl, TfmdDL(TensorDataset(x[:8], y[:8]), bs=8, num_workers=0))

def regression(seed, tails=False, bs=64):
    "Targets of a random network; with Student's t noise of two degrees of freedom, whose variance is infinite"
    x = torch.randn(1408, 16)
    y = two_layers(16, 1)(x).detach()*5
    noise = torch.distributions.StudentT(2.).sample(y.shape) if tails else torch.randn_like(y)
    return loaders(x, y + noise*(1. if tails else .1), seed, bs)

def points(seed):
    x = torch.randn(1408, 2)
    return loaders(x/x.norm(dim=1, keepdim=True) + .1*torch.randn(1408, 2), torch.zeros(1408), seed)

def noisy_labels(seed):
    dls = digits_dls(seed=seed)
    y = dls.train_ds.tensors[1]
    wrong = torch.rand(len(y))<.4
    y[wrong] = torch.randint(0, 10, (int(wrong.sum()),))
    return dls

def learner(dls, model, opt_func=MOMENTUM, loss_func=None):
    learn = Learner(dls, model, loss_func=loss_func or CrossEntropyLossFlat(), opt_func=opt_func)
    learn.logger = lambda *_: None
    return learn.remove_cb(ProgressCallback)

def digits(seed, opt_func=MOMENTUM, model=two_layers, **kwargs):
    return learner(digits_dls(seed=seed, **kwargs), model(), opt_func)

def densities(seed, opt_func=Adam): return learner(regression(seed), two_layers(16, 2), opt_func, density_loss)

def squares(seed, tails=False): return learner(regression(seed, tails), two_layers(16, 1), loss_func=MSELossFlat())

# ---- what is planted

class Plant(Callback):
    "Does something to the learner at an event of some training batches, from one batch on"
    order,run_valid = 70,False # behind the scheduler
    def __init__(self, at, event, do, n=10**6): self.at,self.event,self.do,self.n = at,event,do,n
    def is_now(self): return self.learn.training and 0<=self.learn.train_iter-self.at<self.n
    def __call__(self, name):
        if name==self.event and self.is_now(): self.do(self.learn)

class Rush(Plant):
    "Trains some batches at a rate that is too high"
    def __init__(self, at, factor, n): super().__init__(at, None, None, n); self.factor = factor
    def __call__(self, name):
        if name not in ('before_step', 'after_step') or not self.is_now(): return
        factor = self.factor if name=='before_step' else 1/self.factor
        self.learn.opt.set_hyper('lr', [h['lr']*factor for h in self.learn.opt.hypers])

def huge_targets(learn): learn.yb = tuple(y*1e5 for y in learn.yb)

def nan_input(learn): learn.xb = tuple(torch.full_like(x, torch.nan) for x in learn.xb)

@torch.no_grad()
def grow_weights(learn):
    for p in learn.model.parameters(): p.mul_(1.02)

# ---- kinds of fits: a function of a seed to a learner, a way to train it, and the callbacks that plant something

@dataclass
class Kind:
    name:str # Row of the table
    make:Callable # From a seed to a `Learner`
    train:Callable # Trains a `Learner` with callbacks
    plant:Callable|None = None # From a batch to a callback; None where the rate itself is the fault, or for no fault
    at:tuple = (0, 1) # Range of batches at which something is planted

def cycle(lr, n_epoch=12, **kwargs): return lambda learn, cbs: learn.fit_one_cycle_ext(n_epoch, lr, cbs=cbs, **kwargs)

def plain(lr, n_epoch=12): return lambda learn, cbs: learn.fit(n_epoch, lr, cbs=cbs)

def accumulating(learn, cbs): learn.fit_one_cycle_ext(12, .2, cbs=[*cbs, GradientAccumulation(256)])

def fine_tuning(learn, cbs):
    "Trains for other classes, in two stages"
    learn.fit(3, .1)
    learn.model[3].reset_parameters()
    y = learn.dls.train_ds.tensors[1]
    y.copy_((y*3+1) % 10)
    learn.fit_stages(stages_long(budget=12, base_lr=.2), cbs=cbs)

def two_parts(m): return [list(m[1].parameters()), list(m[3].parameters())]

def pretrained(seed):
    learn = digits(seed)
    learn.splitter = two_parts
    return learn

def growing(factor): return Cycle([Phase('growth', 1., lr=(1/factor, 1), anneal='exp')])

def lstm(seed): return learner(digits_dls(seed=seed), Rows(), Adam)

def adversaries(seed): return learner(points(seed), Adversaries(), partial(Adam, mom=.5), judge_loss)

def wrong_labels(seed): return learner(noisy_labels(seed), two_layers())

resnet = partial(cifar_resnet, 8, 1)

HEALTHY = [
    Kind('residual network, SGD at 1 from the start', partial(digits, model=resnet), plain(1., 6)),
    Kind('Adam at .1 from the start', partial(digits, opt_func=Adam), plain(.1)),
    Kind('1cycle to .3, SGD', digits, cycle(.3)),
    Kind('warm restarts, SGD', digits, cycle(.3, sched=warmup_cosine(.05).repeat(4))),
    Kind('batches of 4', partial(digits, bs=4), plain(.01, 1)),
    Kind('regression with heavy tails', partial(squares, tails=True), plain(.003)),
    Kind('negative loss: -log density, Adam at .03', densities, plain(.03)),
    Kind('LSTM, Adam at .1', lstm, plain(.1)),
    Kind('two networks against each other', adversaries, plain(.003)),
    Kind('40 % wrong labels, gradient accumulation', wrong_labels, accumulating),
    Kind('fine-tuning in two stages', pretrained, fine_tuning)]

LOST = [
    Kind('SGD at 5 from the start', digits, plain(5.)),
    Kind('Adam at 3 from the start', partial(digits, opt_func=Adam), plain(3.)),
    Kind('residual network, 1cycle to 30', partial(digits, model=resnet), cycle(30., 6)),
    Kind('rate that grows from .01 to 100', digits, cycle(100., sched=growing(1e4))),
    Kind('rate × 100 in 3 of the first 43 batches', digits, plain(.1), lambda at: Rush(at, 100, 3), (3, 40)),
    Kind('one batch with targets × 100,000', squares, plain(.01),
         lambda at: Plant(at, 'before_batch', huge_targets, 1), (60, 200)),
    Kind('one batch of NaN', digits, plain(.1), lambda at: Plant(at, 'before_batch', nan_input, 1), (20, 200)),
    Kind('weights that grow by 2 % a step', digits, plain(.05),
         lambda at: Plant(at, 'after_step', grow_weights), (60, 100)),
    Kind('-log density, rate × 100 in 5 batches', densities, plain(.003), lambda at: Rush(at, 100, 5), (100, 180)),
    Kind('LSTM, rate × 100 in 3 batches, back to guessing', lstm, plain(.01), lambda at: Rush(at, 100, 3), (100, 180))]

# ---- what the guard says

class Losses(Callback):
    order,run_valid = 95,False
    def __init__(self): self.values = []
    def after_loss(self): self.values.append(self.learn.loss.item())

def fit(kind, seed, **rules)->tuple:
    "Batches from what was planted to the alarm, None without one; its reason; whether the fit was lost"
    set_seed(seed)
    learn,losses = kind.make(seed),Losses()
    at = int(np.random.default_rng(seed).integers(*kind.at))
    planted = [] if kind.plant is None else [kind.plant(at)]
    kind.train(learn, [losses, DivergenceGuard(on='record', **rules), *planted])
    d = learn.recorder.divergence
    return d and d.found+1-at, d and d.reason, is_lost(losses.values)

def is_lost(losses)->bool:
    "Has the fit given back more than half of what it had gained, or never gained anything?"
    medians = [np.median(losses[i:i+20]) for i in range(0, len(losses)-19, 10)]
    first,best = losses[0],np.nanmin(medians)
    return not medians[-1] < (first + min(first, best))/2

def row(kind, n_seeds, first_seed, with_end, **rules)->tuple:
    "Row of the table; number of alarms"
    after,reasons,lost = zip(*[fit(kind, seed, **rules) for seed in range(first_seed, first_seed+n_seeds)])
    found = sorted(n for n in after if n is not None)
    when = f'{found[0]}, {median(found):g}, {found[-1]}' if found else '–'
    why = ', '.join(sorted({reason for reason in reasons if reason})) or '–'
    end = f' {sum(lost)} |' if with_end else ''
    return f'| {kind.name} | {len(found)} of {n_seeds} | {when} | {why} |{end}', len(found)

def table(kinds, what, n_seeds, first_seed, with_end=False, **rules):
    print(f'| {what} | alarms | batches until then: first, median, last | reasons |'
          + (' lost in the end |' if with_end else '') + '\n|---|---|---|---|' + ('---|' if with_end else ''))
    total = 0
    for kind in kinds:
        text,n = row(kind, n_seeds, first_seed, with_end, **rules)
        total += n
        print(text, flush=True)
    n_fits = len(kinds)*n_seeds
    last = ' |' if with_end else ''
    print(f'| **all** | **{total} of {n_fits}** ({100*total/n_fits:.1f} %) | | |{last}\n', flush=True)

class Timed(DivergenceGuard):
    "Counts the time spent inside"
    inside = 0.
    def __call__(self, event_name):
        start = time.thread_time()
        try: super().__call__(event_name)
        finally: self.inside += time.thread_time()-start

def cost(name, model, n_batches=264, n_seeds=5):
    "Prints the time of a batch, the guard's, and the share"
    inside,whole = [],[]
    for seed in range(n_seeds):
        set_seed(seed)
        guard,learn = Timed(),digits(seed, model=model)
        start = time.thread_time()
        learn.fit_one_cycle_ext(n_batches//22, .1, cbs=guard)
        inside.append(guard.inside/n_batches*1e3)
        whole.append((time.thread_time()-start)/n_batches*1e3)
    print(f'{name}: {median(inside):.2f} of {median(whole):.2f} ms a batch, {100*median(inside)/median(whole):.1f} %')

if __name__=='__main__':
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('what', nargs='?', default='tables', choices=['tables', 'cost'])
    parser.add_argument('--seeds', type=int, default=20)
    parser.add_argument('--first_seed', type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.what=='tables':
        table(HEALTHY, 'fits that train', args.seeds, args.first_seed)
        table(LOST, 'fits that are lost', args.seeds, args.first_seed, with_end=True)
    else:
        cost('two layers', two_layers)
        cost('residual network', resnet)
