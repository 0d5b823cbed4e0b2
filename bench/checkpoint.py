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
from .common import in_turn, spread, tried, version

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

# ---- beside others

def fitted(folder, *cbs)->Learner:
    "A resnet18 with Adam after a few batches"
    learn = learner(partial(resnet18, num_classes=10), Adam, 64, n_items=128)
    learn.fit_one_cycle_ext(1, .01, cbs=list(cbs))
    return learn

def of_ours(folder):
    cb = Timed(folder/'ours.pt', 1, overwrite=True)
    fitted(folder, cb)
    return cb.writings[-1], folder/'ours.pt'

def of_fastai(folder):
    "What `SaveModelCallback(with_opt=True)` calls"
    learn,start = fitted(folder),time.perf_counter()
    path = learn.save(folder/'fastai', with_opt=True)
    return time.perf_counter()-start, path

def of_lightning(folder):
    "`Trainer.save_checkpoint` of the same network and optimizer"
    import lightning.pytorch as pl
    class Module(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.model = resnet18(num_classes=10)
        def training_step(self, batch, i): return CrossEntropyLossFlat()(self.model(batch[0]), batch[1])
        def configure_optimizers(self): return torch.optim.Adam(self.parameters(), lr=.01)
    data = TensorDataset(torch.randn(128, 3, 64, 64), torch.randint(0, 10, (128,)))
    trainer = pl.Trainer(max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
                         enable_model_summary=False, accelerator='cpu')
    trainer.fit(Module(), torch.utils.data.DataLoader(data, batch_size=64))
    start = time.perf_counter()
    trainer.save_checkpoint(folder/'lightning.ckpt')
    return time.perf_counter()-start, folder/'lightning.ckpt'

WRITERS = {'FitCheckpoint': (of_ours, 'fastai_clr_ext', 'and forced to the disk; goes on within an epoch, bit for bit'),
           'SaveModelCallback(with_opt=True)': (of_fastai, 'fastai', 'goes on at an epoch'),
           "Lightning's save_checkpoint": (of_lightning, 'lightning', 'goes on at an epoch')}

def measure(n_rounds:int=5)->dict:
    "Seconds and bytes of one checkpoint of a resnet18 with Adam"
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder,sizes = Path(name),{}
        def seconds(what, write):
            took,path = write(folder)
            sizes[what] = path.stat().st_size/1e6
            return 1e3*took
        works,errors = tried({what: partial(seconds, what, write) for what,(write,*_) in WRITERS.items()})
        rows = []
        for what,took in in_turn(works, n_rounds).items():
            _,package,note = WRITERS[what]
            rows.append(dict(what=what, version=f'{package} {version(package)}', unit='ms a checkpoint', **spread(took),
                             MB=sizes[what], note=note))
    return dict(rows=rows, not_tried=errors)

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
