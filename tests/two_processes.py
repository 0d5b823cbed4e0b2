"Fits over two processes: `in_two_processes` runs this file, which leaves the results of each process"
import os, subprocess, sys, torch
from pathlib import Path
from fastai.callback.core import Callback
from fastai.distributed import DistributedDL, rank_distrib
from fastai_clr_ext.all import *
from conftest import Spy, make_mlp

def in_two_processes(folder, *work)->dict: # The results of each process
    "Run a function of this file in two processes"
    here = Path(__file__).parent
    r = subprocess.run([sys.executable, '-W', 'ignore', '-m', 'torch.distributed.run', '--standalone',
                        '--nproc_per_node', '2', __file__, str(folder), *[f.__name__ for f in work]],
                       capture_output=True, text=True, cwd=here, env=os.environ | {
                           'ACCELERATE_USE_CPU': 'true', 'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(here.parent)})
    assert r.returncode==0, r.stderr[-3000:]
    first,second = [torch.load(folder/f'{i}.pt', weights_only=False) for i in (0, 1)]
    return {name: (first[name], second[name]) for name in first}

def broadcast(self, t, rank): # fastai's own puts the tensor on a GPU first
    t = torch.LongTensor(t)
    torch.distributed.broadcast(t, rank)
    return t.tolist()

def one_cycle_recorded()->dict:
    "What a cycle set and what was recorded"
    spy,learn = Spy(),make_mlp(8, cbs=GradRecorder())
    with learn.distrib_ctx(in_notebook=False, sync_bn=False, cpu=True): learn.fit_one_cycle_ext(2, .1, cbs=spy)
    return dict(lr=spy.column('lr'), grads=learn.recorder.grads.to_dict('list'),
                plan=learn.recorder.plans[-1].trained_ranges)

class Explode(Callback):
    "The loss of the second process explodes at batch 5"
    order,run_valid = 0,False
    def after_loss(self):
        if self.learn.train_iter>=5 and rank_distrib(): self.learn.loss = self.learn.loss + 1e6

def guarded()->dict:
    "What the guard decided"
    learn = make_mlp(8)
    with learn.distrib_ctx(in_notebook=False, sync_bn=False, cpu=True):
        learn.fit(6, .01, cbs=[DivergenceGuard(every=4, patience=5, skip=4), Explode()])
    d = learn.recorder.divergence
    return dict(divergence=d and (d.reason, d.train_iter, d.loss, d.grad_norm), n=len(learn.recorder.losses))

if __name__=='__main__':
    DistributedDL._broadcast = broadcast
    results = {name: globals()[name]() for name in sys.argv[2:]}
    torch.save(results, Path(sys.argv[1])/f'{rank_distrib()}.pt')
    os._exit(0) # without the interpreter's own end, at which gloo's threads now and then abort the process
