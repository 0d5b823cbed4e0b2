"The guard: what is lost is found, what is not is left alone, and nothing waits for the device"
import copy, math, warnings
from dataclasses import fields
from functools import partial
import numpy as np, pytest, torch
from numpy.testing import assert_allclose
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import TensorDataset
from fastai.callback.core import Callback, CancelFitException
from fastai.callback.fp16 import MixedPrecision
from fastai.callback.progress import ProgressCallback
from fastai.callback.schedule import *
from fastai.callback.tracker import ReduceLROnPlateau
from fastai.callback.training import GradientAccumulation, GradientClip
from fastai.data.core import DataLoaders, TfmdDL
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat
from fastai.optimizer import Adam, OptimWrapper, SGD
from fastai.torch_core import set_seed
from fastai_clr_ext.schedule import *
from fastai_clr_ext.record import *
from fastai_clr_ext.train import *
from conftest import CpuAmp, ValidateAt

class Damage(Callback):
    "Multiplies what the network gives, a gradient or a weight, at some iterations"
    order,run_valid = MixedPrecision.order-1,False
    def __init__(self, what, at, by=math.nan, param=0): self.what,self.at,self.by,self.param = what,at,by,param
    def hit(self, what): return self.what==what and self.learn.train_iter in self.at
    def after_loss(self):
        if self.hit('loss'): self.learn.loss,self.learn.loss_grad = self.learn.loss*self.by, self.learn.loss_grad*1.
    def before_step(self):
        if self.hit('grad'): list(self.learn.model.parameters())[self.param].grad.view(-1)[0] *= self.by
    def after_step(self):
        if self.hit('weight'): list(self.learn.model.parameters())[self.param].data.view(-1)[0] *= self.by

def fit(learn, n_epoch=1, lr=.01, **kwargs):
    "A fit that warns of a divergence"
    with pytest.warns(UserWarning, match='The training diverged'): learn.fit(n_epoch, lr, **kwargs)
    return learn.recorder.divergence

@pytest.fixture(scope='module')
def digits():
    x,y = load_digits(return_X_y=True)
    data = TensorDataset(torch.tensor(x/16, dtype=torch.float32), torch.tensor(y))
    def make(seed, opt_func=partial(SGD, mom=.9)):
        set_seed(seed)
        dl = TfmdDL(data, bs=64, shuffle=True, num_workers=0)
        learn = Learner(DataLoaders(dl, TfmdDL(TensorDataset(*data[:8]), bs=8, num_workers=0)),
                        nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)),
                        loss_func=CrossEntropyLossFlat(), opt_func=opt_func)
        learn.logger = lambda *_: None
        return learn.remove_cb(ProgressCallback)
    return make

# what it finds, and where

@pytest.mark.parametrize('opt_func,lr', [(Adam, 100.), (partial(OptimWrapper, opt=torch.optim.Adam), 100.),
                                         (partial(SGD, mom=.9), 30.)], ids=['Adam', 'torch Adam', 'SGD'])
def test_a_rate_that_diverges_is_stopped_soon(digits, opt_func, lr):
    learn = digits(0, opt_func)
    with pytest.warns(UserWarning, match='The training diverged'): learn.fit_one_cycle_ext(8, lr, cbs=DivergenceGuard())
    d = learn.recorder.divergence
    assert (d.action=='stopped' and d.found<100 and d.found-d.train_iter<10
            and len(learn.recorder.losses)==d.found+1==len(learn.recorder.lrs))
    assert (d.phase=='warm-up' and d.lr==(learn.recorder.lrs[d.train_iter],) and d.step==d.train_iter
            and d.epoch==d.train_iter//29)
    assert math.isfinite(d.eff_step)==(lr==100.)
    assert d.lr_try in (d.lr_best/4, d.lr_best/100) and d.lr_best in learn.recorder.lrs
    assert not [cb for cb in learn.cbs if isinstance(cb, DivergenceGuard)]

def test_no_false_alarm_at_a_high_rate_that_trains(digits):
    for seed in range(20):
        learn = digits(seed)
        learn.fit_one_cycle_ext(4, .5, cbs=DivergenceGuard()) # a warning would be an error
        assert learn.recorder.divergence is None and learn.recorder.losses[-1]<.5

@pytest.mark.parametrize('what,reason', [('loss', 'non-finite loss'), ('grad', 'non-finite gradient'),
                                         ('weight', 'non-finite weight')])
@pytest.mark.parametrize('every', [1, 3, 7, 50])
def test_the_batch_where_it_broke_is_named_however_seldom_it_looks(mlp, what, reason, every):
    d = fit(mlp(), 2, cbs=[DivergenceGuard(every=every), Damage(what, [7])])
    is_seen_by_its_loss = what=='weight' and every>1 # weights are looked at only where it looks
    assert (d.reason, d.train_iter)==(('non-finite loss', 8) if is_seen_by_its_loss else (reason, 7))
    assert d.found==min(math.ceil(8/every)*every, 10)-1

@pytest.mark.parametrize('param,name', [(0, '0.weight'), (1, '0.bias'), (3, '2.bias')])
@pytest.mark.parametrize('every', [1, 20])
def test_the_first_parameter_to_go(mlp, param, name, every):
    d = fit(mlp(), 2, cbs=[DivergenceGuard(every=every), Damage('grad', [4], math.inf, param)])
    assert ((d.param, d.reason, d.train_iter)==(name, 'non-finite gradient', 4)
            and f'parameter to go was {name}' in str(d))

def test_of_several_at_once_the_one_nearest_the_output(mlp):
    assert fit(mlp(), 2, cbs=[DivergenceGuard(), Damage('grad', [4], math.inf, 0), Damage('grad', [4], math.inf, 2),
                              Damage('grad', [5], math.inf, 3)]).param=='2.weight'

def test_the_gradient_is_the_one_that_the_optimizer_gets(mlp):
    norms = []
    class Norm(Callback):
        order,run_valid = 1000,False
        def before_step(self):
            norms.append(torch.cat([p.grad.flatten() for p in self.learn.model.parameters()]).norm().item())
    d = fit(mlp(), 2, cbs=[DivergenceGuard(), Norm(), GradientClip(.01), Damage('loss', [9])])
    assert math.isnan(d.loss) and d.grad_norm==pytest.approx(norms[9]) and d.grad_norm<=.0101

@pytest.mark.parametrize('epoch,what', [(1.5, 'rising'), (1.5, 'falling')])
def test_the_phase_in_a_fit_that_ends_within_an_epoch(mlp, epoch, what):
    from fastai_clr_ext.train import Stage
    learn,c = mlp(),Cycle([Phase('rising', 12/14, lr=(.1, 1)), Phase('falling', 2/14, lr=(1, .1))])
    at = {'rising': 11, 'falling': 14}[what]
    with pytest.warns(UserWarning, match=f'batch {at}, epoch 1'):
        learn.fit_stages([Stage('part', 1.5, .01, sched=c)], cbs=[DivergenceGuard(), Damage('loss', [at])])
    assert (learn.recorder.divergence.phase, learn.recorder.divergence.stage)==(what, 'part')

def test_a_step_that_replaces_the_weights(mlp):
    learn,jump = mlp(opt_func=Adam),Cycle([Phase('low', .5, lr=1e-6), Phase('high', .5, lr=1)])
    with pytest.warns(UserWarning, match='effective step'):
        learn.fit_one_cycle_ext(4, 100., sched=jump, cbs=DivergenceGuard(factor=1e30, skip=5, every=1))
    d = learn.recorder.divergence
    assert (d.reason, d.phase, d.found)==('effective step', 'high', 20) and d.eff_step>1
    for lr,found in ((100., True), (1., False)): # the first step at a rate of 1 is 3 times as large as the weights
        learn = mlp(opt_func=Adam)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter('always')
            learn.fit_one_cycle_ext(4, lr, sched=jump, cbs=DivergenceGuard(factor=1e30, skip=30, every=1))
        assert (learn.recorder.divergence is not None)==found==bool(caught), 'the first batches are judged mildly'

@pytest.mark.parametrize('opt_func', [Adam, partial(OptimWrapper, opt=torch.optim.Adam)], ids=['fastai', 'torch'])
def test_steps_from_weights_of_0_are_no_divergence(mlp, opt_func):
    learn = mlp(model=nn.Sequential(nn.Linear(1, 1)), splitter=lambda m: [list(m.parameters())], opt_func=opt_func)
    for p in learn.model.parameters(): nn.init.zeros_(p)
    learn.fit(3, .01, cbs=DivergenceGuard(every=1))
    assert learn.recorder.divergence is None

# what is no divergence

def test_an_overflow_that_the_scaler_handles_is_none(mlp):
    learn = mlp()
    learn.fit(2, .01, cbs=[DivergenceGuard(every=3), CpuAmp(), Damage('grad', [4, 5, 11], math.inf)])
    assert learn.recorder.divergence is None
    learn.fit(2, .01, cbs=[DivergenceGuard(every=3), CpuAmp(), Damage('loss', [4, 5, 11])])
    assert learn.recorder.divergence is None, 'a few losses that are not finite are skipped too'
    d = fit(learn, 2, cbs=[DivergenceGuard(every=3, patience=4), CpuAmp(), Damage('loss', range(5, 20))])
    assert (d.reason, d.train_iter)==('non-finite loss', 8), 'four in a row are not'

def test_accumulation(mlp):
    learn = mlp()
    learn.fit(2, .01, cbs=[DivergenceGuard(every=3), GradientAccumulation(32)])
    assert learn.recorder.divergence is None
    d = fit(learn, 2, cbs=[DivergenceGuard(every=3), GradientAccumulation(32), Damage('loss', [7])])
    assert (d.train_iter, d.step)==(7, 3) and not math.isnan(d.grad_norm)
    assert math.isnan(fit(learn, 2, cbs=[
        DivergenceGuard(every=3), GradientAccumulation(32), Damage('loss', [6])]).grad_norm), 'batch 6 does not step'

def test_validation_predictions_and_lr_find_are_left_alone(mlp):
    guard = DivergenceGuard()
    learn = mlp(cbs=guard)
    d = fit(learn, 1, cbs=Damage('loss', [4]))
    learn.validate(); learn.get_preds()
    assert learn.recorder.divergence is d and not guard.watching
    learn.lr_find(show_plot=False, end_lr=1e6)
    assert learn.recorder.divergence is d
    learn.fit(1, .01)
    assert learn.recorder.divergence is None and guard.now is None
    assert mlp().recorder.divergence is None

# what it does

class Rates(Callback):
    order,run_valid = 1000,False
    def __init__(self): self.lrs,self.weights = [],[]
    def before_step(self): self.lrs.append([h['lr'] for h in self.learn.opt.hypers])
    def after_batch(self): self.weights.append([p.detach().clone() for p in self.learn.model.parameters()])

def test_recorded_and_on(mlp):
    learn,rates = mlp(),Rates()
    d = fit(learn, 2, cbs=[DivergenceGuard(on='record'), rates, Damage('loss', [4, 15])])
    assert ((d.action, d.train_iter)==('recorded', 4) and len(rates.lrs)==20
            and len(learn.recorder.divergences)==1), 'the first is kept, and no other looked for'

@pytest.mark.parametrize('scheduled', [True, False])
def test_rewound_to_the_weights_that_were_saved(mlp, scheduled):
    learn,rates,saved = mlp(),Rates(),[]
    first = copy.deepcopy(list(learn.model.parameters()))
    class Watched(DivergenceGuard):
        def _rewind(self):
            saved.append(copy.deepcopy(self.now.kept))
            super()._rewind()
    cbs = [Watched(on='rewind', every=2, keep_every=4, lower=.5), rates, Damage('grad', [9])]
    with pytest.warns(UserWarning, match='rewound'):
        if scheduled: learn.fit_one_cycle_ext(3, .01, cbs=cbs)
        else: learn.fit(3, .01, cbs=cbs)
    d = learn.recorder.divergence
    assert (d.train_iter, d.found, d.action)==(9, 9, 'rewound') and len(rates.lrs)==30, 'the fit went on'
    assert all(torch.isfinite(p).all() for p in saved[0].values())
    same = [all(map(torch.equal, saved[0].values(), ws)) for ws in rates.weights]
    assert (not any(same[8:9]) and same[9]
            and (any(same[:8]) or all(map(torch.equal, saved[0].values(), first)))), (
        'those of an earlier batch, or of the start')
    assert all(torch.isfinite(p).all() for p in learn.model.parameters())
    plan = one_cycle().table(30, .01)['lr'] if scheduled else np.full(30, .01)
    assert np.array(rates.lrs)[:,0]==pytest.approx(plan*np.where(np.arange(30)<10, 1, .5))

def test_a_copy_made_by_the_step_that_went_wrong_is_not_good(mlp):
    "The weights are huge but finite after batch 3, when a copy is made; the loss says so afterwards"
    learn,rates = mlp(),Rates()
    fit(learn, 2, cbs=[DivergenceGuard(on='rewind', every=2, keep_every=2, skip=0, patience=1, factor=1.5), rates,
                       Damage('weight', [3], 1e6)])
    i = learn.recorder.divergences[0].found
    assert i==5 and rates.weights[i][0].abs().max()<100

def test_rewinds_are_bounded_and_the_state_is_cleared(mlp):
    learn,cleared = mlp(),[]
    class State(Callback):
        order,run_valid = 100,False
        def after_batch(self):
            states = [self.learn.opt.state[p] for p in self.learn.model.parameters()]
            if not any('grad_avg' in s for s in states): cleared.append(self.learn.train_iter)
    fit(learn, 9, cbs=[DivergenceGuard(on='rewind', every=1, max_rewinds=2, lower=.1), State(),
                       Damage('loss', range(5, 90, 7))])
    assert [(d.train_iter, d.action) for d in learn.recorder.divergences]==[(5, 'rewound'), (12, 'rewound'),
                                                                            (19, 'stopped')]
    assert cleared==[6, 13], 'when 5 and 12 are counted as done; a step later it is there again'
    assert learn.opt.hypers[0]['lr']==pytest.approx(.01*.01)

def test_rewinding_takes_running_statistics_along(mlp):
    learn = mlp(model=nn.Sequential(nn.Linear(1, 8), nn.BatchNorm1d(8), nn.Linear(8, 1)))
    fit(learn, 1, cbs=[DivergenceGuard(on='rewind', every=1), Damage('loss', [9])])
    assert learn.model[1].num_batches_tracked==0, 'as at the start of the fit, the only copy'

def test_what_else_ends_the_fit_may_have_a_reason(mlp):
    class End(Callback):
        def after_batch(self):
            if self.learn.train_iter==7: raise CancelFitException
    d = fit(mlp(), 2, cbs=[DivergenceGuard(), End(), Damage('loss', [4])])
    assert (d.train_iter, d.action)==(4, 'recorded')

def test_the_last_batches_are_looked_at_before_validation(mlp):
    validated = []
    class Validated(Callback):
        def before_validate(self): validated.append(1)
    d = fit(mlp(), 2, cbs=[DivergenceGuard(every=100), Validated(), Damage('loss', [8])])
    assert (d.train_iter, d.found)==(8, 9) and not validated

def test_groups_and_no_cycle(mlp):
    learn = mlp(cbs=DivergenceGuard(on='rewind'))
    d = fit(learn, 2, slice(.001, .1), cbs=Damage('loss', [8]))
    assert d.lr==pytest.approx((.001, .1)) and d.lr_best==pytest.approx(.1) and d.stage=='' and d.phase==''
    assert str(d).startswith('The training diverged (non-finite loss) at batch 8')

# nothing waits for the device

def test_nothing_leaves_the_device_between_looks(mlp, monkeypatch):
    "On a GPU each of these would wait for the device; here they are counted instead"
    learn,used,inside = mlp(cbs=DivergenceGuard(every=8), opt_func=Adam),[],[]
    real_call = DivergenceGuard.__call__
    def call(self, event):
        inside.append(1)
        try: return real_call(self, event)
        finally: inside.pop()
    monkeypatch.setattr(DivergenceGuard, '__call__', call)
    for name in ('item', 'tolist', 'cpu', 'numpy', '__float__', '__int__', '__bool__', '__array__', 'to'):
        real = getattr(torch.Tensor, name)
        def spy(self, *args, real=real, name=name, **kwargs):
            if inside and not (name=='to' and (isinstance(args[0], torch.dtype) or args[0]==self.device)):
                used.append((learn.train_iter, name))
            return real(self, *args, **kwargs)
        monkeypatch.setattr(torch.Tensor, name, spy)
    learn.fit(2, .001)
    assert ({name for _,name in used}=={'cpu', 'numpy'}
            and sorted({i for i,name in used if name=='cpu'})==[8, 10, 18, 20]), (
        'a look in 8 batches, and at the end of each epoch')

# bad input

@pytest.mark.parametrize('kwargs,says', [
    (dict(factor=0), 'factor must be above 0; got 0'), (dict(factor=math.nan), 'factor must'),
    (dict(factor='4'), 'factor must'), (dict(patience=0), 'patience must be a whole number'),
    (dict(on='halt'), "on must be 'stop', 'rewind' or 'record'; got 'halt'"), (dict(on=None), 'on must'),
    (dict(every=0), 'every must'), (dict(every=1.5), 'every must'), (dict(skip=-1), 'skip must'),
    (dict(noise=-1), 'noise must be at least 0; got -1'), (dict(noise='a'), 'noise must'),
    (dict(lower=1), 'lower must'), (dict(max_rewinds=0), 'max_rewinds must'),
    (dict(keep_every=0), 'keep_every must')], ids=str)
def test_bad_input(kwargs, says):
    with pytest.raises(ValueError, match=says): DivergenceGuard(**kwargs)

def test_refused_before_anything_changes(mlp):
    learn = mlp(cbs=DivergenceGuard())
    with pytest.raises(ValueError, match='learn.cbs must have one DivergenceGuard'):
        learn.fit_one_cycle_ext(1, cbs=DivergenceGuard())
    bare = mlp(default_cbs=False)
    with pytest.raises(ValueError, match="DivergenceGuard must have fastai's Recorder"):
        bare.fit_one_cycle_ext(1, cbs=DivergenceGuard())
    assert learn.opt is None and bare.opt is None

class NanFrom(Callback):
    "Spoils the predictions of one batch of the first epoch"
    run_valid = False
    def after_pred(self):
        if self.learn.epoch==0 and self.learn.train_iter==3: self.learn.pred = self.learn.pred*float('nan')

def test_a_rewind_lowers_a_schedule_of_equal_factor(mlp):
    "A step of the schedule by the same factor as `lower` must not be taken for the guard's own"
    learn = mlp(n_trn=12, cbs=[NanFrom(), DivergenceGuard(on='rewind', every=2, lower=.5)])
    with pytest.warns(UserWarning) as caught: learn.fit_one_cycle_ext(1, .08, sched=step_decay((.5,), .5))
    assert all('rewound' in str(w.message) for w in caught), 'the guard has said that it lowered the rate'
    plan = learn.recorder.plans[-1]
    assert plan.table['lr'][plan.trained[0],-1].tolist()==list(learn.recorder.lrs), 'the plan says what was trained'
    lrs,plan = learn.recorder.history.steps.lr_0.to_numpy(),step_decay((.5,), .5).table(12, .08)['lr'].ravel()
    assert_allclose(lrs, np.r_[plan[:4], plan[4:]*.5])

def test_a_rewind_lowers_once_what_no_scheduler_writes(mlp):
    learn = mlp(cbs=[NanFrom(), DivergenceGuard(on='rewind', every=1), HistoryRecorder(),
                     ReduceLROnPlateau(patience=1, min_delta=100, factor=10)])
    with pytest.warns(UserWarning, match='rewound'): learn.fit(4, .1)
    assert_allclose(learn.recorder.history.steps.groupby('epoch').lr_0.first(), [.1, .05, .005, .0005])

def test_there_is_nothing_to_rewind_to(mlp):
    learn = mlp(cbs=DivergenceGuard(on='rewind', every=2))
    for p in learn.model.parameters(): p.data.fill_(float('nan'))
    with pytest.warns(UserWarning, match='stopped'): learn.fit(1)
    assert learn.recorder.divergence.action=='stopped' and len(learn.recorder.losses)==2

def test_a_rewind_forgets_what_was_accumulated(mlp):
    acc = GradientAccumulation(32)
    learn = mlp(cbs=[NanFrom(), acc, DivergenceGuard(on='rewind', every=1), GradRecorder()])
    with pytest.warns(UserWarning, match='rewound'): learn.fit(1)
    df = learn.recorder.history.steps
    assert df.train_iter[df.step.notna()].tolist()[0]==1 and (df.skipped[4:].tolist()[:2]==['accumulation', ''])

def test_a_validation_within_the_fit_leaves_the_guard_at_work(mlp):
    "What it found is kept, the lowered rate too"
    class Rates(Callback):
        order,run_valid,rates = 100,False,None
        def before_step(self): self.rates = [*(self.rates or []), self.learn.opt.hypers[0]['lr']]
    learn,rates = mlp(cbs=DivergenceGuard(on='rewind', every=1, lower=.1)),Rates()
    with pytest.warns(UserWarning, match='The training diverged'):
        learn.fit_one_cycle_ext(3, .01, sched=constant(),
                                cbs=[rates, Damage('loss', [9]), ValidateAt('after_epoch', 60)])
    assert [d.epoch for d in learn.recorder.divergences][:1]==[0], 'of the first epoch, after two validations'
    assert rates.rates[:10]==pytest.approx([.01]*10) and rates.rates[10:19]==pytest.approx([.001]*9)
    assert learn.divergence_guard.now is None

@pytest.mark.parametrize('n_trn,every,keep_every', [(3, 10, 100), (20, 10, 100), (20, 8, 30), (2, 4, 5), (7, 7, 7),
                                                    (5, 2, 1)])
def test_copies_come_every_so_many_batches_however_short_the_epochs(mlp, monkeypatch, n_trn, every, keep_every):
    learn,made,n_epoch = mlp(n_trn=n_trn, cbs=DivergenceGuard(on='rewind', every=every, keep_every=keep_every)),[],70
    def note(model, state=None):
        if state is None: made.append(learn.train_iter)
        return {}
    monkeypatch.setattr('fastai_clr_ext.train.guard.copy_to_host', note)
    monkeypatch.setattr(LossTrend, 'is_good', True)
    learn.fit(n_epoch, 1e-6)
    looks = [e*n_trn + i for e in range(n_epoch) for i in range(1, n_trn+1) if i%every==0 or i==n_trn]
    want,last = [],0
    for look in looks:
        if look-last>=keep_every:
            want.append(look)
            last = look
    assert made==[0, *want], 'the first copy is of the start'

def test_batches_count_for_the_next_copy_while_the_loss_is_not_good(mlp, monkeypatch):
    learn,made = mlp(n_trn=50, cbs=DivergenceGuard(on='rewind', every=5, keep_every=20)),[]
    def note(model, state=None):
        if state is None: made.append(learn.train_iter)
        return {}
    monkeypatch.setattr('fastai_clr_ext.train.guard.copy_to_host', note)
    monkeypatch.setattr(LossTrend, 'is_good', property(lambda self: not 10<self.n<=30))
    learn.fit(1, 1e-6)
    assert made==[0, 35], 'due at 20; made as soon as the loss is good'

# losses of any sign, and the first batches

class Lift(Callback):
    "Adds a constant to the loss, and multiplies it by a factor"
    order,run_valid = 0,False
    def __init__(self, by, factor=1.): self.by,self.factor = by,factor
    def after_loss(self):
        self.learn.loss_grad = self.learn.loss_grad*1.
        self.learn.loss = self.learn.loss*self.factor + self.by

@pytest.mark.parametrize('by,factor', [(0., 1.), (-100., 1.), (-3., .5), (1000., 1.), (0., 2.**-10)])
def test_what_is_found_does_not_depend_on_the_sign_or_unit_of_the_loss(digits, by, factor):
    found = []
    for lift in ([], [Lift(by, factor)]):
        learn = digits(1)
        with pytest.warns(UserWarning, match='The training diverged'):
            learn.fit_one_cycle_ext(8, 100., cbs=[DivergenceGuard(), *lift])
        d = learn.recorder.divergence
        found.append((d.reason, d.train_iter, d.lr_best, d.lr_try))
        learn = digits(1)
        learn.fit_one_cycle_ext(4, .5, cbs=[DivergenceGuard(), *lift])
        assert learn.recorder.divergence is None
    assert found[0]==found[1] and found[0][0]=='loss'

class Turn(Callback):
    "Trains in the wrong direction from one batch on"
    order,run_valid = 0,False
    def __init__(self, at): self.at = at
    def before_step(self):
        if self.learn.train_iter<self.at: return
        for p in self.learn.model.parameters(): p.grad.mul_(-1)

def cosine_loss(pred, y): return -torch.cosine_similarity(pred, nn.functional.one_hot(y, 10)-.1).mean()

def density_loss(pred, y): return nn.functional.cross_entropy(pred, y) - 10 # an evidence bound has any sign too

@pytest.mark.parametrize('loss_func', [cosine_loss, density_loss, CrossEntropyLossFlat()],
                         ids=['cosine', 'shifted', 'positive'])
@pytest.mark.parametrize('at', [0, 5, 30, 100])
def test_a_loss_that_climbs_is_found_wherever_it_begins(digits, loss_func, at):
    learn = digits(2)
    learn.loss_func = loss_func
    d = fit(learn, 8, .3, cbs=[DivergenceGuard(), Turn(at)])
    assert d.reason=='loss' and at<d.train_iter<at+140 # the cosine has hardly fallen in 5 batches

# models of every kind

class Wave(nn.Module):
    "Has complex parameters"
    def __init__(self):
        super().__init__()
        self.inner = nn.Parameter(torch.randn(1, 8, dtype=torch.cfloat))
        self.out = nn.Linear(8, 1)
    def forward(self, x): return self.out((x*self.inner).abs())

class Words(nn.Module):
    "Has a sparse gradient"
    def __init__(self): super().__init__(); self.e,self.out = nn.Embedding(20, 4, sparse=True),nn.Linear(4, 1)
    def forward(self, x): return self.out(self.e(x.view(-1).mul(3).long().clamp(-9, 9) + 9))

class Graph(nn.Module):
    "Has sparse buffers in two layouts, and state that is no tensor"
    def __init__(self):
        super().__init__()
        self.out,self.n = nn.Linear(1, 1),[0]
        self.register_buffer('coo', torch.eye(16).to_sparse())
        self.register_buffer('csr', torch.eye(16).to_sparse_csr())
    def get_extra_state(self): return self.n
    def set_extra_state(self, state): self.n = state
    def forward(self, x):
        self.n[0] += 1
        return self.coo@self.out(x)

def lazy(): return nn.Sequential(nn.LazyLinear(8), nn.LazyBatchNorm1d(), nn.ReLU(), nn.LazyLinear(1))

def unused(): return nn.ModuleDict(dict(used=nn.Linear(1, 1), never=nn.LazyLinear(3)))

class Unused(nn.Module):
    "Has a lazy layer that no batch reaches"
    def __init__(self): super().__init__(); self.used,self.never = nn.Linear(1, 1),nn.LazyLinear(3)
    def forward(self, x): return self.used(x)

def mixed(compiled): return nn.Sequential(compiled(nn.Linear(1, 8)), nn.ReLU(), nn.Linear(8, 1))

eager = partial(torch.compile, backend='eager')

KINDS = {'lazy': lazy, 'lazy and unused': Unused, 'complex': Wave, 'sparse gradients': Words, 'sparse buffers': Graph,
         'compiled': lambda: eager(nn.Sequential(nn.Linear(1, 8), nn.ReLU(), nn.Linear(8, 1))),
         'a part compiled': lambda: mixed(eager), 'both compiled': lambda: eager(mixed(eager))}
OPTIMIZERS = {'SGD': partial(SGD, mom=.9), 'Adam': Adam, 'torch SGD': partial(OptimWrapper, opt=torch.optim.SGD),
              'torch Adam': partial(OptimWrapper, opt=torch.optim.Adam)}
SPARSE = {'plain SGD': SGD, 'SparseAdam': partial(OptimWrapper, opt=torch.optim.SparseAdam),
          'torch SGD': partial(OptimWrapper, opt=torch.optim.SGD)}
PAIRS = [(kind, opt) for kind in KINDS for opt in (SPARSE if kind=='sparse gradients' else OPTIMIZERS)]

def learner_of(mlp, kind, opt):
    "A learner with such a model; a sparse optimizer only takes the sparse layer"
    def split(m): return [list(m.parameters())]
    opt_func = {**OPTIMIZERS, **SPARSE}[opt]
    model = KINDS[kind]()
    if opt=='SparseAdam': model.out.requires_grad_(False)
    if opt=='SparseAdam': split = lambda m: [[m.e.weight]]
    return mlp(model=model, splitter=split, opt_func=opt_func, wd=None if opt=='SparseAdam' else 0.)

def numbers(model):
    "All weights and buffers that there are, dense"
    state = {k: v for k,v in model.state_dict().items() if torch.is_tensor(v) and not nn.parameter.is_lazy(v)}
    return {k: v.to_dense().clone() for k,v in state.items() if k.rpartition('.')[2]!='num_batches_tracked'}

@pytest.mark.filterwarnings('ignore:Lazy modules', 'ignore:Sparse CSR')
@pytest.mark.parametrize('kind,opt', PAIRS)
@pytest.mark.parametrize('on', ['stop', 'rewind', 'record'])
def test_every_kind_of_model_is_guarded(mlp, kind, opt, on):
    learn = learner_of(mlp, kind, opt)
    d = fit(learn, 2, 1e-3, cbs=[DivergenceGuard(on=on, every=3, keep_every=3), Damage('loss', [8])])
    assert (d.reason, d.train_iter, d.found)==('non-finite loss', 8, 8)
    assert math.isnan(d.loss) and not math.isnan(d.grad_norm)
    assert len(learn.recorder.losses)==(9 if on=='stop' else 20)

@pytest.mark.filterwarnings('ignore:Lazy modules', 'ignore:Sparse CSR')
@pytest.mark.parametrize('kind,opt', PAIRS)
@pytest.mark.parametrize('at,to', [(1, 'start'), (4, 'start'), (11, 8)])
def test_every_kind_of_model_is_rewound(mlp, monkeypatch, kind, opt, at, to):
    monkeypatch.setattr(LossTrend, 'is_good', True)
    learn,seen = learner_of(mlp, kind, opt),[]
    class Weights(Callback):
        order,run_valid = 1000,False
        def after_loss(self):
            if not seen: seen.append(numbers(self.learn.model)) # a lazy model has weights now
        def after_batch(self): seen.append(numbers(self.learn.model))
    cbs = [DivergenceGuard(on='rewind', every=2, keep_every=3), Weights(), Damage('weight', [at])]
    if kind in ('complex', 'sparse buffers'): cbs[-1] = Damage('loss', [at])
    d = fit(learn, 2, 1e-3, cbs=cbs)
    assert d.action=='rewound' and len(learn.recorder.losses)==20
    after,want = seen[d.found+1],seen[0 if to=='start' else to]
    running = [k for k in want if 'running' in k] if to=='start' else [] # of the first batch, in a lazy model
    for k in want:
        if k not in running: assert torch.equal(after[k], want[k]), k
    assert all(v.isfinite().all() for v in numbers(learn.model).values())

@pytest.mark.parametrize('kind', ['compiled', 'a part compiled', 'both compiled'])
@pytest.mark.parametrize('param,name', [(0, '0.weight'), (3, '2.bias')])
def test_a_compiled_layer_has_its_own_name(mlp, kind, param, name):
    d = fit(mlp(model=KINDS[kind](), splitter=lambda m: [list(m.parameters())]), 1,
            cbs=[DivergenceGuard(), Damage('grad', [4], math.inf, param)])
    assert d.param==name

@pytest.mark.parametrize('every', [1, 4, 20])
@pytest.mark.parametrize('opt_func', [partial(SGD, mom=.9), Adam])
def test_parameters_that_become_trainable_are_watched(mlp, every, opt_func):
    learn = mlp(opt_func=opt_func)
    for p in learn.model[0].parameters(): p.requires_grad_(False)
    class Unfreeze(Callback):
        order,run_valid = -20,False
        def before_batch(self):
            if self.learn.train_iter==5: self.learn.model[0].requires_grad_(True)
    d = fit(learn, 2, cbs=[DivergenceGuard(every=every), Unfreeze(), Damage('grad', [6], math.inf, 0)])
    assert (d.reason, d.param, d.train_iter)==('non-finite gradient', '0.weight', 6)

class Grow(Callback):
    "Adds a layer to the model and to the optimizer"
    order,run_valid = -20,False
    def __init__(self, at): self.at = at
    def before_batch(self):
        if self.learn.train_iter!=self.at: return
        self.learn.model.add_module('new', nn.Linear(1, 1))
        self.learn.opt.param_lists[1].extend(self.learn.model.new.parameters())

@pytest.mark.parametrize('opt_func', [partial(SGD, mom=.9), Adam])
def test_parameters_that_appear_are_watched_and_rewound(mlp, opt_func):
    d = fit(mlp(opt_func=opt_func), 2, cbs=[DivergenceGuard(every=2), Grow(5), Damage('grad', [8], math.inf, 4)])
    assert (d.reason, d.param, d.train_iter)==('non-finite gradient', 'new.weight', 8)
    for at in (8, 13):
        learn = mlp(opt_func=opt_func)
        d = fit(learn, 2, 1e-3, cbs=[DivergenceGuard(on='rewind', every=2, keep_every=4), Grow(5),
                                     Damage('weight', [at], math.nan, 4)])
        assert d.action=='rewound' and all(p.isfinite().all() for p in learn.model.parameters())

def test_a_frozen_weight_may_be_infinite(mlp):
    learn = mlp()
    learn.model.register_parameter('mask', nn.Parameter(torch.tensor([0., -math.inf]), requires_grad=False))
    learn.fit(2, 1e-3, cbs=DivergenceGuard(every=2))
    assert learn.recorder.divergence is None

def test_a_rewind_brings_back_state_that_is_no_tensor(mlp):
    learn = mlp(model=Graph(), splitter=lambda m: [list(m.parameters())])
    fit(learn, 1, 1e-3, cbs=[DivergenceGuard(on='rewind', every=2), Damage('loss', [5])])
    assert learn.model.n==[4 + 2*10//10], 'calls after the rewind only: 4 batches of training, 2 of validation'

@pytest.mark.parametrize('how', ['fit', 'fit_one_cycle_ext', 'fit_stages'])
@pytest.mark.parametrize('on', ['stop', 'rewind', 'record'])
def test_the_warning_points_at_the_users_line(mlp, how, on):
    learn = mlp(cbs=[DivergenceGuard(on=on, every=2), Damage('loss', [4])])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        if how=='fit_stages': learn.fit_stages([Stage('all', 1, .01)])
        else: getattr(learn, how)(1)
    found = [w for w in caught if 'The training diverged' in str(w.message)]
    assert len(found)==1 and found[0].filename==__file__

def test_a_warning_of_a_fit_that_something_else_ended(mlp):
    class End(Callback):
        def after_batch(self):
            if self.learn.train_iter==7: raise CancelFitException
    with pytest.warns(UserWarning, match='The training diverged') as caught:
        mlp().fit(2, .01, cbs=[DivergenceGuard(), End(), Damage('loss', [4])])
    assert caught[0].filename==__file__

def test_a_fit_without_a_guard_has_no_divergence(mlp):
    "An earlier rewind neither stays on the Recorder nor hides that something else set the rate"
    class Sets(Callback):
        order = 61
        def before_batch(self):
            if self.training: self.learn.opt.set_hyper('lr', .0123)
    learn = mlp()
    learn.fit_one_cycle_ext(1, .01)
    names = [each.name for each in fields(Divergence)]
    learn.recorder.divergences = [Divergence(**dict.fromkeys(names) | dict(action='rewound'))]
    assert learn.recorder.divergence is not None
    with pytest.warns(UserWarning, match='Something beside the cycle set lr'):
        learn.fit_one_cycle_ext(1, .01, cbs=Sets())
    assert learn.recorder.divergence is None

def test_a_validation_before_the_last_look_hides_nothing(mlp):
    class LookAtTraining(Callback):
        busy = False
        def after_train(self):
            if self.busy: return
            self.busy = True
            self.learn.validate(ds_idx=0)
            self.busy = False
    class Poison(Callback):
        order = -1
        def before_batch(self):
            if not self.training or self.train_iter!=5: return
            with torch.no_grad(): self.learn.model[0].weight.fill_(float('nan'))
    learn = mlp()
    with pytest.warns(UserWarning): learn.fit_one_cycle_ext(1, .01, cbs=[DivergenceGuard(), Poison(), LookAtTraining()])
    assert learn.recorder.divergence.reason=='non-finite loss'
