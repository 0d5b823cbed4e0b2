"The command `clr-compare`"
import json, os, re, subprocess, sys
import pytest
from compare_helpers import made
from fastai_clr_ext.cli.compare import read_options

COMPARE = 'from fastai_clr_ext.cli.main import main_compare; main_compare()'

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
    assert (r.returncode==0 and r.stdout.count('gentle')==2 and not r.stderr
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
    assert (sit.model, sit.optimizer, sit.bs)==('resnet20', 'adam', 512) and o['seeds']==5
    assert parse_situation('some/folder', None, None).data=='some/folder'
    models = [parse_situation('digits', arch, None).model for arch in ('lstm', 14, '20')]
    assert models==['lstm', 'resnet14', 'resnet20']

@pytest.mark.parametrize('args,says', [
    (dict(policies='constant,constant'), 'named once each'),
    (dict(policies='constant'), r"^--policies must name two or more cycles; got {'constant': 'constant'}$"),
    (dict(policies='constant,magic'), 'name a cycle'),
    (dict(policies={'a': {'cycle': 'one_cycle', 'dvi': 3}, 'b': 'constant'}), 'parameters of one_cycle'),
    (dict(policies={'a': '__import__', 'b': 'constant'}), 'name a cycle'), (dict(arch='vgg'), '--arch must'),
    (dict(arch='resnet21'), '--arch must'), (dict(optimizer='lion'), 'optimizer must'), (dict(seeds=0), 'seeds must'),
    (dict(epochs=0), '--epochs must'), (dict(data='no/such'), 'folder that exists'),
    (dict(data=' '), '--data must be a name'), (dict(resume='no'), '--resume must be true or false'),
    (dict(policies={'a': {'cycle': 'use_clr_beta', 'div': 3}, 'b': 'constant'}), 'must have no parameters'),
    (dict(looks='2,9'), '--looks must be a list of rising'), (dict(looks='2.5'), '--looks must'),
    (dict(margin=-1.), '--margin must be at least 0'), (dict(margin=2.), 'margin must be below 1'),
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

def test_what_is_redirected_says_what_trains_and_has_aligned_rows(tmp_path):
    options = '--policies constant,one_cycle --epochs 1 --seeds 2 --lr_max .3 --workers 2 --out there'
    r = compare_cmd(*options.split(), cwd=tmp_path)
    assert (r.returncode, r.stderr)==(0, ''), 'also without warnings of other packages, in workers too'
    assert '\x1b' not in r.stdout and '\r' not in r.stdout and '█' not in r.stdout
    lines = r.stdout.splitlines()
    assert lines[0].startswith('clr-compare ') and 'loading PyTorch and fastai' in lines[0]
    assert lines[1]=='Comparing constant, one_cycle on digits: 2 seeds, 1 epoch each, in 2 processes, into there'
    assert lines[2]=='training: 4 runs'
    rows = [line for line in lines if re.match(r'\d of 4  ', line)]
    assert [row[:6] for row in rows]==[f'{i} of 4' for i in (1, 2, 3, 4)]
    labels = {f'{name}, seed {i}' for name in ('constant', 'one_cycle') for i in (0, 1)}
    assert {row[8:25].rstrip() for row in rows}==labels
    assert {row.index('accuracy') for row in rows}=={27}, 'aligned'
    record = json.loads((tmp_path/'there'/'record.json').read_text())
    assert {p['lr_max'] for p in record['policies']}=={.3}, '--lr_max is --lr-max'

def test_merged_text_is_aligned_and_tells_records_apart(tmp_path):
    a = made()
    b = json.loads(json.dumps(a))
    b['runs'][0]['seconds'] += 1 # as if somebody else had run the same
    b['situation']['model'] = 'a_b*c|d\x1b[31m'
    for name,record in (('mine.json', a), ('yours.json', b)): (tmp_path/name).write_text(json.dumps(record))
    r = compare_cmd('merge', 'mine.json', 'yours.json', cwd=tmp_path)
    assert (r.returncode, r.stderr)==(0, '')
    table,said = r.stdout.split('\n\n')
    head,*rows = table.splitlines()
    assert said.startswith('1cycle against constant in accuracy, 2 situations: better by 0.03 on average')
    assert head.split()[:2]==['verdict', 'policy'] and head.endswith('source') and len(rows)==2
    assert [row[head.index('source'):] for row in rows]==['mine.json', 'yours.json']
    assert [row[head.index('policy'):].split()[0] for row in rows]==['1cycle']*2
    assert 'a_b*c|d\ufffd[31m' in rows[1], 'as it is, but for what a terminal would obey'

@pytest.mark.parametrize('args,code,says', [
    (['--epochs', 'x'], 2, "argument --epochs: invalid int value: 'x' (see clr-compare --help)"),
    (['--foo'], 2, 'unrecognized arguments: --foo (see clr-compare --help)'),
    (['--epochs', '0'], 1, '--epochs must be a whole number of at least 1; got 0'),
    (['merge'], 1, 'records must be files or folders of comparisons, one or more; got []'),
    (['merge', 'no'], 1, "a record must be a file, or a folder with record.json in it; got 'no'")], ids=str)
def test_exit_codes_and_one_line(args, code, says, tmp_path):
    r = compare_cmd(*args, cwd=tmp_path)
    name = 'clr-compare merge' if args[0]=='merge' else 'clr-compare'
    assert (r.returncode, r.stderr)==(code, f'{name}: {says}\n') and not list(tmp_path.iterdir())
