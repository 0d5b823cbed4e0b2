"The sets of parameters that rows are about: odd parameters, and names in wrapped and compiled models"
import pytest, torch
from torch import nn
from fastai.optimizer import Adam
from fastai_clr_ext.record import *
from fastai_clr_ext.record.params import ParamSet, named_params, param_sets

class Awkward(nn.Module):
    "A submodule called module, an empty and a 0-d parameter"
    def __init__(self):
        super().__init__()
        self.module,self.weight,self.empty,self.scale = (nn.Linear(1, 1), nn.Parameter(torch.ones(1)),
                                                         nn.Parameter(torch.zeros(0, 3)),
                                                         nn.Parameter(torch.tensor(1.)))
    def forward(self, x): return self.module(x)*self.weight*self.scale + self.empty.sum()

def test_awkward_parameters(mlp):
    learn = mlp(model=Awkward(), splitter=lambda m: [list(m.parameters())],
                cbs=GradRecorder(STATS, per='param', adam=True), opt_func=Adam)
    learn.fit(1)
    assert (learn.recorder.grads.groupby('layer').n_params.first().to_dict()
            =={'module.weight': 1, 'module.bias': 1, 'weight': 1, 'scale': 1})

def eager(module): return torch.compile(module, backend='eager')

def plain_net(): return nn.Sequential(nn.Linear(1, 4), nn.Sequential(nn.ReLU(), nn.Linear(4, 2)), nn.Linear(2, 1))

def compiled_parts():
    m = plain_net()
    m[1] = eager(m[1])
    m[2] = eager(m[2])
    return m

def compiled_twice():
    m = plain_net()
    m[1][1] = eager(m[1][1])
    m[1] = eager(m[1])
    return eager(m)

COMPILED = {'whole': lambda: eager(plain_net()), 'parts': compiled_parts, 'nested': compiled_twice,
            'in DataParallel': lambda: nn.DataParallel(compiled_twice()),
            'around DataParallel': lambda: eager(nn.DataParallel(compiled_parts()))}

@pytest.mark.parametrize('kind', COMPILED)
def test_names_of_compiled_models_are_the_users(mlp, kind):
    names = [name for name,_ in plain_net().named_parameters()]
    model = COMPILED[kind]()
    assert [name for name,_ in named_params(model)]==names
    assert all(p is q for (_,p),q in zip(named_params(model), model.parameters()))
    learn = mlp(model=model, splitter=lambda m: [list(m.parameters())])
    learn.create_opt()
    assert [u.name for u in param_sets(learn, 'param')]==names
    assert [u.name for u in param_sets(learn, 'layer')]==['0', '1.1', '2']

def test_a_name_that_only_looks_like_a_compiled_one_is_kept():
    class Named(nn.Module):
        def __init__(self): super().__init__(); self.my_orig_mod = nn.Linear(1, 1)
    assert [name for name,_ in named_params(Named())]==['my_orig_mod.weight', 'my_orig_mod.bias']

def test_a_lazy_layer_that_is_never_used_has_no_row():
    used,never = nn.Linear(2, 1),nn.LazyLinear(3)
    used(torch.ones(1, 2)).sum().backward()
    u = ParamSet('', 0, [*used.parameters(), *never.parameters()])
    assert u.gather() and u.n_params==3
