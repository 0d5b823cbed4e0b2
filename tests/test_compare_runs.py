"Single runs: their weights, batches, steps, results and files"
import json
from functools import partial
import numpy as np, pandas as pd, pytest, torch
from fastai.callback.core import (
    Callback, CancelBatchException, CancelFitException, CancelStepException, CancelTrainException)
from fastai.callback.fp16 import MixedPrecision
from fastai.callback.training import GradientAccumulation
from fastai.callback.tracker import TerminateOnNaNCallback
from fastai.data.core import DataLoaders
from fastai.learner import Learner, Recorder
from fastai.losses import MSELossFlat
from fastai.metrics import AvgMetric
from fastai.optimizer import SGD
from fastai.test_utils import synth_dbunch
from torch.utils.data import TensorDataset
from compare_helpers import *
from fastai_clr_ext.compare import *
from fastai_clr_ext.compare.runs import Run, _train_task, epoch_scores, run_counts
from fastai_clr_ext.core.files import write_json
from fastai_clr_ext.record import GradRecorder, HistoryRecorder, RunHistory
from fastai_clr_ext.record.recorder import epoch_metrics
from fastai_clr_ext.schedule import constant, one_cycle
from fastai_clr_ext.train import DivergenceGuard, Stage, stages_long

def test_a_run_is_what_training_by_hand_gives():
    "By plain means: seeds are set before the learner is made, before it trains, and before each epoch"
    from fastai.torch_core import set_seed
    c = compare(make_line, {**POLICIES, 'mine': lambda learn: learn.fit(2, .05)}, seeds=[3], n_epoch=2,
                lr_max={'constant': .05, '1cycle': .05}, with_bar=False)
    set_seed(3, reproducible=True)
    learn = make_line(3)
    class Order(Callback):
        def before_train(self): self.dls.train.rng.seed(int(digest(dict(seed=3, epoch=self.epoch))[:8], 16))
    set_seed(3, reproducible=True)
    with learn.no_bar(), learn.no_logging(): learn.fit(2, .05, cbs=Order())
    assert c.df.set_index('policy').valid_loss['mine']==learn.recorder.values[-1][1]

@pytest.mark.parametrize('cb', [None, HistoryRecorder, partial(GradRecorder, 'max')], ids=['none', 'history', 'grads'])
@pytest.mark.parametrize('grads', [True, False])
def test_gradients_are_recorded_whatever_recorder_the_learner_has(cb, grads, tmp_path):
    make = lambda seed: make_line(seed, cbs=cb and cb())
    c = compare(make, POLICIES, seeds=[1], out=tmp_path/'out', grads=grads, **quick)
    h = RunHistory.load(next((tmp_path/'out'/'runs').glob('*.npz')))
    assert (c.df.end!='error').all() and bool(len(h.grad_log))==(grads or isinstance(cb, partial))
    assert not isinstance(cb, partial) or 'max_abs' in h.grads

def test_a_worker_that_cannot_write_sends_its_result(tmp_path, monkeypatch):
    "The result comes to the folder all the same, and is not trained again; only the history is missing"
    def no_disk(*args): raise PermissionError(13, 'read-only', 'runs')
    with monkeypatch.context() as m:
        m.setattr('fastai_clr_ext.compare.runs._save_run', no_disk)
        first = compare(make_line, POLICIES, seeds=[1], out=tmp_path/'out', **quick)
    assert not list((tmp_path/'out'/'runs').glob('*.npz')) and len(list((tmp_path/'out'/'runs').glob('*.json')))==2
    again = compare(make_line, POLICIES, seeds=[1], out=tmp_path/'out', **quick)
    assert again.df.seconds.tolist()==first.df.seconds.tolist()

def test_what_a_dead_worker_had_written_is_not_trained_again(tmp_path):
    "The task of a worker that died before its result was fetched is given to another one"
    begun = []
    def counted(seed):
        begun.append(seed)
        return make_line(seed)
    run = Run('a', 3, constant(moms=.9), .05, 1, tmp_path)
    path,result = _train_task(counted, run)
    assert _train_task(counted, run)==(path, result) and begun==[3]
    write_json(path, result | dict(end='error', why='RuntimeError: no memory'))
    assert _train_task(counted, run)[1]['end']=='well' and begun==[3, 3], 'an error is no result'

def test_every_policy_sees_the_same_weights_and_batches(tmp_path):
    def look(learn, name):
        seen = [p.detach().clone() for p in learn.model.parameters()]
        learn.fit(1, 0.) # nothing moves
        torch.save([o.tolist() for o in seen] + [float(o) for o in learn.recorder.losses], tmp_path/name)
    def wasteful(learn, name):
        torch.rand(1000); np.random.rand(7)
        look(learn, name)
    shared = synth_dbunch(n_train=10) # one set of loaders for all learners
    maker = lambda seed: Learner(shared, torch.nn.Linear(1, 1), loss_func=MSELossFlat(), lr=.01)
    compare(maker, {'a': lambda learn: look(learn, 'a'), 'b': lambda learn: wasteful(learn, 'b')},
            n_epoch=1, seeds=[5], with_bar=False)
    a,b = [torch.load(tmp_path/k) for k in 'ab']
    assert a==b and len(a)==2+10

def test_the_same_numbers_twice_and_with_any_number_of_workers(tmp_path):
    torch.manual_seed(7)
    before = torch.get_rng_state(), torch.get_num_threads()
    a = compare(make_line, POLICIES, seeds=3, **quick)
    assert (torch.equal(before[0], torch.get_rng_state())
            and before[1]==torch.get_num_threads()), 'what was there before is there after'
    same(a, compare(make_line, POLICIES, seeds=3, **quick))
    same(a, compare(make_line, POLICIES, seeds=3, n_workers=2, **quick))
    back = compare(make_line, POLICIES, seeds=[2, 1, 0], **quick)
    key = ['seed', 'policy']
    pd.testing.assert_frame_equal(numbers(a).sort_values(key, ignore_index=True),
                                  numbers(back).sort_values(key, ignore_index=True))

def test_steps_are_counted_for_real():
    "Two batches make one step; a step that was cancelled is none"
    accumulate = lambda learn: learn.fit(2, .05, cbs=GradientAccumulation(32))
    with pytest.raises(ValueError, match=r"take 20 optimizer steps, as 'constant' did; got 10"):
        compare(make_line, {'constant': constant(), 'half': accumulate}, seeds=1, n_epoch=2, with_bar=False)
    c = compare(make_line, {'half': accumulate, 'also': lambda learn: learn.fit(2, .02, cbs=GradientAccumulation(32))},
                seeds=1, n_epoch=2, with_bar=False)
    assert c.df.n_steps.tolist()==[10, 10]

class CountedByHand(Callback):
    "Counts batches and steps as they happen, and keeps the last loss and each epoch's metrics: a second implementation"
    order,run_valid = Recorder.order+5,False # after `Recorder` closed the epoch, and mixed precision cancelled a step
    def __init__(self): self.n_batches,self.n_tried,self.n_steps,self.epochs,self.open,self.last = 0,0,0,[],False,None
    def after_loss(self): self.last = self.learn.loss.detach().mean().item()
    def before_step(self): self.open = True
    def after_cancel_step(self): self.open = False
    def after_step(self): self.n_tried,self.n_steps,self.open = self.n_tried+1,self.n_steps+self.open,False
    def after_batch(self): self.n_batches += 1
    def after_epoch(self): self.epochs.append(epoch_metrics(self.learn.recorder))
    def counts(self): return dict(n_steps=self.n_steps, n_tried=self.n_tried, n_batches=self.n_batches)

class RaiseAt(Callback):
    "Raises at an event of two batches of each epoch"
    def __init__(self, event, what, order=0): self.event,self.what,self.order = event,what,order
    def __call__(self, name):
        if name==self.event and self.learn.training and self.learn.iter in (3, 4): raise self.what

class Overflow(MixedPrecision):
    "Two gradients of each epoch overflow, as in `MixedPrecision`, which needs a GPU for it"
    def before_fit(self): pass
    after_pred = after_loss = before_backward = after_step = after_fit = after_batch = before_batch = before_fit
    def before_step(self):
        if self.learn.iter in (3, 4): raise CancelStepException

def fit(*cbs, lr=.05, n=2): return lambda learn: learn.fit(n, lr, cbs=[cb() for cb in cbs])

def guarded(learn):
    guard = DivergenceGuard(on='rewind', skip=2, patience=2, every=2)
    with pytest.warns(UserWarning, match='diverged'): learn.fit_one_cycle_ext(2, 3., sched=constant(), cbs=guard)

def searching(learn):
    with learn.no_bar(): learn.lr_find(num_it=15, show_plot=False)
    learn.fit(1, .05)

#: Ways to train, by name
TRAINED = {
    'plain': fit(), 'two fits': lambda learn: (learn.fit(1, .05), learn.fit_one_cycle_ext(1, .05)),
    'accumulation': fit(partial(GradientAccumulation, 32)),
    'accumulation of all': fit(partial(GradientAccumulation, 10_000)), 'overflow': fit(Overflow),
    'overflow and accumulation': fit(Overflow, partial(GradientAccumulation, 32)),
    'batches cancelled': fit(partial(RaiseAt, 'before_batch', CancelBatchException)),
    'batches cancelled late': fit(partial(RaiseAt, 'before_batch', CancelBatchException, 60)),
    'steps cancelled': fit(partial(RaiseAt, 'before_step', CancelStepException)),
    'steps cancelled late': fit(partial(RaiseAt, 'before_step', CancelStepException, 60)),
    'epochs cut': fit(partial(RaiseAt, 'before_batch', CancelTrainException)),
    'fit cut': fit(partial(RaiseAt, 'after_batch', CancelFitException)),
    'stages': lambda learn: learn.fit_stages(stages_long(budget=2, base_lr=.05, head_epochs=.5)),
    'rewound': guarded, 'stopped': fit(TerminateOnNaNCallback, lr=1e12), 'search': searching,
    'nothing': lambda learn: None}

@pytest.mark.parametrize('name', TRAINED)
def test_the_ledger_counts_what_happens(name):
    learn = make_two(0).add_cb(HistoryRecorder())
    learn.add_cb(watch := CountedByHand())
    with learn.no_bar(), learn.no_logging(): TRAINED[name](learn)
    history = getattr(learn.recorder, 'run_history', RunHistory())
    finder = getattr(learn.recorder, 'lr_find_history', RunHistory())
    missed = name in ('fit cut', 'stopped') # `after_batch` of the batch that ends a fit is not called by everyone
    assert run_counts(history, finder)==watch.counts() | dict(n_batches=watch.n_batches+missed)
    last = last_losses(history, 20)[-1:]
    if watch.last is None: assert not len(last)
    else: assert last[0]==pytest.approx(watch.last, nan_ok=True, rel=1e-6)
    scores = epoch_scores(history)
    assert scores==watch.epochs[len(watch.epochs)-len(scores):]
    assert len(watch.epochs)-len(scores)==(name=='search'), 'a search for a rate has no scores'

def test_a_batch_that_is_cancelled_after_its_loss_was_tried():
    "It has cost a step, like one that mixed precision on the user's own terms cancels; before its loss it has not"
    learn = make_line(0).add_cb(HistoryRecorder())
    with learn.no_bar(), learn.no_logging(): fit(partial(RaiseAt, 'after_backward', CancelBatchException), n=1)(learn)
    assert run_counts(learn.recorder.history)==dict(n_steps=8, n_tried=10, n_batches=10)

@pytest.mark.parametrize('order', [MixedPrecision.order, CountedByHand.order+1], ids=['before it is seen', 'after'])
def test_a_cancelled_step_is_tried_but_not_done(order):
    class Skip(Callback):
        def before_step(self):
            if self.train_iter in (3, 4): raise CancelStepException
    learn = make_line(0).add_cb(HistoryRecorder())
    (skip := Skip()).order = order
    with learn.no_bar(), learn.no_logging(): learn.fit(1, cbs=skip)
    assert run_counts(learn.recorder.history)==dict(n_steps=8, n_tried=10, n_batches=10)

@pytest.mark.parametrize('policy', [lambda learn: learn.fit(1, .05), lambda learn: learn.fit(3, .05),
                                    lambda learn: None], ids=['short', 'long', 'nothing'])
def test_unequal_budgets_are_refused(policy):
    with pytest.raises(ValueError, match=r"policies\['mine'\] must train n_epoch epochs, which have 20 batches"):
        compare(make_line, {'constant': constant(), 'mine': policy}, seeds=3, n_epoch=2, with_bar=False)

def test_lost_runs_are_results():
    def fails(learn): raise RuntimeError('no memory')
    policies = {'constant': constant(), 'wild': lambda learn: learn.fit(2, 1e12), 'fails': fails}
    c = compare(make_line, policies, seeds=2, n_epoch=2, lr_max={'constant': .05}, with_bar=False)
    df = c.df.set_index('policy')
    assert (df.end.to_dict()=={'constant': 'well', 'wild': 'failed', 'fails': 'error'}
            and df.why['fails'].tolist()==['RuntimeError: no memory']*2)
    s = c.summary()
    assert s.n_failed.tolist()==[0, 2, 0] and s.n_errors.tolist()==[0, 0, 2]
    assert s.verdict.tolist()==['baseline', 'cannot tell', 'no result']
    assert c.outcomes[['wild', 'fails']].isna().all(axis=None)

@pytest.mark.parametrize('lr', [10., 100.])
def test_what_becomes_too_large_has_diverged_and_can_be_reported(lr, tmp_path):
    "A loss of 1e21 is finite"
    policies = {'constant': constant(moms=.9), 'wild': lambda learn: learn.fit(2, lr)}
    c = compare(make_line, policies, seeds=1, n_epoch=2, lr_max={'constant': .05}, out=tmp_path, fail_if=never,
                with_bar=False)
    assert c.df.end.tolist()==['well', 'failed'] and c.outcomes.wild.isna().all()
    assert '1 of 1' in report_markdown(c) and read_record(tmp_path).record==c.record

def test_a_run_that_was_stopped_because_it_diverged():
    from fastai.callback.tracker import TerminateOnNaNCallback
    wild = lambda learn: learn.fit(2, 1e12, cbs=TerminateOnNaNCallback())
    c = compare(make_line, {'constant': constant(), 'wild': wild}, seeds=1, n_epoch=2,
                lr_max={'constant': .05}, with_bar=False)
    assert c.df.end.tolist()==['well', 'failed'] and c.df.n_steps[1]<20

def test_what_is_held_out_is_not_trained_on():
    learn = make_line(0)
    valid = {tuple(map(float, o)) for o in learn.dls.valid_ds}
    hold_out(learn, .25)
    parts = [{tuple(map(float, o)) for o in ds} for ds in (learn.dls.train_ds, learn.dls.valid_ds)]
    assert list(map(len, parts))==[120, 40] and not parts[0] & parts[1] and not (parts[0] | parts[1]) & valid

def test_callbacks_that_go_from_run_to_run():
    with pytest.raises(ValueError, match=r"make_learner must make new callbacks each time: .*; got \['Rescale'\]"):
        compare(partial(make_line, cbs=Rescale(1.)), POLICIES, seeds=1, **quick)

def test_a_pretrained_start_is_allowed_when_it_is_said():
    fixed = lambda seed: (torch.manual_seed(0), make_line(0))[1]
    assert len(compare(fixed, POLICIES, seeds=2, same_start=True, **quick).df)==4

def test_plain_loaders_of_torch():
    def make(seed):
        loaders = [torch.utils.data.DataLoader(ds, 16, shuffle=ds is not old.valid_ds) for old in [synth_dbunch()]
                   for ds in (old.train_ds, old.valid_ds)]
        return Learner(DataLoaders(*loaders), torch.nn.Linear(1, 1), loss_func=MSELossFlat(), opt_func=SGD, lr=.01)
    policies = {'a': constant(moms=None), 'b': one_cycle(moms=None)}
    a,b = [compare(make, policies, n_epoch=1, seeds=2, with_bar=False) for _ in range(2)]
    same(a, b)
    assert (a.df.end!='error').all() and a.record['situation']['device']=='cpu'

class Grow(Callback):
    "Scales the gradient more with every batch it has ever seen"
    n = 0
    def before_step(self):
        self.n += 1
        for p in self.model.parameters(): p.grad *= 1+self.n/10

def test_callbacks_of_stages_are_fresh_in_every_run(tmp_path):
    policies = {'a': [Stage('all', 2, .01, cbs=[Grow()])], 'b': constant()}
    kwargs = dict(n_epoch=2, lr_max={'b': .01}, with_bar=False)
    many = compare(make_line, policies, seeds=2, out=tmp_path, **kwargs)
    pd.testing.assert_frame_equal(numbers(many)[2:].reset_index(drop=True),
                                  numbers(compare(make_line, policies, seeds=[1], **kwargs)))

def test_what_callbacks_save_is_their_run_s(tmp_path, monkeypatch):
    from fastai.callback.tracker import SaveModelCallback
    (tmp_path/'here').mkdir()
    monkeypatch.chdir(tmp_path/'here')
    make = lambda seed: make_with(seed, SaveModelCallback)
    a,b = [compare(make, POLICIES, seeds=2, n_workers=n, out=tmp_path/f'{n}', **quick) for n in (None, 2)]
    same(a, b)
    assert (a.df.end!='error').all() and not list((tmp_path/'here').iterdir())

@pytest.mark.parametrize('value', [torch.ones(3), 'high', np.ones(3)], ids=str)
def test_a_metric_that_is_no_number(value):
    metric = AvgMetric(named('odd'))
    metric = type('Odd', (AvgMetric,), dict(value=property(lambda self: value)))(named('odd'))
    good = AvgMetric(named('mae'))
    with pytest.warns(UserWarning, match='leaves out odd'):
        c = compare(lambda seed: make_line(seed, metrics=[good, metric]), POLICIES, seeds=1, **quick)
    assert (c.df.end!='error').all() and 'odd' not in c.df and c.record['metric']=='mae'
    says = "metric must be one number in each epoch, which 'odd' is not"
    with pytest.warns(UserWarning), pytest.raises(ValueError, match=says):
        compare(lambda seed: make_line(seed, metrics=[metric, good]), POLICIES, seeds=1, higher=True, **quick)

def test_data_of_which_no_part_can_be_held_out(tmp_path):
    from fastai.tabular.all import TabularDataLoaders, tabular_learner
    df = pd.DataFrame(dict(x=np.arange(64.), y=np.arange(64.)))
    dls = TabularDataLoaders.from_df(df, cont_names=['x'], y_names='y', bs=8, valid_idx=list(range(16)))
    make = lambda seed: tabular_learner(dls, layers=[4], lr=.01)
    assert not compare(make, POLICIES, n_epoch=1, seeds=1, with_bar=False).df.end.eq('error').any()
    with pytest.raises(ValueError, match="tune must be None: no part of the training set can be held out; got A"):
        compare(make, POLICIES, n_epoch=1, seeds=1, tune=[.1, .2], out=tmp_path/'out', with_bar=False)
    assert not (tmp_path/'out').exists()

@pytest.mark.parametrize('text', ['{"policy": "con', '[]', '{}', 'null', '{"policy": "constant", "seed": 0}'])
def test_a_broken_run_file_is_named(text, tmp_path):
    compare(make_line, POLICIES, seeds=1, out=tmp_path, **quick)
    path = next((tmp_path/'runs').glob('constant-0-*.json'))
    path.write_text(text)
    with pytest.raises(ValueError, match=path.name): compare(make_line, POLICIES, seeds=1, out=tmp_path, **quick)
    (tmp_path/'comparison.json').write_text(text[:5])
    with pytest.raises(ValueError, match='comparison.json'):
        compare(make_line, POLICIES, seeds=1, out=tmp_path, **quick)

def test_lists_of_stages_are_policies_and_every_run_leaves_its_history(tmp_path):
    policies = {'one': one_cycle(), 'B': stages_long(budget=2, base_lr=.05, head_epochs=.5),
                'by hand': lambda learn: learn.fit_one_cycle_ext(2, .05)}
    c = compare(make_two, policies, seeds=2, n_epoch=2, lr_max={'one': .05}, out=tmp_path/'c', with_bar=False)
    assert (c.df.n_steps==20).all() and (c.df.end!='error').all()
    for row in c.df.itertuples():
        h = RunHistory.load(*(tmp_path/'c'/'runs').glob(f'{row.policy.replace(" ", "_")}-{row.seed}-*.npz'))
        assert len(h)==20 and h.epochs.valid_loss.iloc[-1]==row.valid_loss and len(h.grads)
        if row.policy=='B': assert h.stages.stage.tolist()==['head', 'all'] and h.stages.n_steps.tolist()==[5, 15]

def test_a_history_without_gradients(tmp_path):
    compare(make_line, POLICIES, seeds=1, grads=False, out=tmp_path/'c', **quick)
    h = RunHistory.load(next((tmp_path/'c'/'runs').glob('*.npz')))
    assert len(h)==20 and not len(h.grad_log)

def test_a_guarded_run_counts_as_diverged(tmp_path):
    def guarded(seed):
        learn = make_line(seed)
        return learn.add_cb(DivergenceGuard(skip=2, patience=2, every=2))
    with pytest.warns(UserWarning, match='diverged'):
        c = compare(guarded, {'good': one_cycle(), 'too high': constant()}, n_epoch=2, seeds=1,
                    lr_max={'good': .05, 'too high': 3.}, with_bar=False)
    assert c.df.set_index('policy').end.to_dict()=={'good': 'well', 'too high': 'failed'}
    assert c.df.why[1].startswith('a guard stopped it: ')

def test_a_run_that_was_rewound_is_judged_by_its_end():
    make = lambda seed: make_with(seed, partial(DivergenceGuard, on='rewind', skip=2, patience=2, every=2,
                                               lower=.1))
    with pytest.warns(UserWarning, match='diverged'):
        c = compare(make, {'good': one_cycle(), 'too high': constant()}, n_epoch=2, seeds=1,
                    lr_max={'good': .05, 'too high': 3.}, with_bar=False)
    assert (c.df.end=='well').all() and (c.df.valid_loss<2).all()

def make_default_loaders(seed):
    "Loaders as fastai makes them, with processes of their own"
    torch.manual_seed(0)
    x = torch.randn(64, 1)
    dls = DataLoaders.from_dsets(TensorDataset(x, 2*x+1), TensorDataset(x, 2*x+1), bs=16, num_workers=2)
    torch.manual_seed(seed)
    return Learner(dls, torch.nn.Linear(1, 1), loss_func=MSELossFlat(), opt_func=partial(SGD, mom=.9), lr=.01)

def test_fastais_own_loaders_with_workers():
    a,b = [compare(make_default_loaders, POLICIES, seeds=1, n_workers=n, **quick) for n in (1, 2)]
    assert (a.df.end!='error').all() and (a.df.n_steps==8).all()
    same(a, b)

def test_what_failed_is_tried_again(tmp_path):
    def once(learn):
        if not (tmp_path/'there').exists(): raise OSError('disk full')
        learn.fit_one_cycle_ext(2, .05)
    args = dict(n_epoch=2, seeds=1, lr_max={'good': .05}, out=tmp_path/'c', with_bar=False)
    before = compare(make_line, {'good': one_cycle(), 'once': once}, **args)
    (tmp_path/'there').touch()
    after = compare(make_line, {'good': one_cycle(), 'once': once}, **args)
    assert before.df.end.tolist()==['well', 'error'] and after.df.end.tolist()==['well', 'well']
    assert before.df.seconds[0]==after.df.seconds[0], 'what ended well is not trained again'

@pytest.mark.parametrize('loaders', [0, 1], ids=['no', 'an empty'])
def test_no_batches_to_validate_on(loaders):
    def make(seed):
        learn = make_line(seed)
        empty = learn.dls.valid.new(TensorDataset(torch.zeros(0, 1), torch.zeros(0, 1)))
        learn.dls = DataLoaders(learn.dls.train, *[empty]*loaders)
        return learn
    with pytest.raises(ValueError, match='make_learner must give batches to train on and batches to validate on; got'):
        compare(make, POLICIES, seeds=1, **quick)

def test_a_third_loader_may_be_empty():
    def make(seed):
        learn = make_line(seed)
        loaders = learn.dls.loaders
        learn.dls = DataLoaders(*loaders, loaders[1].new(TensorDataset(torch.zeros(0, 1), torch.zeros(0, 1))))
        return learn
    assert not compare(make, POLICIES, seeds=1, **quick).df.end.eq('error').any()

# ---- files of runs

def swap(folder, a, b):
    "The results of two runs change places"
    paths = [next((folder/'runs').glob(f'{name}-*.json')) for name in (a, b)]
    texts = [path.read_text() for path in paths]
    for path,text in zip(paths, reversed(texts)): path.write_text(text)

def edited(folder, **changes):
    path = next((folder/'runs').glob('constant-0-*.json'))
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))

def of_other_code(folder):
    "A run of the same name, seed and rate, in a comparison of other momentum"
    compare(make_line, POLICIES | {'constant': constant(moms=.5)}, seeds=2, out=folder/'other', **quick)
    path = next((folder/'runs').glob('constant-0-*.json'))
    path.write_bytes((folder/'other'/'runs'/path.name).read_bytes())

REPLACED = { # what is done to the folder; what the error says
    'by another policy': (lambda d: swap(d, 'constant-0', '1cycle-0'), 'policy of .*.json must be .* got'),
    'by another seed': (lambda d: swap(d, 'constant-0', 'constant-1'), 'seed of .*constant-0.*.json must be 0.* got 1'),
    'by other code': (of_other_code, 'comparison of .*constant-0.*.json must be'),
    'no comparison': (lambda d: edited(d, comparison=''), 'comparison of .*constant-0'),
    'another rate': (lambda d: edited(d, lr_max=.5), r'lr_max of .*constant-0.*.json must be 0\.05.*; got 0\.5'),
    'a rate as text': (lambda d: edited(d, lr_max='0.05'), "lr_max of .*constant-0.*got '0.05'"),
    'a rate that is a flag': (lambda d: edited(d, lr_max=True), 'lr_max of .*constant-0.*got True'),
    'another budget': (lambda d: edited(d, n_batches=40), 'n_batches of .*constant-0.*.json must be 20: remove'),
    'more steps than batches': (lambda d: edited(d, n_steps=50), r'n_steps, n_tried and n_batches of .*constant-0.*'),
    'a seed as text': (lambda d: edited(d, seed='0'), "seed of .*constant-0.*.json must be a whole number; got '0'"),
    'a seed that is a flag': (lambda d: edited(d, seed=False), 'seed of .*constant-0.*.json must be a whole number'),
    'other scores': (lambda d: edited(d, scores=dict(valid_loss=0.)), 'scores of .*constant-0.*last epoch'),
    'scores as text': (lambda d: edited(d, scores=dict(valid_loss='low')), 'scores.valid_loss of .*must be a number'),
    'too large': (lambda d: edited(d, more='x'*20_000_001), 'constant-0.*.json must have at most 20,000,000 bytes')}

@pytest.mark.parametrize('kind', REPLACED)
def test_a_run_file_that_was_replaced_is_refused_by_name(kind, tmp_path):
    change,says = REPLACED[kind]
    first = compare(make_line, POLICIES, seeds=2, out=tmp_path/'c', **quick)
    change(tmp_path/'c')
    with pytest.raises(ValueError, match=says): compare(make_line, POLICIES, seeds=2, out=tmp_path/'c', **quick)
    for path in (tmp_path/'c'/'runs').glob('*.json'): path.unlink() # as the error says
    same(first, compare(make_line, POLICIES, seeds=2, out=tmp_path/'c', **quick))
