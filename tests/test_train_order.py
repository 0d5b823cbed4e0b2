import multiprocessing, os, pickle, random, signal, time
import numpy as np, pytest, torch
from functools import partial
from fastai.distributed import DistributedDL
from fastai.torch_core import set_seed
from fastai.data.block import CategoryBlock, DataBlock, TransformBlock
from fastai.data.transforms import RandomSplitter
from fastai.vision.augment import RandTransform, aug_transforms
from fastai.vision.core import TensorImage
from fastai.data.core import TfmdDL
from fastai.data.load import SkipItemException
from fastai_clr_ext.train import order
from fastai_clr_ext.train.order import Followed, TakePlaces, loader_states, set_loader_states
from resume_helpers import Noisy, Shake, Stream, language_model, loaders, torch_loaders

def as_lists(batches): return [[t.tolist() for t in batch] for batch in batches]

class Skipping(Noisy):
    "Every fifth item is skipped, so that batches and items don't agree"
    def __getitem__(self, i):
        if i%5==4: raise SkipItemException
        return super().__getitem__(i)

class OneOfTwo(DistributedDL):
    "The loader of a second process, without the first: what that would send is what this one has"
    def __init__(self, dl): super().__init__(dl, 1, 2)
    def _broadcast(self, t, rank): return t

def skipping(n_workers): return TfmdDL(Skipping(28), bs=4, shuffle=True, num_workers=n_workers, after_batch=Shake())
def streaming(n_workers): return TfmdDL(Stream(), bs=4, n=28, num_workers=n_workers, after_batch=Shake())
def shuffled(n_workers): return loaders(n_workers=n_workers).train
def dropping(n_workers): return loaders(30, n_workers=n_workers, drop_last=True).train

LOADERS = {f'{f.__name__}, {n} workers': partial(f, n) for f in (shuffled, dropping, skipping) for n in (0, 2)}
LOADERS |= {'3 workers': partial(shuffled, 3)}
LOADERS |= {'stream': partial(streaming, 0), 'torch': lambda: torch_loaders().train,
            'language model': lambda: language_model().dls.train,
            'one of two processes': lambda: OneOfTwo(loaders().train)}

def train_on(batches):
    "Use batches as a training does, which draws numbers between them"
    for batch in batches:
        torch.rand(1), random.random(), np.random.rand()
        yield batch

def epochs(make, n_epoch, stop=None):
    "Batches of some epochs, and the place after so many of the last"
    set_seed(5)
    dl = make()
    for _ in range(n_epoch-1): list(train_on(Followed(dl)))
    followed = Followed(dl)
    found = []
    for batch in train_on(followed):
        found.append(batch)
        if len(found)==stop: break
    return as_lists(found), followed.place(), as_lists(train_on(Followed(dl))) if stop is None else None

@pytest.mark.parametrize('name', LOADERS)
def test_an_epoch_goes_on_where_it_was_left(name):
    "After any number of batches of the second epoch: its other batches, and the third epoch"
    make = LOADERS[name]
    whole,_,after = epochs(make, 2)
    for n in {1, 3, len(whole)}:
        _,place,_ = epochs(make, 2, n)
        set_seed(77)
        dl = make()
        followed = Followed(dl, place)
        assert as_lists(train_on(followed))==whole[n:], n
        assert followed.n_given==len(whole)
        assert as_lists(train_on(Followed(dl)))==after, n

@pytest.mark.parametrize('name', LOADERS)
def test_following_changes_nothing(name):
    def both_epochs(wrap):
        set_seed(5)
        dl = LOADERS[name]()
        return [as_lists(train_on(wrap(dl))) for _ in range(2)], torch.rand(1), random.random(), np.random.rand()
    assert both_epochs(Followed)==both_epochs(lambda dl: dl)

@pytest.mark.parametrize('n_workers', [0, 2])
def test_items_that_were_given_are_not_loaded_again(n_workers, tmp_path):
    class Noting(Noisy):
        def __getitem__(self, i):
            with open(tmp_path/'loaded', 'a') as f: f.write(f'{i}\n')
            return super().__getitem__(i)
    def make(): return TfmdDL(Noting(28), bs=4, shuffle=True, num_workers=n_workers)
    _,place,_ = epochs(make, 1, 5)
    (tmp_path/'loaded').unlink()
    assert len(list(Followed(make(), place)))==2
    assert len((tmp_path/'loaded').read_text().splitlines())==8

@pytest.mark.parametrize('n_workers', [0, 2])
def test_somebody_else_may_use_the_loader_meanwhile(n_workers):
    "One epoch within another, as `one_batch` and callbacks do it: the place is that of the outer one"
    dl = TfmdDL(list(range(28)), bs=4, num_workers=n_workers)
    followed = Followed(dl)
    found = []
    for batch in followed:
        found.append(batch.tolist())
        assert [b.tolist() for b in dl]==[list(range(i, i+4)) for i in range(0, 28, 4)]
        dl.one_batch()
        if len(found)==3: break
    assert [b.tolist() for b in Followed(dl, followed.place())]==[list(range(i, i+4)) for i in range(12, 28, 4)]

def test_a_loader_is_itself_again():
    dl = loaders().train
    before = dict(vars(dl))
    list(Followed(dl))
    assert vars(dl).keys()-before.keys()=={'_DataLoader__idxs'}
    assert all(vars(dl)[name] is before[name] for name in ('after_batch', 'fake_l', 'dataset'))
    batches = iter(Followed(dl))
    next(batches)
    batches.close()
    assert vars(dl)['after_batch'] is before['after_batch'] and 'create_batches' not in vars(dl)

def test_a_new_epoch_may_count_as_begun():
    "As after a change of the batch size: the rest of the epoch is made of other items"
    dl = TfmdDL(list(range(28)), bs=4, shuffle=True, num_workers=0)
    followed = Followed(dl, n_before=3)
    batches = list(followed)
    assert (len(batches), followed.n_given, len(followed))==(4, 7, 7)
    set_seed(5)
    dl = TfmdDL(list(range(28)), bs=4, shuffle=True, num_workers=0)
    followed = Followed(dl, n_before=3)
    it = iter(followed)
    first,place = [next(it).tolist() for _ in range(2)],followed.place()
    rest = [b.tolist() for b in it]
    again = [b.tolist() for b in Followed(TfmdDL(list(range(28)), bs=4, shuffle=True, num_workers=0), place)]
    assert again==rest and len(rest)==2 and first!=rest

def test_states_of_loaders_are_plain(tmp_path):
    for make in LOADERS.values():
        torch.save(loader_states(make()), tmp_path/'x.pt')
        set_loader_states(make(), torch.load(tmp_path/'x.pt', weights_only=True))

def test_places_are_plain(tmp_path):
    for name in ('shuffled, 2 workers', 'torch'):
        _,place,_ = epochs(LOADERS[name], 1, 3)
        torch.save(place, tmp_path/'x.pt')
        read = torch.load(tmp_path/'x.pt', weights_only=True)
        assert read.keys()==place.keys()
        assert len(as_lists(Followed(LOADERS[name](), read)))==4

def wait_for_signals():
    "As a worker that hangs"
    order.GRACE = .5
    order.outlive_signals()
    time.sleep(30)

def test_a_worker_outlives_a_signal_for_a_while_only():
    "Ctrl-C does not end it at all; after SIGTERM it has a grace, so that nothing waits for it forever"
    process = multiprocessing.get_context('fork').Process(target=wait_for_signals)
    process.start()
    time.sleep(.5)
    begun = time.time()
    for number in (signal.SIGINT, signal.SIGTERM): os.kill(process.pid, number)
    process.join(20)
    assert process.exitcode==128+signal.SIGTERM and .4<time.time()-begun<15

class Augment(RandTransform):
    "Counts its calls; for training only"
    split_idx,n = 0,0
    def encodes(self, x:TensorImage):
        Augment.n += 1
        return x

def image_loaders(batch_tfms):
    images = (TransformBlock(type_tfms=lambda i: TensorImage(torch.rand(3, 4, 4))), CategoryBlock())
    block = DataBlock(images, get_y=lambda i: i%2, splitter=RandomSplitter(seed=1), batch_tfms=batch_tfms)
    return block.dataloaders(list(range(20)), bs=4, num_workers=0)

def test_transforms_for_training_are_used():
    "fastai sets `split_idx` of the pipeline when an epoch begins, if it is a pipeline"
    dl = image_loaders([Augment()]).train
    Augment.n = 0
    list(Followed(dl))
    assert Augment.n==4 and dl.after_batch.split_idx==0

def test_augmented_images_go_on():
    def begin():
        set_seed(5)
        return image_loaders(aug_transforms(size=4, flip_vert=True)).train
    whole = as_lists(Followed(begin()))
    followed = Followed(begin())
    batches = iter(followed)
    for _ in range(2): next(batches)
    place = followed.place()
    assert as_lists(Followed(begin(), place))==whole[2:]

def test_a_loader_may_change_its_batches_itself():
    class OwnIter(TfmdDL):
        def __iter__(self):
            for batch in super().__iter__(): yield (batch[0]*2, *batch[1:])
    def begin(): return OwnIter(Noisy(28), bs=4, num_workers=0)
    set_seed(5)
    whole = as_lists(Followed(begin()))
    set_seed(5)
    followed = Followed(begin())
    batches = iter(followed)
    for _ in range(2): next(batches)
    place = followed.place()
    assert as_lists(Followed(begin(), place))==whole[2:]

class ShuffledBatches:
    "Draws its batches by a generator of its own"
    def __init__(self): self.rng = np.random.default_rng(1)
    def __len__(self): return 7
    def __iter__(self): return iter(self.rng.permutation(28).reshape(7, 4).tolist())

def test_samplers_may_have_generators():
    def begin(): return torch.utils.data.DataLoader(Noisy(28, noise=0), batch_sampler=ShuffledBatches())
    whole = begin()
    list(Followed(whole))
    whole = as_lists(Followed(whole))
    dl = begin()
    list(Followed(dl))
    followed = Followed(dl)
    batches = iter(followed)
    for _ in range(2): next(batches)
    assert as_lists(Followed(begin(), followed.place()))==whole[2:]

PAIRS,NUMBERS = [[torch.ones(1), torch.zeros(1)]]*4,[1, 2, 3, 4]

@pytest.mark.filterwarnings("ignore:'pin_memory' argument")
@pytest.mark.parametrize('items,pin_memory,kind', [(PAIRS, False, list), (PAIRS, True, tuple),
                                                   (NUMBERS, True, torch.Tensor)])
def test_batches_have_the_type_that_fastai_gives_them(items, pin_memory, kind):
    dl = TfmdDL(items, bs=2, pin_memory=pin_memory, num_workers=0)
    assert [type(b) for b in Followed(dl)]==[type(b) for b in dl]==[kind]*2

def test_what_stands_in_has_the_attributes_of_what_it_stands_in_for():
    dl = loaders().train
    assert TakePlaces(dl, Followed(dl)).fs is dl.after_batch.fs and Followed(dl).after_batch is dl.after_batch

def test_what_stands_in_can_be_pickled():
    "As for workers that are spawned: the loader's attributes are not there yet when it is read"
    followed = Followed(loaders().train, n_before=2)
    again = pickle.loads(pickle.dumps([followed, TakePlaces(followed.dl, followed)]))
    assert (again[0].n_given, again[0].bs, again[1].followed.n_given)==(2, 4, 2)
