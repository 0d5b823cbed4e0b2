"""What the benchmarks share: functions measured in turn, spreads, and versions"""
import importlib.metadata, os, platform
from functools import partial
import numpy as np, torch
from torch import nn
from torch.utils.data import TensorDataset
from fastai.data.core import DataLoaders, TfmdDL
from fastai.learner import Learner
from fastai.losses import MSELossFlat
from fastai.optimizer import SGD

def in_turn(
    functions:dict, # By name; each returns a number
    n_rounds:int # At least 1
)->dict: # By name, one number for each round
    "Call functions round by round, each round in another order, so that a slow moment of the machine hits all of them"
    names,found = list(functions),{name: [] for name in functions}
    for i in range(n_rounds):
        at = i%len(names)
        for name in names[at:]+names[:at]: found[name].append(functions[name]())
    return {name: np.array(values) for name,values in found.items()}

def spread(values)->dict:
    "Median and quartiles"
    low,middle,high = np.percentile(values, [25, 50, 75]).tolist()
    return dict(median=middle, low=low, high=high)

def version(package:str)->str:
    "Version of a package; empty if it is not installed"
    try: return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError: return ''

def tried(functions:dict)->tuple:
    "Functions that work, called once, and by name the errors of the others, such as a package that is not installed"
    works,errors = {},{}
    for name,f in functions.items():
        try: f()
        except Exception as e: errors[name] = f'{type(e).__name__}: {e}'.splitlines()[0][:200]
        else: works[name] = f
    return works, errors

def machine()->dict:
    "What the figures depend on"
    packages = ['torch', 'fastai', 'fastai_clr_ext', 'timm', 'pytorch-ignite', 'transformers', 'wandb', 'tensorboard',
                'lightning', 'mosaicml', 'cockpit-for-pytorch', 'dask']
    return dict(python=platform.python_version(), cpu=platform.machine(), cores=os.cpu_count(),
                threads=torch.get_num_threads(), packages={name: version(name) for name in packages if version(name)})

def table(rows:list)->str:
    "Rows of one set of names as a Markdown table"
    if not rows: return ''
    names = list(dict.fromkeys(name for row in rows for name in row))
    def cell(v): return f'{v:.4g}' if isinstance(v, float) else '' if v is None else str(v)
    lines = [' | '.join(names), '|'.join(['---']*len(names))]
    lines += [' | '.join(cell(row.get(name)) for name in names) for row in rows]
    return '\n'.join(f'| {line} |' for line in lines)

def regression_learner(seed:int, n_batches:int, n_inputs:int, model:nn.Module, lr:float)->Learner:
    "A learner of a sum of functions, with batches of 64"
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(64*(n_batches+1), n_inputs, generator=generator)
    y = x[:,:1].sin() + x[:,1:2]*x[:,2:3]
    n = 64*n_batches
    train = TfmdDL(TensorDataset(x[:n], y[:n]), bs=64, shuffle=True, num_workers=0)
    dls = DataLoaders(train, TfmdDL(TensorDataset(x[n:], y[n:]), bs=64, num_workers=0))
    return Learner(dls, model, loss_func=MSELossFlat(), opt_func=partial(SGD, mom=.9), lr=lr)
