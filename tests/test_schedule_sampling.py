"Where batches are placed in a cycle, against second implementations"
import numpy as np, pytest
from hypothesis import given, settings, strategies as st
from numpy.testing import assert_allclose
from fastai.callback.schedule import SchedLin, combine_scheds
from fastai_clr_ext.schedule import *
from fastai_clr_ext.schedule.sampling import first_batches, jumps_between, locate, short_corners, stretches_of

def cosines(n): return [Phase(f'cosine {i}', 1/n, lr=(1, 0, 'cos')) for i in range(n)]

def test_stretches_end_where_a_value_jumps():
    a,b,c = Phase('a', .2, lr=(0, 1), mom=.9), Phase('b', .3, lr=(1, .5), mom=.9), Phase('c', .5, lr=.5, mom=.8)
    assert stretches_of([a, b, c])==[[a, b], [c]], 'momentum alone jumps'
    assert not jumps_between(a, b) and jumps_between(b, c)
    assert not jumps_between(Phase('x', 1, lr=(0, .1+.2)), Phase('y', 1, lr=.3)), 'a rounding error is no jump'

@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(.01, 1), min_size=1, max_size=8), st.integers(1, 400))
def test_every_stretch_trains_its_first_and_last_value(lengths, n):
    pcts = np.array(lengths)/sum(lengths)
    phases = [Phase(f'p{i}', p, lr=(1-.05*i, .1)) for i,p in enumerate(pcts)]
    k,pos = SAMPLINGS['endpoint'].place(phases, n)
    assert len(k)==n and (np.diff(k)>=0).all()
    ends = np.cumsum(np.r_[0, pcts])*n
    for j in range(len(phases)):
        mine = pos[k==j]
        is_last = j+1==len(phases)
        wanted = sum(ends[j]-1e-6<=i and (is_last or i<ends[j+1]-1e-6) for i in range(n))
        assert len(mine)==wanted, 'a batch belongs to the stretch that it is at or behind'
        if len(mine)>1: assert (mine[0], mine[-1])==(0, 1)
        if len(mine)==1: assert mine[0]==0, 'the peak'

@pytest.mark.parametrize('n_cycles', [2, 3, 5, 6, 7, 9, 11])
def test_restarts_without_endpoint_are_on_their_batch(n_cycles):
    "The fractions of cycles round up or down; the batch of a restart must not"
    for n in range(n_cycles, 500):
        k,pos = SAMPLINGS['no_endpoint'].place(cosines(n_cycles), n)
        exact = [(i*n_cycles//n, i*n_cycles%n/n) for i in range(n)]
        assert k.tolist()==[j for j,_ in exact]
        assert_allclose(pos, [p for _,p in exact], rtol=0, atol=1e-9)

def test_first_batches_are_whole_where_the_fraction_is():
    for n in range(1, 300):
        for parts in (3, 7, 10):
            exact = [-(-j*n//parts) for j in range(parts)]
            assert first_batches(np.full(parts, 1/parts), n).tolist()==[*exact, n]

@pytest.mark.parametrize('lr,corners', [
    ([(.1, 1), (1, .1), (.1, 0)], [[1], [1, 3], [0, 1, 3]]), ([(1, .5), (.5, 0)], [[0], [0, 2]]),
    ([(.5, .5)], [[0]]), ([(0, .2), (.2, 1)], [[2], [0, 2]])])
def test_the_points_that_matter_most(lr, corners):
    phases = [Phase(f'p{i}', 1/len(lr), lr=(*ends,)) for i,ends in enumerate(lr)]
    for n,wanted in enumerate(corners, 1): assert short_corners(phases, n).tolist()==wanted

def test_a_cycle_without_a_rate_is_ranked_by_what_it_sets():
    phases = [Phase('up', .5, mom=(.8, .95)), Phase('down', .5, mom=(.95, .8))]
    assert short_corners(phases, 1).tolist()==[1]

def test_the_rate_ranks_first_whatever_is_named_first():
    phases = [Phase('up', .5, mom=(.95, .8), lr=(.1, 1)), Phase('down', .5, mom=(.8, .95), lr=(1, .1))]
    assert short_corners(phases, 1).tolist()==[1]

@pytest.mark.parametrize('n', [1, 2, 3, 10, 97, 1000])
@pytest.mark.parametrize('pcts', [(1.,), (.25, .75), (.1, .3, .6)], ids=str)
def test_positions_of_fastai(n, pcts):
    phases = [Phase(f'p{i}', pct, lr=(0, 1)) for i,pct in enumerate(pcts)]
    theirs = combine_scheds(pcts, [SchedLin(0, 1)]*len(pcts))
    _,pos = SAMPLINGS['fastai'].place(phases, n)
    assert_allclose(pos, [float(theirs(i/n)) for i in range(n)], rtol=0, atol=1e-5)

def test_the_end_of_a_cycle_is_the_end_of_its_last_phase():
    k,pos = locate(np.array([0., .5, 1.]), np.array([0., .25, .5, 1.]))
    assert (k.tolist(), pos.tolist())==([0, 0, 1, 1], [0, .5, 0, 1])

@pytest.mark.parametrize('sampling', ['fastai07', 'fastai1'])
@pytest.mark.parametrize('n', [1, 2, 3, 5, 9])
def test_where_a_library_divides_by_zero_endpoint_steps_in(sampling, n):
    c = one_cycle(pct_start=.05, pct_final=.05, sampling=sampling)
    _,pos = SAMPLINGS[sampling].place(c.phases, n)
    assert np.isnan(pos).any(), 'the case is of this kind'
    assert all(np.array_equal(a, b) for a,b in zip(c.sample(n), SAMPLINGS['endpoint'].place(c.phases, n)))
