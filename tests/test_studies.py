"What the studies train"
import json, matplotlib.pyplot as plt, numpy as np, pandas as pd
from dataclasses import replace
import pytest, torch
from scipy import stats
from fastai.torch_core import no_random
from compare_helpers import made
from fastai_clr_ext.all import *
from studies import policies, reading
from studies.comparisons import (FINE_TUNED, STUDIES, failing_rate, random_start, rates_beyond, rates_of, recipes_at,
    situation_of)
from studies.policies import ONE_CYCLE, RECIPES, Recipe, scaled
from studies.reading import (END, PLATEAU, counts_text, data_set, ends_over_plateau, forest, half_decades, judged,
    lowest_failing, one_policy, over_table, over_text, rates_taken, rates_tried, ratio, room_above_best, study_paths)

@pytest.mark.parametrize('best,more', [(.1, []), (.03, []), (.3, [1., 3.]), (.01, [.003, .001])])
def test_more_rates_are_tried_beyond_an_edge(best, more): assert rates_beyond([.01, .03, .1, .3], best)==more

def test_a_scaled_cycle_has_scaled_rates_and_the_same_momentum():
    whole,third = ONE_CYCLE.table(50, 1.),scaled(ONE_CYCLE, 1/3).table(50, 1.)
    assert third['lr'].tolist()==pytest.approx((whole['lr']/3).tolist()) and (third['mom']==whole['mom']).all()

def test_from_scratch_begins_with_the_weights_of_the_situation_without_pretraining(monkeypatch):
    sit = replace(FINE_TUNED['transfer-digits-sgd'][0], pretrain_epochs=1)
    recipe, = recipes_at(sit, 'from scratch', [.1]).values()
    monkeypatch.setitem(RECIPES, 'from scratch', lambda learn, *args: None)
    learn = sit(3)
    with no_random(3): recipe(learn)
    weights,start,pretrained = (each.model.state_dict() for each in (learn, random_start(sit)(3), sit(3)))
    assert all(torch.equal(weights[name], start[name]) for name in start)
    assert not all(torch.equal(weights[name], pretrained[name]) for name in pretrained)

@pytest.mark.parametrize('name', RECIPES)
def test_a_recipe_uses_its_whole_budget(name):
    sit = replace(FINE_TUNED['transfer-digits-sgd'][0], pretrain_epochs=1)
    learn = sit(0)
    with learn.no_bar(), learn.no_logging(): Recipe(name, 4, .01, 5.)(learn)
    assert len(learn.recorder.history.steps)==4*len(learn.dls.train), 'records survive from stage to stage'
    assert learn.opt.param_lists is not None and all(p.requires_grad for p in learn.model.parameters())

def test_adam_is_tried_at_its_own_rates():
    sit = FINE_TUNED['transfer-digits-sgd'][0]
    assert max(rates_of(sit, 'Adam, use_clr'))==.03 and max(rates_of(sit, 'long (B)'))==.3

def test_the_rate_at_which_adam_fails_is_the_lowest_with_three_failed_runs():
    assert [failing_rate(name) for name in ('digits-rnn', 'digits-post-norm', 'digits-transformer', 'digits')]==[
        .3, .03, .03, None]

def test_a_rate_of_sgd_is_taken_for_a_hundredth_with_adam():
    adam,sgd = situation_of('digits-mlp', 'adam'),situation_of('digits-mlp', 'sgd')
    assert adam.lr_max==pytest.approx(sgd.lr_max/100) and (adam.wd, sgd.wd)==(1e-2, situation('digits-mlp').wd)

@pytest.mark.parametrize('study', [name for name in STUDIES if name!='d-why'])
def test_no_two_comparisons_of_a_study_are_of_one_situation(study):
    specs = STUDIES[study]()
    assert len({repr(spec.sit) for spec in specs.values()})==len(specs)
    assert all(len(spec.policies)>=2 for spec in specs.values()) and policies.CONSTANT.table(5, 1.)['lr'].min()==1

# ---- what the pages read

def files(folder, **records):
    for name,record in records.items(): (folder/f'{name}.json').write_text(json.dumps(record))
    return [folder/f'{name}.json' for name in records]

def at_rates(failed):
    "A record of study d: eight seeds, accuracy .9 at the second rate and .8 elsewhere; so many first seeds failed"
    names = [f'{kind} at {lr:g}' for kind in ('constant', '1cycle') for lr in (.1, 1., 10.)]
    record = made(names, range(8), margin=.01)
    for run in record['runs']:
        run['scores']['accuracy'] = .9 if run['policy'].endswith(' at 1') else .8
        if run['seed']<failed[run['policy']]: run.update(end='failed', why='its loss is not finite')
    return record

def test_rates_that_are_taken_and_rates_that_fail(tmp_path):
    failed = {'constant at 0.1': 0, 'constant at 1': 3, 'constant at 10': 8, '1cycle at 0.1': 0, '1cycle at 1': 2,
              '1cycle at 10': 3}
    rates = rates_tried(files(tmp_path, **{'d-net-adam': at_rates(failed)}))
    assert {f'{kind} at {row.lr:g}': row.failed for (*_,kind),row in rates.iterrows()}==failed and (rates.runs==8).all()
    assert rates_taken(rates).loc[('net', 'adam')].to_dict()=={'constant': .1, '1cycle': 1.}
    room = room_above_best(rates).loc[('net', 'adam')]
    assert (room.best, room['failed at the best'], room['highest taken'], room.factor)==(1, 2, 1, 1)
    row = lowest_failing(rates).loc[('net', 'adam')]
    assert (row.lr, row.failed_below)==(10, 2)
    assert half_decades(pd.Series([1., 3., 10/3, 10., 30.])).tolist()==[0, 1, 1, 2, 3]

def test_no_rate_fails(tmp_path):
    names = [f'{kind} at {lr:g}' for kind in ('constant', '1cycle') for lr in (.1, 1., 10.)]
    rates = rates_tried(files(tmp_path, **{'d-net-sgd': at_rates(dict.fromkeys(names, 0))}))
    assert not len(lowest_failing(rates)) and rates_taken(rates)['1cycle'].tolist()==[10]

def test_the_records_of_a_study(tmp_path):
    names = 'd-a', 'd-b', 'd-why-a', 'e-a'
    files(tmp_path, **dict.fromkeys(names, made()))
    assert [path.stem for path in study_paths('d', tmp_path)]==['d-a', 'd-b']
    assert [path.stem for path in study_paths('d-why', tmp_path)]==['d-why-a']

def test_gains_in_words(tmp_path):
    other = made(margin=.01)
    other['situation'] = other['situation'] | dict(data='diamonds-cut')
    for run in other['runs']: run['scores']['accuracy'] += .02*(run['policy']=='1cycle')
    table = judged(files(tmp_path, a=made(margin=.01), b=made(margin=.01), c=other))
    assert table.records.tolist()==[['a'], ['c']], 'b only repeats a'
    assert over_text(table)=='+4.0 [-8.7, 16.7], better in 2 of 2' and counts_text(table)=='2 situations, 2 data sets'
    shown = over_table({'it': table}).loc['it']
    assert (shown['mean gain'], shown['better in'], shown.intervals)==('+4.00 [-8.71, 16.71]', '2 of 2', 'better in 2')
    assert over_text(table[:1])=='+3.0, better in 1 of 1' and data_set(table).tolist()==['digits', 'diamonds']

def test_a_forest_has_the_same_lines_in_every_panel(tmp_path):
    records = [made(('constant', '1cycle', 'wsd'), margin=.01) for _ in range(2)]
    records[1]['situation'] = records[1]['situation'] | dict(data='x')
    for run in records[1]['runs']: run['scores']['accuracy'] += .1*(run['policy']=='1cycle')
    table = judged(files(tmp_path, a=records[0], b=records[1]))
    forest([one_policy(table, '1cycle'), one_policy(table, 'wsd')], ['one', 'two'])
    left,right = plt.gcf().axes
    assert [text.get_text() for text in left.get_yticklabels()]==[
        'resnet8 on x, sgd, 2 epochs', 'resnet8 on digits, sgd, 2 epochs', 'mean, and the next situation']
    points = [[line.get_xdata()[0] for line in ax.lines if line.get_marker()=='o'] for ax in (left, right)]
    assert points==[pytest.approx([13, 3]), pytest.approx([6, 6])] and right.get_title()=='two'
    plt.close('all')

def test_parts_of_a_training_over_others():
    "Two seeds whose last hundredth is a quarter and the whole of the middle: the geometric mean is a half"
    lines = np.ones((2, 100))
    lines[0,98:] = .25
    mean,low,high = ratio(lines, END, PLATEAU)
    half = stats.t.ppf(.975, 1)*np.std(np.log([.25, 1]), ddof=1)/2**.5
    assert (mean, low, high)==pytest.approx((.5, .5*np.exp(-half), .5*np.exp(half)))

def test_gradients_over_the_plateau():
    runs = [dict(situation=name, policy='1cycle', seed=seed, mean_abs=[4., 4.] + [2.]*96 + [1.*n]*2)
            for name,n in (('a', 1), ('b', 4)) for seed in range(3)]
    table = ends_over_plateau(runs, '1cycle')
    assert table.start.tolist()==pytest.approx([2, 2]) and table.end.tolist()==pytest.approx([.5, 2])

def test_the_earlier_comparison_of_recipes_is_read_as_its_page_reads_it():
    gains = reading.earlier_recipes()
    assert gains['long (B)'].tolist()==[0, 0, 0] and set(gains) >= {'two cycles (A)', 'Adam + use_clr', 'from scratch'}
    policies = json.loads(reading.EARLIER.read_text())['policies']
    pairs = zip(policies['two cycles (A)']['accuracy'], policies['long (B)']['accuracy'])
    low,high = stats.ttest_1samp([100*(a-b) for a,b in pairs], 0).confidence_interval(.95)
    assert gains['two cycles (A)'][['gain_lo', 'gain_hi']].tolist()==pytest.approx([low, high])

def test_clear_in_all_takes_what_every_table_says():
    def table(*words): return pd.DataFrame({'situation': list('abc')[:len(words)], 'direction': words})
    tables = [table('better', 'better', 'worse'), table('better', 'unclear', 'worse').iloc[::-1]]
    assert reading.clear_in_all(tables, 'better').situation.tolist()==['a'], 'whatever the order of rows'
    assert reading.clear_in_all(tables, 'worse').situation.tolist()==['c']
    assert reading.clear_in_all(tables[:1], 'better').situation.tolist()==['a', 'b']
