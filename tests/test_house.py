"The house itself: nothing in fastai is changed, modules are what the notebooks say, metadata is in one place"
import importlib, os, shutil, subprocess, sys
from configparser import ConfigParser
from pathlib import Path
import pytest
from fastcore.nbio import read_nb
try: import tomllib
except ImportError: import tomli as tomllib # Python 3.10

root = Path(__file__).parent.parent
notebooks = sorted(p for p in (root/'nbs').rglob('*.ipynb') if '.ipynb_checkpoints' not in p.parts)
clean_env = {k: v for k,v in os.environ.items() if k!='IN_TEST'}
in_bin = lambda name: str(Path(sys.executable).with_name(name))

CHANGES = '''
import matplotlib, random, warnings, numpy as np, torch
from fastai.vision.all import *
from fastai.callback.all import *
owners = [Learner, Recorder, Callback, defaults, Optimizer, OptimWrapper, DataLoaders, Metric, \
torch.Tensor, torch.optim.Optimizer]
before = [dict(vars(o)) for o in owners]
cbs,rc,state,np_state,filters = list(defaults.callbacks), dict(matplotlib.rcParams), torch.get_rng_state(), \
np.random.get_state()[1].tolist(), list(warnings.filters)
from fastai_clr_ext.all import *
for o,was in zip(owners, before):
    now = vars(o)
    changed = [k for k in was if k not in ('__doc__',) and now.get(k) is not was[k]]
    assert not changed, f'{o}: {changed}'
    print(getattr(o, '__name__', o), sorted(set(now)-set(was)))
assert defaults.callbacks==cbs and dict(matplotlib.rcParams)==rc
assert torch.equal(state, torch.get_rng_state()) and np_state==np.random.get_state()[1].tolist() \
and warnings.filters==filters
'''

def test_importing_changes_nothing_in_fastai():
    r = subprocess.run([sys.executable, '-W', 'ignore', '-c', CHANGES], capture_output=True, text=True,
                       env=clean_env | {'MPLBACKEND': 'Agg'})
    assert r.returncode==0, r.stderr
    assert ("Learner ['fine_tune_gradual', 'fine_tune_long', 'fine_tune_two_cycles', 'fit_one_cycle_ext', "
            "'fit_stages', 'preview_one_cycle_ext', 'preview_stages']") in r.stdout, r.stdout
    assert ("Recorder ['divergence', 'grad_quantiles', 'grads', 'history', 'plot_adam', 'plot_cycle', "
            "'plot_grad_heatmap', 'plot_grad_spread', 'plot_grads', 'plot_losses', 'plot_lr', 'plot_lr_find_grads', "
            "'plot_metrics', 'plot_stages', 'plot_vs_lr', 'summary']") in r.stdout, r.stdout

@pytest.mark.parametrize('kind', ['vision', 'text', 'tabular', 'callback'])
def test_import_star_gives_one_name_of_fastai_another_meaning(kind):
    ours,theirs = (importlib.import_module(f'{name}.all') for name in ('fastai_clr_ext', f'fastai.{kind}'))
    again = [k for k,v in vars(ours).items() if not k.startswith('_') and vars(theirs).get(k, v) is not v]
    assert set(again)<={'merge'}, 'the README says which'

def test_metadata_is_in_settings():
    cfg = ConfigParser(delimiters=['='], interpolation=None)
    cfg.read(root/'settings.ini')
    cfg,toml = cfg['DEFAULT'],tomllib.loads((root/'pyproject.toml').read_text())
    import fastai_clr_ext
    from importlib.metadata import metadata
    assert fastai_clr_ext.__version__==cfg['version']==metadata('fastai_clr_ext')['Version']
    assert toml['project']['name']==cfg['lib_name']
    assert toml['project']['urls']=={'Repository': cfg['git_url'], 'Documentation': cfg['doc_url']}

def copy_repo(to):
    "The repository as it would be checked out, without what git ignores"
    skip = shutil.ignore_patterns('.git', '.venv*', '__pycache__', '*.egg-info', 'build', 'dist', '_docs', '_proc',
                                  '.pytest_cache', '.hypothesis', '.ipynb_checkpoints', 'clr_demo')
    return Path(shutil.copytree(root, to/'repo', ignore=skip))

def test_modules_are_what_the_notebooks_say(tmp_path):
    repo = copy_repo(tmp_path)
    hand_written = {'__init__.py', 'all.py', 'py.typed'}
    for p in (repo/'fastai_clr_ext').iterdir():
        if p.name not in hand_written: p.unlink()
    subprocess.run([in_bin('nbdev-export')], cwd=repo, check=True, env=clean_env)
    made,ours = [{p.name: p.read_text() for p in (d/'fastai_clr_ext').iterdir() if p.is_file()} for d in (repo, root)]
    assert made==ours

def test_notebooks_are_clean(tmp_path):
    repo = copy_repo(tmp_path)
    subprocess.run([in_bin('nbdev-clean')], cwd=repo, check=True, env=clean_env)
    for p in notebooks: assert (repo/p.relative_to(root)).read_text()==p.read_text(), f'{p.name}: nbdev-clean'

@pytest.mark.parametrize('path', notebooks, ids=lambda p: p.stem)
def test_notebook_is_presentable(path):
    text = path.read_text()
    assert len(text.encode()) <= 300*1024
    assert '"output_type": "error"' not in text and '"name": "stderr"' not in text
    assert ' object at 0x' not in text and 'site-packages' not in text

@pytest.mark.parametrize('path', notebooks, ids=lambda p: p.stem)
def test_notebook_runs(path):
    r = subprocess.run([in_bin('nbdev-test'), str(path.relative_to(root)), '--n-workers', '1'], cwd=root,
                       capture_output=True, text=True, env=clean_env | {'MPLBACKEND': 'Agg'})
    assert r.returncode==0, r.stdout[-3000:] + r.stderr[-3000:]

def test_lines_are_not_too_long():
    code = [cell.source for p in notebooks for cell in read_nb(p).cells if cell.cell_type=='code']
    code += [p.read_text(encoding='utf-8') for d in ('tests', 'bench', 'docs') for p in (root/d).glob('*.py')]
    lines = [line for text in code for line in text.splitlines() if not line.startswith('#|')] # options are one line
    assert not [line for line in lines if len(line)>120]

def test_quarto_files_agree():
    import yaml
    bar = yaml.safe_load((root/'nbs'/'sidebar.yml').read_text())['website']['sidebar']['contents']
    assert sorted(bar)==sorted(str(p.relative_to(root/'nbs')) for p in notebooks)
    site,urls = (yaml.safe_load((root/'nbs'/'nbdev.yml').read_text())['website'],
                 tomllib.loads((root/'pyproject.toml').read_text())['project']['urls'])
    assert (site['site-url'], site['repo-url'])==(urls['Documentation'], urls['Repository'])

def test_rooms_import_only_from_lower_ones():
    import ast
    order = {p.stem.split('_', 1)[1]: i for i,p in enumerate(sorted((root/'nbs').glob('[0-9]*.ipynb')))}
    for name,i in order.items():
        tree = ast.parse((root/'fastai_clr_ext'/f'{name}.py').read_text())
        used = {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.level and n.module}
        assert all(order[u]<i for u in used), f'{name} imports {used}'
    assert used, 'the last room imports others'
