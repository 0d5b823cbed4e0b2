"Looks: what each may spend, and that all of them together are not wrong more often than is said"
import json
import numpy as np, pytest
from scipy.stats import multivariate_normal, norm
from bench import verdict as bench
from fastai_clr_ext.compare import *

def looks(*taken, planned=(5, 10, 20, 30), present=-1):
    taken = [list(look) for look in taken]
    return dict(planned=list(planned), taken=taken, present=len(taken)+present)

def test_planned_looks_spend_the_square_of_the_share():
    "By hand: 25, 100, 400 and 900 of 900 parts of the error, each look what is new"
    for n,parts in ((5, 25), (10, 75), (20, 300), (30, 500)):
        assert 1-look_level(looks((n, True)), .95)==pytest.approx(.05*parts/900)
    assert look_level(looks((30, True), planned=[30]), .9)==pytest.approx(.9), 'one look has all of it'

@pytest.mark.parametrize('plan', [[5, 10, 20, 30], [2, 100], [10], list(range(2, 31))], ids=str)
def test_no_more_is_spent_than_there_is(plan):
    levels = [look_level(looks((n, True), planned=plan), .95) for n in plan]
    assert sum(1-level for level in levels)==pytest.approx(.05) and all(.95<=level<1 for level in levels)

def test_the_overall_error_of_planned_looks_is_below_what_is_said():
    "Exactly, for a known spread: the chance that no look tells, from the joint distribution of the means"
    plan = np.array([5, 10, 20, 30])
    z = [norm.isf((1-look_level(looks((n, True)), .95))/2) for n in plan]
    cov = np.sqrt(np.minimum.outer(plan, plan)/np.maximum.outer(plan, plan))
    joint = multivariate_normal(cov=cov, allow_singular=True)
    none_tells = joint.cdf(z, lower_limit=[-x for x in z])
    assert .035<1-none_tells<.05

def test_looks_that_were_not_planned_halve_what_they_may_spend():
    three = looks((5, True), (7, False), (9, False), planned=[5])
    assert look_level(three, .95)==1-.05/4 and overall_error(three, .95)==pytest.approx(.05*1.75)
    assert look_level(three | dict(present=1), .95)==.975, 'the second look again is what it was'
    assert look_level(three | dict(present=0), .95)==.95
    many = looks((5, True), *[(6+i, False) for i in range(50)], planned=[5])
    assert overall_error(many, .95)<=.1+1e-9

def test_the_ledger_keeps_the_first_plan(tmp_path):
    path = tmp_path/'looks.json'
    first = open_ledger(path, [0, 1, 2, 3], [2, 4])
    assert json.loads(path.read_text())['planned']==[2, 4], 'written before anything is trained'
    first.see([0, 1])
    again = open_ledger(path, [0, 1, 2, 3, 4, 5], [6])
    assert (again.seeds, again.planned, again.taken)==([0, 1, 2, 3], [2, 4], [[0, 1]])
    assert again.see([0, 1])==dict(planned=[2, 4], taken=[[2, True]], present=0), 'the same look'
    assert again.see([0, 1, 2, 3])['taken']==[[2, True], [4, True]]
    assert again.see([3, 2, 1, 0])['taken'][-1]==[4, True], 'the same seeds in another order'
    assert again.see([0, 1, 2])['taken'][-1]==[3, False] and again.see([4, 5])['taken'][-1]==[2, False]
    for bad in ([], {}, {'seeds': [], 'planned': []}, {'seeds': [0], 'planned': 3, 'taken': []},
                {'seeds': [0], 'planned': [1], 'taken': [3]}):
        path.write_text(json.dumps(bad))
        with pytest.raises(ValueError, match='looks.json must'):
            open_ledger(path, [0], [1])

@pytest.mark.parametrize('table,name', [(bench.null_table(bench.normal, 1), 'normal'),
                                        (bench.null_table(bench.failing(.3), 1), 'failing')])
def test_planned_looks_hold_their_error(table, name):
    plan = [5, 10, 20, 30]
    found,used = bench.looked_at(table, name, plan, [[n, True] for n in plan], 400)
    assert found<=.07 and used>28

def test_what_looks_save():
    plan = [5, 10, 20, 30]
    found,used = bench.looked_at(bench.shifted(bench.SD), 'one sd', plan, [[n, True] for n in plan], 200)
    assert found>.98 and used<20
