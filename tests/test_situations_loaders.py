"Loaders over tensors"
import pytest, torch
from fasttransform import ItemTransform
from torch.utils.data import TensorDataset
from fastai_clr_ext.situations.loaders import Items, items_dls

def items(n=20, vocab=()):
    x = torch.arange(float(n))
    return Items(TensorDataset(x, -x), TensorDataset(x[:5], -x[:5]), vocab)

def test_the_seed_is_the_order():
    def order(seed, **kwargs):
        return torch.cat([x for x,_ in items_dls(items(), 8, seed=seed, **kwargs).train]).tolist()
    assert order(1)==order(1)!=order(2)
    assert len(order(1))==16 and sorted(order(1, drop_last=False))==list(range(20))

def test_transforms_see_batches():
    class Plus(ItemTransform):
        def __init__(self, n):
            super().__init__()
            self.n = n
        def encodes(self, b:list): return (b[0]+self.n, *b[1:])
    dls = items_dls(items(), 8, tfms=[Plus(100)], valid_tfms=[Plus(1)])
    assert dls.one_batch()[0].min()>=100 and dls.valid.one_batch()[0].tolist()==[1, 2, 3, 4, 5]

def test_classes():
    assert items_dls(items(), 8).c==1 and items_dls(items(vocab=('a', 'b')), 8).c==2

@pytest.mark.parametrize('changes,says', [(dict(bs=21), r'bs must be a whole number in \[1, 20\]'),
                                          (dict(seed=-1), 'seed must'), (dict(tfms=[1]), 'tfms must')])
def test_bad_input(changes, says):
    with pytest.raises(ValueError, match=says): items_dls(items(), **dict(bs=8) | changes)
