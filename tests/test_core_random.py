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

def test_generators_of_gpus_are_asked_once_torch_has_used_them(monkeypatch):
    "Before that, asking would start CUDA"
    put_back = []
    monkeypatch.setattr(torch.cuda, 'get_rng_state_all', lambda: ['of a GPU'])
    monkeypatch.setattr(torch.cuda, 'set_rng_state_all', put_back.append)
    for is_used,of_cuda in ((False, None), (True, ['of a GPU'])):
        monkeypatch.setattr(torch.cuda, 'is_initialized', lambda: is_used)
        states = random_states()
        assert states.of_cuda==of_cuda
        set_random_states(states_from_plain(states_to_plain(states)))
    assert put_back==[['of a GPU']]
