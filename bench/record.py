"""What recording gradients costs, beside others: `python -m bench.record`

The time spent inside a callback over the median time of a whole training step, both on the thread's own clock with one
thread, because whole steps with and without it differ by less than they vary. Each is timed in fits of its own, in
turn. Beside it, where they are installed: `wandb.watch` as it is used (an offline run, every batch), the same without
handing the histograms over, TensorBoard's `add_histogram`, Lightning's `grad_norm`, composer's `OptimizerMonitor`,
Cockpit's norm (by whole steps of a plain loop), fastai's `ActivationStats` (which is about activations), and what it
takes only to read each gradient once. Random data."""
import argparse, tempfile, time, warnings
from contextlib import contextmanager, nullcontext
from functools import partial
from statistics import median
from types import SimpleNamespace
from unittest.mock import patch as replaced

warnings.simplefilter('ignore')
import torch
from torch import nn
from torch.utils.data import TensorDataset
from torchvision.models import VisionTransformer, resnet50
from fastai.callback.core import Callback
from fastai.callback.hook import ActivationStats
from fastai.callback.progress import ProgressCallback
from fastai.data.core import DataLoaders, TfmdDL
from fastai.learner import Learner
from fastai.optimizer import Adam, SGD
from fastai.torch_core import set_seed
from fastai_clr_ext.all import *
from fastai_clr_ext.record.log import Log
from .common import in_turn, spread, table, tried, version

def mlp(): return nn.Sequential(nn.Flatten(), nn.Linear(192, 50), nn.ReLU(), nn.Linear(50, 10))

def small_vit(): return VisionTransformer(image_size=32, patch_size=4, num_layers=6, num_heads=3, hidden_dim=192,
                                          mlp_dim=768, num_classes=10)

#: Network, shape of a batch, batches of a fit
SIZES = {'MLP, 64×3×8×8': (mlp, (64, 3, 8, 8), 40),
         'resnet20, 64×3×32×32': (partial(cifar_resnet, 20), (64, 3, 32, 32), 8),
         'resnet56, 64×3×32×32': (partial(cifar_resnet, 56), (64, 3, 32, 32), 6),
         'ViT (6 layers), 32×3×32×32': (small_vit, (32, 3, 32, 32), 6),
         'resnet50, 8×3×128×128': (partial(resnet50, num_classes=10), (8, 3, 128, 128), 6)}
ALL = [name for name in STATS if name!='clipped']
RECORDERS = {'GradRecorder()': dict(), "'max', 'zeros', 'nonfinite'": dict(stats=('max', 'zeros', 'nonfinite')),
             "per='layer'": dict(per='layer'), 'adam=True': dict(adam=True),
             'all statistics': dict(stats=ALL, adam=True)}

def make_learner(make_model, shape, n_batches, adam=False)->Learner:
    set_seed(0)
    x,y = torch.randn(shape[0]*n_batches, *shape[1:]),torch.randint(0, 10, (shape[0]*n_batches,))
    dls = DataLoaders(TfmdDL(TensorDataset(x, y), bs=shape[0], num_workers=0),
                      TfmdDL(TensorDataset(x[:2], y[:2]), bs=2, num_workers=0))
    learn = Learner(dls, make_model(), loss_func=nn.CrossEntropyLoss(),
                    opt_func=Adam if adam else partial(SGD, mom=.9), lr=1e-3).remove_cb(ProgressCallback)
    learn.logger = lambda *_: None
    return learn

# ---- how it is timed

class Spent(Callback):
    "Time inside functions, and of the whole step, in each training batch"
    order,run_valid = -100,False
    def before_fit(self): self.spans,self.marks = [],[]
    def before_batch(self):
        self.spans.append(0.)
        self.marks.append(time.thread_time())
    def timed(self, f):
        "The function, its time added to that of the batch"
        def wrapped(*args, **kwargs):
            start = time.thread_time()
            try: return f(*args, **kwargs)
            finally:
                if self.spans: self.spans[-1] += time.thread_time()-start
        return wrapped
    def share(self)->float:
        "Median time inside over the median step without it"
        steps = [b-a-inside for a,b,inside in zip(self.marks[1:], self.marks[2:], self.spans[1:])]
        return median(self.spans[2:])/median(steps)

@contextmanager
def ours(spent, **kwargs):
    "`GradRecorder`"
    cb = GradRecorder(**kwargs)
    class Timed(type(cb)):
        def __call__(self, event): spent.timed(super().__call__)(event)
    cb.__class__ = Timed
    yield [cb]

class EachGradient(Callback):
    "Gives every gradient to a function, where `GradRecorder` stands"
    order,run_valid = GradRecorder.order,False
    def __init__(self, log): self.log = log
    def before_step(self):
        for name,p in self.learn.model.named_parameters(): self.log(name, p.grad)

@contextmanager
def sums(spent):
    "One sum of each gradient: the least that any record of them can take"
    yield [EachGradient(spent.timed(lambda name, g: g.sum()))]

@contextmanager
def tensorboard(spent):
    "A histogram of each gradient"
    from torch.utils.tensorboard import SummaryWriter
    with tempfile.TemporaryDirectory() as d, SummaryWriter(d) as w:
        yield [EachGradient(spent.timed(lambda name, g: w.add_histogram(name, g, 0)))]

class Watch(Callback):
    "`wandb.watch`, as it is used; with `hand_over=False` the histograms are made, and go nowhere"
    run_valid = False
    def __init__(self, run): self.run_of_wandb = run
    def before_fit(self): self.run_of_wandb.watch(self.learn.model, log='gradients', log_freq=1)

@contextmanager
def wandb_watch(spent, hand_over=True):
    import wandb
    from wandb.integration.torch.wandb_torch import TorchHistory
    with (tempfile.TemporaryDirectory() as d,
          wandb.init(mode='offline', dir=d, settings=wandb.Settings(silent=True, console='off')) as run):
        if not hand_over: run._log = lambda *args, **kwargs: None
        timed = spent.timed(TorchHistory.log_tensor_stats)
        with replaced.object(TorchHistory, 'log_tensor_stats', timed): yield [Watch(run)]

class WithGradients(Callback):
    "Gives the model to a function, where `GradRecorder` stands"
    order,run_valid = GradRecorder.order,False
    def __init__(self, log): self.log = log
    def before_step(self): self.log(self.learn)

@contextmanager
def lightning_norms(spent):
    "Lightning's norms of each gradient and of all"
    from lightning.pytorch.utilities import grad_norm
    yield [WithGradients(spent.timed(lambda learn: grad_norm(learn.model, 2)))]

@contextmanager
def composer_monitor(spent):
    "composer's norms of gradients, weights and moments of each layer, handed to a logger that does nothing"
    from composer.callbacks import OptimizerMonitor
    monitor,logger = OptimizerMonitor(log_optimizer_metrics=False),SimpleNamespace(log_metrics=lambda metrics: None)
    def log(learn):
        batch = SimpleNamespace(batch=SimpleNamespace(value=0))
        state = SimpleNamespace(model=learn.model, optimizers=[learn.opt], timestamp=batch, fsdp_enabled=False)
        monitor.batch_end(state, logger)
    yield [WithGradients(spent.timed(log))]

@contextmanager
def activation_stats(spent):
    "fastai's means and deviations of activations"
    cb = ActivationStats()
    class Timed(ActivationStats):
        def hook(self, *args): return spent.timed(super().hook)(*args)
        def after_batch(self): spent.timed(super().after_batch)()
    cb.__class__ = Timed
    yield [cb]

PEERS = {'one sum of each gradient': (sums, 'torch'), 'wandb.watch': (wandb_watch, 'wandb'),
         "wandb's histograms, not handed over": (partial(wandb_watch, hand_over=False), 'wandb'),
         "TensorBoard's histograms": (tensorboard, 'tensorboard'),
         "Lightning's grad_norm": (lightning_norms, 'lightning'),
         "composer's OptimizerMonitor": (composer_monitor, 'mosaicml'),
         "fastai's ActivationStats": (activation_stats, 'fastai')}

def share(size, recording, adam=False)->float:
    "Percent of a step that is spent inside"
    learn,spent = make_learner(*SIZES[size], adam),Spent()
    with recording(spent) as cbs: learn.fit(1, cbs=[spent, *cbs])
    return 100*spent.share()

def cockpit_share(size)->float:
    "Percent that Cockpit's norm of the gradient adds to a step of a plain loop: it works with no trainer's loop"
    from backpack import extend
    from cockpit import Cockpit, quantities
    from cockpit.utils.schedules import linear
    make_model,shape,n_batches = SIZES[size]
    set_seed(0)
    model,loss_func,each_loss = make_model(), extend(nn.CrossEntropyLoss()), nn.CrossEntropyLoss(reduction='none')
    opt = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=.9)
    cockpit = Cockpit(model.parameters(), quantities=[quantities.GradNorm(track_schedule=linear(1))])
    model = extend(model)
    x,y = torch.randn(*shape),torch.randint(0, 10, shape[:1])
    seconds = {False: [], True: []}
    for i in range(2*n_batches):
        is_watched = bool(i%2)
        start = time.thread_time()
        opt.zero_grad()
        pred = model(x)
        loss = loss_func(pred, y)
        info = dict(batch_size=len(x), loss=loss, individual_losses=each_loss(pred, y).detach(), optimizer=opt)
        with cockpit(i, info=info) if is_watched else nullcontext(): loss.backward()
        opt.step()
        seconds[is_watched].append(time.thread_time()-start)
    return 100*(median(seconds[True][2:])/median(seconds[False][2:])-1)

def measure(sizes=SIZES, n_rounds:int=3)->dict:
    torch.set_num_threads(1)
    rows,not_tried = [],{}
    for size in sizes:
        functions = {name: partial(share, size, partial(ours, **kwargs), kwargs.get('adam', False))
                     for name,kwargs in RECORDERS.items()}
        packages = dict.fromkeys(functions, 'fastai_clr_ext')
        for name,(recording,package) in PEERS.items():
            functions[name] = partial(share, size, recording)
            packages[name] = package
        functions["Cockpit's GradNorm"] = partial(cockpit_share, size)
        packages["Cockpit's GradNorm"] = 'cockpit-for-pytorch'
        works,errors = tried(functions)
        not_tried |= errors
        for name,shares in in_turn(works, n_rounds).items():
            rows.append(dict(training=size, what=name, version=f'{packages[name]} {version(packages[name])}',
                             unit='% of a step', **spread(shares)))
    return dict(rows=rows, not_tried=not_tried, log=log_costs())

def log_costs(n:int=200_000)->dict:
    "Microseconds per recorded row at the start and at the end of `n` rows"
    log,layout = Log(),(torch.device('cpu'), (3, 2), dict(units=[['', 0], ['', 1], ['', 2]], columns=['total', 'norm']))
    values,times = torch.ones(2),[]
    for i in range(n):
        start = time.thread_time()
        row = log.add([0, i, i, 0], [1, 1, 1], layout, is_open=True)
        for r in row: r[:] = values
        log.close()
        times.append(time.thread_time()-start)
    first,last = [1e6*sum(o)/len(o) for o in (times[:n//10], times[-n//10:])]
    return dict(rows=n, first_tenth_us=first, last_tenth_us=last)

if __name__=='__main__':
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--sizes', nargs='*', default=list(SIZES), choices=list(SIZES))
    found = measure(parser.parse_args().sizes)
    print(table(found['rows']), found['not_tried'], found['log'], sep='\n\n')
