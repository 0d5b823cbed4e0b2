"The rule for losses, and what is known of a training that was lost"
import math
from dataclasses import FrozenInstanceError
import numpy as np, pytest
from fastai.learner import Recorder
from fastai_clr_ext.train import *
from fastai_clr_ext.train.divergence import rate_to_try

def slow(losses, factor, patience, skip, floor):
    "The rule once more, from its words: the first batch that is too high"
    smooth = [np.average(losses[:n], weights=.98**np.arange(n)[::-1]) for n in range(1, len(losses)+1)]
    high = [i>=skip and i+1>=patience
            and min(np.median(losses[i+1-patience:i+1]), smooth[i]) > factor*max(min(smooth[:i+1]), floor*losses[0])
            for i in range(len(losses))]
    return high.index(True) if any(high) else None

@pytest.mark.parametrize('factor,patience,skip,floor', [(4, 10, 50, .01), (1.2, 3, 0, 0), (2, 1, 5, .5),
                                                        (1.1, 5, 20, .01)])
def test_the_rule_is_what_the_words_say(factor, patience, skip, floor):
    rng,found = np.random.default_rng(0),0
    for _ in range(30):
        losses = np.exp(np.cumsum(rng.normal(0, .2, 200)))
        t = LossTrend(factor, patience, skip, floor)
        got = next((i for i,l in enumerate(losses) if t.add(l)), None)
        assert got==slow(losses, factor, patience, skip, floor)
        found += got is not None
    assert found>5

def test_spikes_at_the_start_and_a_loss_near_nothing_are_no_alarm():
    for losses in ([2., 500., 900., 2.]*5 + [2.]*100, [2.]*60 + [500.]*4 + [2.]*100,
                   [2.]*5 + [1e-6]*400 + [1e-3]*100, [-1.]*100 + [-.1]*100, [100.]*40 + [1.]*100):
        t = LossTrend()
        assert not any(t.add(l) for l in losses), losses[:5]

def test_what_explodes_during_the_first_batches_is_called_after_them():
    t = LossTrend(skip=50)
    assert [t.add(l) for l in [2.]*5 + [1e6]*100].index(True)==50

@pytest.mark.parametrize('beta', [.5, .98])
def test_the_numbers_that_are_kept_by_plain_averages(beta):
    losses = np.random.default_rng(1).uniform(1, 3, 60)
    t,smooth = LossTrend(patience=7, beta=beta),[]
    for n,loss in enumerate(losses, 1):
        t.add(loss)
        smooth.append(np.average(losses[:n], weights=beta**np.arange(n)[::-1]))
        assert (t.n, t.first, t.last)==(n, losses[0], losses[max(n-7, 0):n].tolist())
        assert (t.smooth, t.best)==pytest.approx((smooth[-1], min(smooth)), rel=1e-12)
        assert t.is_good==(smooth[-1]<=1.1*min(smooth))

def test_weights_are_good_before_the_first_loss_and_near_the_best():
    assert LossTrend().is_good
    for losses,good in (([1.], True), ([1., 1.1], True), ([1., 1.5], False), ([-1., -.95], True), ([-1., -.5], False),
                        ([3., 2., 1.], True)):
        t = LossTrend(beta=0.) # no memory: the smoothed loss is the last one
        for loss in losses: t.add(loss)
        assert t.is_good==good, losses

@pytest.mark.parametrize('kwargs,losses,at', [
    (dict(skip=0, patience=1, beta=0.), [1, 4, 4.1], 2), (dict(skip=3, patience=1, beta=0.), [1, 9, 9, 9, 9], 3),
    (dict(skip=0, patience=3, beta=0.), [1, 9, 1, 1, 9, 9], 5), (dict(skip=0, patience=3, beta=0.), [1, 9, 9, 9], 2),
    (dict(skip=0, patience=1, beta=0., floor=.5), [1, .001, 1.9, 2.1], 3),
    (dict(skip=0, patience=1, beta=0., floor=0.), [1, .001, .0041], 2),
    (dict(skip=0, patience=1, beta=0.), [-1, -1, 5], None), (dict(skip=0, patience=1, beta=0.), [0, 9, 9], None)],
    ids=['factor', 'skip', 'median of 3', 'two of 3', 'floor', 'no floor', 'below 0', 'best of 0'])
def test_the_rule_by_hand(kwargs, losses, at):
    t = LossTrend(factor=4., **kwargs)
    got = [t.add(loss) for loss in losses]
    assert (got.index(True) if any(got) else None)==at

FOUND = dict(reason='loss', train_iter=120, step=60, epoch=3, found=124, stage='', phase='', lr=(.01, .5), lr_best=.25,
             lr_try=.0625, loss=812.3456, smooth_loss=77.70001, best_loss=1.25, grad_norm=1e4, eff_step=math.nan,
             param='', action='stopped')

def test_the_text_says_where_why_and_what_to_try():
    assert str(Divergence(**FOUND))==(
        'The training diverged (loss) at batch 120, epoch 3, with the rate at 0.5, and was stopped: loss 812.3, '
        'smoothed 77.7, best 1.25 at a rate of 0.25; gradient norm 1e+04. '
        'Try a peak rate of 0.062, or a longer warm-up.')
    text = str(Divergence(**FOUND | dict(stage='head', phase='warm-up', param='0.weight', action='rewound',
                                         reason='non-finite gradient', loss=math.nan, grad_norm=math.inf)))
    assert "(non-finite gradient) at batch 120, epoch 3, stage 'head', warm-up, with" in text
    assert 'was rewound: loss nan,' in text and 'gradient norm inf. The first parameter to go was 0.weight. Try' in text

def test_what_was_found_is_kept_by_the_recorder(mlp):
    learn = mlp()
    assert learn.recorder.divergence is None and 'divergences' not in vars(learn.recorder), 'asking writes nothing'
    first,last = Divergence(**FOUND),Divergence(**FOUND | dict(train_iter=7))
    for found in (first, last): divergences(learn).append(found)
    assert learn.recorder.divergence is last and divergences(learn)==[first, last]
    with pytest.raises(FrozenInstanceError): last.loss = 0.
    learn.remove_cb(Recorder)
    learn.model.recorder = 'of the model'
    assert divergences(learn)==[], 'nothing is kept without a Recorder'

def test_the_rate_to_try_by_hand():
    assert rate_to_try(.8, has_fallen=True)==.2 and rate_to_try(.8, has_fallen=False)==.008
