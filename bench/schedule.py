"""What a schedule costs the host for each batch, beside others: `python -m bench.schedule`

In a fit: the same tiny learner is fitted without a schedule, by fastai's `fit_one_cycle`, with `CycleScheduler` alone,
with `HistoryRecorder` alone and by `fit_one_cycle_ext`, which does both, in turn, in one process. Each round fits 100
and 500 batches; the difference over 400 is the cost of a batch, and what it is above the fit without a schedule is
what is added. In a plain loop: one `step()` of torch's, timm's, ignite's and transformers' schedulers and of ours, for
an optimizer of 1 and of 10 groups. Packages that are not installed are left out."""
import argparse, time, warnings
from functools import partial
import numpy as np

warnings.simplefilter('ignore')
import torch
from torch import nn
from fastai.callback.progress import ProgressCallback
from fastai.callback.schedule import *
from fastai.learner import Learner
from fastai.losses import MSELossFlat
from fastai.optimizer import SGD
from fastai.test_utils import synth_dbunch
from fastai.torch_core import set_seed
from fastai_clr_ext.all import *
from fastai_clr_ext.record import HistoryRecorder
from fastai_clr_ext.train import group_lrs
from .common import in_turn, spread, table, tried, version

N_GROUPS = 1, 10

# ---- in a fit

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
        'HistoryRecorder': lambda learn: learn.fit(1, cbs=HistoryRecorder()),
        'fit_one_cycle_ext': lambda learn: learn.fit_one_cycle_ext(1, 1e-4)}

def seconds(f, *args)->float:
    start = time.perf_counter()
    f(*args)
    return time.perf_counter()-start

def batch_cost(fit, short:Learner, long:Learner)->float:
    "Microseconds that a batch more takes in a fit"
    n_more = len(long.dls.train)-len(short.dls.train)
    return 1e6*(seconds(fit, long)-seconds(fit, short))/n_more

def in_fits(n_rounds:int, n_groups:int, lengths=(100, 500))->list:
    "Microseconds that each way of fitting adds to a batch"
    functions = {}
    for name,fit in FITS.items():
        short,long = [make_learner(n, n_groups) for n in lengths]
        fit(short)
        functions[name] = partial(batch_cost, fit, short, long)
    costs = in_turn(functions, n_rounds)
    base = costs.pop('no schedule')
    fastai = np.median(costs['fit_one_cycle']-base)
    return [dict(what=name, groups=n_groups, unit='µs a batch', **spread(cost-base),
                 over_fastai=float(np.median(cost-base)/fastai)) for name,cost in costs.items()]

# ---- in a plain loop

def torch_optimizer(n_groups:int)->torch.optim.Optimizer:
    params = [nn.Parameter(torch.zeros(1)) for _ in range(n_groups)]
    return torch.optim.SGD([dict(params=[p]) for p in params], lr=.1, momentum=.9)

def of_torch(opt, n):
    return torch.optim.lr_scheduler.OneCycleLR(opt, .1, total_steps=n+1).step

def of_timm(opt, n):
    from timm.scheduler import CosineLRScheduler
    s = CosineLRScheduler(opt, t_initial=n, warmup_t=n//4, t_in_epochs=False)
    steps = iter(range(n))
    return lambda: s.step_update(next(steps))

def of_ignite(opt, n):
    from ignite.handlers.param_scheduler import PiecewiseLinear
    s = PiecewiseLinear(opt, 'lr', milestones_values=[(0, .01), (n//4, .1), (n, 0.)])
    return lambda: s(None)

def of_transformers(opt, n):
    from transformers import get_cosine_schedule_with_warmup
    return get_cosine_schedule_with_warmup(opt, n//4, n).step

def of_ours(opt, n): return one_cycle().as_torch(opt, n+1, lr_max=.1).step

LOOPS = {'torch OneCycleLR': of_torch, 'timm CosineLRScheduler': of_timm, 'ignite PiecewiseLinear': of_ignite,
         'transformers cosine with warm-up': of_transformers, 'Cycle.as_torch': of_ours}
PACKAGES = {'torch': 'torch', 'timm': 'timm', 'ignite': 'pytorch-ignite', 'transformers': 'transformers'}

def package_version(name:str)->str:
    "Version of the package that a name begins with"
    package = PACKAGES.get(name.split()[0], 'fastai_clr_ext')
    return f'{package} {version(package)}'

def loop_cost(make, n_groups:int, n:int)->float:
    "Microseconds of one `step()`"
    opt = torch_optimizer(n_groups)
    step = make(opt, n)
    opt.step() # torch warns of a scheduler that steps first
    start = time.perf_counter()
    for _ in range(n): step()
    return 1e6*(time.perf_counter()-start)/n

def in_loops(n_rounds:int, n_groups:int, n:int=1_000)->tuple:
    "Microseconds of one `step()` of each scheduler; errors of those that could not be tried"
    works,errors = tried({name: partial(loop_cost, make, n_groups, n) for name,make in LOOPS.items()})
    costs = in_turn(works, n_rounds)
    return [dict(what=name, version=package_version(name), groups=n_groups, unit='µs a step', **spread(cost))
            for name,cost in costs.items()], errors

def table_seconds(n_iter:int=1_000_000, n_groups:int=10)->float:
    "Median time for one large table"
    return float(np.median([seconds(one_cycle().table, n_iter, np.linspace(.1, 1, n_groups)) for _ in range(7)]))

def measure(n_rounds:int=15)->dict:
    fits,loops,errors = [],[],{}
    for n_groups in N_GROUPS:
        fits += in_fits(n_rounds, n_groups)
        rows,errors = in_loops(n_rounds, n_groups)
        loops += rows
    return dict(fits=fits, loops=loops, not_tried=errors, table_of_a_million_rows_s=table_seconds())

if __name__=='__main__':
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--rounds', type=int, default=15)
    found = measure(parser.parse_args().rounds)
    print(table(found['fits']), table(found['loops']), sep='\n\n')
    print(f"\n{found['not_tried']}\nA table of 1,000,000 iterations by 10 groups, rate and momentum: "
          f"{found['table_of_a_million_rows_s']:.2f} s")
