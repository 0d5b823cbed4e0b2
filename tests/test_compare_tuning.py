"Rates chosen by trials: the race, the edge of the grid, and what the choice leaves open"
import numpy as np, pytest
from scipy import stats
from compare_helpers import *
from bench import verdict as bench
from fastai_clr_ext.compare import *
from fastai_clr_ext.compare.tuning import contenders

nan = float('nan')

def trials(**means):
    "Four trials of each rate (`r03` is .3), close to its mean"
    return [(float(f'{name[1]}.{name[2:]}'), mean+e) for name,mean in means.items() for e in (-.003, -.001, .001, .003)]

def test_means_by_hand():
    rates = rate_means([(.1, .5), (.1, .7), (.3, .9), (.3, nan)], True)
    assert rates['mean'].tolist()==pytest.approx([.6, .5]), 'failed lies as far below .5 as .9 above it'
    assert rates.n.tolist()==[2, 2]
    assert rates.se.tolist()==pytest.approx([stats.sem([.5, .7]), stats.sem([.9, .1])])
    lower = rate_means([(.1, .5), (.1, .7), (.3, .9), (.3, nan)], False)
    assert lower['mean'].tolist()==pytest.approx([-.6, -(.9+1.3)/2]) and best_rate(lower)==.1
    assert best_rate(rate_means([(.1, .5), (.3, .5)], True))==.1, 'of equal rates the lowest'

def test_nothing_more_is_tried_where_the_best_is_clear():
    assert next_rates(rate_means(trials(r003=.5, r01=.9, r03=.7), True), 3, 20)=={}

@pytest.mark.parametrize('means,beyond', [(dict(r003=.9, r01=.8, r03=.7), .009),
                                          (dict(r003=.5, r01=.6, r03=.9), .9)], ids=str)
def test_a_best_rate_at_the_edge_asks_for_the_next(means, beyond):
    "Up to three more, then the race begins"
    scores = trials(**means)
    assert next_rates(rate_means(scores, True), 3, 4)==pytest.approx({beyond: MIN_TRIALS})
    for i in range(MOST_EXTRA):
        rate, = next_rates(rate_means(scores, True), 3, 4)
        scores += [(rate, 1+i+e) for e in (0, 1e-3, 2e-3, 3e-3)]
    assert next_rates(rate_means(scores, True), 3, 4)=={}, 'within a limit'

def test_a_rate_that_failed_is_never_chosen_over_one_that_did_not():
    "Also where all others are equal, and the lowest would be taken"
    for good in (1., 0., -3., 1e-9):
        scores = [(.001, nan)]*4 + [(.01, good)]*4 + [(.1, good)]*4
        assert best_rate(rate_means(scores, True))==.01==best_rate(rate_means(scores, False))

@pytest.mark.parametrize('tried', [(1., 1.001), (1e-3, 1e8), (.1, .1001, .1002)], ids=str)
def test_the_race_ends(tried):
    "Rates so close that the next one is rounded to one of them, or so large that nobody may train with it"
    scores = {lr: [i+e for e in (0, .1, .2, .3)] for i,lr in enumerate(tried)}
    for _ in range(10):
        wanted = next_rates(rate_means([(lr, y) for lr,ys in scores.items() for y in ys], True), len(tried), 8)
        if not wanted: break
        for lr,n in wanted.items():
            before = scores.setdefault(lr, [])
            assert n>len(before) and 0<lr<=1e9
            before += [10*lr]*(n-len(before))
    else: raise AssertionError('it goes on and on')

def test_many_rates():
    assert tuning_noise(rate_means([(lr, lr+e) for lr in np.geomspace(.01, .3, 100) for e in (0, .1)], True))>0

def test_where_all_trials_failed_the_grid_is_not_extended():
    assert next_rates(rate_means([(lr, nan) for lr in (.1, .3) for _ in range(4)], True), 2, 4)=={}

def test_rates_that_may_be_the_best_race_on():
    "The others are out; each round doubles the trials, up to the seeds of the comparison; nobody loses a trial"
    scores = trials(r003=.5, r01=.9, r03=.9001, r1=.3)
    assert next_rates(rate_means(scores, True), 4, 20)=={.1: 8, .3: 8}
    assert next_rates(rate_means(scores, True), 4, 6)=={.1: 6, .3: 6} and next_rates(rate_means(scores, True), 4, 4)=={}
    scores += [(.1, .9)]*4
    assert next_rates(rate_means(scores, True), 4, 20)=={.3: 8}, 'who is behind catches up'

def test_the_noise_is_that_of_choosing_again():
    "Two rates: a normal difference decides, so the chance of each is known"
    rates = rate_means(trials(r01=.90, r03=.902), True)
    sd = np.sqrt((rates.se**2*4).mean()) # one spread for all
    z = .002/(1.14*sd*(2/4)**.5)
    p = stats.norm.cdf(z)
    assert tuning_noise(rates)==pytest.approx(.002*(p*(1-p))**.5, rel=.05)
    assert tuning_noise(rates)==tuning_noise(rates), 'the same every time'
    assert tuning_noise(rate_means(trials(r01=.9, r03=.5), True))==pytest.approx(0, abs=1e-12)
    assert tuning_noise(rate_means(trials(r01=.9), True))==pytest.approx(0, abs=1e-12), 'one rate: no choice'

@pytest.mark.parametrize('n', [5, 20])
def test_equally_good_policies_are_rarely_told_apart_however_they_were_tuned(n):
    "Before: 16 and 39 %. The full table is in the docs"
    wrong,n_trials = bench.tuned_errors(n, .75, 250)
    assert wrong<=.09 and n_trials<3*n+3*3

def test_a_rate_that_collapsed_now_and_then_is_not_in_the_race():
    "Its error is so large that it would win in one repetition of a hundred, and make the noise ten times larger"
    scores = trials(r003=.95, r01=.956) + [(1., y) for y in (.9, .7, .4, .8)]
    rates = rate_means(scores, True)
    assert list(contenders(rates).index)==[.1] and tuning_noise(rates)<1e-3
    assert rates.se[1.]>.1

def test_one_explosion_hides_nothing():
    "Where a score has no lower bound, how far below it lies tells nothing about the other trials"
    tried = {.1: [.40, .42, .41, .43], .3: [.50, .51, .49, .52], 1.: [.5, .51, -1e4, float('nan')]}
    scores = [(lr, y) for lr,ys in tried.items() for y in ys]
    loose,tight = rate_means(scores, True),rate_means(scores, True, is_bounded=False)
    assert best_rate(loose)==best_rate(tight)==.3
    assert tuning_noise(loose)>100 and tuning_noise(tight)<.05
    flipped = [(lr, -y) for lr,y in scores]
    assert rate_means(flipped, False, is_bounded=False).equals(tight), 'whichever way is better'
    most_are_best = rate_means([(.1, 1.), (.3, 1.), (1., .5)], True, is_bounded=False)
    assert most_are_best['mean'][1.]==1-5e-3
