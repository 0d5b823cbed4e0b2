import random, numpy as np, pytest, torch
from fastai_clr_ext.core.random import random_states, set_random_states, states_from_plain, states_to_plain

def draws(): return random.gauss(0, 1), np.random.randn(), torch.randn(3).tolist()

@pytest.mark.parametrize('odd', [False, True], ids=['even', 'half a pair of normal numbers is kept'])
def test_states_come_back_from_a_file(tmp_path, odd):
    "Python and numpy keep the second of two normal numbers: it belongs to the state"
    if odd: draws()
    states = random_states()
    expected = [draws() for _ in range(3)]
    torch.save(states_to_plain(states), tmp_path/'x.pt')
    draws()
    set_random_states(states_from_plain(torch.load(tmp_path/'x.pt', weights_only=True)))
    assert [draws() for _ in range(3)]==expected

def test_states_are_copies():
    states = random_states()
    first = draws()
    set_random_states(states)
    assert draws()==first and draws()!=first
