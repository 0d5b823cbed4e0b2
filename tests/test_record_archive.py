"The form of a history file: what claims more than it holds is refused at once, whatever it claims"
import io, json, zipfile
from contextlib import nullcontext
from pathlib import Path
import numpy as np, pytest
from conftest import make_mlp
from measured_reads import read_in_process
from fastai_clr_ext.record import *
from fastai_clr_ext.record.archive import (
    block_widths, check_fit_row, is_pair, is_rising, is_span, to_arrays)
from fastai_clr_ext.record.log import pack

def write(path, arrays, compress=False):
    (np.savez_compressed if compress else np.savez)(path, **arrays)
    return path

def parts_of(n=10, **kwargs):
    "Arrays and text of a history of `n` batches, to be changed"
    learn = make_mlp(n_trn=n, cbs=GradRecorder(), **kwargs)
    learn.fit(1)
    arrays = to_arrays(learn.recorder.history)
    return arrays, json.loads(str(arrays.pop('meta')))

def with_rows(arrays, meta, n, log='batch_log', where=None):
    "The same file with `n` rows of one log"
    width = {'batch_log': 6, 'grad_log': 4}[log]
    steps = np.arange(n, dtype=np.int32)[:,None] if where is None else where
    numbers = np.array([-1, -1, 0, 0, 0, -1] if log=='batch_log' else [-1, 0, 0, -1], dtype=np.int32)
    changed = {f'{log}.0.0.0': np.zeros(width, dtype=np.int64), f'{log}.0.0.1': numbers, f'{log}.0.0.2': steps}
    for j in (1, 2):
        c = len(arrays[f'{log}.0.{j}.0'])
        changed |= {f'{log}.0.{j}.0': np.zeros(c), f'{log}.0.{j}.1': np.full(c, -1, dtype=np.int32),
                    f'{log}.0.{j}.2': np.zeros((n, 0), dtype=np.float32)}
    rows = list(meta['rows'])
    rows[log=='grad_log'] = n
    return arrays | changed, meta | dict(rows=rows)

def packed_up(arrays, meta): return arrays | {'meta': np.array(json.dumps(meta))}

def with_constant_columns(arrays, meta, n_columns, n):
    "Many rows by many columns of which each costs 8 bytes"
    arrays,meta = with_rows(arrays, meta, n)
    meta['names']['batch_log'][0]['hypers'] = [[f'h{i}', 0] for i in range(n_columns)]
    return arrays | {'batch_log.0.1.0': np.zeros(n_columns), 'batch_log.0.1.1': np.full(n_columns, -1, np.int32)}, meta

def renamed(arrays, meta, name, group):
    meta['names']['batch_log'][0]['hypers'][0] = [name, group]
    return arrays, meta

def header_that_lies(path, arrays, meta):
    "An array whose header says 10**9 rows"
    write(path, packed_up(arrays, meta))
    member = io.BytesIO()
    np.lib.format.write_array_header_1_0(member, dict(descr='<f4', fortran_order=False, shape=(10**9, 1)))
    with zipfile.ZipFile(path) as old: data = {name: old.read(name) for name in old.namelist()}
    with zipfile.ZipFile(path, 'w') as new:
        for name,b in data.items(): new.writestr(name, member.getvalue() if name=='batch_log.0.2.2.npy' else b)

def many_members(path, arrays, meta, n=300_000):
    with zipfile.ZipFile(path, 'w') as z:
        for name,a in packed_up(arrays, meta).items():
            with z.open(f'{name}.npy', 'w') as f: np.save(f, a)
        for i in range(n): # members of no bytes
            info = zipfile.ZipInfo(f'{i}')
            info.header_offset = info.CRC = info.compress_size = info.file_size = 0
            z.filelist.append(info)
        z._didModify = True

def swapped(arrays, meta, log, name, i, j):
    "Two rows change places"
    column = (['fit', 'epoch', 'batch', 'train_iter', 'step', 'skipped'] if log=='batch_log' else
              ['fit', 'step', 'train_iter', 'epoch']).index(name)
    n = meta['rows'][log=='grad_log']
    arrays,meta = with_rows(arrays, meta, n, log)
    varying = np.arange(n, dtype=np.int32)[:,None].repeat(2, 1)
    varying[[i, j],1] = varying[[j, i],1]
    numbers = arrays[f'{log}.0.0.1'].copy()
    numbers[column] = 1
    return arrays | {f'{log}.0.0.1': numbers, f'{log}.0.0.2': varying}, meta

def of_text(path, arrays, meta, text):
    "A text that is no bigger than a file may be, but is in memory"
    write(path, arrays | {'meta': np.array(json.dumps(meta)[:-1] + f', "more": {text}}}')})

SPANS = [(['up', 0, 5], True), (['up', 5, 5], True), (['up', 5, 4], False), (['up', -1, 4], False), ([3, 0, 5], False),
         (['up', 0], False), (('up', 0, 5), False), (['up', 0, 5., 7], False), ('abc', False)]

@pytest.mark.parametrize('x,expected', SPANS, ids=str)
def test_what_describes_a_phase(x, expected):
    row = dict(id='x', stage='', started='', outcome='', n_iter=9, n_batches=1, n_steps=1, seconds=1., phases=[x])
    assert is_span(x)==expected
    with nullcontext() if expected else pytest.raises(ValueError, match='phases must be a list of at most'):
        check_fit_row(row)
    for none in ('none', {}, None):
        with pytest.raises(ValueError, match='phases must be a list of at most'): check_fit_row(row | dict(phases=none))

@pytest.mark.parametrize('x', [['lr'], ['lr', -1], ['lr', 0, 0], [0, 0], ('lr', 0), 'ab'], ids=str)
def test_what_names_nothing_of_a_group(x):
    assert is_pair(['lr', 0]) and not is_pair(x)
    for log,names in (('batch_log', dict(hypers=[x])), ('grad_log', dict(units=[x], columns=['total', 'norm']))):
        with pytest.raises(ValueError, match='its columns must be pairs of a name'): block_widths(log, names)

@pytest.mark.parametrize('rows,rising,strictly', [
    ([(0, 0), (0, 1), (0, 5), (1, 0)], True, True), ([(0, 0), (0, 0), (0, 1)], True, False),
    ([(0, 1), (0, 0)], False, False), ([(1, 0), (0, 1)], False, False), ([(0, -1), (1, -1)], True, True),
    ([(0, 0), (0, -1), (0, 1), (0, -1)], True, True), ([(0, 3), (0, -1), (0, 2)], False, False)])
def test_rows_that_rise(rows, rising, strictly):
    "In one block or in several; a batch without a step, -1, is left out"
    for size in (1, 2, 9):
        parts = [np.array(rows[i:i+size]) for i in range(0, len(rows), size)]
        blocks = [(pack(part), None, None, {}) for part in parts]
        assert (is_rising(blocks, 0, 1, False), is_rising(blocks, 0, 1, True))==(rising, strictly)

BOMBS = { # how to write it; what the error says
    'rows that cost nothing': (lambda p, a, m: write(p, packed_up(*with_rows(
        a, m, 10**8, where=np.zeros((10**8, 0), 'i4')))),
                               'rows must differ in where they belong'),
    'gradients that cost nothing': (lambda p, a, m: write(p, packed_up(*with_rows(
        a, m, 10**8, 'grad_log', np.zeros((10**8, 0), 'i4')))), 'part 0 of grad_log: rows must differ'),
    'compressed rows': (lambda p, a, m: write(p, packed_up(*with_rows(
        a, m, 5*10**6, where=np.zeros((5*10**6, 1), 'i4'))), compress=True), 'without compression'),
    'a compressed text': (lambda p, a, m: write(p, a | {'meta': np.array(json.dumps(m) + ' '*10**7)}, compress=True),
                          'meta must be stored without compression'),
    'constant columns': (lambda p, a, m: write(p, packed_up(*with_constant_columns(a, m, 10_000, 10_000))),
                         'its rows must take at most'),
    'fewer columns, more rows': (lambda p, a, m: write(p, packed_up(*with_constant_columns(a, m, 1500, 100_000))),
                                 'its rows must take at most'),
    'a header that lies': (header_that_lies, 'batch_log.0.2.2 must have 0 bytes of data; got 4000000000'),
    'a list of members': (many_members, 'the list of its arrays must have at most 8,000,000 bytes'),
    'lists in the text': (lambda p, a, m: of_text(p, a, m, '[' + '[],'*600_000 + '[]]'), 'at most'),
    'a deep text': (lambda p, a, m: of_text(p, a, m, '['*100_000 + ']'*100_000), 'RecursionError'),
    'a long text': (lambda p, a, m: of_text(p, a, m, json.dumps('x'*3_000_000)), 'meta must be a text of at most'),
    'a group of 10**9': (lambda p, a, m: write(p, packed_up(*renamed(a, m, 'lr', 10**9))),
                         'groups of its columns must be counted from 0; got 1000000000'),
    'a group of 7': (lambda p, a, m: write(p, packed_up(*renamed(a, m, 'mom', 7))), 'counted from 0; got 7'),
    'phases without end': (lambda p, a, m: write(p, packed_up(a, m | dict(
        fits=[m['fits'][0] | dict(phases=[[str(i), i, i+1] for i in range(20_000)])]))),
                             'phases must be a list of at most'),
    'phases out of order': (lambda p, a, m: write(p, packed_up(a, m | dict(
        fits=[m['fits'][0] | dict(phases=[['a', 0, 9], ['b', 9, 5]])]))), 'phases must'),
    'steps out of order': (lambda p, a, m: write(p, packed_up(*swapped(a, m, 'batch_log', 'step', 3, 7))),
                           'rows must be in order; not so by step in batch_log'),
    'epochs of batches out of order': (lambda p, a, m: write(p, packed_up(*swapped(a, m, 'batch_log', 'epoch', 0, 9))),
                                       'not so by epoch in batch_log'),
    'gradients out of order': (lambda p, a, m: write(p, packed_up(*swapped(a, m, 'grad_log', 'step', 3, 4))),
                               'not so by step in grad_log'),
    'epochs out of order': (lambda p, a, m: write(p, packed_up(a, m | dict(
        epochs=[dict(fit=0, epoch=2), dict(fit=0, epoch=1)]))), 'not so by epochs'),
    'a step of 2**41': (lambda p, a, m: write(p, packed_up(*with_rows(
        a, m, 10, where=np.arange(2**41, 2**41+10)[:,None]))), 'must be at least 0 and below 1099511627776'),
}

@pytest.fixture(scope='module')
def loaded(tmp_path_factory):
    folder = tmp_path_factory.mktemp('bombs')
    paths = []
    for name,(make,_) in BOMBS.items():
        paths.append(folder/f'{name.replace("*", "x")}.npz')
        make(paths[-1], *parts_of())
    found = read_in_process('fastai_clr_ext.record', 'RunHistory.load', paths)
    return {name: (*result, path.stat().st_size) for name,path,result in zip(BOMBS, paths, found.values())}

@pytest.mark.skipif(not Path('/proc/self/clear_refs').exists(), reason='the peak of memory is read from /proc')
@pytest.mark.parametrize('kind', BOMBS)
def test_bombs_are_refused_within_a_second_and_200_mb(loaded, kind):
    said,seconds,megabytes,n_bytes = loaded[kind]
    print(f'{kind}: {n_bytes:,} bytes, {seconds:.3f} s, {megabytes:.0f} MB')
    assert 'path must be a history file' in said and BOMBS[kind][1] in said
    assert seconds<1 and megabytes<200

def test_what_is_not_needed_is_not_read(tmp_path):
    "100 MB beside a history: its time and memory are those of the history"
    arrays,meta = parts_of()
    write(tmp_path/'x.npz', packed_up(arrays, meta) | {'notes': np.zeros(12_500_000)})
    said,seconds,megabytes = read_in_process('fastai_clr_ext.record', 'RunHistory.load', [tmp_path/'x.npz'])['x']
    assert said.startswith('RunHistory of 1 fit') and seconds<1 and megabytes<20

def test_many_groups_at_one_constant_rate_are_no_bomb(tmp_path):
    "100 parameter groups of 5 hyper-parameters, 50,000 steps: unpacked 250 times the file"
    arrays,meta = with_rows(*parts_of(), 50_000)
    meta['names']['batch_log'][0]['hypers'] = [[name, g] for g in range(100) for name in ('lr', 'wd', 'mom', 'a', 'b')]
    arrays |= {'batch_log.0.1.0': np.zeros(500), 'batch_log.0.1.1': np.full(500, -1, np.int32),
               'batch_log.0.2.1': np.zeros(1, np.int32), 'batch_log.0.2.2': np.zeros((50_000, 1), np.float32)}
    write(tmp_path/'x.npz', packed_up(arrays, meta))
    assert len(RunHistory.load(tmp_path/'x.npz'))==50_000

def test_a_file_from_before_there_were_firsts_is_read(tmp_path):
    arrays,meta = parts_of()
    del meta['first']
    write(tmp_path/'x.npz', packed_up(arrays, meta))
    assert len(RunHistory.load(tmp_path/'x.npz').steps)==10

@pytest.mark.parametrize('order', ['C', 'F'])
@pytest.mark.parametrize('dtype', ['<f8', '>f8', '<f4', '<f2'])
def test_arrays_of_any_layout_are_read(tmp_path, order, dtype):
    arrays,meta = parts_of()
    values = np.arange(20.).reshape(10, 2)
    arrays |= {'batch_log.0.2.0': np.zeros(1), 'batch_log.0.2.1': np.ones(1, np.int32),
               'batch_log.0.2.2': np.array(values, dtype=dtype, order=order)}
    write(tmp_path/'x.npz', packed_up(arrays, meta))
    assert RunHistory.load(tmp_path/'x.npz').steps.loss.tolist()==values[:,1].tolist()
