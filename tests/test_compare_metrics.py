"The direction of metrics, and how an outcome is judged"
from pathlib import Path
import numpy as np, pytest
from fastai import metrics
from fastai.learner import mk_metric
from fastai.metrics import AvgMetric
from compare_helpers import *
from fastai_clr_ext.compare import *

def fastai_metrics():
    "Every metric that fastai has, made; those of `LossMetric` are named by the user"
    skip = {'AccumMetric', 'skm_to_fastai', 'optim_metric', 'LossMetric', 'LossMetrics'}
    for name in set(metrics.__all__)-skip:
        made = getattr(metrics, name)
        if name[0].isupper(): made = made(beta=1) if name.startswith('FBeta') else made()
        yield mk_metric(made).name

def test_every_metric_of_fastai_has_its_direction():
    names = set(fastai_metrics())
    assert len(names)>30
    assert names<=set(METRICS)
    words = 'error', 'loss', 'mse', 'mae', 'msle', 'rmspe', 'perplexity'
    errors = {name for name in names if any(word in name for word in words)}
    lower = {name for name in names if not is_higher_better(name, None)}
    assert errors==lower, 'a distance is better if it is less, a score if it is more'

@pytest.mark.parametrize('name', ['mape', 'nll', 'wer', 'fid', 'ece', 'RMSE', 'lossless_ratio', 'my error'])
def test_another_metric_needs_its_direction(name):
    make = lambda seed: make_line(seed, metrics=AvgMetric(named(name)))
    with pytest.raises(ValueError, match=f"higher must be given for the metric '{name}': True if"):
        compare(make, POLICIES, seeds=1, **quick)
    assert not list(Path().iterdir()), 'nothing was trained'
    for higher in (True, False):
        assert compare(make, POLICIES, seeds=1, higher=higher, **quick).record['higher'] is higher
    assert compare(make, POLICIES, seeds=1, metric='valid_loss', **quick).record['higher'] is False

@pytest.mark.parametrize('name,most', [('accuracy', 1), ('matthews_corrcoef', 2), ('valid_loss', np.inf)])
def test_a_margin_wider_than_the_metric_is_refused(name, most):
    c = Comparison(check_record(made()))
    for run in c.record['runs']: run['scores'][name] = run['scores']['accuracy']
    if most<np.inf:
        with pytest.raises(ValueError, match=f'margin must be below {most}, which is how far apart'):
            c.read(metric=name, margin=most)
    assert c.read(metric=name, margin=.99*min(most, 1e3)).summary().verdict['1cycle']=='made no difference'
