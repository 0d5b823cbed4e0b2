import numpy as np, pytest, torch
from fastai_clr_ext.train.divergence import LossTrend
from fastai_clr_ext.train.state import from_tagged, to_tagged
from fastai_clr_ext.train.watched import (
    Look, WatchedBatch, WatchedFit, last_nonfinite, norms_of, set_watched, watched_to_plain)

PARAMS = [('first', torch.ones(2)), ('second', torch.ones(3))]

def watched_fit(**kwargs): return WatchedFit(**dict(n_iter=5, is_scheduled=True, kept=None, trend=LossTrend()) | kwargs)

def batch(i, **kwargs):
    own = dict(train_iter=i, epoch=0, row=i, step=i, lr=(.1, .2), loss=torch.tensor(2.), params=PARAMS)
    return WatchedBatch(**own | kwargs)

def test_norms_are_those_of_numpy():
    tensors = [torch.tensor([[3., -4.]]), None, torch.tensor([1e-30]), torch.tensor([2+1j])]
    assert np.allclose(norms_of(tensors, torch.tensor(0.)), [5, 0, 1e-30, 5**.5])

@pytest.mark.parametrize('bad', [torch.nan, torch.inf, -torch.inf])
def test_a_norm_that_is_not_finite_names_its_parameter(bad):
    norms = norms_of([torch.ones(2), torch.tensor([1., bad])], torch.tensor(0.)).numpy()
    assert last_nonfinite(PARAMS, norms)=='second' and last_nonfinite(PARAMS, np.ones(2))==''

def test_a_look_names_what_was_bad_first():
    norms = [None, np.array([1, np.nan]), np.array([np.nan, np.nan])]
    look = Look([batch(i) for i in range(3)], np.ones(3), norms, np.array([np.inf, 1]), np.nan)
    assert [look.first_bad(i) for i in (0, 1, 2, -1)]==['first', 'second', 'second', 'second']

def test_it_comes_back_from_a_file(tmp_path):
    norms = torch.tensor([1., 2.])
    now = watched_fit(kept={'first': torch.ones(2)}, unread=[batch(7, norms=norms)], n_step=7, scale=.25,
                      lr_best=.3, n_rewind=2, measured=torch.tensor(.5))
    for loss in (3., 2., 2.5): now.trend.add(loss)
    torch.save(to_tagged(watched_to_plain(now)), tmp_path/'x.pt')
    again = watched_fit(params=PARAMS)
    set_watched(again, from_tagged(torch.load(tmp_path/'x.pt', weights_only=True)))
    assert again.trend==now.trend and (again.n_step, again.scale, again.n_rewind, again.lr_best)==(7, .25, 2, .3)
    assert again.unread[0].params is PARAMS and again.unread[0].lr==(.1, .2)
    assert torch.equal(again.unread[0].norms, norms) and torch.equal(again.measured, now.measured)
    assert torch.equal(again.kept['first'], torch.ones(2))
