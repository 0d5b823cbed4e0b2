"Learners, policies and records that the tests of the wing `compare` share"
import os, subprocess, sys, time
from contextlib import suppress
from functools import partial
from pathlib import Path
import pandas as pd, signal, torch
from fastai.callback.core import Callback
from fastai.data.core import DataLoaders
from fastai.learner import Learner
from fastai.losses import MSELossFlat
from fastai.optimizer import SGD
from fastai.test_utils import synth_dbunch
from fastai_clr_ext.compare import *
from fastai_clr_ext.schedule import constant, one_cycle

def make_line(seed, **kwargs):
    "A line to fit: 10 batches of 16, a new model each time"
    return Learner(synth_dbunch(n_train=10, n_valid=2), torch.nn.Linear(1, 1),
                   **dict(loss_func=MSELossFlat(), opt_func=partial(SGD, mom=.9), lr=.01) | kwargs)

def make_fixed(seed):
    "The same line and the same points for every seed: only the weights and the order change"
    torch.manual_seed(0)
    dls = synth_dbunch(n_train=10, n_valid=2)
    torch.manual_seed(seed)
    return Learner(dls, torch.nn.Linear(1, 1), loss_func=MSELossFlat(), opt_func=partial(SGD, mom=.9), lr=.01)

def make_with(seed, *cbs, **kwargs): return make_line(seed, **kwargs).add_cbs([make() for make in cbs])

never = lambda scores: False # as `fail_if`, where a few batches are too few to learn anything

POLICIES = {'constant': constant(moms=.9), '1cycle': one_cycle()}

quick = dict(n_epoch=2, lr_max=.05, with_bar=False)

numbers = lambda c: c.df.drop(columns='seconds')

same = lambda a, b: pd.testing.assert_frame_equal(numbers(a), numbers(b))

def slow(learn):
    time.sleep(.15)
    learn.fit(2, .05)

def long_one(out, n_workers=None):
    return compare(make_line, {'constant': constant(), 'slow': slow}, seeds=6, n_epoch=2, lr_max={'constant': .05},
                   out=out, n_workers=n_workers, with_bar=False)

def start(script, out, n_workers):
    return subprocess.Popen([sys.executable, '-W', 'ignore', script, out, str(n_workers)], stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True, start_new_session=True)

def wait_for(out, n, p):
    until = time.time()+60
    while len(list(out.glob('runs/*.json')))<n and time.time()<until and p.poll() is None: time.sleep(.02)

def children(pid):
    "Worker processes of joblib"
    kids = []
    for task in Path(f'/proc/{pid}/task').iterdir():
        with suppress(FileNotFoundError): kids += (task/'children').read_text().split() # unless the thread has ended
    kids = [Path(f'/proc/{k}') for k in kids]
    return [int(k.name) for k in kids if k.exists() and b'popen_loky' in (k/'cmdline').read_bytes()]

class Marked:
    "Trains, and writes down that it began; `dies` times its process is killed instead"
    def __init__(self, folder, dies=0, rest=0.): self.folder,self.dies,self.rest = folder,dies,rest
    def __call__(self, learn):
        (self.folder/f'{time.time_ns()}').touch()
        time.sleep(self.rest)
        if len(list(self.folder.iterdir()))<=self.dies: os.kill(os.getpid(), signal.SIGKILL)
        learn.fit(1, .05)

def marked(tmp_path, dies, n_workers=2):
    "A run that is under way when another one's process dies so many times, and how often each began"
    folders = [tmp_path/name for name in ('slow', 'killer')]
    for f in folders: f.mkdir()
    policies = dict(slow=Marked(folders[0], rest=3.), killer=Marked(folders[1], dies))
    try: return compare(make_line, policies, seeds=1, n_epoch=1, n_workers=n_workers, out=tmp_path/'out',
                        with_bar=False)
    finally: assert len(list(folders[0].iterdir()))==1, 'the run beside it is not begun again'

class Shifted(torch.utils.data.Dataset):
    "The same inputs with other targets"
    def __init__(self, ds, by): self.ds,self.by = ds,by
    def __len__(self): return len(self.ds)
    def __getitem__(self, i): return self.ds[i][0],self.ds[i][1]*self.by

def make_shifted(seed, by=1., cbs=()):
    learn = make_with(seed, *cbs)
    train,valid = learn.dls.train,learn.dls.valid
    learn.dls = DataLoaders(train.new(Shifted(train.dataset, by)), valid.new(Shifted(valid.dataset, by)))
    return learn

class Rescale(Callback):
    "Gradients times a factor"
    def __init__(self, by): self.by = by
    def before_step(self):
        for p in self.model.parameters(): p.grad *= self.by

def my_sgd(params, lr, **kwargs): return torch.optim.SGD(params, lr)

class TwoLayers(torch.nn.Sequential):
    def __init__(self): super().__init__(torch.nn.Linear(1, 4), torch.nn.ReLU(), torch.nn.Linear(4, 1))

def make_two(seed):
    "Two parameter groups, so that a head can be trained alone"
    return Learner(synth_dbunch(n_train=10, n_valid=2), TwoLayers(), loss_func=MSELossFlat(),
                   opt_func=partial(SGD, mom=.9), lr=.01,
                   splitter=lambda m: [list(m[0].parameters()), list(m[2].parameters())])

def fails(learn): raise OSError('disk full')

def named(name):
    f = lambda inp, targ: torch.tensor(7.)
    f.__name__ = name
    return f

def made(policies=('constant', '1cycle'), seeds=(0, 1, 2), **more):
    "A record by hand: the gain is .02, .03 and .04"
    runs = [dict(policy=p, seed=s, lr_max=1.,
                 scores={'train_loss': .1, 'valid_loss': .2, 'accuracy': .9 + .01*s*(1+i) + .02*i}, end='well',
                 why=None, n_steps=20, n_tried=20, n_batches=20, n_items=640, final_loss=.1, constant_loss=2.3,
                 inputs=['a', 'b'], targets=['c', 'd'], validation='e', seconds=1.,
                 curves={'accuracy': [.5, .9], 'valid_loss': [.4, .2], 'train_loss': [.3, .1],
                         'mean |g|': [3., 2., 1.]}) for s in seeds for i,p in enumerate(policies)]
    return dict(kind=RECORD_KIND, version=RECORD_VERSION,
                situation=dict(data='digits', model='resnet8', n_train=1437, n_params=75002, pretrained=False,
                               optimizer='sgd', batch_size=64, wd=.005),
                budget=dict(n_epoch=2, n_batches=20, n_steps=20),
                policies=[dict(name=p, what='Cycle(…)', lr_max=1., n_trials=0) for p in policies], seeds=list(seeds),
                baseline=policies[0], metric='accuracy', higher=True, level=.95, margin=0., fail_score=None,
                fail_if=None, looks=dict(planned=[3], taken=[[3, True]], present=0),
                varies={'initial weights': True}, notes=[], tuning=[], runs=runs,
                versions={'fastai': '2.8.12'}, hardware={'gpu': None}) | more

def made_v1(*args, **more):
    "The same as version 1 had it"
    later = 'fail_score', 'fail_if', 'looks', 'varies', 'notes'
    record = {k: v for k,v in made(*args).items() if k not in later}
    new = 'end', 'why', 'n_items', 'final_loss', 'constant_loss', 'inputs', 'targets', 'validation'
    runs = [{k: v for k,v in run.items() if k not in new} | dict(diverged=False, error=None) for run in record['runs']]
    return record | dict(version=1, method='t', runs=runs) | more

def but(*path, value):
    r = made()
    o = r
    for k in path[:-1]: o = o[k]
    if value is KeyError: del o[path[-1]]
    else: o[path[-1]] = value
    return r

HOSTILE = ['<script>alert(1)</script>', '"><img src=x onerror=alert(1)>', "'-alert(1)-'",
           '</title><script>alert(1)</script>', '</style><script>alert(1)</script>', '{{ 7*7 }}{% for x in y %}',
           '</pre><iframe src="//evil">', '| a | b |', '`x` **b** _i_', '[link](javascript:alert(1))',
           '![i](http://evil/x.png)', 'http://evil.example', '$\\frac{1$', '_hidden', '# title', '~~~', '<!-- --><!--x',
           '</td><td onclick=alert(1)>', '&lt;b&gt;', '%s%n{0}']

def poisoned(text):
    "The text in every place of a record that holds text"
    name = text[:70]
    r = made((name, f'{name} 2'), metric=name)
    for run in r['runs']:
        run['scores'][name] = run['scores']['accuracy']
        run['curves'][name] = [.1, .2]
    r['runs'][0]['why'] = text
    r['runs'][0]['end'] = 'error'
    r['notes'],r['fail_if'] = [text],text
    for d in ('situation', 'versions', 'hardware'): r[d] = {**r[d], **dict.fromkeys(r[d], text), name: text}
    r['situation']['again'] = text
    for p in r['policies']: p['what'],p['lr_max'] = text,text
    r['tuning'] = [dict(policy=name, seed=TUNE_SEED, lr_max=.1, scores={name: .5}, end='failed', why=text)]
    r['policies'][0]['n_trials'] = 1
    return r
