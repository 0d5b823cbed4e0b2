"A network with weights from ImageNet"
import torch
from torch import nn
from fastai_clr_ext.situations import Situation
from fastai_clr_ext.situations.pretrained import LiteBody, ThreeChannels, efficientnet_lite0, lite_weights
from fastai_clr_ext.situations.images import digits_images, resize_images

def test_the_weights_are_where_they_belong():
    body = LiteBody(True)
    state = body.net.state_dict()
    given = {name: w for name,w in lite_weights().items() if not name.startswith('_fc')}
    assert given.keys()==state.keys() and all(torch.equal(w, state[name]) for name,w in given.items())

def test_features_know_what_is_alike():
    "A linear fit to few features sorts digits better than one to features of random weights"
    images = digits_images()
    def accuracy(pretrained):
        torch.manual_seed(0)
        body = nn.Sequential(ThreeChannels(), LiteBody(pretrained)).train() # batch statistics
        with torch.no_grad(): x = body(resize_images(images.x[:160], 64))
        y = nn.functional.one_hot(images.y[:160], 10).double()
        x = x.double()-x.double().mean(0)
        k = x@x.T
        fit = k[80:,:80]@torch.linalg.solve(k[:80,:80]+1e-2*k.diagonal().mean()*torch.eye(80).double(), y[:80]-.1)
        return (fit.argmax(1)==images.y[80:160]).double().mean().item()
    assert accuracy(True)>accuracy(False)+.1

def test_a_new_head_each_time_on_one_body():
    sit = Situation('digits', 'efficientnet-lite0', size=32, n_train=50, n_valid=20, bs=10)
    a,b = sit(0),sit(1)
    assert all(torch.equal(p, q) for p,q in zip(a.model[0].parameters(), b.model[0].parameters()))
    assert not torch.equal(a.model[1].weight, b.model[1].weight) and sit.about()['pretrained']
    assert {m.momentum for m in a.model.modules() if isinstance(m, nn.BatchNorm2d)}=={.1}
    random = efficientnet_lite0(10, pretrained=False)
    assert not torch.equal(random[0][1].net._conv_stem.weight, a.model[0][1].net._conv_stem.weight)
