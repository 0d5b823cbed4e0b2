"Records of many situations in one table"
import json
import pytest
from compare_helpers import *
from fastai_clr_ext.compare import *

def test_merge_is_one_row_a_situation_and_policy(tmp_path):
    a,b = made(),made(('constant', '1cycle', 'wsd'))
    b['situation']['data'] = 'fashion-mnist'
    (tmp_path/'record.json').write_text(json.dumps(a))
    df = merge_records([tmp_path, a, Comparison(b)])
    assert list(zip(df.data, df.policy))==[('digits', '1cycle'), ('fashion-mnist', '1cycle'),
                                           ('fashion-mnist', 'wsd')], 'the same record counts once'

@pytest.mark.parametrize('records,says', [
    ([], 'records must be a list'), (made(), 'records must be a list'),
    ([1], 'a record must be a JSON object'), ([None], 'a record must be a JSON object')], ids=str)
def test_what_cannot_be_merged(records, says):
    with pytest.raises(ValueError, match=says): merge_records(records)
