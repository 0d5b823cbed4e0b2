"Networks that read rows or characters"
import pytest, torch
from fastai_clr_ext.situations.sequences import AttentionBlock, Recurrent, Rows, mlp, recurrent_net, transformer

IMAGES = torch.randn(3, 2, 8, 5, generator=torch.Generator().manual_seed(0))

def test_rows_keep_the_channels_of_a_row():
    assert torch.equal(Rows()(IMAGES)[1,4], torch.cat([IMAGES[1,0,4], IMAGES[1,1,4]]))

@pytest.mark.parametrize('norm', [True, False])
def test_layers_in_a_row(norm):
    model = mlp(80, 7, depth=5, width=16, norm=norm)
    layers = [each for each in model.modules() if isinstance(each, torch.nn.Linear)]
    assert [layer.in_features for layer in layers]==[80, 16, 16, 16, 16] and model(IMAGES).shape==(3, 7)
    assert sum(isinstance(each, torch.nn.BatchNorm1d) for each in model.modules())==(4 if norm else 0)
    assert layers[0].weight.std().item()==pytest.approx((2/80)**.5, rel=.1), 'He initialisation'

@pytest.mark.parametrize('kind', ['rnn', 'lstm', 'gru'])
def test_the_last_place_sees_all_and_the_first_only_itself(kind):
    x = torch.randn(1, 6, 4, requires_grad=True)
    out = Recurrent(kind, 4, 5, every=True)(x)
    assert out.shape==(1, 6, 5)
    seen = [torch.autograd.grad(out[0,i].sum(), x, retain_graph=True)[0].abs().sum(dim=2)[0]>0 for i in (0, 5)]
    assert seen[0].tolist()==[True]+[False]*5 and seen[1].all()
    assert recurrent_net(kind, IMAGES, 9)(IMAGES).shape==(3, 9)

@pytest.mark.parametrize('norm', ['pre', 'post', None])
def test_where_the_normalisation_stands(norm):
    torch.manual_seed(0)
    x = 100*torch.randn(2, 6, 16)
    out = AttentionBlock(16, norm)(x)
    sd = out.std(dim=2, correction=0)
    is_normal = torch.allclose(sd, torch.ones_like(sd), atol=1e-3)
    assert is_normal==(norm=='post'), 'only after the sums is what comes out normal'
    close = (out-x).abs().mean()/x.abs().mean()
    assert (close<.05)==(norm=='pre'), 'in the branches, what they add does not grow with what comes in'

def test_transformers_differ_in_their_norms_only():
    n = {norm: sum(p.numel() for p in transformer(norm, IMAGES, 10).parameters()) for norm in ('pre', 'post', None)}
    assert n['post']-n[None]==4*2*2*64 and n['pre']-n['post']==2*64
