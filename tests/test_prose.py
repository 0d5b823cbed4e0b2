"What people read: spelling, words that say nothing, and tables that name what is there"
import re, subprocess, sys
from pathlib import Path
import pytest
from fastcore.nbio import read_nb

root = Path(__file__).parents[1]
notebooks = [path for path in sorted((root/'nbs').rglob('*.ipynb')) if '.ipynb_checkpoints' not in path.parts]
# Words of Python that codespell takes for mistakes
KNOWN_WORDS = 'docment,docments,befores,coo'
# Fillers, advertisement, and phrases that make a reader stop
BANNED = re.compile(r'\b(simply|obviously|of course|trivial\w*|basically|easily|leverag\w+|utili[sz]\w+|seamless\w*'
                    r'|powerful|what it came to|as it comes|so many|all that)\b', re.I)

def prose(path):
    "The text of a notebook without code and outputs"
    return '\n\n'.join(cell.source for cell in read_nb(path).cells if cell.cell_type=='markdown')

@pytest.fixture(scope='module')
def texts(tmp_path_factory):
    "A folder with the texts of all notebooks"
    folder = tmp_path_factory.mktemp('texts')
    for path in notebooks: (folder/f'{path.stem}.md').write_text(prose(path), encoding='utf-8')
    return folder

def misspelt(*paths):
    command = [sys.executable, '-m', 'codespell_lib', f'--ignore-words-list={KNOWN_WORDS}', *map(str, paths)]
    return subprocess.run(command, capture_output=True, text=True, cwd=root).stdout

def test_words_are_spelt_as_in_the_dictionary(texts):
    folders = 'fastai_clr_ext', 'tests', 'docs', 'bench', 'studies'
    code = [path for folder in folders for path in (root/folder).rglob('*.py') if path.name!='_modidx.py']
    assert not misspelt(texts, *code, *root.glob('*.md'))

def test_a_misspelt_word_is_found(tmp_path):
    (tmp_path/'a.md').write_text('It trains ' + 'wih' + ' a cycle.')
    assert 'with' in misspelt(tmp_path)

@pytest.mark.parametrize('path', notebooks, ids=lambda path: path.stem)
def test_no_word_says_nothing(path):
    text = prose(path)
    assert not [text[max(0, found.start()-30):found.end()+30] for found in BANNED.finditer(text)]

def test_the_table_of_companions_names_tests_that_are_there():
    text = prose(root/'nbs'/'tutorials'/'compatibility.ipynb')
    tests = re.findall(r'<code>(?:(test_\w+\.py): )?([^<]+)</code> \|$', text, flags=re.M)
    assert len(tests)==sum(line.startswith('| ') for line in text.splitlines())-text.count('| test |')>15
    for file,name in tests:
        code = (root/'tests'/(file or 'test_companions.py')).read_text(encoding='utf-8')
        assert f"'{name}'" in code or f'def {name}(' in code, name

def test_readme_shows_its_pictures_where_there_is_no_checkout():
    "What setup.py gives to PyPI has no relative link"
    code = "import setuptools; setuptools.setup = lambda **kwargs: print(kwargs['long_description']); import setup"
    shown = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=root, check=True).stdout
    assert '![' in shown and not re.findall(r'\]\((?!https?://|#)[^)]*\)', shown)
