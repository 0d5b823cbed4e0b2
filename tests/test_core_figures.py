"The drawer of every figure: lines of a million points, panels, names, legends"
import matplotlib.pyplot as plt, numpy as np, pandas as pd, pytest
from hypothesis import given, settings, strategies as st
from matplotlib.lines import Line2D
from numpy.testing import assert_array_equal
from fastai_clr_ext.core.labels import HYPER_LABELS
from fastai_clr_ext.core.figures import (EnvelopeLine, add_legend, draw_hyper, draw_line, envelope, has_positive,
    label_iterations, legend_on_top, mark_nonfinite, new_axes, panels)

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

def test_the_line_is_drawn_whole_below_5000_points(monkeypatch):
    drawn = []
    monkeypatch.setattr(Line2D, 'draw', lambda self, renderer: drawn.append((self, len(self.get_xdata()))))
    fig,ax = plt.subplots()
    lines = [draw_line(ax, np.arange(n), np.sin(np.arange(n))) for n in (4999, 50_000)]
    fig.canvas.draw()
    n_drawn = {line: n for line,n in drawn if line in lines}
    assert n_drawn[lines[0]]==4999 and n_drawn[lines[1]]<6*fig.bbox.width

def test_lines_take_the_colours_of_the_cycle_in_turn():
    ax = plt.subplots()[1]
    cycle = plt.rcParams['axes.prop_cycle'].by_key()['color']
    lines = [draw_line(ax, [0, 1], [0, 1]), draw_line(ax, [0, 1], [1, 0], c='k', lw=3), draw_line(ax, [0], [1])]
    assert [l.get_color() for l in lines]==[cycle[0], 'k', cycle[1]] and lines[1].get_linewidth()==3
    assert [l.get_marker() for l in lines]==['None', 'None', 'o'], 'a single point would not be seen'
    assert list(ax.lines)==lines, 'nothing else is left in the axes'

# panels

def test_panels_of_a_new_figure():
    axs = panels(3)
    assert axs.shape==(3,) and len(axs[0].figure.axes)==3 and len({a.figure for a in axs})==1
    axs[0].set_xlim(2, 7)
    assert axs[2].get_xlim()==(2, 7), 'one x axis'
    assert panels(1).shape==(1,)
    short,tall = panels(2)[0].figure,panels(4)[0].figure
    assert tall.get_figheight()-short.get_figheight()==pytest.approx(2*1.7)

def test_panels_that_are_given():
    axs = plt.subplots(2, 2)[1]
    n = len(plt.get_fignums())
    assert list(panels(4, axs))==list(axs.ravel()) and panels(1, axs[0,0])[0] is axs[0,0]
    assert list(panels(2, [axs[1,1], axs[0,0]]))==[axs[1,1], axs[0,0]]
    with pytest.raises(ValueError, match='axs must be 3 axes; got 4'): panels(3, axs)
    assert len(plt.get_fignums())==n
    assert label_iterations(axs[:,0]) is not None and [a.get_xlabel() for a in axs[:,0]]==['', 'iteration (batch)']

# hyper-parameters

UP,DOWN = ([0, 1, 2], [0., 1., 2.]),([3, 4], [2., 1.])

@pytest.mark.parametrize('n', [1, 2, 7])
def test_one_line_if_all_groups_share_a_hyper_parameter(n):
    ax = draw_hyper(plt.subplots()[1], 'lr', [[UP, DOWN]]*n, shared_color='r')
    assert [l.get_label() for l in ax.lines]==['learning rate', '_'] and {l.get_color() for l in ax.lines}=={'r'}
    for line,(x,y) in zip(ax.lines, (UP, DOWN)): assert_array_equal(line.get_xydata(), np.c_[x, y])

def test_a_line_for_each_group_if_they_differ():
    ax = draw_hyper(plt.subplots()[1], 'mom', [[UP, DOWN], [UP], [], [UP, ([3, 4], [2., 1.5])]])
    assert [l.get_label() for l in ax.lines]==['mom, group 0', '_', 'mom, group 1', 'mom, group 3', '_']
    assert len({l.get_color() for l in ax.lines})==3==len({l.get_linestyle() for l in ax.lines}), 'also in grey'
    assert ax.lines[0].get_color()==ax.lines[1].get_color()

def test_a_name_without_a_unit_and_a_style_of_ones_own():
    ax = draw_hyper(plt.subplots()[1], 'nesterov', [[UP]], ls=':', c='g', label='mine')
    line, = ax.lines
    assert (line.get_linestyle(), line.get_color(), line.get_label())==(':', 'g', 'mine')
    assert draw_hyper(plt.subplots()[1], 'nesterov', [[UP]]).lines[0].get_label()=='nesterov'

@pytest.mark.parametrize('lowest', [0., .001, .85])
def test_a_rate_is_never_drawn_below_zero(lowest):
    ax = draw_hyper(plt.subplots()[1], 'lr', [[([0, 1, 2], [lowest, 1., lowest])]])
    assert 0<=ax.get_ylim()[0]<=lowest
    draw_line(ax, [0, 1], [-1., 1.])
    assert ax.get_ylim()[0]<-1, 'unless something else lies there'

def test_many_groups_have_colours_of_their_own():
    ax = draw_hyper(plt.subplots()[1], 'lr', [[([0, 1], [0., g])] for g in range(30)])
    assert len({tuple(line.get_color()) for line in ax.lines})==30, 'the colour cycle has 10'

# ticks

@pytest.mark.parametrize('n,end', [(3, '2'), (5000, '5k'), (1_000_000, '1M')])
def test_ticks_are_whole_batches(n, end):
    ax = plt.subplots()[1]
    ax.plot(np.arange(n), np.arange(n))
    label_iterations([ax])
    ax.figure.canvas.draw()
    assert all(float(tick).is_integer() for tick in ax.get_xticks())
    assert end in [label.get_text() for label in ax.get_xticklabels()]

# legends

def named_lines(n, ax, name='line {}'):
    for i in range(n): draw_line(ax, [0, 1], [i, i+1], label=name.format(i))

def legend_names(ax): return [t.get_text() for t in ax.get_legend().get_texts()]

@pytest.mark.parametrize('n,shown', [(1, [0]), (12, [*range(12)]), (13, [0, 6, 12]), (100, [0, 50, 99])])
def test_a_long_legend_shows_three_names(n, shown):
    ax = plt.subplots()[1]
    named_lines(n, ax)
    assert add_legend(ax) is ax and legend_names(ax)==[f'line {i}' for i in shown]
    for i,handle in zip(shown, ax.get_legend().legend_handles): assert handle.get_color()==ax.lines[i].get_color()
    assert ax.get_legend().get_title().get_text()==('' if n<=12 else f'3 of {n}'), 'a selection says so'

def test_a_legend_with_the_lines_of_a_twin():
    ax = plt.subplots()[1]
    twin = ax.twinx()
    assert add_legend(ax, [twin]).get_legend() is None, 'no name, no legend'
    named_lines(1, ax)
    named_lines(1, twin, 'twin {}')
    assert legend_names(add_legend(ax, [twin], fontsize=3))==['line 0', 'twin 0'] and twin.get_legend() is None
    assert ax.get_legend().get_texts()[0].get_fontsize()==3

def test_many_points_need_no_search_for_the_best_place(monkeypatch):
    from matplotlib.legend import Legend
    searched,real = set(),Legend._find_best_position
    def watched(self, *args):
        searched.add(len(self.axes.lines[0].get_xdata()))
        return real(self, *args)
    monkeypatch.setattr(Legend, '_find_best_position', watched)
    for n in (100, 60_000):
        ax = plt.subplots()[1]
        draw_line(ax, np.arange(n), np.zeros(n), label='x')
        add_legend(ax).figure.canvas.draw()
    assert searched=={100}

@pytest.mark.parametrize('names', [
    ['a'], ['learning rate', 'momentum'], ['lr, group 0', 'lr, group 1', 'momentum'],
    [f'lr, group {i}' for i in range(6)]], ids=len)
def test_a_legend_on_top_covers_no_line_and_stays_inside(names):
    ax = plt.subplots(layout='constrained')[1]
    for i,name in enumerate(names): draw_line(ax, np.arange(11), np.r_[0:5, 5:-1:-1]+i, label=name)
    assert legend_on_top(ax) is ax and legend_names(ax)==names
    ax.figure.canvas.draw()
    box = ax.get_legend().get_window_extent()
    top = max(line.get_transform().transform(line.get_xydata())[:,1].max() for line in ax.lines)
    assert box.y0>top and box.x0>=ax.bbox.x0 and box.x1<=ax.bbox.x1 and box.y1<=ax.bbox.y1

# what is not finite

def test_crosses_are_named_once():
    ax = plt.subplots()[1]
    mark_nonfinite(ax, np.array([]))
    assert not ax.lines
    mark_nonfinite(ax, np.array([3, 5]))
    mark_nonfinite(ax, np.array([8]))
    assert [l.get_label() for l in ax.lines]==['not finite', '_'] and ax.lines[0].get_xdata().tolist()==[3, 5]
    ax.set_ylim(10, 20)
    assert ax.lines[0].get_transform().transform([(3, 0)])[0,1]==ax.bbox.y0, 'on the axis, wherever that is'

@pytest.mark.parametrize('y,ok', [([0., -1], False), ([np.nan, 0], False), ([-1, 1e-30], True), ([np.inf], True),
                                  ([], False)])
def test_whether_a_log_axis_has_something_to_show(y, ok):
    ax = plt.subplots()[1]
    assert not has_positive(ax)
    draw_line(ax, np.arange(len(y)), y)
    assert has_positive(ax)==ok

def test_new_axes_and_names_of_hyper_parameters():
    n = len(plt.get_fignums())
    ax = new_axes()
    assert len(plt.get_fignums())==n+1 and ax.figure.get_layout_engine() is not None
    assert HYPER_LABELS['lr']=='learning rate' and {'mom', 'wd', 'sqr_mom', 'eps'}<set(HYPER_LABELS)

@pytest.mark.parametrize('scale', ['linear', 'log'])
@pytest.mark.parametrize('n', [1, 7])
def test_the_legends_room_is_at_the_top_only(scale, n):
    def lines():
        ax = plt.subplots()[1]
        ax.set_yscale(scale)
        for i in range(n): draw_line(ax, np.arange(20), np.linspace(.01, 1+i, 20), label=f'learning rate of group {i}')
        return ax
    bare,ax = lines().get_ylim(),legend_on_top(lines())
    assert ax.get_ylim()[0]==pytest.approx(bare[0]) and ax.get_ylim()[1]>bare[1]
    ax.figure.canvas.draw()
    box = ax.get_legend().get_window_extent().transformed(ax.transAxes.inverted())
    highest = ax.transAxes.inverted().transform(ax.transData.transform((0, n)))[1]
    assert highest<=box.y0+.02, 'no line is below the legend'
    draw_line(ax, np.arange(20), np.full(20, 50.), label='more')
    legend_on_top(ax)
    assert ax.get_ylim()[1]>50, 'a later line has its room too'
    ax.set_ylim(.1, 2)
    assert legend_on_top(ax).get_ylim()==(.1, 2), 'what was set by hand stays'
