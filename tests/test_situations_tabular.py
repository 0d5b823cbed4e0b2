"Tables as tensors"
import numpy as np, pytest, torch
from sklearn.datasets import load_diabetes
from sklearn.model_selection import train_test_split
from fastai_clr_ext.situations.loaders import items_dls
from fastai_clr_ext.situations.tabular import data_file, diamonds_table, table_items, tabular_net

def test_numbers_are_those_of_scikit_learn():
    df = load_diabetes(as_frame=True).frame
    train,valid = train_test_split(np.arange(len(df)), test_size=.2, random_state=3)
    items = table_items('diabetes', split_seed=3)
    for part,rows in ((items.train, train), (items.valid, valid)):
        _,conts,y = part.tensors
        x = df.drop(columns='target')
        want = (x.iloc[rows]-x.iloc[train].mean())/x.iloc[train].std(ddof=0)
        assert np.allclose(conts, want, atol=2e-3), 'scaled by the training rows'
        want = (df.target.iloc[rows]-df.target.iloc[train].mean())/df.target.iloc[train].std()
        assert np.allclose(y.flatten(), want, atol=1e-5)

def test_another_split_and_parts():
    a,b,c = table_items('breast-cancer'),table_items('breast-cancer', 1),table_items('breast-cancer', 42, 100, 50)
    assert not torch.equal(a.train.tensors[1], b.train.tensors[1]) and (len(c.train), len(c.valid))==(100, 50)
    share = [part.tensors[2].float().mean().item() for part in (a.train, a.valid)]
    assert share[0]==pytest.approx(share[1], abs=.01), 'equal shares of each class'

def test_diamonds():
    df = diamonds_table()
    assert len(df)==53_920 and np.exp(df.price).round().between(326, 18_823).all()
    items = table_items('diamonds-cut', 42, 1000, 500)
    cats,conts,_ = items.train.tensors
    assert cats.shape==(1000, 2) and conts.shape==(1000, 7)
    assert items.vocab==('Fair', 'Good', 'Ideal', 'Premium', 'Very Good')
    net = tabular_net(items_dls(items, 100)).eval()
    assert len(net.embeds)==2 and net(cats, conts).shape==(1000, 5)

def test_what_is_not_installed_is_named():
    with pytest.raises(ValueError, match='pip install no_such_package'): data_file('no_such_package', 'x')
