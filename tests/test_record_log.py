"The log: rows are packed without loss, in little memory, and survive an interruption at any line"
import pickle, sys
from itertools import groupby
import numpy as np, pandas as pd, pytest, torch
from hypothesis import given, settings, strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_array_equal
from pandas.testing import assert_frame_equal
from fastai_clr_ext.record import *
from fastai_clr_ext.record.log import Log, n_rows, narrow, pack, packed_column, unpack

@settings(max_examples=200, deadline=None)
@given(arrays(np.float64, st.tuples(st.integers(1, 8), st.integers(0, 5)), elements=st.floats(allow_subnormal=False)))
def test_packing_loses_nothing(a): assert_array_equal(unpack(*pack(a)), a)

@settings(max_examples=100, deadline=None)
@given(arrays(np.int64, st.tuples(st.integers(1, 8), st.integers(0, 5))))
def test_packing_whole_numbers_loses_nothing(a): assert_array_equal(unpack(*pack(a)), a)

@settings(max_examples=100, deadline=None)
@given(arrays(np.int64, st.tuples(st.integers(1, 8), st.integers(1, 5)), elements=st.integers(0, 2)))
def test_one_column_without_the_others(a):
    for j in range(a.shape[1]): assert_array_equal(packed_column(pack(a), j), a[:,j])

@pytest.mark.parametrize('values,dtype', [([3, 4], np.int32), ([2**40, 1], np.int64), ([.5, np.nan], np.float32),
                                          ([.1, .5], np.float64), ([1e300, 1.], np.float64)])
def test_numbers_are_halved_if_nothing_is_lost(values, dtype):
    found = narrow(np.array(values))
    assert found.dtype==dtype and found.tolist()==pytest.approx(values, nan_ok=True)

def test_blocks_join_without_a_seam(mlp):
    whole,cut = mlp(cbs=GradRecorder()),mlp(cbs=GradRecorder())
    cut.recorder.history = RunHistory(block_size=3)
    for learn in (whole, cut):
        torch.manual_seed(1); learn.dls.train.rng.seed(1)
        learn.fit(2)
    assert len(cut.recorder.history.grad_log.blocks)==6 and not whole.recorder.history.grad_log.blocks
    pd.testing.assert_frame_equal(cut.recorder.grads, whole.recorder.grads)

KINDS = 'aaaaabbaaaa' # Names of the columns, row by row

def log_of_kinds(block_size):
    "Row `i` holds `i` in each of its three arrays"
    log = Log(block_size=block_size)
    for i,kind in enumerate(KINDS): log.add([i, 7], [i/2], (torch.device('cpu'), (2, 1), kind)).fill_(i)
    return log

@pytest.mark.parametrize('block_size', [1, 3, 4, 100])
def test_rows_from_any_start(block_size):
    "Against the rows themselves: one part for each change of names, and blocks with every row once"
    log = log_of_kinds(block_size)
    assert len(log)==len(KINDS)
    for start in range(len(KINDS)+2):
        wanted = [(kind, list(rows)) for kind,rows in groupby(range(start, len(KINDS)), key=KINDS.__getitem__)]
        for where,numbers,values,kind in log.parts(start):
            name,rows = wanted.pop(0)
            assert (kind, where.tolist(), numbers.tolist())==(name, [[i, 7] for i in rows], [[i/2] for i in rows])
            assert values.tolist()==[[i, i] for i in rows]
        assert not wanted
        found = []
        for *packed,kind in log.blocks_from(start):
            assert n_rows((*packed, kind)), 'no block is empty'
            where,numbers,values = (unpack(*each) for each in packed)
            found += zip(where[:,0].tolist(), (2*numbers[:,0]).tolist(), values[:,1].tolist(), [kind]*len(where))
        assert found==[(i, i, i, KINDS[i]) for i in range(start, len(KINDS))]

@pytest.mark.parametrize('block_size', [2, 3, 10])
def test_a_row_counts_once_its_step_is_done(block_size):
    "Whether or not the block is full"
    log,layout = Log(block_size=block_size),(torch.device('cpu'), (1,), 'x')
    for i in range(3):
        log.add([i], [], layout, is_open=True).fill_(i)
        assert len(log)==i and len(log.parts())==(i>0)
        log.close()
    log.add([3], [], layout, is_open=True).fill_(3)
    log.add([4], [], layout, is_open=True) # the step of row 3 did not come to its end
    assert len(log)==3 and len(log.close())==4
    where,_,values,_ = log.parts()[0]
    assert where[:,0].tolist()==[0, 1, 2, 4] and values[:3,0].tolist()==[0, 1, 2] and np.isnan(values[3,0])
    assert len(log.undo())==3
    again = pickle.loads(pickle.dumps(log))
    assert (len(again), again.block_size)==(3, block_size)

def a_million(monkeypatch, n, n_groups=3):
    "A history with n steps, its rows written as a fit would, without a network"
    h,cpu = RunHistory(),torch.device('cpu')
    h.fit_rows.append(dict(id='x', stage='', n_iter=1000, phases=[], n_steps=n))
    hypers = [[k, g] for g in range(n_groups) for k in ('wd', 'sqr_mom', 'lr', 'mom', 'eps')]
    a,b = (cpu, (1,), dict(hypers=hypers)),(cpu, (n_groups, 2), dict(units=[['', g] for g in range(n_groups)],
                                                                     columns=['total', 'norm']))
    noise = torch.randn(64, n_groups, 2)
    for i in range(n):
        lr = .1+i*1e-7
        h.batch_log.add([0, i//1000, i%1000, i, i, 0],
                        [v for g in range(n_groups) for v in (.01, .99, lr/(g+1), .9+i*1e-8, 1e-5)],
                        a).copy_(noise[i%64,0,0])
        h.grad_log.add([0, i, i, i//1000], [10]*n_groups, b, is_open=True).copy_(noise[i%64])
        h.grad_log.close()
    return h

def test_memory_of_a_million_steps_of_three_groups(monkeypatch):
    "At most 100 MB on the host with Adam's five hyper-parameters in each group; the device's block doesn't grow"
    h = a_million(monkeypatch, 8*1024)
    arrays = [a for log in (h.batch_log, h.grad_log) for b in log.blocks for packed in b[:-1] for a in packed]
    whole = [a if a.base is None else a.base for a in arrays] # a view keeps its base alive
    size = sum(map(sys.getsizeof, whole))/(7*1024)*1e6
    assert size < 100e6 and h.grad_log.values.shape==(1024, 3, 2)

def interrupt_at(n:int):
    "Ctrl-C before the `n`-th line of `Log`"
    seen = 0
    def line(frame, event, arg):
        nonlocal seen
        if event=='line':
            seen += 1
            if seen==n: raise KeyboardInterrupt
        return line
    return lambda frame, event, arg: line if frame.f_code.co_filename.endswith('log.py') and \
        frame.f_code.co_name in ('add', 'undo', 'close', '_begin', 'all_blocks') else None

def test_no_line_of_the_log_is_a_bad_place_for_ctrl_c(mlp, tmp_path):
    plain = mlp(n_trn=3, cbs=GradRecorder())
    plain.fit(1)
    want,n,stopped = plain.recorder.history.steps,0,True
    while stopped:
        n,stopped = n+1,False
        learn = mlp(n_trn=3, cbs=[GradRecorder(), SaveHistory(tmp_path/f'{n}.npz', every=1)])
        learn.recorder.history = RunHistory(block_size=2)
        sys.settrace(interrupt_at(n))
        try: learn.fit(1)
        except KeyboardInterrupt: stopped = True
        finally: sys.settrace(None)
        learn.fit(1)
        h = RunHistory.load(tmp_path/f'{n}.npz')
        assert_frame_equal(h.steps, learn.recorder.history.steps)
        first = h.steps.query('fit==0 and skipped==""')
        assert_frame_equal(first[['step', 'loss', 'norm_1']], want[['step', 'loss', 'norm_1']].iloc[:len(first)])
        assert len(h.steps.query(f'fit=={len(h.fits)-1} and skipped==""'))==3
    assert n>40, 'many places were tried'
