"What several tests of the wing `record` share"
import torch
from fastai.callback.core import Callback
from fastai.callback.fp16 import MixedPrecision

class Overflow(Callback):
    "Puts an infinity into one gradient at one iteration"
    order,run_valid = MixedPrecision.order-1,False
    def __init__(self, at): self.at = at
    def before_step(self):
        if self.learn.train_iter==self.at: next(self.learn.model.parameters()).grad.fill_(float('inf'))

class Tape(Callback):
    "Weights before and after each step, gradients, and the optimizer's state"
    order,run_valid = 10.6,False
    def before_fit(self): self.steps = []
    def before_step(self): self.steps.append(dict(g=self.copy('grad'), w=self.copy(None)))
    def after_step(self): self.steps[-1]['new'] = self.copy(None)
    def copy(self, what):
        return {n: (getattr(p, what).to_dense() if what else p.detach()).double().clone()
                for n,p in self.learn.model.named_parameters() if p.requires_grad}

def to_x(i): return torch.tensor([i/100])

def to_y(i): return torch.tensor([i/50 + 1])

class Stop(Callback):
    "Raises at one event of one training batch"
    order,run_valid = 2000,False
    def __init__(self, event, at, what): self.event,self.at,self.what = event,at,what
    def __call__(self, name):
        if name==self.event and self.learn.training and self.learn.train_iter==self.at:
            self.at = None # once: fastai counts the next batch by the same number
            raise self.what
