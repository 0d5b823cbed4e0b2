"""What a comparison of many runs costs on a cluster, and what it survives: `python -m bench.scale [PART…] [--runs N]`

A cluster of Dask on this machine, no network: a scheduler, two workers and the client that calls `compare`, each in a
process of its own. The runs are short (20 batches of a small network), so that what is around them is seen. Parts:
cost (time and memory beside the training, also without a cluster), worker (one is killed in the middle), client (it is
killed in the middle and started again), apart (workers have a disk of
their own). Workers always start in another folder than the client.
All parts take about ten minutes on two cores with 1,000 runs; the faults are tried with a tenth of them."""
import argparse, json, os, signal, subprocess, sys, tempfile, threading, time, warnings
from contextlib import ExitStack, contextmanager
from pathlib import Path

warnings.simplefilter('ignore')
import joblib
from torch import nn
from fastai.learner import Learner
from bench.common import regression_learner
from fastai_clr_ext.compare import compare
from fastai_clr_ext.schedule import constant, one_cycle

ROOT = Path(__file__).parents[1]
POLICIES = {'constant': constant(moms=.9), '1cycle': one_cycle()}
WAIT_SECONDS = 60 # For anything that takes a second or two
COST_SECONDS = 3_600 # For all runs

# ---- short runs

def short_learner(seed)->Learner:
    "Ten batches of 64 for a network of two layers"
    return regression_learner(seed, 10, 8, nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 1)), .05)

class Counted:
    "Makes short learners, and leaves a file in a folder for each, whose name has the process and the seed"
    def __init__(self, folder): self.folder = Path(folder)
    def __call__(self, seed):
        (self.folder/f'{os.getpid()}-{seed}-{time.time_ns()}').touch()
        return short_learner(seed)

def n_begun(folder, *clients)->int:
    "How many runs began, the learners aside that clients make to check their arguments"
    pids = [int(path.name.partition('-')[0]) for path in Path(folder).iterdir()]
    return sum(pid not in clients for pid in pids)

def n_on_disk(out)->int: return len(list(Path(out).glob('runs/*.json')))

def run_files(out)->dict:
    "The content of each result, by its name"
    return {path.name: path.read_bytes() for path in Path(out).glob('runs/*.json')}

# ---- processes

class Process:
    "A Python process that is ended when the context is left, with all that it started"
    def __init__(self, *args, cwd=None, log=None):
        env = os.environ | {'OMP_NUM_THREADS': '1', 'PYTHONWARNINGS': 'ignore',
                            'PYTHONPATH': os.pathsep.join([str(ROOT), os.environ.get('PYTHONPATH', '')])}
        self.log = tempfile.TemporaryFile('w+')
        self.popen = subprocess.Popen([sys.executable, *map(str, args)], cwd=cwd, env=env, stdout=subprocess.PIPE,
                                      stderr=self.log, text=True, start_new_session=True)
        self.pid = self.popen.pid

    def result(self, timeout=2*WAIT_SECONDS):
        "What it printed last, as JSON; an error with its last words if it failed"
        out,_ = self.popen.communicate(timeout=timeout)
        self.log.seek(0)
        if self.popen.returncode: raise RuntimeError(self.log.read()[-3000:])
        return json.loads(out.splitlines()[-1])

    def kill(self):
        self.popen.kill()
        self.popen.wait()

    def __enter__(self): return self
    def __exit__(self, *_):
        try: os.killpg(self.pid, signal.SIGTERM) # the whole session, a nanny's worker too
        except ProcessLookupError: return
        try: self.popen.wait(20)
        except subprocess.TimeoutExpired: os.killpg(self.pid, signal.SIGKILL)
        self.popen.wait()
        self.popen.stdout.close()
        self.log.close()

def wait_until(is_done, what):
    until = time.monotonic()+WAIT_SECONDS
    while not is_done():
        if time.monotonic()>until: raise TimeoutError(what)
        time.sleep(.02)

#: What makes workers write results into their own folder if that of the client is named `apart`, as if they were
#: on another machine
ELSEWHERE = """
from dataclasses import replace
from functools import partial
from pathlib import Path
from fastai_clr_ext.compare import runs
def train_there(train, make_learner, run, **how):
    if run.folder.parent.name=='apart': run = replace(run, folder=Path('apart', 'runs').absolute())
    return train(make_learner, run, **how)
if not isinstance(runs.train_run, partial): runs.train_run = partial(train_there, runs.train_run)
"""

class Cluster:
    "A scheduler of Dask, and two workers in a folder of their own, which a nanny starts again when they die"
    n_workers = 2
    def __init__(self, folder): self.folder = Path(folder)

    def __enter__(self):
        from distributed import Client
        self.file,self.there = self.folder/'scheduler.json',self.folder/'there'
        self.there.mkdir()
        common = '--scheduler-file', self.file, '--no-dashboard', '--host', '127.0.0.1'
        with ExitStack() as stack:
            self.scheduler = stack.enter_context(Process('-m', 'distributed.cli.dask_scheduler', *common, '--port', 0))
            for _ in range(self.n_workers):
                stack.enter_context(Process('-m', 'distributed.cli.dask_worker', *common, '--nthreads', 1, '--preload',
                                            ELSEWHERE, '--local-directory', self.there, cwd=self.there))
            wait_until(self.file.exists, 'no scheduler')
            self.client = stack.enter_context(Client(scheduler_file=self.file, set_as_default=False))
            self.client.wait_for_workers(self.n_workers, timeout=WAIT_SECONDS)
            self.stack = stack.pop_all()
        return self

    def __exit__(self, *args): return self.stack.__exit__(*args)

    def workers(self)->list:
        "The processes that train, not their nannies"
        return list(self.client.run(os.getpid).values())

    def compare(self, out, marks, n_seeds)->dict:
        "Compare from this process; the folder is named from where it is, which isn't where the workers are"
        with joblib.parallel_config('dask', client=self.client):
            return timed_comparison(os.path.relpath(out), marks, n_seeds)

    def start(self, out, marks, n_seeds)->Process:
        "Start a client of its own that compares"
        return Process('-m', 'bench.scale', 'compare', self.file, os.path.relpath(out), marks, n_seeds)

class Memory:
    "Resident memory of processes in MB, looked at 10 times a second: at first, at most, at last"
    def __init__(self, **pids):
        import psutil
        self.processes = {name: psutil.Process(pid) for name,pid in pids.items()}
        self.seen = {name: [] for name in pids}
        self.stop = threading.Event()

    def look(self):
        for name,process in self.processes.items(): self.seen[name].append(process.memory_info().rss/2**20)

    def _watch(self):
        while not self.stop.wait(.1): self.look()

    def __enter__(self):
        self.look()
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        self.thread.join()
        self.look()

    def text(self, name):
        seen = self.seen[name]
        return f'{seen[0]:.0f}, {max(seen):.0f}, {seen[-1]:.0f}'

# ---- a comparison

def timed_comparison(out, marks, n_seeds, n_workers=None)->dict:
    with Memory(client=os.getpid()) as memory:
        began,cpu = time.perf_counter(),time.process_time()
        result = compare(Counted(marks), POLICIES, n_epoch=2, seeds=n_seeds, lr_max=.05, out=out, n_workers=n_workers,
                         with_bar=False)
        wall,cpu = time.perf_counter()-began,time.process_time()-cpu
    df = result.df
    return dict(wall=wall, cpu=cpu, memory=memory.text('client'), n_runs=len(df), training=float(df.seconds.sum()),
                n_different=len(df.drop_duplicates(['policy', 'seed'])), ends=sorted(set(df.end)),
                numbers=df.drop(columns='seconds').to_json())

def compare_alone(n_workers, out, marks, n_seeds):
    "Without a cluster"
    print(json.dumps(timed_comparison(out, marks, int(n_seeds), int(n_workers))))

def compare_as_client(file, out, marks, n_seeds):
    from distributed import Client
    with Client(scheduler_file=file), joblib.parallel_config('dask'):
        print(json.dumps(timed_comparison(out, marks, int(n_seeds))))

@contextmanager
def folders(name='out'):
    "A folder for a comparison, and one for the marks of its runs"
    with tempfile.TemporaryDirectory() as d:
        marks = Path(d)/'marks'
        marks.mkdir()
        yield Path(d)/name, marks

# ---- parts; each one returns what it found

def check_whole(found, n_runs):
    "Check that a comparison has all its runs, each once, none with an error"
    assert (found['n_runs'], found['n_different'], found['ends'])==(n_runs, n_runs, ['well']), found

def kill_worker(cluster, out, marks, n_seeds)->dict:
    "Kill a worker when a third of the runs is on disk"
    n_runs,n_then = n_seeds*len(POLICIES),[]
    def kill():
        wait_until(lambda: n_on_disk(out)>=n_runs//3, 'no runs')
        os.kill(cluster.workers()[0], signal.SIGKILL)
        n_then.append(n_on_disk(out))
    killer = threading.Thread(target=kill)
    killer.start()
    found = cluster.compare(out, marks, n_seeds)
    killer.join()
    check_whole(found, n_runs)
    return found | dict(n_then=n_then[0], n_begun=n_begun(marks, os.getpid()), n_files=n_on_disk(out))

def kill_client(cluster, out, marks, n_seeds)->dict:
    "Kill the client when a third of the runs is on disk, and go on when the runs that were begun have ended"
    n_runs = n_seeds*len(POLICIES)
    with cluster.start(out, marks, n_seeds) as client:
        wait_until(lambda: n_on_disk(out)>=n_runs//3, 'no runs')
        client.kill()
    n_then = n_on_disk(out)
    clients = client.pid,os.getpid()
    wait_until(lambda: n_on_disk(out)==n_begun(marks, *clients), 'a run did not end')
    kept = run_files(out)
    found = cluster.compare(out, marks, n_seeds)
    check_whole(found, n_runs)
    now = run_files(out)
    return found | dict(n_then=n_then, n_kept=len(kept), n_changed=sum(now[name]!=kept[name] for name in kept),
                        n_second=n_begun(marks, *clients)-len(kept), n_files=len(now))

def apart(cluster, out, marks, n_seeds)->dict:
    "Compare, then again: where are the results, and how many runs does the second call begin?"
    first = cluster.compare(out, marks, n_seeds)
    check_whole(first, n_seeds*len(POLICIES))
    n_first = n_begun(marks, os.getpid())
    second = cluster.compare(out, marks, n_seeds)
    return first | dict(n_files=n_on_disk(out), n_there=n_on_disk(cluster.there/out.name),
                        n_second=n_begun(marks, os.getpid())-n_first, is_same=second['numbers']==first['numbers'])

def measure(cluster, out, marks, n_seeds)->dict:
    "Compare from a process of its own, and watch the memory of the scheduler"
    with Memory(scheduler=cluster.scheduler.pid) as memory, cluster.start(out, marks, n_seeds) as client:
        found = client.result(COST_SECONDS)
    check_whole(found, n_seeds*len(POLICIES))
    return found | dict(scheduler=memory.text('scheduler'))

# ---- what is printed

def cost_row(name, found, n_workers)->str:
    "Row of the table: what a run took beside its training"
    n,wall,training = found['n_runs'],found['wall'],found['training']
    beside = (wall*n_workers-training)/n if n_workers else wall/n
    return (f"| {name} | {n} | {wall:.1f} | {1e3*training/n:.0f} | {1e3*beside:.0f} | {1e3*found['cpu']/n:.1f} "
            f"| {found['memory']} | {found.get('scheduler', '–')} |")

def part_cost(n_seeds):
    print('| where | runs | wall, s | training of a run, ms | beside it, ms | CPU time of the client a run, ms '
          '| memory of the client, MB: first, most, last | of the scheduler |\n|---|---|---|---|---|---|---|---|')
    for name,n_workers in {'this process': 1, 'two processes of joblib': 2}.items():
        with folders() as (out, marks), Process('-m', 'bench.scale', 'alone', n_workers, out, marks, n_seeds) as client:
            print(cost_row(name, client.result(COST_SECONDS), n_workers), flush=True)
    with folders() as (out, marks), Cluster(out.parent) as cluster:
        measure(cluster, out.with_name('first'), marks, n_seeds=5) # imports
        for name,n_workers in {'Dask, two workers': 2, 'the same again: all is on disk': 0}.items():
            print(cost_row(name, measure(cluster, out, marks, n_seeds), n_workers), flush=True)

def part_worker(n_seeds):
    with folders() as (out, marks), Cluster(out.parent) as cluster: found = kill_worker(cluster, out, marks, n_seeds)
    print(f"\nA worker killed with {found['n_then']} of {found['n_runs']} runs on disk: {found['n_files']} at the end, "
          f"{found['n_begun']} were begun.", flush=True)

def part_client(n_seeds):
    with folders() as (out, marks), Cluster(out.parent) as cluster: found = kill_client(cluster, out, marks, n_seeds)
    print(f"\nThe client killed with {found['n_then']} of {found['n_runs']} runs on disk, {found['n_kept']} when the "
          f"workers had ended theirs. Started again: {found['n_second']} more were begun, {found['n_changed']} of the "
          f"{found['n_kept']} were written again, {found['n_files']} at the end.", flush=True)

def part_apart(n_seeds):
    with folders('apart') as (out, marks), Cluster(out.parent) as cluster: found = apart(cluster, out, marks, n_seeds)
    print(f"\nWorkers with a disk of their own: {found['n_files']} of {found['n_runs']} results in the folder of the "
          f"client, {found['n_there']} in the workers'; {found['n_second']} were begun by a second call.", flush=True)

PARTS = dict(cost=part_cost, worker=part_worker, client=part_client, apart=part_apart)
INNER = dict(alone=compare_alone, compare=compare_as_client) # What this module starts as processes

def main():
    if sys.argv[1:2] and sys.argv[1] in INNER: return INNER[sys.argv[1]](*sys.argv[2:])
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('parts', nargs='*', default=list(PARTS), choices=list(PARTS))
    parser.add_argument('--runs', type=int, default=1_000, help='of which the faults get a tenth')
    args = parser.parse_args()
    for name in args.parts: PARTS[name]((args.runs if name=='cost' else args.runs//10)//len(POLICIES))

if __name__=='__main__': main()
