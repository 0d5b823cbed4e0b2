"A comparison as a table, as verdicts and as figures, and reading one"
import json
from pathlib import Path
import numpy as np, pytest
from fastai.metrics import AvgMetric
from compare_helpers import *
from measured_reads import read_in_process
from fastai_clr_ext.compare import *

def test_one_row_a_run():
    c = compare(make_line, POLICIES, seeds=[4, 9], fail_if=never, **quick)
    assert list(c.df)==['policy', 'seed', 'train_loss', 'valid_loss', 'end', 'n_steps', 'seconds', 'why']
    assert (list(zip(c.df.policy, c.df.seed))==[('constant', 4), ('1cycle', 4), ('constant', 9), ('1cycle', 9)]
            and (c.df.n_steps==20).all() and (c.df.end=='well').all())
    assert c.record['metric']=='valid_loss' and not c.record['higher']

def test_one_seed_has_no_interval():
    c = compare(make_line, POLICIES, seeds=1, **quick)
    assert c.summary().verdict['1cycle']=='cannot tell' and 'one seed: no interval' in repr(c)

def test_plots_draw_what_was_asked(tmp_path):
    import matplotlib.pyplot as plt
    c = compare(make_line, POLICIES, seeds=3, **quick)
    axs = plt.subplots(1, 2)[1]
    got = c.plot(axs)
    assert (list(got)==list(axs) and 'valid_loss' in axs[0].get_ylabel()
            and np.allclose(axs[0].lines[0].get_ydata(), c.outcomes.iloc[0]))
    s = c.summary()
    assert (axs[1].containers[0].lines[0].get_xdata()==pytest.approx(s.gain.iloc[1])
            and '1cycle: ' in axs[1].get_yticklabels()[0].get_text())
    ax = c.plot_curves('train_loss')
    assert np.allclose(ax.lines[0].get_ydata(), c.record['runs'][0]['curves']['train_loss'])
    assert len(c.plot_grads())==2

def test_the_record_is_the_comparison(tmp_path):
    c = compare(make_line, POLICIES, seeds=2, out=tmp_path, situation={'data': 'a line'}, **quick)
    other = read_record(tmp_path)
    assert (other.record==c.record==json.loads((tmp_path/'record.json').read_text())
            and other.record['situation']['data']=='a line')
    same(other, c)
    assert (c.record['situation']['optimizer']=='SGD(mom=0.9)'
            and c.record['budget']=={'n_epoch': 2, 'n_batches': 20, 'n_steps': 20, 'n_items': 320, 'n_threads': 1})

@pytest.mark.parametrize('name,higher', [('accuracy', True), ('error_rate', False), ('perplexity', False),
                                         ('mse', False), ('_rmse', False), ('mae', False), ('f1_score', True)])
def test_which_way_is_better(name, higher):
    c = compare(lambda seed: make_line(seed, metrics=AvgMetric(named(name))), POLICIES, seeds=1, **quick)
    assert c.record['higher'] is higher

def test_verdicts_are_worked_out_anew(tmp_path):
    (tmp_path/'r.json').write_text(json.dumps(made() | {'verdict': 'worked', 'summary': 'trust me'}))
    row = merge_records([tmp_path/'r.json']).iloc[0]
    assert (row.policy, row.baseline, row.verdict, row.n_better, row.n_seeds)==('1cycle', 'constant', 'worked', 3, 3)
    assert row.gain==pytest.approx(.03) and row.gain_lo==pytest.approx(.03 - 4.30265*.01/3**.5, abs=1e-6)

@pytest.mark.parametrize('text', ['', 'no json', '{"a": NaN}', '['*100_000, '{"version": ' + '9'*5000 + '}', '\ufeff{}',
                                  'null'], ids=['empty', 'text', 'NaN', 'deep', 'huge number', 'bom', 'null'])
def test_files_that_are_no_record(text, tmp_path):
    (tmp_path/'r.json').write_text(text)
    with pytest.raises(ValueError, match='r.json'): read_record(tmp_path/'r.json')

def test_a_file_that_is_too_large_or_not_there(tmp_path, monkeypatch):
    monkeypatch.setattr('fastai_clr_ext.compare.comparison.MOST_BYTES', 10)
    (tmp_path/'r.json').write_text(json.dumps(made()))
    with pytest.raises(ValueError, match='have at most 10 bytes; .*r.json'): read_record(tmp_path/'r.json')
    for path in (tmp_path/'none.json', tmp_path):
        with pytest.raises(ValueError, match='a record must be a file, or a folder with record.json'): read_record(path)

def all_runs(n_seeds, n_values, value=.5):
    "A record of many runs with long curves"
    record = made(seeds=range(n_seeds))
    for run in record['runs']: run['curves'] = {'accuracy': [value]*n_values}
    return record

def last_is_wrong(record):
    record['runs'][-1]['seconds'] = -1
    return record

def with_text(text): return json.dumps(made())[:-1] + f', "more": {text}}}'

def wrong_scores(n):
    record = all_runs(n, 1)
    for run in record['runs']: run['scores'] = {f'm{i}': 'x' for i in range(100)}
    return record

RECORD_BOMBS = { # what is in the file; what the error says
    'wrong numbers': (lambda: all_runs(60, 10_000, 'x'), 'runs.0.curves.accuracy.0 of a record must be a number'),
    'wrong numbers in many curves': (lambda: made() | dict(runs=[run | dict(curves={
        f'c{i}': ['x']*10_000 for i in range(20)}) for run in made()['runs']]), 'must be a number'),
    'wrong scores': (lambda: wrong_scores(1000), 'runs.0.scores.m0 of a record must be a number'),
    'trials': (lambda: made() | dict(tuning=[{}]*700_000), 'tuning.0 of a record must have policy'),
    'one wrong run, the last': (lambda: last_is_wrong(all_runs(700, 1000)), 'seconds of a record must be at least 0'),
    'objects': (lambda: with_text('[' + '{},'*1_000_000 + '{}]'), 'the text must have at most 1,500,000 values'),
    'numbers': (lambda: with_text('[' + '1.5,'*1_600_000 + '0]'), 'the text must have at most 1,500,000 values'),
    'too many bytes': (lambda: with_text(json.dumps('x'*20_000_000)), 'a record must have at most 20,000,000 bytes'),
    'many names': (lambda: made() | dict(situation={f'{i:070}': 1 for i in range(200_000)}), 'at most 100 items'),
    'a long list': (lambda: made() | dict(situation={'x': [1]*1_400_000}), 'situation.x of a record must be a plain'),
    'a long text': (lambda: json.dumps(made() | dict(situation={'x': 'é'*9_000_000 + '😀'}), ensure_ascii=False),
                    'situation.x of a record must be a plain value'),
    'deep lists': (lambda: with_text('['*1_000_000 + ']'*1_000_000), 'a record must be JSON')}

@pytest.fixture(scope='module')
def read_bombs(tmp_path_factory):
    folder = tmp_path_factory.mktemp('bombs')
    for name,(make,_) in RECORD_BOMBS.items():
        record = make()
        (folder/f'{name}.json').write_text(record if isinstance(record, str) else json.dumps(record), encoding='utf-8')
    paths = [folder/f'{name}.json' for name in RECORD_BOMBS]
    return read_in_process('fastai_clr_ext.compare', 'read_record', paths)

@pytest.mark.skipif(not Path('/proc/self/clear_refs').exists(), reason='the peak of memory is read from /proc')
@pytest.mark.parametrize('kind', RECORD_BOMBS)
def test_records_that_are_bombs_are_refused_within_a_second_and_200_mb(read_bombs, kind):
    said,seconds,megabytes = read_bombs[kind]
    print(f'{kind}: {seconds:.3f} s, {megabytes:.0f} MB')
    assert RECORD_BOMBS[kind][1] in said
    assert seconds<1 and megabytes<200

def test_a_large_record_can_be_read(tmp_path):
    "1000 seeds of two policies, 100 epochs: 5 MB"
    (tmp_path/'r.json').write_text(json.dumps(all_runs(1000, 500), indent=1))
    assert len(read_record(tmp_path/'r.json').record['runs'])==2000

def test_intervals_stay_within_the_metric():
    "Two seeds have an interval of more than an accuracy can differ"
    r = made(seeds=(0, 1))
    for run,y in zip(r['runs'], (.1, .9, .9, .2)): run['scores']['accuracy'] = y
    s = Comparison(r).summary()
    assert s.verdict['1cycle']=='cannot tell' and (s.gain_lo['1cycle'], s.gain_hi['1cycle'])==(-1, 1)

def test_a_metric_that_is_no_number_on_some_seeds_is_a_failed_run():
    "Also where another metric of that run is fine"
    r = made()
    r['runs'][1]['scores']['accuracy'] = None
    c = Comparison(check_record(r))
    run = c.df.iloc[1]
    assert (run.end, run.why)==('failed', 'its accuracy is not a number') and c.outcomes.isna().sum()['1cycle']==1
    assert c.summary().n_failed['1cycle']==1 and c.read(metric='valid_loss').summary().n_failed['1cycle']==0

def test_the_level_is_that_of_the_present_look():
    looks = lambda *taken, present=-1: dict(planned=[2, 3], taken=[list(t) for t in taken], present=len(taken)+present)
    level = lambda looks: Comparison(check_record(made(looks=looks))).level
    assert level(None)==.95 and level(looks((2, True)))==pytest.approx(1-.05*4/9)
    assert level(looks((2, True), (3, True)))==pytest.approx(1-.05*5/9)
    assert level(looks((3, True), (4, False)))==.975 and level(looks((3, True), (4, False), (5, False)))==.9875
    c = Comparison(made(looks=looks((3, True), (4, False))))
    assert f'{100*.975}% interval' in c.verdicts()[0]

def test_how_well_the_rates_are_known_widens_the_interval():
    "By the noise of the trials of both policies"
    r = made()
    plain = Comparison(r).summary().loc['1cycle']
    trials = [dict(policy=p, seed=TUNE_SEED+i, lr_max=lr, scores=dict(accuracy=y), end='well', why=None)
              for p in ('constant', '1cycle') for lr,ys in ((.5, (.8, .9, .8, .9)), (1., (.82, .9, .82, .91)))
              for i,y in enumerate(ys)]
    c = Comparison(check_record(r | dict(tuning=trials)))
    noise = c.choice_noise('1cycle')
    assert noise>0==Comparison(r).choice_noise('1cycle') and noise==c.choice_noise('constant')
    tuned,t = c.summary().loc['1cycle'],4.30265
    wider = ((tuned.gain_hi-tuned.gain)**2 - (plain.gain_hi-plain.gain)**2)**.5
    assert wider==pytest.approx(t*noise*2**.5, rel=1e-4)

FAILED = dict(end='failed', why='it learned nothing')

@pytest.mark.parametrize('metric,failed,given,want,why', [
    ('accuracy', .1, None, .1, 'the worst of any run'), ('accuracy', None, None, .9, 'the worst of any run'),
    ('accuracy', .1, .05, .05, 'as given'), ('valid_loss', 1e9, None, 2.3, 'the loss of a constant prediction'),
    ('mae', 1e9, None, .3, 'the worst of the runs that ended well')], ids=str)
def test_what_a_failed_run_counts_as(metric, failed, given, want, why):
    r = made(metric=metric, higher=metric=='accuracy', fail_score=given)
    for run in r['runs']: run['scores']['mae'] = .3 - .01*run['seed']
    r['runs'][1].update(FAILED)
    r['runs'][1]['scores'][metric] = failed
    c = Comparison(check_record(r))
    assert c.fail_score()==(pytest.approx(want), why)
    s = c.summary()
    assert s.failed_as['1cycle']==pytest.approx(want) and f'a failed run counts as {want:.3g}.' in c.verdicts()[0]
    assert f'{want:.3g} ({why})' in report_markdown(c)
    ax = c.plot()[0]
    marks, = [line.get_ydata() for line in ax.lines if line.get_marker()=='x' and np.isfinite(line.get_ydata()).any()]
    assert np.nanmax(marks)==pytest.approx(want), 'and is drawn there'

def test_a_loss_worse_than_a_constants_is_worse_than_a_failed_run():
    "Or a run that overfits would lose against one that learned nothing"
    r = made(metric='valid_loss', higher=False)
    r['runs'][0]['scores']['valid_loss'] = 5.
    r['runs'][1].update(FAILED)
    assert Comparison(r).fail_score()==(5., 'the worst of the runs that ended well')
    for run in r['runs']: run.update(FAILED)
    assert Comparison(r).fail_score()[0]==pytest.approx(2.3)

def test_a_loss_of_which_more_is_better_has_no_constant():
    "Somebody asks which policy keeps the loss up"
    r = made(metric='valid_loss', higher=True)
    r['runs'][1].update(FAILED)
    assert Comparison(r).fail_score()==(.2, 'the worst of the runs that ended well')
