"How docs/build.py makes pages out of notebooks: their names, the links between them, the navigation"
import importlib.util, re
from pathlib import Path
import pytest

root = Path(__file__).parent.parent

@pytest.fixture
def build():
    "docs/build.py as a fresh module"
    spec = importlib.util.spec_from_file_location('build', root/'docs'/'build.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

@pytest.mark.parametrize('path,name,group', [
    ('10_schedule.cycle.ipynb', 'schedule.cycle', 'schedule'),
    ('30a_train.one_cycle.ipynb', 'train.one_cycle', 'train'),
    ('08a_core.files.ipynb', 'core.files', 'core'),
    ('tutorials/finetune_pretrained.ipynb', 'finetune_pretrained', 'tutorials'),
    ('studies/02_many.ipynb', 'many', 'studies')])
def test_page_and_group_of_a_notebook(build, path, name, group):
    assert build.page_name(build.nbs/path)==name
    assert build.group_name(build.nbs/path)==group

@pytest.mark.parametrize('link,page', [
    ('10_schedule.cycle.ipynb', 'https://d.org/schedule.cycle.html'),
    ('10_schedule.cycle.ipynb#the-phases', 'https://d.org/schedule.cycle.html#the-phases'),
    ('./10_schedule.cycle.ipynb', 'https://d.org/schedule.cycle.html'),
    ('../10_schedule.cycle.ipynb#x', 'https://d.org/schedule.cycle.html#x'),
    ('../../nbs/10_schedule.cycle.ipynb', 'https://d.org/schedule.cycle.html'),
    ('tutorials/finetune_pretrained.ipynb', 'https://d.org/finetune_pretrained.html'),
    ('../studies/recipes.ipynb#limits', 'https://d.org/recipes.html#limits'),
    ('index.ipynb', 'https://d.org/index.html'),
    ('schedule.cycle.html#cycle', 'schedule.cycle.html#cycle'),
    ('https://example.org/10_a.ipynb', 'https://example.org/10_a.ipynb'),
    ('https://example.org/10_a.html', 'https://example.org/10_a.html')])
def test_links_between_notebooks_go_to_pages(build, link, page):
    text = build.markdown_cell(f'Read [this]({link}), [that](x.md).', 'https://d.org/')
    assert text==f'Read [this]({page}), [that](x.md).'

def test_navigation_has_the_wings_in_their_order(build):
    names = ['00_core.checks', '10_schedule.cycle', '11_schedule.presets', 'studies/recipes', 'tutorials/first']
    assert build.navigation([build.nbs/f'{name}.ipynb' for name in names])=={
        'tutorials': ['first'], 'studies': ['recipes', 'protocol'], 'core': ['core.checks'],
        'schedule': ['schedule.cycle', 'schedule.presets'], 'project': ['changelog', 'contributing']}
    assert list(build.navigation([build.nbs/'00_core.checks.ipynb']))==['studies', 'core', 'project']

def test_every_notebook_has_a_page_of_its_own(build):
    paths = build.pages()
    shown = [name for names in build.navigation(paths).values() for name in names]
    assert len(paths)>=10 and len(set(shown))==len(shown)==len(paths)+3

@pytest.mark.parametrize('link,page', [
    ('PROTOCOL.md', 'protocol.md'), ('../studies/PROTOCOL.md', 'protocol.md'), ('CONTRIBUTING.md', 'contributing.md'),
    ('../../CHANGELOG.md', 'changelog.md'), ('https://d.org/CHANGELOG.md', 'https://d.org/CHANGELOG.md'),
    ('x.md', 'x.md'), ('../studies/b_from_scratch.ipynb#x', 'https://d.org/b_from_scratch.html#x')])
def test_links_to_files_that_are_pages(build, link, page):
    assert build.linked_to_pages(f'See [it]({link}).', 'https://d.org/')==f'See [it]({page}).'

def test_callouts_and_other_divs(build):
    text = build.markdown_cell('::: {.callout-note}\nAn aside.\n:::\n', '')
    assert text.strip()==':::{note}\nAn aside.\n:::'
    with pytest.raises(ValueError, match=re.escape('a div that has no MyST form: ::: {.column-margin}')):
        build.markdown_cell('::: {.column-margin}\nA note.\n:::\n', '')

def test_only_documented_names_are_linked(build):
    cycle = '[`Cycle`](https://d.org/a.b.html#cycle)'
    table = '[`Cycle.table`](https://d.org/a.b.html#cycle.table)'
    helper = '[`check`](https://d.org/a.b.html#check)'
    by_hand = '[check](https://d.org/a.b.html#check)'
    texts = {'a.b': '# a.b\n\n### Cycle\n\n<span id="cycle.table"></span>\n\n#### Cycle.table\n',
             'c': f'{cycle}, {table}, {helper}, {by_hand}'}
    linked = build.unlink_undocumented(texts, 'https://d.org/')
    assert linked['a.b']==texts['a.b']
    assert linked['c']==f'{cycle}, {table}, `check`, {by_hand}', 'a dead link written by hand is to be found'

@pytest.mark.parametrize('path,symbol,line', [
    ('schedule/cycle.py', 'Cycle', 'class Cycle'),
    ('schedule/cycle.py', 'Cycle.table', 'def table(self'),
    ('train/one_cycle.py', 'Learner.fit_one_cycle_ext', 'def fit_one_cycle_ext(self:Learner'),
    ('record/files.py', 'RunHistory.save', 'def save(self:RunHistory'),
    ('record/archive.py', 'FILE_FORMAT', 'FILE_FORMAT = ')])
def test_a_source_link_goes_to_the_line_of_the_definition(build, path, symbol, line):
    path = f'fastai_clr_ext/{path}'
    escaped = symbol.replace('_', '\\_')
    link = f"[source](https://h.org/blob/main/{path}#LNone){{style=x}}"
    text = build.show_doc_output(f"---\n\n{link}\n\n### {escaped}\n\nText")
    number = int(re.search(r'\[source\]\(https://h.org/blob/main/\S+#L(\d+)\)\n', text)[1])
    assert (root/path).read_text(encoding='utf-8').splitlines()[number-1].startswith((line, f'    {line}'))

def test_a_page_names_no_address_and_no_line_that_is_none(build):
    text = build.show_doc_output('### f\n\n    overwrite:<function store_true at 0x7fba99618e00>=False, # Replace')
    assert text=='### f\n\n    overwrite:store_true=False, # Replace'
    for bad in ('[source](https://h.org/x.py#LNone)\n\n### f', '<object object at 0x7fba99618e00>'):
        with pytest.raises(ValueError, match='without a line, or an address'): build.show_doc_output(bad)
    with pytest.raises(ValueError, match='`?absent`? is not defined'):
        build.show_doc_output('[source](https://h.org/blob/main/fastai_clr_ext/record/files.py#LNone)\n\n### absent')
