"A comparison as a table, as verdicts and as figures, and reading one"
import json
import numpy as np, pytest
from fastai.metrics import AvgMetric
from compare_helpers import *
from fastai_clr_ext.compare import *

def test_one_row_a_run():
    c = compare(make_line, POLICIES, seeds=[4, 9], **quick)
    assert list(c.df)==['policy', 'seed', 'train_loss', 'valid_loss', 'diverged', 'n_steps', 'seconds', 'error']
    assert (list(zip(c.df.policy, c.df.seed))==[('constant', 4), ('1cycle', 4), ('constant', 9), ('1cycle', 9)]
            and (c.df.n_steps==20).all() and not c.df.diverged.any())
    assert c.record['metric']=='valid_loss' and not c.record['higher']

def test_one_seed_has_no_interval():
    c = compare(make_line, POLICIES, seeds=1, **quick)
    assert c.summary().verdict['1cycle']=='cannot tell' and '1 seed to compare: no interval' in repr(c)

def test_plots_draw_what_was_asked(tmp_path):
    import matplotlib.pyplot as plt
    c = compare(make_line, POLICIES, seeds=3, **quick)
    axs = plt.subplots(1, 2)[1]
    got = c.plot(axs)
    assert (got is axs and 'valid_loss' in axs[0].get_ylabel()
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
            and c.record['budget']=={'n_epoch': 2, 'n_batches': 20, 'n_steps': 20, 'n_threads': 1})

@pytest.mark.parametrize('name,higher', [('accuracy', True), ('error_rate', False), ('perplexity', False),
                                         ('mse', False), ('_rmse', False), ('mae', False), ('RMSE', False),
                                         ('f1_score', True)])
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
