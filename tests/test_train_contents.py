import copy, pytest, torch
from fastai_clr_ext.all import *
from fastai_clr_ext.train.contents import read_checkpoint
from resume_helpers import make
from test_train_checkpoint import After, interrupt, stopped

@pytest.fixture(scope='module')
def contents(tmp_path_factory):
    path = tmp_path_factory.mktemp('contents')/'run.pt'
    stopped(path, 10)
    return read_checkpoint(path)

WRONG = {
    'no state': lambda c: c.pop('state'), 'no run': lambda c: c.pop('run'), 'more': lambda c: c.update(code='x'),
    'epoch of another kind': lambda c: c.update(epoch='a'), 'epoch behind the end': lambda c: c.update(epoch=99),
    'epoch below 0': lambda c: c.update(epoch=-1), 'batch below 1': lambda c: c.update(batch=0),
    'no places': lambda c: c.update(places=[]), 'another place': lambda c: c['places'][0].update(n_given=5),
    'no weights': lambda c: c['state']['model'].update(weights={}), 'plans': lambda c: c.update(plans=3),
    'another format': lambda c: c.update(format=99), 'no facts': lambda c: c['run'].update(facts={}),
    'history': lambda c: c.update(history=[1]), 'ended': lambda c: c.update(has_ended=1),
    'ranks': lambda c: c['run']['facts'].update(n_ranks=2), 'every': lambda c: c['run'].update(every=0)}

@pytest.mark.parametrize('what', WRONG)
def test_what_is_wrong_is_found_before_anything_changes(tmp_path, contents, what):
    wrong = copy.deepcopy(contents)
    WRONG[what](wrong)
    torch.save(wrong, tmp_path/'run.pt')
    learn = make()
    history = learn.recorder.history
    with pytest.raises(ValueError, match='be a file that FitCheckpoint wrote|have the format'):
        learn.resume_fit(tmp_path/'run.pt', After(0, interrupt))
    assert learn.opt is None and learn.recorder.history is history and not len(history)

def test_a_script_can_ask_whether_there_is_a_run_to_go_on_with(tmp_path):
    path = tmp_path/'run.pt'
    assert not can_resume(path)
    stopped(path, 10)
    assert can_resume(path) and can_resume(str(path))
    make().resume_fit(path, After(0, interrupt))
    assert not can_resume(path)
