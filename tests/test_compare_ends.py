"How a run ended: well, failed or by an error; what a constant prediction reaches"
import numpy as np, pytest, torch
import torch.nn.functional as F
from fastai.losses import (BCEWithLogitsLossFlat, CrossEntropyLossFlat, L1LossFlat, LabelSmoothingCrossEntropy,
                           MSELossFlat)
from fastai.metrics import accuracy
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.metrics import log_loss
from torch import nn
from torch.utils.data import TensorDataset
from compare_helpers import *
from fastai_clr_ext.compare import *
from fastai_clr_ext.situations import digits_dls, situation

r = np.random.default_rng(0)
CLASSES = torch.tensor(r.choice(4, 60, p=[.1, .2, .3, .4]))
NUMBERS = torch.tensor(r.exponential(1, (60, 3)), dtype=torch.float32)
BITS = torch.tensor(r.random((60, 3))<.3, dtype=torch.float32)

def batches(y): return [[part] for part in y.split(7)]

def best_constant(loss, y, shape):
    "Found by optimization, which knows nothing of closed forms"
    constant = torch.zeros(shape, requires_grad=True, dtype=torch.float64)
    optimizer = torch.optim.LBFGS([constant], max_iter=500, tolerance_grad=1e-10, line_search_fn='strong_wolfe')
    def closure():
        optimizer.zero_grad()
        value = loss(constant.expand(len(y), *shape), y)
        value.backward()
        return value
    optimizer.step(closure)
    return closure().item()

@pytest.mark.parametrize('loss,plain,y,shape', [
    (CrossEntropyLossFlat(), F.cross_entropy, CLASSES, (4,)), (nn.CrossEntropyLoss(), F.cross_entropy, CLASSES, (4,)),
    (F.cross_entropy, F.cross_entropy, CLASSES, (4,)),
    (nn.CrossEntropyLoss(), F.cross_entropy, torch.softmax(NUMBERS.double(), 1), (3,)),
    (MSELossFlat(), F.mse_loss, NUMBERS.double(), (3,)), (F.mse_loss, F.mse_loss, NUMBERS[:,:1].double(), (1,)),
    (BCEWithLogitsLossFlat(), F.binary_cross_entropy_with_logits, BITS.double(), (3,))], ids=lambda o: '')
def test_the_best_constant_is_what_optimization_finds(loss, plain, y, shape):
    assert constant_loss(loss, batches(y))==pytest.approx(best_constant(plain, y, shape), rel=1e-6)

def test_the_best_constant_is_that_of_scikit_learn():
    x = np.zeros((60, 1))
    prior = DummyClassifier(strategy='prior').fit(x, CLASSES).predict_proba(x)
    assert constant_loss(CrossEntropyLossFlat(), batches(CLASSES))==pytest.approx(log_loss(CLASSES, prior))
    median = DummyRegressor(strategy='median').fit(x, NUMBERS.numpy())
    distance = np.abs(NUMBERS.numpy()-median.predict(x)).mean()
    assert constant_loss(L1LossFlat(), batches(NUMBERS))==pytest.approx(distance)

@pytest.mark.parametrize('loss,targets', [
    (LabelSmoothingCrossEntropy(), batches(CLASSES)), (nn.CrossEntropyLoss(label_smoothing=.1), batches(CLASSES)),
    (nn.CrossEntropyLoss(weight=torch.ones(4)), batches(CLASSES)), (nn.SmoothL1Loss(), batches(NUMBERS)),
    (BCEWithLogitsLossFlat(pos_weight=torch.ones(3)), batches(BITS)), (lambda pred, y: pred.sum(), batches(CLASSES)),
    (CrossEntropyLossFlat(), []), (CrossEntropyLossFlat(), [[CLASSES, CLASSES]]),
    (MSELossFlat(), [[torch.zeros(2, 3)], [torch.zeros(2, 4)]]), (CrossEntropyLossFlat(), [[torch.zeros(5).long()]]),
    (MSELossFlat(), [[torch.ones(5)]])], ids=lambda o: '')
def test_losses_that_are_not_known(loss, targets):
    "Or where a constant makes no error, so that nothing could be better"
    assert constant_loss(loss, targets) is None

@pytest.mark.parametrize('loss', [
    nn.CrossEntropyLoss(reduction='sum'), CrossEntropyLossFlat(reduction='sum'),
    partial(F.cross_entropy, ignore_index=0),
    partial(F.cross_entropy, reduction='sum'), type('Mine', (), {'__hash__': None, '__call__': lambda *_: 0})()],
    ids=lambda o: '')
def test_losses_that_look_like_known_ones(loss): assert constant_loss(loss, batches(CLASSES)) is None

@pytest.mark.parametrize('targets', [[[torch.tensor([-1, 2])]], [[torch.tensor([True, False])]], [['text']], [[3]],
                                     [[]]], ids=str)
def test_targets_that_the_loss_cannot_take(targets): assert constant_loss(nn.CrossEntropyLoss(), targets) is None

def test_classes_and_soft_classes_of_every_pixel():
    y = torch.tensor(r.choice(3, (8, 5, 5), p=[.2, .3, .5]))
    soft = F.one_hot(y, 3).movedim(-1, 1).float()
    share = np.bincount(y.flatten().numpy())/200
    want = -(share*np.log(share)).sum()
    for targets in (y, soft): assert constant_loss(nn.CrossEntropyLoss(), [[targets]])==pytest.approx(want)

def test_the_constant_is_judged_on_the_same_batches():
    "Predicting 2 for targets of mean 2, where the last batch is 5, 5"
    first,last = [[torch.tensor([1., 3.])]],[[torch.tensor([5., 5.])]]
    assert constant_loss(MSELossFlat(), first)==1 and constant_loss(MSELossFlat(), first, last)==9
    assert constant_loss(L1LossFlat(), [[torch.tensor([1., 2., 6.])]], last)==3
    classes = [[torch.tensor([0, 0, 0, 1])]]
    assert constant_loss(nn.CrossEntropyLoss(), classes, [[torch.tensor([1])]])==pytest.approx(np.log(4))
    assert constant_loss(nn.CrossEntropyLoss(), classes, [[torch.tensor([2])]]) is None, 'never seen: no constant'

def test_a_run_is_compared_with_the_constant_on_its_last_batches():
    "The best constant for the first epoch, on the last quarter of the batches, from what the policy trained on"
    seen = []
    class Keep(Callback):
        def after_pred(self):
            if self.training: seen.append(self.y.clone())
    def policy(learn): learn.fit(4, .05, cbs=Keep())
    c = compare(make_fixed, {'flat': constant(), 'mine': policy}, n_epoch=4, seeds=1, lr_max={'flat': .05},
                with_bar=False)
    first,last = torch.cat(seen[:10]),torch.cat(seen[-10:])
    run = c.record['runs'][1]
    assert len(seen)==40 and run['constant_loss']==pytest.approx(((last-first.mean())**2).mean().item(), rel=1e-5)
    other = compare(make_fixed, {'flat': constant(), 'mine': lambda learn: learn.fit(2, .05, cbs=Keep())}, n_epoch=2,
                    seeds=1, lr_max={'flat': .05}, with_bar=False).record['runs'][1]
    first,last = torch.cat(seen[40:50]),torch.cat(seen[-5:])
    assert other['constant_loss']==pytest.approx(((last-first.mean())**2).mean().item(), rel=1e-5)

def test_a_little_that_was_learned_is_seen():
    "A tenth of the variance, in noisy batches: compared on other batches one run of twenty would fail"
    def make(seed):
        torch.manual_seed(0)
        x = torch.randn(1000, 1)
        y = .33*x + .95*torch.randn(1000, 1)
        dls = DataLoaders.from_dsets(TensorDataset(x, y), TensorDataset(x, y), bs=64, num_workers=0)
        torch.manual_seed(seed)
        return Learner(dls, nn.Linear(1, 1), loss_func=MSELossFlat(), opt_func=partial(SGD, mom=.9), lr=.05)
    c = compare(make, {'a': constant(), 'b': one_cycle()}, n_epoch=2, seeds=10, with_bar=False, grads=False)
    assert (c.df.end=='failed').sum()<=1

def test_targets_that_a_loss_ignores_do_not_count():
    y = torch.tensor([0, 1, 1, -100, -100])
    assert constant_loss(nn.CrossEntropyLoss(), [[y]])==pytest.approx(constant_loss(nn.CrossEntropyLoss(), [[y[:3]]]))
    assert constant_loss(CrossEntropyLossFlat(ignore_index=1), [[torch.tensor([0, 0, 1, 2])]])==pytest.approx(
        -2/3*np.log(2/3) - np.log(1/3)/3)

# ends

class Blind(nn.Module):
    "Knows nothing of its input"
    def __init__(self, scale=0.):
        super().__init__()
        self.bias,self.scale = nn.Parameter(.1*torch.randn(10)),scale
    def forward(self, x): return self.bias.expand(len(x), -1) + self.scale*torch.randn(len(x), 10)

def make_blind(seed, scale=1.):
    dls = digits_dls()
    torch.manual_seed(seed)
    return Learner(dls, Blind(scale), loss_func=CrossEntropyLossFlat(), metrics=accuracy, lr=.01)

def test_a_run_that_learned_nothing_failed(tmp_path):
    "It ends with a finite loss, and before that counted as one that ended well"
    c = compare(make_blind, {'a': constant(), 'b': one_cycle()}, n_epoch=1, seeds=2, out=tmp_path, with_bar=False)
    assert (c.df.end=='failed').all() and c.outcomes.isna().all(axis=None)
    run = c.record['runs'][0]
    shares = np.bincount(torch.cat([y for _,y in digits_dls(bs=1437).train]).numpy())/1437
    entropy = -(shares*np.log(shares)).sum()
    assert run['constant_loss']==pytest.approx(entropy, abs=2e-3), 'of all items but the last, which are dropped'
    assert run['final_loss']>run['constant_loss'] and run['why'].startswith('it learned nothing: its training loss was')
    again = read_record(tmp_path)
    assert again.df.end.tolist()==c.df.end.tolist() and 'Runs that failed' in report_markdown(again)

def test_a_run_that_learns_ends_well():
    c = compare(situation(), {'a': constant(moms=.9), 'b': one_cycle()}, n_epoch=1, seeds=2, lr_max=.2, with_bar=False)
    assert (c.df.end=='well').all() and c.df.why.isna().all() and not c.record['notes']

def test_the_users_own_rule_takes_the_place_of_ours(tmp_path):
    "And is no part of what was trained: it may change when the comparison goes on"
    with pytest.raises(ValueError, match="fail_if must take losses and metrics by name .*it raised KeyError: 'f1'"):
        compare(make_blind, {'a': constant(), 'b': one_cycle()}, n_epoch=1, seeds=1, with_bar=False,
                fail_if=lambda scores: scores['f1']<.5)
    go = lambda **kwargs: compare(make_blind, {'a': constant(), 'b': one_cycle()}, n_epoch=1, seeds=2, out=tmp_path,
                                  with_bar=False, **kwargs)
    first = go()
    c = go(fail_if=lambda scores: scores['accuracy']>.5)
    assert (c.df.end=='well').all() and (first.df.end=='failed').all()
    assert c.df.seconds.tolist()==first.df.seconds.tolist(), 'nothing is trained again'
    c = go(fail_if=lambda scores: True)
    assert (c.df.end=='failed').all() and c.df.why[0]=='fail_if says so' and 'scores: True' in c.record['fail_if']
    text = report_markdown(c)
    assert 'A run failed if this was true' in text and '# fail_if as described above' in text
    assert first.record['fail_if'] is None and 'A run failed if' not in report_markdown(first)
    with pytest.raises(ValueError, match='fail_if must be a function'): go(fail_if=3)

def test_where_nobody_knows_a_constant_the_report_says_so():
    smooth = partial(make_blind)
    def make(seed):
        learn = smooth(seed)
        learn.loss_func = LabelSmoothingCrossEntropy()
        return learn
    c = compare(make, {'a': constant(), 'b': one_cycle()}, n_epoch=1, seeds=1, with_bar=False)
    assert (c.df.end=='well').all() and c.record['runs'][0]['constant_loss'] is None
    assert 'a run that learned nothing counts as one that ended well' in c.record['notes'][0]

@pytest.mark.parametrize('lr,says', [(1e12, 'its loss was'), (1e20, 'its loss was')])
def test_an_exception_after_a_loss_that_is_not_finite_is_a_failed_run(lr, says):
    "Such as of a metric that refuses NaN: the divergence comes first"
    def wild(learn):
        learn.fit(1, lr)
        raise ValueError('Input contains NaN')
    c = compare(make_line, {'flat': constant(), 'wild': wild}, n_epoch=1, seeds=1, lr_max={'flat': .05}, with_bar=False,
                fail_if=never)
    assert c.df.end.tolist()==['well', 'failed'] and c.df.why[1].startswith(says)

def test_the_end_of_a_run_is_its_last_quarter():
    learn = make_line(0)
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle_ext(5, .05)
    losses = learn.recorder.history.steps['loss'].to_numpy()
    assert len(losses)==50 and np.array_equal(last_losses(learn.recorder.history, 20), losses[-13:])
    assert np.array_equal(last_losses(learn.recorder.history, 3), losses[-3:]), 'never more than an epoch'
    assert not len(last_losses(make_line(0).recorder.history, 10))
