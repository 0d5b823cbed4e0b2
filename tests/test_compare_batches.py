"The same batches for every policy: a stream of seed and place, and hashes of what reached the model"
import random, time
import numpy as np, pytest, torch
from fastai.callback.mixup import MixUp
from fastai.data.core import DataLoaders, TfmdDL
from torch.utils.data import TensorDataset
from compare_helpers import *
from fastai_clr_ext.compare import *
from fastai_clr_ext.situations import situation
from fastai_clr_ext.train import stages_long

ITEMS = TensorDataset(torch.arange(10.), torch.arange(10.))

class Noise(torch.utils.data.Dataset):
    "Draws from each generator"
    def __len__(self): return 10
    def __getitem__(self, i): return torch.tensor([i, random.random(), np.random.rand(), torch.rand(1).item()]), i

def fastai_loader(ds=ITEMS): return TfmdDL(ds, bs=3, shuffle=True, num_workers=0)
def torch_loader(ds=ITEMS): return torch.utils.data.DataLoader(ds, 3, shuffle=True)
def with_generator(ds=ITEMS): return torch.utils.data.DataLoader(ds, 3, shuffle=True, generator=torch.Generator())
def with_sampler(ds=ITEMS):
    sampler = torch.utils.data.RandomSampler(ds, generator=torch.Generator())
    return torch.utils.data.DataLoader(ds, 3, sampler=sampler)

LOADERS = fastai_loader, torch_loader, with_generator, with_sampler

def passes(loader, *ends, disturb=lambda: None):
    "The batches of passes that end after so many batches; each moves the stream on by what it has seen"
    found = []
    for n in ends:
        for i,batch in enumerate(loader):
            if i==n: break
            found.append(batch[0])
            disturb()
            loader.stream.position += 1
    return torch.cat(found)

@pytest.mark.parametrize('make', LOADERS)
@pytest.mark.parametrize('ds', [ITEMS, Noise()], ids=['items', 'noise'])
def test_batches_depend_on_seed_and_place_alone(make, ds):
    "Not on what the process draws, on where passes end, nor on what the loader gave out before"
    def given(seed, *ends, disturb=lambda: None, before=0):
        loader = make(ds)
        for _ in range(before): list(loader)
        random.seed(before), np.random.seed(before), torch.manual_seed(before)
        with streamed(loader, seed): return passes(loader, *ends, disturb=disturb)
    whole = given(1, 4, 4, 4)
    draws = lambda: (torch.rand(3), np.random.rand(2), random.random())
    assert torch.equal(whole, given(1, 4, 4, 4, disturb=draws, before=2)), 'whatever draws'
    assert torch.equal(whole, given(1, 2, 4, 1, 4, 1)), 'cut anywhere, a pass goes on where the last one ended'
    assert not torch.equal(whole, given(2, 4, 4, 4)), 'another seed'
    first = whole.reshape(3, 10, -1)
    assert not torch.equal(first[0], first[1]), 'epochs have orders of their own'
    assert all(sorted(epoch[:,0].tolist())==list(range(10)) for epoch in first)

@pytest.mark.parametrize('make', LOADERS)
def test_the_process_draws_as_if_there_were_no_loader(make):
    def drawn(use):
        random.seed(3), np.random.seed(3), torch.manual_seed(3)
        loader = make(Noise())
        random.seed(3), np.random.seed(3), torch.manual_seed(3)
        with streamed(loader, 1): use(loader)
        return random.random(), np.random.rand(), torch.rand(1).item()
    assert drawn(list)==drawn(lambda loader: None)

def test_the_loader_is_itself_again():
    "And a copy of it is a plain one all the time"
    loader = fastai_loader()
    plain = type(loader)
    with streamed(loader, 1):
        assert isinstance(loader, plain) and type(loader.new()) is plain and loader.bs==3 and len(loader)==4
    assert type(loader) is plain and not hasattr(loader, 'stream')
    with pytest.raises(ZeroDivisionError):
        with streamed(loader, 1): 1/0
    assert type(loader) is plain

def test_one_batch_for_a_look_changes_nothing():
    loader = fastai_loader()
    with streamed(loader, 1): whole = passes(loader, 4, 4)
    with streamed(loader, 1): assert torch.equal(whole, passes(loader, 4, 4, disturb=loader.one_batch))

# what a run records

def trained(policy, make=make_two, seeds=2, **kwargs):
    policies = {'flat': constant(), 'mine': policy}
    return compare(make, policies, n_epoch=2, seeds=seeds, lr_max={'flat': .05}, with_bar=False, **kwargs)

def other_order(learn):
    learn.dls.train.rng.seed(99)
    learn.fit(2, .05)

def draws_first(learn):
    torch.rand(100), np.random.rand(7), random.random()
    learn.dls.train.one_batch()
    learn.fit(2, .05)

SAME = {'stages': stages_long(budget=2, base_lr=.05, head_epochs=.5), 'order': other_order, 'draws': draws_first,
        'two fits': lambda learn: (learn.fit(1, .05), learn.validate(), learn.get_preds(), learn.fit(1, .05))}

@pytest.mark.parametrize('name', SAME)
def test_policies_train_on_the_same_batches(name, recwarn):
    c = trained(SAME[name])
    assert not [w for w in recwarn if 'same batches' in str(w.message)] and not c.record['notes']
    for seed in (0, 1):
        a,b = [run for run in c.record['runs'] if run['seed']==seed]
        assert len(a['inputs'])==2 and all(a[name]==b[name] for name in ('inputs', 'targets', 'n_items'))
        assert len({*a['inputs'], *a['targets']})==4, 'epochs differ'
    assert 'all policies trained on the same batches' in report_markdown(c)

@pytest.mark.parametrize('start', [situation(), situation(shift=2)], ids=str)
def test_augmentation_is_the_same_too(start):
    c = compare(start, {'flat': constant(), 'stages': stages_long(budget=2, base_lr=.05, head_epochs=.3),
                        'draws': draws_first}, n_epoch=2, seeds=1, lr_max={'flat': .05}, with_bar=False)
    assert len({tuple(run['inputs']) for run in c.record['runs']})==1 and not c.record['notes']

def make_random(seed):
    "Inputs that differ with every learner"
    learn = make_line(seed)
    by = time.perf_counter_ns()%10**6/1e6 # in [0, 1): float32 shows the difference
    learn.dls = DataLoaders(*[dl.new(Shifted(dl.dataset, by)) for dl in learn.dls.loaders])
    return learn

def other_data(learn):
    learn.dls = DataLoaders(*[dl.new(Shifted(dl.dataset, 2.)) for dl in learn.dls.loaders])
    learn.fit(2, .05)

@pytest.mark.parametrize('make,policy,what', [
    (make_random, lambda learn: learn.fit(2, .05), 'other items, or in another order'),
    (make_line, other_data, 'other items, or in another order'),
    (situation(), lambda learn: learn.fit(2, .05, cbs=MixUp()), 'the same targets and other inputs')],
    ids=['data', 'policy', 'mixed'])
def test_batches_that_are_not_the_same_are_said(make, policy, what, tmp_path):
    for _ in range(2): # also where the runs are read from disk
        says = f"the same batches, so more .*'mine' with seed 0: {what} than 'flat', from"
        with pytest.warns(UserWarning, match=says) as said:
            c = trained(policy, make, out=tmp_path)
        assert 'same batches' in c.record['notes'][0]
        assert any(w.filename==__file__ for w in said), 'the warning points at the line that compares'
    assert 'The batches were not the same for all policies' in report_markdown(c)

def more_items(learn):
    learn.dls.train.bs = 8
    learn.fit(1, .05)

def test_the_items_are_counted_too():
    "Half the batch size for twice as long is the same number of items and not of batches; a policy may do neither"
    with pytest.raises(ValueError, match=r"policies\['mine'\] must train on 320 items, as 'flat' did; got 160"):
        trained(more_items, make_line)

def test_a_run_that_failed_early_is_compared_as_far_as_it_went():
    run = lambda policy, *inputs: dict(policy=policy, seed=0, inputs=list(inputs), targets=list(inputs))
    assert unlike_batches([run('a', '1', '2'), run('b', '1'), run('c'), run('d', '1', '2', '3')])==[]
    assert unlike_batches([run('a', '1', '2'), run('b', '1', '3')])[0].endswith('from epoch 2 on')
    assert unlike_batches([run('a', '1'), run('a', '2') | dict(seed=1)])==[], 'seeds differ'

def test_the_longest_run_is_what_others_are_compared_with():
    "A policy that failed in its first epoch has no hash at all"
    run = lambda policy, *inputs: dict(policy=policy, seed=0, inputs=list(inputs), targets=list(inputs))
    assert unlike_batches([run('a'), run('b', '1'), run('c', '2')])[0].startswith("'c' with seed 0")

def easier(learn):
    learn.dls = DataLoaders(learn.dls.train, learn.dls.valid.new(Shifted(learn.dls.valid.dataset, 0.)))
    learn.fit(2, .05)

def test_another_validation_set_is_said():
    with pytest.warns(UserWarning, match="'mine' with seed 0: judged on another validation set than 'flat'"):
        assert trained(easier, make_line).record['notes']

def test_shared_loaders_are_given_back():
    "Their generators, workers and iterators: all learners have the same loaders, which are somebody's"
    dls = DataLoaders.from_dsets(ITEMS, ITEMS, bs=5, num_workers=2)
    states = [dl.rng.getstate() for dl in dls.loaders]
    def make(seed):
        torch.manual_seed(seed)
        return Learner(dls, torch.nn.Linear(1, 1), loss_func=lambda pred, y: (pred.mean()-y.mean())**2, lr=.01)
    def peeks(learn):
        learn.dls.train.one_batch()
        learn.fit(2, .05)
    policies = {'flat': constant(), 'mine': peeks}
    with pytest.warns(UserWarning): # an exception: the inputs have no second dimension
        compare(make, policies, n_epoch=2, seeds=1, lr_max={'flat': .05}, with_bar=False)
    assert [dl.fake_l.num_workers for dl in dls.loaders]==[2, 2] and type(dls.train) is TfmdDL
    assert [dl.rng.getstate() for dl in dls.loaders]==states and not hasattr(dls.train, 'it')

def test_targets_of_millions_of_numbers_are_not_kept(monkeypatch):
    monkeypatch.setattr('fastai_clr_ext.compare.batches._MOST_TARGETS', 100)
    learn = make_line(0)
    learn.add_cb(witness := BatchWitness(10))
    with learn.no_bar(), learn.no_logging(): learn.fit(1, .05)
    assert witness.targets==[] and witness.n_items==160 and len(witness.hashes['inputs'])==1
