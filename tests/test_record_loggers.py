"Rows of the history in the files of loggers"
import numpy as np, pandas as pd, pytest
from numpy.testing import assert_allclose
from fastai.callback.core import Callback
from fastai.callback.progress import CSVLogger
from fastai.callback.schedule import *
from fastai.callback.training import GradientAccumulation
from fastai.learner import Learner
from fastai_clr_ext.record import *
from fastai_clr_ext.train import *
from conftest import Raise, ValidateAt

def same(got, want):
    "Columns of a table that was read back, against the history"
    for k in want:
        if k in ('smooth_loss', 'stage', 'phase', 'skipped'): continue
        assert_allclose(got[k].to_numpy(float), want[k].to_numpy(float, na_value=np.nan), rtol=1e-6, err_msg=k)

@pytest.mark.parametrize('every', [3, 100])
def test_csv(mlp, tmp_path, every):
    learn = mlp(cbs=[GradRecorder(), CSVLogger(append=True), ForwardHistory(every)], path=tmp_path)
    learn.freeze(); learn.fit_one_cycle_ext(1, .1)
    learn.unfreeze(); learn.fit(1, cbs=GradientAccumulation(32)) # a column more
    got = pd.read_csv(tmp_path/'history_steps.csv', index_col='iteration')
    want = learn.recorder.history.steps
    assert got.index.tolist()==list(range(20)) and set(got)==set(want)-{'smooth_loss'}
    same(got, want)
    assert got.phase.fillna('').tolist()==want.phase.tolist() and got.skipped.fillna('').tolist()==want.skipped.tolist()

def test_csv_is_begun_anew_as_the_loggers(mlp, tmp_path):
    learn = mlp(cbs=[HistoryRecorder(), CSVLogger('my.csv'), ForwardHistory(3)], path=tmp_path)
    learn.fit(1); learn.fit(1)
    assert pd.read_csv(tmp_path/'my_steps.csv').iteration.tolist()==list(range(10, 20))

def scalars(path)->dict: # By tag, Series of values by step
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    values = {}
    for p in path.iterdir():
        events = EventAccumulator(str(p)).Reload()
        for tag in events.Tags()['scalars']:
            values.setdefault(tag, {}).update({e.step: e.value for e in events.Scalars(tag)})
    return {tag: pd.Series(v).sort_index() for tag,v in values.items()}

def test_tensorboard(mlp, tmp_path):
    from fastai.callback import tensorboard as board
    learn = mlp(cbs=[GradRecorder(per='layer'),
                     board.TensorBoardCallback(tmp_path, trace_model=False, log_preds=False), ForwardHistory(4)])
    learn.fit_one_cycle_ext(1, .1)
    learn.fit(1, cbs=GradientAccumulation(32))
    values,want,grads = scalars(tmp_path),learn.recorder.history.steps,learn.recorder.grads
    for k in ('loss', 'lr_0', 'mom_1', 'mean_abs_0', 'norm_1', 'step'):
        rows = want[k].dropna()
        assert values[f'clr/{k}'].index.tolist()==rows.index.tolist()
        assert_allclose(values[f'clr/{k}'], rows.to_numpy(float), rtol=1e-6)
    assert_allclose(values['clr/norm/2'], grads[grads.layer=='2'].norm, rtol=1e-6)
    assert len(values['train_loss'])==10 # fastai's own, which begin anew with each fit

def test_wandb(mlp, tmp_path, monkeypatch):
    import wandb
    from fastai.callback.wandb import WandbCallback
    monkeypatch.setattr(Learner, 'gather_args', lambda self: {}) # fastai's stops at data made of tuples of tensors
    monkeypatch.setenv('WANDB_MODE', 'offline'); monkeypatch.setenv('WANDB_SILENT', 'true')
    monkeypatch.setenv('WANDB_DIR', str(tmp_path))
    run = wandb.init(project='test', dir=tmp_path)
    sent,real = [],wandb.log
    def log(data, step=None, **kwargs):
        sent.append((run.step if step is None else step, dict(data)))
        return real(data, step=step, **kwargs)
    monkeypatch.setattr(wandb, 'log', log)
    learn = mlp(cbs=[GradRecorder(), WandbCallback(log_preds=False), ForwardHistory(4)])
    learn.fit_one_cycle_ext(1, .1)
    learn.fit(1)
    with pytest.raises(KeyboardInterrupt): learn.fit(1, cbs=Raise(6, KeyboardInterrupt))
    learn.fit(1)
    steps = [s for s,_ in sent]
    assert steps==sorted(steps), 'W&B drops what goes back'
    ours = pd.DataFrame([d for _,d in sent if 'clr/iteration' in d]).set_index('clr/iteration')
    assert ours.index.tolist()==list(range(37)), 'also what waited when it was interrupted'
    same(ours.rename(columns=lambda k: k.removeprefix('clr/')), learn.recorder.history.steps)
    assert sum('train_loss' in d for _,d in sent)==36
    assert run.summary['clr/mean_abs_0']==pytest.approx(learn.recorder.grads.query('group==0').mean_abs.iloc[-1])
    wandb.finish()

def test_quiet_where_nothing_is_trained(mlp, tmp_path):
    learn = mlp(cbs=[HistoryRecorder(), CSVLogger(append=True), ForwardHistory(3)], path=tmp_path)
    learn.fit(1)
    learn.lr_find(show_plot=False); learn.get_preds(); learn.validate()
    assert len(pd.read_csv(tmp_path/'history_steps.csv'))==10

def test_what_was_not_sent_goes_with_the_next_fit(mlp, tmp_path):
    learn = mlp(cbs=[GradRecorder(), CSVLogger(append=True), ForwardHistory(4)], path=tmp_path)
    with pytest.raises(KeyboardInterrupt): learn.fit(1, cbs=Raise(6, KeyboardInterrupt()))
    learn.logger = lambda *_: None
    assert len(pd.read_csv(tmp_path/'history_steps.csv'))==4 and len(learn.recorder.history)==7
    learn.fit(1)
    assert pd.read_csv(tmp_path/'history_steps.csv').iteration.tolist()==list(range(17))

def test_bad_input(mlp):
    with pytest.raises(ValueError, match='every must be a whole number of batches, at least 1 and at most .*; got 0'):
        ForwardHistory(0)
    learn = mlp()
    with pytest.raises(ValueError, match="ForwardHistory must have one of"):
        learn.fit_one_cycle_ext(1, cbs=ForwardHistory())
    assert learn.opt is None
    with pytest.raises(ValueError, match='have a HistoryRecorder or GradRecorder'):
        learn.fit(1, cbs=[CSVLogger('/dev/null'), ForwardHistory()])

class MyLogger(CSVLogger): "A logger of one's own, as a logger of fastai's"

def test_a_subclass_is_a_logger_too_and_nothing_warns(mlp, tmp_path, recwarn):
    learn = mlp(cbs=[GradRecorder(), MyLogger(tmp_path/'a.csv'), ForwardHistory()])
    learn.fit(1)
    assert len(pd.read_csv(tmp_path/'a_steps.csv'))==10 and not [w for w in recwarn if 'shadowing' in str(w.message)]

@pytest.mark.parametrize('text', ['', 'garbage', 'a,b\n1,2'], ids=['empty', 'text', 'another table'])
def test_a_file_that_cannot_be_appended_to(mlp, tmp_path, text):
    (tmp_path/'a_steps.csv').write_text(text)
    learn = mlp(cbs=[GradRecorder(), CSVLogger(tmp_path/'a.csv', append=True), ForwardHistory()])
    with pytest.raises(ValueError, match='a_steps.csv must be a table of steps to append to'): learn.fit(1)
    assert (tmp_path/'a_steps.csv').read_text()==text and not len(learn.recorder.losses)

def test_csv_reads_only_the_header_again(mlp, tmp_path, monkeypatch):
    "A packet costs the same at the end of a long run as at its start"
    read,real = [],pd.read_csv
    def spy(*args, **kwargs):
        read.append(kwargs['nrows'])
        return real(*args, **kwargs)
    monkeypatch.setattr(pd, 'read_csv', spy)
    learn = mlp(cbs=[GradRecorder(), CSVLogger(), ForwardHistory(2)], path=tmp_path)
    learn.fit(1)
    assert read==[0]*4

def test_a_file_that_cannot_be_written_does_not_end_the_training(mlp, tmp_path):
    learn = mlp(cbs=[HistoryRecorder(), CSVLogger(append=True), ForwardHistory(5)], path=tmp_path)
    class Folder(Callback):
        def before_step(self): (tmp_path/'history_steps.csv').mkdir(exist_ok=True)
    with pytest.warns(UserWarning, match='5 rows of the history could not be sent.*history_steps.csv'):
        learn.fit(1, cbs=Folder())
    assert len(learn.recorder.history)==10 and list(learn.recorder.history.fits.outcome)==['finished']

def test_two_are_one_too_many(mlp, tmp_path):
    learn = mlp(cbs=[HistoryRecorder(), CSVLogger(), ForwardHistory()], path=tmp_path)
    for fit in (learn.fit_one_cycle_ext, learn.fit):
        with pytest.raises(ValueError, match='learn.cbs must have one ForwardHistory'): fit(1, cbs=ForwardHistory())
    assert not len(learn.recorder.history)

@pytest.mark.parametrize('every', [3, 100])
def test_validation_within_a_fit(mlp, tmp_path, every):
    "fastai's own loggers survive it only after them, and CSVLogger not at all"
    from fastai.callback import tensorboard as board
    learn = mlp(cbs=[GradRecorder(), board.TensorBoardCallback(tmp_path, trace_model=False, log_preds=False),
                     ForwardHistory(every)])
    learn.fit(2, cbs=ValidateAt('after_epoch', 60))
    assert_allclose(scalars(tmp_path)['clr/loss'], learn.recorder.history.steps.loss, rtol=1e-6)
