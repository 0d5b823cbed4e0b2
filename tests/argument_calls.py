"Calls of every public name that takes arguments, with arguments that work: what the tests of bad arguments start from"
import inspect, itertools, tempfile
from pathlib import Path
import numpy as np, pandas as pd, torch
from fastai.learner import Learner
from fastai_clr_ext.all import *
from fastai_clr_ext import schedule
from fastai_clr_ext.compare import in_margins
from fastai_clr_ext.situations.images import digits_images
from compare_helpers import POLICIES, make_line
from conftest import make_mlp

class Call:
    "A function, and arguments by name that it accepts"
    def __init__(self, f, **base): self.f,self.base = f,base
    def __call__(self, **changed): return self.f(**self.base | changed)

def torch_opt(): return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=.1, momentum=.9)

def defaults(f):
    "Defaults of a function's own parameters"
    kinds = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY
    found = {}
    for name,p in inspect.signature(f).parameters.items():
        is_event = name.startswith(('after_', 'before_')) # which every callback of fastai takes
        if p.kind in kinds and p.default is not p.empty and not is_event: found[name] = p.default
    return found

def on_learner(method, **base):
    "Call a method of a fresh learner"
    def call(**kwargs): return getattr(make_mlp(), method)(**kwargs)
    return Call(call, **base)

def in_fit(kind, *others, **base):
    "Make a callback and fit with it"
    def call(**kwargs): return make_mlp().fit(1, cbs=[*[other() for other in others], kind(**kwargs)])
    return Call(call, **defaults(kind) | base)

learn = make_mlp(cbs=GradRecorder(['hist', 'weight'], adam=False))
learn.fit_one_cycle_ext(2, .1)
history = learn.recorder.history
plan = learn.recorder.plans[0]
outcomes = pd.DataFrame({'a': [.5, .6, .7], 'b': [.6, .7, .9]})

NEEDED = dict(clr_beta_07=dict(div=10, pct=10), clr_07=dict(div=10, cut_div=4)) # of presets without a default
CALLS = {}
for name,f in schedule.presets.PRESETS.items(): CALLS[f'{name}()'] = Call(f, **defaults(f) | NEEDED.get(name, {}))
RECIPES = dict(epochs=1, base_lr=.1, head_epochs=1, lr_mult=10, budget=None, sched=None, wd=None, keep_opt=False)
CALLS |= {
    'Phase': Call(Phase, name='a', pct=1., lr=1), 'Cycle': Call(Cycle, phases=[Phase('a', 1., lr=1)], sampling='torch'),
    'ByGroup': Call(ByGroup, cycles=[constant()]), 'Cycle.table': Call(one_cycle().table, n_iter=10, lr_max=1.),
    'ByGroup.table': Call(ByGroup([constant(), wsd()]).table, n_iter=10, lr_max=1.),
    'Cycle.at': Call(one_cycle().at, pos=.5, name='lr', lr_max=1.), 'Cycle.spans': Call(one_cycle().spans, n_iter=10),
    'Cycle.then': Call(one_cycle().then, other=one_cycle(), pct=.5),
    'Cycle.repeat': Call(one_cycle().repeat, n_cycles=2),
    'Cycle.in_steps': Call(one_cycle().in_steps, n_steps=2),
    'Cycle.plot': Call(one_cycle().plot, n_iter=10, lr_max=1., show_moms=True, ax=None),
    'Cycle.from_dict': Call(Cycle.from_dict, d=one_cycle().to_dict(), annealers=None),
    'ByGroup.from_dict': Call(ByGroup.from_dict, d=ByGroup([one_cycle()]).to_dict(), annealers=None),
    'Cycle.as_torch': Call(one_cycle().as_torch, optimizer=torch_opt(), n_iter=10, lr_max=1., last_epoch=-1),
    'Cycle.as_scheds': Call(one_cycle().as_scheds, lr_max=1.),
    'CycleLR': Call(CycleLR, optimizer=torch_opt(), cycle=one_cycle(), n_iter=10, lr_max=1., last_epoch=-1),
    'Plan': Call(Plan, cycle=one_cycle(), lr_max=(1.,), n_epoch=1, n_iter=10, trained_ranges=None, scheduled=None),
    'plot_schedule': Call(plot_schedule, plans=[plan], show_moms=True, ax=None),
    'fit_one_cycle_ext': on_learner('fit_one_cycle_ext',
                                    **defaults(Learner.fit_one_cycle_ext) | dict(n_epoch=1, lr_max=.1)),
    'preview_one_cycle_ext': on_learner('preview_one_cycle_ext', n_epoch=1, lr_max=.1, show_moms=True, ax=None),
    'Stage': Call(lambda **kwargs: make_mlp().fit_stages([Stage(**kwargs)]), name='a', n_epoch=1, lr_max=.1,
                  freeze_to=0, sched=None, wd=None, cbs=None, keep_opt=False),
    'Stage.from_dict': Call(Stage.from_dict, d=Stage('a', 1).to_dict(), annealers=None),
    'fit_stages': on_learner('fit_stages', stages=[Stage('a', 1)], cbs=None, start=None),
    'preview_stages': on_learner('preview_stages', stages=[Stage('a', 1)], cbs=None, show_moms=True, ax=None),
    'plan_stages': Call(plan_stages, learn=make_mlp(), stages=[Stage('a', 1)], cbs=None),
    'stages_long': Call(stages_long, **RECIPES), 'stages_two_cycles': Call(stages_two_cycles, **RECIPES),
    'stages_gradual': Call(stages_gradual, n_groups=2, **RECIPES),
    'stages_fine_tune': Call(stages_fine_tune, epochs=1, **defaults(stages_fine_tune)),
    'fine_tune_long': on_learner('fine_tune_long', cbs=None, **RECIPES),
    'fine_tune_two_cycles': on_learner('fine_tune_two_cycles', cbs=None, **RECIPES),
    'fine_tune_gradual': on_learner('fine_tune_gradual', cbs=None, **RECIPES),
    'GradRecorder': in_fit(GradRecorder), 'HistoryRecorder': in_fit(HistoryRecorder),
    'DivergenceGuard': in_fit(DivergenceGuard), 'ShowCycle': in_fit(ShowCycle, HistoryRecorder),
    'CycleScheduler': in_fit(CycleScheduler, plan=Plan(constant(), (.1, .1), 1, 10)),
    'HistoryView': Call(HistoryView, history=history, **defaults(HistoryView)),
    'grad_quantiles': Call(history.grad_quantiles, qs=.5), 'tail': Call(history.tail, n_batches=0, n_grads=0),
    'paired_summary': Call(paired_summary, outcomes=outcomes, **defaults(paired_summary)),
    'seeds_needed': Call(seeds_needed, effect=.1, sd=.1, alpha=.05, power=.8),
    'cifar_resnet': Call(cifar_resnet, **defaults(cifar_resnet) | dict(depth=8)),
    'digits_dls': Call(digits_dls, **defaults(digits_dls)),
    'Situation': Call(Situation, **defaults(Situation)),
}
PLOTS = ('plot_lr', 'plot_losses', 'plot_grads', 'plot_cycle', 'plot_stages', 'plot_vs_lr', 'plot_grad_heatmap',
         'plot_grad_spread')
CALLS |= {name: Call(getattr(history, name), **defaults(getattr(history, name))) for name in (*PLOTS, 'summary')}

folder = Path(tempfile.mkdtemp())
quick = dict(n_epoch=1, seeds=1, lr_max=.05, with_bar=False)
result = compare(make_line, POLICIES, out=folder/'base', **quick)
history.save(folder/'history.npz')
make_mlp().fit_one_cycle_ext(1, .1, cbs=FitCheckpoint(folder/'resume.pt'))
number = itertools.count()
JUDGING = dict(baseline=None, metric=None, higher=None, level=.95, margin=0., fail_score=None)

def new_comparison(**kwargs): return compare(**dict(out=folder/f'{next(number)}') | kwargs)

CALLS |= {
    'compare': Call(new_comparison, make_learner=make_line, policies=POLICIES, **quick, tune=None, n_workers=None,
                    n_threads=1, grads=True, same_start=False, looks=None, fail_if=None, situation=None, **JUDGING),
    'Comparison.read': Call(result.read, **JUDGING), 'Comparison.plot': Call(result.plot, axs=None),
    'Comparison.plot_curves': Call(result.plot_curves, **defaults(result.plot_curves)),
    'Comparison.plot_grads': Call(result.plot_grads, axs=None),
    'to_html': Call(result.to_html, path=folder/'r.html', overwrite=True),
    'to_markdown': Call(result.to_markdown, path=folder/'r.md', overwrite=True),
    'read_record': Call(read_record, path=folder/'base'),
    'check_record': Call(check_record, record=result.record),
    'merge_records': Call(merge_records, records=[result], baseline=None, by_name=False),
    'merged_html': Call(merged_html, table=merge_records([result]), path=folder/'m.html', overwrite=True),
    'merged_markdown': Call(merged_markdown, table=merge_records([result])),
    'over_situations': Call(over_situations, table=merge_records([result]), level=.95),
    'in_margins': Call(in_margins, table=merge_records([result]).assign(margin=.1)),
    'plot_situations': Call(plot_situations, table=merge_records([result]), axs=None),
    'run_policy': Call(run_policy, learn=make_mlp(), policy=constant(), n_epoch=1, lr_max=.1),
    'RunHistory.to_html': Call(history.to_html, path=folder/'p.html', title='x', overwrite=True),
    'RunHistory.save': Call(history.save, path=folder/'h.npz', overwrite=True),
    'RunHistory.load': Call(RunHistory.load, path=folder/'history.npz'),
    'SaveHistory': in_fit(SaveHistory, HistoryRecorder, path=folder/'s.npz', overwrite=True),
    'FitCheckpoint': in_fit(FitCheckpoint, path=folder/'c.pt', overwrite=True),
    'resume_fit': on_learner('resume_fit', path=folder/'resume.pt', cbs=None, stage_cbs=None, annealers=None,
                             n_epoch=None, rescale=False),
    'images_dls': Call(images_dls, images=digits_images(.2, 0), **defaults(images_dls)),
}

#: What nobody would mean, of many kinds
BAD = [None, 'a', '', -1, 0, 1.5, float('nan'), float('inf'), 10**12, 1e300, [], [1], ['a'], (), {}, {'a': 1}, object(),
       np.array([1., 2.]), np.array([[1.]]), True, lambda x: x, print, torch.tensor([1., 2.]), pd.DataFrame(),
       slice(None), b'x', 1j, type, Exception('x')]
