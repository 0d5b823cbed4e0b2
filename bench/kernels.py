"""How many kernels a step of our callbacks launches on a device: `python -m bench.kernels`, no GPU needed

torch's fake tensors carry a CUDA device on a machine without one (not yet in torch 2.7). Each callback is called with
the events of a fit, and a dispatch mode around each call counts the operations that reach the device: all but views and
allocations. An operation on a list of tensors counts as one; how many launches torch makes of it is estimated beside
it, by the limits of its multi-tensor kernels and of `cat`. A value that is read back to the host raises."""
import argparse, warnings, weakref
from collections import Counter
from contextlib import contextmanager
from functools import partial

warnings.simplefilter('ignore')
import torch
from torch import nn
from torch._subclasses import FakeTensorMode
from torch._subclasses.fake_tensor import DataDependentOutputException
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torchvision.models import resnet50, vit_b_16
from fastai.callback.progress import ProgressCallback
from fastai.learner import Learner
from fastai.optimizer import Adam, OptimWrapper, SGD
from fastai.test_utils import synth_dbunch
from fastai_clr_ext.all import *
from fastai_clr_ext.core.callback import EventCallback
from fastai_clr_ext.record import HistoryRecorder
from fastai_clr_ext.situations import cifar_resnet
from .common import table

ALLOCATIONS = {'empty', 'empty_like', 'empty_strided', 'new_empty', 'new_empty_strided', 'set_', 'resize_',
               'lift_fresh'}
READS = {'_local_scalar_dense', 'is_nonzero', 'equal', 'nonzero', 'item', '_assert_async'}
# torch's MultiTensorApply.cuh: tensors in a launch by the number of lists, blocks in a launch, elements in a block
LIST_TENSORS,LIST_BLOCKS,LIST_CHUNK = (110, 64, 48, 36, 30),320,65_536
CAT_TENSORS = 128 # of its Shape.cu: tensors in a launch of `cat`

class HostRead(Exception):
    "A value of the device was read by the host"

def list_launches(tensors:list, n_lists:int)->int:
    "Launches of a multi-tensor kernel"
    n_launches = n_tensors = n_blocks = 0
    for i,t in enumerate(tensors):
        n_tensors += 1
        n_chunks = -(-t.numel()//LIST_CHUNK)
        for chunk in range(n_chunks):
            n_blocks += 1
            is_last = chunk==n_chunks-1
            is_full = n_blocks==LIST_BLOCKS or (is_last and n_tensors==LIST_TENSORS[n_lists-1])
            if not is_full and not (is_last and i==len(tensors)-1): continue
            n_launches,n_blocks,n_tensors = n_launches+1,0,0 if is_last else 1
    return n_launches

def estimated_launches(name:str, args:tuple)->int:
    "Launches of one operation"
    lists = [a for a in args if isinstance(a, (list, tuple)) and a and isinstance(a[0], torch.Tensor)]
    if name in ('cat', 'stack'): return -(-len(lists[0])//CAT_TENSORS)
    if not name.startswith('_foreach'): return 1
    n = list_launches(lists[0], len(lists) + (not name.endswith('_') and name!='_foreach_norm'))
    return n + 3 if name=='_foreach_norm' else n # two buffers of zeros, and the sum over a tensor's chunks

class Kernels(TorchDispatchMode):
    "Counts what reaches the device, and the memory it takes"
    def __init__(self):
        super().__init__()
        self.names,self.n_launches = Counter(),0
        self.bytes = self.peak = 0

    def _hold(self, t):
        "Count a tensor's memory until it is freed"
        n = t.numel()*t.element_size()
        self.bytes += n
        self.peak = max(self.peak, self.bytes)
        weakref.finalize(t.untyped_storage(), self._let_go, n)

    def _let_go(self, n): self.bytes -= n

    @property
    def n(self)->int: return sum(self.names.values())

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = func._schema.name.partition('::')[2]
        on_device = any(isinstance(t, torch.Tensor) and t.device.type=='cuda' for t in tree_leaves((args, kwargs)))
        if on_device and name in READS: raise HostRead(name)
        out = func(*args, **kwargs)
        made = [t for t in tree_leaves(out) if isinstance(t, torch.Tensor)]
        to_device = any(t.device.type=='cuda' for t in made)
        if on_device and any(t.device.type=='cpu' for t in made): raise HostRead(name)
        if not (on_device or to_device) or func.is_view or name in ('device', 'detach'): return out
        if not func._schema.is_mutable:
            for t in made: self._hold(t)
        if name in ALLOCATIONS: return out
        self.names[name] += 1
        self.n_launches += estimated_launches(name, args)
        return out

def deep_mlp(n_layers:int=1000, width:int=64)->nn.Module:
    return nn.Sequential(*[nn.Linear(width, width) for _ in range(n_layers)])

def small_resnet()->nn.Module: return cifar_resnet(8)

MODELS = {'resnet50': resnet50, 'ViT-B': vit_b_16, '1,000-layer MLP': deep_mlp}
TORCH_ADAM = partial(OptimWrapper, opt=torch.optim.AdamW)
FUSED_ADAM = partial(OptimWrapper, opt=partial(torch.optim.AdamW, fused=True))
#: Callback and optimizer of each row
CASES = {
    'HistoryRecorder': (HistoryRecorder, SGD),
    'GradRecorder': (GradRecorder, SGD),
    'max, zeros, nonfinite': (partial(GradRecorder, ('max', 'zeros', 'nonfinite')), SGD),
    'weight': (partial(GradRecorder, 'weight'), SGD),
    'cosine': (partial(GradRecorder, 'cosine'), SGD),
    'update': (partial(GradRecorder, 'update'), SGD),
    'hist': (partial(GradRecorder, 'hist'), SGD),
    'adam=True': (partial(GradRecorder, adam=True), Adam),
    "adam=True, torch's": (partial(GradRecorder, adam=True), TORCH_ADAM),
    "adam=True, fused": (partial(GradRecorder, adam=True), FUSED_ADAM),
    "per='layer'": (partial(GradRecorder, per='layer'), SGD),
    "per='param'": (partial(GradRecorder, per='param'), SGD),
    "all, per='layer'": (partial(GradRecorder, ('max', 'zeros', 'nonfinite', 'weight', 'cosine', 'update'), per='layer',
                                 adam=True), Adam),
    'DivergenceGuard': (DivergenceGuard, SGD),
    'DivergenceGuard, Adam': (DivergenceGuard, Adam),
    'DivergenceGuard, fused': (DivergenceGuard, FUSED_ADAM)}

def on_device(make_model)->nn.Module:
    "A model whose parameters carry a CUDA device; its values don't matter"
    with torch.device('meta'): model = make_model()
    for module in model.modules():
        for name,p in module._parameters.items():
            if p is not None: module._parameters[name] = nn.Parameter(torch.empty(p.shape, device='cuda'))
    return model

def fake_learner(make_model, cb, opt_func, n_groups=1)->Learner:
    "A learner on a CUDA device that isn't there"
    model = on_device(make_model)
    def splitter(m):
        params = list(m.parameters())
        size = -(-len(params)//n_groups)
        return [params[i:i+size] for i in range(0, len(params), size)]
    learn = Learner(synth_dbunch(n_train=1, n_valid=1), model, opt_func=opt_func, splitter=splitter, lr=.1, cbs=cb,
                    loss_func=nn.MSELoss()).remove_cb(ProgressCallback)
    learn.create_opt()
    vars(learn).update(n_epoch=1, epoch=0, n_iter=100, training=True, train_iter=0, iter=0, pct_train=0.)
    return learn

@contextmanager
def counts_on_host(opt):
    "Give torch's optimizers numbers for their counts of steps on the host, which a fake tensor can't be asked for"
    states = [s for s in opt.opt.state.values() if s['step'].is_cpu] if isinstance(opt, OptimWrapper) else []
    fakes = [s['step'] for s in states]
    for s in states: s['step'] = 3.
    yield
    for s,fake in zip(states, fakes): s['step'] = fake

def steps(make_model, make_cb, opt_func=SGD, n_steps=4, **kwargs)->list:
    "`Kernels` of each step of a callback, by its events"
    with FakeTensorMode(allow_non_fake_inputs=True):
        learn = fake_learner(make_model, make_cb(), opt_func, **kwargs)
        found = []
        def event(name, count):
            with count:
                for c in sorted(learn.cbs, key=lambda c: c.order):
                    if isinstance(c, EventCallback): c(name)
        event('before_fit', Kernels())
        for i in range(n_steps):
            count = Kernels()
            learn.iter = learn.train_iter = i
            event('before_batch', count)
            learn.loss = learn.loss_grad = torch.ones((), device='cuda')
            event('after_loss', count)
            for p in learn.model.parameters(): p.grad = torch.empty_like(p)
            event('before_step', count)
            learn.opt.step()
            with counts_on_host(learn.opt): event('after_step', count)
            event('after_batch', count)
            found.append(count)
        return found

def mean_over_looks(found:list)->float:
    "Operations a step of a guard, without the look that ends its ten batches"
    return sum(count.n for count in found[:9])/9

def n_bytes(make_model)->int:
    "Bytes of all gradients in float32"
    with torch.device('meta'): return sum(4*p.numel() for p in make_model().parameters())

def measure(names=CASES)->dict:
    "Operations, launches and memory of each case and model"
    rows = []
    for name in names:
        make_cb,opt_func = CASES[name]
        is_guard = make_cb is DivergenceGuard
        for model,make_model in MODELS.items():
            row = dict(what=name, model=model)
            rows.append(row)
            try: found = steps(make_model, make_cb, opt_func, 9 if is_guard else 3)
            except (HostRead, DataDependentOutputException) as e:
                row['operations'] = f'reads {e}'
                continue
            row['operations'] = mean_over_looks(found) if is_guard else found[2].n
            row['launches, about'] = found[2].n_launches
            row['memory over all gradients'] = max(count.peak for count in found)/n_bytes(make_model)
    return dict(rows=rows)

if __name__=='__main__':
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--cases', nargs='*', default=list(CASES), choices=list(CASES))
    print(table(measure(parser.parse_args().cases)['rows']))
