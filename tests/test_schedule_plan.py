"Plans: which phase each batch of each group is in, and how they are drawn"
import matplotlib.pyplot as plt, pytest, torch
from numpy.testing import assert_array_equal
from fastai.optimizer import Optimizer, SGD, sgd_step
from fastai_clr_ext.schedule import *
from fastai_clr_ext.schedule.plan import phase_table, plan_fits, plan_segments, settable_hypers

def test_phases_of_each_group():
    plan = Plan(ByGroup([one_cycle(), constant()]), (1., 1.), 1, 101)
    assert plan.summary().query('group==0').lr_end.tolist()==[1, .1, .001]
    assert (plan.df.query('group==0').phase.unique().tolist()==['warm-up', 'cool-down', 'annihilation']
            and plan.df.query('group==1').phase.unique().tolist()==['constant'])
    assert not plan.plot().texts, 'no shading that would be wrong for one of the groups'

@pytest.mark.parametrize('show_moms', [True, False])
def test_plot_contract(show_moms):
    ax = plt.subplots()[1]
    assert one_cycle().plot(51, [.1, 1.], show_moms=show_moms, ax=ax) is ax
    assert ax.get_xlabel()=='iteration (batch)' and ax.get_ylabel()=='learning rate' and ax.get_legend() is not None
    assert_array_equal(ax.lines[1].get_ydata(), one_cycle().table(51)['lr'])
    assert [t.get_text() for t in ax.texts]==['warm-up', 'cool-down', 'annihilation']
    assert len(ax.figure.axes)==1+show_moms

def test_plans_follow_each_other_on_the_axis():
    plans = [Plan(constant(.9), (1.,), 1, 4), Plan(constant(), (.5,), 2, 3), Plan(triangular(), (2.,), 1, 4)]
    where = [[0, 1, 2, 3], [4, 5, 6, 7, 8, 9], [10, 11, 12, 13]]
    assert [[x.tolist() for x,_ in segments] for segments in plan_segments(plans, 'lr')]==[where]
    assert [[x.tolist() for x,_ in segments] for segments in plan_segments(plans, 'mom')]==[where[:1]]
    spans = [('constant', 0, 4)], [('constant', 4, 10)], [('up 1', 10, 12), ('down 1', 12, 14)]
    assert [(fit.first, fit.stop, fit.phases, fit.stage) for fit in plan_fits(plans, ['a', 'b', 'c'])]==[
        (0, 4, spans[0], 'a'), (4, 10, spans[1], 'b'), (10, 14, spans[2], 'c')]
    assert [fit.stage for fit in plan_fits(plans)]==['']*3

@pytest.mark.parametrize('moms,opt_mom,expected', [
    (None, .9, ['lr']), (None, 0, ['lr']), ((.9, .8, .9), .9, ['lr', 'mom'])])
def test_what_an_optimizer_can_set(recwarn, moms, opt_mom, expected):
    opt = SGD([torch.nn.Parameter(torch.ones(1))], lr=.1, mom=opt_mom)
    assert settable_hypers(opt, one_cycle(moms=moms))==expected and not len(recwarn)

def test_momentum_of_0_is_not_cycled():
    opt = SGD([torch.nn.Parameter(torch.ones(1))], lr=.1, mom=0.)
    with pytest.warns(UserWarning, match='was built with momentum 0'): assert settable_hypers(opt, one_cycle())==['lr']
    without = Optimizer([torch.nn.Parameter(torch.ones(1))], [sgd_step], lr=.1)
    with pytest.warns(UserWarning, match='has no momentum'): assert settable_hypers(without, one_cycle())==['lr']
    with pytest.raises(ValueError, match='the hyper-parameters of the cycle must be among those'):
        settable_hypers(opt, Cycle([Phase('a', 1, lr=1, eps=1e-5)]))

BAD = {
    'cycle': (('one_cycle', (1.,), 1, 10), 'cycle must be a Cycle or ByGroup'),
    'no epoch': ((constant(), (1.,), 0, 10), 'n_epoch must be a whole number'),
    'too many epochs': ((constant(), (1.,), 20_000_001, 10), 'n_epoch must .* at most 20,000,000'),
    'no batch': ((constant(), (1.,), 1, 0), 'n_iter must be a whole number'),
    'too many batches': ((constant(), (1.,), 1, 20_000_001), 'n_iter must .* at most 20,000,000'),
    'no rate': ((constant(), (), 1, 10), 'lr_max must be a tuple with a rate for each'),
    'one number as rate': ((constant(), .1, 1, 10), 'lr_max must be a tuple with a rate for each'),
    'no range': ((constant(), (1.,), 1, 10, ()), 'trained_ranges must be None or name at least one'),
    'half a range': ((constant(), (1.,), 1, 10, ((0, 1),)), 'trained_ranges must be None or name at least one'),
    'a range in words': ((constant(), (1.,), 1, 10, (('a', 0, 1),)), 'trained_ranges must be None or name'),
    'not set': ((constant(), (1.,), 1, 10, None, ('lr', 'mom')), r"scheduled must be None or some of \['lr'\]"),
    'no name': ((constant(), (1.,), 1, 10, None, (1,)), r"scheduled must be None or some of \['lr'\]")}

@pytest.mark.parametrize('args,says', BAD.values(), ids=BAD.keys())
def test_bad_plans(args, says):
    with pytest.raises(ValueError, match=says): Plan(*args)

def test_a_summary_has_a_row_for_each_trained_phase():
    "Of the ten batches the first four are left out, and with them the first phase but for its peak"
    summary = Plan(triangular(), (2., 1.), 2, 5, ((0, 4, 10),)).summary()
    assert summary[['group', 'phase', 'first', 'last']].to_numpy().tolist()==[
        [0, 'up 1', 0, 0], [0, 'down 1', 1, 5], [1, 'up 1', 0, 0], [1, 'down 1', 1, 5]]
    assert summary.lr_start.tolist()==pytest.approx([1.64, 2, .82, 1])
    assert summary.lr_end.tolist()==pytest.approx([1.64, .56, .82, .28])

def test_what_was_changed_is_in_the_plan_of_what_was_trained():
    plan = Plan(constant(), (2., 1.), 1, 4)
    trained = plan.as_trained(((0, 0, 3),), {'lr': {1: [.5, .25]}})
    assert trained.table['lr'].tolist()==[[2, 1], [.5, .25], [2, 1], [2, 1]]
    assert trained.df.lr.tolist()==[2, 1, .5, .25, 2, 1] and len(plan.df)==8 and plan.table['lr'].min()==1
    again = Plan(constant(), (2., 1.), 1, 4, changed={'lr': {1: [.5, .25]}})
    assert_array_equal(again.table['lr'], trained.table['lr'])

def test_a_cycle_without_a_rate_is_drawn_by_what_it_sets():
    ax = Cycle([Phase('a', 1, wd=(.1, .2))]).plot(3)
    assert ax.get_ylabel()=='weight decay' and ax.lines[0].get_ydata()[-1]==.2

def test_phases_as_a_table():
    "Groups are numbered only where there are several"
    rows = phase_table(wsd(0, .25)).to_dict('records')
    assert rows==[dict(phase='stable', pct=.75, lr='1 to 1, lin'),
                  dict(phase='decay', pct=.25, lr='1 to 1e-05, poly 0.5')]
    assert phase_table(ByGroup([constant(), wsd(0, .25)])).group.tolist()==[0, 1, 1]
    assert 'group' not in phase_table(ByGroup([constant()]))
