"""What `GradRecorder` costs: `python -m bench.record`

The time spent inside the callback over the median time of a whole training step, both on the thread's own clock with
one thread, because whole steps with and without it differ by less than they vary. Where wandb and tensorboard are
installed, their histograms of the same gradients are timed beside it: `wandb.watch` as it is used (an offline run,
every batch), the same without handing the histograms over, and TensorBoard's `add_histogram`; and what it takes only to
read each gradient once. Random data: only time is measured."""
import argparse, tempfile, time, warnings
from functools import partial
from statistics import median

warnings.simplefilter('ignore')
import torch
from torch import nn
from torch.utils.data import TensorDataset
from torchvision.models import resnet50
from fastai.callback.core import Callback
from fastai.callback.progress import ProgressCallback
from fastai.data.core import DataLoaders, TfmdDL
from fastai.learner import Learner
from fastai.optimizer import Adam, SGD
from fastai.torch_core import set_seed
from fastai_clr_ext.all import *
from fastai_clr_ext.record.log import Log

SIZES = {'resnet20, 64×3×32×32': (partial(cifar_resnet, 20), (64, 3, 32, 32), 12),
         'resnet56, 64×3×32×32': (partial(cifar_resnet, 56), (64, 3, 32, 32), 8),
         'resnet20, 128×1×14×14': (partial(cifar_resnet, 20, 1), (128, 1, 14, 14), 20),
         'resnet50, 8×3×128×128': (partial(resnet50, num_classes=10), (8, 3, 128, 128), 8)}
RECORDERS = {'default': dict(), 'max, zeros, nonfinite': dict(stats=('max', 'zeros', 'nonfinite')),
             'weight': dict(stats='weight'), 'hist': dict(stats='hist'),
             'per layer': dict(per='layer'), 'adam=True': dict(adam=True)}

class Timed(GradRecorder):
    "Counts the time spent inside, by step"
    def before_fit(self):
        super().before_fit()
        self.spans = []
    def __call__(self, event_name):
        start = time.thread_time()
        super().__call__(event_name)
        took = time.thread_time()-start
        if event_name=='before_batch': self.spans.append(0.)
        if self.learn.training and self.spans: self.spans[-1] += took

class StepClock(Callback):
    "Time of each whole training batch"
    order,run_valid = -100,False
    def before_fit(self): self.marks = []
    def before_batch(self): self.marks.append(time.thread_time())

def make_learner(make_model, shape, n_batches, adam)->Learner:
    set_seed(0)
    x,y = torch.randn(shape[0]*n_batches, *shape[1:]),torch.randint(0, 10, (shape[0]*n_batches,))
    dls = DataLoaders(TfmdDL(TensorDataset(x, y), bs=shape[0], num_workers=0),
                      TfmdDL(TensorDataset(x[:2], y[:2]), bs=2, num_workers=0))
    learn = Learner(dls, make_model(), loss_func=nn.CrossEntropyLoss(),
                    opt_func=Adam if adam else partial(SGD, mom=.9), lr=1e-3).remove_cb(ProgressCallback)
    learn.logger = lambda *_: None
    return learn

def share(size, kwargs)->tuple:
    "Median over steps of the time inside the callback and of the whole step, seconds"
    learn = make_learner(*SIZES[size], kwargs.get('adam', False))
    cb,clock = Timed(**kwargs),StepClock()
    learn.fit(1, cbs=[cb, clock])
    steps = [b-a for a,b in zip(clock.marks[1:], clock.marks[2:])]
    return median(cb.spans[2:]), median(steps)

class Calls(Callback):
    "Time inside functions in each training batch"
    order,run_valid = -100,False
    def __init__(self): self.spans = []
    def before_batch(self): self.spans.append({})
    def timed(self, name, f):
        def wrapped(*args, **kwargs):
            start = time.thread_time()
            f(*args, **kwargs)
            self.spans[-1][name] = self.spans[-1].get(name, 0.) + time.thread_time()-start
        return wrapped
    def median(self, name)->float: return median(o[name] for o in self.spans[2:])

class EachGradient(Callback):
    "Gives every gradient to a function, where `GradRecorder` stands"
    order,run_valid = GradRecorder.order,False
    def __init__(self, log): self.log = log
    def before_step(self):
        for name,p in self.learn.model.named_parameters(): self.log(name, p.grad)

def with_wandb(size)->dict:
    "Seconds a step that `wandb.watch` takes in an offline run, and those of them that only make histograms"
    import wandb
    from wandb.integration.torch.wandb_torch import TorchHistory
    learn,calls,real = make_learner(*SIZES[size], False),Calls(),TorchHistory.log_tensor_stats
    with (tempfile.TemporaryDirectory() as d,
          wandb.init(mode='offline', dir=d, settings=wandb.Settings(silent=True, console='off')) as run):
        run._log = calls.timed('hand over', run._log)
        TorchHistory.log_tensor_stats = calls.timed('watch', real)
        try:
            run.watch(learn.model, log='gradients', log_freq=1)
            learn.fit(1, cbs=calls)
        finally: TorchHistory.log_tensor_stats = real
    return {'wandb.watch': calls.median('watch'), "wandb's histograms": calls.median('watch')-calls.median('hand over')}

def each_gradient(size, log)->float:
    "Seconds a step that a function of a name and a gradient takes, given them all"
    calls = Calls()
    make_learner(*SIZES[size], False).fit(1, cbs=[calls, EachGradient(calls.timed('log', log))])
    return calls.median('log')

def with_tensorboard(size)->dict:
    "Seconds a step that TensorBoard's histograms take"
    from torch.utils.tensorboard import SummaryWriter
    with tempfile.TemporaryDirectory() as d, SummaryWriter(d) as w:
        return {'TensorBoard': each_gradient(size, lambda name, g: w.add_histogram(name, g, 0))}

def with_sums(size)->dict:
    "Seconds a step that it takes to read every gradient once, which is the least that any record of them can"
    return {'one sum of each': each_gradient(size, lambda name, g: g.sum())}

OTHERS = ['one sum of each', 'wandb.watch', "wandb's histograms", 'TensorBoard']

def others(size)->dict:
    "Seconds a step of those that are installed"
    out = {}
    for f in (with_sums, with_wandb, with_tensorboard):
        try: out |= f(size)
        except ImportError as e: print(f'({e})')
    return out

def main(sizes):
    torch.set_num_threads(1)
    print('Share of a training step spent in GradRecorder, percent of the median step:\n')
    heads = ['model, batch', 'step, ms', *RECORDERS, *(f'default ÷ {o}' for o in OTHERS)]
    print(f"| {' | '.join(heads)} |\n|{'---|'*len(heads)}")
    for size in sizes:
        cells,default = [],None
        for kwargs in RECORDERS.values():
            span,step = share(size, kwargs)
            if default is None: default,base,other = span,step,others(size)
            cells.append(f'{100*span/step:.2f}')
        ratios = [f'{default/other[k]:.3f}' if k in other else '–' for k in OTHERS]
        print(f"| {size} | {base*1e3:.0f} | {' | '.join(cells)} | {' | '.join(ratios)} |", flush=True)

def flatness(n:int=200_000)->list:
    "Microseconds per recorded row at the start and at the end of `n` rows"
    log,layout = Log(),(torch.device('cpu'), (3, 2), dict(units=[['', 0], ['', 1], ['', 2]], columns=['total', 'norm']))
    values,times = torch.ones(2),[]
    for i in range(n):
        start = time.thread_time()
        row = log.add([0, i, i, 0], [1, 1, 1], layout, is_open=True)
        for r in row: r[:] = values
        log.close()
        times.append(time.thread_time()-start)
    return [1e6*sum(o)/len(o) for o in (times[:n//10], times[-n//10:])]

if __name__=='__main__':
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--sizes', nargs='*', default=list(SIZES), choices=list(SIZES))
    main(parser.parse_args().sizes)
    a,b = flatness()
    print(f'\nThe log alone, three groups: {a:.0f} µs a step in the first tenth of 200,000 steps, '
          f'{b:.0f} µs in the last.')
