"Images from memory, files and folders"
import gzip, struct
import numpy as np, pytest, torch
from PIL import Image
from fastai.torch_core import set_seed
from situations_helpers import image_folder
from fastai_clr_ext.situations import *

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

def write_idx(path, a, opener=open):
    with opener(path, 'wb') as f:
        f.write(struct.pack(f'>BBBB{a.ndim}I', 0, 0, 8, a.ndim, *a.shape) + a.astype(np.uint8).tobytes())

@pytest.fixture
def idx_folder(tmp_path):
    rng = np.random.default_rng(0)
    for part,n in [('train', 40), ('t10k', 12)]:
        write_idx(tmp_path/f'{part}-images-idx3-ubyte', rng.integers(0, 256, (n, 6, 5)))
        write_idx(tmp_path/f'{part}-labels-idx1-ubyte.gz', np.arange(n)%4, gzip.open)
    return tmp_path

def test_idx_files(idx_folder):
    im = load_images(idx_folder)
    x = np.random.default_rng(0).integers(0, 256, (40, 6, 5))
    assert np.array_equal(im.x[:,0].numpy(), x) and im.x.dtype==torch.uint8 and im.y.tolist()==[i%4 for i in range(40)]
    dls = situation_dls(Situation(idx_folder, bs=8, shift=0))
    want = (im.valid_x.double()-x.mean())/x.std(ddof=1)
    got,y = dls.valid.one_batch()
    assert torch.allclose(got.double(), want, atol=1e-6) and y.tolist()==im.valid_y.tolist() and dls.c==4

@pytest.mark.parametrize('raw', [b'', b'\0\0\x0d\1\0\0\0\1x', b'\0\0\x08\1\0\0\0\5xx', b'\0\0\x08\x03\0\0',
                                 b'\0\0\x08\1' + b'\xff'*4 + b'x'],
                         ids=['empty', 'floats', 'short', 'cut header', 'absurd size'])
def test_damaged_idx_files(tmp_path, raw):
    (tmp_path/'f').write_bytes(raw)
    with pytest.raises(ValueError, match='f must'): read_idx(tmp_path/'f')

def test_a_folder_in_the_form_of_cifar(tmp_path):
    im = load_images(image_folder(tmp_path))
    assert im.x.shape==(12, 3, 4, 4) and im.y.tolist()==[0]*6+[1]*6 and im.vocab==('ant', 'bee') and len(im.valid_x)==6
    assert np.array_equal(im.x[7].permute(1, 2, 0).numpy(), np.asarray(Image.open(tmp_path/'train'/'bee'/'1_bee.png')))
    learn = Situation(tmp_path, bs=4, mirror=True)(0)
    x,_ = learn.dls.one_batch()
    assert learn.model(x).shape==(4, 2)

def test_images_of_two_sizes_are_refused(tmp_path):
    image_folder(tmp_path)
    Image.new('RGB', (9, 9)).save(tmp_path/'train'/'ant'/'0_ant.png')
    with pytest.raises(ValueError, match='one size'): load_images(tmp_path)

def test_a_part_of_the_classes():
    im = digits_images().only((7, 3), n_train=50)
    whole = digits_images()
    keep = [i for i,c in enumerate(whole.y.tolist()) if c in (3, 7)][:50]
    assert torch.equal(im.x, whole.x[keep]) and im.y.tolist()==[{7: 0, 3: 1}[int(whole.y[i])] for i in keep]
    assert len(im.valid_y)==int(((whole.valid_y==3) | (whole.valid_y==7)).sum()) and im.vocab==('7', '3')

@pytest.mark.parametrize('call,says', [
    (lambda: digits_dls(0), 'bs must'), (lambda: digits_dls(pct_valid=1.), r'pct_valid must lie in \[.01, .99\]'),
    (lambda: digits_dls(1700), 'bs must'), (lambda: digits_dls(seed='a'), 'seed must'),
    (lambda: RandomShift(-1), 'n must'), (lambda: RandomShift(1, mirror=1), 'mirror must'),
    (lambda: digits_dls(shift=-1), 'shift must')])
def test_bad_input(call, says):
    with pytest.raises(ValueError, match=says): call()
