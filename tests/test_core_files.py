"Files that are whole or not there, and values that fit JSON"
import json, os, signal
from pathlib import Path
import numpy as np, pandas as pd, pytest, torch
from fastai_clr_ext.core.files import MAX_NUMBER, leftover_target, read_json, to_plain, write_json, write_whole

def names(folder): return sorted(p.name for p in folder.iterdir())

@pytest.mark.parametrize('error', [OSError(28, 'No space left on device'), KeyboardInterrupt(), ValueError('wrong')],
                         ids=lambda e: type(e).__name__)
@pytest.mark.parametrize('before', [None, b'old'], ids=['new', 'there'])
def test_whole_or_not_at_all(tmp_path, error, before):
    path = tmp_path/'run.npz'
    if before is not None: path.write_bytes(before)
    def write(f):
        f.write(b'half')
        f.flush()
        raise error
    with pytest.raises(type(error)): write_whole(path, write)
    assert names(tmp_path)==([] if before is None else ['run.npz'])
    assert before is None or path.read_bytes()==before
    write_whole(path, lambda f: f.write(b'whole'))
    assert names(tmp_path)==['run.npz'] and path.read_bytes()==b'whole'

def test_the_old_file_is_there_until_the_new_one_is_on_the_disk(tmp_path, monkeypatch):
    path,log = tmp_path/'a',[]
    path.write_bytes(b'old')
    real = os.fsync,os.replace
    monkeypatch.setattr(os, 'fsync', lambda fd: (log.append(('synced', path.read_bytes())), real[0](fd)))
    monkeypatch.setattr(os, 'replace', lambda a, b: (log.append(('moved', Path(a).read_bytes())), real[1](a, b)))
    write_whole(path, lambda f: f.write(b'new'))
    assert log==[('synced', b'old'), ('moved', b'new')] and path.read_bytes()==b'new'

def test_a_folder_that_does_not_exist(tmp_path):
    with pytest.raises(FileNotFoundError): write_whole(tmp_path/'no'/'a', lambda f: f.write(b'x'))
    assert not names(tmp_path)

def test_a_kill_leaves_the_old_file_and_a_leftover_that_names_it(tmp_path):
    path = tmp_path/'run.npz.part0'
    path.write_bytes(b'old')
    def write(f):
        f.write(b'half')
        f.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    pid = os.fork()
    if pid==0:
        try: write_whole(path, write)
        finally: os._exit(0)
    assert os.WTERMSIG(os.waitpid(pid, 0)[1])==signal.SIGKILL
    assert path.read_bytes()==b'old'
    leftover, = [p for p in tmp_path.iterdir() if p!=path]
    assert leftover.read_bytes()==b'half' and leftover_target(leftover)=='run.npz.part0'

@pytest.mark.parametrize('name,target', [
    ('.run.npz.0123abcd', 'run.npz'), ('.a.ffffffff', 'a'), ('..hidden.00000000', '.hidden'),
    ('run.npz.0123abcd', ''), ('.run.npz', ''), ('.run.npz.0123abc', ''), ('.run.npz.0123ABCD', ''),
    ('.run.npz.0123abcde', ''), ('.run.npz.0123abcg', ''), ('..0123abcd', ''), ('.0123abcd', '')])
def test_leftovers(name, target): assert leftover_target(Path('/any')/name)==target

PLAIN = {
    'numpy': (dict(a=np.float32(.5), b=np.array([[1, 2]]), c=np.bool_(True)), dict(a=.5, b=[[1, 2]], c=True)),
    'torch': (dict(a=torch.tensor(3), b=torch.ones(2)), dict(a=3, b=[1., 1.])),
    'nested': ((1, [2, (3, {'x': (4,)})]), [1, [2, [3, {'x': [4]}]]]),
    'not finite': ([float('nan'), float('inf'), -float('inf'), 1e300, -1e300, 1e15], [None]*5 + [1e15]),
    'not finite, in numpy': (np.array([np.nan, 1., np.inf]), [None, 1., None]),
    'keys': ({1: 2, None: 3, (1, 2): 4, False: 5}, {'1': 2, 'None': 3, '(1, 2)': 4, 'False': 5}),
    'what JSON has': ([None, True, False, 'x', 0, -1.5], [None, True, False, 'x', 0, -1.5]),
    'other objects': ([Path('/a'), slice(1, 2), 1j], ['/a', 'slice(1, 2, None)', '1j']),
    'half a character': ('a\ud800b', 'a?b'), 'half a character in a key': ({'\udfff': 1}, {'?': 1}),
    'a character beyond 16 bits': ('\U0001f600', '\U0001f600'),
    'huge': (10**400, 10**400)}

@pytest.mark.parametrize('value,plain', PLAIN.values(), ids=PLAIN.keys())
def test_plain_values(tmp_path, value, plain):
    got = to_plain(value)
    assert got==plain and json.loads(json.dumps(got, allow_nan=False))==plain
    assert str(got)==str(plain), '1 is not 1.0, and True is not 1'
    write_json(tmp_path/'x.json', {'value': value})
    assert read_json(tmp_path/'x.json', ['value'])=={'value': plain}

def test_values_that_are_not_finite_can_be_kept():
    kept = to_plain([float('nan'), float('inf'), 1e300, {'a': np.float32('nan')}], finite=False)
    assert np.isnan(kept[0]) and kept[1:3]==[float('inf'), 1e300] and np.isnan(kept[3]['a'])
    assert MAX_NUMBER==1e15

def test_a_table_column_by_column():
    df = pd.DataFrame(dict(a=[1, 2], b=[.5, np.nan]))
    assert to_plain(df.to_dict('list'))=={'a': [1, 2], 'b': [.5, None]}

@pytest.mark.parametrize('text', ['', 'x', '[]', '{"a": 1', '{"a": 1}', 'NaN', '['*100_000, '\ufeff{"a": 1, "b": 2}'],
                         ids=['empty', 'text', 'list', 'half', 'a key less', 'nan', 'deep', 'byte order mark'])
def test_a_file_that_holds_something_else(tmp_path, text):
    (tmp_path/'x.json').write_text(text, encoding='utf-8')
    with pytest.raises(ValueError, match=r'x\.json must hold what compare wrote there; got'):
        read_json(tmp_path/'x.json', ['a', 'b'])

def test_a_file_that_is_no_text(tmp_path):
    (tmp_path/'x.json').write_bytes(bytes(range(128, 256)))
    with pytest.raises(ValueError, match=r'x\.json must hold'): read_json(tmp_path/'x.json', ())

def test_more_keys_than_needed_are_kept(tmp_path):
    write_json(tmp_path/'x.json', dict(a=1, b='ä', c=None))
    assert read_json(tmp_path/'x.json', {'a'})==dict(a=1, b='ä', c=None)
    assert 'ä' in (tmp_path/'x.json').read_text(encoding='utf-8'), 'readable, not escaped'
