"Situations: learners that are written down"
import pickle
from pathlib import Path
import pytest, torch
from fastai.torch_core import set_seed
from fastai.optimizer import SGD
from situations_helpers import he_params, image_folder
from fastai_clr_ext.situations import *

def test_the_thread(tmp_path):
    "As written in the thread's notebook, on a folder instead of CIFAR-10, where 50,000 images make 98 batches of 512"
    s = situation('thread', data=image_folder(tmp_path), bs=5)
    learn = s(3)
    assert len(learn.dls.train)==3, 'the last, incomplete batch is trained'
    assert s.model=='resnet56' and sum(p.numel() for p in learn.model.parameters())==he_params(9) - 65*10 + 65*2
    assert (learn.wd, learn.lr)==(1e-4, .8) and learn.opt_func.func is SGD and learn.opt_func.keywords=={'mom': .9}
    assert ([type(t).__name__ for t in learn.dls.train.after_batch.fs]==['Scale', 'RandomShift', 'RandomMirror']
            and s.shift==4)
    assert [type(t).__name__ for t in learn.dls.valid.after_batch.fs]==['Scale']

def test_pretraining_is_one_body_for_all_seeds():
    s = situation('transfer-digits', pretrain_epochs=1)
    a,b = s(0),s(1)
    same = lambda i: all(torch.equal(p, q) for p,q in zip(a.model[i].state_dict().values(),
                                                          b.model[i].state_dict().values()))
    assert all(map(same, range(4))) and not same(4)
    a.create_opt()
    assert [len(g) for g in a.opt.param_lists]==[len(list(a.model[:-1].parameters())), 2]

HAS_FASHION = Path('/usr/share/datasets/fashion-mnist').exists()
QUICK = [name for name,sit in SITUATIONS.items() if sit.data!='cifar10' and (sit.data!='fashion-mnist' or HAS_FASHION)]

@pytest.mark.parametrize('name', QUICK)
def test_a_seed_is_a_learner(name):
    "Weights, first batch and loss depend on the seed alone; each trains, and each is judged as its source says"
    sit = situation(name)
    a,b,c = sit(0),sit(0),sit(1)
    def start(learn):
        set_seed(0)
        *x,y = learn.dls.one_batch()
        return [learn.loss_func(learn.model.eval()(*x), y), *learn.model.parameters()]
    same = [torch.equal(p, q) for p,q in zip(start(a), start(b), strict=True)]
    other = [torch.equal(p, q) for p,q in zip(start(a), start(c), strict=True)]
    assert all(same) and not all(other)
    a.create_opt()
    assert len(a.opt.param_lists)==(1 if sit.model=='tabular' else 2)
    assert pickle.loads(pickle.dumps(sit))==sit==eval(repr(sit))

def test_a_situation_travels(tmp_path):
    s = situation('digits', wd=.1)
    assert pickle.loads(pickle.dumps(s))==s and s.about()['wd']==.1 and s.about()['model']=='resnet8'
    assert situation(data=tmp_path/'secret'/'mine').about()['data']=='mine'

def test_loaders_of_the_user():
    dls = digits_dls(bs=32)
    learn = Situation(dls)(0)
    assert learn.dls is dls and learn.model(dls.one_batch()[0]).shape==(32, 10)

@pytest.mark.parametrize('call,says', [
    (lambda: Situation(optimizer='lion'), 'optimizer must be one of'),
    (lambda: situation('mnist'), 'name must be one of'), (lambda: situation(depht=8), 'changes must be fields'),
    (lambda: Situation(7), 'data must'), (lambda: Situation('no/such/folder')(0), 'folder that exists'),
    (lambda: Situation(classes=(1, 1))(0), 'classes must'), (lambda: Situation(classes=(1, 10))(0), r'\[0, 10\)'),
    (lambda: Situation(n_train=0), 'n_train must'), (lambda: Situation(shift=-1), 'shift must'),
    (lambda: Situation(digits_dls(), n_train=5), 'n_train must be left out for loaders'),
    (lambda: Situation('diabetes', 'tabular', shift=1), "shift must be left out for data of the kind 'table'"),
    (lambda: Situation('topics', 'gru', n_train=9), 'n_train must be left out'),
    (lambda: Situation(size=0), 'size must')])
def test_bad_situation(call, says):
    with pytest.raises(ValueError, match=says): call()

@pytest.mark.parametrize('changes', [dict(classes=(4, 5)), dict(classes=None), dict(pretrain_on=tuple(range(10)))],
                         ids=str)
def test_a_body_has_not_seen_what_it_is_judged_on(changes):
    "The split of digits depends on the seed, and the pretraining always has seed 0"
    with pytest.raises(ValueError, match='classes must be others than those of pretrain_on'):
        situation('transfer-digits', **changes)
