"Copies of a model on the host, and the way back to them"
import numpy as np, pytest, torch
from torch import nn
from fastai.callback.training import GradientAccumulation
from fastai.optimizer import Adam
from fastai_clr_ext.train.rewind import all_finite, copy_to_host, rewind
from train_helpers import *

class Counted(nn.Module):
    "Has state that is no tensor"
    def __init__(self): super().__init__(); self.out,self.calls = nn.Linear(1, 1),[]
    def get_extra_state(self): return self.calls
    def set_extra_state(self, state): self.calls = state
    def forward(self, x):
        self.calls.append(len(x))
        return self.out(x)

def test_a_copy_is_no_view_and_holds_everything():
    model = nn.Sequential(Counted(), nn.BatchNorm1d(1))
    model(torch.ones(3, 1))
    state = copy_to_host(model)
    assert set(state)==set(model.state_dict())
    before = {k: v.clone() for k,v in state.items() if torch.is_tensor(v)}
    for p in model.parameters(): p.data.fill_(7)
    model(torch.ones(4, 1))
    assert state['0._extra_state']==[3] and model[0].calls==[3, 4]
    assert all(torch.equal(state[k], v) for k,v in before.items())

def test_a_copy_is_completed_and_not_overwritten():
    model = nn.Sequential(nn.Linear(2, 1))
    first = copy_to_host(model)
    kept = first['0.weight'].clone()
    model[0].weight.data.fill_(9)
    model.append(nn.Linear(1, 1))
    second = copy_to_host(model, first)
    assert list(first)==['0.weight', '0.bias'] and list(second)==['0.weight', '0.bias', '1.weight', '1.bias']
    assert torch.equal(second['0.weight'], kept) and torch.equal(second['1.bias'], model[1].bias)

@pytest.mark.filterwarnings('ignore:Lazy modules', 'ignore:Sparse')
@pytest.mark.parametrize('value,finite', [
    (torch.ones(3), True), (torch.tensor([1., torch.inf]), False), (torch.tensor([1+1j]), True),
    (torch.tensor([complex(1, np.nan)]), False), (torch.eye(3).to_sparse(), True), (torch.eye(3).to_sparse_csr(), True),
    ((torch.eye(3)*torch.nan).to_sparse_csr(), False), (torch.tensor([3, 4]), True), (torch.tensor(True), True),
    (torch.zeros(0), True), (torch.tensor([70000.]).half(), False), ('text', True), (None, True)], ids=str)
def test_finite(value, finite):
    assert all_finite(dict(a=torch.zeros(1), b=value))==finite and all_finite({})

@pytest.mark.filterwarnings('ignore:Lazy modules')
def test_lazy_modules_are_left_out_until_they_have_weights():
    model = nn.Sequential(nn.LazyLinear(2), nn.LazyBatchNorm1d())
    assert not [k for k in copy_to_host(model) if k.startswith('0.')]
    model(torch.ones(4, 3))
    assert set(copy_to_host(model))==set(model.state_dict())

def test_everything_that_the_bad_steps_left_is_gone(make):
    learn = make(opt_func=Adam, cbs=GradientAccumulation(32))
    state = copy_to_host(learn.model)
    learn.fit(1)
    learn.gradient_accumulation.count = 16
    for p in learn.model.parameters(): p.grad = torch.ones_like(p)
    assert any('grad_avg' in s for s in learn.opt.state.values())
    rewind(learn, state)
    assert learn.gradient_accumulation.count==0 and not any('grad_avg' in s for s in learn.opt.state.values())
    assert all(torch.equal(v, state[k]) for k,v in learn.model.state_dict().items())
    assert all(p.grad is None or not p.grad.any() for p in learn.model.parameters())
