import pytest, torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor
from fastai_clr_ext.all import *
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

CALLBACKS = [GradRecorder, DivergenceGuard, lambda: FitCheckpoint('run.pt')]

@pytest.mark.parametrize('make_cb', CALLBACKS, ids=['GradRecorder', 'DivergenceGuard', 'FitCheckpoint'])
def test_parts_of_parameters_are_refused(mlp, tmp_path, monkeypatch, make_cb):
    "As FSDP makes them"
    monkeypatch.chdir(tmp_path)
    torch.distributed.init_process_group('gloo', init_method=f'file://{tmp_path/"store"}', rank=0, world_size=1)
    try:
        mesh,learn = init_device_mesh('cpu', (1,)),mlp()
        learn.model[0].weight = nn.Parameter(distribute_tensor(learn.model[0].weight.data, mesh, [Shard(0)]))
        with pytest.raises(ValueError, match="must have the whole parameters in every process.*'DTensor'"):
            learn.fit_one_cycle_ext(1, .05, cbs=make_cb())
        assert learn.opt is None
    finally: torch.distributed.destroy_process_group()

@pytest.mark.parametrize('make_cb', CALLBACKS, ids=['GradRecorder', 'DivergenceGuard', 'FitCheckpoint'])
def test_deepspeed_is_refused(mlp, tmp_path, monkeypatch, make_cb):
    monkeypatch.chdir(tmp_path)
    class DeepSpeedOptimizer: "Stands for DeepSpeed's"
    DeepSpeedOptimizer.__module__ = 'deepspeed.runtime.zero.stage_1_and_2'
    learn = mlp()
    learn.create_opt()
    learn.opt.opt = DeepSpeedOptimizer()
    with pytest.raises(ValueError, match='which FSDP and DeepSpeed spread over processes'):
        learn.fit_one_cycle_ext(1, .05, cbs=make_cb())
