"Fits, stages and phases on the x axis, and their names"
import matplotlib.pyplot as plt, numpy as np, pytest
from hypothesis import given, settings, strategies as st
from plot_helpers import drawn_texts, shades_of
from fastai_clr_ext.core.spans import FitSpan, has_fits, mark_fits, spread_names, stage_spans

def phases(first, n, cuts=(.45, .9, 1), names=('warm-up', 'cool-down', 'annihilation')):
    edges = [first, *[first+round(n*cut) for cut in cuts]]
    return [(name, lo, hi) for name,lo,hi in zip(names, edges, edges[1:])]

def fits_of(lengths, stages=None):
    out,first = [],0
    for i,n in enumerate(lengths):
        out.append(FitSpan(first, first+n, phases(first, n), stages[i] if stages else ''))
        first += n
    return out

def new_axes(n, width=6.4):
    ax = plt.subplots(figsize=(width, 4), layout='constrained')[1]
    ax.set_xlim(-.5, n-.5)
    return ax

@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.floats(1, 100), st.floats(1, 60)), min_size=1, max_size=8))
def test_spread_names(rows):
    "Names that are placed touch neither each other nor the ends, and stand over their spans"
    lengths,widths = np.array(rows).T
    stops = lengths.cumsum()
    edges = np.c_[stops-lengths, stops]
    centres = spread_names(edges, widths, 2.)
    if centres is None: return
    lo,hi = centres-widths/2,centres+widths/2
    assert lo[0]>=-1e-9 and hi[-1]<=stops[-1]+1e-9
    assert (lo[1:]-hi[:-1]>=2-1e-9).all()
    middles = edges.mean(1)
    inside = (edges[:,0]-1e-9<=centres) & (centres<=edges[:,1]+1e-9)
    assert (inside | (lo-1e-9<=middles) & (middles<=hi+1e-9)).all()

def test_names_that_fit_in_their_spans_are_in_the_middle():
    assert spread_names(np.array([[0, 50], [50, 100]]), np.array([40, 48]), 2).tolist()==[25, 75]
    assert spread_names(np.array([[0, 50], [50, 100]]), np.array([60, 60]), 2) is None

@pytest.mark.parametrize('width', [3.2, 4.8, 6.4, 16])
@pytest.mark.parametrize('lengths,stages', [([300], None), ([100, 100], None), ([20, 200], ['head', 'all']),
    ([50]*8, [f'stage {i}' for i in range(8)]), ([1, 2, 3], ['a', 'a', 'b']), ([5]*40, None)], ids=str)
def test_names_never_touch_and_are_all_or_none(width, lengths, stages, monkeypatch):
    fits = fits_of(lengths, stages)
    ax = mark_fits(new_axes(sum(lengths), width), fits)
    drawn = drawn_texts(ax.figure, monkeypatch)
    mine = [(s, box) for s,box in drawn if box.y0>=ax.bbox.y1]
    for i,(a,box) in enumerate(mine):
        assert box.x0>=0 and box.x1<=ax.figure.bbox.x1 and box.y1<=ax.figure.bbox.y1, f'{a} leaves the figure'
        for b,other in mine[i+1:]: assert not box.overlaps(other), f'{a} and {b}'
    for fit in fits:
        lo,hi = ax.transData.transform([(fit.first-.5, 0), (fit.stop-.5, 0)])[:,0]
        names = ['warm-up', 'cool-down', 'annihilation']
        inside = [s for s,box in mine if lo-1<=box.x0 and box.x1<=hi+1 and s in names]
        assert inside in ([], names)
    if width==16 and len(lengths)<3: assert len(mine)>=3

def test_stages_without_room_are_numbered(monkeypatch):
    names = [f'a stage with quite a long name {i}' for i in range(8)]
    ax = mark_fits(new_axes(400), fits_of([50]*8, names))
    drawn = [s for s,box in drawn_texts(ax.figure, monkeypatch) if box.y0>=ax.bbox.y1]
    assert drawn==list('12345678')

def test_what_is_zoomed_away_has_no_name(monkeypatch):
    ax = mark_fits(new_axes(400), fits_of([200, 200], ['head', 'all']))
    ax.set_xlim(-.5, 60)
    drawn = [(s, box) for s,box in drawn_texts(ax.figure, monkeypatch) if box.y0>=ax.bbox.y1]
    assert all(box.x1<=ax.bbox.x1+1 for _,box in drawn)

def test_each_fit_begins_with_a_shade_and_names_can_be_left_out():
    ax = plt.subplots()[1]
    assert not has_fits(ax)
    mark_fits(ax, fits_of([20, 20, 20], ['a', 'a', 'b']), with_names=False)
    assert [x for x,_ in shades_of(ax)]==[-.5, 17.5, 19.5, 37.5, 39.5, 57.5] and not ax.texts and has_fits(ax)
    assert not ax.patches, 'a legend would be kept away from them'
    assert not shades_of(mark_fits(plt.subplots()[1], fits_of([20]), with_shades=False))
    assert [(line.get_xdata()[0], line.get_linestyle()) for line in ax.lines]==[(19.5, ':'), (39.5, '-')]

def test_successive_fits_of_a_stage_are_one():
    assert stage_spans(fits_of([10, 10, 5, 5], ['a', 'a', '', 'a']))==[('a', -.5, 19.5), ('a', 24.5, 29.5)]

def test_a_name_means_itself(monkeypatch):
    ax = mark_fits(new_axes(100), [FitSpan(0, 100, [(r'lr $\frac$ x', 0, 100)], r'$a_')])
    assert {r'lr $\frac$ x', r'$a_'}<={s for s,_ in drawn_texts(ax.figure, monkeypatch)}
