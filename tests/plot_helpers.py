"What several tests of the wing `plot` share"
import numpy as np, pytest, torch
from matplotlib.backends.backend_agg import RendererAgg
from fastai_clr_ext.schedule import *
from fastai_clr_ext.record import *
from fastai_clr_ext.train import *

@pytest.fixture
def learn(mlp):
    learn = mlp(cbs=GradRecorder())
    learn.fit_one_cycle_ext(2, slice(.001, .01))
    learn.fit_one_cycle_ext(1, .01)
    return learn

def made(n=400, n_epoch=8, bad=(), groups=2, seed=0, stages=('head', 'body')):
    "Stages of one cycle each, groups, Adam's statistics and a histogram; NaN where asked"
    rng,h = np.random.default_rng(seed),RunHistory()
    columns = (['total', 'norm', 'weight_norm'] + [f'bin {k}' for k in range(-40, 24)]
               + ['update_norm', 'total_sqrt_v', 'total_step', 'max_step'])
    for f,stage in enumerate(stages):
        plan = Plan(one_cycle(), tuple(.1/10**(groups-1-g) for g in range(groups)), n_epoch//len(stages), n//n_epoch)
        h.fit_rows.append(dict(id=f'{seed}{f}', started='', stage=stage, n_epoch=plan.n_epoch, n_iter=plan.n_iter,
                               phases=[list(o) for o in plan.cycle.spans(plan.n)], n_batches=plan.n,
                               n_steps=plan.n, seconds=1., outcome='finished', lr_max=list(plan.lr_max)))
        for i in range(plan.n):
            k,g = f*plan.n+i,np.exp(-i/100)+.2*rng.random((groups, len(columns)))
            loss = float('nan') if k in bad else 2*np.exp(-k/150)+.3*rng.random()
            h.batch_log.add([f, i//plan.n_iter, i%plan.n_iter, i, i, 0],
                            [plan.table[c][i,j] for j in range(groups) for c in ('lr', 'mom')],
                            (torch.device('cpu'), (1,),
                             dict(hypers=[[c, j] for j in range(groups) for c in ('lr', 'mom')])))[0] = loss
            g[:,3:67] = rng.multinomial(100, np.eye(64)[30]*.5 + np.eye(64)[34]*.3 + np.eye(64)[38]*.2, size=groups)
            if k in bad: g[0,:2] = np.inf
            h.grad_log.add([f, i, i, i//plan.n_iter], [100]*groups,
                           (torch.device('cpu'), g.shape, dict(units=[['', j] for j in range(groups)],
                                                               columns=columns))).copy_(torch.tensor(g))
        for e in range(plan.n_epoch):
            h.epoch_rows.append(dict(fit=f, epoch=e, train_loss=1/(e+1+f), valid_loss=1.2/(e+1+f), accuracy=.5+.05*e))
    return h

def drawn_texts(figure, monkeypatch):
    "Each text that is really drawn, and its box in pixels"
    found,real = [],RendererAgg.draw_text
    def draw_text(self, gc, x, y, s, prop, angle, ismath=False, mtext=None):
        if s.strip(): found.append((s, mtext.get_window_extent(self)))
        return real(self, gc, x, y, s, prop, angle, ismath, mtext)
    with monkeypatch.context() as patched:
        patched.setattr(RendererAgg, 'draw_text', draw_text)
        figure.canvas.draw()
    return found

def shades_of(ax):
    "Left edge and width of each shaded phase"
    collections = [each for each in ax.collections if each.get_gid()=='clr-fits']
    boxes = [path.get_extents() for each in collections for path in each.get_paths()]
    return [(box.x0, box.width) for box in boxes]

def axes_of(o): return list(np.atleast_1d(o))
