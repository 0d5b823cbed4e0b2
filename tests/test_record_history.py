"The tables of a history"
import inspect, pytest
from fastai.callback.core import CancelFitException
from fastai.metrics import mse
from fastai_clr_ext.record import *
from fastai_clr_ext.train import *
from fastai_clr_ext.plot import *
from record_helpers import *

def test_epochs_and_stages(mlp):
    learn = mlp(metrics=mse, cbs=HistoryRecorder())
    for name,n in (('head', 1), ('body', 2), ('body', 1), (None, 1)):
        if name: learn.stage = type('Stage', (), {'name': name})
        learn.fit(n)
        if name: del learn.stage
    h = learn.recorder.history
    assert h.epochs.columns.tolist()==['fit', 'stage', 'epoch', 'train_loss', 'valid_loss', 'mse']
    assert h.epochs.iloc[-1].tolist()[3:]==list(learn.recorder.values[-1]) and h.epochs.fit.tolist()==[0, 1, 1, 2, 3]
    s = h.stages
    assert (s.stage.tolist()==['head', 'body', ''] and s.n_batches.tolist()==[10, 30, 10]
            and s.first_fit.tolist()==[0, 1, 3] and s.last_fit.tolist()==[0, 2, 3])
    assert s.mse.tolist()==[h.epochs.mse[i] for i in (0, 3, 4)]
    assert h.steps.stage.tolist()==['head']*10 + ['body']*30 + ['']*10

def test_stages_count_epochs_that_were_trained(mlp):
    learn = mlp(cbs=HistoryRecorder())
    learn.fit_one_cycle_ext(5, .01, start_epoch=3)
    learn.fit(4, cbs=Stop('after_loss', 15, CancelFitException()))
    assert (learn.recorder.history.stages.n_epoch.tolist()==[2, 1]
            and learn.recorder.history.fits.n_epoch.tolist()==[5, 4])

def test_kinds_of_rows_in_one_history(mlp):
    learn = mlp()
    learn.fit(1, cbs=GradRecorder())
    learn.fit(1, cbs=GradRecorder('max', per='layer'))
    df = learn.recorder.grads
    assert (df.groupby('fit').layer.unique().map(list).tolist()==[[''], ['0', '2']]
            and df[df.fit==0].max_abs.isna().all())

BAD = {
    'block_size': (lambda: RunHistory(0), 'block_size must'),
}

@pytest.mark.parametrize('call,says', BAD.values(), ids=BAD.keys())
def test_bad_input(call, says):
    with pytest.raises(ValueError, match=says): call()

@pytest.mark.filterwarnings('ignore:No gradients')
def test_tables_of_nothing_have_their_columns(mlp):
    for history in (RunHistory(), mlp().recorder.history):
        for name,column in (('steps', 'loss'), ('stages', 'outcome'), ('grads', 'group')):
            table = getattr(history, name)
            assert not len(table) and column in table, f'{name}: {list(table)}'
        assert not len(history.epochs) and not len(history.fits)

@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('trained', [False, True])
def test_every_attribute_of_a_recorder_can_be_looked_at(mlp, trained):
    learn = mlp()
    if trained: learn.fit_one_cycle_ext(1)
    for x in (learn, learn.recorder, learn.recorder.history):
        names = dict(inspect.getmembers(x))
        assert hasattr(x, 'no_such_name') is False
        assert all(hasattr(x, name) for name in names)
    assert {'history', 'grads', 'plot_grads', 'summary'}<=set(dict(inspect.getmembers(learn.recorder)))
