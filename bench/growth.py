"""How costs grow: `python -m bench.growth`, four minutes on one core, no network

With the steps of a history (1,000 to a million), with the layers that `GradRecorder(per='layer')` records (10 to 1,000)
and with the parameter groups of `fit_one_cycle_ext` (1 to 100). The slope is that of a line through logarithms: 1 means
in proportion, 0 not at all. And how much longer it takes to import the package than fastai's vision."""
import argparse, gc, subprocess, sys, tempfile, time, warnings
from functools import partial
from pathlib import Path
from statistics import median

warnings.simplefilter('ignore')
import matplotlib
matplotlib.use('Agg')
import matplotlib.pyplot as plt, numpy as np, torch
from fastai.callback.core import Callback
from fastai_clr_ext.all import *
from .common import in_turn, spread, table
from .kernels import deep_mlp
from .record import Spent, make_learner, ours
from .schedule import in_fits, make_learner as make_fit_learner

N_ITER = 1_000 # Batches of an epoch

def slope(sizes, costs)->float:
    "Slope of a line through the logarithms"
    return float(np.polyfit(np.log(sizes), np.log(costs), 1)[0])

# ---- steps of a history

def fill(n:int)->tuple:
    "A history of `n` steps of two groups, and the microseconds a step in the first and last tenth"
    history = RunHistory()
    facts = dict(id='grown', stage='', n_epoch=-(-n//N_ITER), n_iter=N_ITER, lr_max=[.1, .01], sched=None,
                 phases=[['warm-up', 0, n//2], ['cool-down', n//2, n]], opt='SGD', n_groups=2, wd=[0., 0.], bs=1,
                 n_params=10, n_trainable=10, group_sizes=[5, 5], loss_func='MSELoss', cbs=[], device='cpu', python='',
                 torch='', fastai='', fastai_clr_ext='', started='2018-04-04T00:00:00+00:00', seconds=1., n_batches=n,
                 n_steps=n, outcome='finished')
    history.fit_rows.append(facts)
    hypers = [[name, group] for group in (0, 1) for name in ('lr', 'mom', 'wd')]
    cpu,units = torch.device('cpu'),dict(units=[['', 0], ['', 1]], columns=['total', 'norm'])
    noise,losses = torch.rand(1000, 2, 2),torch.rand(1000, 1)
    marks = []
    for i in range(n):
        if i%max(n//10, 1)==0: marks.append(time.perf_counter())
        lr = .1*(i+1)/n
        values = history.batch_log.add([0, i//N_ITER, i%N_ITER, i, i, 0], [lr, .9, .01, lr/10, .9, .01],
                                       (cpu, (1,), dict(hypers=hypers)))
        values.copy_(losses[i%1000])
        history.grad_log.add([0, i, i, i//N_ITER], [5, 5], (cpu, (2, 2), units), is_open=True).copy_(noise[i%1000])
        history.grad_log.close()
    marks.append(time.perf_counter())
    spans = 1e6*np.diff(marks)/max(n//10, 1)
    return history, spans[0], spans[-1]

def memory(history)->float:
    "Memory of the packed rows of a history, MB; a view keeps its base alive"
    arrays = [a for log in (history.batch_log, history.grad_log) for block in log.blocks for packed in block[:-1]
              for a in packed]
    return sum((a if a.base is None else a.base).nbytes for a in arrays)/1e6

def seconds(f)->tuple:
    gc.collect()
    start = time.perf_counter()
    result = f()
    return time.perf_counter()-start, result

def drawn(f):
    "A figure, drawn into memory"
    f()
    plt.gcf().canvas.draw()
    plt.close('all')

def of_steps(n:int)->dict:
    history,first,last = fill(n)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)/'run.npz'
        save,_ = seconds(lambda: history.save(path))
        size = path.stat().st_size/1e6
        load,loaded = seconds(lambda: RunHistory.load(path))
    row = {'steps': n, 'µs a step, first tenth': first, 'last tenth': last, 'memory, MB': memory(history),
           'file, MB': size, 'save, s': save, 'load, s': load, '.steps, s': seconds(lambda: loaded.steps)[0],
           '.grads, s': seconds(lambda: loaded.grads)[0]}
    for name in ('plot_lr', 'plot_losses', 'plot_grads', 'plot_cycle', 'plot_stages'):
        row[f'{name}, s'] = seconds(partial(drawn, getattr(loaded, name)))[0]
    return row

class Clock(Callback):
    "Thread time at the start of each training batch"
    order,run_valid = -5000,False
    def before_fit(self): self.marks = []
    def before_batch(self): self.marks.append(time.thread_time())

# ---- layers, groups, and files while training

def of_layers(n:int)->dict:
    "Milliseconds a step of `GradRecorder(per='layer')`, and of the whole step without it"
    torch.set_num_threads(1)
    def make_model(): return torch.nn.Sequential(torch.nn.Flatten(), deep_mlp(n, 12))
    learn,spent = make_learner(make_model, (8, 3, 2, 2), 12),Spent()
    with ours(spent, per='layer') as cbs: learn.fit(1, 1e-6, cbs=[spent, *cbs])
    steps = np.diff(spent.marks)-np.array(spent.spans[:-1])
    return {'layers': n, 'recording, ms a step': 1e3*median(spent.spans[2:]),
            'the rest of the step, ms': 1e3*median(steps)}

def of_groups(n:int, n_rounds:int)->dict:
    rows = {row['what']: row['median'] for row in in_fits(n_rounds, n, (50, 250))}
    return {'groups': n, 'fit_one_cycle, µs a batch': rows['fit_one_cycle'],
            'fit_one_cycle_ext, µs a batch': rows['fit_one_cycle_ext']}

def of_saving(n:int)->dict:
    "Milliseconds of a batch with `SaveHistory(every=1)`, in the first and the last tenth"
    clock,learn = Clock(),make_fit_learner(n, 1)
    with tempfile.TemporaryDirectory() as folder:
        learn.fit_one_cycle_ext(1, 1e-4, cbs=[SaveHistory(Path(folder)/'run.npz', every=1), clock])
    tenths = [1e3*float(np.median(part)) for part in np.array_split(np.diff(clock.marks), 10)]
    return {'batches': n, 'first tenth, ms': tenths[0], 'last tenth, ms': tenths[-1]}

# ---- imports

def import_seconds(line:str)->float:
    "CPU time of a process of its own, which does not count that others run beside it"
    code = f'import time; start=time.process_time(); {line}; print(time.process_time()-start)'
    return float(subprocess.run([sys.executable, '-W', 'ignore', '-c', code], capture_output=True, text=True,
                                check=True).stdout)

def imports(n_rounds:int)->dict:
    "CPU seconds to import fastai's vision, alone and with the package"
    theirs = 'from fastai.vision.all import *'
    found = in_turn({'fastai.vision.all': partial(import_seconds, theirs),
                     'and fastai_clr_ext.all': partial(import_seconds, f'{theirs}; from fastai_clr_ext.all import *')},
                    n_rounds)
    ratios = found['and fastai_clr_ext.all']/found['fastai.vision.all']
    return dict(seconds={name: float(np.median(values)) for name,values in found.items()}, ratio=spread(ratios))

def measure(n_rounds:int=7, sizes=(1_000, 10_000, 100_000, 1_000_000), layers=(10, 30, 100, 300, 1_000),
            groups=(1, 3, 10, 30, 100), n_saved:int=10_000)->dict:
    drawn(fill(20)[0].plot_cycle) # fonts
    steps = [of_steps(n) for n in sizes]
    by_layer = [of_layers(n) for n in layers]
    by_group = [of_groups(n, n_rounds) for n in groups]
    slopes = {'µs a step, by steps': slope(sizes, [row['last tenth'] for row in steps]),
              'plot_cycle, by steps': slope(sizes, [row['plot_cycle, s'] for row in steps]),
              'recording, by layers': slope(layers, [row['recording, ms a step'] for row in by_layer]),
              'fit_one_cycle_ext, by groups': slope(groups, [row['fit_one_cycle_ext, µs a batch'] for row in by_group]),
              'fit_one_cycle, by groups': slope(groups, [row['fit_one_cycle, µs a batch'] for row in by_group])}
    return dict(steps=steps, layers=by_layer, groups=by_group, slopes=slopes, saving=of_saving(n_saved),
                imports=imports(n_rounds))

if __name__=='__main__':
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    found = measure()
    tables = [table(found[part]) for part in ('steps', 'layers', 'groups')]
    print(*tables, found['slopes'], found['saving'], found['imports'], sep='\n\n')
