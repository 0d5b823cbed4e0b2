"Rows of the history in the runs and files of trackers, read back by each tracker's own reader"
import json, pickle, subprocess, sys, time, zlib
from pathlib import Path
import numpy as np, pandas as pd, pytest
from numpy.testing import assert_allclose
from fastai.callback.core import Callback
from torch import nn
from fastai.callback.progress import CSVLogger, ProgressCallback
from fastai.callback.schedule import *
from fastai.callback.training import GradientAccumulation
from fastai.data.block import CategoryBlock, DataBlock
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat
from fastai.vision.core import PILImageBW
from fastai.vision.data import ImageBlock
from fastai_clr_ext.record import *
from fastai_clr_ext.record.loggers import PREFIX, present_numbers, present_values, tensorboard_histogram
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

def test_how_much_was_sent_comes_back(mlp, tmp_path):
    learn = mlp(cbs=[GradRecorder(), CSVLogger(tmp_path/'a.csv'), ForwardHistory(4)])
    learn.fit(1)
    new = ForwardHistory()
    new.learn = learn
    new.load_state_dict(learn.forward_history.state_dict())
    assert tuple(new.sent)==(10, 10) and new.history is learn.recorder.history

def test_what_is_missing_is_not_sent():
    row = dict(loss=1.5, step=3, phase='up', skipped='', gap=float('nan'), none=None, na=pd.NA, zero=0)
    values,numbers = present_values(row),present_numbers(row)
    assert {k.removeprefix(PREFIX): v for k,v in values.items()}==dict(loss=1.5, step=3, phase='up', zero=0)
    assert {k.removeprefix(PREFIX): v for k,v in numbers.items()}==dict(loss=1.5, step=3, zero=0)
    assert all(k.startswith(PREFIX) for k in values)

def test_a_histogram_has_the_sums_of_the_middles_of_its_bins():
    "One entry between 1 and 2, two between 4 and 8, on a log scale of 2"
    counts = np.zeros(64)
    counts[40],counts[42] = 1,2
    found = tensorboard_histogram(counts)
    assert (found['min'], found['max'], found['num'])==(0, 3, 3)
    assert (found['sum'], found['sum_squares'])==(.5+2*2.5, .25+2*6.25)
    assert len(found['bucket_limits'])==len(found['bucket_counts'])==64 and found['bucket_limits'][40]==1

def test_bad_input(mlp):
    with pytest.raises(ValueError, match='every must be a whole number of batches, at least 1 and at most .*; got 0'):
        ForwardHistory(0)
    learn = mlp()
    with pytest.raises(ValueError, match=r"ForwardHistory must have somewhere to send to: start a run .*wandb.*mlflow"
                       r".*SummaryWriter.*WandbCallback, TensorBoardCallback or CSVLogger beside it; got \['"):
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

# ---- straight to the trackers' runs, without fastai's callbacks

class GradSpy(Callback):
    "Keeps the gradients of each step, by group, as numpy arrays"
    order = 20 # behind `GradRecorder`
    def before_fit(self): self.grads = []
    def before_step(self):
        self.grads.append([np.concatenate([p.grad.flatten().numpy().copy() for p in params])
                           for params in self.learn.opt.param_lists])

def bins_by_hand(grads):
    "Counts by power of 2, from 2**-40; an entry of 0 counts as the smallest"
    counts = [0]*64
    for g in np.abs(grads.astype(float)): counts[0 if g==0 else max(int(np.floor(np.log2(g))), -40)+40] += 1
    return counts

@pytest.fixture
def wandb(tmp_path, monkeypatch):
    "W&B without a network; no run is left active"
    import wandb
    for name,value in dict(MODE='offline', SILENT='true', DIR=str(tmp_path)).items():
        monkeypatch.setenv(f'WANDB_{name}', value)
    yield wandb
    wandb.finish()

def wandb_records(data):
    "The records in the bytes of an offline run: LevelDB's log format, with W&B's own protobuf messages in it"
    from wandb.proto.wandb_internal_pb2 import Record
    assert data[:4]==b':W&B'
    at,whole,records = 7,b'',[]
    while at<len(data):
        left = 2**15 - at%2**15
        if left<7: # the rest of a block is padding
            at += left
            continue
        size,kind = int.from_bytes(data[at+4:at+6], 'little'),data[at+6]
        whole += data[at+7:at+7+size]
        assert zlib.crc32(data[at+6:at+7+size])==int.from_bytes(data[at:at+4], 'little')
        at += 7+size
        if kind in (1, 4): # a whole record, or the last part of one
            records.append(Record.FromString(whole))
            whole = b''
    return records

def finished_records(run):
    "The records of a run, to its exit; W&B's own process may still be writing for a moment after `finish`"
    run.finish()
    stop = time.monotonic()+30
    while time.monotonic()<stop:
        try: records = wandb_records(Path(run.settings.sync_file).read_bytes())
        except AssertionError: records = [] # within a record
        if 'exit' in {record.WhichOneof('record_type') for record in records}: return records # old versions go on
        time.sleep(.2)
    raise TimeoutError(run.settings.sync_file)

def wandb_rows(run, name='clr/iteration'):
    "What was logged, a dict for each step of the run that has a value of that name"
    rows = []
    for record in finished_records(run):
        if record.WhichOneof('record_type')!='history': continue
        row = {}
        for item in record.history.item:
            *outer,last = item.nested_key or [item.key]
            place = row
            for key in outer: place = place.setdefault(key, {})
            place[last] = json.loads(item.value_json)
        rows.append(row)
    return [row for row in rows if name in row]

def digits_learner():
    "A learner of a `DataBlock`, with which fastai's `WandbCallback` fails"
    images = [np.random.default_rng(i).integers(0, 255, (8, 8), dtype=np.uint8) for i in range(80)]
    block = DataBlock((ImageBlock(PILImageBW), CategoryBlock), get_items=lambda _: range(80),
                      get_x=lambda i: images[i], get_y=lambda i: i%3)
    learn = Learner(block.dataloaders(None, bs=16, num_workers=0), nn.Sequential(nn.Flatten(), nn.Linear(64, 3)),
                    loss_func=CrossEntropyLossFlat(), cbs=GradRecorder('hist'))
    learn.logger = lambda *_: None
    return learn.remove_cb(ProgressCallback)

def test_wandb_run_of_a_datablock_learner(wandb, tmp_path):
    from fastai.callback.wandb import WandbCallback
    learn = digits_learner()
    run = wandb.init(project='test', dir=tmp_path)
    with pytest.raises(TypeError, match='vars'): learn.fit(1, cbs=WandbCallback(log_preds=False))
    spy = GradSpy()
    learn.fit_one_cycle_ext(3, .1, cbs=[spy, ForwardHistory(4)])
    rows = wandb_rows(run)
    assert [row['clr/iteration'] for row in rows]==list(range(12)), 'each batch once'
    ours = pd.DataFrame(rows).rename(columns=lambda k: k.removeprefix('clr/'))
    same(ours, learn.recorder.history.steps)
    assert [row['clr/phase'] for row in rows]==learn.recorder.history.steps.phase.tolist()
    for row,grads in zip(rows, spy.grads):
        histogram = row['clr/log2_grad_0']
        assert histogram['_type']=='histogram' and histogram['bins']==list(range(-40, 25))
        assert histogram['values']==bins_by_hand(grads[0])

def test_wandb_beside_its_callback_gets_each_row_once(wandb, mlp, tmp_path, monkeypatch):
    from fastai.callback.wandb import WandbCallback
    monkeypatch.setattr(Learner, 'gather_args', lambda self: {}) # fastai's stops at data made of tuples of tensors
    run = wandb.init(project='test', dir=tmp_path)
    learn = mlp(cbs=[GradRecorder('hist'), WandbCallback(log_preds=False), ForwardHistory(4)])
    learn.fit(2)
    rows = wandb_rows(run)
    assert [row['clr/iteration'] for row in rows]==list(range(20))
    assert all('clr/log2_grad_1' in row for row in rows)
    assert len(wandb_rows(run, 'train_loss'))==20, "W&B dropped none of the callback's own"

@pytest.fixture
def mlflow(tmp_path, monkeypatch):
    "MLflow on a local SQLite store; no run is left active"
    monkeypatch.setenv('MLFLOW_TRACKING_URI', f'sqlite:///{tmp_path}/mlflow.db')
    monkeypatch.setenv('MLFLOW_DISABLE_TELEMETRY', 'true')
    import mlflow
    experiment = mlflow.MlflowClient().create_experiment('test', artifact_location=str(tmp_path/'artifacts'))
    mlflow.set_experiment(experiment_id=experiment)
    yield mlflow
    mlflow.end_run()

def metric_series(mlflow, run, name):
    "The values of a metric by step"
    history = mlflow.MlflowClient().get_metric_history(run.info.run_id, name)
    assert len({m.step for m in history})==len(history), 'each row once'
    return pd.Series({m.step: m.value for m in history}).sort_index()

def test_mlflow_run(mlflow, mlp):
    model = nn.Sequential(nn.Linear(1, 8), nn.ReLU(), nn.Sequential())
    model[2].add_module('out [x]', nn.Linear(8, 1))
    learn = mlp(model=model, cbs=GradRecorder('hist', per='layer'))
    with mlflow.start_run() as run:
        learn.fit_one_cycle_ext(1, .1, cbs=ForwardHistory(4))
        learn.fit(1, cbs=[GradientAccumulation(32), ForwardHistory(4)])
    want,grads = learn.recorder.history.steps,learn.recorder.grads
    for k in ('loss', 'lr_0', 'mom_1', 'mean_abs_0', 'norm_1', 'step', 'fit', 'train_iter'):
        rows = want[k].dropna()
        got = metric_series(mlflow, run, f'clr/{k}')
        assert got.index.tolist()==rows.index.tolist()
        assert_allclose(got, rows.to_numpy(float), rtol=1e-6)
    assert_allclose(metric_series(mlflow, run, 'clr/norm/2.out _x_'), grads[grads.layer=='2.out [x]'].norm, rtol=1e-6)
    names = mlflow.get_run(run.info.run_id).data.metrics
    assert not [name for name in names if 'log2_grad' in name], 'MLflow has no histograms'

def test_mlflow_gets_more_than_it_takes_at_once(mlflow, mlp):
    "A request may hold 1000 metrics"
    learn = mlp(n_trn=110, cbs=GradRecorder())
    with mlflow.start_run() as run: learn.fit(1, cbs=ForwardHistory())
    steps = learn.recorder.history.steps
    for k in ('loss', 'norm_1'): assert_allclose(metric_series(mlflow, run, f'clr/{k}'), steps[k], rtol=1e-6)
    assert 100*len(steps.columns)>1000

def test_mlflow_run_that_fails_does_not_end_the_training(mlflow, mlp, monkeypatch):
    def fail(*args, **kwargs): raise mlflow.MlflowException('no answer')
    monkeypatch.setattr(mlflow.MlflowClient, 'log_batch', fail)
    learn = mlp(cbs=[HistoryRecorder(), ForwardHistory(5)])
    with mlflow.start_run(), pytest.warns(UserWarning, match='5 rows of the history could not be sent: no answer'):
        learn.fit(1)
    assert list(learn.recorder.history.fits.outcome)==['finished']

def test_wandb_run_that_is_finished_does_not_end_the_training(wandb, mlp, tmp_path):
    class Finish(Callback):
        def before_step(self):
            if self.learn.train_iter==3: wandb.finish()
    wandb.init(project='test', dir=tmp_path)
    learn = mlp(cbs=[HistoryRecorder(), ForwardHistory(5)])
    with pytest.warns(UserWarning, match='5 rows of the history could not be sent'): learn.fit(1, cbs=Finish())
    assert list(learn.recorder.history.fits.outcome)==['finished']

@pytest.fixture
def writer(tmp_path):
    "A writer that writes only when it is flushed or closed"
    from torch.utils.tensorboard import SummaryWriter
    with SummaryWriter(tmp_path/'events', max_queue=10**6, flush_secs=10**4) as writer: yield writer

def test_given_writer(writer, mlp, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    spy = GradSpy()
    learn = mlp(cbs=GradRecorder('hist'))
    learn.fit_one_cycle_ext(1, .1, cbs=[spy, ForwardHistory(4, writer)])
    learn.fit(1, cbs=ForwardHistory(writer=writer))
    writer.add_scalar('mine', 3, 0) # it is still open
    writer.flush()
    values,want = scalars(tmp_path/'events'),learn.recorder.history.steps
    for k in ('loss', 'lr_0', 'mean_abs_0', 'norm_1'):
        assert values[f'clr/{k}'].index.tolist()==list(range(20))
        assert_allclose(values[f'clr/{k}'], want[k], rtol=1e-6)
    assert values['mine'].tolist()==[3]
    events = EventAccumulator(str(tmp_path/'events'), {'histograms': 0, 'tensors': 0, 'scalars': 0}).Reload()
    for group in (0, 1):
        found = events.Histograms(f'clr/log2_grad_{group}')
        assert [event.step for event in found]==list(range(20))
        for event,grads in zip(found[:10], spy.grads):
            sizes = np.abs(grads[group])
            exponents = np.log2(sizes, out=np.full(len(sizes), -40.), where=sizes>2.**-40)
            shown = event.histogram_value
            assert shown.bucket_limit==list(range(-39, 25)) and shown.bucket==bins_by_hand(grads[group])
            assert (shown.min, shown.max)==(np.floor(exponents.min()), np.floor(exponents.max())+1)
            assert shown.num==len(exponents)
            assert shown.sum==pytest.approx((np.floor(exponents)+.5).sum())
            assert shown.sum_squares==pytest.approx(((np.floor(exponents)+.5)**2).sum())

@pytest.mark.parametrize('same_folder', [True, False])
def test_writer_beside_the_callback_of_the_same_folder(mlp, tmp_path, same_folder):
    from fastai.callback import tensorboard as board
    from torch.utils.tensorboard import SummaryWriter
    sent = []
    class Spied(SummaryWriter):
        def add_scalar(self, tag, *args, **kwargs): sent.append(tag)
    with Spied(str(tmp_path/('a' if same_folder else 'b'))) as writer:
        logger = board.TensorBoardCallback(str(tmp_path/'a'), trace_model=False, log_preds=False)
        learn = mlp(cbs=[HistoryRecorder(), logger, ForwardHistory(4, writer)])
        learn.fit(1)
    assert sent.count('clr/loss')==(0 if same_folder else 10)
    assert scalars(tmp_path/'a')['clr/loss'].index.tolist()==list(range(10))

def test_all_at_once_and_each_row_once(wandb, mlflow, writer, mlp, tmp_path):
    run = wandb.init(project='test', dir=tmp_path)
    learn = mlp(cbs=[GradRecorder(), CSVLogger(), ForwardHistory(3, writer)], path=tmp_path)
    with mlflow.start_run() as mlflow_run: learn.fit(1)
    numbers = list(range(10))
    assert [row['clr/iteration'] for row in wandb_rows(run)]==numbers
    assert metric_series(mlflow, mlflow_run, 'clr/loss').index.tolist()==numbers
    assert scalars(tmp_path/'events')['clr/loss'].index.tolist()==numbers
    assert pd.read_csv(tmp_path/'history_steps.csv').iteration.tolist()==numbers

def test_what_an_interrupted_fit_did_not_send_goes_with_the_next(writer, mlp, tmp_path):
    learn = mlp(cbs=[GradRecorder('hist'), ForwardHistory(4, writer)])
    with pytest.raises(KeyboardInterrupt): learn.fit(1, cbs=Raise(6, KeyboardInterrupt()))
    learn.fit(1)
    values = scalars(tmp_path/'events')
    assert values['clr/loss'].index.tolist()==list(range(17))

def test_only_the_first_process_sends(writer, mlp, tmp_path, monkeypatch):
    monkeypatch.setenv('RANK', '1')
    learn = mlp(cbs=[HistoryRecorder(), ForwardHistory(4, writer)])
    learn.fit(1)
    learn.remove_cb(ForwardHistory).fit(1, cbs=ForwardHistory()) # a run is active in the first process only
    writer.flush()
    assert not scalars(tmp_path/'events')

def test_a_run_that_ended_is_not_active(wandb, mlflow, mlp, tmp_path):
    wandb.init(project='test', dir=tmp_path).finish()
    with mlflow.start_run(): pass
    learn = mlp()
    with pytest.raises(ValueError, match='must have somewhere to send to'):
        learn.fit_one_cycle_ext(1, cbs=ForwardHistory())
    assert learn.opt is None and not len(learn.recorder.history)

@pytest.mark.parametrize('value', ['runs', 3, dict])
def test_what_is_no_writer(value):
    with pytest.raises(ValueError, match="writer must be TensorBoard's SummaryWriter or None; got"):
        ForwardHistory(writer=value)
    from torch.utils.tensorboard import SummaryWriter
    with pytest.raises(ValueError, match='writer must be'): ForwardHistory(writer=SummaryWriter) # the class

def test_a_callback_with_a_writer_can_be_pickled(writer, mlp):
    "As `learn.export` does; a writer can't be"
    sender = ForwardHistory(4, writer)
    learn = mlp(cbs=[HistoryRecorder(), sender])
    learn.fit(1)
    learn.remove_cb(sender) # the test's learner has a lambda
    loaded = pickle.loads(pickle.dumps(sender))
    assert (loaded.writer, loaded.every, sender.writer)==(None, 4, writer)

def test_importing_and_training_imports_no_tracker(tmp_path):
    code = ('import sys; from fastai.basics import *; from fastai.test_utils import synth_learner; '
            'from fastai.callback.progress import CSVLogger; from fastai_clr_ext.all import *; '
            'learn = synth_learner(); learn.fit_one_cycle_ext(1, cbs=[CSVLogger(), ForwardHistory()]); '
            'print([m for m in sys.modules if m.partition(".")[0] in ("wandb", "mlflow", "tensorboard")])')
    r = subprocess.run([sys.executable, '-W', 'ignore', '-c', code], capture_output=True, text=True, cwd=tmp_path)
    assert r.returncode==0 and r.stdout.splitlines()[-1]=='[]', r.stdout + r.stderr

@pytest.mark.parametrize('name', ['NA', 'nan', 'null', '01', 'None'])
def test_stages_with_names_like_numbers_or_nothing(mlp, tmp_path, name):
    "A new column makes the file be read and written again"
    learn = mlp(cbs=[CSVLogger(append=True), ForwardHistory()])
    learn.path = tmp_path
    learn.fit_stages([Stage(name, 1, .01)])
    learn.fit_one_cycle_ext(1, .01, cbs=GradRecorder())
    table = pd.read_csv(tmp_path/'history_steps.csv', dtype=str, keep_default_na=False)
    assert table.stage.tolist()==[name]*10 + ['']*10 and 'mean_abs_0' in table
