"The scheduler alone; what it trains in a fit is in test_train_one_cycle.py"
import numpy as np, pytest
from numpy.testing import assert_allclose
from fastai.callback.schedule import ParamScheduler, SchedLin
from fastai.callback.tracker import ReduceLROnPlateau
from fastai_clr_ext.schedule import *
from fastai_clr_ext.train import *
from fastai_clr_ext.train.scheduler import CycleFit, check_writers, written_by
from conftest import Spy

def test_who_writes_what():
    assert written_by(ReduceLROnPlateau())=={'lr'} and written_by(ParamScheduler({'mom': SchedLin(1, 0)}))=={'mom'}
    assert written_by(CycleScheduler(Plan(one_cycle(), (1.,), 1, 1)))=={'lr', 'mom'} and written_by(Spy())==set()
    with pytest.raises(ValueError, match='that sets mom too; got'):
        check_writers(['mom'], [ParamScheduler({'mom': min})])

def test_ranges_of_what_was_trained():
    fit = CycleFit([])
    for train_iter,row in ((0, 0), (1, 1), (2, 5), (3, 6)): fit.add(train_iter, row)
    assert fit.ranges==[[0, 0, 2], [2, 5, 7]] and fit.row==6

def test_other_values_are_noted():
    fit = CycleFit([('lr', np.array([[.1, .2], [.3, .4]]))], row=1, planned=[('lr', [.3, .4])])
    fit.compare([dict(lr=.3), dict(lr=.4)])
    assert not fit.changed
    fit.compare([dict(lr=.3), dict(lr=.5)])
    assert fit.changed=={'lr': {1: [.3, .5]}}

def test_a_plan_is_for_the_epochs_of_the_fit(mlp):
    spy = Spy()
    mlp().fit(3, cbs=[CycleScheduler(Plan(one_cycle(), (.1, .1), 1, 4)), spy])
    assert_allclose(np.array(spy.column('lr'))[:,0], one_cycle().table(30, .1)['lr'])
