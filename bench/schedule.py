"""What a schedule costs per batch, and how long a large table takes: `python -m bench.schedule`

The same tiny learner is fitted without a schedule, by fastai's `fit_one_cycle` (`ParamScheduler` with `combined_cos`),
with `CycleScheduler` alone and by `fit_one_cycle_ext`, which records a history too, in turn, in one process. The cost
of a schedule is the paired difference to the fit without one in the same round; the median over rounds and its
quartiles are printed, in microseconds per batch."""
import argparse, time, warnings
from functools import partial
import numpy as np

warnings.simplefilter('ignore')
from torch import nn
from fastai.callback.progress import ProgressCallback
from fastai.callback.schedule import *
from fastai.learner import Learner
from fastai.losses import MSELossFlat
from fastai.optimizer import SGD
from fastai.test_utils import synth_dbunch
from fastai.torch_core import set_seed
from fastai_clr_ext.all import *
from fastai_clr_ext.train import group_lrs

def make_learner(n_batches:int, n_groups:int)->Learner:
    "A learner whose step is little more than the loop itself"
    set_seed(0)
    model = nn.Sequential(*[nn.Linear(1, 1) for _ in range(n_groups)])
    learn = Learner(synth_dbunch(n_train=n_batches, n_valid=1), model, loss_func=MSELossFlat(), lr=1e-4,
                    opt_func=partial(SGD, mom=.9),
                    splitter=lambda m: [list(o.parameters()) for o in m])
    learn.logger = lambda *_: None
    return learn.remove_cb(ProgressCallback)

def scheduler(learn)->CycleScheduler:
    "What `fit_one_cycle_ext` trains with, without its record"
    return CycleScheduler(Plan(one_cycle(), group_lrs(1e-4, len(learn.splitter(learn.model))), 1, len(learn.dls.train)))

FITS = {'no schedule': lambda learn: learn.fit(1), 'fit_one_cycle': lambda learn: learn.fit_one_cycle(1, 1e-4),
        'CycleScheduler': lambda learn: learn.fit(1, cbs=scheduler(learn)),
        'fit_one_cycle_ext': lambda learn: learn.fit_one_cycle_ext(1, 1e-4)}

def seconds(f, *args):
    start = time.perf_counter()
    f(*args)
    return time.perf_counter()-start

def rounds(n_rounds:int, n_batches:int, n_groups:int)->dict:
    "Microseconds per batch of each fit in each round"
    learners = {name: make_learner(n_batches, n_groups) for name in FITS}
    for name,fit in FITS.items(): fit(learners[name])
    order,out = list(FITS),{name: [] for name in FITS}
    for i in range(n_rounds):
        for name in order[i%4:] + order[:i%4]: out[name].append(seconds(FITS[name], learners[name])/n_batches*1e6)
    return {k: np.array(v) for k,v in out.items()}

def table_seconds(n_iter:int=1_000_000, n_groups:int=10)->float:
    "Median time for one large table"
    return float(np.median([seconds(one_cycle().table, n_iter, np.linspace(.1, 1, n_groups)) for _ in range(7)]))

def main(n_rounds, n_batches):
    print(f'{n_rounds} rounds of {n_batches} batches each; added to every batch, microseconds: median [quartiles]\n',
          flush=True)
    print('| parameter groups | no schedule, whole batch | fit_one_cycle adds | CycleScheduler adds '
          '| fit_one_cycle_ext adds |\n|---|---|---|---|---|')
    for n_groups in (1, 3):
        t = rounds(n_rounds, n_batches, n_groups)
        base = t['no schedule']
        added = {k: np.percentile(t[k]-base, [25, 50, 75]) for k in list(t)[1:]}
        cells = [f'{m:.0f} [{lo:.0f}, {hi:.0f}]' for lo,m,hi in added.values()]
        print(f"| {n_groups} | {np.median(base):.0f} | {' | '.join(cells)} |")
    print(f'\nA table of 1,000,000 iterations by 10 groups, rate and momentum: {table_seconds():.2f} s')

if __name__=='__main__':
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--rounds', type=int, default=60)
    parser.add_argument('--batches', type=int, default=200)
    args = parser.parse_args()
    main(args.rounds, args.batches)
