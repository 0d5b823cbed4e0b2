import gzip, pickle, struct
import numpy as np, pytest, torch
from PIL import Image
from fastai.optimizer import SGD
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

@pytest.mark.parametrize('call,says', [
    (lambda: cifar_resnet(18), r'depth must be 6n\+2'), (lambda: cifar_resnet(2), 'depth must'),
    (lambda: digits_dls(0), 'bs must'), (lambda: digits_dls(pct_valid=1.), r'pct_valid must lie in \[.01, .99\]'),
    (lambda: digits_dls(1700), 'bs must'), (lambda: digits_dls(seed='a'), 'seed must'),
    (lambda: RandomShift(-1), 'n must'), (lambda: cifar_resnet(n_in=0), 'n_in must'),
    (lambda: digits_dls(shift=-1), 'shift must')])
def test_bad_input(call, says):
    with pytest.raises(ValueError, match=says): call()

def he_params(n):
    "Weights of a 6n+2-layer network, by hand from the paper's table: convolutions, 2 a normalised channel, classifier"
    conv = lambda a, b: 9*a*b + 2*b
    stage = lambda a, b: conv(a, b) + conv(b, b) + (n-1)*2*conv(b, b)
    return conv(3, 16) + 2*n*conv(16, 16) + stage(16, 32) + stage(32, 64) + 65*10

@pytest.mark.parametrize('depth,paper', [(20, .27), (32, .46), (44, .66), (56, .85), (110, 1.7)])
def test_parameter_counts_of_the_paper(depth, paper):
    n = sum(p.numel() for p in cifar_resnet(depth).parameters())
    assert n==he_params((depth-2)//6) and n/1e6==pytest.approx(paper, abs=.05 if paper>1 else .006)

def test_option_b_projects():
    m = cifar_resnet(20, option='B')
    ones = [o for o in m.modules() if isinstance(o, torch.nn.Conv2d) and o.kernel_size==(1, 1)]
    assert [(o.in_channels, o.out_channels, o.stride) for o in ones]==[(16, 32, (2, 2)), (32, 64, (2, 2))]
    assert m(torch.rand(2, 3, 32, 32)).shape==(2, 10)

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

def image_folder(root, sizes=(4, 4)):
    rng = np.random.default_rng(1)
    for part,n,size in [('train', 6, sizes[0]), ('test', 3, sizes[1])]:
        for c in ('ant', 'bee'):
            (root/part/c).mkdir(parents=True)
            for i in range(n):
                Image.fromarray(rng.integers(0, 256, (size, size, 3), dtype=np.uint8)).save(root/part/c/f'{i}_{c}.png')
    return root

def test_a_folder_in_the_form_of_cifar(tmp_path):
    im = load_images(image_folder(tmp_path))
    assert im.x.shape==(12, 3, 4, 4) and im.y.tolist()==[0]*6+[1]*6 and im.vocab==('ant', 'bee') and len(im.valid_x)==6
    assert np.array_equal(im.x[7].permute(1, 2, 0).numpy(), np.asarray(Image.open(tmp_path/'train'/'bee'/'1_bee.png')))
    learn = Situation(tmp_path, bs=4, mirror=True)(0)
    x,y = learn.dls.one_batch()
    assert learn.model(x).shape==(4, 2)

def test_images_of_two_sizes_are_refused(tmp_path):
    image_folder(tmp_path)
    Image.new('RGB', (9, 9)).save(tmp_path/'train'/'ant'/'0_ant.png')
    with pytest.raises(ValueError, match='one size'): load_images(tmp_path)

def test_the_thread(tmp_path):
    "As written in the thread's notebook, on a folder instead of CIFAR-10, where 50,000 images make 98 batches of 512"
    s = situation('thread', data=image_folder(tmp_path), bs=5)
    learn = s(3)
    assert len(learn.dls.train)==3, 'the last, incomplete batch is trained'
    assert s.depth==56 and sum(p.numel() for p in learn.model.parameters())==he_params(9) - 65*10 + 65*2
    assert (learn.wd, learn.lr)==(1e-4, .8) and learn.opt_func.func is SGD and learn.opt_func.keywords=={'mom': .9}
    assert ([type(t).__name__ for t in learn.dls.train.after_batch.fs]==['Scale', 'RandomShift', 'RandomMirror']
            and s.shift==4)
    assert [type(t).__name__ for t in learn.dls.valid.after_batch.fs]==['Scale']

def test_a_part_of_the_classes():
    im = digits_images().only((7, 3), n_train=50)
    whole = digits_images()
    keep = [i for i,c in enumerate(whole.y.tolist()) if c in (3, 7)][:50]
    assert torch.equal(im.x, whole.x[keep]) and im.y.tolist()==[{7: 0, 3: 1}[int(whole.y[i])] for i in keep]
    assert len(im.valid_y)==int(((whole.valid_y==3) | (whole.valid_y==7)).sum()) and im.vocab==('7', '3')

def test_pretraining_is_one_body_for_all_seeds():
    s = situation('transfer-digits', pretrain_epochs=1)
    a,b = s(0),s(1)
    same = lambda i: all(torch.equal(p, q) for p,q in zip(a.model[i].state_dict().values(),
                                                          b.model[i].state_dict().values()))
    assert all(map(same, range(4))) and not same(4)
    a.create_opt()
    assert [len(g) for g in a.opt.param_lists]==[len(list(a.model[:-1].parameters())), 2]

def test_a_situation_travels(tmp_path):
    s = situation('digits', wd=.1)
    assert pickle.loads(pickle.dumps(s))==s and s.about()['wd']==.1 and s.about()['model']=='resnet8'
    assert situation(data=tmp_path/'secret'/'mine').about()['data']=='mine'

def test_loaders_of_the_user():
    dls = digits_dls(bs=32)
    learn = Situation(dls)(0)
    assert learn.dls is dls and learn.model(dls.one_batch()[0]).shape==(32, 10)

@pytest.mark.parametrize('call,says', [
    (lambda: cifar_resnet(option='C'), "option must be 'A' or 'B'"),
    (lambda: Situation(optimizer='lion'), 'optimizer must be one of'),
    (lambda: situation('mnist'), 'name must be one of'), (lambda: situation(depht=8), 'changes must be fields'),
    (lambda: Situation(7), 'data must'), (lambda: Situation('no/such/folder')(0), 'folder that exists'),
    (lambda: Situation(classes=(1, 1))(0), 'classes must'), (lambda: Situation(classes=(1, 10))(0), r'\[0, 10\)'),
    (lambda: Situation(n_train=0), 'n_train must'), (lambda: Situation(shift=-1), 'shift must'),
    (lambda: Situation(digits_dls(), n_train=5), 'data must be a name or a folder'),
    (lambda: RandomShift(1, mirror=1), 'mirror must')])
def test_bad_situation(call, says):
    with pytest.raises(ValueError, match=says): call()
