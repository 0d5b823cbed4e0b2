"A fit in words and numbers"
import warnings
import numpy as np, pytest
from fastai.callback.core import Callback, CancelStepException
from fastai.callback.training import GradientAccumulation
from fastai_clr_ext.record import *
from fastai_clr_ext.train import *
from fastai_clr_ext.plot import *
from fastai_clr_ext.plot.summary import plateau_rows
from plot_helpers import *

def test_summary_numbers():
    h = made(n=2000, n_epoch=20)
    s,df = h.summary(0).value,h.steps.query('fit==0')
    assert s['peak rate']==pytest.approx(.1)
    m = ((df.mean_abs_0+df.mean_abs_1)/2).to_numpy()
    half = 25 # a twentieth of 1000, on both sides, and an eighth of it at the ends
    near = [min(half, max(half//4, min(i, 999-i))) for i in range(1000)]
    smoothed = np.array([np.median(m[max(i-near[i], 0):i+near[i]+1]) for i in range(1000)])
    k,last = smoothed/np.median(smoothed),(df.phase=='annihilation').to_numpy()
    inside = (k<=1.5) & (k>=1/1.5)
    best,run = 0,0
    for i,ok in enumerate(inside):
        run = run+1 if ok else 0
        if run>best: best,end = run,i
    a = slice(end-best+1, end+1) # the longest stretch
    assert (s['plateau']==pytest.approx(np.median(m[a]))
            and s['unevenness']==pytest.approx(np.quantile(m[a], .95)/np.median(m[a])))
    assert f'from iteration {end-best+1} to {end}, {best/1000:.0%} of the steps' in h.summary(0)['in words']['plateau']
    assert s['last phase']==pytest.approx(smoothed[last][-1]/smoothed[last][0])
    gaps = h.epochs.query('fit==0').eval('valid_loss-train_loss').tolist()
    assert (s['gap before'], s['gap after'])==pytest.approx((gaps[8], gaps[9])) and s['skipped']==0

def test_summary_of_other_fits(mlp):
    learn = mlp()
    learn.fit_one_cycle_ext(1, .01, cbs=GradientAccumulation(32))
    s = learn.recorder.summary()
    assert (s['in words']['plateau']=='no gradients are recorded (GradRecorder)'
            and s['in words']['skipped']=='5 accumulation' and 'last phase' not in s.index)
    learn.fit(1, cbs=GradRecorder())
    s = learn.recorder.summary()
    assert 'last phase' not in s.index and s['in words']['seconds']=='the fit is finished'
    with pytest.raises(ValueError, match=r'fit must be a whole number in \[-2, 2\)'): learn.recorder.summary(5)

class SkipBad(Callback):
    "Spoils the predictions of two batches, and skips their steps"
    order,run_valid = -5,False
    def after_pred(self):
        if self.learn.train_iter in (5, 6): self.learn.pred = self.learn.pred*float('nan')
    def before_step(self):
        if not self.learn.loss.isfinite(): raise CancelStepException

def test_a_loss_that_was_not_finite_is_said_also_if_its_step_was_skipped(mlp):
    learn = mlp(cbs=[SkipBad(), HistoryRecorder()])
    learn.fit_one_cycle_ext(1, .01)
    assert learn.recorder.summary().loc['losses that are not finite'].tolist()==[2, 'the first at iteration 5']
    assert [l.get_xdata().tolist() for l in learn.recorder.plot_losses().lines if l.get_label()=='not finite']==[[5, 6]]

def test_skipped_batches_are_counted_by_their_reason():
    h = made(n=80)
    for row,code in ((3, 3), (4, 3), (50, 4), (70, 2)): h.batch_log.rows[row][0][5] = code # as in `SKIPPED`
    first,second = h.summary(0),h.summary()
    assert (first.value['skipped'], first['in words']['skipped'])==(2, '2 accumulation')
    assert (second.value['skipped'], second['in words']['skipped'])==(2, '1 cancelled, 1 overflow')

def test_the_peak_is_counted_from_the_first_batch_of_its_fit():
    h = made(n=80)
    for fit in (0, 1, -1):
        table = h.summary(fit)
        peak = int(h.steps.query(f'fit=={fit%2}').lr_1.to_numpy().argmax())
        assert table['in words']['peak rate']==f'reached at iteration {peak} of 40'
        assert table.value['seconds']==1 and table['in words']['seconds']=='the fit is finished'
    assert list(table.columns)==['value', 'in words']

def test_gradients_that_are_nowhere_steady_have_no_plateau(monkeypatch):
    "A fall by a factor of e in each tenth of 300 steps: within 1.5 of the median are 8 % of them"
    fall = np.exp(-np.arange(300)/30)
    monkeypatch.setattr(HistoryView, 'series', lambda self, what, of=None: (np.arange(300), fall))
    rows = plateau_rows(HistoryView(made(n=300)))
    assert np.isnan(rows['plateau'][0]) and list(rows)==['plateau']
    assert rows['plateau'][1]=='mean |g| is nowhere steady for a fifth of the steps'

@pytest.mark.parametrize('end,word', [(.5, 'falls from'), (.95, 'hardly changes: from'), (2., 'rises from')])
def test_words_agree_with_numbers(end, word, monkeypatch):
    "mean |g| of 1 that ends at another value, in a straight line over the last phase"
    h = made(n=400, stages=('a',))
    (_,first,stop), = h.fit_rows[0]['phases'][-1:]
    y = np.r_[np.ones(first), np.linspace(1, end, stop-first)]
    real = HistoryView.series
    monkeypatch.setattr(HistoryView, 'series', lambda self, what, of=None:
                        (np.arange(400), y) if what=='mean_abs' else real(self, what, of))
    s = h.summary()
    assert s['in words']['last phase'].startswith(f'mean |g| {word}')
    assert s.value['last phase']==pytest.approx(end, rel=.1) and s.value['plateau']==1

def test_a_short_fit_is_too_short_to_tell():
    words = made(n=80).summary(0)['in words']
    assert words['plateau']=='too short to tell: 40 steps, fewer than 60'
    assert words['last phase']=="too short to tell: 4 steps in 'annihilation', fewer than 10"

def test_a_phase_that_is_not_finite_is_not_short():
    words = made(bad=tuple(range(190, 200))).summary(0)['in words']
    assert words['last phase']=="mean |g| is 0 or not finite at steps in 'annihilation'"

def test_columns_are_plain():
    s = made().summary()
    assert s.value.dtype==float and all(isinstance(words, str) for words in s['in words'])

def test_a_fit_that_failed_in_its_first_batch(mlp):
    class Fails(Callback):
        def after_pred(self): raise RuntimeError('out of memory')
    learn = mlp()
    with pytest.raises(RuntimeError): learn.fit_one_cycle_ext(1, cbs=Fails())
    assert learn.recorder.summary().loc['peak rate', 'in words']=='no batch has a loss'

def test_gradients_that_are_all_zero_have_no_plateau(mlp):
    learn = mlp(cbs=GradRecorder(), loss_func=lambda pred, y: (pred*0).mean())
    learn.fit_one_cycle_ext(8)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert 'nowhere steady' in learn.recorder.summary().loc['plateau', 'in words']
