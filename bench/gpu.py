"""What our callbacks cost on a GPU, and whether they are right there: `python -m bench.gpu`, some minutes, no network

Step times with and without each callback, by CUDA events, in pairs one after the other; kernels of a step by torch's
profiler; memory; and any wait for the device, which raises. Then checks: the numbers are those of `float64` sums on the
host of the same gradients, overflows under mixed precision are recorded as such, the effective step of fused and
capturable optimizers is what the weights moved by, and a step can be captured in a CUDA graph. Random data. Writes
`gpu.json`. Without a GPU it runs small on the CPU, where it says nothing about a GPU: `--small`."""
import argparse, gc, json, platform, time, traceback, warnings
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median, quantiles

warnings.simplefilter('ignore')
import numpy as np, torch
from torch.amp import GradScaler, autocast
from torchvision.models import VisionTransformer, resnet18, resnet50
from fastai.callback.core import Callback
from fastai.callback.fp16 import MixedPrecision
from fastai.callback.progress import ProgressCallback
from fastai.callback.rnn import rnn_cbs
from fastai.callback.training import GradientAccumulation
from fastai.data.core import DataLoaders
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat
from fastai.optimizer import Adam, OptimWrapper, SGD
from fastai.text.models.awdlstm import AWD_LSTM, awd_lstm_lm_config
from fastai.text.models.core import get_language_model
from fastai.torch_core import set_seed
from fastai_clr_ext import __version__
from fastai_clr_ext.all import *
from fastai_clr_ext.core.callback import EventCallback
from fastai_clr_ext.record import HistoryRecorder
from fastai_clr_ext.record.foreach import StepTensors
from fastai_clr_ext.record.params import param_sets
from fastai_clr_ext.record.statistics import measure
from fastai_clr_ext.situations import cifar_resnet

DEVICE = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
IS_GPU = DEVICE.type=='cuda'

# ---- what is trained

def images(n, size, n_classes=1000):
    return torch.randn(n, 3, size, size, device=DEVICE), torch.randint(0, n_classes, (n,), device=DEVICE)

def words(n, length, n_words):
    text = torch.randint(0, n_words, (n, length+1), device=DEVICE)
    return text[:,:-1].contiguous(), text[:,1:].contiguous()

def vit_small(): return VisionTransformer(image_size=224, patch_size=16, num_layers=12, num_heads=6, hidden_dim=384,
                                          mlp_dim=1536)

def language_model(n_words=10_000, **sizes): return get_language_model(AWD_LSTM, n_words, awd_lstm_lm_config | sizes)

class SameBatch:
    "Gives one batch again and again, so that the loader takes no time"
    def __init__(self, batch, n): self.batch,self.n,self.bs,self.device = batch,n,len(batch[0]),DEVICE
    def __len__(self): return self.n
    def __iter__(self):
        for _ in range(self.n): yield self.batch
    def to(self, device): return self

class Amp(MixedPrecision):
    "Mixed precision with a scaler of our own settings, on any device"
    def __init__(self, **scaler):
        super().__init__()
        self.settings = scaler
    def before_fit(self):
        self.learn.scaler = self.last_scaler = GradScaler(DEVICE.type, **self.settings) # fastai forgets its own
        self.autocast = autocast(DEVICE.type, dtype=torch.float16)
        self.scales = []

def case(make_model, batch, *cbs, opt=partial(SGD, mom=.9), is_compiled=False)->dict:
    return dict(make_model=make_model, batch=batch, cbs=cbs, opt=opt, is_compiled=is_compiled)

CASES = {
    'resnet18, 64×224': case(resnet18, partial(images, 64, 224)),
    'resnet18, AMP': case(resnet18, partial(images, 64, 224), Amp),
    'resnet50, 64×224': case(resnet50, partial(images, 64, 224)),
    'resnet50, AMP': case(resnet50, partial(images, 64, 224), Amp),
    'resnet50, AMP, compiled': case(resnet50, partial(images, 64, 224), Amp, is_compiled=True),
    'resnet50, AMP, accumulation of 4': case(resnet50, partial(images, 64, 224), Amp,
                                             partial(GradientAccumulation, n_acc=256)),
    'ViT-S, AMP, Adam': case(vit_small, partial(images, 64, 224), Amp, opt=Adam),
    'ViT-S, AMP, fused AdamW': case(vit_small, partial(images, 64, 224), Amp,
                                    opt=partial(OptimWrapper, opt=partial(torch.optim.AdamW, fused=True))),
    'AWD-LSTM, 64×72, Adam': case(language_model, partial(words, 64, 72, 10_000), *[type(cb) for cb in rnn_cbs()],
                                  opt=Adam)}
SMALL_CASES = {
    'resnet8, 4×8': case(partial(cifar_resnet, 8), partial(images, 4, 8, 10)),
    'resnet8, AMP, accumulation of 2': case(partial(cifar_resnet, 8), partial(images, 4, 8, 10), Amp,
                                            partial(GradientAccumulation, n_acc=8)),
    'resnet8, compiled, Adam': case(partial(cifar_resnet, 8), partial(images, 4, 8, 10), opt=Adam, is_compiled=True),
    'AWD-LSTM, 4×6, fused AdamW': case(partial(language_model, 50, emb_sz=8, n_hid=12), partial(words, 4, 6, 50),
                                       *[type(cb) for cb in rnn_cbs()],
                                       opt=partial(OptimWrapper, opt=partial(torch.optim.AdamW, fused=True)))}

def make_learner(spec, n_steps)->Learner:
    set_seed(0)
    model = spec['make_model']().to(DEVICE)
    if spec['is_compiled']: model = torch.compile(model, backend='inductor' if IS_GPU else 'eager')
    dls = DataLoaders(SameBatch(spec['batch'](), n_steps), SameBatch(spec['batch'](), 0))
    learn = Learner(dls, model, loss_func=CrossEntropyLossFlat(), opt_func=spec['opt'], lr=1e-3,
                    cbs=[make_cb() for make_cb in spec['cbs']]).remove_cb(ProgressCallback)
    learn.logger = lambda *_: None
    return learn

# ---- what is measured

#: What is added to fastai's own training, and for which optimizers
ADDED = {'HistoryRecorder': (HistoryRecorder, False), 'GradRecorder': (GradRecorder, False),
         'max, zeros, nonfinite': (partial(GradRecorder, ('max', 'zeros', 'nonfinite')), False),
         "per='layer'": (partial(GradRecorder, per='layer'), False),
         'adam=True': (partial(GradRecorder, adam=True), True), 'DivergenceGuard': (DivergenceGuard, False)}

class StepTimes(Callback):
    "Time of each training batch on the device, and on the host"
    order,run_valid = -1000,False
    def before_fit(self): self.marks,self.host = [],[]
    def before_batch(self):
        self.host.append(time.perf_counter())
        if IS_GPU:
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self.marks.append(event)
    def milliseconds(self, n_skip=3)->float:
        "Mean of a step: what is done at some steps only, such as a guard's look, counts too"
        n = len(self.host)-1-n_skip
        if not IS_GPU: return 1e3*(self.host[-1]-self.host[n_skip])/n
        torch.cuda.synchronize()
        return self.marks[n_skip].elapsed_time(self.marks[-1])/n

def step_time(learn, *cbs)->float:
    times = StepTimes()
    learn.fit(1, cbs=[times, *cbs])
    return times.milliseconds()

def pairs(learn, make_cb, n_pairs, limit)->dict:
    "Step times with and without a callback, one fit of each after the other"
    began,without,ratios = time.perf_counter(),[],[]
    step_time(learn, make_cb()) # warm
    while len(ratios)<n_pairs and (len(ratios)<2 or time.perf_counter()-began<limit):
        is_first = len(ratios)%2 # in turn, so that a drift of the machine favours neither
        with_it = step_time(learn, make_cb()) if is_first else None
        without.append(step_time(learn))
        if with_it is None: with_it = step_time(learn, make_cb())
        ratios.append(with_it/without[-1])
    low,middle,high = quantiles(ratios, n=4)
    return dict(step_ms=median(without), ratio=middle, quartiles=[low, high], n_pairs=len(ratios))

def n_kernels(learn, *cbs)->float|None:
    "Kernels of a step, by torch's profiler; None without a GPU"
    if not IS_GPU: return None
    from torch.profiler import ProfilerActivity, profile
    with profile(activities=[ProfilerActivity.CUDA]) as found: learn.fit(1, cbs=list(cbs))
    return sum(map(is_kernel, found.events()))/len(learn.dls.train)

def is_kernel(event)->bool:
    "Is an event of the profiler a kernel? Others are calls of the host, copies, and names that users gave"
    on_device = event.device_type==torch.autograd.DeviceType.CUDA and not getattr(event, 'is_user_annotation', False)
    return on_device and not event.name.lower().startswith(('memcpy', 'memset'))

def peak_memory(learn, *cbs)->float|None:
    "Peak memory of a fit in MB; None without a GPU"
    if not IS_GPU: return None
    gc.collect() # a learner and its callbacks refer to each other
    torch.cuda.reset_peak_memory_stats()
    learn.fit(1, cbs=list(cbs))
    return torch.cuda.max_memory_allocated()/1e6

@contextmanager
def waits_raise():
    "Raise in any of our callbacks that waits for the device, after two steps that may set up"
    real = EventCallback.__call__
    def call(self, name):
        if not self.learn.training or self.learn.train_iter<2 or name in ('after_fit', 'after_train', 'after_epoch'):
            return real(self, name)
        if IS_GPU: torch.cuda.set_sync_debug_mode('error')
        try: real(self, name)
        finally:
            if IS_GPU: torch.cuda.set_sync_debug_mode('default')
    EventCallback.__call__ = call
    try: yield
    finally: EventCallback.__call__ = real

def waits(learn, make_cb)->str:
    "Error of a callback that waits; empty if none does"
    cb = make_cb()
    if isinstance(cb, DivergenceGuard): cb.every = 10_000 # a look is meant to wait
    try:
        with waits_raise(): learn.fit_one_cycle_ext(1, 1e-3, cbs=cb)
    except RuntimeError as e:
        if 'synchroniz' not in str(e): raise
        return str(e)[:300]
    return ''

def measure_case(spec, n_steps, n_pairs, limit)->dict:
    learn = make_learner(spec, n_steps)
    has_squares = spec['opt'] is not CASES['resnet50, 64×224']['opt']
    step_time(learn) # allocates, and compiles
    base = dict(kernels=n_kernels(learn), memory_mb=peak_memory(learn))
    found = {}
    for name,(make_cb,needs_squares) in ADDED.items():
        if needs_squares and not has_squares: continue
        row = pairs(learn, make_cb, n_pairs, limit)
        n,memory = n_kernels(learn, make_cb()),peak_memory(learn, make_cb())
        row['kernels'] = None if n is None else n-base['kernels']
        row['memory_mb'] = None if memory is None else memory-base['memory_mb']
        row['waits'] = waits(learn, make_cb)
        found[name] = row
    return base | dict(added=found)

# ---- checks

class Tape(Callback):
    "What the statistics are of the same gradients in `float64` on the host, and what the weights moved by"
    order,run_valid = GradRecorder.order+.1,False
    def before_fit(self): self.rows = []
    def _all(self, of): return torch.cat([of(p).detach().double().cpu().ravel() for p in self.learn.model.parameters()])
    def before_step(self):
        g = self._all(lambda p: p.grad)
        self.before = self._all(lambda p: p)
        self.rows.append(dict(mean_abs=g.abs().mean(), norm=g.norm(), max_abs=g.abs().max(), n_zero=(g==0).sum(),
                              n_nonfinite=(~g.isfinite()).sum(), weight_norm=self.before.norm()))
    def after_step(self):
        moved = (self._all(lambda p: p)-self.before).abs()
        self.rows[-1] |= dict(update_norm=moved.norm(), eff_step=moved.mean())

def check_numbers(spec)->dict:
    "Largest relative error of each statistic"
    tape,learn = Tape(),make_learner(spec, 4)
    learn.fit(1, 1e-3, cbs=[GradRecorder(('max', 'zeros', 'nonfinite', 'update')), tape])
    grads = learn.recorder.grads
    errors = {}
    for name in [name for name in tape.rows[0] if name!='eff_step']:
        want = np.array([float(row[name]) for row in tape.rows])
        errors[name] = float(np.max(abs(grads[name].to_numpy()-want)/np.maximum(abs(want), 1e-300*(want==0)+1)
                                    if name.startswith('n_') else abs(grads[name].to_numpy()/want-1)))
        limit = 1e-3 if name=='update_norm' else 1e-6 # an update is a difference of float32 weights
        assert errors[name]<limit, f'{name} is off by {errors[name]}'
    return errors

def check_effective_step(spec, **settings)->dict:
    "Largest relative error of the mean effective step of AdamW without decay, against what the weights moved by"
    opt = partial(OptimWrapper, opt=partial(torch.optim.AdamW, **settings))
    tape,learn = Tape(),make_learner(spec | dict(opt=opt), 4)
    learn.fit(1, 1e-2, wd=0., cbs=[GradRecorder(adam=True), tape])
    want = np.array([float(row['eff_step']) for row in tape.rows])
    error = float(np.max(abs(learn.recorder.grads.eff_step.to_numpy()/want-1)))
    assert error<2e-3, f'the effective step is off by {error}'
    return dict(eff_step=error)

def check_overflow(spec)->dict:
    "Overflows are recorded as skipped steps, as many as the scaler has backed off; the other steps are finite"
    amp = Amp(init_scale=2.**127, backoff_factor=2.**-20)
    learn = make_learner(spec | dict(cbs=[lambda: amp]), 12)
    learn.fit_one_cycle_ext(1, 1e-3, cbs=GradRecorder())
    steps = learn.recorder.history.steps
    n_overflows = int((steps.skipped=='overflow').sum())
    n_backed_off = round(np.log2(2.**127/amp.last_scaler.get_scale())/20)
    assert 0<n_overflows<12 and n_overflows==n_backed_off, f'{n_overflows} were recorded, {n_backed_off} were there'
    grads = learn.recorder.grads
    assert len(grads)==12-n_overflows and np.isfinite(grads.norm).all()
    return dict(n_overflows=n_overflows)

def check_graph(spec)->dict:
    "A step's statistics can be captured in a CUDA graph, which no wait and no copy to the host can be"
    learn = make_learner(spec, 4)
    learn.fit(1, 1e-3)
    sets = param_sets(learn, 'layer')
    for p in learn.model.parameters(): p.grad = torch.randn_like(p)
    for u in sets: u.gather()
    s = StepTensors(sets, [p for u in sets for p in u.trainable])
    names = ['mean_abs', 'max', 'zeros', 'nonfinite', 'norm']
    def values(): return torch.stack(s.by_set(*measure(s, names)))
    with torch.no_grad():
        want = values()
        if not IS_GPU: return dict(captured=False)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph): out = values()
        graph.replay()
        assert torch.allclose(out, want, rtol=1e-12, equal_nan=True)
    return dict(captured=True)

def checks(spec)->dict:
    named = {'numbers': partial(check_numbers, spec), 'overflow': partial(check_overflow, spec),
             'AdamW': partial(check_effective_step, spec),
             'fused AdamW': partial(check_effective_step, spec, fused=True), 'CUDA graph': partial(check_graph, spec)}
    if IS_GPU: named['capturable AdamW'] = partial(check_effective_step, spec, capturable=True)
    return {name: tried(check) for name,check in named.items()}

def tried(f)->dict:
    "Result of a function, or its error: one that fails must not lose the others"
    try: return f()
    except Exception as e: return dict(error=f'{type(e).__name__}: {e}'[:500], where=traceback.format_exc()[-1500:])

# ---- the whole

def report(found)->str:
    lines = [f"{found['device']}, torch {found['torch']}, fastai_clr_ext {found['fastai_clr_ext']}\n",
             '| training | added | step, ms | ratio [quartiles] | kernels | memory, MB | waits |\n' + 7*'|---' + '|']
    for name,result in found['cases'].items():
        if 'error' in result: lines.append(f"| {name} | | | {result['error']} | | | |")
        for added,row in result.get('added', {}).items():
            low,high = row['quartiles']
            more = ['–' if row[k] is None else f'{row[k]:+.0f}' for k in ('kernels', 'memory_mb')]
            lines.append(f"| {name} | {added} | {row['step_ms']:.2f} | {row['ratio']:.3f} [{low:.3f}, {high:.3f}] | "
                         f"{' | '.join(more)} | {row['waits'] or 'none'} |")
    lines.append('\n| check | result |\n|---|---|')
    for name,result in found['checks'].items():
        text = result.get('error') or ', '.join(f'{k} {v:.2g}' for k,v in result.items())
        lines.append(f'| {name} | {text} |')
    return '\n'.join(lines)

def main(is_small=not IS_GPU, out='gpu.json', names=None)->dict:
    cases = SMALL_CASES if is_small else CASES
    unknown = sorted(set(names or [])-set(cases))
    if unknown: raise ValueError(f'cases must be among {list(cases)}; got {unknown}')
    n_steps,n_pairs,limit = (6, 2, 1) if is_small else (25, 6, 6)
    found = dict(device=torch.cuda.get_device_name() if IS_GPU else f'CPU ({platform.machine()}), no GPU',
                 torch=torch.__version__, fastai_clr_ext=__version__, cases={})
    found['checks'] = checks(SMALL_CASES['resnet8, 4×8'])
    Path(out).write_text(json.dumps(found, indent=1))
    for name in names or cases:
        found['cases'][name] = tried(partial(measure_case, cases[name], n_steps, n_pairs, limit))
        Path(out).write_text(json.dumps(found, indent=1)) # after each, so that a limit of time loses little
        gc.collect()
        if IS_GPU: torch.cuda.empty_cache()
    print(report(found))
    return found

if __name__=='__main__':
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--small', action='store_true', help='small models, a few steps; without a GPU always')
    parser.add_argument('--out', default='gpu.json')
    parser.add_argument('--cases', nargs='*')
    args = parser.parse_args()
    main(args.small or not IS_GPU, args.out, args.cases)
