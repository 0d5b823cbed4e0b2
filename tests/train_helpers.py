"What several tests of the wing `train` share"
import copy
import numpy as np, pytest, torch
from torch import nn
from fastai.callback.core import Callback
from fastai_clr_ext.train import *

class Rows(Callback):
    "At each step: stage, every group's hyper-parameters, every parameter's `requires_grad`"
    order,run_valid = 1000,False
    def __init__(self): self.rows,self.grads,self.names = [],[],[]
    def before_step(self):
        learn = self.learn
        self.rows.append([dict(h) for h in learn.opt.hypers])
        self.grads.append([p.requires_grad for p in learn.model.parameters()])
        self.names.append(vars(learn)['stage'].name if 'stage' in vars(learn) else None)
    def column(self, k): return np.array([[g[k] for g in row] for row in self.rows])

def net():
    torch.manual_seed(42)
    return nn.Sequential(nn.Linear(1, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 1))

def three(m): return [[*m[0].parameters(), *m[1].parameters()], list(m[3].parameters()), list(m[5].parameters())]

@pytest.fixture
def make(mlp): return lambda **kwargs: mlp(**dict(model=kwargs.pop('model', None) or net(), splitter=three) | kwargs)

TWO = [Stage('head', 1, .1, -1), Stage('all', 2, slice(.001, .1))]

def snapshot(learn):
    "Everything of a learner that a refused call could change, as plain values that can be compared"
    opt = learn.opt
    state = []
    for p in () if opt is None else [p for params in opt.param_lists for p in params if p in opt.state]:
        state.append([(k, v.tolist() if torch.is_tensor(v) else v) for k,v in sorted(opt.state[p].items())])
    recorder = vars(learn.recorder) if 'recorder' in vars(learn) else {}
    kept = {k: copy.copy(v) for k,v in recorder.items() if k in
            ('lrs', 'iters', 'losses', 'values', 'log', 'hps', 'plans', 'divergences')}
    if 'history' in recorder: kept['history'] = len(recorder['history'].fit_rows), len(recorder['history'].batch_log)
    return dict(weights=[p.tolist() for p in learn.model.parameters()], opt=id(opt), state=state,
                hypers=None if opt is None else [dict(h) for h in opt.hypers],
                frozen=[p.requires_grad for p in learn.model.parameters()], lr=learn.lr, wd=learn.wd,
                cbs=[id(cb) for cb in learn.cbs], names=sorted(vars(learn)), recorder=kept,
                rng=torch.get_rng_state().tolist()[:50])
