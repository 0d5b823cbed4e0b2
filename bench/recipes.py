"""How recipes for fine-tuning compare without a download: `python -m bench.recipes`, a quarter of an hour on one core

A small residual network is pretrained on five classes of Fashion-MNIST, then trained on few images of the other five.
So that pretraining has something to teach, every image (14×14, by averaging 2×2 pixels) is turned by a random multiple
of 90°, mirrored or not, and inverted or not, once and for all: unaltered, a regression on the pixels does as well as
any network here. Every policy has the same budget of optimizer steps and the same number of trials: its rate is chosen
among `RATES` by the mean accuracy over `TRIAL_SEEDS` on images held out of the training set; then it runs with `SEEDS`,
which it has not seen, and is measured on the test images of its classes. Runs with the same seed have the same training
images, batches and new head. Training from scratch is the control. Recipe B is also tried with other lengths of the
head's stage and other ratios of rates, on the held-out images alone. Writes `nbs/studies/recipes.json`, which the study
notebook draws. The data are the idx files of Fashion-MNIST, for example of Debian's package
`dataset-fashion-mnist`."""
import argparse, json, warnings
from functools import partial
from pathlib import Path

warnings.simplefilter('ignore')
import numpy as np, torch
import torch.nn.functional as F
from torch.utils.data import TensorDataset
from fastai.callback.progress import ProgressCallback
from fastai.callback.schedule import *
from fastai.data.core import DataLoaders, TfmdDL
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat
from fastai.optimizer import Adam, SGD
from fastai.torch_core import set_seed
from fastai_clr_ext.all import *
from fastai_clr_ext.situations.images import read_idx

# t-shirt, trouser, coat, sandal, bag; pullover, dress, shirt, sneaker, boot
SOURCE,TARGET = (0, 1, 4, 5, 8), (2, 3, 6, 7, 9)
N_PER_CLASS,BS,BUDGET = 10, 10, 20 # images of each class, batch size (5 batches an epoch), epochs: 100 steps
RATES = {'SGD': (.01, .03, .1, .3, 1.), 'Adam': (1e-3, 3e-3, 1e-2, 3e-2, 1e-1)}
TRIAL_SEEDS,SEEDS = range(100, 104), range(10)
OPTS = {'SGD': partial(SGD, mom=.9), 'Adam': Adam}

# (optimizer, pretrained, stages for a rate); whatever is not written is the recipe's default
POLICIES = {
    'long (B)':           ('SGD', True, lambda lr: stages_long(budget=BUDGET, base_lr=lr)),
    'two cycles (A)':     ('SGD', True, lambda lr: stages_two_cycles(budget=BUDGET, base_lr=lr)),
    'gradual':            ('SGD', True, lambda lr: stages_gradual(3, budget=BUDGET, base_lr=lr)),
    'fine_tune':          ('SGD', True, lambda lr: stages_fine_tune(BUDGET-1, lr)),
    'Adam, long (B)':     ('Adam', True, lambda lr: stages_long(budget=BUDGET, base_lr=lr)),
    'Adam, fine_tune':    ('Adam', True, lambda lr: stages_fine_tune(BUDGET-1, lr)),
    'Adam + use_clr':     ('Adam', True, lambda lr: stages_long(budget=BUDGET, base_lr=lr, sched=clr_07(10, 4))),
    'from scratch':       ('SGD', False, lambda lr: [Stage('all', BUDGET, lr)]),
    'Adam, from scratch': ('Adam', False, lambda lr: [Stage('all', BUDGET, lr)])}
SHAPES = {(h, m): ('SGD', True, lambda lr, h=h, m=m: stages_long(budget=BUDGET, base_lr=lr, head_epochs=h, lr_mult=m))
          for h in (0, 1, 4, 10) for m in (1, 10, 100)}

def load(path:Path, part:str)->tuple:
    x,y = read_idx(path/f'{part}-images-idx3-ubyte.gz'), read_idx(path/f'{part}-labels-idx1-ubyte.gz').long()
    return F.avg_pool2d((x[:,None].float()-73)/90, 2), y

def vary(data:tuple, seed:int)->tuple:
    "Turn, mirror and invert each image at random, once"
    (x,y),g = data,torch.Generator().manual_seed(seed)
    turns,mirror,sign = (torch.randint(0, 4, (len(x),), generator=g), torch.rand(len(x), generator=g)<.5,
                         torch.rand(len(x), generator=g)<.5)
    x = x.clone()
    for k in range(1, 4): x[turns==k] = torch.rot90(x[turns==k], k, (2, 3))
    x[mirror] = x[mirror].flip(3)
    return torch.where(sign[:,None,None,None], -x, x), y

def of_classes(data:tuple, classes:tuple)->tuple:
    "Images of some classes, labelled by their place among them"
    x,y = data
    keep = torch.isin(y, torch.tensor(classes))
    return x[keep], torch.tensor([classes.index(c) if c in classes else -1 for c in range(10)])[y[keep]]

def few(y:torch.Tensor, n:int, seed:int)->torch.Tensor:
    "Places of `n` images of each class"
    g = torch.Generator().manual_seed(seed)
    return torch.cat([(i := (y==c).nonzero()[:,0])[torch.randperm(len(i), generator=g)[:n]] for c in y.unique()])

def split(m)->list: return [list(p.parameters()) for p in (m[:2], m[2:4], m[4:])]

def make_learner(train, valid, bs, seed, opt='SGD', depth=14)->Learner:
    set_seed(seed)
    dl = TfmdDL(TensorDataset(*train), bs=bs, shuffle=True, drop_last=True, num_workers=0)
    dl.rng.seed(seed)
    dls = DataLoaders(dl, TfmdDL(TensorDataset(*valid), bs=500, num_workers=0))
    learn = Learner(dls, cifar_resnet(depth, n_in=1, n_out=len(TARGET)), loss_func=CrossEntropyLossFlat(),
                    opt_func=OPTS[opt], splitter=split)
    learn.logger = lambda *_: None
    return learn.remove_cb(ProgressCallback)

@torch.no_grad()
def accuracy(learn, x, y)->float:
    learn.model.eval()
    return torch.cat([learn.model(b).argmax(1) for b in x.split(1000)]).eq(y).float().mean().item()

def run(policy:tuple, lr:float, seed:int, data:dict, weights:dict, at:str)->dict:
    "Train once: accuracy on `at`, optimizer steps, whether the guard stopped it"
    opt,pretrained,stages = policy
    x,y = data['pool']
    i = few(y, N_PER_CLASS, seed)
    learn = make_learner((x[i], y[i]), (x[i[:1]], y[i[:1]]), BS, seed, opt)
    if pretrained: learn.model[:4].load_state_dict(weights)
    learn.fit_stages(stages(lr), cbs=DivergenceGuard())
    return dict(accuracy=accuracy(learn, *data[at]), n_step=sum(len(p.trained[0]) for p in learn.recorder.plans),
                diverged=learn.recorder.divergence is not None)

def trials(policy:tuple, data, weights)->dict:
    "Accuracy on held-out images by rate, one for each trial seed"
    return {lr: [run(policy, lr, s, data, weights, 'held out')['accuracy'] for s in TRIAL_SEEDS]
            for lr in RATES[policy[0]]}

def measure(policies:dict, data, weights)->dict:
    "Choose each policy's rate on held-out images, then measure it on the test images"
    out = {}
    for name,policy in policies.items():
        tried = trials(policy, data, weights)
        lr = max(tried, key=lambda lr: np.mean(tried[lr]))
        runs = [run(policy, lr, s, data, weights, 'test') for s in SEEDS]
        out[name] = dict(opt=policy[0], lr=lr, trials={f'{k:g}': [round(a, 4) for a in v] for k,v in tried.items()},
                         accuracy=[round(r['accuracy'], 4) for r in runs],
                         n_step=sorted({r['n_step'] for r in runs}), n_diverged=sum(r['diverged'] for r in runs))
        print(f"{name}: lr {lr:g}, {np.mean(out[name]['accuracy']):.4f}, steps {out[name]['n_step']}", flush=True)
    return out

def shapes(data, weights)->list:
    "Recipe B with other heads and ratios of rates: the best rate's accuracy on held-out images"
    out = []
    for (head,mult),policy in SHAPES.items():
        tried = trials(policy, data, weights)
        lr = max(tried, key=lambda lr: np.mean(tried[lr]))
        out.append(dict(head_epochs=head, lr_mult=mult, lr=lr, accuracy=[round(a, 4) for a in tried[lr]]))
        print(out[-1], flush=True)
    return out

def pretrain(train, valid)->dict:
    "Weights of everything but the head, after three epochs on the source classes"
    learn = make_learner(train, (valid[0][:500], valid[1][:500]), 64, 0)
    learn.fit_one_cycle_ext(3, .3)
    print(f'pretrained: {accuracy(learn, *valid):.4f} on its own classes', flush=True)
    return learn.model[:4].state_dict()

def main(path:Path, out:Path):
    torch.set_num_threads(1)
    full,test = vary(load(path, 'train'), 0), vary(load(path, 't10k'), 1)
    (x,y),cut = of_classes(full, TARGET), 3000 # the first images of the training set are held out to choose rates
    data = {'held out': (x[:cut], y[:cut]), 'pool': (x[cut:], y[cut:]), 'test': of_classes(test, TARGET)}
    weights = pretrain(of_classes(full, SOURCE), of_classes(test, SOURCE))
    setup = dict(source=SOURCE, target=TARGET, n_per_class=N_PER_CLASS, bs=BS, budget_epochs=BUDGET, depth=14,
                 trial_seeds=list(TRIAL_SEEDS), seeds=list(SEEDS), torch=torch.__version__)
    res = dict(setup=setup, policies=measure(POLICIES, data, weights))
    out.write_text(json.dumps(res | dict(shapes=shapes(data, weights)), indent=1)+'\n')

if __name__=='__main__':
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument('--data', type=Path, default=Path('/usr/share/datasets/fashion-mnist'),
                   help='folder of the idx files')
    p.add_argument('--out', type=Path, default=Path(__file__).parent.parent/'nbs'/'studies'/'recipes.json')
    a = p.parse_args()
    main(a.data, a.out)
