"The command `clr-demo`"
import os, re, subprocess, sys
from pathlib import Path
import numpy as np, pandas as pd, pytest
from PIL import Image

threads = {k: v for k,v in os.environ.items() if k=='OMP_NUM_THREADS'} # no more than this process may use

def run(*args, cwd):
    return subprocess.run([Path(sys.executable).with_name('clr-demo'), *args], cwd=cwd, capture_output=True, text=True,
                          env={'PATH': '', 'HOME': str(cwd.parent)} | threads) # no display, no shell settings

@pytest.fixture(scope='module')
def demo(tmp_path_factory):
    d = tmp_path_factory.mktemp('home')/'demo'
    d.mkdir()
    return d, run(cwd=d)

def test_writes_what_it_says(demo):
    d,r = demo
    assert r.returncode==0, r.stderr
    out = d/'clr_demo'
    assert sorted(p.name for p in out.iterdir())==['gradients.png', 'schedule.png', 'steps.csv', 'summary.csv']
    assert 'annihilation (the last shaded band): the cycle ends at 0.' in r.stdout and 'accuracy' in r.stdout
    for name in ('gradients.png', 'schedule.png'):
        im = np.asarray(Image.open(out/name).convert('L'))
        assert im.std()>5 and im.shape[0]>300

def test_what_is_redirected_says_what_trains_and_has_aligned_rows(demo):
    r = demo[1]
    assert r.stderr=='', 'also without warnings of other packages'
    assert '\x1b' not in r.stdout and '\r' not in r.stdout and '█' not in r.stdout
    lines = r.stdout.splitlines()
    assert lines[0].startswith('clr-demo ') and 'loading PyTorch and fastai' in lines[0]
    assert 'constant and use_clr_beta: 30 epochs each, seeds 42, 43, 44' in lines[1]
    rows = [line for line in lines if ' of 30  train_loss' in line]
    fits = [(policy, seed) for seed in (42, 43, 44) for policy in ('constant', 'use_clr_beta')]
    for i,(policy,seed) in enumerate(fits):
        part = rows[10*i:10*i+10]
        starts = [f'{policy}, seed {seed}'.ljust(22) + f'  epoch {n:>2} of 30  train_loss ' for n in range(3, 31, 3)]
        assert [row[:len(start)] for row,start in zip(part, starts)]==starts and len(part)==10
    assert len({row.index('accuracy') for row in rows})==1, 'aligned'
    s = pd.read_csv(demo[0]/'clr_demo'/'summary.csv', index_col='policy')
    last = [float(rows[10*i+9].split('accuracy ')[1].split()[0]) for i in (0, 2, 4)]
    assert s.accuracy['constant']==pytest.approx(np.mean(last), abs=1e-4), 'the results of that epoch'
    assert all(re.search(r'  about \d+ (s|min) left$', row) for row in rows[:-1])

def test_spikes_plateau_and_fall(demo):
    "From the rows themselves: the start towers over a level plateau; only the cycle falls in the annihilation phase"
    df = pd.read_csv(demo[0]/'clr_demo'/'steps.csv')
    assert df.seed.unique().tolist()==[42, 43, 44]
    df = df[df.seed==42]
    cycle,const = [df[df.policy==p].reset_index() for p in ('use_clr_beta', 'constant')]
    assert len(cycle)==len(const)==30*22 and (cycle.n_params==75002).all()
    last = cycle.phase=='annihilation'
    plateau = cycle.mean_abs[(cycle.step>=132) & ~last]
    halves = [np.median(h) for h in np.array_split(plateau.to_numpy(), 2)]
    assert cycle.mean_abs[:10].max() > 4*plateau.median()
    assert .6 < halves[1]/halves[0] < 1.6, halves
    assert cycle.mean_abs[-33:].mean() < .5*plateau.median() < const.mean_abs[-33:].mean()
    assert const.lr.unique().tolist()==[.25] and cycle.lr.max()==pytest.approx(1)
    assert np.isclose(cycle.mean_abs[0], const.mean_abs[0]), 'same weights, same first batch'

def test_summary_is_the_median_and_the_means_of_the_rows(demo):
    s = pd.read_csv(demo[0]/'clr_demo'/'summary.csv', index_col='policy')
    df = pd.read_csv(demo[0]/'clr_demo'/'steps.csv')
    for p,d in df.groupby('policy'):
        runs = [run.mean_abs.to_numpy() for _,run in d.groupby('seed')]
        assert s.loc[p, '|g| start']==pytest.approx(np.mean([m[:33].max() for m in runs]))
        assert s.loc[p, '|g| plateau']==pytest.approx(np.mean([np.median(m[132:528]) for m in runs]))
        assert s.loc[p, '|g| end']==pytest.approx(np.mean([m[-33:].mean() for m in runs]))
    assert (s.accuracy>.9).all()

def test_an_existing_folder_is_not_overwritten(demo):
    d = demo[0]
    before = {p: p.read_bytes() for p in (d/'clr_demo').iterdir()}
    r = run(cwd=d)
    assert (r.returncode==1 and 'clr-demo: --out must be a new or empty folder (or give --overwrite); got' in r.stderr
            and 'Traceback' not in r.stderr)
    assert before=={p: p.read_bytes() for p in (d/'clr_demo').iterdir()}
    r = run('--overwrite', '--epochs', '1', '--seed', '7', '--seeds', '1', '--lr_max', '.5', cwd=d)
    assert r.returncode==0, r.stderr
    df = pd.read_csv(d/'clr_demo'/'steps.csv')
    assert len(df)==44 and df.lr.max()==pytest.approx(.5) and df.mom.notna().all()
    assert '22 steps are too few for spikes, plateau and fall to show' in r.stdout

def test_a_diverged_run_is_called_that(tmp_path):
    r = run('--lr-max', '1e8', '--epochs', '2', '--seeds', '1', cwd=tmp_path)
    assert r.returncode==0 and 'A run diverged' in r.stdout and 'plateau:' not in r.stdout

@pytest.mark.parametrize('args,says', [
    (['--seeds', '0'], '--seeds must be at least 1 and at most 100; got 0'),
    (['--epochs', '0'], '--epochs must be at least 1 and at most 10,000; got 0'),
    (['--lr-max', 'nan'], '--lr-max must be above 0'),
    (['--lr-max', '1e30'], '--lr-max must be above 0 and at most 1e+09'),
    (['--seed', '-1'], '--seed must lie'), (['--out', 'file'], '--out must be a folder')],
    ids=lambda a: ' '.join(a) if isinstance(a, list) else '')
def test_bad_input(tmp_path, args, says):
    (tmp_path/'file').write_text('x')
    r = run(*args, cwd=tmp_path)
    assert r.returncode==1 and says in r.stderr and r.stderr.count('\n')==1
    assert sorted(p.name for p in tmp_path.iterdir())==['file'], 'nothing was made'

def test_progress_by_hand(capsys):
    "How far the demo is: the second policy of two, in the first batch of the last of four epochs"
    from fastai_clr_ext.cli.demo import train_demo
    from fastai_clr_ext.core.progress import Progress
    seen = []
    class Seen(Progress):
        def show(self, fraction, doing): seen.append((fraction, doing))
        def left(self, fraction): return f'left after {fraction:g}'
    with Seen('training', is_live=False) as progress: learners = train_demo(4, .1, [3], progress)
    n = len(learners['constant'][3].recorder.losses)
    assert [doing for _,doing in seen]==['constant, seed 3']*n + ['use_clr_beta, seed 3']*n
    np.testing.assert_allclose([fraction for fraction,_ in seen], np.arange(1, 2*n+1)/(2*n), atol=1/n)
    rows = capsys.readouterr().out.splitlines()
    assert [float(row.split('left after ')[1]) for row in rows]==[i/8 for i in range(1, 9)]
    quiet = train_demo(4, .1, [3])
    for name,by_seed in quiet.items():
        assert by_seed[3].recorder.values==learners[name][3].recorder.values, 'looking on changes nothing'
    assert capsys.readouterr().out==''

@pytest.mark.parametrize('n_epoch,rows', [
    (1, [1]), (7, list(range(1, 8))), (23, [*range(2, 23, 2), 23]), (30, list(range(3, 31, 3)))])
def test_rows_about_ten_times_in_a_fit_and_at_its_end(n_epoch, rows, capsys):
    from types import SimpleNamespace
    from fastai_clr_ext.cli.demo import DemoProgress
    from fastai_clr_ext.core.progress import Progress
    recorder = SimpleNamespace(metric_names=['epoch', 'train_loss', 'time'], log=[0, .5, '00:01'])
    with Progress('training', is_live=False) as progress:
        cb = DemoProgress(progress, 'constant, seed 3', 0, 1)
        for epoch in range(n_epoch):
            cb.learn = SimpleNamespace(epoch=epoch, n_epoch=n_epoch, recorder=recorder)
            cb.after_epoch()
    found = [int(row.split('epoch')[1].split()[0]) for row in capsys.readouterr().out.splitlines()]
    assert found==rows
