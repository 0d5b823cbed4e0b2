"`compare` as a whole: its arguments, its folder, its tuning, its record"
import json
from functools import partial
from pathlib import Path
import pandas as pd, pytest, torch
from fastai.learner import Learner
from fastai.losses import MSELossFlat
from fastai.metrics import AvgMetric
from compare_helpers import *
from fastai_clr_ext.compare import *
from fastai_clr_ext.record import RunHistory
from fastai_clr_ext.schedule import constant, one_cycle
from fastai_clr_ext.train import stages_long

def test_the_learners_rate_is_said():
    policies = POLICIES | {'mine': lambda learn: learn.fit(2)}
    c = compare(make_line, policies, seeds=1, n_epoch=2, with_bar=False)
    same(c, compare(make_line, policies, seeds=1, n_epoch=2, lr_max=dict.fromkeys(POLICIES, .01), with_bar=False))
    assert [p['lr_max'] for p in c.record['policies']]==[.01, .01, None]

def test_nothing_is_trained_twice(tmp_path):
    log = tmp_path/'log'
    def counted(learn):
        with log.open('a') as f: f.write('x')
        learn.fit(2, .05)
    policies = {'constant': constant(), 'mine': counted}
    args = quick | dict(lr_max={'constant': .05}, out=tmp_path/'out')
    a = compare(make_line, policies, seeds=2, **args)
    b = compare(make_line, policies, seeds=2, **args)
    assert log.read_text()=='xx' and a.record==b.record
    c = compare(make_line, policies, seeds=4, **args)
    assert log.read_text()=='xxxx' and numbers(c)[:4].equals(numbers(a))
    fewer = compare(make_line, policies, seeds=[1], **args)
    assert log.read_text()=='xxxx' and len(fewer.df)==2

def test_texts_that_no_file_can_hold_are_reported(tmp_path):
    def fails(learn): raise OSError('no file \udce4')
    c = compare(make_line, {'constant': constant(), 'fails': fails}, seeds=1, n_epoch=2, lr_max={'constant': .05},
                situation=dict(about='x'*20_000, sizes=[1, 1e15]), out=tmp_path, with_bar=False)
    assert c.df.why[1]=='OSError: no file ?' and report_html(read_record(tmp_path))

def test_rates_are_not_tuned_on_what_is_reported():
    "A validation set that changes with the seed has been seen by the trials of other seeds"
    with pytest.raises(ValueError, match='tune must be None where the training set changes with the seed'):
        compare(make_line, POLICIES, n_epoch=1, seeds=2, tune=[.01, .05], with_bar=False)
    held = lambda seed: hold_out(make_fixed(seed), .2, seed)
    with pytest.raises(ValueError, match='tune must be None where the .* set changes with the seed, because'):
        compare(held, POLICIES, n_epoch=1, seeds=2, tune=[.01, .05], with_bar=False)

def test_what_changes_with_the_seed_is_found_out():
    "Weights and order always here; the data if the learner makes them from the seed"
    varies = lambda make: compare(make, POLICIES, seeds=1, **quick).record['varies']
    assert varies(make_fixed)=={'initial weights': True, 'order of the data': True, 'training set': False,
                                'validation set': False}
    assert varies(make_line)['training set'] is True and varies(make_line)['validation set'] is True
    assert varies(lambda seed: hold_out(make_fixed(seed), .2, seed))['validation set'] is True
    c = compare(lambda seed: (torch.manual_seed(0), make_fixed(0))[1], POLICIES, seeds=1, same_start=True, **quick)
    assert c.record['varies']['initial weights'] is False and c.record['varies']['validation set'] is False
    assert 'The same for all seeds: initial weights' in report_markdown(c)

# looks

def test_training_stops_at_the_first_look_that_tells(tmp_path):
    "And a difference that is not there is looked for to the end"
    policies = {'slow': constant(moms=0.), 'fast': constant(moms=0.)}
    args = dict(policies=policies, n_epoch=1, seeds=8, looks=[3, 5], fail_if=lambda scores: False, with_bar=False)
    c = compare(make_line, lr_max={'slow': 1e-5, 'fast': .1}, out=tmp_path, **args)
    assert len(c.record['seeds'])<8 and c.summary().verdict['fast']=='worked'
    n = len(c.record['seeds'])
    planned = [3, 5, 8]
    taken = [[k, True] for k in planned if k<=n]
    assert c.record['looks']==dict(planned=planned, taken=taken, present=planned.index(n))
    assert len(list((tmp_path/'runs').glob('*.json')))==2*n
    again = compare(make_line, lr_max={'slow': 1e-5, 'fast': .1}, out=tmp_path, **args)
    assert again.record['looks']==c.record['looks'] and again.df.seconds.tolist()==c.df.seconds.tolist()
    same_twice = compare(make_line, lr_max=.1, **args)
    assert len(same_twice.record['seeds'])==8 and same_twice.summary().verdict['fast']=='cannot tell'

def test_looks_that_were_not_planned_are_written_down(tmp_path):
    "The first call makes the plan; its seeds again are the same look"
    go = lambda seeds, **more: compare(make_line, POLICIES, seeds=seeds, out=tmp_path, **quick | more)
    assert go(2).record['looks']==dict(planned=[2], taken=[[2, True]], present=0)
    go(2)
    three = go(3)
    assert three.record['looks']==dict(planned=[2], taken=[[2, True], [3, False]], present=1) and three.level==.975
    four = go(4, looks=[2])
    assert four.record['looks']['taken']==[[2, True], [3, False], [4, False]], 'the look at 2 seeds is the first one'
    other = go([7, 8])
    assert other.record['looks']['taken'][-1]==[2, False], 'other seeds are another look'
    assert read_record(tmp_path).level==other.level==1-.05/8
    assert 'Not planned: after' in report_markdown(other)
    first = go(2)
    assert first.level==.95 and first.record['looks']['present']==0

@pytest.mark.parametrize('looks', [[5, 2], [2, 2], [1], [9], [], [2.5], ['2'], 3, [True], [0, 2]], ids=str)
def test_looks_that_make_no_plan(looks, tmp_path):
    with pytest.raises(ValueError, match='looks must'):
        compare(make_line, POLICIES, seeds=6, looks=looks, out=tmp_path/'out', **quick)
    assert not (tmp_path/'out').exists()

def test_a_ledger_that_is_none(tmp_path):
    compare(make_line, POLICIES, seeds=1, out=tmp_path, **quick)
    (tmp_path/'looks.json').write_text('{"seeds": 3}')
    with pytest.raises(ValueError, match='seeds of .*looks.json must be a list'):
        compare(make_line, POLICIES, seeds=1, out=tmp_path, **quick)

def test_half_written_files_are_removed(tmp_path):
    (tmp_path/'.comparison.json.0c25b700').write_text('{')
    compare(make_line, POLICIES, seeds=1, out=tmp_path, **quick)
    (tmp_path/'runs'/'.00-0.npz.0a76ccd2').touch()
    compare(make_line, POLICIES, seeds=1, out=tmp_path, **quick)
    assert not list(tmp_path.rglob('.*'))

@pytest.mark.parametrize('name', ['.mine.json.deadbeef', 'notes/.mine.json.deadbeef', 'note.txt'])
def test_files_of_a_folder_that_is_refused_stay(name, tmp_path):
    (tmp_path/name).parent.mkdir(exist_ok=True)
    (tmp_path/name).touch()
    with pytest.raises(ValueError, match='out must be a new or empty folder'):
        compare(make_line, POLICIES, seeds=1, out=tmp_path, **quick)
    assert (tmp_path/name).exists()

def test_stages_of_another_budget(tmp_path):
    policies = {'one': one_cycle(), 'B': stages_long(budget=3, base_lr=.05, head_epochs=.5)}
    with pytest.raises(ValueError, match=r"policies\['B'\]: stages must have 2 epochs in all, as n_epoch says; got 3"):
        compare(make_two, policies, seeds=1, n_epoch=2, out=tmp_path/'out', with_bar=False)
    assert not (tmp_path/'out').exists()

def test_too_many_seeds():
    with pytest.raises(ValueError, match='seeds must be a number of at least 1 and at most 1000.*got 99999999999'):
        compare(make_line, POLICIES, seeds=99999999999, **quick)

def test_ctrl_c_keeps_what_is_done(tmp_path):
    log,out = tmp_path/'log',tmp_path/'out'
    def interrupted(learn):
        with log.open('a') as f: f.write('x')
        if log.read_text()=='xx': raise KeyboardInterrupt
        learn.fit(2, .05)
    policies = {'constant': constant(), 'mine': interrupted}
    args = quick | dict(lr_max={'constant': .05}, out=out)
    with pytest.raises(KeyboardInterrupt): compare(make_line, policies, seeds=3, **args)
    assert len(list((out/'runs').glob('*.json')))==3 and not list((out/'runs').glob('*.part'))
    assert len(compare(make_line, policies, seeds=3, **args).df)==6 and log.read_text()=='xxxx'

kept = make_line(0)

@pytest.mark.parametrize('change,says', [
    (dict(policies={'a': constant()}), 'policies must be a dict of two or more'),
    (dict(policies=[constant()]*2), 'policies must be a dict'),
    (dict(policies={'a': constant(), 'A': constant()}), 'differ in more than capitals'),
    (dict(policies={'a': constant(), 'b ': constant()}), 'one line of 1 to 80'),
    (dict(policies={'a': constant(), 'b': 3}), r"policies\['b'\] must be a cycle"),
    (dict(lr_max=1e10), r"policies\['constant'\]: lr_max must be"),
    (dict(seeds=0), 'seeds must'), (dict(seeds=[]), 'seeds must'), (dict(seeds=[1, 1]), 'different whole numbers'),
    (dict(seeds=-1), 'seeds must'), (dict(seeds=[2**31-1]), 'seeds must'), (dict(seeds='5'), 'seeds must'),
    (dict(n_epoch=0), 'n_epoch must'), (dict(n_threads=0), 'n_threads must'),
    (dict(lr_max={'constant': .1}), 'lr_max must have a rate for each policy'), (dict(lr_max=-1), 'lr_max must'),
    (dict(tune=[.1, .2]), 'tune must be given without lr_max'),
    (dict(tune=[.1, .2], lr_max=[.1]), 'tune must be given without lr_max'),
    (dict(tune=[.1, .2], lr_max=slice(.1)), 'tune must be given without lr_max'),
    (dict(lr_max=None, tune=[.1, .1]), 'tune must be a list of different rates'),
    (dict(lr_max=None, tune=[0]), 'tune must be a list'), (dict(baseline='z'), 'baseline must'),
    (dict(metric='accuracy'), "metric must be one of"), (dict(level=95), 'level must'),
    (dict(margin=-1), 'margin must'), (dict(fail_score='z'), 'fail_score must'), (dict(higher=1), 'higher must'),
    (dict(make_learner=lambda seed: kept), 'the same object twice'),
    (dict(make_learner=lambda seed: Learner(kept.dls, kept.model, loss_func=MSELossFlat())), 'the same object twice'),
    (dict(make_learner=lambda seed: (torch.manual_seed(0), make_line(0))[1]), 'use its seed.*RandomSplitter'),
    (dict(make_learner=lambda seed: (torch.seed(), make_line(0))[1]), 'the same initial weights for the same seed'),
    (dict(make_learner=lambda seed: 3), 'return a Learner'), (dict(make_learner=3), 'be a function')],
    ids=lambda o: '' if isinstance(o, str) else ','.join(o))
def test_bad_input(change, says, tmp_path):
    args = dict(make_learner=make_line, policies=POLICIES, seeds=2, out=tmp_path/'out') | quick | change
    with pytest.raises(ValueError, match=says): compare(**args)
    assert not (tmp_path/'out').exists(), 'refused before anything was written'

def test_a_folder_of_something_else(tmp_path):
    compare(make_line, POLICIES, seeds=1, out=tmp_path/'a', **quick)
    for change,name in [
            (dict(n_epoch=3), 'n_epoch'), (dict(lr_max=.1), 'lr_max'), (dict(n_threads=2), 'n_threads'),
            (dict(policies={'constant': constant(), '1cycle': one_cycle(div=5)}), 'policies'),
            (dict(make_learner=partial(make_line, wd=.1)), 'learner'),
            (dict(make_learner=lambda seed: (torch.manual_seed(seed+1), make_line(seed))[1]), 'weights')]:
        with pytest.raises(ValueError, match=f'that one differs in .*{name}'):
            compare(**dict(make_learner=make_line, policies=POLICIES, seeds=1, out=tmp_path/'a') | quick | change)
    (tmp_path/'b').mkdir(); (tmp_path/'b'/'thesis.txt').write_text('mine')
    with pytest.raises(ValueError, match='out must be a new or empty folder'):
        compare(make_line, POLICIES, seeds=1, out=tmp_path/'b', **quick)
    with pytest.raises(ValueError, match='out must be a folder'):
        compare(make_line, POLICIES, seeds=1, out=tmp_path/'b'/'thesis.txt', **quick)

def test_policies_in_another_order_are_the_same_comparison(tmp_path):
    whole = compare(make_line, POLICIES, seeds=2, **quick)
    compare(make_line, POLICIES, seeds=2, out=tmp_path, **quick)
    for f in list((tmp_path/'runs').glob('1cycle-*')): f.unlink() # as if it was stopped
    turned = compare(make_line, dict(reversed(POLICIES.items())), seeds=2, out=tmp_path, **quick)
    by_run = lambda c: numbers(c).sort_values(['policy', 'seed'], ignore_index=True)
    pd.testing.assert_frame_equal(by_run(turned), by_run(whole))
    assert turned.record['baseline']=='1cycle', 'the first of this call'

@pytest.mark.parametrize('again', [dict(metric='train_loss'), dict(higher=True)], ids=str)
def test_rates_in_a_record_are_those_that_were_trained(again, tmp_path):
    "Also if another reading chooses other rates in the folder of a comparison that was tuned"
    tuned = dict(n_epoch=2, seeds=2, tune=[1e-4, .003, .05], out=tmp_path, with_bar=False)
    first = compare(make_fixed, POLICIES, **tuned)
    c = compare(make_fixed, POLICIES, **tuned | again)
    said = {p['name']: p['lr_max'] for p in c.record['policies']}
    for r in c.record['runs']:
        stem = f'{r["policy"]}-{r["seed"]}-*.npz'
        peaks = [RunHistory.load(p).steps.lr_0.max() for p in (tmp_path/'runs').glob(stem)]
        assert r['lr_max']==said[r['policy']] and any(p==pytest.approx(r['lr_max']) for p in peaks)
    same(compare(make_fixed, POLICIES, n_epoch=2, seeds=2, lr_max=said, with_bar=False), c)
    same(compare(make_fixed, POLICIES, **tuned), first)

def test_keywords_that_nobody_takes():
    with pytest.raises(TypeError, match="compare.*foo"): compare(make_line, POLICIES, foo=1, **quick)

def test_when_every_run_fails_that_is_the_result(tmp_path):
    c = compare(make_line, {'a': fails, 'b': fails}, n_epoch=1, seeds=2, with_bar=False)
    assert (c.df.why.tolist()==['OSError: disk full']*4 and c.outcomes.isna().all(axis=None)
            and 'b: no result, because an exception ended 2 runs of b and 2 runs of a.' in repr(c))
    assert c.to_html(tmp_path/'x.html') and c.to_markdown(tmp_path/'x.md')

@pytest.mark.parametrize('name', ['end', 'why', 'seconds', 'seed', 'time', 'valid_loss', 'a\nb', 'x'*100])
def test_names_that_no_metric_may_have(name):
    with pytest.raises(ValueError, match='the metrics of the learner must have names of one line'):
        compare(lambda seed: make_line(seed, metrics=AvgMetric(named(name))), POLICIES, seeds=1, **quick)

def test_another_rate_of_the_learner_is_another_comparison(tmp_path):
    go = lambda lr: compare(lambda seed: make_line(seed, lr=lr), POLICIES, n_epoch=1, seeds=1, out=tmp_path/'c',
                            with_bar=False)
    go(.01)
    with pytest.raises(ValueError, match='differs in learner'): go(.02)

@pytest.mark.parametrize('change,says', [
    *[(dict(situation=s), 'situation must be a dict') for s in (
        {'p': Path('x')}, {'flops': 3e18}, {'flops': 10**18}, {'t': 'x'*20_001}, {'half': '\ud800'}, {'n': [0]*1001},
        {str(i): i for i in range(51)}, {'nan': float('nan')}, {1: 2}, [])],
    (dict(n_workers=0), 'n_workers must be a whole number of processes, at least 1'),
    (dict(seeds=0), r'seeds must be .*; got 0'),
    (dict(policies={'a': fails, 'b': fails}, lr_max=3.), 'lr_max must be None where no policy is a cycle')])
def test_more_bad_input(change, says):
    args = dict(policies=POLICIES, seeds=1) | quick | change
    with pytest.raises(ValueError, match=says): compare(make_line, **args)

@pytest.mark.parametrize('recorder', [dict(train_metrics=True), dict(valid_metrics=False)], ids=str)
def test_a_recorder_of_other_metrics(recorder):
    def make(seed):
        learn = make_line(seed)
        vars(learn.recorder).update(recorder)
        return learn
    with pytest.raises(ValueError, match='the recorder of the learner must have train_metrics=False and valid_metrics'):
        compare(make, POLICIES, seeds=1, **quick)

def test_a_folder_of_another_version_is_refused(tmp_path):
    compare(make_line, POLICIES, seeds=1, out=tmp_path, **quick)
    path = tmp_path/'comparison.json'
    plan = json.loads(path.read_text())
    for version,says in ((1, 'at least 2; got 1'), (3, 'at most 2; got 3')):
        path.write_text(json.dumps(plan | dict(version=version)))
        with pytest.raises(ValueError, match=f'^version of .*comparison.json must be {says}'):
            compare(make_line, POLICIES, seeds=1, out=tmp_path, **quick)
    path.write_text(json.dumps(plan | dict(n_epoch='two')))
    with pytest.raises(ValueError, match='^n_epoch of .*comparison.json must be a whole number'):
        compare(make_line, POLICIES, seeds=1, out=tmp_path, **quick)

def test_without_out_a_named_folder_is_made_and_printed(tmp_path, monkeypatch, capsys):
    "It is there after the result is gone, a second call makes another one, and what is printed goes on in it"
    monkeypatch.chdir(tmp_path)
    for _ in range(3): compare(make_line, POLICIES, seeds=1, **quick)
    said = capsys.readouterr().out.splitlines()
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names==[names[0], f'{names[0]}-2', f'{names[0]}-3'] and names[0].startswith('comparison-')
    assert said==[f'compare writes its runs to {tmp_path/name}; out={name!r} goes on there' for name in names]
    for name in names: assert len(read_record(name).df)==2==len(list((tmp_path/name/'runs').glob('*.json')))
    before = read_record(names[1]).df.seconds.tolist()
    again = compare(make_line, POLICIES, seeds=2, out=names[1], **quick)
    assert again.df.seconds.tolist()[:2]==before and not capsys.readouterr().out and again.path==Path(names[1])

def test_a_mistake_leaves_no_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match='lr_max must'):
        compare(make_line, POLICIES, seeds=1, **quick | dict(lr_max={'1cycle': 1.}))
    assert not list(tmp_path.iterdir()) and not capsys.readouterr().out

def typo(learn): learn.fit_one_cyle(1)

def test_a_mistake_in_a_policy_is_said():
    says = "An exception ended 2 runs of 'mine', which has no result. The first: AttributeError"
    with pytest.warns(UserWarning, match=says):
        compare(make_line, {'constant': constant(), 'mine': typo}, seeds=2, **quick | dict(lr_max={'constant': .05}))

def test_a_cycle_whose_brackets_were_forgotten():
    with pytest.raises(ValueError, match=r"policies\['a'\] must be a cycle: call the function that makes it"):
        compare(make_line, {'a': one_cycle, 'b': constant()}, seeds=1, **quick)
