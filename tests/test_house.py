"The house itself: nothing in fastai is changed, modules are what the notebooks say, metadata is in one place"
import importlib, json, os, shutil, subprocess, sys
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
import matplotlib, random, sys, warnings, numpy as np, torch
from fastai.vision.all import *
from fastai.text.all import *
from fastai.tabular.all import *
from fastai.callback.all import *
from fastai.collab import *
from fastcore.all import *
owners = [torch.Tensor, torch.optim.Optimizer]
for name,module in list(sys.modules.items()):
    if name.partition('.')[0] not in ('fastai', 'fastcore'): continue
    owners += [module, *(v for v in vars(module).values() if isinstance(v, type) and v.__module__==name)]
before = [dict(vars(o)) for o in owners]
n_attributes = sum(map(len, before))
cbs,rc,state,np_state,filters = list(defaults.callbacks), dict(matplotlib.rcParams), torch.get_rng_state(), \
np.random.get_state()[1].tolist(), list(warnings.filters)
from fastai_clr_ext.all import *
for o,was in zip(owners, before):
    now = vars(o)
    changed = [k for k in was if k not in ('__doc__',) and now.get(k) is not was[k]]
    assert not changed, f'{o}: {changed}'
    if o in (Learner, Recorder): print(o.__name__, sorted(set(now)-set(was)))
    elif set(now)-set(was): print('more in', o, sorted(set(now)-set(was)))
print(n_attributes, 'attributes')
assert n_attributes>5000
assert defaults.callbacks==cbs and dict(matplotlib.rcParams)==rc
assert torch.equal(state, torch.get_rng_state()) and np_state==np.random.get_state()[1].tolist() \
and warnings.filters==filters
'''

def test_importing_changes_nothing_in_fastai():
    r = subprocess.run([sys.executable, '-W', 'ignore', '-c', CHANGES], capture_output=True, text=True,
                       env=clean_env | {'MPLBACKEND': 'Agg'})
    assert r.returncode==0, r.stderr
    assert ("Learner ['fine_tune_gradual', 'fine_tune_long', 'fine_tune_two_cycles', 'fit_one_cycle_ext', "
            "'fit_stages', 'preview_one_cycle_ext', 'preview_stages', 'resume_fit']") in r.stdout, r.stdout
    assert ("Recorder ['divergence', 'grad_quantiles', 'grads', 'history', 'plot_adam', 'plot_cycle', "
            "'plot_grad_heatmap', 'plot_grad_spread', 'plot_grads', 'plot_losses', 'plot_lr', 'plot_lr_find_grads', "
            "'plot_metrics', 'plot_stages', 'plot_vs_lr', 'summary', 'to_html']") in r.stdout, r.stdout

@pytest.mark.parametrize('theirs', ['fastai.vision.all', 'fastai.text.all', 'fastai.tabular.all', 'fastai.callback.all',
                                    'fastai.collab', 'fastcore.all'])
def test_import_star_gives_no_name_of_fastai_another_meaning(theirs):
    ours,theirs = vars(importlib.import_module('fastai_clr_ext.all')),vars(importlib.import_module(theirs))
    names = [name for name in ours if not name.startswith('_')]
    assert 40<len(names)<=62, 'what a notebook needs; everything else is in the wings'
    assert not [name for name in names if theirs.get(name, ours[name]) is not ours[name]]

#: What an import of one wing or module alone promises, in a fresh process
PROMISED = {
    'train': ('from fastai_clr_ext.train import *', {
        'fastai.learner.Learner': ['fit_one_cycle_ext', 'preview_one_cycle_ext', 'fit_stages', 'preview_stages',
                                   'fine_tune_long', 'fine_tune_two_cycles', 'fine_tune_gradual'],
        'fastai.learner.Recorder': ['history', 'divergence']}),
    'record': ('from fastai_clr_ext.record import *', {
        'fastai.learner.Recorder': ['history', 'grads', 'grad_quantiles'],
        'fastai_clr_ext.record.history.RunHistory': ['save', 'load', 'steps', 'grads', 'grad_quantiles', 'tail']}),
    'plot': ('from fastai_clr_ext.plot import *', {
        owner: ['plot_grads', 'plot_grad_heatmap', 'plot_grad_spread', 'plot_adam', 'plot_cycle', 'plot_lr',
                'plot_losses', 'plot_metrics', 'plot_stages', 'plot_vs_lr', 'summary', 'to_html']
        for owner in ('fastai.learner.Recorder', 'fastai_clr_ext.record.history.RunHistory')}),
    'schedule': ('from fastai_clr_ext.schedule import *', {
        'fastai_clr_ext.schedule.cycle.Cycle': ['table', 'at', 'then', 'repeat', 'plot', 'as_torch', 'as_scheds']}),
    'compare': ('from fastai_clr_ext.compare import *', {
        'fastai_clr_ext.compare.comparison.Comparison': ['to_html', 'to_markdown', 'plot'],
        'fastai.learner.Learner': ['fit_stages', 'fit_one_cycle_ext']}),
    'cli.demo': ('from fastai_clr_ext.cli.demo import *', {
        'fastai.learner.Recorder': ['plot_grads'], 'fastai.learner.Learner': ['fit_one_cycle_ext']})}

MISSING = '''
import importlib, json, sys
statement,promised = json.loads(sys.argv[1])
exec(statement)
for owner,names in promised.items():
    module,_,name = owner.rpartition('.')
    has = dir(getattr(importlib.import_module(module), name))
    print(*[f'{owner}.{n}' for n in names if n not in has])
'''

@pytest.mark.parametrize('wing', PROMISED)
def test_a_wing_alone_brings_the_methods_it_promises(wing):
    statement,promised = PROMISED[wing]
    r = subprocess.run([sys.executable, '-W', 'ignore', '-c', MISSING, json.dumps([statement, promised])],
                       capture_output=True, text=True, env=clean_env | {'MPLBACKEND': 'Agg'})
    assert r.returncode==0, r.stderr
    assert not r.stdout.split()

def test_metadata_is_in_settings():
    cfg = ConfigParser(delimiters=['='], interpolation=None)
    cfg.read(root/'settings.ini')
    cfg,toml = cfg['DEFAULT'],tomllib.loads((root/'pyproject.toml').read_text())
    import fastai_clr_ext
    from importlib.metadata import metadata
    assert fastai_clr_ext.__version__==cfg['version']==metadata('fastai_clr_ext')['Version']
    assert toml['project']['name']==cfg['lib_name']
    code,pages = cfg['git_url'],cfg['doc_url']
    assert toml['project']['urls']=={'Repository': code, 'Documentation': pages,
                                     'Changelog': f'{pages}changelog.html', 'Issues': f'{code}/issues'}

def copy_repo(to):
    "The repository as it would be checked out, without what git ignores"
    skip = shutil.ignore_patterns('.git', '.venv*', '__pycache__', '*.egg-info', 'build', 'dist', '_docs', '_proc',
                                  '.pytest_cache', '.hypothesis', '.ipynb_checkpoints', 'clr_demo')
    return Path(shutil.copytree(root, to/'repo', ignore=skip))

def package_files(repo):
    "The text of every file of the package, by its path"
    files = [p for p in (repo/'fastai_clr_ext').rglob('*') if p.is_file() and '__pycache__' not in p.parts]
    return {str(p.relative_to(repo)): p.read_text(encoding='utf-8') for p in files}

def test_modules_are_what_the_notebooks_say(tmp_path):
    repo = copy_repo(tmp_path)
    hand_written = {'__init__.py', 'all.py', 'py.typed'}
    for p in (repo/'fastai_clr_ext').rglob('*'):
        if p.is_file() and p.name not in hand_written: p.unlink()
    subprocess.run([in_bin('nbdev-export')], cwd=repo, check=True, env=clean_env)
    made,ours = package_files(repo),package_files(root)
    assert set(made)==set(ours)
    assert [name for name in ours if made[name]!=ours[name]]==[]

def test_notebooks_are_clean(tmp_path):
    repo = copy_repo(tmp_path)
    subprocess.run([in_bin('nbdev-clean')], cwd=repo, check=True, env=clean_env)
    for p in notebooks: assert (repo/p.relative_to(root)).read_text()==p.read_text(), f'{p.name}: nbdev-clean'

@pytest.mark.parametrize('path', notebooks, ids=lambda p: p.stem)
def test_notebook_is_presentable(path):
    text = path.read_text()
    assert len(text.encode()) <= 300*1024
    assert '"output_type": "error"' not in text and '"name": "stderr"' not in text
    assert ' object at 0x' not in text and 'site-packages' not in text and '<progress' not in text

@pytest.mark.parametrize('path', notebooks, ids=lambda p: p.stem)
def test_every_caption_has_its_figure(path):
    "A cell that was edited and not run again has lost it, and the page shows nothing"
    for cell in read_nb(path).cells:
        if cell.cell_type!='code' or '#| fig-cap' not in cell.source or '#| eval: false' in cell.source: continue
        assert any('image/png' in out.get('data', {}) for out in cell.outputs), cell.source

def is_page_of_records(path): # test_atlas.py runs these
    return path.parent.name=='atlas' or path.match('studies/[a-g]_*')

@pytest.mark.parametrize('path', [p for p in notebooks if not is_page_of_records(p)], ids=lambda p: p.stem)
def test_notebook_runs(path):
    r = subprocess.run([in_bin('nbdev-test'), str(path.relative_to(root)), '--n-workers', '1'], cwd=root,
                       capture_output=True, text=True, env=clean_env | {'MPLBACKEND': 'Agg'})
    assert r.returncode==0, r.stdout[-3000:] + r.stderr[-3000:]

def test_lines_are_not_too_long():
    code = [cell.source for p in notebooks for cell in read_nb(p).cells if cell.cell_type=='code']
    folders = 'tests', 'bench', 'studies', 'docs'
    code += [p.read_text(encoding='utf-8') for folder in folders for p in (root/folder).glob('*.py')]
    lines = [line for text in code for line in text.splitlines() if not line.startswith('#|')] # options are one line
    assert not [line for line in lines if len(line)>120]

def test_quarto_files_agree():
    import yaml
    def files(items):
        for item in items:
            if isinstance(item, str): yield item
            else: yield from files(item['contents'])
    bar = yaml.safe_load((root/'nbs'/'sidebar.yml').read_text())['website']['sidebar']['contents']
    assert sorted(files(bar))==sorted([*(str(p.relative_to(root/'nbs')) for p in notebooks), 'studies/PROTOCOL.md'])
    site,urls = (yaml.safe_load((root/'nbs'/'nbdev.yml').read_text())['website'],
                 tomllib.loads((root/'pyproject.toml').read_text())['project']['urls'])
    assert (site['site-url'], site['repo-url'])==(urls['Documentation'], urls['Repository'])

@pytest.mark.parametrize('path', sorted((root/'bench').glob('[a-z]*.py')), ids=lambda p: p.stem)
def test_names_in_bench_are_known(path, monkeypatch):
    "They take what they use from stars, which ruff can't look into"
    import ast, builtins
    tree = ast.parse(path.read_text(encoding='utf-8'))
    names = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
    own = {node.id for node in names if not isinstance(node.ctx, ast.Load)}
    own |= {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)} | set(dir(builtins))
    for node in ast.walk(tree):
        if isinstance(node, (ast.ExceptHandler, ast.FunctionDef, ast.ClassDef)): own.add(node.name)
        if isinstance(node, (ast.Import, ast.ImportFrom)): own |= {a.asname or a.name for a in node.names}
    monkeypatch.syspath_prepend(root)
    module = importlib.import_module(f'bench.{path.stem}')
    unknown = {node.id for node in names if node.id not in own and not hasattr(module, node.id)}
    assert not unknown
