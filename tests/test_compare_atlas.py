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

def test_each_row_says_the_verdict_first_and_where_it_is_from(tmp_path):
    a,b = made(),made()
    b['runs'][0]['seconds'] += 1 # somebody else, the same situation
    (tmp_path/'mine').mkdir()
    (tmp_path/'mine'/'record.json').write_text(json.dumps(a))
    (tmp_path/'yours.json').write_text(json.dumps(b))
    df = merge_records([tmp_path/'mine', str(tmp_path/'yours.json'), a, made(('constant', '1cycle', 'wsd'))])
    assert list(df)[:3]==['verdict', 'policy', 'source']
    assert df.source.tolist()==[str(tmp_path/'mine'/'record.json'), str(tmp_path/'yours.json'), 'record 4', 'record 4']
    assert df.verdict.tolist()==[c.summary().verdict[p] for c,p in zip(map(Comparison, [a, b]), ['1cycle']*2)] + [
        Comparison(made(('constant', '1cycle', 'wsd'))).summary().verdict[p] for p in ('1cycle', 'wsd')]
