"Comparisons on a cluster of processes: killed workers and clients, workers elsewhere; small cases of bench/scale.py"
import pytest
from bench import scale

N_RUNS = 40
n_seeds = N_RUNS//len(scale.POLICIES)

@pytest.fixture(scope='module')
def cluster(tmp_path_factory):
    "Its workers have started in another folder than the tests, and `out` is named from where the tests are"
    pytest.importorskip('distributed')
    with scale.Cluster(tmp_path_factory.mktemp('cluster')) as cluster: yield cluster

@pytest.fixture
def marks(tmp_path):
    "For the runs that begin"
    (tmp_path/'marks').mkdir()
    return tmp_path/'marks'

def test_a_killed_worker_costs_its_run(cluster, tmp_path, marks):
    found = scale.kill_worker(cluster, tmp_path/'out', marks, n_seeds)
    assert found['n_then']<N_RUNS==found['n_files']
    assert N_RUNS<=found['n_begun']<=N_RUNS+1

def test_a_killed_client_goes_on(cluster, tmp_path, marks):
    found = scale.kill_client(cluster, tmp_path/'out', marks, n_seeds)
    assert N_RUNS//3<=found['n_then']<=found['n_kept']<=found['n_then']+cluster.n_workers
    assert found['n_second']==N_RUNS-found['n_kept'] and found['n_files']==N_RUNS
    assert found['n_changed']==0, 'nothing that was done is done again'

def test_workers_may_have_a_disk_of_their_own(cluster, tmp_path, marks):
    found = scale.apart(cluster, tmp_path/'apart', marks, n_seeds=2)
    assert (found['n_files'], found['n_there'], found['n_second'], found['is_same'])==(4, 4, 0, True)
