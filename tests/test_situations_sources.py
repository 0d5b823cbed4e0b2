"Where data are from"
import pytest
from fastai_clr_ext.compare.metrics import is_higher_better
from fastai_clr_ext.situations import SITUATIONS
from fastai_clr_ext.situations.sources import FOLDER, SOURCES, source_of

@pytest.mark.parametrize('name', SOURCES)
def test_a_source_says_all_that_a_comparison_needs(name):
    source = SOURCES[name]
    assert source.about and source.origin and source.licence and source.margin>0
    metric = source.metric()
    name = metric.name if hasattr(metric, 'name') else metric.__name__
    assert isinstance(is_higher_better(name, None), bool), 'its direction is known'

def test_every_situation_has_a_source(tmp_path):
    assert all(sit.data in SOURCES for sit in SITUATIONS.values())
    assert source_of(tmp_path) is FOLDER
