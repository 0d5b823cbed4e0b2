"Networks by name"
import pytest
from fastai_clr_ext.situations import SITUATIONS, Situation, digits_dls
from fastai_clr_ext.situations.models import MODELS, make_model
from fastai_clr_ext.situations.sources import SOURCES, source_of

READ_IMAGES = [name for name,(_,kinds) in MODELS.items() if 'images' in kinds and 'lite' not in name]

@pytest.mark.parametrize('name', ['resnet14', *READ_IMAGES])
def test_networks_for_images(name):
    dls = digits_dls(bs=20)
    assert make_model(name, dls)(dls.one_batch()[0]).shape==(20, 10)

@pytest.mark.parametrize('data,model,says', [
    ('topics', 'resnet8', 'model must be one of .* for classes of text'),
    ('digits', 'tabular', 'model must be one of resnet8'), ('diabetes', 'rnn', 'one of tabular for table'),
    ('next-char', 'transformer', 'model must be one of .* for next character'),
    ('digits', 'resnet18', r'depth must be 6n\+2'), ('digits', 'ResNet8', 'model must be'),
    ('digits', 'resnet', 'model must be')])
def test_a_network_that_cannot_read_the_data(data, model, says):
    with pytest.raises(ValueError, match=says): Situation(data, model)

def test_each_kind_of_data_has_networks_and_situations():
    kinds = {source.kind for source in SOURCES.values()}
    assert kinds=={kind for _,known in MODELS.values() for kind in known}
    assert {source_of(sit.data).kind for sit in SITUATIONS.values()}==kinds
