import pytest, torch
from fastai.callback.core import Callback
from fastai.callback.progress import ProgressCallback
from fastai_clr_ext.all import *
from fastai_clr_ext.train.facts import (
    check_facts, check_given, facts_of, n_items_of, names_to_give, plan_from_plain, plan_to_plain, stages_from_plain,
    stages_to_plain)
from fastai_clr_ext.train.values import from_tagged, to_tagged
from fastai_clr_ext.train.stages import StageRun
from resume_helpers import STAGES, Stream, loaders, make, streamed, torch_loaders

def through_a_file(x, path):
    torch.save(to_tagged(x), path)
    return from_tagged(torch.load(path, weights_only=True))

def test_a_plan_comes_back_from_a_file(tmp_path):
    for args in (dict(sched='wsd'), dict(sched={0: one_cycle(), -1: constant()}), dict(use_clr_beta=(10, 20)), {}):
        learn = make()
        learn.fit_one_cycle_ext(2, [.01, .05], **args)
        plan = learn.recorder.plans[-1]
        again = plan_from_plain(through_a_file(plan_to_plain(plan), tmp_path/'x.pt'))
        assert again.df.equals(plan.df) and again.trained_ranges==plan.trained_ranges and repr(again)==repr(plan)

def test_stages_are_written_as_they_were_planned(tmp_path):
    "With the learner's rate, momenta and weight decay, which another learner does not have"
    learn = make(lr=.07, moms=(.9, .8, .9), wd=.03)
    stages = [Stage('head', 1.5, None, -1), Stage('all', 1, slice(.01, .05), sched='wsd', wd=.2)]
    plan = plan_stages(learn, stages)
    plain = through_a_file(stages_to_plain(StageRun(plan, {'mom': [.9, .9]}, 1), learn.wd), tmp_path/'x.pt')
    assert (plain['number'], plain['hypers'])==(1, {'mom': [.9, .9]})
    again = stages_from_plain(plain, {})
    assert plan_stages(make(), again).df.equals(plan.df) and [stage.wd for stage in again]==[.03, .2]

def test_callbacks_of_stages_go_to_their_stage():
    plain = stages_to_plain(StageRun(plan_stages(make(), STAGES), {}), None)
    cb = Callback()
    assert [stage.cbs for stage in stages_from_plain(plain, {'all': [cb]})]==[None, [cb]]

def test_facts_are_those_of_the_learner():
    learn = make()
    learn.create_opt()
    facts = facts_of(learn, learn.opt, 3)
    assert {name: facts[name] for name in ('n_iter', 'bs', 'n_items', 'n_epoch', 'num_workers', 'opt', 'loss_func')}=={
        'n_iter': 7, 'bs': 4, 'n_items': 28, 'n_epoch': 3, 'num_workers': 0, 'opt': 'SGD', 'loss_func': 'MSELoss'}
    assert facts['group_sizes']==[40, 9] and ['0.weight', [8, 2]] in facts['model']

@pytest.mark.parametrize('dl,expected', [
    (loaders().train, 28), (torch_loaders().train, 28), (streamed().train, 28),
    (torch.utils.data.DataLoader(Stream()), None)], ids=['fastai', 'torch', 'stream of known length', 'stream'])
def test_items_of_a_loader_are_counted(dl, expected): assert n_items_of(dl)==expected

@pytest.mark.parametrize('name,value,rescale,match', [
    ('n_iter', 9, False, 'n_iter: 7 before, 9 now'), ('bs', 8, True, None),
    ('opt', 'Adam', True, "opt: 'SGD' before, 'Adam' now"),
    ('group_sizes', [40], False, 'group_sizes: 2 entries before, 1 now'),
    ('versions', {'torch': '1'}, False, 'versions: '),
    ('versions', {'torch': '1'}, True, None), ('loss_func', 'L1', True, "'MSELoss' before, 'L1' now")])
def test_differences_are_named_and_some_may_be(name, value, rescale, match):
    learn = make()
    learn.create_opt()
    facts = facts_of(learn, learn.opt, 3)
    if match is None: check_facts(facts, facts | {name: value}, rescale)
    else:
        with pytest.raises(ValueError, match=match): check_facts(facts, facts | {name: value}, rescale)

class First(Callback): pass
class Second(Callback): pass

def test_names_count():
    "Two of a kind have to be given twice; ours are added anyway"
    cbs = [First(), First(), Second(), ProgressCallback(), HistoryRecorder()]
    assert names_to_give(cbs)==['First', 'First', 'Second']
    check_given(['First', 'First'], cbs)
    with pytest.raises(ValueError, match=r"none of \['First'\]"): check_given(['First', 'First', 'Second'], cbs[1:])
