import pytest, torch
from functools import partial
from fastai.losses import BCEWithLogitsLossFlat, CrossEntropyLossFlat, MSELossFlat
from fastai.optimizer import Adam, OptimWrapper, SGD, ranger
from fastai_clr_ext.all import *
from fastai_clr_ext.record.fits import (
    MANY_PHASES, describe_cycle, describe_fit, loss_name, numeric_hypers, optimizer_name)

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
