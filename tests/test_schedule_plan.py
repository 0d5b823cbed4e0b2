"Plans: which phase each batch of each group is in, and how they are drawn"
import matplotlib.pyplot as plt, pytest
from numpy.testing import assert_array_equal
from fastai_clr_ext.schedule import *

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
