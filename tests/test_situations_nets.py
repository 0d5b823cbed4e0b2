"The residual networks for CIFAR"
import pytest, torch
from situations_helpers import he_params
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

@pytest.mark.parametrize('depth,paper', [(20, .27), (32, .46), (44, .66), (56, .85), (110, 1.7)])
def test_parameter_counts_of_the_paper(depth, paper):
    n = sum(p.numel() for p in cifar_resnet(depth).parameters())
    assert n==he_params((depth-2)//6) and n/1e6==pytest.approx(paper, abs=.05 if paper>1 else .006)

def test_option_b_projects():
    m = cifar_resnet(20, option='B')
    ones = [o for o in m.modules() if isinstance(o, torch.nn.Conv2d) and o.kernel_size==(1, 1)]
    assert [(o.in_channels, o.out_channels, o.stride) for o in ones]==[(16, 32, (2, 2)), (32, 64, (2, 2))]
    assert m(torch.rand(2, 3, 32, 32)).shape==(2, 10)

@pytest.mark.parametrize('call,says', [
    (lambda: cifar_resnet(18), r'depth must be 6n\+2'), (lambda: cifar_resnet(2), 'depth must'),
    (lambda: cifar_resnet(n_in=0), 'n_in must'), (lambda: cifar_resnet(option='C'), "option must be 'A' or 'B'")])
def test_bad_input(call, says):
    with pytest.raises(ValueError, match=says): call()
