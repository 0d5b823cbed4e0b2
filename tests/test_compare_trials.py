"Trials that choose the rates of policies"
import json
import numpy as np, pytest
from pathlib import Path
from compare_helpers import *
from fastai_clr_ext.compare import *
from fastai_clr_ext.situations import situation

def test_trials_have_seeds_of_their_own():
    run = Run('a', 0, constant(), None, 1, Path('x'))
    made = trial_runs(run, {.1: 4, .3: 5})
    wanted = [(lr, TUNE_SEED+i) for lr,n in ((.1, 4), (.3, 5)) for i in range(n)]
    assert [(r.lr_max, r.seed) for r in made]==wanted
    assert {r.pct_tune for r in made}=={.2} and len({r.path for r in made})==9

def test_tuning_is_equal_and_apart(tmp_path):
    "Four trials each, on seeds and a validation set that are not reported; the best rate is used"
    c = compare(make_fixed, POLICIES, n_epoch=4, seeds=2, tune=[1e-4, .05, 1e9], out=tmp_path, with_bar=False)
    assert [(p['n_trials'], p['lr_max']) for p in c.record['policies']]==[(12, .05), (12, .05)]
    ends = [[r['end'] for r in c.record['tuning'] if r['lr_max']==lr] for lr in (.05, 1e9)]
    assert ends==[['well']*8, ['failed']*8] and max(c.df.seed)<TUNE_SEED
    trials = [json.loads(p.read_text()) for p in (tmp_path/'tuning').glob('*.json')]
    assert len(trials)==24 and {t['seed'] for t in trials}==set(range(TUNE_SEED, TUNE_SEED+4))
    assert {t['n_batches'] for t in trials if t['end']=='well'}=={32}, 'a fifth of ten batches is held out'
    same(c, compare(make_fixed, POLICIES, n_epoch=4, seeds=2, lr_max=.05, with_bar=False))
    text = report_markdown(c)
    assert '### How the rates were chosen' in text and text.count('| yes |')==2 and '| 1cycle | 0.0001 | 4 |' in text

def test_a_best_rate_at_the_edge_is_followed(tmp_path):
    "By the ratio of the last two, as often as is allowed, and the same when the comparison goes on"
    args = dict(n_epoch=2, tune=[1e-4, 3e-4], out=tmp_path, fail_if=lambda scores: False, with_bar=False)
    c = compare(make_fixed, POLICIES, seeds=2, **args)
    tried = sorted({t['lr_max'] for t in c.record['tuning']})
    assert tried==pytest.approx([1e-4, 3e-4, 9e-4, 2.7e-3, 8.1e-3]) and c.record['policies'][0]['lr_max']==tried[-1]
    more = compare(make_fixed, POLICIES, seeds=5, **args)
    assert more.record['tuning']==c.record['tuning'], 'more seeds do not choose again: rates would change'

def test_a_rate_that_no_trial_could_use_is_said():
    with pytest.warns(UserWarning, match=r"no trial of 'constant' ended well \(its loss was .*\): its rate, .*failed"):
        compare(make_fixed, POLICIES, n_epoch=2, seeds=1, tune=np.array([1e8, 1e9]), with_bar=False)

def test_a_rate_whose_trials_all_failed_is_not_chosen(tmp_path):
    "Also where the others are equally good, and it is the lowest"
    c = compare(situation(n_train=300), POLICIES, n_epoch=6, seeds=1, tune=[1e-9, .2], out=tmp_path, with_bar=False,
                fail_if=lambda scores: scores['accuracy']<.3)
    assert all(policy['lr_max']>1e-9 for policy in c.record['policies'])

def test_a_failed_trial_has_no_score_of_its_own():
    "Such as one that a guard stopped at its best"
    def train(runs):
        return [dict(policy=run.policy_name, seed=run.seed, lr_max=run.lr_max, why=None,
                     end='failed' if run.lr_max==.3 else 'well', scores=dict(accuracy=.5+run.lr_max)) for run in runs]
    rates,trials = tune_rates(train, [Run('a', 0, constant(), None, 1, Path('x'))], [.03, .1, .3], 4, 'accuracy', True)
    assert rates=={'a': .1} and len(trials)==12

def test_close_rates_come_to_an_end():
    c = compare(make_fixed, POLICIES, n_epoch=1, seeds=1, tune=[.01, .01002], with_bar=False, grads=False)
    assert len(c.df)==2
