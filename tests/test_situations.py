import numpy as np, pytest, torch
from fastai.torch_core import set_seed
from fastai_clr_ext.situations import *

def test_option_a_shortcut_by_hand():
    block = BasicBlock(16, 32).eval()
    for m in (block.bn1, block.bn2): torch.nn.init.zeros_(m.weight)
    x = torch.rand(2, 16, 8, 8)
    want = torch.zeros(2, 32, 4, 4); want[:,8:24] = x[:,:,::2,::2]
    assert torch.equal(block(x), want), 'every second pixel, zero channels on both sides'
    same = BasicBlock(16, 16).eval(); torch.nn.init.zeros_(same.bn2.weight)
    assert torch.equal(same(x), x)

@pytest.mark.parametrize('depth', [8, 20, 56])
def test_depth_counts_layers_with_weights(depth):
    m = cifar_resnet(depth)
    assert sum(isinstance(o, (torch.nn.Conv2d, torch.nn.Linear)) for o in m.modules())==depth
    assert m(torch.rand(2, 3, 32, 32)).shape==(2, 10)

def test_same_seed_same_data():
    a,b,c = digits_dls(seed=1),digits_dls(seed=1),digits_dls(seed=2)
    batches = []
    for dls in (a, b, c):
        set_seed(0)
        batches.append(torch.cat([y for _ in range(2) for _,y in dls.train]))
    assert torch.equal(batches[0], batches[1]) and not torch.equal(batches[0], batches[2])
    counts = np.bincount([int(y) for _,y in a.valid_ds])
    assert counts.sum()==360 and counts.min()>=34, 'equal shares of each class'
    n = len(batches[0])//2
    assert not torch.equal(batches[0][:n], batches[0][n:]), 'a new order each epoch'

def test_only_training_images_move():
    dls = digits_dls(shift=2, bs=100)
    assert torch.equal(dls.valid.one_batch()[0][0], dls.valid_ds[0][0])
    still = digits_dls(shift=0)
    set_seed(0); x = still.one_batch()[0]
    assert {tuple(o.ravel().tolist()) for o in x} <= {tuple(o[0].ravel().tolist()) for o in still.train_ds}

@pytest.mark.parametrize('call,says', [(lambda: cifar_resnet(18), r'depth must be 6n\+2'), (lambda: cifar_resnet(2), 'depth must'), (lambda: digits_dls(0), 'bs must'),
                                       (lambda: digits_dls(pct_valid=1.), r'pct_valid must lie in \[.01, .99\]'), (lambda: digits_dls(1700), 'bs must'), (lambda: digits_dls(seed='a'), 'seed must'), (lambda: RandomShift(-1), 'n must'), (lambda: cifar_resnet(n_in=0), 'n_in must'), (lambda: digits_dls(shift=-1), 'shift must')])
def test_bad_input(call, says):
    with pytest.raises(ValueError, match=says): call()
