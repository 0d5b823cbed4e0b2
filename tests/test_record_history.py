"The tables of a history"
import inspect, pytest, torch
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

def by_hand():
    "Two fits of three and two batches; the second batch was accumulated, the last one interrupted"
    h,cpu = RunHistory(block_size=2),torch.device('cpu')
    common = dict(n_steps=2, seconds=1., outcome='finished')
    h.fit_rows = [dict(id='x', stage='a', n_iter=3, n_batches=3, phases=[['up', 0, 2], ['down', 2, 3]], **common),
                  dict(id='y', stage='', n_iter=2, n_batches=2, phases=[], **common)]
    h.epoch_rows = [dict(fit=0, epoch=0, mse=.7), dict(fit=0, epoch=1, mse=.5)]
    hypers = (cpu, (1,), dict(hypers=[['lr', 0], ['lr', 1]]))
    for i,(fit,batch,step,why) in enumerate([(0, 0, 0, 0), (0, 1, -1, 3), (0, 2, 1, 0), (1, 0, 0, 0), (1, 1, -1, 1)]):
        h.batch_log.add([fit, 0, batch, batch, step, why], [.1*i, .2*i], hypers).fill_(10.*(i+1))
    sums = (cpu, (2, 2), dict(units=[['', 0], ['', 1]], columns=['total', 'norm']))
    for fit,step,total in ((0, 0, 8.), (0, 1, 16.), (1, 0, 4.), (1, 1, 99.)): # of the last step no batch knows
        h.grad_log.add([fit, step, step, 0], [4, 2], sums).copy_(torch.tensor([[total, 3.], [total/4, 1.]]))
    return h

def test_tables_of_rows_by_hand():
    h = by_hand()
    steps = h.steps
    assert h.batch_log.block_size==h.grad_log.block_size==2 and len(h)==5
    for name,expected in dict(
            fit=[0, 0, 0, 1, 1], stage=['a', 'a', 'a', '', ''], phase=['up', 'up', 'down', '', ''], epoch=[0]*5,
            train_iter=[0, 1, 2, 0, 1], skipped=['', 'accumulation', '', '', 'interrupted'],
            loss=[10, 20, 30, 40, 50]).items(): assert steps[name].tolist()==expected, name
    assert steps.step.isna().tolist()==[False, True, False, False, True] and steps.step.dropna().tolist()==[0, 1, 0]
    assert steps.smooth_loss[[0, 1, 3]].tolist()==pytest.approx([10, (20*.02+10*.02*.98)/(1-.98**2), 40])
    assert steps.lr_1.tolist()==pytest.approx([0, .2, .4, .6, .8])
    nan = float('nan')
    for name,expected in dict(mean_abs_0=[2, nan, 4, 1, nan], mean_abs_1=[1, nan, 2, .5, nan],
                              norm_0=[3, nan, 3, 3, nan], n_params_1=[2, nan, 2, 2, nan]).items():
        assert steps[name].tolist()==pytest.approx(expected, nan_ok=True), name
    assert h.grads.columns.tolist()==['fit', 'step', 'train_iter', 'epoch', 'group', 'mean_abs', 'norm', 'n_params']
    assert h.grads.mean_abs.tolist()==[2, 1, 4, 2, 1, .5] and h.grads.fit.tolist()==[0]*4 + [1]*2
    assert h.mean_grads().tolist()==pytest.approx([10/6, 20/6, 5/6]), 'weighted by the parameters of each group'

def test_layers_are_added_up_to_their_group_where_that_is_possible():
    h,layout = by_hand(),(torch.device('cpu'), (2, 4), dict(
        units=[['a', 0], ['b', 0]], columns=['total', 'norm', 'inner', 'prev_norm']))
    h.grad_log = type(h.grad_log)()
    h.grad_log.add([0, 0, 0, 0], [1, 3], layout).copy_(torch.tensor([[1., 3., 1., 1.], [9., 4., 1., 1.]]))
    steps = h.steps
    assert (steps.mean_abs_0[0], steps.norm_0[0], steps.n_params_0[0])==(2.5, 5, 4)
    assert steps.mean_abs_0.notna().sum()==1
    assert 'cosine_0' not in steps and h.grads.layer.tolist()==['a', 'b'] and h.grads.cosine.notna().all()

def test_what_a_notebook_shows_of_rows_by_hand():
    text,html = repr(by_hand()),by_hand()._repr_html_()
    assert text.startswith('RunHistory of 2 fits, 2 epochs, 5 batches, 4 steps') and 'fit 1' in text and 'fit 1' in html
    assert 'first_fit' not in text and 'n_batches' not in html and 'smooth_loss' in html

def test_stages_of_rows_by_hand():
    h = by_hand()
    assert (h.stages.index.tolist(), h.stages.n_epoch.tolist(), h.stages.n_batches.tolist())==([0, 1], [2, 0], [3, 2])
    assert h.stages.mse.tolist()==pytest.approx([.5, float('nan')], nan_ok=True)
    h.epoch_rows = []
    assert h.stages.columns.tolist()==['stage', 'first_fit', 'last_fit', 'n_epoch', 'n_batches', 'n_steps', 'seconds',
                                       'outcome', 'smooth_loss'] and h.stages.index.tolist()==[0, 1]

def test_the_tail_of_a_history_is_the_end_of_its_rows():
    h = by_hand()
    tail = h.tail(3, 2)
    assert tail.steps.loss.tolist()==[40, 50] and tail.steps.mean_abs_0.tolist()[0]==1 and len(tail.grad_log)==2
    assert (tail.fit_rows, tail.epoch_rows)==(h.fit_rows, h.epoch_rows) and tail.fit_rows[0] is not h.fit_rows[0]

BAD = {
    'tail': (lambda: RunHistory().tail(-1), 'n_batches must be a whole number of rows'),
    'tail of gradients': (lambda: RunHistory().tail(0, -1), 'n_grads must be a whole number of rows'),
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
