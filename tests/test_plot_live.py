"The cycle while it trains"
import time
from types import SimpleNamespace
import matplotlib.pyplot as plt, pytest
from fastai.callback.core import Callback
from fastai.callback.schedule import *
from fastai_clr_ext.record import *
from fastai_clr_ext.plot import *
from fastai_clr_ext.plot import live
from fastai_clr_ext.plot.live import ShownFigure
from plot_helpers import *

def test_live_figure(mlp, monkeypatch):
    import IPython.display
    shown,clock = [],[0.]
    monkeypatch.setattr(live, 'IN_NOTEBOOK', True)
    monkeypatch.setattr(time, 'perf_counter', lambda: clock[0])
    class Handle:
        def update(self, fig): shown.append(('update', len(fig.axes)))
    def display(fig, display_id):
        shown.append(('display', len(fig.axes)))
        return Handle()
    monkeypatch.setattr(IPython.display, 'display', display)
    class Tick(Callback):
        run_valid = False
        def before_batch(self): clock[0] += .4
    learn = mlp(cbs=[GradRecorder(), ShowCycle(every=1.)])
    learn.fit(1, cbs=Tick())
    assert shown==[('display', 4)] + [('update', 4)]*2 + [('update', 4)], 'at 1.2, 2.4 and 3.6 s, then the whole'
    assert not plt.get_fignums()
    shown.clear()
    learn.lr_find(show_plot=False); learn.get_preds(); learn.validate()
    assert not shown

def test_silent_outside_a_notebook(mlp):
    learn = mlp(cbs=[GradRecorder(), ShowCycle()])
    learn.fit(1)
    assert learn.show_cycle.now is None
    for kwargs in (dict(every=0), dict(share=1.)):
        with pytest.raises(ValueError, match='must'): ShowCycle(**kwargs)

def test_drawing_is_a_small_share(monkeypatch):
    clock = [0.]
    monkeypatch.setattr(time, 'perf_counter', lambda: clock[0])
    shown = ShowCycle(every=1., share=.05)
    class Bare(SimpleNamespace): "Something that can be referred to weakly, as a learner"
    shown.learn = Bare(recorder=SimpleNamespace(history=None))
    shown.now = ShownFigure(next_time=1.)
    shown.now.draw = lambda history: clock.__setitem__(0, clock[0]+.5)
    clock[0] = 2.
    shown.after_batch()
    assert shown.now.next_time==2+.5/.05

def test_nothing_is_shown_without_a_recorder(mlp, monkeypatch):
    monkeypatch.setattr(live, 'IN_NOTEBOOK', True)
    learn = mlp(cbs=ShowCycle(every=1e-9))
    learn.fit(1)
    assert learn.show_cycle.now is None and not plt.get_fignums()

@pytest.mark.parametrize('kwargs,says', [
    (dict(every=-1), 'every must be a number of seconds above 0; got -1'), (dict(every=float('nan')), 'every must'),
    (dict(every='1'), 'every must'), (dict(share=0), r'share must lie in \(0, 1\); got 0'),
    (dict(share=True), 'share must')], ids=str)
def test_bad_input(kwargs, says):
    with pytest.raises(ValueError, match=says): ShowCycle(**kwargs)
