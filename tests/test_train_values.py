import random, pytest, torch
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
import numpy as np
from torch import nn
from fastcore.foundation import L
from fastai.torch_core import TensorBase
from fastai_clr_ext.core.random import generator_state
from fastai_clr_ext.train.values import NotPlain, filled, from_tagged, to_tagged
from resume_helpers import differences

VALUES = {
    'numbers': [1, 2.5, True, None, 'a', float('inf'), -0.],
    'numpy': np.float32(1.5), 'array': np.arange(6).reshape(2, 3),
    'bools': np.array([True, False]), 'tensor': torch.arange(4, dtype=torch.bfloat16), 'empty': [],
    'column': [torch.tensor(1.5), torch.tensor(2.5)], 'two kinds': [torch.tensor(1.5), torch.tensor(2)],
    'one': [torch.tensor(1.5)], 'rows': [torch.ones(2), torch.zeros(2)],
    'deque': deque([1, 2], maxlen=3), 'set': {3, 1}, 'frozenset': frozenset({1}), 'bytes': b'ab', 'no bytes': b'',
    'Counter': Counter('aab'), 'ordered': OrderedDict(b=1, a=2),
    'nested': {'a': (1, [L(2, 3), {'b': torch.ones(1)}]), 7: ()},
    'a dict like a tagged one': {'kind': 'set', 'items': [1]}}

@pytest.mark.parametrize('name', VALUES)
def test_values_come_back_from_a_file(tmp_path, name):
    torch.save(to_tagged(VALUES[name]), tmp_path/'x.pt')
    again = from_tagged(torch.load(tmp_path/'x.pt', weights_only=True))
    value = VALUES[name].item() if isinstance(VALUES[name], np.generic) else VALUES[name]
    assert type(again) is type(value) and str(again)==str(value) and differences([value], [again])==[]

@pytest.mark.parametrize('value', [object(), [1, [lambda: 0]], nn.Parameter(torch.ones(1)),
                                   [nn.Parameter(torch.ones(1))], {'a': print}, np.array(['a'])],
                         ids=['an object', 'a function in lists', 'a parameter', 'a list of one', 'in a dict', 'texts'])
def test_what_is_code_or_belongs_to_the_model_is_not_written(value):
    with pytest.raises(NotPlain): to_tagged(value)

def test_a_part_of_a_tensor_takes_only_its_own_space(tmp_path):
    torch.save(to_tagged(torch.zeros(1_000_000)[:10]), tmp_path/'x.pt')
    assert (tmp_path/'x.pt').stat().st_size<10_000

def test_a_tensor_of_fastai_is_one_of_torch():
    assert type(to_tagged(TensorBase([1., 2.]))) is torch.Tensor

@pytest.mark.parametrize('n,shape', [(1, None), (2, (2,)), (3, (3,))])
def test_losses_are_written_as_one_tensor(n, shape):
    "Thousands of single numbers would make a file slow to write"
    found = to_tagged([torch.tensor(float(i)) for i in range(n)])
    assert (isinstance(found, list) and shape is None) or found['items'].shape==shape

def draw(generator):
    if isinstance(generator, torch.Generator): return torch.rand(2, generator=generator).tolist()
    return [generator.random() for _ in range(2)]

GENERATORS = {'python': random.Random(3), 'torch': torch.Generator().manual_seed(3), 'numpy': np.random.default_rng(3)}
GENERATORS |= {kind.__name__: np.random.Generator(kind(3)) for kind in (
    np.random.PCG64DXSM, np.random.MT19937, np.random.Philox, np.random.SFC64)}

@pytest.mark.parametrize('name', GENERATORS)
def test_generators_go_on(tmp_path, name):
    generator = GENERATORS[name]
    draw(generator)
    torch.save(to_tagged([generator]), tmp_path/'x.pt')
    expected = draw(generator)
    again, = from_tagged(torch.load(tmp_path/'x.pt', weights_only=True))
    assert type(again) is type(generator) and draw(again)==expected

def test_a_generator_that_is_there_is_set_and_not_replaced():
    there,new = random.Random(1),random.Random(2)
    assert filled(there, new) is there and generator_state(there)[1].tolist()==generator_state(new)[1].tolist()

@pytest.mark.parametrize('there,new', [
    ([1], [2, 3]), ({1}, {2}), (deque([1], 3), deque([2])), (defaultdict(int, a=1), {"b": 2}),
    (Counter("a"), Counter("b"))],
    ids=str)
def test_a_container_that_is_there_is_filled(there, new):
    got = filled(there, new)
    assert got is there and list(got)==list(new)

def test_what_is_there_and_of_another_kind_is_replaced():
    new = [1]
    assert filled((1,), new) is new and filled(None, new) is new and filled(3, 4)==4

def test_named_tuples_are_not_written_as_others():
    with pytest.raises(NotPlain): to_tagged(namedtuple('Pair', 'a b')(1, 2))
