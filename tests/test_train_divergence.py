"The rule for losses, and what is known of a training that was lost"
import math
from dataclasses import FrozenInstanceError
import numpy as np, pytest
from fastai.learner import Recorder
from fastai_clr_ext.train import *
from fastai_clr_ext.train.divergence import rate_to_try

def quartile(moves):
    present = sorted(m for m in moves if m)
    return present[len(present)//4] if present else 0

def slow(losses, factor, patience, skip, noise):
    "The rule once more, from its words: the first batch at which the loss has risen too far"
    smooth = [np.average(losses[:n], weights=.98**np.arange(n)[::-1]) for n in range(1, len(losses)+1)]
    moves = np.abs(np.diff(losses))
    for n in range(patience, len(losses)+1):
        best = int(np.argmin(smooth[:n])) + 1 # losses up to the best
        q = quartile(moves[max(best-51, 0):best-1])
        if best<=patience: q = quartile(moves[max(n-51, 0):n-1])
        if best<=patience and n>=21: q = min(quartile(moves[i:i+20]) for i in range(n-20))
        limit = factor*max(losses[0]-min(smooth[:n]), noise*q, 1e-6*abs(min(smooth[:n])))*(2 if n<=skip else 1)
        now,before = np.median(losses[n-patience:n]),losses[max(n-2*patience, 0):n-patience]
        rise = now-min(smooth[:n])
        falling = len(before) and rise<.9*(np.median(before)-min(smooth[:n]))
        if min(smooth[n-1]-min(smooth[:n]), rise)>limit and not falling: return n-1

def first_alarm(losses, **kwargs):
    trend = LossTrend(**kwargs)
    return next((i for i,loss in enumerate(losses) if trend.add(loss)), None)

@pytest.mark.parametrize('factor,patience,skip,noise', [(.6, 10, 50, 40), (.3, 3, 0, 5), (.2, 1, 5, 0),
                                                        (1.1, 5, 20, 10), (.5, 30, 0, 1)])
def test_the_rule_is_what_the_words_say(factor, patience, skip, noise):
    rng,found = np.random.default_rng(0),0
    for i in range(40):
        losses = np.cumsum(rng.normal(-.01, .2, 200)) + rng.normal(0, 1, 200)*rng.choice([.02, .5])
        if i%2: losses[120:] += np.linspace(0, 30, 80)
        got = first_alarm(losses.tolist(), factor=factor, patience=patience, skip=skip, noise=noise)
        assert got==slow(losses, factor, patience, skip, noise)
        found += got is not None
    assert found>5

def fit_losses(rng, kind):
    "Losses of a fit with noise, as several kinds of training give them"
    i = np.arange(300)
    falls = 2*np.exp(-i/40)
    if kind=='falls and explodes': return falls + rng.normal(0, .1, 300) + np.where(i>200, 1.1**(i-200.), 0)
    if kind=='back to the start': return np.where(i<200, falls, 2.) + rng.normal(0, .1, 300)
    if kind=='explodes at once': return 2 + 1.2**i
    if kind=='trained already': return 1 + rng.normal(0, .1, 300) + np.where(i>150, 3, 0)
    return falls + rng.normal(0, .1, 300)

@pytest.mark.parametrize('kind', ['falls and explodes', 'back to the start', 'explodes at once', 'trained already',
                                  'healthy'])
@pytest.mark.parametrize('scale,shift', [(1, -5), (1, -2), (1, 1000), (2.**-10, 0), (2.**12, -4096), (.5, -1)])
def test_a_constant_or_a_factor_changes_nothing(kind, scale, shift):
    for seed in range(5):
        losses = fit_losses(np.random.default_rng(seed), kind)
        plain,other = first_alarm(losses), first_alarm(losses*scale + shift)
        assert plain==other and (plain is None)==(kind=='healthy')

def test_losses_below_0_that_rise_are_found():
    rng = np.random.default_rng(0)
    for start,low,end in ((3., -2., 4.), (-1., -8., -1.5), (0., -1., 0.), (-5., -5.1, -4.)): # -log density, cosine
        losses = np.r_[np.linspace(start, low, 100), np.full(50, low), np.full(100, end)] + rng.normal(0, .01, 250)
        assert 150<first_alarm(losses)<210, (start, low, end)

@pytest.mark.parametrize('at', [0, 1, 5, 12, 25, 45])
@pytest.mark.parametrize('how', ['grows', 'jumps'])
def test_an_explosion_in_the_first_batches_is_found_soon(at, how):
    for seed in range(20):
        rng = np.random.default_rng(seed)
        i = np.arange(100)
        losses = 2 - .01*i + rng.normal(0, .1, 100)
        losses[at+1:] += (1.5**(i-at) if how=='grows' else 50*rng.uniform(.98, 1.02, 100))[at+1:]
        assert at < first_alarm(losses) < at+25

def test_spikes_at_the_start_and_a_loss_near_nothing_are_no_alarm():
    for losses in ([2., 500., 900., 2.]*5 + [2.]*100, [2.]*60 + [500.]*4 + [2.]*100,
                   [2.]*5 + [1e-6]*400 + [1e-3]*100, [-1.]*100 + [-1.5]*20 + [-1.3]*100, [100.]*40 + [1.]*100,
                   [2., *(2+20*.85**np.arange(100))], [2., 4., 5., 4., 3., 2.5, 2.2, *[2.]*50]):
        assert first_alarm(losses) is None, losses[:5]

def test_few_false_alarms_in_noise_that_learns_nothing():
    rng,found = np.random.default_rng(0),0
    for i in range(200):
        noise = [rng.normal(0, 1, 300), rng.standard_t(3, 300), rng.exponential(1, 300), rng.uniform(0, 1, 300)][i%4]
        found += first_alarm(noise) is not None
    assert found==0

@pytest.mark.parametrize('beta', [.5, .98])
def test_the_numbers_that_are_kept_by_plain_averages(beta):
    losses = np.random.default_rng(1).uniform(1, 3, 60)
    t,smooth = LossTrend(patience=7, beta=beta),[]
    for n,loss in enumerate(losses, 1):
        t.add(loss)
        smooth.append(np.average(losses[:n], weights=beta**np.arange(n)[::-1]))
        assert (t.n, t.first, t.last)==(n, losses[0], losses[max(n-14, 0):n].tolist())
        assert (t.smooth, t.best)==pytest.approx((smooth[-1], min(smooth)), rel=1e-12)
        assert t.is_good==(smooth[-1]-min(smooth) <= .1*t.scale)

def test_weights_are_good_before_the_first_loss_and_near_the_best():
    assert LossTrend().is_good and not LossTrend().has_fallen
    for losses,good,fallen in (([1.], True, False), ([3., 1.], True, True), ([3., 1., 1.1], True, True),
                               ([3., 1., 1.5], False, True), ([-1., -3., -2.9], True, True),
                               ([-1., -3., -2.5], False, True), ([3., 2., 1.], True, True)):
        t = LossTrend(beta=0., noise=0.) # no memory: the smoothed loss is the last one
        for loss in losses: t.add(loss)
        assert (t.is_good, t.has_fallen)==(good, fallen), losses
    rng,t = np.random.default_rng(0),LossTrend()
    for loss in 5 + rng.normal(0, 1, 200): t.add(loss)
    assert not t.has_fallen, 'noise alone is no fall'

@pytest.mark.parametrize('kwargs,losses,at', [
    (dict(skip=0, patience=1), [2, 1, 1.5, 1.7], 3), (dict(skip=4, patience=1), [2, 1, 1.7, 1.7, 1.8], 4),
    (dict(skip=0, patience=3), [2, 1, 1, 9, 1, 1, 9, 9], 7), (dict(skip=0, patience=3), [2, 1, 1, 9, 9], 4),
    (dict(skip=0, patience=1), [-2, -5, -4, -3], 3), (dict(skip=0, patience=1), [2, 1, 9, 5], 2),
    (dict(skip=2, patience=1), [2, 1, 1.9, 1.7], 2), (dict(skip=0, patience=1, noise=1.), [1, 1.1, 1.2, 2], 1),
    (dict(skip=0, patience=1, noise=20.), [1, 1.1, 1, 2.1, 4], 4)],
    ids=['factor', 'skip', 'median of 3', 'two of 3', 'below 0', 'at once', 'twice', 'little noise', 'much noise'])
def test_the_rule_by_hand(kwargs, losses, at):
    assert first_alarm(losses, beta=0., **dict(noise=0.) | kwargs)==at

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
