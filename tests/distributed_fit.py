"Run by test_distributed.py in every process: a fit over two processes, what each was trained with and recorded"
import sys, torch
from functools import partial
from pathlib import Path
from torch import nn
from fastai.callback.progress import ProgressCallback
from fastai.distributed import DistributedDL, rank_distrib
from fastai.learner import Learner
from fastai.losses import MSELossFlat
from fastai.optimizer import SGD
from fastai.test_utils import synth_dbunch
from fastai.torch_core import set_seed
from fastai_clr_ext.all import *
from conftest import Spy, two_groups

def broadcast(self, t, rank): # fastai's own puts the tensor on a GPU first
    t = torch.LongTensor(t)
    torch.distributed.broadcast(t, rank)
    return t.tolist()
DistributedDL._broadcast = broadcast

set_seed(42)
spy,learn = Spy(),Learner(synth_dbunch(n_train=8), nn.Sequential(nn.Linear(1, 8), nn.ReLU(), nn.Linear(8, 1)), loss_func=MSELossFlat(), opt_func=partial(SGD, mom=.9),
                          splitter=two_groups, cbs=GradRecorder()).remove_cb(ProgressCallback)
learn.logger = lambda *_: None
with learn.distrib_ctx(in_notebook=False, sync_bn=False, cpu=True): learn.fit_one_cycle_ext(2, .1, cbs=spy)
torch.save(dict(lr=spy.column('lr'), grads=learn.recorder.grads.to_dict('list'), plan=learn.recorder.plans[-1].runs), Path(sys.argv[1])/f'{rank_distrib()}.pt')
import os; os._exit(0) # without the interpreter's own end, at which gloo's threads now and then abort the process
