"What several test modules share"
import os
if 'PYTEST_XDIST_WORKER' in os.environ: # before torch is imported: threads of several workers would wait for each other
    os.environ.setdefault('OMP_NUM_THREADS', '1')
import matplotlib, re, sys
from pathlib import Path
matplotlib.use('Agg')
sys.path.append(str(Path(__file__).parents[1])) # for `bench`; last, so that the package is the one that is installed
import matplotlib.pyplot as plt, pytest
from torch import nn
from torch.amp import GradScaler, autocast
from functools import partial
from fastai.learner import Learner
from fastai.losses import MSELossFlat
from fastai.optimizer import SGD
from fastai.test_utils import synth_dbunch
from fastai.torch_core import set_seed
from fastai.callback.core import Callback
from fastai.callback.fp16 import MixedPrecision
from fastai.callback.progress import ProgressCallback

def pytest_xdist_auto_num_workers(config):
    "Workers for `-n auto`: one for each core, four at most, because each needs about 1 GB"
    return min(4, os.cpu_count() or 1)

@pytest.fixture(scope='session')
def browser():
    "Debian's Chromium"
    chromium = next((p for p in map(Path, ('/usr/bin/chromium', '/usr/bin/chromium-browser')) if p.exists()), None)
    if chromium is None: pytest.skip('no Chromium here')
    sync_api = pytest.importorskip('playwright.sync_api')
    with sync_api.sync_playwright() as p:
        running = p.chromium.launch(executable_path=str(chromium), args=['--no-sandbox'])
        yield running
        running.close()

class Spy(Callback):
    "Reads every group's hyper-parameters from the optimizer when a training batch is about to step"
    order,run_valid = 1000,False
    def before_fit(self): self.rows = []
    def before_step(self): self.rows.append([dict(h) for h in self.learn.opt.hypers])
    def column(self, name): return [[g[name] for g in row] for row in self.rows]

class Raise(Callback):
    "Raises before the step of one training batch, when all others are done"
    order = 2000
    def __init__(self, at, what): self.at,self.what = at,what
    def before_step(self):
        if self.learn.train_iter==self.at: raise self.what

class ValidateAt(Callback):
    "Validates once more at an event of training, as users do to look at another set"
    run_valid,busy = True,False
    def __init__(self, event, order=0, what='validate'): self.event,self.order,self.what = event,order,what
    def __call__(self, name):
        if name!=self.event or self.busy: return
        self.busy = True
        getattr(self.learn, self.what)()
        self.busy = False

class CpuAmp(MixedPrecision):
    "fastai's mixed precision with a real scaler that works without a GPU"
    def before_fit(self):
        self.learn.scaler = GradScaler('cpu', init_scale=2.**10, growth_interval=1000)
        self.autocast,self.scales = autocast('cpu', enabled=False),[]

def without_address(x): return re.sub(' at 0x[0-9a-f]+', '', str(x)) # the same in every process of pytest-xdist

def two_groups(m): return [list(m[0].parameters()), list(m[2].parameters())]

def make_mlp(n_trn=10, model=None, **kwargs):
    "A silent learner with a two-group network"
    set_seed(42)
    if model is None: model = nn.Sequential(nn.Linear(1, 8), nn.ReLU(), nn.Linear(8, 1))
    learn = Learner(synth_dbunch(n_train=n_trn), model, **dict(
        loss_func=MSELossFlat(), opt_func=partial(SGD, mom=.9), splitter=two_groups, lr=.01) | kwargs)
    learn.logger = lambda *_: None
    return learn.remove_cb(ProgressCallback)

@pytest.fixture
def mlp(): return make_mlp

@pytest.fixture(autouse=True)
def folder_for_comparisons(request, tmp_path_factory, monkeypatch):
    "`compare` without `out` makes a folder where it is called"
    if request.module.__name__.startswith('test_compare'): monkeypatch.chdir(tmp_path_factory.mktemp('current'))

@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close('all')

def use_lists(monkeypatch):
    "Measure many tensors in one operation, as on a device"
    for module in ('record.foreach', 'train.watched'):
        monkeypatch.setattr(f'fastai_clr_ext.{module}.uses_lists', lambda device: True)
