import numpy as np, pandas as pd, pytest
from scipy.stats import binom
from fastai_clr_ext.compare import *

rng = lambda: np.random.default_rng(0)

@pytest.mark.parametrize('k,n,level,want', [(1, 5, .95, (.036224, .624465)), (0, 10, .95, (0, .277533)),
                                            (81, 263, .95, (.255289, .366208))], ids=str)
def test_wilson_against_its_formula(k, n, level, want):
    "want: worked out from (p + z²/2n ± z√(p(1-p)/n + z²/4n²))/(1 + z²/n); the last is Newcombe's (1998) example"
    z,p = 1.959964,k/n
    mid,half = (p + z*z/2/n)/(1+z*z/n), z*np.sqrt(p*(1-p)/n + z*z/4/n/n)/(1+z*z/n)
    got = wilson_interval(k, n, level)
    assert got==pytest.approx((mid-half, mid+half), abs=1e-6) and got==pytest.approx(want, abs=2e-4)

def test_wilson_keeps_its_level_on_average():
    "The exact share of intervals that hold the truth, averaged over all of it"
    n,hit = 10,[]
    ends = [wilson_interval(k, n) for k in range(n+1)]
    for p in np.linspace(.01, .99, 99):
        hit.append(sum(binom.pmf(k, n, p) for k,(lo,hi) in enumerate(ends) if lo<=p<=hi))
    assert .93 < np.mean(hit) < .97

@pytest.mark.parametrize('n', [2, 3, 5, 20])
def test_t_interval_holds_the_mean_as_often_as_it_says(n):
    d = rng().normal(.3, 2, (20_000, n))
    lo,hi = mean_interval(d)
    assert .945 < ((lo<.3) & (.3<hi)).mean() < .955

def test_bootstrap_needs_more_seeds():
    d = rng().exponential(1, (300, 40))
    lo,hi = mean_interval(d, method='bootstrap')
    assert .9 < ((lo<1) & (1<hi)).mean() < .98
    assert np.array_equal(lo, mean_interval(d, method='bootstrap')[0]), 'the same every time'

def test_no_spread_no_interval():
    d = np.array([[0., 0, 0], [.1+.2, .3, .3], [1, 2, 3]])
    for method in INTERVALS:
        lo,hi = mean_interval(d, method=method)
        assert np.isnan(lo).tolist()==np.isnan(hi).tolist()==[True, True, False]
    assert np.isnan(mean_interval(np.zeros((2, 0)))[0]).all()

@pytest.mark.parametrize('base', [(300, 341), (300, 341, 17, 359)], ids=str)
def test_the_same_difference_in_float32_has_no_interval(base):
    "One more of 360 is right on every seed: an accuracy's rounding is no spread"
    acc = lambda n: np.float64(np.float32(n/360))
    df = pd.DataFrame([dict(a=acc(n), b=acc(n+1)) for n in base])
    row = paired_summary(df).loc['b']
    assert np.ptp(df.b-df.a)>0 and np.isnan(row.gain_lo) and row.verdict=='cannot tell' and row.n_better==len(base)
    df.loc[0, 'b'] = acc(base[0]+2)
    assert paired_summary(df).gain_hi['b']>0

@pytest.mark.parametrize('effect,n', [(1., 5), (.5, 20), (2., 3)])
def test_power_is_what_simulation_finds(effect, n):
    lo,hi = mean_interval(rng().normal(effect, 1, (20_000, n)))
    assert t_power(effect, 1, n)==pytest.approx(((lo>0) | (hi<0)).mean(), abs=.012)

def test_power_at_the_ends():
    assert (t_power(0, 1, 8)==pytest.approx(.05) and t_power(1e6, 1, 5)==1 and seeds_needed(1e6, 1)==2
            and seeds_needed(1e-9, 1) is None)
    for d in (.2, .7, 1.5):
        n = seeds_needed(d, 1)
        assert t_power(d, 1, n)>=.8>t_power(d, 1, n-1)

def planted(effect, n_seeds, n, sd=1., lost=0., seed=0):
    "Simulated comparisons: what a seed shares is ten times the noise between runs"
    r = np.random.default_rng(seed)
    for _ in range(n):
        shared = r.normal(0, 10, n_seeds)
        runs = {k: shared + r.normal(e, sd/2**.5, n_seeds) for k,e in effect.items()}
        df = pd.DataFrame(runs)
        yield df.mask(r.random(df.shape)<lost)

def verdicts(tables, name, **kwargs):
    return pd.Series([paired_summary(t, **kwargs).verdict[name] for t in tables]).value_counts(normalize=True)

def test_the_same_policy_twice_cannot_be_told_apart():
    "In at least 90 % of 200 comparisons, also when runs are lost"
    assert verdicts(planted({'a': 0, 'b': 0}, 5, 200), 'b')['cannot tell'] >= .9
    assert verdicts(planted({'a': 0, 'b': 0}, 12, 200, lost=.3), 'b')['cannot tell'] >= .9

def test_a_planted_effect_is_found_at_the_stated_power():
    n = seeds_needed(1.2, 1)
    found = verdicts(planted({'a': 0, 'b': 1.2}, n, 300), 'b')
    assert found['worked']==pytest.approx(float(t_power(1.2, 1, n)), abs=.06) and found.get('did not', 0)==0
    worse = verdicts(planted({'a': 0, 'b': 1.2}, n, 100), 'b', higher=False)
    assert worse['did not']>.7 and worse.get('worked', 0)==0, 'where lower is better it is the other way round'

def test_four_policies_at_once_are_corrected():
    "One false verdict or more among three in no more than about 5 % of comparisons; without correction, in 12 %"
    tables = list(planted(dict.fromkeys('abcd', 0), 6, 200))
    wrong = np.mean([(paired_summary(t).verdict[1:]!='cannot tell').any() for t in tables])
    lo,hi = mean_interval(np.stack([t[list('bcd')].to_numpy()-t[['a']].to_numpy() for t in tables]).swapaxes(1, 2))
    assert wrong<.08<((lo>0) | (hi<0)).any(1).mean()

def test_looking_after_every_seed_finds_what_is_not_there():
    "The number in Limits: ten looks, one after each new seed from the second on"
    d = rng().normal(0, 1, (20_000, 11))
    found = np.zeros(len(d), dtype=bool)
    for n in range(2, 12):
        lo,hi = mean_interval(d[:,:n])
        found |= (lo>0) | (hi<0)
    assert .15 < found.mean() < .3

@pytest.mark.parametrize('args,want', [
    (dict(low=.1, high=.2), 'worked'), (dict(low=-.2, high=-.1), 'did not'), (dict(low=-.1, high=.1), 'cannot tell'),
    (dict(low=0, high=0), 'cannot tell'), (dict(low=np.nan, high=np.nan), 'cannot tell'),
    (dict(low=.1, high=.2, n_lost=1), 'cannot tell'), (dict(low=.1, high=.2, n_lost=1, n_saved=1), 'worked'),
    (dict(low=.1, high=.2, n_lost=6), 'cannot tell'), (dict(low=-.2, high=-.1, n_saved=6), 'cannot tell'),
    (dict(low=np.nan, high=np.nan, n_lost=6), 'did not'), (dict(low=np.nan, high=np.nan, n_lost=5), 'cannot tell'),
    (dict(low=np.nan, high=np.nan, n_saved=6), 'worked'), (dict(low=.1, high=.3, margin=.2), 'cannot tell'),
    (dict(low=.1, high=.15, margin=.2), 'did not')], ids=str)
def test_decide_verdict(args, want): assert decide_verdict(**args)==want

def test_summary_by_hand():
    df = pd.DataFrame({'a': [1., 2, 3, np.nan], 'b': [2., 2, 5, 4], 'c': [np.nan]*4})
    s = paired_summary(df)
    assert (s.gain.tolist()[1]==1 and s.n_pairs.tolist()[1:]==[3, 0] and s.n_better.tolist()[1:]==[2, 0]
            and s.n_lost.tolist()==[1, 0, 4])
    assert (s.gain_lo['b']
            ==pytest.approx(1 - 6.2053/3**.5, abs=1e-3)), 't of 2 degrees at 97.5 %: two policies against one'
    assert s.verdict.tolist()==['baseline', 'cannot tell', 'cannot tell'] and pd.isna(s.gain['c'])
    assert paired_summary(df, baseline='b').gain['a']==-1
    assert 'never both ended well' in verdict_sentences(s)[1] and '4 of 4 runs were lost' in verdict_sentences(s)[1]

def test_one_seed_is_said():
    s = paired_summary(pd.DataFrame({'a': [1.], 'b': [2.]}))
    assert s.verdict['b']=='cannot tell' and 'no interval' in verdict_sentences(s)[0] and pd.isna(s.seeds_needed['b'])

@pytest.mark.parametrize('kwargs,says', [(dict(baseline='z'), 'baseline must'), (dict(level=1), 'level must'),
                                         (dict(margin=-1), 'margin must'), (dict(method='z'), 'method must')])
def test_bad_input(kwargs, says):
    with pytest.raises(ValueError, match=says): paired_summary(pd.DataFrame({'a': [1., 2], 'b': [2., 4]}), **kwargs)

def test_fewer_lost_runs_do_not_make_a_worse_policy_work():
    nan = float('nan')
    s = paired_summary(pd.DataFrame(dict(a=[.9, .92] + [nan]*6, b=[.1, .12] + [.1]*6)))
    assert s.verdict['b']=='cannot tell' and 'a lost 6 of 8' in verdict_sentences(s)[0]

def test_lost_runs_are_not_made_good_by_more_seeds():
    nan = float('nan')
    s = paired_summary(pd.DataFrame(dict(a=[.5]*8, b=[nan]*3 + [.52, .58, .53, .56, .57])))
    assert s.verdict['b']=='cannot tell' and 'more seed' not in verdict_sentences(s)[0]

def test_more_seeds_are_counted_from_pairs():
    "Of ten seeds half are lost; as many of the next will be"
    r = np.random.default_rng(3)
    a = r.normal(0, 1, 10)
    df = pd.DataFrame(dict(a=a, b=a + .8 + r.normal(0, 2, 10)))
    df.loc[:4] = np.nan
    row = paired_summary(df).loc['b']
    assert row.verdict=='cannot tell' and row.n_pairs==5 and row.seeds_needed>6
    assert f'about {2*(row.seeds_needed-5)} more seeds' in verdict_sentences(paired_summary(df))[0]

def test_no_gain_is_neither_better_nor_worse():
    df = pd.DataFrame({'a': [.5, .6, .7], 'b': [.6, .5, .7]})
    sentence, = verdict_sentences(paired_summary(df))
    assert 'On average equal to a' in sentence and 'worse' not in sentence

@pytest.mark.parametrize('df,says', [
    (pd.DataFrame([[.1, .2], [.3, .4]], columns=['a', 'a']), 'the columns of outcomes must have one name each'),
    (pd.DataFrame({'a': [.1, .2], 'b': [.1, float('inf')]}),
     r"outcomes must be numbers, or NaN for a lost run; got \['b'\]"),
    (pd.DataFrame({'a': [.1, .2], 'b': ['x', 'y']}), r"outcomes must be numbers, or NaN for a lost run; got \['b'\]"),
    (pd.DataFrame({'a': []}), 'outcomes must have a column for each policy and a row')])
def test_outcomes_that_can_not_be_judged(df, says):
    with pytest.raises(ValueError, match=says): paired_summary(df)
