"A fit in words and numbers"
import numpy as np, pytest
from fastai.callback.core import Callback, CancelStepException
from fastai.callback.training import GradientAccumulation
from fastai_clr_ext.record import *
from fastai_clr_ext.train import *
from fastai_clr_ext.plot import *
from plot_helpers import *

def test_summary_numbers():
    h = made(n=2000, n_epoch=20)
    s,df = h.summary(0).value,h.steps.query('fit==0')
    assert s['peak rate']==pytest.approx(.1)
    m = ((df.mean_abs_0+df.mean_abs_1)/2).to_numpy()
    k,last = np.array([smooth(m)/np.median(smooth(m))]).ravel(),(df.phase=='annihilation').to_numpy()
    inside = (k<=1.5) & (k>=1/1.5)
    best,run = 0,0
    for i,ok in enumerate(inside):
        run = run+1 if ok else 0
        if run>best: best,end = run,i
    a = slice(end-best+1, end+1)
    assert (s['plateau']==pytest.approx(np.median(m[a]))
            and s['unevenness']==pytest.approx(np.quantile(m[a], .95)/np.median(m[a])))
    assert f'from iteration {end-best+1} to {end},' in h.summary(0)['in words']['plateau']
    pos = np.arange(last.sum())/last.sum()
    slope = np.cov(pos, np.log(m[last]))[0,1]/np.var(pos, ddof=1)
    assert s['fall while annihilating']==pytest.approx(np.exp(slope))
    gaps = h.epochs.query('fit==0').eval('valid_loss-train_loss').tolist()
    assert (s['gap before'], s['gap after'])==pytest.approx((gaps[8], gaps[9])) and s['skipped']==0

def test_summary_of_other_fits(mlp):
    learn = mlp()
    learn.fit_one_cycle_ext(1, .01, cbs=GradientAccumulation(32))
    s = learn.recorder.summary()
    assert (s['in words']['plateau']=='no gradients are recorded (GradRecorder)'
            and s['in words']['skipped']=='5 accumulation' and 'fall while annihilating' not in s.index)
    learn.fit(1, cbs=GradRecorder())
    s = learn.recorder.summary()
    assert 'fall while annihilating' not in s.index and s['in words']['seconds']=='finished'
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
    assert learn.recorder.summary().value['first loss that is not finite']==5
    assert [l.get_xdata().tolist() for l in learn.recorder.plot_losses().lines if l.get_label()=='not finite']==[[5, 6]]
