"Costs, with generous bounds so that only real losses fail, and the benchmark for a GPU, small and on the CPU"
import json, time
from functools import partial
import numpy as np, pytest
from fastai.callback.core import Callback
from fastai_clr_ext.all import *
from fastai_clr_ext.record.gradients import GradState
from bench import common, gpu, growth, record, schedule
from conftest import use_lists

# ---- bounds, about three times what `python -m bench` measured

def median_ratio(a, b): return float(np.median(np.array(a)/np.array(b)))

def thread_cost(fit, short, long):
    "Of a batch more, on the clock of this thread alone"
    start = time.thread_time()
    fit(short)
    middle = time.thread_time()
    fit(long)
    return (time.thread_time()-middle)-(middle-start)

def test_a_fit_costs_the_host_less_than_fastais_own():
    functions = {}
    for name in ('no schedule', 'fit_one_cycle', 'fit_one_cycle_ext'):
        fit,short,long = schedule.FITS[name],*[schedule.make_learner(n, 1) for n in (20, 220)]
        fit(short)
        functions[name] = partial(thread_cost, fit, short, long)
    costs = common.in_turn(functions, 9)
    base = costs['no schedule']
    assert np.median(costs['fit_one_cycle_ext']-base) < .9*np.median(costs['fit_one_cycle']-base)

@pytest.mark.parametrize('n_groups,most', [(1, 4.2), (10, 1.5)])
def test_a_step_of_the_torch_scheduler(n_groups, most):
    "Over torch's own; it took 13 and 19 times as long before"
    costs = common.in_turn({make: partial(schedule.loop_cost, make, n_groups, 300)
                            for make in (schedule.of_ours, schedule.of_torch)}, 7)
    assert median_ratio(costs[schedule.of_ours], costs[schedule.of_torch]) < most

def test_recording_over_one_sum_of_each_gradient():
    size = 'resnet20, 64×3×32×32'
    shares = common.in_turn({recording: partial(record.share, size, recording)
                             for recording in (record.ours, record.sums)}, 3)
    assert median_ratio(shares[record.ours], shares[record.sums]) < 11

def test_a_long_history_costs_what_a_short_one_does():
    history,first,last = growth.fill(30_000)
    assert last < 3*first and len(history)==30_000

def test_figures_of_a_long_history():
    growth.drawn(growth.fill(100)[0].plot_cycle) # fonts
    short,long = growth.fill(1_000)[0],growth.fill(100_000)[0]
    for name in ('plot_lr', 'plot_losses', 'plot_grads', 'plot_cycle'):
        seconds = [growth.seconds(partial(growth.drawn, getattr(history, name)))[0] for history in (short, long)]
        assert seconds[1] < 3*seconds[0]+1, name

def test_saving_after_every_batch_stays_flat():
    found = growth.of_saving(1_500)
    assert found['last tenth, ms'] < 3*found['first tenth, ms']

def test_the_package_adds_little_to_the_import_of_fastai():
    assert growth.imports(3)['ratio']['median'] < 1.15

# ---- the runner

def test_functions_are_measured_in_turn():
    calls = []
    found = common.in_turn({'a': lambda: calls.append('a') or 1., 'b': lambda: calls.append('b') or 2.}, 3)
    assert calls==['a', 'b', 'b', 'a', 'a', 'b'] and found['b'].tolist()==[2, 2, 2]

def test_what_is_not_installed_is_named():
    def missing(): import no_such_package # noqa: F401
    works,errors = common.tried({'there': lambda: 1, 'missing': missing})
    assert list(works)==['there'] and 'no_such_package' in errors['missing']

def test_slopes():
    assert growth.slope([1, 10, 100], [5, 50, 500])==pytest.approx(1) and abs(growth.slope([1, 10], [3, 3]))<1e-12

def test_all_parts_have_a_measure():
    import bench.__main__ as main, importlib
    assert all(callable(importlib.import_module(f'bench.{part}').measure) for part in main.PARTS)

# ---- the benchmark for a GPU

@pytest.mark.parametrize('path', ['set by set', 'lists'])
def test_the_checks_of_the_gpu_benchmark(path, monkeypatch):
    if path=='lists': use_lists(monkeypatch)
    found = gpu.checks(gpu.SMALL_CASES['resnet8, 4×8'])
    assert set(found)>={'numbers', 'overflow', 'AdamW', 'fused AdamW', 'CUDA graph'}
    assert not {name: result['error'] for name,result in found.items() if 'error' in result}

@pytest.mark.parametrize('name', list(gpu.SMALL_CASES))
def test_the_gpu_benchmark_on_a_cpu(name, tmp_path):
    found = gpu.main(True, tmp_path/'gpu.json', [name])
    assert json.loads((tmp_path/'gpu.json').read_text())==found
    result = found['cases'][name]
    assert 'error' not in result and {'HistoryRecorder', 'GradRecorder', 'DivergenceGuard'}<=set(result['added'])
    assert all(not row['waits'] and row['n_pairs']>=2 and row['step_ms']>0 for row in result['added'].values())

def test_the_checks_see_wrong_numbers(monkeypatch):
    "A recorder that is off by a thousandth"
    real = GradState.write
    def write(self, at, start, values): real(self, at, start, [1.001*v for v in values])
    monkeypatch.setattr(GradState, 'write', write)
    found = gpu.checks(gpu.SMALL_CASES['resnet8, 4×8'])
    assert all('is off by' in found[name]['error'] for name in ('numbers',))

def test_an_unknown_case_is_refused_before_anything_is_run(tmp_path):
    with pytest.raises(ValueError, match="cases must be among .*; got \\['resnet9'\\]"):
        gpu.main(True, tmp_path/'gpu.json', ['resnet9'])
    assert not list(tmp_path.iterdir())

def test_what_is_done_at_some_steps_only_counts():
    "As a guard's look does: the mean of a step, not the median"
    class Sleeps(Callback):
        run_valid = False
        def before_step(self):
            if self.learn.iter==5: time.sleep(.2)
    learn = gpu.make_learner(gpu.SMALL_CASES['resnet8, 4×8'], 8)
    assert gpu.step_time(learn, Sleeps()) > gpu.step_time(learn)+20

def test_a_wait_is_reported(monkeypatch):
    class Waits(GradRecorder):
        def before_step(self): raise RuntimeError('called a synchronizing CUDA operation')
    learn = gpu.make_learner(gpu.SMALL_CASES['resnet8, 4×8'], 4)
    assert 'synchronizing' in gpu.waits(learn, Waits) and not gpu.waits(learn, GradRecorder)
