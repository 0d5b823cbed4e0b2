"""What a run of each situation costs on one CPU core: `python -m studies.seconds [--out FILE]`

Trains each situation once by its own number of epochs, with nothing beside it, and writes seconds, size and outcome to
nbs/studies/situations.json. Where a run has all of Fashion-MNIST or CIFAR-10, three batches are trained, and the
seconds are those of as many as a run has. CIFAR-10 is not read: random images stand for it."""
import argparse, json, os, time, warnings
from dataclasses import replace
from pathlib import Path

warnings.simplefilter('ignore')
os.environ.setdefault('OMP_NUM_THREADS', '1')
import torch
from fastai.data.core import DataLoaders
from fastai.torch_core import no_random
from fastai_clr_ext.all import *

OUT = Path(__file__).parents[1]/'nbs'/'studies'/'situations.json'
N_ITEMS = {'cifar10': 50_000, 'fashion-mnist': 60_000} # To train on, in all
N_TRIED = 3 # Batches

def random_images(bs:int)->DataLoaders:
    "Loaders of random images of CIFAR-10's size"
    x,y = torch.randint(256, (bs*N_TRIED, 3, 32, 32), dtype=torch.uint8),torch.randint(10, (bs*N_TRIED,))
    return images_dls(Images(x, y, x[:bs], y[:bs], tuple(map(str, range(10)))), bs)

def timed(sit:Situation)->tuple:
    "Train a situation; seconds, and the learner"
    learn = sit(0)
    start = time.perf_counter()
    with no_random(0), learn.no_bar(), learn.no_logging(): learn.fit_one_cycle_ext(sit.n_epoch, sit.lr_max)
    return time.perf_counter()-start, learn

def part_of(sit:Situation)->Situation:
    "A situation of three batches that cost what its own do"
    if sit.data=='cifar10': return replace(sit, data=random_images(sit.bs), shift=0, mirror=False, n_epoch=1)
    return replace(sit, n_train=N_TRIED*sit.bs, n_valid=sit.bs, n_epoch=1)

def measured(sit:Situation)->dict:
    "Seconds of a run, and what it was"
    is_estimate = sit.data in N_ITEMS and sit.n_train is None
    seconds,learn = timed(part_of(sit) if is_estimate else sit)
    n_batches = len(learn.dls.train)
    if is_estimate: n_batches = N_ITEMS[sit.data]//sit.bs if sit.drop_last else -(-N_ITEMS[sit.data]//sit.bs)
    if is_estimate: seconds *= n_batches*sit.n_epoch/N_TRIED
    score = None if is_estimate else float(f'{learn.recorder.values[-1][-1]:.4g}')
    return dict(seconds=float(f'{seconds:.2g}'), is_estimate=is_estimate, metric=learn.recorder.metric_names[-2],
                score=score, n_params=sum(p.numel() for p in learn.model.parameters()), n_batches=n_batches)

def main(out:Path):
    torch.set_num_threads(1)
    found = {}
    for name,sit in SITUATIONS.items():
        found[name] = measured(sit)
        print(name, found[name], flush=True)
    out.write_text(json.dumps(dict(torch=torch.__version__, situations=found), indent=1)+'\n')

if __name__=='__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--out', type=Path, default=OUT)
    main(p.parse_args().out)
