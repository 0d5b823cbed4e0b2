"Labels and units: the same words in every figure"
import pytest
from torch import nn
from functools import partial
from fastai.optimizer import SGD, Adam
from fastai_clr_ext.core.labels import ITERATIONS, HYPER_LABELS, hyper_label
from fastai_clr_ext.record import GradRecorder
from fastai_clr_ext.schedule import Cycle, Phase, Plan, one_cycle, plot_plans
import fastai_clr_ext.plot
import fastai_clr_ext.train # noqa: F401

@pytest.mark.parametrize('opt', [partial(SGD, mom=.9), Adam], ids=['SGD', 'Adam'])
def test_what_an_optimizer_can_be_scheduled_by_has_a_label(opt):
    hypers = opt(nn.Linear(1, 1).parameters(), lr=.1).hypers[0]
    assert {'lr', 'mom', 'wd'} <= set(HYPER_LABELS)
    assert {k for k in hypers if k in ('sqr_mom', 'eps')} <= set(HYPER_LABELS)

def test_another_hyper_parameter_is_labelled_by_its_name(): assert hyper_label('nesterov')=='nesterov'

@pytest.mark.parametrize('key', ['lr', 'mom', 'wd'])
def test_a_preview_has_the_labels(key):
    cycle = Cycle([Phase('all', 1., lr=(.1, 1), mom=(.9, .8), wd=(.1, .2))])
    ax = plot_plans([Plan(cycle, (1.,), 1, 10)], key)
    assert (ax.get_xlabel(), ax.get_ylabel())==(ITERATIONS, HYPER_LABELS[key])

def test_a_preview_and_a_history_say_the_same(mlp):
    learn = mlp(cbs=GradRecorder())
    learn.fit_one_cycle_ext(1, .01)
    planned,trained = one_cycle().plot(10, .01),learn.recorder.plot_lr()
    assert planned.get_ylabel()==trained.get_ylabel() and planned.get_xlabel()==trained.get_xlabel()
