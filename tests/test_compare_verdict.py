"Verdicts: intervals, failed runs, errors, margins, and how often all of it is wrong"
import math
import numpy as np, pandas as pd, pytest
from scipy import stats
from scipy.stats import binom
from statsmodels.stats.proportion import proportion_confint
from statsmodels.stats.weightstats import DescrStatsW, ttost_paired
from bench import verdict as bench
from fastai_clr_ext.compare import *

nan = float('nan')
rng = lambda: np.random.default_rng(0)

# Intervals

@pytest.mark.parametrize('n', [2, 3, 5, 20])
def test_t_interval_holds_the_mean_as_often_as_it_says(n):
    d = rng().normal(.3, 2, (20_000, n))
    lo,hi = mean_interval(d)
    assert .945 < ((lo<.3) & (.3<hi)).mean() < .955

@pytest.mark.parametrize('level', [.5, .95, .9999])
def test_t_interval_is_that_of_statsmodels(level):
    d = rng().exponential(1, 7)
    assert mean_interval(d, level)==pytest.approx(DescrStatsW(d).tconfint_mean(1-level), rel=1e-12)

def test_further_uncertainty_widens_it():
    "Variances add up; alone it is what is left"
    d = rng().normal(0, 1, 9)
    half = lambda **kwargs: np.diff(mean_interval(d, **kwargs))[0]/2
    assert half(extra_sd=.7)==pytest.approx(math.hypot(half(), stats.t.ppf(.975, 8)*.7))
    assert np.diff(mean_interval([.1]*9, extra_sd=.7))/2==pytest.approx(stats.t.ppf(.975, 8)*.7)
    assert np.isnan(mean_interval([.1]*3, extra_sd=.7)).all(), 'equal differences do not become evidence by it'

@pytest.mark.parametrize('n,level,has', [(1, .95, False), (5, .95, False), (6, .95, True), (6, .97, False),
                                         (4, .8, True), (20, .9999, True)])
def test_equal_differences_have_an_interval_once_their_sign_cannot_be_chance(n, level, has):
    "2·2⁻ⁿ ≤ 1-level, the sign-flip test of n equal differences"
    lo,hi = mean_interval([.25]*n, level)
    assert (lo==hi==.25) if has else (np.isnan(lo) and np.isnan(hi))
    assert has==(stats.permutation_test((np.full(n, .25),), np.mean, permutation_type='samples', n_resamples=np.inf,
                                        alternative='two-sided').pvalue<=1-level) if 1<n<=6 else True

@pytest.mark.parametrize('k,n,level', [(0, 5, .95), (1, 5, .95), (81, 263, .95), (7, 7, .9), (3, 8, .999)])
def test_share_interval_is_that_of_clopper_and_pearson(k, n, level):
    assert share_interval(k, n, level)==pytest.approx(proportion_confint(k, n, 1-level, 'beta'), abs=1e-12)

def test_share_interval_never_holds_less_than_its_level():
    n,ends = 10,[share_interval(k, 10) for k in range(11)]
    for p in np.linspace(.01, .99, 99):
        assert sum(binom.pmf(k, n, p) for k,(lo,hi) in enumerate(ends) if lo<=p<=hi)>=.95
    assert share_interval(0, 0)==(0, 1)

def test_failures_are_tested_exactly():
    "By hand: 10!/(5!5!) = 252 ways to choose the five of ten that fail, two of which are as unlike as 5 and 0"
    assert failure_test(5, 0, 5)==pytest.approx(2/252) and failure_test(2, 2, 5)==1
    assert failure_test(0, 5, 5)==failure_test(5, 0, 5)

# Seeds

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

def test_seeds_are_recommended_from_the_margin_and_never_from_the_gain():
    df = pd.DataFrame(dict(a=[0.]*8, b=rng().normal(.1, 1, 8)))
    assert pd.isna(paired_summary(df).seeds_needed['b'])
    needed = paired_summary(df, margin=.5).seeds_needed['b']
    assert needed==seeds_needed(.5, df.b.std())==paired_summary(df.assign(b=df.b+3), margin=.5).seeds_needed['b']
    for sentence in verdict_sentences(paired_summary(df, margin=.5)): assert 'more seed' not in sentence

# The rule

@pytest.mark.parametrize('args,want', [
    (dict(low=.1, high=.2), 'worked'), (dict(low=-.2, high=-.1), 'did worse'),
    (dict(low=-.1, high=.1), 'cannot tell'), (dict(low=0, high=0), 'cannot tell'),
    (dict(low=nan, high=nan), 'cannot tell'), (dict(low=.1, high=.3, margin=.2), 'cannot tell'),
    (dict(low=.21, high=.3, margin=.2), 'worked'), (dict(low=-.3, high=-.21, margin=.2), 'did worse'),
    (dict(low=-.3, high=-.1, margin=.2), 'cannot tell'), (dict(low=.1, high=.15, margin=.2), 'made no difference'),
    (dict(low=-.2, high=.2, margin=.2), 'made no difference'), (dict(low=0, high=0, margin=.2), 'made no difference'),
    (dict(low=-.1, high=.1, by_failures=-1), 'did worse'), (dict(low=-.1, high=.2, by_failures=1), 'worked'),
    (dict(low=.1, high=.2, by_failures=-1), 'cannot tell'), (dict(low=-.2, high=-.1, by_failures=1), 'cannot tell'),
    (dict(low=-.2, high=.1, by_failures=1), 'cannot tell'), (dict(low=nan, high=nan, by_failures=-1), 'did worse'),
    (dict(low=-.1, high=.1, margin=.2, by_failures=-1), 'did worse'),
    (dict(low=.1, high=.2, better=(.1, .4)), 'cannot tell'), (dict(low=-.2, high=-.1, better=(.6, .9)), 'cannot tell'),
    (dict(low=.1, high=.2, better=(.3, .9)), 'worked'),
    (dict(low=-.1, high=.2, by_failures=1, better=(.1, .4)), 'cannot tell')], ids=str)
def test_decide_verdict(args, want):
    verdict,why = decide_verdict(**args)
    by_interval = verdict!='cannot tell' and not args.get('by_failures')
    assert verdict==want and bool(why)==(not by_interval or 'failed more' in why), 'a reason, unless it is the interval'

def test_summary_by_hand():
    "The failed runs count as 1, the worst that was reached; two policies share the error, and failures a fifth of it"
    df = pd.DataFrame({'a': [1., 2, 3, nan], 'b': [2., 2, 5, 4], 'c': [nan]*4})
    s = paired_summary(df)
    assert s.n_failed.tolist()==[1, 0, 4] and s['mean'].tolist()==[1.75, 3.25, 1]
    d = np.array([1, 0, 2, 3.])
    half = stats.t.ppf(1 - .8*.025/2, 3)*d.std(ddof=1)/2
    assert (s.gain['b'], s.gain_lo['b'], s.gain_hi['b'])==pytest.approx((1.5, 1.5-half, 1.5+half))
    assert s.effect['b']==pytest.approx(1.5/d.std(ddof=1)) and (s.n_better['b'], s.n_worse['b'])==(3, 0)
    assert (s.better_lo['b'], s.better_hi['b'])==pytest.approx(proportion_confint(3, 3, .8*.025, 'beta'))
    assert s.verdict.tolist()==['baseline', 'cannot tell', 'cannot tell'] and s.gain['c']==-.75
    assert paired_summary(df, baseline='b').gain['a']==-1.5
    assert paired_summary(df, higher=False).failed_as['a']==5, 'less is better: the worst is the highest'

def test_a_failed_run_counts_as_what_is_said():
    df = pd.DataFrame(dict(a=[.9, .8, .85], b=[.95, nan, .9]))
    assert paired_summary(df).gain['b']==pytest.approx(.1/3) and paired_summary(df).failed_as['b']==.8
    s = paired_summary(df, fail_score=.1)
    assert s.gain['b']==pytest.approx((.05-.7+.05)/3) and s.failed_as['b']==.1 and np.isnan(s.failed_as['a'])
    assert 'a failed run counts as 0.1.' in verdict_sentences(s)[0]

def test_margins_are_two_one_sided_tests():
    "statsmodels' p value of the two is at most half the error wherever we say that there is no difference"
    r,seen = rng(),set()
    for _ in range(300):
        df = pd.DataFrame(r.normal(0, .5, (8, 2)) + r.normal(0, 1, (8, 1)), columns=['a', 'b'])
        verdict = paired_summary(df, margin=.5).verdict['b']
        p = ttost_paired(df.b.to_numpy(), df.a.to_numpy(), -.5, .5)[0]
        assert (verdict=='made no difference')==(p<=.025)
        seen.add(verdict)
    assert {'made no difference', 'cannot tell'}<=seen

def test_no_difference_that_matters_also_where_the_interval_leaves_out_0():
    df = pd.DataFrame(dict(a=np.linspace(.8, .9, 20)))
    df['b'] = df.a + 1/360
    s = paired_summary(df, margin=.01)
    assert s.verdict['b']=='made no difference' and s.gain_lo['b']>0
    said = verdict_sentences(s, margin=.01)[0]
    assert 'lies within ±0.01, the smallest difference that matters, though it leaves out 0' in said
    assert paired_summary(df).verdict['b']=='worked', 'the same difference on 20 of 20 seeds is no chance'

def test_without_a_margin_there_is_no_such_verdict():
    df = pd.DataFrame(dict(a=np.arange(30.), b=np.arange(30.)))
    assert paired_summary(df).verdict['b']=='cannot tell' and paired_summary(df).why['b']=='the outcomes are equal'
    assert paired_summary(df, margin=1e-9).verdict['b']=='made no difference'

# What the audit found

def test_lost_runs_of_the_baseline_speak_for_the_policy():
    "Before: 'did not', because the pairs with a lost run were left out"
    df = pd.DataFrame(dict(a=[.95, nan, .95, nan, .96, nan, nan, .95, nan, nan],
                           b=[.94, .95, .95, .94, .95, .95, .96, .94, .95, .95]))
    assert paired_summary(df, fail_score=.1).verdict['b']=='worked'
    assert paired_summary(df.rename(columns=dict(a='b', b='a')), fail_score=.1, baseline='a').verdict['b']=='did worse'

def test_a_policy_that_always_fails_did_worse_from_five_seeds_on():
    df = pd.DataFrame(dict(a=[.9, .91, .9, .89, .9], b=[nan]*5))
    assert paired_summary(df).verdict['b']=='did worse' and paired_summary(df[:3]).verdict['b']=='cannot tell'
    assert paired_summary(df, baseline='b').verdict['a']=='worked'

def test_an_exception_is_no_evidence():
    "The policy has no result, the others are judged as if it were not there, but for their share of the error"
    df = pd.DataFrame(dict(a=[.9, .91, .92, .93], b=[.95, nan, .96, .97], c=[.8, .81, .8, .82]))
    errors = df.isna()
    s = paired_summary(df, errors=errors)
    assert s.verdict.tolist()==['baseline', 'no result', 'did worse'] and np.isnan(s.gain['b'])
    assert (s.n_seeds['b'], s.n_errors['b'], s.n_failed['b'])==(3, 1, 0) and s.mean(numeric_only=True)['n_failed']==0
    assert verdict_sentences(s)[0]=='b: no result, because an exception ended 1 run of b.'
    s = paired_summary(df, baseline='b', errors=errors)
    assert s.verdict.tolist()==['no result', 'baseline', 'no result'], 'nothing to compare with'
    assert 'ended 1 run of b' in verdict_sentences(s)[0]
    with pytest.raises(ValueError, match='errors must have the rows and'): paired_summary(df, errors=errors[['a', 'b']])
    with pytest.raises(ValueError, match='errors must be True or False'): paired_summary(df, errors=errors.astype(int))
    turned = errors[::-1][['c', 'a', 'b']]
    pd.testing.assert_frame_equal(paired_summary(df, errors=errors), paired_summary(df, errors=turned))

def test_one_huge_pair_hides_nothing():
    df = pd.DataFrame(dict(a=[1e9, 1, 1, 1, 1], b=[1e9, .5, .4, .3, .5]))
    s = paired_summary(df)
    assert np.isfinite(s.gain_lo['b']) and s.n_worse['b']==4

@pytest.mark.parametrize('base', [(300, 341), (300, 341, 17, 359)], ids=str)
def test_the_same_difference_in_float32_has_no_spread(base):
    "One more of 360 is right on every seed: an accuracy's rounding is no spread"
    acc = lambda n: np.float64(np.float32(n/360))
    df = pd.DataFrame([dict(a=acc(n), b=acc(n+1)) for n in base])
    row = paired_summary(df).loc['b']
    assert np.ptp(df.b-df.a)>0 and np.isnan(row.gain_lo) and row.verdict=='cannot tell' and row.n_better==len(base)
    df.loc[0, 'b'] = acc(base[0]+2)
    assert paired_summary(df).gain_hi['b']>0

def test_where_mean_and_seeds_point_apart_nobody_can_tell():
    "Worse on 19 of 20 seeds by a little, and once better by much: the mean alone may not decide"
    d = np.full(20, -.01) + rng().normal(0, 1e-4, 20)
    df = pd.DataFrame(dict(a=np.zeros(20), b=d))
    assert paired_summary(df).verdict['b']=='did worse'
    verdict,why = decide_verdict(.01, .3, better=share_interval(1, 20))
    assert verdict=='cannot tell' and why=='this is not what most seeds say'

@pytest.mark.parametrize('outlier', [1e6, -1e6, 1e15])
def test_a_huge_outlier_makes_no_verdict(outlier):
    d = rng().normal(0, 1, 10)
    d[3] = outlier
    assert paired_summary(pd.DataFrame(dict(a=np.zeros(10), b=d))).verdict['b']=='cannot tell'

def test_few_seeds_and_all_failed():
    one = paired_summary(pd.DataFrame({'a': [1.], 'b': [2.]}))
    assert one.verdict['b']=='cannot tell' and 'one seed: no interval' in verdict_sentences(one)[0]
    two = paired_summary(pd.DataFrame({'a': [1., 1.1], 'b': [2., 2.2]}))
    assert np.isfinite(two.gain_lo['b'])
    none = paired_summary(pd.DataFrame({'a': [nan]*9, 'b': [nan]*9}), margin=.1)
    assert (none.verdict['b'], none.why['b'])==('cannot tell', 'no run ended well') and np.isnan(none.gain['b'])
    assert verdict_sentences(none)==['b: cannot tell, because no run ended well.']

def test_a_failed_run_is_not_better_than_others_without_a_word():
    df = pd.DataFrame(dict(a=[.9, .8, .85], b=[.95, nan, .9]))
    with pytest.warns(UserWarning, match='counts as 1, which is better than the worst run that ended well, 0.8'):
        paired_summary(df, fail_score=1.)

@pytest.mark.filterwarnings('error')
@pytest.mark.parametrize('df', [pd.DataFrame({'a': [1., 2.]}), pd.DataFrame({'a': [1, 2], 'b': [2, 2]}),
                                pd.DataFrame({'a': [nan, nan], 'b': [1., 2.]})], ids=['one', 'whole', 'failed'])
def test_nothing_is_warned_of(df): assert len(paired_summary(df))==df.shape[1]

def test_the_same_table_has_the_same_verdict_in_any_order():
    r = rng()
    for _ in range(30):
        df = pd.DataFrame(r.normal(0, 1, (9, 4)), columns=list('abcd')).mask(r.random((9, 4))<.2)
        s = paired_summary(df, baseline='c')
        turned = paired_summary(df.sample(frac=1, random_state=1)[list('dcba')], baseline='c').loc[list('abcd')]
        pd.testing.assert_frame_equal(s, turned)
        pd.testing.assert_frame_equal(s, paired_summary(df, baseline='c'))

def test_more_policies_share_the_error():
    df = pd.DataFrame(rng().normal(0, 1, (6, 4)), columns=list('abcd'))
    many,one = paired_summary(df),paired_summary(df[['a', 'b']], level=1-.05/3)
    assert many.loc['b', ['gain_lo', 'gain_hi']].tolist()==pytest.approx(one.loc['b', ['gain_lo', 'gain_hi']].tolist())

def test_the_noise_of_tuning_widens_the_interval_of_both():
    df = pd.DataFrame(rng().normal(0, 1, (6, 2)), columns=list('ab'))
    def width(**noise):
        row = paired_summary(df, tuning_sd=noise).loc['b']
        return row.gain_hi-row.gain_lo
    plain = width()
    assert width(a=3., b=4.)==pytest.approx(math.hypot(plain, 2*stats.t.ppf(.975, 5)*5))

@pytest.mark.parametrize('kwargs,says', [
    (dict(baseline='z'), 'baseline must'), (dict(level=1), 'level must lie in'), (dict(level=.4), 'level must lie in'),
    (dict(margin=-1), 'margin must'), (dict(fail_score='low'), 'fail_score must'),
    (dict(fail_score=nan), 'fail_score must'),
    (dict(tuning_sd=dict(z=1.)), 'tuning_sd must'), (dict(tuning_sd=dict(a=-1.)), 'tuning_sd must')])
def test_bad_input(kwargs, says):
    with pytest.raises(ValueError, match=says): paired_summary(pd.DataFrame({'a': [1., 2], 'b': [2., 4]}), **kwargs)

@pytest.mark.parametrize('df,says', [
    (pd.DataFrame([[.1, .2], [.3, .4]], columns=['a', 'a']), 'the columns of outcomes must have one name each'),
    (pd.DataFrame({'a': [.1, .2], 'b': [.1, float('inf')]}),
     r"outcomes must be numbers, or NaN for a failed run; got \['b'\]"),
    (pd.DataFrame({'a': [.1, .2], 'b': ['x', 'y']}), r"outcomes must be numbers, or NaN for a failed run; got \['b'\]"),
    (pd.DataFrame({'a': []}), 'outcomes must have a column for each policy and a row')])
def test_outcomes_that_can_not_be_judged(df, says):
    with pytest.raises(ValueError, match=says): paired_summary(df)

# How often all of it is wrong: a quick version of bench/verdict.py, whose figures are in the docs

N = 400 # Tables; a share of 5 % is known to 2.2 points, twice its standard error

@pytest.mark.parametrize('name', bench.NULL)
def test_policies_that_do_not_differ_are_rarely_told_apart(name):
    for n,k in ((5, 1), (10, 3)):
        found = bench.shares((name, k), bench.null_table(bench.NULL[name], k), n, N)
        assert found['worked']+found['did worse']<=.085 and found['made no difference']==0

@pytest.mark.parametrize('i', range(len(bench.POWER)), ids=[case[0] for case in bench.POWER])
def test_differences_are_found(i):
    name,table,n,options = bench.POWER[i]
    found = bench.shares(name, table, n, N, **options)
    right,least = [('worked', .55), ('worked', .55), ('worked', .45), ('worked', .55), ('worked', .75),
                   ('did worse', .75), ('made no difference', .75), ('made no difference', .9), ('worked', .9),
                   ('did worse', .99)][i]
    wrong = {'worked', 'did worse'}-{right}
    assert found[right]>=least and sum(found[word] for word in wrong)<=.01
