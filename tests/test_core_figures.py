"The drawer of every figure: lines of a million points, panels, names, legends"
import matplotlib.pyplot as plt, numpy as np, pandas as pd, pytest
from hypothesis import given, settings, strategies as st
from matplotlib.lines import Line2D
from fastai_clr_ext.core.figures import EnvelopeLine, envelope

def columns_of(line):
    "Lowest and highest value in each pixel column"
    x,y = line.get_xdata(),line.get_ydata()
    px = np.floor(line.get_transform().transform(np.c_[x, np.ones(len(x))])[:,0])
    return pd.DataFrame(dict(px=px, y=y)).groupby('px').y.agg(['min', 'max'])

@pytest.mark.parametrize('zoom', [None, (1000, 9000)])
def test_the_envelope_is_that_of_all_points(monkeypatch, zoom):
    rng = np.random.default_rng(0)
    y = rng.normal(size=200_000)
    y[777] = 50; y[[5000, 5001]] = np.nan
    fig,ax = plt.subplots()
    line = EnvelopeLine(np.arange(len(y)), y)
    ax.add_line(line); ax.autoscale_view()
    if zoom: ax.set_xlim(*zoom)
    want,drawn = columns_of(line),[]
    monkeypatch.setattr(Line2D, 'draw', lambda self, renderer: drawn.append(
        (self.get_xdata().copy(), self.get_ydata().copy())) if self is line else None)
    fig.canvas.draw()
    (x,y2), = drawn
    assert len(x) < 6*len(want)
    thin = EnvelopeLine(x, y2); thin.set_transform(line.get_transform())
    pd.testing.assert_frame_equal(columns_of(thin), want)
    gap_columns = np.floor(line.get_transform().transform(np.c_[[5000, 5001], [1, 1]])[:,0])
    assert np.isnan(y2).sum()==len(set(gap_columns)), 'a gap stays one'
    assert len(line.get_xdata())==200_000, 'the line keeps its data'

@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from([-1., 0., 1., 2., float('nan')])),
                min_size=1, max_size=40))
def test_envelope(points):
    points = sorted(points, key=lambda p: p[0])
    column,y = np.array([c for c,_ in points]),np.array([v for _,v in points])
    keep = envelope(column, y)
    assert (np.diff(keep)>0).all()
    for c in set(column.tolist()):
        mine,all_ = y[keep][column[keep]==c],y[column==c]
        assert np.isnan(mine).any()==np.isnan(all_).any()
        if np.isfinite(all_).any(): assert (np.nanmin(mine), np.nanmax(mine))==(np.nanmin(all_), np.nanmax(all_))
        assert len(mine)<=6
