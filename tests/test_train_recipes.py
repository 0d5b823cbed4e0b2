"Recipes: stages as data, fastai's fine-tuning among them"
import pytest, torch
from numpy.testing import assert_allclose, assert_array_equal
from fastai.callback.schedule import *
from fastai.optimizer import Adam
from fastai.torch_core import trainable_params
from fastai_clr_ext.schedule import *
from fastai_clr_ext.train import *
from train_helpers import *

def names(stages): return [(s.name, s.n_epoch, s.freeze_to) for s in stages]

def test_recipes_as_data():
    assert names(stages_long(10, head_epochs=.5))==[('head', .5, -1), ('all', 10, 0)]
    assert names(stages_long(budget=10, head_epochs=.5))==[('head', .5, -1), ('all', 9.5, 0)]
    assert names(stages_two_cycles(4))==[('head', 4, -1), ('all', 4, 0)]
    assert names(stages_two_cycles(budget=4, head_epochs=1))==[('head', 1, -1), ('all', 3, 0)]
    assert names(stages_gradual(4, budget=10))==[('head', 1, -1), ('groups from 2', 1, -2), ('groups from 1', 1, -3),
                                                 ('all', 7, -4)]
    a,b = stages_long(1, .1, lr_mult=10)
    assert (a.lr_max, b.lr_max)==(slice(.1), slice(.01, .1))

@pytest.mark.parametrize('n_trn', [10, 130], ids=['few batches', 'more than 100'])
@pytest.mark.parametrize('kwargs', [{}, dict(base_lr=.1, freeze_epochs=2, lr_mult=10, pct_start=.5, div=10.)],
                         ids=['defaults', 'others'])
def test_fine_tune_as_stages_is_fastais(make, n_trn, kwargs):
    ours,theirs,(a,b) = make(n_trn=n_trn),make(n_trn=n_trn),(Rows(), Rows())
    torch.manual_seed(1); ours.fit_stages(stages_fine_tune(2, **kwargs), cbs=a)
    torch.manual_seed(1); theirs.fine_tune(2, cbs=b, **kwargs)
    for k in ('lr', 'mom', 'wd'): # the last rates are differences of cosines
        assert_allclose(a.column(k), b.column(k), rtol=1e-11, atol=0)
    assert (a.grads==b.grads and a.names==['head']*(n_trn*kwargs.get('freeze_epochs', 1)) + ['all']*2*n_trn
            and set(b.names)=={None})
    for p,q in zip(ours.model.parameters(), theirs.model.parameters()):
        assert_allclose(p.detach(), q.detach(), rtol=1e-5, atol=1e-7)

@pytest.mark.parametrize('method', ['fine_tune_long', 'fine_tune_two_cycles', 'fine_tune_gradual'])
@pytest.mark.parametrize('n_trn', [7, 11])
def test_the_same_budget_is_the_same_number_of_steps(make, method, n_trn):
    learn,log = make(n_trn=n_trn),Rows()
    getattr(learn, method)(budget=5, base_lr=.01, head_epochs=.7, cbs=log, sched=constant())
    assert len(log.rows)==5*n_trn and set(log.names)>={'head', 'all'}
    assert_allclose(log.column('lr')[-1], [.0001, .001, .01])

def test_epochs_counts_the_unfrozen_part(make):
    log = Rows()
    make().fine_tune_gradual(2, .01, cbs=log)
    assert [log.names.count(n) for n in ('head', 'groups from 1', 'all')]==[10, 10, 20]
    log = Rows()
    make().fine_tune_long(2, .01, .5, log)
    assert [log.names.count(n) for n in ('head', 'all')]==[5, 20]

def test_adam_and_use_clr_in_one_line(make):
    learn,log = make(opt_func=Adam),Rows()
    learn.fine_tune_long(3, .01, sched=clr_07(10, 4), cbs=log)
    assert_array_equal(log.column('lr')[10:,2], clr_07(10, 4).table(30, .01)['lr'])
    assert set(log.column('mom').flat)=={.9}, "Adam's own β₁ stays"

def test_a_model_without_a_split_is_refused(mlp):
    learn = mlp(splitter=trainable_params)
    for method in ('fine_tune_long', 'fine_tune_two_cycles', 'fine_tune_gradual'):
        with pytest.raises(ValueError, match="the learner's splitter must give at least 2 parameter groups.*got 1"):
            getattr(learn, method)(1)
    learn.fit_stages([Stage('all', 1, .01)])

BAD = {
    'epochs': (lambda: stages_long(), 'the length must be given by one of epochs and budget'),
    'both': (lambda: stages_long(1, budget=2), 'the length must'),
    'epochs below 0': (lambda: stages_long(-2), "stage 'all': n_epoch must"),
    'head below 0': (lambda: stages_long(2, head_epochs=-1), "stage 'head': head_epochs must"),
    'budget': (lambda: stages_long(budget=2, head_epochs=2), 'budget must be more than the 2 epochs'),
    'budget gradual': (lambda: stages_gradual(4, budget=3), 'budget must be more than the 3'),
    'budget text': (lambda: stages_two_cycles(budget='x'), 'head_epochs must|budget must'),
    'base_lr': (lambda: stages_long(1, 0), 'base_lr must be a rate above 0'),
    'lr_mult': (lambda: stages_long(1, lr_mult=.5), 'lr_mult must be at least 1'),
    'groups': (lambda: stages_gradual(1, 1), 'n_groups must'),
    'two cycles': (lambda: stages_two_cycles(), 'the length must'),
    'fine_tune': (lambda: stages_fine_tune(1, -1), 'base_lr must'),
}

@pytest.mark.parametrize('make_bad,says', BAD.values(), ids=BAD.keys())
def test_bad_values_are_named(make_bad, says):
    with pytest.raises(ValueError, match=says): make_bad()
