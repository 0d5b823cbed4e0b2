import os, subprocess, sys
from pathlib import Path
import numpy as np, torch
from numpy.testing import assert_array_equal
from fastai_clr_ext.schedule import one_cycle

def test_two_processes_share_the_batches_and_one_cycle(tmp_path):
    "Each of two processes sees 4 of 8 batches an epoch: the cycle spans these, and both record the averaged gradient"
    here = Path(__file__).parent
    r = subprocess.run([sys.executable, '-W', 'ignore', '-m', 'torch.distributed.run', '--nproc_per_node', '2', '--master_port', '29531', str(here/'distributed_fit.py'), str(tmp_path)],
                       capture_output=True, text=True, cwd=here, env=os.environ | {'ACCELERATE_USE_CPU': 'true', 'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(here.parent)})
    assert r.returncode==0, r.stderr[-3000:]
    a,b = [torch.load(tmp_path/f'{i}.pt', weights_only=False) for i in (0, 1)]
    assert_array_equal(np.array(a['lr'])[:,0], one_cycle().table(8, .1)['lr'])
    assert a==b and a['plan']==((0, 0, 8),) and len(a['grads']['step'])==16
