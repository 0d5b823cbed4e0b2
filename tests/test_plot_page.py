"A training as one page, and what a notebook shows of objects"
import re, pytest, matplotlib.pyplot as plt, numpy as np
from html.parser import HTMLParser
from fastai.callback.core import Callback, CancelStepException
from fastai_clr_ext.all import *
from fastai_clr_ext.plot.page import history_page
from plot_helpers import *

class Tags(HTMLParser):
    "Checks that all tags are closed in order"
    def __init__(self, page):
        super().__init__()
        self.open = []
        self.feed(page)
        assert not self.open
    def handle_starttag(self, tag, attrs):
        if tag not in ('img', 'meta'): self.open.append(tag)
    def handle_endtag(self, tag): assert self.open.pop()==tag

class Skip(Callback):
    order = 5
    def before_step(self):
        if self.learn.train_iter in (4, 5): raise CancelStepException

def test_a_page_holds_everything(mlp, tmp_path):
    learn = mlp(cbs=[GradRecorder(), Skip()])
    learn.fine_tune_long(2, .01, head_epochs=1)
    path = learn.recorder.to_html(tmp_path/'run.html', title='A <run>')
    page = path.read_text(encoding='utf-8')
    Tags(page)
    assert path==(tmp_path/'run.html').resolve() and page.count('<img')==2 and '://' not in page
    assert '<h1>A &lt;run&gt;</h1>' in page and "default-src 'none'" in page
    for text in ('peak rate', 'head', 'fit 0: 2 cancelled', 'fit 1: 2 cancelled', 'loss_func', 'fastai_clr_ext',
                 'warm-up → cool-down → annihilation'): assert text in page, text
    assert page==history_page(learn.recorder.history, 'A <run>'), 'the same each time'

def test_a_page_says_that_it_diverged(mlp, tmp_path):
    learn = mlp()
    with pytest.warns(UserWarning): learn.fit_one_cycle_ext(4, 1e6, cbs=DivergenceGuard())
    assert 'The training diverged' in learn.recorder.to_html(tmp_path/'x.html').read_text()
    assert 'diverged' not in learn.recorder.history.to_html(tmp_path/'y.html').read_text()

def test_no_page_of_nothing(tmp_path):
    with pytest.raises(ValueError, match='No training is recorded'): RunHistory().to_html(tmp_path/'x.html')
    assert not (tmp_path/'x.html').exists() and not plt.get_fignums()

def test_pages_of_loaded_histories(mlp, tmp_path):
    learn = mlp()
    learn.fit_one_cycle_ext(1, .01)
    back = RunHistory.load(learn.recorder.history.save(tmp_path/'h.npz'))
    assert history_page(back)==history_page(learn.recorder.history)

SHOWN = {
    'cycle': (lambda: one_cycle(), "Cycle([\n    Phase('warm-up', 0.45", 'annihilation', True),
    'groups': (lambda: ByGroup([one_cycle(), constant()]), 'ByGroup([Cycle', 'constant', True),
    'plan': (lambda: Plan(one_cycle(), (1/3, 1.), 1, 30), 'Plan of 1 epoch of 30 batches, peak rate 0.3333, 1\n',
             'peak rate 0.3333', False),
    'history': (lambda: made(), 'RunHistory of 2 fits, 8 epochs, 400 batches, 400 steps\n', '0.65', False),
    'empty history': (RunHistory, 'RunHistory of 0 fits, 0 epochs, 0 batches, 0 steps', '0 batches', False),
    'situation': (lambda: situation('digits', model='resnet20'), "Situation(model='resnet20', shift=1)",
                  '<td>resnet20</td>', False)}

@pytest.mark.parametrize('name', SHOWN)
def test_what_a_notebook_shows(name):
    make,text,html,has_picture = SHOWN[name]
    shown = make()._repr_html_()
    Tags(shown)
    assert repr(make()).startswith(text) and html in shown and ('<img' in shown)==has_picture
    assert not plt.get_fignums(), 'no figure is left open'
    assert not re.search(r'[1-9]\d{6,}', re.sub('base64,[^"]*', '', shown)), 'numbers for people'

def test_callbacks_show_their_settings():
    assert repr(GradRecorder('hist', every=2))=="GradRecorder(stats=['hist'], per='group', every=2, adam=False)"
    assert repr(ShowCycle(every=2.))=='ShowCycle(every=2.0, share=0.05)'
    assert repr(HistoryRecorder())=='HistoryRecorder()'

def test_a_situation_can_be_made_again_from_what_is_shown():
    for name in ('digits', 'thread', 'transfer-digits'): assert eval(repr(situation(name)))==situation(name)

def test_a_divergence_is_a_sentence(mlp):
    learn = mlp()
    with pytest.warns(UserWarning): learn.fit_one_cycle_ext(4, 1e6, cbs=DivergenceGuard())
    assert repr(learn.recorder.divergence).startswith('The training diverged')
    assert not re.search(r'[1-9]\d{6,}', repr(learn.recorder.divergence))

def test_panels_show_their_labels():
    axs = made().plot_cycle()
    assert repr(axs)=='4 Axes: learning rate, momentum, loss, mean |gradient|' and isinstance(axs, np.ndarray)

def test_the_table_of_fits_is_plain(mlp):
    learn = mlp()
    learn.fit_one_cycle_ext(2, [.01, .1], wd=[.1, .2])
    row = learn.recorder.history.fits.iloc[0]
    assert row.lr_max=='0.01, 0.1' and row.wd=='0.1, 0.2' and row.sched=='warm-up → cool-down → annihilation'
    assert row.phases=='warm-up 0–9, cool-down 10–17, annihilation 18–19'
    assert all(np.isscalar(value) or value is None for value in row)
