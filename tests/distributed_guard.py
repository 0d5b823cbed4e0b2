"Run by test_guard.py in every process: the loss of the second process explodes at batch 5; what each decided"
import sys, torch, warnings
from functools import partial
from pathlib import Path
from torch import nn
from fastai.callback.core import Callback
from fastai.callback.progress import ProgressCallback
from fastai.distributed import DistributedDL, rank_distrib
from fastai.learner import Learner
from fastai.losses import MSELossFlat
from fastai.optimizer import SGD
from fastai.test_utils import synth_dbunch
from fastai.torch_core import set_seed
from fastai_clr_ext.guard import *

def broadcast(self, t, rank): # fastai's own puts the tensor on a GPU first
    t = torch.LongTensor(t)
    torch.distributed.broadcast(t, rank)
    return t.tolist()
DistributedDL._broadcast = broadcast

class Explode(Callback):
    order,run_valid = 0,False
    def after_loss(self):
        if self.learn.train_iter>=5 and rank_distrib(): self.learn.loss = self.learn.loss + 1e6
    def after_batch(self): self.learn.n_seen = self.learn.train_iter

set_seed(42)
learn = Learner(synth_dbunch(n_train=8), nn.Sequential(nn.Linear(1, 8), nn.ReLU(), nn.Linear(8, 1)), loss_func=MSELossFlat(), opt_func=partial(SGD, mom=.9)).remove_cb(ProgressCallback)
learn.logger = lambda *_: None
with learn.distrib_ctx(in_notebook=False, sync_bn=False, cpu=True): learn.fit(6, .01, cbs=[DivergenceGuard(every=4, patience=5, skip=4), Explode()])
d = learn.recorder.divergence
torch.save(dict(divergence=d and (d.reason, d.train_iter, d.loss, d.grad_norm), n=len(learn.recorder.losses)), Path(sys.argv[1])/f'{rank_distrib()}.pt')
import os; os._exit(0) # without the interpreter's own end, at which gloo's threads now and then abort the process
