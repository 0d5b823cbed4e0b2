"What a record must be"
import copy, json
import pytest
from compare_helpers import *
from fastai_clr_ext.compare import *

@pytest.mark.parametrize('record,says', [
    ([], 'JSON object of kind'), ({}, 'JSON object of kind'), (but('kind', value='report'), 'kind'),
    (but('version', value=3), 'newer fastai_clr_ext made it'), (but('version', value='1'), 'with a version'),
    (but('version', value=True), 'with a version'),
    (but('runs', value=KeyError), 'have runs'), (but('runs', value=[]), 'one for each policy and seed'),
    (but('runs', 0, 'seed', value=7), 'one for each policy and seed'),
    (but('runs', 0, 'seed', value=1), 'one for each policy and seed'),
    (but('runs', 0, 'scores', 'accuracy', value=1e300),
     r'^runs\.0\.scores\.accuracy of a record must be at most 1e\+15; got'),
    (but('runs', 0, 'scores', 'accuracy', value='high'), r'^runs\.0\.scores\.accuracy of a record must be a number'),
    (but('runs', 0, 'scores', 'accuracy', value=10**400), r'^runs\.0\.scores\.accuracy of a record must'),
    (but('runs', 0, 'n_steps', value=-1), r'^runs\.0\.n_steps of a record must be at least 0; got -1'),
    (but('runs', 0, 'seconds', value=float('inf')), r'^runs\.0\.seconds of a record must'),
    (but('runs', 0, 'lr_max', value={}), r'^runs\.0\.lr_max of a record must be a plain value'),
    (but('runs', 0, 'scores', value={'valid_loss': 1.}), 'be a score of every run'),
    (but('level', value=1), 'level of a record'), (but('level', value=.4), 'level of a record'),
    (but('runs', 0, 'end', value='lost'), r'^runs\.0\.end of a record must be .well., .failed. or .error.'),
    (but('fail_score', value='low'), 'fail_score of a record must be a number'),
    (but('looks', 'present', value=1), 'looks.present of a record must be the place of a look that was taken'),
    (but('looks', 'taken', value=[[3]]), r'looks\.taken\.0 of a record must be a number of seeds and whether'),
    (but('looks', 'taken', value=[[0, True]]), r'looks\.taken\.0 of a record must be a number of seeds and whether'),
    (but('looks', 'planned', value=[]), r'looks\.planned of a record must'),
    (but('varies', value={'weights': 'yes'}), r'varies\.weights of a record must be true or false'),
    (but('notes', value=['x'*20_001]), r'notes\.0 of a record must have at most 20000 characters'),
    (but('runs', 0, 'inputs', value=['x'*65]), r'runs\.0\.inputs\.0 of a record must have at most 64 characters'),
    (but('baseline', value='other'), 'baseline of a record must be one of'),
    (but('policies', 1, 'name', value='constant'), 'different names'),
    (but('policies', 1, 'name', value='a\nb'), r'policies\.1\.name of a record must be one line'),
    (but('policies', 1, 'name', value='x'*81), r'policies\.1\.name of a record must have at most 80 char'),
    (but('policies', value={}), 'policies of a record'),
    (but('situation', 'data', value={'deep': {'er': 1}}), r'situation\.data of a record'),
    (but('situation', 'data', value='x'*20_001), r'situation\.data of a record'),
    (but('seeds', value=[0]*2000), 'seeds of a record'), (but('budget', value={'n_epoch': -1}), r'budget\.n_epoch of'),
    (but('higher', value='yes'), 'higher of'), (but('margin', value=-1), 'margin of'),
    (but('runs', 0, 'curves', value={'accuracy': 'x'}), r'^runs\.0\.curves\.accuracy of a record must be a list')],
    ids=lambda o: '' if not isinstance(o, str) else o[:30])
def test_what_is_not_a_record(record, says, tmp_path):
    with pytest.raises(ValueError, match=says): check_record(record)
    for use in (lambda: report_html(Comparison(record)), lambda: merge_records([Comparison(record)])):
        with pytest.raises(ValueError, match=says): use()

def test_a_name_that_is_read_backwards_is_refused():
    with pytest.raises(ValueError, match='^(situation|versions)\\.….* of a record must be one line of printable'):
        check_record(poisoned('\u202egnp.exe'))

@pytest.mark.parametrize('path,value,says', [
    (('higher',), 1, 'higher of a record must be true or false; got 1'),
    (('level',), True, 'level of a record must be a number; got True'),
    (('level',), .49, 'level of a record must be at least 0.5'),
    (('level',), 1., 'level of a record must be below 1'),
    (('seeds',), [True, 1, 2], r'seeds\.0 of a record must be a whole number; got True'),
    (('seeds',), [0, 0, 1], 'seeds of a record must be different'),
    (('runs', 0, 'n_steps'), 2., r'runs\.0\.n_steps of a record must be a whole number; got 2\.0'),
    (('runs', 0, 'n_steps'), 10**12, r'runs\.0\.n_steps of a record must be below 1e\+12'),
    (('runs', 0, 'scores', 'accuracy'), float('nan'), r'runs\.0\.scores\.accuracy of a record must be a finite number'),
    (('runs', 0, 'scores', 'accuracy'), True, r'runs\.0\.scores\.accuracy of a record must be a number; got True'),
    (('runs', 0, 'scores', 'seed'), 1., r'runs\.0\.scores of a record must have no name in'),
    (('runs', 0, 'curves', 'accuracy'), [.1]*10_001,
     r'runs\.0\.curves\.accuracy of a record must have at most 10000 items'),
    (('runs', 0, 'why'), '\ud800', r'runs\.0\.why of a record must be text without half characters'),
    (('runs', 0, 'why'), 'x'*20_001, r'runs\.0\.why of a record must have at most 20000 characters'),
    (('runs', 0, 'seed'), KeyError, r'^runs\.0 of a record must have seed; got'),
    (('situation',), {str(i): i for i in range(101)}, 'situation of a record must have at most 100 items'),
    (('situation', 'two\nlines'), 1, r'situation\.….* of a record must be one line of printable characters'),
    (('situation', 'sizes'), [0]*1001, r'situation\.sizes of a record must be a plain value'),
    (('situation', 'flops'), 10**16, r'situation\.flops of a record must be a plain value'),
    (('tuning',), [dict(policy='a', seed=1, lr_max='high', scores={}, end='well', why=None)],
     r'tuning\.0\.lr_max of a record must be a number')],
    ids=lambda o: '.'.join(map(str, o)).replace('\n', ' ') if isinstance(o, tuple) else '')
def test_a_field_is_named_with_its_rule(path, value, says):
    with pytest.raises(ValueError, match=says): check_record(but(*path, value=value))

def test_what_is_allowed():
    "Unknown fields, null where something may be missing, the ends of every range"
    record = made(level=.5) | {'summary': 'trust me', 'deep': [[[1]]]}
    record['runs'][0] |= dict(lr_max='slice(1e-05, 0.5, None)', why='', more={})
    record['runs'][0]['scores']['accuracy'] = 1e15
    record['runs'][1]['scores']['accuracy'] = None
    record['situation'] |= dict(sizes=[1, 2.5, 'x', None, True], none=None, text='x'*20_000)
    before = copy.deepcopy(record)
    assert check_record(record) is record and record==before, 'nothing is changed'

def test_the_json_schema_has_the_limits():
    "Other programs can check records by it"
    schema = json.loads(json.dumps(Record.model_json_schema()))
    assert set(schema['required'])==set(made()) and schema['properties']['level']['exclusiveMaximum']==1
    run = schema['$defs']['RunRecord']
    assert run['properties']['scores']['additionalProperties']['anyOf'][0]['maximum']==1e15
    n_steps = run['properties']['n_steps']
    assert n_steps=={'exclusiveMaximum': 10**12, 'minimum': 0, 'title': 'N Steps', 'type': 'integer'}

def test_a_folder_has_a_version():
    plan = dict(n_epoch=1, policies={'a': 'x'}, lr_max={'a': None}, tune=None, grads=True, n_threads=1, weights='0',
                learner={}, batches=None, callbacks='1', loss='2', optimizer='3')
    assert FolderPlan(**plan, version=2).version==2
    for version in ({}, dict(version=1), dict(version=3)):
        with pytest.raises(ValueError, match='version'): FolderPlan(**plan, **version)

def test_a_record_of_version_1_is_read_anew():
    "Its runs that diverged or raised an error are what they would be today, and a note says what it does not know"
    old = made_v1()
    old['runs'][1] |= dict(diverged=True)
    old['runs'][4] |= dict(error='OSError: x')
    before = copy.deepcopy(old)
    new = check_record(old)
    assert old==before and new['version']==2 and 'method' not in new
    assert [(run['end'], run['why']) for run in new['runs']]==[
        ('well', None), ('failed', 'it diverged'), ('well', None), ('well', None), ('error', 'OSError: x'),
        ('well', None)]
    comparison = Comparison(new)
    assert comparison.summary().verdict['1cycle']=='no result' and comparison.level==.95
    page = report_html(Comparison(old))
    assert 'A record of version 1' in page and 'What changed with the seed is not known' in page
    assert check_record(new) is new, 'and it is a record of today'
    for bad,says in ((dict(runs={}), 'runs of a record must be a list'), (dict(runs=[3]), 'runs of a record must be a'),
                     (dict(tuning=None), 'tuning of a record must be a list')):
        with pytest.raises(ValueError, match=says): check_record(made_v1() | bad)
    bad = made_v1()
    bad['runs'][0]['diverged'] = 'no'
    with pytest.raises(ValueError, match='diverged of a run of version 1 must be true or false'): check_record(bad)
