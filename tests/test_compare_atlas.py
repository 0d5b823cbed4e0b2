"Records of many situations in one table"
import json
import numpy as np, pytest
from scipy import stats
from statsmodels.stats.proportion import proportion_confint
from compare_helpers import *
from fastai_clr_ext.compare import *
from fastai_clr_ext.compare.atlas import _direction, _over_gains

def test_merge_is_one_row_a_situation_and_policy(tmp_path):
    a,b = made(),made(('constant', '1cycle', 'wsd'))
    b['situation']['data'] = 'fashion-mnist'
    (tmp_path/'record.json').write_text(json.dumps(a))
    df = merge_records([tmp_path, a, Comparison(b)])
    assert list(zip(df.data, df.policy))==[('digits', '1cycle'), ('fashion-mnist', '1cycle'),
                                           ('fashion-mnist', 'wsd')], 'the same record counts once'

@pytest.mark.parametrize('records,says', [
    ([], 'records must be a list'), (made(), 'records must be a list'),
    ([1], 'a record must be a JSON object'), ([None], 'a record must be a JSON object')], ids=str)
def test_what_cannot_be_merged(records, says):
    with pytest.raises(ValueError, match=says): merge_records(records)

def test_each_row_says_the_verdict_first_and_where_it_is_from(tmp_path):
    a,b = made(),made(seeds=(2, 3, 4))
    b['runs'][0]['seconds'] += 1 # somebody else, the same situation, one seed that a has too
    (tmp_path/'mine').mkdir()
    (tmp_path/'mine'/'record.json').write_text(json.dumps(a))
    (tmp_path/'yours.json').write_text(json.dumps(b))
    c = made(('constant', 'wsd'))
    df = merge_records([tmp_path/'mine', str(tmp_path/'yours.json'), a, c])
    assert list(df)[:3]==['verdict', 'direction', 'policy'] and df.policy.tolist()==['1cycle', 'wsd']
    assert df.source[0]==f'{tmp_path/"mine"/"record.json"}, {tmp_path/"yours.json"}' and df.source[1]=='record 4'
    assert df.n_seeds.tolist()==[5, 3] and df.n_repeated.tolist()==[4, 0]
    both = made(seeds=range(5))
    assert df.gain[0]==pytest.approx(Comparison(both).summary().gain['1cycle']) and df.verdict[0]=='worked'

def elsewhere(record, **facts): return record | dict(situation=record['situation'] | facts)

@pytest.mark.parametrize('change', [
    lambda r: r | dict(hardware={'gpu': 'H100'}, versions={}), lambda r: r | dict(metric='valid_loss', higher=False),
    lambda r: elsewhere(r, device='cuda', lr=3., again='clr-compare'), lambda r: r | dict(level=.9, margin=.5),
    lambda r: r | dict(runs=[run | dict(seconds=9., n_steps=19) for run in r['runs']]),
    lambda r: r | dict(seeds=[1, 2], runs=[run for run in r['runs'] if run['seed']])])
def test_the_same_runs_count_once(change):
    "Whoever sends them again, by whatever metric and on whatever machine"
    df = merge_records([made(), change(made())])
    assert len(df)==1 and df.n_seeds[0]==3 and df.n_repeated[0]>=2
    assert df.gain[0]==pytest.approx(.03) and over_situations(df).n_situations[0]==1

def test_other_situations_are_kept_apart():
    other = made()
    other['budget'] = other['budget'] | dict(n_epoch=3)
    df = merge_records([made(), other, elsewhere(made(), wd=.1), elsewhere(made(), n_train=500)])
    assert len(df)==4 and df.n_repeated.sum()==0

def test_pairs_that_an_exception_ended_count_for_nothing():
    r = made()
    r['runs'][1].update(end='error', why='OSError: x')
    df = merge_records([r])
    assert (df.n_seeds[0], df.n_errors[0])==(2, 1) and df.verdict[0]!='no result'
    for run in r['runs']: run.update(end='error', why='OSError: x')
    df = merge_records([r])
    assert (df.verdict[0], df.n_seeds[0], df.n_errors[0])==('no result', 0, 3)
    assert over_situations(df).n_situations[0]==0
    assert 'no result' in merged_page(df)

def gains(*values):
    "A table of situations with these gains"
    records = []
    for i,gain in enumerate(values):
        r = elsewhere(made(), data=f'data {i}')
        for run in r['runs']: run['scores']['accuracy'] = .5 + .01*run['seed'] + gain*(run['policy']=='1cycle')
        records.append(r)
    return merge_records(records)

def test_policies_of_one_name_and_several_contents_are_told_apart():
    other = made()
    other['policies'][1]['what'] = 'Cycle(another)'
    df = merge_records([made(), elsewhere(other, data='x'), elsewhere(made(), data='y')])
    assert df.policy.tolist()==['1cycle', '1cycle (2)', '1cycle'] and over_situations(df).n_situations.tolist()==[2, 1]
    other['policies'][0]['what'] = 'Cycle(another)'
    assert merge_records([made(), other]).baseline.tolist()==['constant', 'constant (2)']

def test_policies_of_one_name_may_be_one():
    other = made()
    other['policies'][1]['what'] = 'Cycle(another)'
    df = merge_records([made(), elsewhere(other, data='x')], by_name=True)
    assert df.policy.tolist()==['1cycle', '1cycle'] and over_situations(df).n_situations.tolist()==[2]
    with pytest.raises(ValueError, match='by_name must be True or False'): merge_records([made()], by_name='no')

def test_one_situation_has_one_policy_of_a_name():
    other = made(seeds=(3, 4, 5))
    other['policies'][1]['what'] = 'Cycle(another)'
    with pytest.raises(ValueError, match="'1cycle' or 'constant' in record 2 is not what it is in record 1, whose sit"):
        merge_records([made(), other], by_name=True)
    assert merge_records([made(), other]).policy.tolist()==['1cycle', '1cycle (2)']

@pytest.mark.parametrize('f,column', [(in_margins, 'situation'), (in_margins, 'gain_lo'), (plot_situations, 'margin'),
                                      (plot_situations, 'model'), (over_situations, 'direction')])
def test_a_table_without_a_column_is_refused(f, column):
    with pytest.raises(ValueError, match=f"table must have the columns that merge_records gives it; got .'{column}'"):
        f(merge_records([made(margin=.1)]).drop(columns=column))

def test_another_baseline(tmp_path):
    "The gain of wsd over 1cycle is .02, .03 and .04 on three seeds"
    record = made(('constant', '1cycle', 'wsd'))
    (tmp_path/'a.json').write_text(json.dumps(record))
    df = merge_records([tmp_path/'a.json', elsewhere(record, data='x')], baseline='1cycle')
    assert df.policy.tolist()==['constant', 'wsd']*2 and set(df.baseline)=={'1cycle'}
    wsd = df[df.policy=='wsd']
    assert wsd.gain.tolist()==pytest.approx([.03, .03])
    same = Comparison(record).read(baseline='1cycle').summary().loc['wsd']
    assert (wsd.gain_lo[1], wsd.gain_hi[1])==pytest.approx((same.gain_lo, same.gain_hi))
    says = "baseline must be a policy of record 2, which has .'constant', '1cycle'.; got"
    with pytest.raises(ValueError, match=says):
        merge_records([record, made()], baseline='wsd')

def test_rates_are_told_apart_and_a_situation_counts_once():
    other = made()
    other['policies'][1]['lr_max'] = 3.
    for run in other['runs']: run['scores']['accuracy'] -= .06*(run['policy']=='1cycle')
    for records in ([made(), other], [other, made()]):
        df = merge_records(records).sort_values('lr_max')
        assert df.lr_max.tolist()==[1., 3.] and df.gain.tolist()==pytest.approx([.03, -.03])
        summary = over_situations(df)
        assert len(summary)==1 and summary.n_situations[0]==1 and summary.gain[0]==pytest.approx(0, abs=1e-12)

def test_the_order_of_records_decides_nothing():
    "The widest margin and the largest uncertainty of the rates hold for all"
    trials = [dict(policy='1cycle', seed=TUNE_SEED+i, lr_max=lr, scores=dict(accuracy=y), end='well', why=None)
              for lr,ys in ((.5, (.8, .9, .8, .9)), (1., (.82, .9, .82, .91))) for i,y in enumerate(ys)]
    a,b = made(margin=.02),made(seeds=(5, 6, 7), tuning=trials)
    rows = [merge_records(records).drop(columns='source') for records in ([a, b], [b, a])]
    pd.testing.assert_frame_equal(*rows)

def test_records_without_epochs_and_of_other_directions():
    r = made()
    del r['budget']['n_epoch']
    table = merge_records([r, made()])
    assert len(plot_situations(table))==1 and len(table)==2
    records = [elsewhere(made(metric='valid_loss', higher=higher), data=f'{higher}') for higher in (True, False)]
    assert over_situations(merge_records(records)).n_situations.tolist()==[1, 1], 'two questions'

def test_what_an_exception_left_and_a_later_record_resolved():
    r = made()
    r['runs'][1].update(end='error', why='OSError: x')
    df = merge_records([r, made()])
    assert (df.n_seeds[0], df.n_errors[0])==(3, 0)

def test_over_situations_by_hand():
    "t with 4 degrees of freedom over the five gains; the next situation has their spread as well"
    values = np.array([.01, .03, -.01, .02, .05])
    row = over_situations(gains(*values)).iloc[0]
    half = stats.t.ppf(.975, 4)*values.std(ddof=1)
    assert (row.n_situations, row.n_better)==(5, 4) and row.gain==pytest.approx(.02)
    assert (row.gain_lo, row.gain_hi)==pytest.approx((.02-half/5**.5, .02+half/5**.5))
    assert (row.next_lo, row.next_hi)==pytest.approx((.02-half*1.2**.5, .02+half*1.2**.5))
    assert (row.better_lo, row.better_hi)==pytest.approx(proportion_confint(4, 5, .05, 'beta'))
    said, = situation_sentences(over_situations(gains(*values)))
    assert said.startswith('1cycle against constant in accuracy, 5 situations: better by 0.02 on average (interval of')
    one = over_situations(gains(.02)).iloc[0]
    assert np.isnan(one.gain_lo) and np.isnan(one.next_lo) and one.n_better==1

def test_the_interval_over_situations_holds_and_so_does_the_prediction():
    "Also where situations differ more than seeds do, which an average weighted by seeds would not see"
    r = np.random.default_rng(0)
    inside,predicted = 0,0
    for _ in range(2000):
        *seen,new = r.normal(.02, .03, 7)
        row = _over_gains(np.array(seen), .95)
        inside += row['gain_lo']<.02<row['gain_hi']
        predicted += row['next_lo']<new<row['next_hi']
    assert .935<inside/2000<.965 and .935<predicted/2000<.965

def test_the_direction_asks_for_less_than_the_verdict():
    "The gain is .02, .03 and .04 on three seeds: t with 2 degrees of freedom gives an interval of .03 ± .0248"
    half = stats.t.ppf(.975, 2)*.01/3**.5
    table = merge_records([made(margin=.01)])
    assert (table.gain_lo[0], table.gain_hi[0])==pytest.approx((.03-half, .03+half))
    assert (table.verdict[0], table.direction[0])==('cannot tell', 'better'), 'above 0, but not above .01'
    worse = made(margin=.01)
    worse['baseline'] = '1cycle'
    assert merge_records([worse]).direction[0]=='worse' and merge_records([made(seeds=(0, 1))]).direction[0]=='unclear'
    row = over_situations(pd.concat([table, merge_records([elsewhere(made(), data='x')])])).iloc[0]
    assert (row.directions, row.verdicts)==('better in 2', 'cannot tell in 1, worked in 1')

@pytest.mark.parametrize('low,high,direction', [
    (1e-9, 1, 'better'), (0, 1, 'unclear'), (-1e-9, 1, 'unclear'), (-1, 0, 'unclear'), (-1, -1e-9, 'worse'),
    (np.nan, np.nan, 'unclear')])
def test_an_interval_leaves_out_0_or_not(low, high, direction): assert _direction(low, high)==direction

def test_the_forest_shows_what_is_clear_and_what_matters():
    table = merge_records([made(margin=.01), elsewhere(made(seeds=(0, 1), margin=.01), data='x')])
    ax, = plot_situations(table)
    faces = [line.get_markerfacecolor() for line in ax.lines if line.get_marker()=='o']
    assert faces==['C0', 'white']
    band, = ax.patches
    assert (band.get_x(), band.get_width())==pytest.approx((-.01, .02))
    assert not plot_situations(gains(.01, .02))[0].patches, 'no margin, no band'
    band, = plot_situations(in_margins(table))[0].patches
    assert (band.get_x(), band.get_width())==(-1, 2)

def test_the_forest_shows_each_situation_and_the_mean():
    table = gains(.01, .03, -.01)
    ax, = plot_situations(table)
    labels = [text.get_text() for text in ax.get_yticklabels()]
    assert len(labels)==4 and 'data 2' in labels[2] and labels[3].startswith('mean')
    points = [line.get_xdata()[0] for line in ax.lines if line.get_marker() in ('o', 'D')]
    assert points==pytest.approx([.01, .03, -.01, .01])
    two = merge_records([made(('constant', '1cycle', 'wsd')), elsewhere(made(('constant', '1cycle', 'wsd')), data='x')])
    assert [ax.get_title() for ax in plot_situations(two)]==['1cycle against constant', 'wsd against constant']
    with pytest.raises(ValueError, match='axs must'): plot_situations(two, ax)

def test_gains_of_all_metrics_in_one_unit():
    a,b = made() | dict(margin=.01),made() | dict(margin=.1)
    b['situation'] = b['situation'] | dict(data='elsewhere')
    table = merge_records([a, b])
    units = in_margins(table)
    assert units.gain.tolist()==pytest.approx([table.gain[0]/.01, table.gain[1]/.1])
    assert (units.gain_hi-units.gain_lo)[1]==pytest.approx((table.gain_hi-table.gain_lo)[1]/.1)
    assert len(over_situations(units))==1 and units.verdict.equals(table.verdict)
    without = merge_records([made()])
    with pytest.raises(ValueError, match='margin must be above 0 in each situation'): in_margins(without)
    with pytest.raises(ValueError, match='table must have the columns'): in_margins(table.drop(columns='margin'))
