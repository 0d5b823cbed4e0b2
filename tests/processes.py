"Fits over several processes: `in_processes` runs this file, which leaves the results of each process"
import os, signal, subprocess, sys, time, torch
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from fastai.basics import *
from fastai.callback.training import GradientAccumulation
from fastai.distributed import DistributedDL, rank_distrib
from fastai_clr_ext.all import *
from conftest import Spy, make_mlp
from resume_helpers import loaders, make, outcome

def launch(n, folder, *work, timeout=240):
    "Start functions of this file in several processes; the finished launcher"
    here = Path(__file__).parent
    torchrun = [sys.executable, '-W', 'ignore', '-m', 'torch.distributed.run', '--standalone', f'--nproc_per_node={n}']
    env = os.environ | {'ACCELERATE_USE_CPU': 'true', 'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(here.parent)}
    return subprocess.run([*torchrun, __file__, str(folder), *[f.__name__ for f in work]], capture_output=True,
                          text=True, cwd=here, timeout=timeout, env=env)

def in_processes(n, folder, *work)->dict: # By function, the result of each process
    "Run functions of this file in several processes"
    r = launch(n, folder, *work)
    assert r.returncode==0, r.stderr[-6000:]
    found = [torch.load(folder/f'{i}.pt', weights_only=False) for i in range(n)]
    return {name: [results[name] for results in found] for name in found[0]}

def broadcast(self, t, rank): # fastai's own puts the tensor on a GPU first
    t = torch.LongTensor(t)
    torch.distributed.broadcast(t, rank)
    return t.tolist()

def spread(learn): return learn.distrib_ctx(in_notebook=False, sync_bn=False, cpu=True)

def one_cycle_recorded(folder)->dict:
    "What a cycle set and what was recorded"
    spy,learn = Spy(),make_mlp(12, cbs=GradRecorder())
    with spread(learn): learn.fit_one_cycle_ext(2, .1, cbs=spy)
    return dict(lr=spy.column('lr'), grads=learn.recorder.grads.to_dict('list'), n=learn.n_iter,
                plan=learn.recorder.plans[-1].trained_ranges)

class Explode(Callback):
    "The loss of the second process explodes at batch 5"
    order,run_valid = 0,False
    def after_loss(self):
        if self.learn.train_iter>=5 and rank_distrib()==1: self.learn.loss = self.learn.loss + 1e6

def guarded(folder)->dict:
    "What the guard decided"
    learn = make_mlp(12)
    with spread(learn): learn.fit(6, .01, cbs=[DivergenceGuard(every=4, patience=5, skip=4), Explode()])
    d = learn.recorder.divergence
    return dict(divergence=d and (d.reason, d.train_iter, d.loss, d.grad_norm), n=len(learn.recorder.losses))

class Tape(Callback):
    "Keeps the batches of this process"
    order,run_valid = 0,False
    def before_fit(self): self.batches = []
    def before_batch(self): self.batches.append([t.clone() for t in (*self.learn.xb, *self.learn.yb)])

def all_batches_seen(folder)->dict:
    "Batches, gradients and weights of a fit, whose last batches are uneven"
    tape,learn = Tape(),make_mlp(5, cbs=GradRecorder())
    learn.dls.train.bs = 18
    before = [p.detach().clone() for p in learn.model.parameters()]
    with spread(learn): learn.fit_one_cycle_ext(2, .1, cbs=tape)
    return dict(batches=tape.batches, grads=learn.recorder.grads.to_dict('list'), before=before,
                weights=[p.detach() for p in learn.model.parameters()])

class NoSync(Callback):
    "Lets gradients stay in their process until the batch that steps, as DDP's `no_sync` is for"
    order,run_valid = -5,False
    def before_batch(self):
        self.held = nullcontext() if (self.learn.train_iter+1)%3==0 else self.learn.model.no_sync()
        self.held.__enter__()
    def after_cancel_batch(self): self.held.__exit__(None, None, None)
    def after_step(self): self.held.__exit__(None, None, None)

def accumulated(folder)->dict:
    "Weights and records with accumulation, with and without `no_sync`"
    found = {}
    for name,cbs in dict(synced=[], not_synced=[NoSync()]).items():
        learn = make_mlp(12, cbs=GradRecorder())
        with spread(learn): learn.fit(2, .1, cbs=[GradientAccumulation(48), *cbs])
        steps = learn.recorder.history.steps
        found[name] = dict(grads=learn.recorder.grads.to_dict('list'), skipped=steps.skipped.tolist(),
                           weights=[p.detach() for p in learn.model.parameters()])
    return found

def staged(folder)->dict:
    "A fit in stages with a part of an epoch, its history written by one process"
    learn,stages = make_mlp(12),[Stage('head', .5, .05, -1), Stage('all', 1, .05)]
    with spread(learn): learn.fit_stages(stages, SaveHistory(folder/'stages.npz'))
    return dict(stages=learn.recorder.history.stages.drop(columns='seconds').to_dict('list'))

class Writer:
    "Stands for TensorBoard's"
    def __init__(self): self.n = 0
    def add_scalar(self, *args, **kwargs): self.n += 1
    def add_histogram_raw(self, *args, **kwargs): self.n += 1
    def flush(self): pass

def forwarded(folder)->dict:
    "How many values were sent"
    learn,writer = make_mlp(12),Writer()
    with spread(learn): learn.fit_one_cycle_ext(1, .05, cbs=ForwardHistory(every=1, writer=writer))
    return dict(n=writer.n)

def refused(folder)->dict:
    "What each process raises where only the first one has a reason, and after how long"
    found = {}
    fits = {'fit_one_cycle_ext': lambda learn, cbs: learn.fit_one_cycle_ext(1, .05, cbs=cbs),
            'fit_stages': lambda learn, cbs: learn.fit_stages([Stage('a', 1)], cbs),
            'fit': lambda learn, cbs: learn.fit(1, cbs=[HistoryRecorder(), *cbs]),
            'resume_fit': lambda learn, cbs: learn.resume_fit(folder/'missing.pt', cbs)}
    for name,fit in fits.items():
        learn = make_mlp(12)
        begun = time.time()
        with spread(learn):
            try: fit(learn, [SaveHistory(folder/'taken.npz')])
            except ValueError as e: found[name] = (str(e), time.time()-begun, learn.opt is None)
    return found

class StopAt(Callback):
    "Ends a fit after so many batches: all processes by Ctrl-C, or one by a signal"
    order,run_valid = FitCheckpoint.order+1,False
    def __init__(self, n=-1, number=None, rank=1): self.n,self.number,self.rank,self.count = n,number,rank,0
    def after_batch(self):
        self.count += 1
        if self.count!=self.n: return
        if self.number is None: raise KeyboardInterrupt
        if rank_distrib()==self.rank: os.kill(os.getpid(), self.number)

def trained(fit, learn):
    "The outcome of a fit; None if it was interrupted"
    with spread(learn):
        try: fit(learn)
        except KeyboardInterrupt: return None
    return {k: v for k,v in outcome(learn).items() if k not in ('random', 'np', 'python')}

def new_learner():
    "Each process has random numbers of its own"
    learn = make(partial(loaders, 36), cbs=GradRecorder())
    set_seed(10+rank_distrib())
    return learn

def resumed(folder)->dict:
    "A fit, and one that is interrupted and resumed"
    path = folder/'run.pt'
    whole = trained(lambda learn: learn.fit_one_cycle_ext(3, .05), new_learner())
    trained(lambda learn: learn.fit_one_cycle_ext(3, .05, cbs=[FitCheckpoint(path, 2), StopAt(5)]), new_learner())
    files = sorted(p.name for p in folder.iterdir() if p.name.startswith('run'))
    return dict(whole=whole, files=files, after=trained(lambda learn: learn.resume_fit(path, StopAt()), new_learner()))

def terminated(folder)->dict:
    "SIGTERM comes to the second process only"
    path = folder/'term.pt'
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    learn = new_learner()
    with spread(learn):
        try: learn.fit_one_cycle_ext(3, .05, cbs=[FitCheckpoint(path, 100), StopAt(6, signal.SIGTERM)])
        except KeyboardInterrupt: return dict(n=len(learn.recorder.history))
    return dict(n=-1)

def killed(folder):
    "The second process is killed in the middle of the second epoch"
    learn,cbs = new_learner(),[FitCheckpoint(folder/'killed.pt', 1), StopAt(8, signal.SIGKILL)]
    with spread(learn): learn.fit_one_cycle_ext(3, .05, cbs=cbs)

def after_kill(folder)->dict:
    "The killed fit goes on; one that nothing killed"
    return dict(after=trained(lambda learn: learn.resume_fit(folder/'killed.pt', StopAt()), new_learner()),
                whole=trained(lambda learn: learn.fit_one_cycle_ext(3, .05), new_learner()))

if __name__=='__main__':
    DistributedDL._broadcast = broadcast
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    results = {name: globals()[name](folder) for name in sys.argv[2:]}
    torch.save(results, folder/f'{rank_distrib()}.pt')
    os._exit(0) # without the interpreter's own end, at which gloo's threads now and then abort the process
