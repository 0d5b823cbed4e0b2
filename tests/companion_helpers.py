"Learners of every kind, and what a training leaves: weights, random numbers, recorded values, files"
import math, random
from functools import partial
from pathlib import Path
import numpy as np, pandas as pd, torch
from torch import nn
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from fastcore.foundation import L
from fastai.callback.core import Callback
from fastai.callback.schedule import ParamScheduler
from fastai.collab import CollabDataLoaders, collab_learner
from fastai.data.core import DataLoaders, Datasets
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat, MSELossFlat
from fastai.metrics import accuracy, mse
from fastai.optimizer import Adam, OptimWrapper, SGD
from fastai.tabular.all import (Categorify, CategoryBlock, FillMissing, Normalize, TabularDataLoaders, tabular_config,
                                tabular_learner)
from fastai.test_utils import synth_dbunch
from fastai.text.all import AWD_LSTM, LMDataLoader, awd_lstm_lm_config, language_model_learner
from fastai_clr_ext.schedule import *
from conftest import two_groups

# ---- learners

def mlp_net(): return nn.Sequential(nn.Linear(1, 8), nn.ReLU(), nn.Linear(8, 1))

def line(path, n_trn=5, bs=16, model=mlp_net, **kwargs):
    "A learner of a straight line"
    dls = synth_dbunch(n_train=n_trn, bs=bs)
    return Learner(dls, model(), **dict(loss_func=MSELossFlat(), opt_func=partial(SGD, mom=.9), splitter=two_groups,
                                        metrics=mse, path=path) | kwargs)

def conv_net():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Dropout(.5), nn.Linear(4, 2))

def two_conv_groups(m): return [[*m[0].parameters(), *m[1].parameters()], list(m[6].parameters())]

def to_image(i): return torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(i))

def to_label(i): return i%2

def images(path, num_workers=0, **kwargs):
    "A learner of small images with batch normalisation and dropout"
    sets = Datasets(range(48), [[to_image], [to_label]], splits=[range(32), range(32, 48)])
    dls = sets.dataloaders(bs=8, num_workers=num_workers, device='cpu')
    return Learner(dls, conv_net(), **dict(loss_func=CrossEntropyLossFlat(), opt_func=Adam, metrics=accuracy, path=path,
                                           splitter=two_conv_groups) | kwargs)

def table(path):
    "A tabular learner: embeddings, dropout, missing values"
    n = 60
    df = pd.DataFrame(dict(a=np.random.choice(['x', 'y', 'z'], n), b=np.random.randn(n), c=np.random.randn(n)))
    df.loc[::7, 'c'] = np.nan
    df['y'] = (df.b>0).map({True: 'yes', False: 'no'})
    dls = TabularDataLoaders.from_df(df, path, procs=[Categorify, FillMissing, Normalize], cat_names=['a'],
                                     cont_names=['b', 'c'], y_names='y', y_block=CategoryBlock(), bs=8,
                                     valid_idx=list(range(40, n)), device='cpu')
    return tabular_learner(dls, layers=[8], config=tabular_config(ps=.2, embed_p=.1), metrics=accuracy)

def ratings(path):
    "A learner of collaborative filtering"
    n = 64
    df = pd.DataFrame(dict(user=np.random.randint(0, 6, n), item=np.random.randint(0, 9, n),
                           rating=np.random.uniform(0, 5, n).astype('float32')))
    dls = CollabDataLoaders.from_df(df, bs=16, path=path, seed=0, device='cpu')
    return collab_learner(dls, n_factors=4, y_range=(0, 5.5))

def words(path):
    "A language model with fastai's recurrent network and its callbacks"
    texts = [torch.randint(0, 20, (n,)) for n in (150, 130, 90)]
    loaders = [LMDataLoader([(t,) for t in part], bs=4, seq_len=12, shuffle=i==0)
               for i,part in enumerate((texts, texts[:1]))]
    dls = DataLoaders(*loaders, path=path, device='cpu')
    dls.vocab = [f'w{i}' for i in range(20)]
    small = awd_lstm_lm_config | dict(emb_sz=8, n_hid=12, n_layers=2)
    return language_model_learner(dls, AWD_LSTM, config=small, pretrained=False, metrics=accuracy)

# ---- what a training leaves

class FromTable(Callback):
    "Sets hyper-parameters of each batch from a table: what a cycle sets, without the package's callbacks"
    order,run_valid = ParamScheduler.order,False
    def __init__(self, table): self.table = table
    def before_batch(self):
        for name,values in self.table.items():
            self.learn.opt.set_hyper(name, float(values[self.learn.epoch*self.learn.n_iter + self.learn.iter]))

def data_of(cb):
    "Numbers and tensors that a callback holds"
    kinds = (bool, int, float, type(None), torch.Tensor, np.ndarray, list, tuple, dict, L)
    return {name: value for name,value in vars(cb).items() if isinstance(value, kinds) and name!='learn'}

def scalars(path):
    "What TensorBoard has of a training, by tag"
    events = EventAccumulator(str(path)).Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()['scalars']}

def content(path):
    "What a file holds, without times; of a file whose form is not known only that it is there"
    if path.suffix=='.csv': return pd.read_csv(path).drop(columns='time').to_dict('list')
    if path.suffix=='.pth': return torch.load(path, weights_only=False)
    return scalars(path) if 'tfevents' in path.name else None

def files(folder):
    "Folder, name up to the first dot and content of all files; the rest of a name may be a time"
    found = sorted(p for p in Path(folder).rglob('*') if p.is_file())
    return [(str(p.parent.relative_to(folder)), p.name.split('.')[0], content(p)) for p in found]

def random_states(learn):
    "States of all generators of random numbers"
    return [torch.get_rng_state(), np.random.get_state()[1:], random.getstate(), learn.dls.train.rng.getstate()]

def optimizer_state(opt):
    "What an optimizer keeps for each parameter, and its hyper-parameters"
    state = opt.opt.state if isinstance(opt, OptimWrapper) else opt.state
    kept = [[dict(state[p]) if p in state else None for p in params] for params in opt.param_lists]
    return kept, [dict(hypers) for hypers in opt.hypers]

def left(learn, cbs=()):
    "Everything that must not depend on whether somebody looked on"
    recorder = learn.recorder
    return dict(
        weights=dict(learn.model.state_dict()), gradients=[p.grad for p in learn.model.parameters()],
        trainable=[p.requires_grad for p in learn.model.parameters()],
        modes=[m.training for m in learn.model.modules()],
        n_hooks=sum(len(m._forward_hooks)+len(m._backward_hooks) for m in learn.model.modules()),
        opt=optimizer_state(learn.opt), random=random_states(learn),
        recorder={name: getattr(recorder, name) for name in ('values', 'losses', 'lrs', 'iters', 'metric_names')},
        attributes=sorted(vars(learn)), cbs=[cb.name for cb in learn.cbs],
        companions=[data_of(cb) for cb in cbs], files=files(learn.path))

def without_nan(t):
    "Make a tensor comparable, in which NaN would differ from itself"
    return t.detach().to_dense().nan_to_num(nan=-9., posinf=math.inf, neginf=-math.inf)

def assert_same(a, b, where='what is left'):
    "Fail with the place of the first difference; numbers are compared bit for bit"
    assert type(a) is type(b), f'{where}: {type(a)} and {type(b)}'
    if isinstance(a, torch.Tensor):
        assert (a.shape, a.dtype, a.layout)==(b.shape, b.dtype, b.layout), where
        if a.layout==torch.strided: assert a.stride()==b.stride(), where
        assert torch.equal(without_nan(a), without_nan(b)), f'{where}: {a} and {b}'
    elif isinstance(a, dict):
        assert list(a)==list(b), f'{where}: {list(a)} and {list(b)}'
        for key in a: assert_same(a[key], b[key], f'{where}, {key}')
    elif isinstance(a, (list, tuple, L)):
        assert len(a)==len(b), f'{where}: {len(a)} and {len(b)} items'
        for i,(x,y) in enumerate(zip(a, b)): assert_same(x, y, f'{where}, {i}')
    elif isinstance(a, np.ndarray): np.testing.assert_array_equal(a, b, where)
    elif isinstance(a, (bool, int, float, str, type(None))): assert a==b or a!=a!=b!=b, f'{where}: {a} and {b}'
