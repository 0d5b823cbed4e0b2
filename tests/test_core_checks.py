"Checks of arguments: what counts as a number, a count, a flag or a list, and how the error reads"
from decimal import Decimal
from fractions import Fraction
import numpy as np, pandas as pd, pytest, torch
from fastcore.foundation import L
from fastai_clr_ext.core.checks import MAX_COUNT, as_list, check, check_count, check_flag, is_count, is_number

# value; whether it is a number; whether it is a count of at least 1
KINDS = {
    'int': (3, True, True), '0': (0, True, False), 'below 0': (-2, True, False), 'float': (1.5, True, False),
    'whole float': (2., True, False), 'tiny': (5e-324, True, False), 'largest float': (1.7e308, True, False),
    'nan': (float('nan'), False, False), 'inf': (float('inf'), False, False), '-inf': (-float('inf'), False, False),
    'True': (True, False, False), 'False': (False, False, False), 'numpy True': (np.bool_(True), False, False),
    'numpy int': (np.int64(7), True, True), 'numpy uint8': (np.uint8(7), True, True),
    'numpy float': (np.float64(.5), True, False), 'numpy half': (np.float16(2), True, False),
    'numpy nan': (np.float32('nan'), False, False), 'numpy inf': (np.float16('inf'), False, False),
    '0-d array': (np.array(3), False, False), 'array': (np.array([3]), False, False),
    'tensor': (torch.tensor(3), False, False), 'pandas NA': (pd.NA, False, False),
    'huge': (10**400, False, False), 'huge below 0': (-10**400, False, False), 'large': (10**299, True, False),
    'fraction': (Fraction(1, 3), True, False), 'decimal': (Decimal('1.5'), False, False),
    'complex': (1+0j, False, False), 'text': ('3', False, False), 'None': (None, False, False),
    'list': ([3], False, False)}

@pytest.mark.parametrize('value,number,count', KINDS.values(), ids=KINDS.keys())
def test_numbers_and_counts(value, number, count):
    assert is_number(value)==number
    assert is_count(value)==count

@pytest.mark.parametrize('value,least,ok', [
    (0, 0, True), (-1, 0, False), (-3, -3, True), (-4, -3, False), (1, 2, False), (2, 2, True),
    (MAX_COUNT, 1, True), (MAX_COUNT+1, 1, False), (10**400, -10**500, False), (False, 0, False)])
def test_ends_of_counts(value, least, ok): assert is_count(value, least)==ok

def message(f, *args, **kwargs):
    with pytest.raises(ValueError) as e: f(*args, **kwargs) # noqa: PT011
    return str(e.value)

def test_messages():
    assert message(check, False, 'div', 'be above 1', 1)=='div must be above 1; got 1'
    assert message(check, 0, 'on', "be 'stop' or 'rewind'", 'halt')=="on must be 'stop' or 'rewind'; got 'halt'"
    assert (message(check_count, 'every', 0)
            =='every must be a whole number of at least 1 and at most 1,000,000,000,000; got 0')
    assert (message(check_count, 'every', True, what='batches', most=99)
            =='every must be a whole number of batches, at least 1 and at most 99; got True')
    assert (message(check_count, 'skip', 9, least=0, most=8)
            =='skip must be a whole number of at least 0 and at most 8; got 9')
    assert message(check_flag, 'adam', 1)=='adam must be True or False; got 1'
    for value in (None, 'yes', 0, np.bool_(True)): assert message(check_flag, 'adam', value)

def test_what_is_right_passes():
    for passed in (check(True, 'a', 'b', 1), check_count('n', 5), check_count('n', 0, least=0), check_flag('f', False)):
        assert passed is None

NESTED = [[[[[[['deep']]]]]]]

@pytest.mark.parametrize('value,shown', [
    (list(range(1000)), '[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, ...]'), (list(range(12)), str([*range(12)])),
    (NESTED, '[[[[...]]]]'), ({i: i for i in range(100)}, '11: 11, ...}'), (tuple(range(13)), '11, ...)'),
    ('x'*1000, 'xxx...xxx'), (np.arange(10**6), 'array([')],
    ids=['list', 'short', 'nested', 'dict', 'tuple', 'text', 'array'])
def test_long_values_are_shortened(value, shown):
    text = message(check, False, 'x', 'be short', value)
    assert shown in text and len(text)<150

def test_a_value_that_cannot_be_shown_still_gives_the_error():
    class Broken:
        def __repr__(self): raise RuntimeError('no')
    assert message(check, False, 'x', 'be shown', Broken()).startswith('x must be shown; got <Broken instance')

def test_sequences():
    for x in ([1, 2], (1, 2), L(1, 2), np.array([1, 2])): assert as_list(x)==[1, 2]
    assert as_list([])==as_list(())==as_list(np.zeros(0))==[]
    for x in ('ab', {1: 2}, {1, 2}, range(2), None, 3, np.array(3), np.zeros((2, 2)), torch.zeros(2), iter([1])):
        assert as_list(x) is None
    given = [1, 2]
    assert as_list(given) is not given, 'a copy, which may be changed'
