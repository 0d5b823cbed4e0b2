"""Study a, the size of gradients along the training: `python -m studies.gradients [--out FILE] [--workers N]`

Trains each situation by each policy with eight seeds, and writes two curves of the body (everything but the last
layer) in 100 parts of the training to nbs/studies/gradients.json: mean |g|, and mean |g| times the norm of the
weights, which batch normalisation does not change by letting weights grow."""
import argparse, json, os, warnings
from pathlib import Path

warnings.simplefilter('ignore')
os.environ.setdefault('OMP_NUM_THREADS', '1')
import numpy as np, torch
from fastai.torch_core import no_random
from fastai_clr_ext.all import *
from fastai_clr_ext.compare.workers import map_unordered
from studies.comparisons import situation_of
from studies.policies import CONSTANT, ONE_CYCLE
from studies.reading import GRADIENTS

N_PARTS,SEEDS = 100, range(8)
#: By situation: a rate that a constant policy can take, and the peak of the cycle
TRAINED = {'digits-rnn': ('sgd', .03, .1), 'digits-mlp': ('sgd', .1, .3), 'digits-pre-norm': ('adam', 1e-3, 3e-3),
           'digits': ('sgd', .1, 1.), 'next-char': ('adam', 3e-3, 1e-2), 'fashion-small': ('sgd', .05, .5)}
POLICIES = {'constant': (CONSTANT, 0), 'constant at the peak': (CONSTANT, 1), '1cycle': (ONE_CYCLE, 1),
            'use_clr_beta': (clr_beta_07(10, 10, .95, .85), 1)}
N_EPOCH = {'digits': 8, 'digits-pre-norm': 5, 'next-char': 4, 'fashion-small': 4}

def in_parts(values:np.ndarray)->list:
    "Means over equal parts of the training"
    return [float(f'{np.nanmean(part):.4g}') for part in np.array_split(values, N_PARTS)]

def train(job:tuple)->dict:
    "Train once, and return the curves"
    name,policy,seed = job
    torch.set_num_threads(1)
    optimizer,*rates = TRAINED[name]
    sit = situation_of(name, optimizer, N_EPOCH.get(name))
    sched,which = POLICIES[policy]
    learn = sit(seed)
    with no_random(seed), learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle_ext(sit.n_epoch, rates[which], sched=sched, cbs=GradRecorder(['weight']))
    body = learn.recorder.grads.query('group==0')
    return dict(situation=name, policy=policy, seed=seed, lr=rates[which], score=learn.recorder.values[-1][-1],
                mean_abs=in_parts(body.mean_abs.to_numpy()), scale_free=in_parts(body.scale_free.to_numpy()))

def main(out:Path, n_workers:int):
    jobs = [(name, policy, seed) for name in TRAINED for policy in POLICIES for seed in SEEDS]
    runs = sorted(map_unordered(train, jobs, n_workers), key=lambda run: (run['situation'], run['policy'], run['seed']))
    out.write_text(json.dumps(dict(n_parts=N_PARTS, torch=torch.__version__, runs=runs))+'\n')

if __name__=='__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--out', type=Path, default=GRADIENTS)
    p.add_argument('--workers', type=int, default=os.cpu_count())
    a = p.parse_args()
    main(a.out, a.workers)
