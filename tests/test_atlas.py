"The records of the atlas, and the commands that made them"
import json, shutil, subprocess, sys
from pathlib import Path
import pandas as pd, pytest
from execnb.shell import CaptureShell
from fastcore.nbio import read_nb
from compare_helpers import made
from studies.check import problems
from studies.comparisons import FINE_TUNED, RECORDS, STUDIES, TRIALS
from fastai_clr_ext.compare import Comparison, compare, read_record

FILES = sorted(RECORDS.glob('*.json'))

def test_there_are_records(): assert FILES

@pytest.mark.parametrize('path', FILES, ids=lambda path: path.stem)
def test_a_record_may_be_in_the_atlas(path):
    "It is valid, has what a reader needs, and is what the command in it trains"
    assert not problems(path)

def good(**more):
    record = made(seeds=range(5), margin=.01) | more
    record['situation'] |= dict(again='clr-compare')
    return record

def without(name):
    record = good()
    del record['situation'][name]
    return record

def with_error():
    record = good()
    record['runs'][0].update(end='error', why='OSError: x')
    return record

@pytest.mark.parametrize('record,says', [
    (without('again'), 'The situation must say: again.'), (without('model'), 'The situation must say: model.'),
    (good(margin=0.), 'must have a margin'), (with_error(), 'An exception ended 1 of its runs'),
    (dict(kind='photo'), 'kind')])
def test_what_keeps_a_record_out(record, says, tmp_path):
    path = tmp_path/'mine.json'
    path.write_text(json.dumps(record))
    assert says in ' '.join(problems(path))

def test_a_record_of_few_seeds_or_many_bytes_is_kept_out(tmp_path):
    path = tmp_path/'mine.json'
    few = made(seeds=range(4), margin=.01)
    few['situation'] |= dict(again='clr-compare')
    path.write_text(json.dumps(few))
    assert problems(path)==['It must have at least 5 seeds, and has 4.']
    path.write_text(json.dumps(good()) + ' '*1_000_000)
    assert problems(path)==['It must have at most 1,000,000 bytes: train with grads=False.']

@pytest.mark.parametrize('name,change,says', [
    ('b-diabetes-sgd', lambda r: r.update(margin=.02), 'The margin must be as study b has it.'),
    ('b-diabetes-sgd', lambda r: r['situation'].update(wd=.1), 'The situation must be as study b has it.'),
    ('b-diabetes-sgd', lambda r: r['situation'].update(again='x'), 'The command must be as study b has it.'),
    ('b-diabetes-sgd', lambda r: r['situation'].pop('again'), 'The command must be as study b has it.'),
    ('b-diabetes-sgd', lambda r: r['budget'].update(n_epoch=1), 'The number of epochs must be as study b has it.'),
    ('b-diabetes-sgd', lambda r: r['policies'][1].update(what='x'), 'The policies must be as study b has it.'),
    ('b-diabetes-adam', lambda r: None, 'The situation must be as study b has it.'),
    ('c-diabetes-sgd', lambda r: None, 'Study c has no comparison diabetes-sgd.'),
    ('b-diabetes-sgd', lambda r: None, ''), ('mine', lambda r: r.update(margin=.02), '')])
def test_a_record_with_the_name_of_a_study_is_of_that_study(name, change, says, tmp_path):
    record = json.loads((RECORDS/'b-diabetes-sgd.json').read_text())
    change(record)
    path = tmp_path/f'{name}.json'
    path.write_text(json.dumps(record))
    found = ' '.join(problems(path))
    assert says in found if says else not found

def test_the_command_says_what_it_found(tmp_path):
    path = tmp_path/'mine.json'
    path.write_text(json.dumps(good()))
    run = [sys.executable, '-W', 'ignore', '-m', 'studies.check', str(path)]
    shown = subprocess.run(run, cwd=Path(__file__).parents[1], capture_output=True, text=True)
    assert shown.returncode==0 and shown.stdout.startswith(f'{path}: can join the atlas\n  1cycle: worked.')
    path.write_text(json.dumps(good(margin=0.)))
    shown = subprocess.run(run, cwd=Path(__file__).parents[1], capture_output=True, text=True)
    assert shown.returncode==1 and 'It must have a margin' in shown.stdout

def test_a_record_is_trained_again(tmp_path):
    "The runs that are reported, at the rates that were chosen; another machine may round otherwise"
    known = read_record(RECORDS/'b-breast-cancer-adam.json')
    spec = STUDIES['b']()['breast-cancer-adam']
    rates = {policy['name']: policy['lr_max'] for policy in known.record['policies']}
    again = compare(spec.sit, spec.policies, spec.sit.n_epoch, spec.n_seeds, rates, tmp_path/'runs', grads=False,
                    margin=known.record['margin'], with_bar=False)
    assert (again.outcomes-known.outcomes).abs().max(axis=None)<=.05, 'no run is another one: 113 patients are judged'
    summary = Comparison(again.record | dict(tuning=known.record['tuning'])).summary()
    assert summary['mean'].to_dict()==pytest.approx(known.summary()['mean'].to_dict(), abs=.005)
    assert summary.verdict.to_dict()==known.summary().verdict.to_dict()

@pytest.mark.parametrize('path', [path for path in FILES if path.stem.startswith('e-')], ids=lambda path: path.stem)
def test_a_recipe_has_the_rate_that_its_trials_chose(path):
    trials = pd.read_csv(TRIALS/f'{path.stem}.csv')
    for policy in read_record(path).record['policies']:
        tried = trials[trials.policy.str.startswith(f'{policy["name"]} at ')]
        lr,mult = tried.policy[tried['mean'].idxmax()].partition(' at ')[2].split(', ')
        assert f'lr={float(lr)!r}' in policy['what'] and f'lr_mult={float(mult)!r}' in policy['what']
        well = tried.groupby('policy').filter(lambda part: (part.end=='well').all()).groupby('policy')
        assert well['mean'].first().to_dict()==pytest.approx(well.accuracy.mean().to_dict())

def test_everything_that_was_planned_is_trained():
    planned = {f'{study}-{name}' for study,specs in STUDIES.items() for name in specs()}
    planned |= {f'e-{name}' for name in FINE_TUNED}
    assert len(planned)>50 and planned <= {path.stem for path in FILES}

def texts(nb)->list:
    "What a notebook shows in words and tables"
    shown = [out.get('data', {}) for cell in nb.cells for out in cell.get('outputs', [])]
    return [''.join(data.get('text/markdown') or data.get('text/html') or '') for data in shown]

PAGES = sorted(RECORDS.parent.glob('*.ipynb')) + sorted((RECORDS.parents[1]/'studies').glob('[a-g]_*.ipynb'))

@pytest.mark.parametrize('path', PAGES, ids=lambda path: path.stem)
def test_a_page_says_what_the_records_say(path, monkeypatch):
    "A record that was added without running the pages again would not be on them"
    monkeypatch.chdir(path.parent)
    nb,committed = read_nb(path),read_nb(path)
    CaptureShell().run_all(nb, exc_stop=True)
    assert texts(nb)==texts(committed)

def test_the_page_shows_records_of_others_as_text(tmp_path, monkeypatch):
    "Two people's records of one situation, one that only repeats another, and one whose texts would act on a page"
    shutil.copytree(RECORDS, tmp_path/'records')
    text = '<img src=x onerror=alert(1)>'
    hostile = good()
    for policy in hostile['policies']: policy['name'] = policy['name'].replace('1cycle', text)
    hostile['situation'] |= dict(model=text)
    for run in hostile['runs']: run['policy'] = run['policy'].replace('1cycle', text)
    longer = good() | dict(runs=made(seeds=range(9))['runs'], seeds=list(range(9)))
    others = dict(alice=good(), bob=longer, carol=good())
    for name,record in (others | dict(hostile=hostile)).items():
        (tmp_path/'records'/f'{name}.json').write_text(json.dumps(record))
        assert not problems(tmp_path/'records'/f'{name}.json')
    monkeypatch.chdir(tmp_path)
    nb = read_nb(RECORDS.parent/'where_it_worked.ipynb')
    CaptureShell().run_all(nb, exc_stop=True)
    table,note = texts(nb)[-2:]
    assert '<img' not in table and '&lt;img src=x onerror=alert(1)&gt;' in table
    assert '<a href="records/alice.json">alice</a>, <a href="records/bob.json">bob</a>' in table
    assert note=='Records that only repeat runs of others: carol.'
