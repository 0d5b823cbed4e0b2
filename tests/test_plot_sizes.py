"Every figure of a fit at sizes from 320 to 1600 pixels: no two texts touch, and nothing lies outside"
import matplotlib.pyplot as plt, numpy as np, pytest
from matplotlib.colors import to_rgb
from fastai_clr_ext.schedule import *
from fastai_clr_ext.schedule.plan import plot_schedule
from fastai_clr_ext.plot import *
from plot_helpers import *

def check_texts(figure, monkeypatch):
    texts = drawn_texts(figure, monkeypatch)
    w,h = figure.bbox.size
    for s,box in texts:
        assert box.x0>=-1 and box.y0>=-1 and box.x1<=w+1 and box.y1<=h+1, f'{s!r} leaves the figure: {box}'
    for i,(a,box) in enumerate(texts):
        for b,other in texts[i+1:]:
            touch = (min(box.x1, other.x1)-max(box.x0, other.x0), min(box.y1, other.y1)-max(box.y0, other.y0))
            assert min(touch)<=1, f'{a!r} and {b!r} touch'
    return [s for s,_ in texts]

STAGES = [('',), ('head', 'all layers'), ('a', 'b', 'c', 'd'), tuple(f'unfreeze {i}' for i in range(8))]
WIDTHS = [320, 640, 1600]
ONE = {'plot_lr': dict(show_moms=True), 'plot_grads': {}, 'plot_losses': {}, 'plot_vs_lr': {}, 'plot_grad_spread': {},
       'plot_grad_heatmap': {}}
MANY = {'plot_cycle': 4, 'plot_stages': 2, 'plot_adam': 3, 'plot_metrics': 1}

def new_figure(width, n=1, height=None):
    plt.rcParams['figure.dpi'] = 100
    size = (width/100, height or min(.6+1.7*n if n>1 else 4.8, 12))
    return plt.subplots(n, sharex=True, figsize=size, layout='constrained')[1]

@pytest.mark.parametrize('width', WIDTHS)
@pytest.mark.parametrize('groups', [1, 6])
@pytest.mark.parametrize('stages', STAGES, ids=len)
@pytest.mark.parametrize('name', [*ONE, *MANY])
def test_figures_of_a_history(name, stages, groups, width, monkeypatch):
    h = made(n=60*len(stages), n_epoch=2*len(stages), groups=groups, stages=stages)
    axs = new_figure(width, MANY.get(name, 1), {'plot_stages': 5., 'plot_metrics': 2.8}.get(name))
    given = dict(axs=axs) if name in MANY else dict(ax=axs)
    out = getattr(h, name)(**given | ONE.get(name, {}))
    texts = check_texts(axes_of(out)[0].figure, monkeypatch)
    if width==1600 and len(stages)<3 and name!='plot_vs_lr' and name!='plot_grad_heatmap':
        assert texts.count('warm-up')==len(stages) and {s for s in stages if s}<=set(texts)

@pytest.mark.parametrize('width', WIDTHS)
@pytest.mark.parametrize('groups', [1, 6])
@pytest.mark.parametrize('stages', STAGES, ids=len)
def test_previews(stages, groups, width, monkeypatch):
    plans = [Plan(one_cycle(), tuple(.1/2**g for g in range(groups)), 1, 60) for _ in stages]
    ax = plot_schedule(plans, ax=new_figure(width), stages=list(stages))
    check_texts(ax.figure, monkeypatch)

def luminance(color):
    "Of sRGB, as WCAG 2 defines it"
    rgb = np.array(to_rgb(color))
    return (np.where(rgb<=.04045, rgb/12.92, ((rgb+.055)/1.055)**2.4)*[.2126, .7152, .0722]).sum()

@pytest.mark.parametrize('style', ['dark_background', 'default', 'ggplot', 'grayscale'])
@pytest.mark.parametrize('name', [*ONE, *MANY])
def test_lines_and_texts_can_be_seen_on_any_style(name, style):
    "A contrast of at least 1.5 with what is behind; black on a dark style has 1.1"
    with plt.style.context(style):
        axs = axes_of(getattr(made(n=80, bad=(20,)), name)(**ONE.get(name, {})))
        figure = axs[0].figure
        for ax in figure.axes:
            behind = luminance(ax.get_facecolor() if ax.patch.get_visible() else figure.axes[0].get_facecolor())
            seen = [line for line in ax.lines if len(line.get_xdata())]
            for artist in seen:
                pair = sorted([luminance(artist.get_color()), behind])
                assert (pair[1]+.05)/(pair[0]+.05)>1.5, (artist, artist.get_color())
            outside = luminance(figure.get_facecolor())
            for text in [ax.xaxis.label, ax.yaxis.label, *ax.texts]:
                pair = sorted([luminance(text.get_color()), outside])
                assert not text.get_text() or (pair[1]+.05)/(pair[0]+.05)>1.5, text
