import fastai, pytest, torch
from functools import partial
from fastai.losses import BCEWithLogitsLossFlat, CrossEntropyLossFlat, MSELossFlat
from fastai.optimizer import Adam, OptimWrapper, SGD, ranger
from fastai_clr_ext.all import *
from fastai_clr_ext.record.fits import (
    MANY_PHASES, describe_cycle, describe_fit, describe_plan, loss_name, model_sizes, numeric_hypers, optimizer_name)

def custom_loss(pred, targ): return (pred-targ).abs().mean()

@pytest.mark.parametrize('loss,name', [
    (MSELossFlat(), 'MSELoss'), (BCEWithLogitsLossFlat(), 'BCEWithLogitsLossFlat'), (torch.nn.L1Loss(), 'L1Loss'),
    (CrossEntropyLossFlat(), 'CrossEntropyLossFlat'), (custom_loss, 'custom_loss'), (partial(custom_loss), 'partial')])
def test_losses_have_names(loss, name): assert loss_name(loss)==name

@pytest.mark.parametrize('opt_func,name', [
    (SGD, 'SGD'), (partial(Adam, wd=.1), 'Adam'), (ranger, 'ranger'),
    (partial(OptimWrapper, opt=torch.optim.AdamW), 'AdamW')])
def test_optimizers_have_names(mlp, opt_func, name):
    learn = mlp(opt_func=opt_func)
    learn.create_opt()
    assert optimizer_name(learn.opt, learn.opt_func)==name

def test_only_numbers_are_hyper_parameters_of_a_row(mlp):
    learn = mlp(opt_func=partial(OptimWrapper, opt=torch.optim.Adam))
    learn.create_opt()
    names = {name for name,_ in numeric_hypers(learn.opt)}
    assert {'lr', 'mom', 'wd', 'eps'}<=names and not {'amsgrad', 'foreach', 'maximize'} & names

def test_a_cycle_with_more_phases_than_batches_is_a_few_words():
    plan = Plan(constant().repeat(MANY_PHASES+1), (1.,), 1, 10)
    assert describe_cycle(plan)=='101 phases, batches: 10'
    assert describe_cycle(Plan(one_cycle(), (1.,), 1, 10))==one_cycle().to_dict()

def test_a_stage_that_is_a_users_own_attribute_has_no_name(mlp):
    "`learn.stage` may be anything; `fit_stages` puts a `Stage` there"
    learn = mlp()
    learn.create_opt()
    learn.n_epoch,learn.stage = 1,'my own'
    assert describe_fit(learn, torch.device('cpu'))['stage']==''
    learn.stage = Stage('head', 1)
    assert describe_fit(learn, torch.device('cpu'))['stage']=='head'

def test_a_fit_is_described_by_what_it_is_made_of(mlp):
    learn = mlp(opt_func=partial(SGD, mom=.9, wd=.01))
    learn.freeze()
    learn.n_epoch = 3
    row = describe_fit(learn, torch.device('cpu'))
    expected = dict(stage='', n_epoch=3, n_iter=10, n_groups=2, wd=[.01, .01], bs=16, opt='SGD', loss_func='MSELoss',
                    device='cpu', seconds=0., n_batches=0, n_steps=0, outcome='unfinished')
    assert {name: row[name] for name in expected}==expected
    sizes = dict(n_params=25, n_trainable=9, group_sizes=[16, 9]) # a frozen group counts, but not as trainable
    assert {name: row[name] for name in sizes}==sizes
    assert row['id']!=describe_fit(learn, torch.device('cpu'))['id'] and row['fastai']==fastai.__version__

def test_plans_are_described(mlp):
    "Phases without a batch are left out; a fit without a cycle has no phases"
    learn = mlp(20)
    assert describe_plan(learn)==dict(n_iter=20, lr_max=None, sched=None, phases=[])
    learn.add_cb(CycleScheduler(Plan(one_cycle(), (1., 2.), 1, 3)))
    assert describe_plan(learn)==dict(n_iter=3, lr_max=[1., 2.], sched=one_cycle().to_dict(),
                                      phases=[['warm-up', 0, 2], ['annihilation', 2, 3]])

def test_a_lazy_parameter_has_no_size_yet(mlp):
    lazy = torch.nn.Sequential(torch.nn.LazyLinear(2), torch.nn.ReLU(), torch.nn.Linear(2, 1))
    learn = mlp(model=lazy)
    learn.create_opt()
    assert model_sizes(learn)==dict(n_params=3, n_trainable=3, group_sizes=[0, 3])
