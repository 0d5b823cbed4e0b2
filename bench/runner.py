"""What a comparison takes beside its training: `python -m bench.runner`, three minutes on two cores, no network

Wall time against the ideal, which is the time of all runs divided by the workers: in this process, in two processes of
joblib, and on two workers of a Dask cluster on this machine. A short and a long comparison tell what each run costs
(the slope) from what every comparison waits for, such as processes that import torch."""
import tempfile, time, warnings
from pathlib import Path

warnings.simplefilter('ignore')
import joblib, torch
from torch import nn
from fastai.learner import Learner
from fastai_clr_ext.compare import compare
from .common import regression_learner, table

N_SEEDS = 6

def make_learner(seed)->Learner:
    "Eighty batches for a network of three layers"
    model = nn.Sequential(nn.Linear(64, 1024), nn.ReLU(), nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, 1))
    return regression_learner(seed, 80, 64, model, .01)

def wall_and_ideal(n_workers:int|None, n_epoch:int, n_parallel:int)->tuple:
    "Seconds of a comparison, and of its runs divided by the workers"
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        result = compare(make_learner, ['constant', 'one_cycle'], n_epoch=n_epoch, seeds=N_SEEDS, n_workers=n_workers,
                         out=Path(folder)/'runs', with_bar=False)
        return time.perf_counter()-start, result.df.seconds.sum()/n_parallel

def cost(what:str, n_workers:int|None, n_parallel:int, n_epochs)->dict:
    "Cost of a comparison from a short and a long one"
    (short,short_ideal),(long,long_ideal) = [wall_and_ideal(n_workers, n, n_parallel) for n in n_epochs]
    slope = (long-short)/(long_ideal-short_ideal)
    return {'what': what, 'workers': n_parallel, 'ideal, s': long_ideal, 'wall, s': long, 'wall/ideal': long/long_ideal,
            'each second of training costs, s': slope, 'start, s': short-slope*short_ideal}

def on_dask():
    "A cluster of two workers on this machine"
    from dask.distributed import Client
    return Client(n_workers=2, threads_per_worker=1, dashboard_address=None)

def measure(n_epochs=(1, 5))->dict:
    torch.set_num_threads(1)
    rows = [cost('this process', None, 1, n_epochs), cost('processes', 2, 2, n_epochs)]
    with on_dask(), joblib.parallel_config('dask'):
        wall_and_ideal(None, 1, 2) # its workers import torch
        rows.append(cost('Dask, workers that are there', None, 2, n_epochs))
    return dict(rows=rows)

if __name__=='__main__': print(table(measure()['rows']))
