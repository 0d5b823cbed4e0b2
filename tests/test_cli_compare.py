"The command `clr-compare`"
import os, subprocess, sys
import pytest
from fastai_clr_ext.cli.compare import read_options

COMPARE = '''import warnings; warnings.simplefilter("ignore")
from fastai_clr_ext.cli.compare import clr_compare
clr_compare()'''

def compare_cmd(*args, cwd):
    return subprocess.run([sys.executable, '-c', COMPARE, *args], cwd=cwd, capture_output=True, text=True,
                          env={**os.environ, 'MPLBACKEND': ''})

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
    from fastai_clr_ext.cli import parse_policies
    from fastai_clr_ext.schedule.presets import PRESETS
    from fastai_clr_ext.situations import situation
    names = ['use_clr_beta', *(k for k in PRESETS if k not in ('clr_beta_07', 'clr_07'))]
    assert len(parse_policies(names, situation('digits')))==len(names)
    said = compare_cmd('--help', cwd='.').stdout.replace('\n', ' ')
    assert not [k for k in names if k not in said]

def test_options_by_hand():
    from fastai_clr_ext.cli.compare import parse_situation
    o = read_options(None, arch='resnet20', optimizer='adam', data='thread')
    sit = parse_situation(o['data'], o['arch'], o['optimizer'])
    assert (sit.depth, sit.optimizer, sit.bs)==(20, 'adam', 512) and o['seeds']==5
    assert parse_situation('some/folder', None, None).data=='some/folder'

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

def test_a_file_of_options_that_has_no_end(tmp_path):
    for config in ('/dev/zero', tmp_path, tmp_path/'none.toml'):
        with pytest.raises(ValueError, match='--config must be a TOML file of at most 100,000 bytes'):
            read_options(str(config))
