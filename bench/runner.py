"""What a comparison takes beside its training: `python -m bench.runner`, two minutes on two cores, no network

Wall time over the ideal, which is the time of all runs divided by the workers: in this process, in two processes of
joblib, and on two workers of a Dask cluster on this machine. Processes first import torch; a second comparison with
the same workers doesn't wait for that. Each run takes about two seconds on one thread."""
import tempfile, time, warnings
from functools import partial
from pathlib import Path

warnings.simplefilter('ignore')
import joblib, torch
from torch import nn
from torch.utils.data import TensorDataset
from fastai.data.core import DataLoaders, TfmdDL
from fastai.learner import Learner
from fastai.losses import MSELossFlat
from fastai.optimizer import SGD
from fastai_clr_ext.compare import compare
from .common import table

N_SEEDS = 6

def make_learner(seed)->Learner:
    "Eighty batches of 64 for a network of three layers"
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(5184, 64, generator=generator)
    y = x[:,:1].sin() + x[:,1:2]*x[:,2:3]
    train = TfmdDL(TensorDataset(x[:5120], y[:5120]), bs=64, shuffle=True, num_workers=0)
    dls = DataLoaders(train, TfmdDL(TensorDataset(x[5120:], y[5120:]), bs=64, num_workers=0))
    model = nn.Sequential(nn.Linear(64, 1024), nn.ReLU(), nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, 1))
    return Learner(dls, model, loss_func=MSELossFlat(), opt_func=partial(SGD, mom=.9), lr=.01)

def over_ideal(n_workers:int|None, n_epoch:int, n_parallel:int)->float:
    "Wall time of a comparison over that of its runs divided by the workers"
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        result = compare(make_learner, ['constant', 'one_cycle'], n_epoch=n_epoch, seeds=N_SEEDS, n_workers=n_workers,
                         out=Path(folder)/'runs', with_bar=False)
        wall = time.perf_counter()-start
    return wall/(result.df.seconds.sum()/n_parallel)

def on_dask():
    "A cluster of two workers on this machine"
    from dask.distributed import Client
    return Client(n_workers=2, threads_per_worker=1, dashboard_address=None)

def measure(n_epoch:int=2)->dict:
    torch.set_num_threads(1)
    rows = []
    def add(what, n_workers, n_parallel):
        first,second = [over_ideal(n_workers, n_epoch, n_parallel) for _ in range(2)]
        rows.append({'what': what, 'workers': n_parallel, 'unit': 'wall time over the ideal', 'first': first,
                     'second': second})
    add('this process', None, 1)
    add('processes', 2, 2)
    with on_dask(), joblib.parallel_config('dask'): add('Dask', None, 2)
    return dict(rows=rows)

if __name__=='__main__': print(table(measure()['rows']))
