"The rule for losses, and what is known of a training that was lost"
import numpy as np, pytest
from fastai_clr_ext.train import *

def slow(losses, factor, patience, skip, floor):
    "The rule once more, from its words: the first batch that is too high"
    smooth = [np.average(losses[:n], weights=.98**np.arange(n)[::-1]) for n in range(1, len(losses)+1)]
    high = [i>=skip and i+1>=patience
            and min(np.median(losses[i+1-patience:i+1]), smooth[i]) > factor*max(min(smooth[:i+1]), floor*losses[0])
            for i in range(len(losses))]
    return high.index(True) if any(high) else None

@pytest.mark.parametrize('factor,patience,skip,floor', [(4, 10, 50, .01), (1.2, 3, 0, 0), (2, 1, 5, .5),
                                                        (1.1, 5, 20, .01)])
def test_the_rule_is_what_the_words_say(factor, patience, skip, floor):
    rng,found = np.random.default_rng(0),0
    for _ in range(30):
        losses = np.exp(np.cumsum(rng.normal(0, .2, 200)))
        t = LossTrend(factor, patience, skip, floor)
        got = next((i for i,l in enumerate(losses) if t.add(l)), None)
        assert got==slow(losses, factor, patience, skip, floor)
        found += got is not None
    assert found>5

def test_spikes_at_the_start_and_a_loss_near_nothing_are_no_alarm():
    for losses in ([2., 500., 900., 2.]*5 + [2.]*100, [2.]*60 + [500.]*4 + [2.]*100,
                   [2.]*5 + [1e-6]*400 + [1e-3]*100, [-1.]*100 + [-.1]*100, [100.]*40 + [1.]*100):
        t = LossTrend()
        assert not any(t.add(l) for l in losses), losses[:5]

def test_what_explodes_during_the_first_batches_is_called_after_them():
    t = LossTrend(skip=50)
    assert [t.add(l) for l in [2.]*5 + [1e6]*100].index(True)==50
