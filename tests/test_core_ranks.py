import pytest, torch
from fastai_clr_ext.core.ranks import from_all, from_writer, is_distributed, is_writer, together

def test_a_single_process_decides_alone(mlp):
    learn = mlp()
    assert (is_writer(), is_distributed(learn), from_all(learn, 3), from_writer(learn, 'a'))==(True, False, [3], 'a')

def test_an_error_of_a_single_process_is_its_own(mlp):
    error = KeyError('missing')
    with pytest.raises(KeyError) as found, together(mlp()): raise error
    assert found.value is error

def test_ctrl_c_is_not_talked_about(mlp):
    with pytest.raises(KeyboardInterrupt), together(mlp()): raise KeyboardInterrupt

@pytest.mark.parametrize('rank,is_first', [(0, True), (1, False)])
def test_only_the_first_process_writes(monkeypatch, rank, is_first):
    "Before processes are connected too: `torchrun` says the rank in the environment"
    monkeypatch.setenv('RANK', str(rank))
    assert is_writer()==is_first and not torch.distributed.is_initialized()
