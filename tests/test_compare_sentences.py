"Verdicts in words"
import pandas as pd, pytest
from fastai_clr_ext.compare import *

nan = float('nan')

def said(df, **options):
    "The sentences of a table"
    words = {name: options[name] for name in ('higher', 'margin') if name in options}
    return verdict_sentences(paired_summary(df, **options), 'accuracy', **words)

def test_no_gain_is_neither_better_nor_worse():
    df = pd.DataFrame({'a': [.5, .6, .7], 'b': [.6, .5, .7]})
    sentence, = verdict_sentences(paired_summary(df), 'accuracy')
    assert said(df.assign(b=df.b + [6e-8, 0., 0.]))==[sentence], 'as float32 rounds'
    assert 'On average its accuracy was equal to that of a' in sentence and 'worse' not in sentence

@pytest.mark.parametrize('higher,says', [(True, '0.1 worse than that of a (higher is better'),
                                         (False, '0.1 better than that of a (lower is better')])
def test_the_direction_is_said(higher, says):
    df = pd.DataFrame({'a': [.5, .6, .7], 'b': [.4, .5, .6]})
    assert says in verdict_sentences(paired_summary(df, higher=higher), 'wer', higher)[0]

@pytest.mark.parametrize('df,options,wants', [
    (dict(a=[.1, .2, .3], b=[.4, .5, .61]), {}, ['b: worked. On average its accuracy was 0.303 better than that of a',
                                                 'better on 3 of 3 seeds.']),
    (dict(a=[.1, .2, .3], b=[.1, .21, .28]), {}, ['b: cannot tell, because the interval holds 0.']),
    (dict(a=[.1, .2, .3], b=[.1, .21, .28]), dict(margin=.5), ['b: made no difference.', 'within ±0.5']),
    (dict(a=[.1, .2, .3, .2, .3], b=[nan]*5), dict(fail_score=.15),
     ['b: did worse, because its runs failed more often.', '5 of 5 of its runs failed, and 0 of 5 of a;', 'as 0.15.']),
    (dict(a=[.1], b=[.2]), {}, ['b: cannot tell, because there is no interval.', 'one seed: no interval']),
    (dict(a=[.1, .2], b=[.2, .3]), {}, ['the same difference on every seed, and too few of them: no interval']),
    (dict(a=[nan]*3, b=[nan]*3), {}, ['b: cannot tell, because no run ended well.'])], ids=str)
def test_sentences(df, options, wants):
    sentence, = said(pd.DataFrame(df), **options)
    for want in wants: assert want in sentence
    assert 'seeds would' not in sentence and 'nan' not in sentence, 'no advice to look again'
