"What the studies train"
from dataclasses import replace
import pytest, torch
from fastai.torch_core import no_random
from fastai_clr_ext.all import *
from studies import policies
from studies.comparisons import (FINE_TUNED, STUDIES, failing_rate, random_start, rates_beyond, rates_of, recipes_at,
    situation_of)
from studies.policies import ONE_CYCLE, RECIPES, Recipe, scaled

@pytest.mark.parametrize('best,more', [(.1, []), (.03, []), (.3, [1., 3.]), (.01, [.003, .001])])
def test_more_rates_are_tried_beyond_an_edge(best, more): assert rates_beyond([.01, .03, .1, .3], best)==more

def test_a_scaled_cycle_has_scaled_rates_and_the_same_momentum():
    whole,third = ONE_CYCLE.table(50, 1.),scaled(ONE_CYCLE, 1/3).table(50, 1.)
    assert third['lr'].tolist()==pytest.approx((whole['lr']/3).tolist()) and (third['mom']==whole['mom']).all()

def test_from_scratch_begins_with_the_weights_of_the_situation_without_pretraining(monkeypatch):
    sit = replace(FINE_TUNED['transfer-digits-sgd'][0], pretrain_epochs=1)
    recipe, = recipes_at(sit, 'from scratch', [.1]).values()
    monkeypatch.setitem(RECIPES, 'from scratch', lambda learn, *args: None)
    learn = sit(3)
    with no_random(3): recipe(learn)
    weights,start,pretrained = (each.model.state_dict() for each in (learn, random_start(sit)(3), sit(3)))
    assert all(torch.equal(weights[name], start[name]) for name in start)
    assert not all(torch.equal(weights[name], pretrained[name]) for name in pretrained)

@pytest.mark.parametrize('name', RECIPES)
def test_a_recipe_uses_its_whole_budget(name):
    sit = replace(FINE_TUNED['transfer-digits-sgd'][0], pretrain_epochs=1)
    learn = sit(0)
    with learn.no_bar(), learn.no_logging(): Recipe(name, 4, .01, 5.)(learn)
    assert len(learn.recorder.history.steps)==4*len(learn.dls.train), 'records survive from stage to stage'
    assert learn.opt.param_lists is not None and all(p.requires_grad for p in learn.model.parameters())

def test_adam_is_tried_at_its_own_rates():
    sit = FINE_TUNED['transfer-digits-sgd'][0]
    assert max(rates_of(sit, 'Adam, use_clr'))==.03 and max(rates_of(sit, 'long (B)'))==.3

def test_the_rate_at_which_adam_fails_is_the_lowest_with_three_failed_runs():
    assert [failing_rate(name) for name in ('digits-rnn', 'digits-post-norm', 'digits-transformer', 'digits')]==[
        .3, .03, .03, None]

def test_a_rate_of_sgd_is_taken_for_a_hundredth_with_adam():
    adam,sgd = situation_of('digits-mlp', 'adam'),situation_of('digits-mlp', 'sgd')
    assert adam.lr_max==pytest.approx(sgd.lr_max/100) and (adam.wd, sgd.wd)==(1e-2, situation('digits-mlp').wd)

@pytest.mark.parametrize('study', [name for name in STUDIES if name!='d-why'])
def test_no_two_comparisons_of_a_study_are_of_one_situation(study):
    specs = STUDIES[study]()
    assert len({repr(spec.sit) for spec in specs.values()})==len(specs)
    assert all(len(spec.policies)>=2 for spec in specs.values()) and policies.CONSTANT.table(5, 1.)['lr'].min()==1
