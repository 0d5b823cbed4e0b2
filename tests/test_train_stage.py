"A stage as data: its values, and its file"
import json
from dataclasses import replace
import numpy as np, pytest, torch
from fastai.callback.progress import CSVLogger
from fastai_clr_ext.schedule import *
from fastai_clr_ext.train import *
from conftest import Spy

STAGES = {
    'plain': Stage('a', 1), 'slice': Stage('a', .5, slice(1e-4, .1), -1), 'slice hi': Stage('a', 2, slice(.1)),
    'list': Stage('a', 2, [.1, .2], wd=[0, .1], keep_opt=True), 'name': Stage('a', 1, sched='wsd'),
    'cycle': Stage('a', 1, sched=one_cycle(7)), 'groups': Stage('a', 1, sched=ByGroup([constant(), wsd()])),
    'list of cycles': Stage('a', 1, sched=[constant(), 'wsd']),
    'dict': Stage('a', 1, sched={-1: one_cycle(), 0: 'wsd'})}

@pytest.mark.parametrize('stage', STAGES.values(), ids=STAGES)
def test_a_stage_survives_its_file(stage):
    again = Stage.from_dict(json.loads(json.dumps(stage.to_dict())))
    assert again==stage and type(again.lr_max) is type(stage.lr_max)

def test_a_file_trains_the_same(mlp):
    rows = []
    stages = [STAGES['slice'], replace(STAGES['dict'], name='b')]
    for each in (stages, [Stage.from_dict(json.loads(json.dumps(s.to_dict()))) for s in stages]):
        rows.append([])
        class Kept(Spy):
            def before_fit(self): self.rows = rows[-1]
        mlp().fit_stages(each, cbs=Kept())
    assert rows[0]==rows[1] and len(rows[0])==15

def bend(start, end, pos): return start + (end-start)*pos**3

def test_a_callable_is_written_by_name():
    stage = Stage('a', 1, sched=one_cycle(anneal=bend))
    d = json.loads(json.dumps(stage.to_dict()))
    assert Stage.from_dict(d, annealers={'bend': bend})==stage
    with pytest.raises(ValueError, match="annealers must have the callable 'bend'"): Stage.from_dict(d)

def edited(**changed): return Stage.from_dict(Stage('a', 1).to_dict() | changed)

@pytest.mark.parametrize('make,says', [
    (lambda: Stage('a', 1, cbs=CSVLogger()).to_dict(), "stage 'a': cbs must be None to be written"),
    (lambda: Stage.from_dict(Stage('a', 1).to_dict() | {'cbs': []}), 'a stage must be a dict with just the fields'),
    (lambda: Stage.from_dict(None), 'd must be a dict'),
    (lambda: Stage.from_dict(Stage('a', 1).to_dict() | {'n_epoch': 'x'}), "stage 'a': n_epoch must"),
    (lambda: Stage.from_dict(Stage('a', 1).to_dict() | {'sched': {'phases': 1}}), 'a cycle must be a dict'),
    (lambda: edited(lr_max={'slice': .01}), 'lr_max must be a slice with two ends'),
    (lambda: edited(sched={'groups': 1}), 'the groups of sched must be pairs'),
    (lambda: edited(sched={'groups': [[0, 'wsd'], [0, 'wsd']]}), 'each group once'),
    (lambda: Stage('a', 10**7), 'n_epoch must be a number of epochs, at least 0 and at most 1,000,000'),
    (lambda: Stage('', 1), 'the name of a stage must be a non-empty string')])
def test_what_is_refused(make, says):
    with pytest.raises(ValueError, match=says): make()

@pytest.mark.parametrize('kind', [torch.tensor, np.float64, np.array])
def test_numbers_of_numpy_and_torch(kind):
    stage = Stage('a', kind(.5), slice(kind(.125), kind(.5)), wd=[kind(0.), kind(.25)])
    assert stage==Stage('a', .5, slice(.125, .5), wd=[0., .25]) and json.dumps(stage.to_dict())

def test_a_generator_of_callbacks_is_kept():
    stage = Stage('a', 1, cbs=(cb for cb in [CSVLogger, CSVLogger()]))
    assert len(stage.cbs)==2 and len(replace(stage, n_epoch=2).cbs)==2
