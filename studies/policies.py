"What is compared: cycles, and functions of a learner that can be sent to another process"
from dataclasses import dataclass, field
from functools import partial
import torch
from fastai.callback.training import GradientClip
from fastai.learner import Learner
from fastai.optimizer import Adam
from fastai_clr_ext.all import *

CYCLE_MOMS = .95,.85,.95
ONE_CYCLE = one_cycle(moms=CYCLE_MOMS)
CONSTANT = constant(moms=.9)

def scaled(cycle:Cycle, factor:float)->Cycle:
    "Multiply the rates of a cycle"
    def times(hyper): return (factor*hyper[0], factor*hyper[1], *hyper[2:])
    return Cycle([Phase(phase.name, phase.pct, **phase.hypers | {'lr': times(phase.hypers['lr'])})
                  for phase in cycle.phases])

# ---- policies that change more than the cycle

@dataclass(frozen=True)
class Trained:
    "Train a learner by a cycle, with another optimizer or callbacks"
    n_epoch:int
    lr:float
    sched:Cycle = field(default_factory=lambda: ONE_CYCLE)
    opt_func:object = None # None means the learner's
    wd:float|None = None # None means the learner's
    clip:float|None = None # Norm that gradients are clipped to; None for none

    def __call__(self, learn:Learner):
        if self.opt_func is not None: learn.opt_func = self.opt_func
        cbs = GradientClip(self.clip) if self.clip else None
        learn.fit_one_cycle_ext(self.n_epoch, self.lr, sched=self.sched, wd=self.wd, cbs=cbs)

@dataclass(frozen=True)
class Recipe:
    "Fine-tune a learner by a recipe"
    name:str # In `RECIPES`
    budget:int # Epochs in all
    lr:float
    lr_mult:float
    start:Situation|None = None # Whose random weights the network gets first; None to keep its own

    def __call__(self, learn:Learner):
        if self.start is not None: learn.model.load_state_dict(self.start(torch.initial_seed()).model.state_dict())
        RECIPES[self.name](learn, self.budget, self.lr, self.lr_mult)

def _long(learn, budget, lr, lr_mult, **kwargs):
    learn.fit_stages(stages_long(budget=budget, base_lr=lr, lr_mult=lr_mult, **kwargs))

def _two_cycles(learn, budget, lr, lr_mult):
    learn.fit_stages(stages_two_cycles(budget=budget, base_lr=lr, lr_mult=lr_mult))

def _fine_tune(learn, budget, lr, lr_mult): learn.fit_stages(stages_fine_tune(budget-1, lr, lr_mult=lr_mult))

def _adam_use_clr(learn, budget, lr, lr_mult):
    learn.opt_func = Adam
    _long(learn, budget, lr, lr_mult, sched=clr_07(10, 4))

def _scratch(learn, budget, lr, lr_mult):
    learn.unfreeze()
    learn.fit_one_cycle_ext(budget, lr, sched=ONE_CYCLE)

RECIPES = {'long (B)': _long, 'two cycles (A)': _two_cycles, 'fine_tune': _fine_tune,
           'long, constant rate': partial(_long, sched=CONSTANT), 'Adam, use_clr': _adam_use_clr,
           'from scratch': _scratch}
