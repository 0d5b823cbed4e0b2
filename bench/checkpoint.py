"""What `FitCheckpoint` costs: `python -m bench.checkpoint`, three minutes on one core, no network

For each network and optimizer: what the callback and the loader that it follows take for a batch, the seconds and bytes
of a file, the share of everything in the time of a fit (without the first file, which a longer fit outweighs), and the
seconds until the first batch of a new fit and of one that is resumed in the middle of an epoch. Inputs are random."""
import tempfile, time, warnings
from pathlib import Path
from statistics import median

warnings.simplefilter('ignore')
import pandas as pd, torch
from torch.utils.data import TensorDataset
from torchvision.models import resnet18
from fastai.callback.core import Callback
from fastai.callback.progress import ProgressCallback
from fastai.data.core import DataLoaders, TfmdDL
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat
from fastai.optimizer import Adam, SGD
from fastai.torch_core import set_seed
from functools import partial
from fastai_clr_ext.all import *
from fastai_clr_ext.train import order

MOMENTUM = partial(SGD, mom=.9)

class Timed(FitCheckpoint):
    "Knows how long it has taken"
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.spent,self.writings = 0.,[]
    def __call__(self, event):
        start = time.perf_counter()
        super().__call__(event)
        self.spent += time.perf_counter()-start
    def _write(self):
        start = time.perf_counter()
        super()._write()
        self.writings.append(time.perf_counter()-start)

class FirstBatch(Callback):
    "Notes when the first batch is trained, and ends the fit after so many"
    run_valid = False
    def __init__(self, n=None): self.n,self.count,self.begun = n,0,None
    def state_dict(self): return {} # it counts anew after a resume
    def load_state_dict(self, state): pass
    def before_batch(self):
        if self.begun is None: self.begun = time.perf_counter()
    def after_batch(self):
        self.count += 1
        if self.count==self.n: raise KeyboardInterrupt

def learner(model, opt_func, n_images, n_items=640, bs=64):
    set_seed(0)
    data = TensorDataset(torch.randn(n_items, 3, n_images, n_images), torch.randint(0, 10, (n_items,)))
    dls = DataLoaders(TfmdDL(data, bs=bs, shuffle=True, num_workers=0), TfmdDL(data, bs=bs, num_workers=0))
    learn = Learner(dls, model(), loss_func=CrossEntropyLossFlat(), opt_func=opt_func, cbs=GradRecorder())
    learn.logger = lambda row: None
    return learn.remove_cb(ProgressCallback)

def in_a_fit(make, folder, n_epoch):
    "Microseconds of the callback a batch, without writing; seconds of each writing; share of both in the fit"
    n = 10*n_epoch-1 # without the end of the fit, which writes in any case
    timed,learn = Timed(folder/'share.pt', overwrite=True),make()
    start = time.perf_counter()
    try: learn.fit_one_cycle_ext(n_epoch, .01, cbs=[timed, FirstBatch(n)])
    except KeyboardInterrupt: pass
    whole = time.perf_counter()-start
    return {'callback, µs a batch': 1e6*(timed.spent-sum(timed.writings))/n, 'writing, s': median(timed.writings),
            'written': len(timed.writings), 'batches': n, 's a batch': whole/n,
            'share of the fit, %': 100*(timed.spent-timed.writings[0])/(whole-timed.writings[0])}

def following(make):
    "Microseconds that a batch costs more because its loader is followed"
    dl = make().dls.train
    def epoch(wrap):
        start = time.thread_time()
        for _ in wrap(dl): pass
        return time.thread_time()-start
    plain,followed = zip(*[(epoch(lambda dl: dl), epoch(order.Followed)) for _ in range(21)])
    return 1e6*(median(followed)-median(plain))/10

def resume(make, folder):
    "Size of a file, and seconds to the first batch of a new fit and of one that is resumed in the middle of an epoch"
    path = folder/'resume.pt'
    fresh,cut = FirstBatch(1),FirstBatch(6)
    learn,start = make(),time.perf_counter()
    try: learn.fit_one_cycle_ext(2, .01, cbs=fresh)
    except KeyboardInterrupt: pass
    new = fresh.begun-start
    try: make().fit_one_cycle_ext(2, .01, cbs=[FitCheckpoint(path, 5, overwrite=True), cut])
    except KeyboardInterrupt: pass
    learn,first,start = make(),FirstBatch(7),time.perf_counter()
    try: learn.resume_fit(path, first)
    except KeyboardInterrupt: pass
    return {'file, MB': path.stat().st_size/1e6, 'new fit, s': new, 'resumed, s': first.begun-start}

CASES = {'resnet20, SGD': (partial(cifar_resnet, 20), MOMENTUM, 32),
         'resnet20, Adam': (partial(cifar_resnet, 20), Adam, 32),
         'resnet18, Adam': (partial(resnet18, num_classes=10), Adam, 64)}

def main():
    torch.set_num_threads(1)
    rows = []
    for name,(model,opt_func,n_images) in CASES.items():
        make = partial(learner, model, opt_func, n_images)
        with tempfile.TemporaryDirectory() as name_of_folder:
            folder = Path(name_of_folder)
            n_epoch = 6 if 'resnet18' in name else 20
            rows.append({'network': name, 'following, µs a batch': following(make), **in_a_fit(make, folder, n_epoch),
                         **resume(make, folder)})
            print(pd.DataFrame(rows).to_string(index=False, float_format='{:.3g}'.format), flush=True)

if __name__=='__main__': main()
