import os, subprocess, sys
from pathlib import Path
import numpy as np, pandas as pd, pytest
from PIL import Image

COMPARE = 'import warnings; warnings.simplefilter("ignore"); from fastai_clr_ext.cli.compare import clr_compare; clr_compare()'

def compare_cmd(*args, cwd):
    return subprocess.run([sys.executable, '-c', COMPARE, *args], cwd=cwd, capture_output=True, text=True,
                          env={**os.environ, 'MPLBACKEND': ''})

def run(*args, cwd):
    return subprocess.run([Path(sys.executable).with_name('clr-demo'), *args], cwd=cwd, capture_output=True, text=True,
                          env={'PATH': '', 'HOME': str(cwd.parent)}) # no display, no shell settings

@pytest.fixture(scope='module')
def demo(tmp_path_factory):
    d = tmp_path_factory.mktemp('home')/'demo'
    d.mkdir()
    return d, run(cwd=d)

def test_writes_what_it_says(demo):
    d,r = demo
    assert r.returncode==0, r.stderr
    out = d/'clr_demo'
    assert sorted(p.name for p in out.iterdir())==['gradients.png', 'schedule.png', 'steps.csv', 'summary.csv']
    assert 'annihilation (the last shaded band): the cycle ends at 0.' in r.stdout and 'accuracy' in r.stdout
    for name in ('gradients.png', 'schedule.png'):
        im = np.asarray(Image.open(out/name).convert('L'))
        assert im.std()>5 and im.shape[0]>300

def test_spikes_plateau_and_fall(demo):
    "From the rows themselves: the start towers over a level plateau; only the cycle falls in the annihilation phase"
    df = pd.read_csv(demo[0]/'clr_demo'/'steps.csv')
    cycle,const = [df[df.policy==p].reset_index() for p in ('use_clr_beta', 'constant')]
    assert len(cycle)==len(const)==30*22 and (cycle.n_params==75002).all()
    last = cycle.phase=='annihilation'
    plateau = cycle.mean_abs[(cycle.step>=132) & ~last]
    halves = [np.median(h) for h in np.array_split(plateau.to_numpy(), 2)]
    assert cycle.mean_abs[:10].max() > 4*plateau.median()
    assert .6 < halves[1]/halves[0] < 1.6, halves
    assert cycle.mean_abs[-33:].mean() < .5*plateau.median() < const.mean_abs[-33:].mean()
    assert const.lr.unique().tolist()==[.25] and cycle.lr.max()==pytest.approx(1)
    assert np.isclose(cycle.mean_abs[0], const.mean_abs[0]), 'same weights, same first batch'

def test_summary_is_the_median_and_the_means_of_the_rows(demo):
    s = pd.read_csv(demo[0]/'clr_demo'/'summary.csv', index_col='policy')
    df = pd.read_csv(demo[0]/'clr_demo'/'steps.csv')
    for p,d in df.groupby('policy'):
        m = d.mean_abs.to_numpy()
        assert s.loc[p, '|g| start']==pytest.approx(m[:33].max())
        assert s.loc[p, '|g| plateau']==pytest.approx(np.median(m[132:528]))
        assert s.loc[p, '|g| end']==pytest.approx(m[-33:].mean())
    assert (s.accuracy>.9).all()

def test_an_existing_folder_is_not_overwritten(demo):
    d = demo[0]
    before = {p: p.read_bytes() for p in (d/'clr_demo').iterdir()}
    r = run(cwd=d)
    assert (r.returncode==1 and 'clr-demo: --out must be a new or empty folder (or give --overwrite); got' in r.stderr
            and 'Traceback' not in r.stderr)
    assert before=={p: p.read_bytes() for p in (d/'clr_demo').iterdir()}
    r = run('--overwrite', '--epochs', '1', '--seed', '7', '--lr-max', '.5', cwd=d)
    assert r.returncode==0, r.stderr
    df = pd.read_csv(d/'clr_demo'/'steps.csv')
    assert len(df)==44 and df.lr.max()==pytest.approx(.5) and df.mom.notna().all()
    assert '22 steps are too few for a plateau' in r.stdout

def test_a_diverged_run_is_called_that(tmp_path):
    r = run('--lr-max', '1e30', '--epochs', '2', cwd=tmp_path)
    assert r.returncode==0 and 'A run diverged' in r.stdout and 'plateau:' not in r.stdout

@pytest.mark.parametrize('args,says', [
    (['--epochs', '0'], '--epochs must be at least 1; got 0'), (['--lr-max', 'nan'], '--lr-max must be above 0'),
    (['--seed', '-1'], '--seed must lie'), (['--out', 'file'], '--out must be a folder')],
    ids=lambda a: ' '.join(a) if isinstance(a, list) else '')
def test_bad_input(tmp_path, args, says):
    (tmp_path/'file').write_text('x')
    r = run(*args, cwd=tmp_path)
    assert r.returncode==1 and says in r.stderr and 'Traceback' not in r.stderr
    assert sorted(p.name for p in tmp_path.iterdir())==['file'], 'nothing was made'

TOML = """
policies = {plain = {cycle = "constant", moms = 0.9}, gentle = {cycle = "one_cycle", div = 5}}
lr_max = {plain = 0.2, gentle = 1.0}
epochs = 1
seeds = 7
"""

def test_compare_from_a_file_and_the_command_line(tmp_path):
    (tmp_path/'mine.toml').write_text(TOML)
    r = compare_cmd('--config', 'mine.toml', '--seeds', '2', '--workers', '1', '--out', 'there', cwd=tmp_path)
    assert r.returncode==0, r.stderr
    assert 'gentle' in r.stdout and 'report.html' in r.stdout and 'Traceback' not in r.stderr
    from fastai_clr_ext.compare import read_record
    record = read_record(tmp_path/'there').record
    assert (record['seeds']==[0, 1] and [p['lr_max'] for p in record['policies']]==[.2, 1.]
            and record['budget']['n_steps']==22), 'the command line is above the file'
    said = record['situation']['again']
    assert (said.startswith('clr-compare --config mine.toml --seeds 2 --workers 1 --out there\n\n# mine.toml\n')
            and said.endswith((tmp_path/'mine.toml').read_text())
            and 'clr-compare --config mine.toml' in (tmp_path/'there'/'report.md').read_text())
    from fastai_clr_ext.cli import compare_options, read_options
    more = dict(seeds=3, workers=1, out=str(tmp_path/'there'))
    with pytest.raises(ValueError, match='or give --resume'):
        compare_options(read_options(str(tmp_path/'mine.toml'), **more))
    compare_options(read_options(str(tmp_path/'mine.toml'), resume=True, **more))
    assert len(list((tmp_path/'there'/'runs').glob('*.json')))==6
    r = compare_cmd('merge', 'there/record.json', 'there', '--html', 'all.html', cwd=tmp_path)
    assert (r.returncode==0 and r.stdout.count('gentle')==1
            and '<td>gentle</td>' in (tmp_path/'all.html').read_text()), r.stderr

def test_help_names_every_cycle_that_needs_no_parameters():
    from fastai_clr_ext.cli import CYCLES, parse_policies
    from fastai_clr_ext.situations import situation
    names = ['use_clr_beta', *(k for k in CYCLES if k not in ('clr_beta_07', 'clr_07'))]
    assert len(parse_policies(names, situation('digits')))==len(names)
    said = compare_cmd('--help', cwd='.').stdout.replace('\n', ' ')
    assert not [k for k in names if k not in said]

def test_options_by_hand():
    from fastai_clr_ext.cli.compare import read_options, _situation
    o = read_options(None, arch='resnet20', optimizer='adam', data='thread')
    sit = _situation(**o)
    assert (sit.depth, sit.optimizer, sit.bs)==(20, 'adam', 512) and o['seeds']==5
    assert _situation(**read_options(None, data='some/folder')).data=='some/folder'

@pytest.mark.parametrize('args,says', [
    (dict(policies='constant,constant'), 'named once each'),
    (dict(policies='constant'), r"^--policies must name two or more cycles; got {'constant': 'constant'}$"),
    (dict(policies='constant,magic'), 'name a cycle'),
    (dict(policies={'a': {'cycle': 'one_cycle', 'dvi': 3}, 'b': 'constant'}), 'parameters of one_cycle'),
    (dict(policies={'a': '__import__', 'b': 'constant'}), 'name a cycle'), (dict(arch='vgg'), '--arch must'),
    (dict(arch='resnet21'), 'depth must'), (dict(optimizer='lion'), 'optimizer must'), (dict(seeds=0), 'seeds must'),
    (dict(epochs=0), '--epochs must'), (dict(data='no/such'), 'folder that exists'),
    (dict(data=' '), '--data must be a name'), (dict(resume='no'), '--resume must be true or false'),
    (dict(policies={'a': {'cycle': 'use_clr_beta', 'div': 3}, 'b': 'constant'}), 'must have no parameters'),
    (dict(tune='a,b'), '--tune must be numbers'), (dict(lr_max=-1.), 'lr_max must')], ids=str)
def test_bad_options(args, says, tmp_path):
    "Where options meet what they are for"
    from fastai_clr_ext.cli import compare_options, read_options
    with pytest.raises(ValueError, match=says):
        compare_options(read_options(None, **dict(out=str(tmp_path/'out'), workers=1) | args))
    assert not (tmp_path/'out').exists()

@pytest.mark.parametrize('text,says', [('epochs = ', 'be a TOML file'), ('epoch = 3', 'have options of clr-compare'),
                                       (None, 'be a TOML file')], ids=['cut', 'unknown', 'none'])
def test_bad_config(text, says, tmp_path):
    from fastai_clr_ext.cli import read_options
    if text: (tmp_path/'c.toml').write_text(text)
    with pytest.raises(ValueError, match=says): read_options(str(tmp_path/'c.toml'))

def test_a_mistake_is_one_line(tmp_path):
    r = compare_cmd('--policies', 'constant,magic', cwd=tmp_path)
    assert (r.returncode==1 and r.stderr.startswith('clr-compare: ') and r.stderr.count('\n')==1
            and not list(tmp_path.iterdir()))
