"The tables of a history"
import pytest
from fastai.callback.core import CancelFitException
from fastai.metrics import mse
from fastai_clr_ext.record import *
from fastai_clr_ext.train import *
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
    'steps': (lambda: RunHistory().steps, 'No training is recorded'),
    'stages': (lambda: RunHistory().stages, 'No training is recorded'),
    'grads': (lambda: RunHistory().grads, 'No gradients are recorded'),
}

@pytest.mark.parametrize('call,says', BAD.values(), ids=BAD.keys())
def test_bad_input(call, says):
    with pytest.raises(ValueError, match=says): call()
