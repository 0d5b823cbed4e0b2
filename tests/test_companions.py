"Companions: what people train with beside our callbacks gives the same weights, bit for bit, with them and without"
import math, random, shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
import numpy as np, pytest, torch
from torch import nn
from torch.utils.data import IterableDataset
from fastai.callback.channelslast import ChannelsLast
from fastai.callback.core import (Callback, CancelBatchException, CancelFitException, CancelStepException,
                                  CancelTrainException)
from fastai.callback.fp16 import MixedPrecision, ModelToHalf, NonNativeMixedPrecision
from fastai.callback.hook import ActivationStats
from fastai.callback.mixup import CutMix, MixUp
from fastai.callback.progress import CSVLogger, ProgressCallback, ShowGraphCallback
from fastai.callback.schedule import *
from fastai.callback.tensorboard import TensorBoardCallback
from fastai.callback.tracker import (EarlyStoppingCallback, ReduceLROnPlateau, SaveModelCallback,
                                     TerminateOnNaNCallback)
from fastai.callback.training import BnFreeze, GradientAccumulation, GradientClip, ShortEpochCallback
from fastai.data.load import DataLoader
from fastai.learner import Learner, load_learner
from fastai.optimizer import Adam, Lamb, OptimWrapper, RMSProp, SGD, ranger
from fastai.torch_core import set_seed
from fastai_clr_ext.record import *
from fastai_clr_ext.schedule import *
from fastai_clr_ext.train import *
from companion_helpers import FromTable, assert_same, images, left, line, mlp_net, ratings, table, words
from conftest import CpuAmp
from record_helpers import Overflow, Stop
from train_helpers import snapshot

# ---- trained with our callbacks and without

@dataclass
class Case:
    "What is trained, and beside which callbacks"
    make:Callable = line # Makes the learner in a folder
    cbs:Callable = lambda path: [] # Makes the companions
    before:Callable = lambda learn: None # What is done with the learner before it is trained
    has_bar:bool = False # Whether the learner keeps its progress bar
    has_mom:bool = True # Whether a cycle sets a momentum
    adam:bool = False # Whether steps of Adam can be recorded
    n_epoch:int = 2
    lr:float = .003
    hows:tuple = ('fit', 'cycle')

def our_callbacks(how, path, adam=False):
    "Our callbacks, with all that they can measure"
    if how=='fit': return [GradRecorder(STATS, per='param', adam=adam), DivergenceGuard(every=2),
                           SaveHistory(path.with_suffix('.npz'), every=3)]
    return [GradRecorder(STATS, adam=adam), DivergenceGuard(on='rewind', every=3, keep_every=2),
            FitCheckpoint(path.with_suffix('.pt'), every=3)]

def quiet(learn, rows):
    "Let the learner print into a list"
    learn.logger = rows.append
    return learn.remove_cb(ProgressCallback)

def make_learner(case, path, rows):
    "Make a learner; the same one each time"
    path.mkdir()
    set_seed(0)
    learn = case.make(path)
    if not case.has_bar: quiet(learn, rows)
    case.before(learn)
    return learn

def table_of(learn, n_epoch, lr, has_mom=True):
    "What a cycle sets in each batch"
    values = one_cycle(moms=learn.moms).table(n_epoch*len(learn.dls.train), lr)
    return {name: values[name] for name in (('lr', 'mom') if has_mom else ('lr',))}

def trained(case, how, path, beside=None):
    "Train without our callbacks, or beside some, and return what is left"
    rows = []
    learn,cbs = make_learner(case, path, rows),case.cbs(path)
    if how=='fit': learn.fit(case.n_epoch, case.lr, cbs=[*(beside or []), *cbs])
    elif beside is None:
        scheduler = FromTable(table_of(learn, case.n_epoch, case.lr, case.has_mom))
        learn.fit(case.n_epoch, case.lr, cbs=[scheduler, *cbs])
    else: learn.fit_one_cycle_ext(case.n_epoch, case.lr, cbs=[*cbs, *beside])
    return left(learn, cbs) | dict(rows=[list(row)[:-1] for row in rows]), learn

def fit_twice(case, how, tmp_path):
    "Train beside our callbacks and without, compare what is left, and return the first learner"
    watched,learn = trained(case, how, tmp_path/'with', our_callbacks(how, tmp_path/'with', case.adam))
    alone,_ = trained(case, how, tmp_path/'without')
    assert_same(watched, alone)
    assert learn.recorder.history.fits.n_steps[0]==len(learn.recorder.history.grads.step.unique())>0
    assert learn.recorder.divergence is None
    return learn

class CpuHalf(NonNativeMixedPrecision):
    "fastai's older mixed precision without its check for a GPU; a CPU knows half precision too"
    def before_fit(self):
        dls,device = self.learn.dls,self.learn.dls.device
        dls._device = torch.device('cuda')
        try: super().before_fit()
        finally: dls._device = device

def half(**kwargs): return lambda path: [ModelToHalf(), CpuHalf(**kwargs)]

CALLBACKS = {
    'nothing': Case(),
    'MixedPrecision': Case(cbs=lambda path: [MixedPrecision()]),
    'MixedPrecision bf16': Case(cbs=lambda path: [MixedPrecision('bf16')]),
    'MixedPrecision with a scaler': Case(cbs=lambda path: [CpuAmp()]),
    'MixedPrecision with overflow': Case(cbs=lambda path: [CpuAmp(), Overflow(3)]),
    'NonNativeMixedPrecision': Case(cbs=half(max_loss_scale=2.**17)),
    'NonNativeMixedPrecision fixed': Case(cbs=half(dynamic=False, clip=.5)),
    'NonNativeMixedPrecision flat': Case(cbs=half(dynamic=False, flat_master=True)),
    'GradientAccumulation': Case(cbs=lambda path: [GradientAccumulation(32)]),
    'GradientClip': Case(cbs=lambda path: [GradientClip(.1)]),
    'three at once': Case(cbs=lambda path: [CpuAmp(), GradientAccumulation(32), GradientClip(.1), Overflow(3)]),
    'SaveModelCallback': Case(cbs=lambda path: [SaveModelCallback(every_epoch=True, with_opt=True)]),
    'SaveModelCallback best': Case(cbs=lambda path: [SaveModelCallback(monitor='mse')]),
    'EarlyStoppingCallback': Case(cbs=lambda path: [EarlyStoppingCallback(patience=1, min_delta=10)], n_epoch=4),
    'ReduceLROnPlateau': Case(cbs=lambda path: [ReduceLROnPlateau(patience=1, min_delta=10)], n_epoch=4, hows=('fit',)),
    'CSVLogger': Case(cbs=lambda path: [CSVLogger()]),
    'TensorBoardCallback': Case(cbs=lambda path: [TensorBoardCallback(path/'board', log_preds=False)]),
    'ShowGraphCallback': Case(cbs=lambda path: [ShowGraphCallback()], has_bar=True),
    'ProgressCallback': Case(has_bar=True),
    'TerminateOnNaNCallback': Case(cbs=lambda path: [TerminateOnNaNCallback()]),
    'ShortEpochCallback': Case(cbs=lambda path: [ShortEpochCallback(.5)]),
    'MixUp of numbers': Case(cbs=lambda path: [MixUp()]),
    'MixUp': Case(images, cbs=lambda path: [MixUp()], adam=True),
    'CutMix': Case(images, cbs=lambda path: [CutMix()], adam=True),
    'ChannelsLast': Case(images, cbs=lambda path: [ChannelsLast()], adam=True),
    'BnFreeze': Case(images, cbs=lambda path: [BnFreeze()], before=lambda learn: learn.freeze(), adam=True),
    'ActivationStats': Case(images, cbs=lambda path: [ActivationStats(with_hist=True)], adam=True)}

def wrap(opt, **kwargs): return partial(OptimWrapper, opt=partial(opt, **kwargs))

#: Optimizer, whether a cycle sets its momentum, whether it keeps squares of gradients
OPTIMIZERS = {
    'SGD': (partial(SGD, mom=.9), True, False), 'SGD without momentum': (SGD, False, False),
    'RMSProp': (partial(RMSProp, mom=.9), True, True), 'RMSProp without momentum': (RMSProp, False, True),
    'Adam': (Adam, True, True), 'ranger': (ranger, True, True), 'Lamb': (Lamb, True, True),
    'torch SGD': (wrap(torch.optim.SGD, momentum=.9), True, False),
    'torch SGD without momentum': (wrap(torch.optim.SGD), False, False),
    'torch Adam': (wrap(torch.optim.Adam), True, True), 'torch AdamW': (wrap(torch.optim.AdamW), True, True),
    'torch Adam fused': (wrap(torch.optim.Adam, fused=True), True, True),
    'torch Adagrad': (wrap(torch.optim.Adagrad), False, False)}
OPTIMIZERS = {name: Case(partial(line, opt_func=f), has_mom=has_mom, adam=adam)
              for name,(f,has_mom,adam) in OPTIMIZERS.items()}

class WithEmpty(nn.Sequential):
    "A network with a parameter that has no elements"
    def __init__(self):
        super().__init__(*mlp_net())
        self.none = nn.Parameter(torch.empty(0, 3))

class Words(nn.Module):
    "A network with sparse gradients"
    def __init__(self):
        super().__init__()
        self.e,self.out = nn.Embedding(5, 3, sparse=True),nn.Linear(3, 1)
    def forward(self, x): return self.out(self.e((x[:,0]*2).round().long() % 5))

class Wave(nn.Module):
    "A network with complex parameters"
    def __init__(self):
        super().__init__()
        self.c = nn.Parameter(torch.randn(1, 4, dtype=torch.cfloat))
    def forward(self, x): return (x.to(torch.cfloat)@self.c).abs().sum(1, keepdim=True)

def large(): return nn.Sequential(nn.Linear(1, 530_000), nn.ReLU(), nn.Linear(530_000, 1))

def spectral():
    norm = nn.utils.parametrizations.spectral_norm
    return nn.Sequential(norm(nn.Linear(1, 8)), nn.ReLU(), nn.Linear(8, 1))

def one_group(m): return [list(m.parameters())]

def group_without_elements(m): return [[m.none], [*m[0].parameters(), *m[2].parameters()]]

def with_model(model, lr=.003, has_mom=True, adam=False, **kwargs):
    return Case(partial(line, model=model, **dict(splitter=one_group) | kwargs), lr=lr, has_mom=has_mom, adam=adam)

def compiled(backend): return with_model(lambda: torch.compile(mlp_net(), backend=backend))

def empty_first(m): return [[], list(m.parameters())]

def empty_last(m): return [list(m.parameters()), []]

LEARNERS = {
    'tabular_learner': Case(table, adam=True), 'collab_learner': Case(ratings, adam=True),
    'language_model_learner': Case(words, adam=True), 'batch of one': Case(partial(line, bs=1)),
    'one batch in an epoch': Case(partial(line, n_trn=1)),
    'workers': Case(partial(images, num_workers=1), hows=('fit',)),
    'empty first group': Case(partial(line, splitter=empty_first)),
    'empty last group': Case(partial(line, splitter=empty_last, opt_func=Adam), adam=True),
    "empty group of torch's": Case(partial(line, splitter=empty_first, opt_func=wrap(torch.optim.AdamW)), adam=True),
    'group without elements': with_model(WithEmpty, adam=True, opt_func=Adam, splitter=group_without_elements),
    'sparse gradients': with_model(Words, opt_func=SGD, wd=0., has_mom=False), 'complex parameters': with_model(Wave),
    'large layers': with_model(large, 1e-7, n_trn=3, bs=2), 'parametrized': with_model(spectral),
    'compiled eager': compiled('eager'), 'compiled': compiled('inductor' if shutil.which('c++') else 'aot_eager')}

CASES = [pytest.param(case, how, id=f'{name}-{how}')
         for name,case in (CALLBACKS | OPTIMIZERS | LEARNERS).items() for how in case.hows]

@pytest.mark.filterwarnings('ignore:.*momentum')
@pytest.mark.parametrize('case,how', CASES)
def test_weights_and_files_are_the_same(tmp_path, case, how): fit_twice(case, how, tmp_path)

# ---- the comparison sees every change

class Spoil(Callback):
    "Does something to the learner in one batch"
    order,run_valid = 10.5,False
    def __init__(self, event, what): self.event,self.what = event,what
    def __call__(self, name):
        if name==self.event and self.learn.training and self.learn.train_iter==3: self.what(self.learn)

def scale_gradients(learn):
    for p in learn.model.parameters(): p.grad.mul_(1+1e-6)

SPOILED = {
    "torch's random numbers": ('before_batch', lambda learn: torch.rand(1)),
    "NumPy's random numbers": ('after_batch', lambda learn: np.random.rand()),
    "Python's random numbers": ('after_batch', lambda learn: random.random()),
    'random numbers of the loader': ('after_batch', lambda learn: learn.dls.train.rng.seed(1)),
    'gradients': ('before_step', scale_gradients),
    'rate': ('before_step', lambda learn: learn.opt.set_hyper('lr', .00300001)),
    'a running mean': ('after_batch', lambda learn: learn.model[1].running_mean.mul_(1+1e-6)),
    'a frozen layer': ('after_batch', lambda learn: learn.model[6].requires_grad_(False)),
    'a hook': ('after_batch', lambda learn: learn.model.register_forward_hook(lambda *_: None)),
    'a file': ('after_batch', lambda learn: (learn.path/'new.txt').write_text('')),
    'a callback': ('after_batch', lambda learn: learn.add_cb(Callback())),
    'an attribute': ('after_batch', lambda learn: setattr(learn, 'new', 1))}

@pytest.mark.parametrize('event,what', SPOILED.values(), ids=SPOILED)
def test_the_comparison_sees_what_is_changed(tmp_path, event, what):
    case = Case(images)
    spoiled,_ = trained(case, 'fit', tmp_path/'spoiled', [Spoil(event, what)])
    alone,_ = trained(case, 'fit', tmp_path/'alone')
    with pytest.raises(AssertionError): assert_same(spoiled, alone)

# ---- around fits

def find(learn): return tuple(learn.lr_find(show_plot=False, num_it=60, suggest_funcs=(valley, slide, minimum, steep)))

def save_and_load(learn, fit):
    "Go back to saved weights and optimizer, and on"
    fit()
    learn.save('saved')
    fit()
    learn.load('saved')
    fit()

def export_and_load(learn, fit):
    "Return predictions of the exported learner, and its weights after more training"
    fit()
    learn.export('learner.pkl')
    back = load_learner(learn.path/'learner.pkl')
    preds = back.get_preds(dl=learn.dls.valid)
    back.dls = learn.dls
    with back.no_bar(): back.fit(1, .003)
    return preds, dict(back.model.state_dict())

def without_bar(learn, fit):
    with learn.no_bar(), learn.no_logging(): fit()

def unfreeze(learn, fit):
    learn.freeze()
    fit()
    learn.unfreeze()
    fit()

STORIES = {
    'lr_find before': lambda learn, fit: [find(learn), fit()],
    'lr_find between': lambda learn, fit: [fit(), find(learn), fit()],
    'lr_find after': lambda learn, fit: [fit(), find(learn)],
    'get_preds': lambda learn, fit: [learn.get_preds(), fit(), learn.get_preds(ds_idx=0, with_loss=True), fit()],
    'validate': lambda learn, fit: [learn.validate(), fit(), learn.validate(ds_idx=0), fit(), learn.validate()],
    'save and load': save_and_load, 'export and load_learner': export_and_load, 'no_bar': without_bar,
    'freeze and unfreeze': unfreeze,
    'fit_one_cycle': lambda learn, fit: [learn.fit_one_cycle(2, .003), fit()],
    'fit_flat_cos': lambda learn, fit: [learn.fit_flat_cos(2, .003), fit()],
    'fit_sgdr': lambda learn, fit: [learn.fit_sgdr(2, 1, .003), fit()],
    'fine_tune': lambda learn, fit: [learn.fine_tune(1, .003), fit()]}

@pytest.mark.parametrize('how', ['fit', 'cycle'])
@pytest.mark.parametrize('opt_func', [partial(SGD, mom=.9), Adam], ids=['SGD', 'Adam'])
@pytest.mark.parametrize('name', STORIES)
def test_what_is_done_around_fits_is_the_same(tmp_path, name, opt_func, how):
    both = []
    for folder in ('with', 'without'):
        path,rows = tmp_path/folder,[]
        learn = make_learner(Case(partial(images, opt_func=opt_func), has_bar=name=='no_bar'), path, rows)
        ours = our_callbacks(how, path) if folder=='with' else []
        learn.add_cbs(ours)
        def fit():
            if how=='fit': learn.fit(1, .003)
            elif folder=='with': learn.fit_one_cycle_ext(1, .003)
            else: learn.fit(1, .003, cbs=FromTable(table_of(learn, 1, .003)))
        result = STORIES[name](learn, fit)
        if ours: assert learn.recorder.history.fits.n_steps.min()>0
        both.append(left(learn.remove_cbs(ours)) | dict(result=result, rows=[list(row)[:-1] for row in rows]))
    assert_same(*both)

def untimed(row):
    "Leave out what has a time"
    return {name: value for name,value in sorted(dict(row).items()) if name[0]!='_' and 'per_sec' not in name}

@pytest.mark.parametrize('how', ['fit', 'cycle'])
def test_wandb_gets_the_same(tmp_path, monkeypatch, how):
    import wandb
    from fastai.callback.wandb import WandbCallback
    monkeypatch.setattr(Learner, 'gather_args', lambda self: {}) # fastai's stops at data made of tuples of tensors
    for name,value in dict(MODE='offline', SILENT='true', DIR=str(tmp_path)).items():
        monkeypatch.setenv(f'WANDB_{name}', value)
    case,both = Case(cbs=lambda path: [WandbCallback(log_preds=False)]),[]
    for folder in ('with', 'without'):
        path,sent = tmp_path/folder,[]
        with wandb.init(project='test', dir=tmp_path) as run, monkeypatch.context() as patched:
            def log(data, run=run, sent=sent, **kwargs):
                sent.append((kwargs, untimed(data)))
                run.log(data, **kwargs)
            patched.setattr(wandb, 'log', log)
            result,_ = trained(case, how, path, our_callbacks(how, path) if folder=='with' else None)
            result['summary'] = untimed(run.summary)
        result['companions'][0].pop('ti_batch') # a time
        both.append(result | dict(sent=sent))
        assert len(sent)>20, 'two for each batch, and more for epochs'
    assert_same(*both)

# ---- what ends in the middle of a batch

class RaiseInQueue(Stop):
    "Raises at one event of one training batch, at a place in the queue"
    def __init__(self, event, order, what):
        super().__init__(event, 3, what)
        self.order = order

EVENTS = ['before_batch', 'after_pred', 'after_loss', 'before_backward', 'after_backward', 'before_step', 'after_step',
          'after_batch']
PLACES = [(event, order) for event in EVENTS for order in (0, 10.4, 10.6, 200)] + [('in the step', 0)]
ERRORS = [KeyboardInterrupt, RuntimeError, CancelStepException, CancelBatchException, CancelTrainException,
          CancelFitException]

def stopped(path, event, order, error, beside):
    "Train with something that ends a batch, then once more; return what is left, the learner and its steps"
    learn,steps = make_learner(Case(line), path, []),[]
    learn.create_opt()
    fault,step = RaiseInQueue(event, order, error('stop')),learn.opt.step
    def counted():
        if fault.at is not None: fault('in the step')
        step()
        steps.append(learn.train_iter)
    learn.opt.step = counted
    for cbs in [fault], []:
        try: learn.fit(1, .003, cbs=[*cbs, *beside])
        except (KeyboardInterrupt, RuntimeError, CancelStepException, CancelBatchException): assert cbs
    return left(learn), learn, steps

@pytest.mark.parametrize('event,order', PLACES)
@pytest.mark.parametrize('error', ERRORS, ids=lambda e: e.__name__)
def test_a_step_is_recorded_if_it_was_done(tmp_path, event, order, error):
    watched,learn,steps = stopped(tmp_path/'with', event, order, error, [GradRecorder(STATS), DivergenceGuard()])
    alone,*_ = stopped(tmp_path/'without', event, order, error, [])
    assert_same(watched, alone)
    history = learn.recorder.history
    taken = history.steps[history.steps.skipped=='']
    assert taken.train_iter.tolist()==steps
    assert history.fits.n_steps.sum()==len(steps)
    grads = history.grads[history.grads.group==0]
    assert grads.train_iter.tolist()==steps
    assert grads.update_norm.notna().all()

# ---- what is refused

class Stream(IterableDataset):
    "Data without a length"
    def __iter__(self): return ((torch.tensor([i/10]), torch.tensor([i/5])) for i in range(20))

def streaming(path):
    "A learner whose training loader has no length"
    learn = line(path)
    learn.dls.loaders[0] = DataLoader(Stream(), bs=4)
    return learn

METHODS = {'fit_one_cycle_ext': lambda learn, cbs: learn.fit_one_cycle_ext(1, .01, cbs=cbs),
           'preview_one_cycle_ext': lambda learn, cbs: learn.preview_one_cycle_ext(1, .01, cbs=cbs),
           'fit_stages': lambda learn, cbs: learn.fit_stages([Stage('a', 1, .01)], cbs=cbs)}

@pytest.mark.parametrize('call', METHODS.values(), ids=METHODS)
def test_a_loader_without_length_is_refused_and_nothing_changed(tmp_path, call):
    learn = make_learner(Case(streaming), tmp_path/'a', [])
    before = snapshot(learn)
    ours = our_callbacks('fit', tmp_path)
    with pytest.raises(ValueError, match='the training loader must have a length'): call(learn, ours)
    assert snapshot(learn)==before
    assert [p.name for p in tmp_path.iterdir()]==['a']

def test_fastais_own_fit_without_length_ends_as_it_does_alone(tmp_path):
    "fastai needs the length of a loader in every fit; our callbacks neither hide its error nor record anything"
    both = []
    for folder in ('with', 'without'):
        learn = make_learner(Case(streaming), tmp_path/folder, [])
        with pytest.raises(TypeError): learn.fit(1, cbs=our_callbacks('fit', tmp_path/folder) if folder=='with' else [])
        if folder=='with': assert not len(learn.recorder.history) and not len(learn.recorder.history.fits)
        both.append(dict(weights=dict(learn.model.state_dict()), cbs=[cb.name for cb in learn.cbs]))
    assert_same(*both)
    assert not list(tmp_path.glob('*.npz'))

class FitAt(Callback):
    "Trains the learner within its own fit"
    def __init__(self, event, order): self.event,self.order,self.is_done = event,order,False
    def __call__(self, name):
        if name!=self.event or self.is_done: return
        self.is_done = True
        self.learn.fit(1, .01)

OUTER = {'fit_one_cycle_ext': lambda learn, cb: learn.fit_one_cycle_ext(3, .01, cbs=cb),
         'fit': lambda learn, cb: learn.fit(3, .01, cbs=[GradRecorder(), cb])}
refused = partial(pytest.raises, ValueError, match='must not call fit within a fit of the same learner')

@pytest.mark.parametrize('order', [0, 100])
@pytest.mark.parametrize('outer', OUTER.values(), ids=OUTER)
@pytest.mark.parametrize('event', ['before_fit', 'before_epoch', 'before_train', *EVENTS, 'after_train',
                                   'before_validate', 'after_validate', 'after_epoch'])
def test_a_fit_in_any_event_is_refused(tmp_path, event, outer, order):
    with refused(): outer(make_learner(Case(), tmp_path/'a', []), FitAt(event, order))

@pytest.mark.parametrize('outer,order', [('fit', 0), ('fit', 100), ('fit_one_cycle_ext', 100)])
def test_a_fit_at_the_end_of_a_fit_is_refused(tmp_path, outer, order):
    with refused(): OUTER[outer](make_learner(Case(), tmp_path/'a', []), FitAt('after_fit', order))

# ---- what did not work once

def test_a_fit_before_the_scheduler_has_ended_is_refused(tmp_path):
    with refused(): OUTER['fit_one_cycle_ext'](make_learner(Case(), tmp_path/'a', []), FitAt('after_fit', 0))

def test_a_fit_within_a_guarded_fit_is_refused(tmp_path):
    learn = make_learner(Case(), tmp_path/'a', [])
    with refused(): learn.fit(3, .01, cbs=[DivergenceGuard(), FitAt('before_epoch', 0)])

class LossAt(Callback):
    "Shows a loss that is not finite, and trains with the real one"
    order,run_valid = 20,False
    def __init__(self, at): self.at = at
    def after_loss(self):
        if self.learn.train_iter==self.at: self.learn.loss = self.learn.loss*math.nan

class Tape(Callback):
    "Norm of what the optimizer gets, and weights after each batch"
    order,run_valid = 200,False
    def before_fit(self): self.norms,self.weights = [],[]
    def before_step(self):
        grads = [p.grad.flatten() for params in self.learn.opt.param_lists for p in params]
        self.norms.append(float(torch.cat(grads).norm()))
    def after_batch(self): self.weights.append([p.detach().clone() for p in self.learn.model.parameters()])

def guarded(tmp_path, *cbs, **kwargs):
    "Train beside a guard that looks at each batch; return the learner and its tape"
    learn,tape = make_learner(Case(), tmp_path/'a', []),Tape()
    learn.fit(2, .003, cbs=[*cbs, GradRecorder(), DivergenceGuard(every=1, patience=1, **kwargs), LossAt(5), tape])
    return learn, tape

def test_an_overflow_of_non_native_precision_is_recorded(tmp_path):
    learn = fit_twice(CALLBACKS['NonNativeMixedPrecision'], 'fit', tmp_path)
    steps = learn.recorder.history.steps
    assert 0<steps.step.isna().sum()<10
    assert set(steps.skipped[steps.step.isna()])=={'overflow'}

@pytest.mark.parametrize('cbs', [list, lambda: [CpuAmp()],
                                 lambda: half(dynamic=False)(None)],
                         ids=['alone', 'MixedPrecision', 'NonNativeMixedPrecision'])
def test_the_guards_gradient_norm_is_what_the_optimizer_gets(tmp_path, cbs):
    learn,tape = guarded(tmp_path, *cbs(), on='record')
    assert learn.recorder.divergence.train_iter==5
    assert learn.recorder.divergence.grad_norm==pytest.approx(tape.norms[5], rel=1e-3)

@pytest.mark.parametrize('cbs', [list, lambda: [CpuAmp()],
                                 lambda: half(dynamic=False)(None)],
                         ids=['alone', 'MixedPrecision', 'NonNativeMixedPrecision'])
def test_the_first_step_after_a_rewind_starts_from_the_kept_weights(tmp_path, cbs):
    "Batch 5 ends with the kept weights; the next step is far shorter than the five that were taken back"
    learn,tape = guarded(tmp_path, *cbs(), on='rewind', keep_every=100)
    assert learn.recorder.divergence.action=='rewound'
    kept,after,lost = (torch.cat([w.flatten() for w in tape.weights[i]]) for i in (5, 6, 4))
    assert (after-kept).norm()<.5*(lost-kept).norm()

@pytest.mark.parametrize('order', [0, 200])
def test_the_guard_counts_steps_that_were_done(tmp_path, order):
    cancel = Stop('before_step', 2, CancelStepException())
    cancel.order = order
    learn,_ = guarded(tmp_path, cancel, on='record')
    assert learn.recorder.divergence.train_iter==5
    assert learn.recorder.divergence.step==4
