"How the docs make pages out of notebooks: their names, the links between them, the navigation, the reference"
import re
import pytest
from docs import copies, frame, links, look, pages, reference, site
from docs.reference import doc_url, nbs, root

@pytest.mark.parametrize('path,name', [
    ('10_schedule.cycle.ipynb', 'schedule.cycle'),
    ('30a_train.one_cycle.ipynb', 'train.one_cycle'),
    ('tutorials/finetune_pretrained.ipynb', 'finetune_pretrained'),
    ('studies/02_many.ipynb', 'many')])
def test_page_of_a_notebook(path, name): assert reference.page_name(nbs/path)==name

@pytest.mark.parametrize('link,page', [
    ('10_schedule.cycle.ipynb', '{doc}schedule.cycle.html'),
    ('10_schedule.cycle.ipynb#the-phases', '{doc}schedule.cycle.html#the-phases'),
    ('./10_schedule.cycle.ipynb', '{doc}schedule.cycle.html'),
    ('../10_schedule.cycle.ipynb#x', '{doc}schedule.cycle.html#x'),
    ('../../nbs/10_schedule.cycle.ipynb', '{doc}schedule.cycle.html'),
    ('tutorials/finetune_pretrained.ipynb', '{doc}finetune_pretrained.html'),
    ('../studies/recipes.ipynb#limits', '{doc}recipes.html#limits'),
    ('index.ipynb', '{doc}index.html'),
    ('schedule.cycle.html#cycle', 'schedule.cycle.html#cycle'),
    ('https://example.org/10_a.ipynb', 'https://example.org/10_a.ipynb'),
    ('https://example.org/10_a.html', 'https://example.org/10_a.html')])
def test_links_between_notebooks_go_to_pages(link, page):
    text = pages.with_page_links(f'Read [this]({link}), [that](x.md).')
    assert text==f'Read [this]({page.format(doc=doc_url)}), [that](x.md).'

def test_every_page_is_in_one_place_of_the_navigation():
    sections = site.navigation()
    assert list(sections)==['Start here', 'How to', 'Studies and atlas', 'Reference', 'For contributors']
    modules = [module for _,names in site.wings(sections) for module in names]
    own = [name for items in sections.values() for name in items if isinstance(name, str)]
    files = [path.stem.lower() for path in (*site.repo_files, site.protocol)]
    assert sorted(['index', *own, *modules])==sorted([*site.all_notebooks(), *files, 'names', 'genindex'])

def test_a_wing_holds_its_modules_in_reading_order():
    for wing,modules in site.wings(site.navigation()): assert modules==reference.modules(f'{wing}.')

@pytest.mark.parametrize('link,page', [
    ('PROTOCOL.md', 'protocol.md'), ('../studies/PROTOCOL.md', 'protocol.md'), ('CONTRIBUTING.md', 'contributing.md'),
    ('../../CHANGELOG.md', 'changelog.md'), ('{doc}CHANGELOG.md', '{doc}CHANGELOG.md'),
    ('x.md', 'x.md'), ('../studies/b_from_scratch.ipynb#x', '{doc}b_from_scratch.html#x')])
def test_links_to_files_that_are_pages(link, page):
    link,page = link.format(doc=doc_url),page.format(doc=doc_url)
    assert pages.with_file_links(pages.with_page_links(f'See [it]({link}).'))==f'See [it]({page}).'

def test_a_link_within_a_link_is_the_author_s():
    text = f'See [[`Cycle`]({doc_url}a.html#cycle)](11_schedule.cycle.ipynb) and [`x`](y.md).'
    assert pages.with_page_links(text)==f'See [`Cycle`]({doc_url}schedule.cycle.html) and [`x`](y.md).'

def test_callouts_and_other_divs():
    text = pages.markdown_cell('::: {.callout-note}\nAn aside.\n:::\n')
    assert text.strip()==':::{note}\nAn aside.\n:::'
    with pytest.raises(ValueError, match=re.escape('a div that has no MyST form: ::: {.column-margin}')):
        pages.markdown_cell('::: {.column-margin}\nA note.\n:::\n')

def test_links_to_names_go_to_their_entries():
    "nbdev's links are in lower case; which of two names is meant is in the text"
    texts = {'a.b': '# a.b\n\n:::::{py:class} Cycle(x)\n\n::::{py:method} Cycle.table(n)\n\n'
                    ':::::{py:function} cycle()\n## Part\n\n<span id="helper"></span>\n',
             'c': ' '.join(f'[`{text}`]({doc_url}a.b.html#{anchor})' for text,anchor in [
                 ('Cycle', 'cycle'), ('cycle', 'cycle'), ('learn.table', 'cycle.table'), ('helper', 'helper'),
                 ('gone', 'gone')]) + f' [by hand]({doc_url}a.b.html#gone)'}
    linked = links.with_real_anchors(texts)['c'].split()
    ids = [re.search(r'#([^)]*)', link) for link in linked]
    wanted = ['fastai_clr_ext.a.Cycle', 'fastai_clr_ext.a.cycle', 'fastai_clr_ext.a.Cycle.table', 'helper']
    assert [found and found[1] for found in ids]==[*wanted, None, None, 'gone']
    assert linked[4]=='`gone`', 'and a dead link written by hand is to be found'

def test_an_id_is_there_once():
    text = '## The [`cycle`](x.html)\n<span id="the-cycle"></span><span id="a"></span><span id="a"></span>x\n'
    assert links.with_unique_spans(text)=='## The [`cycle`](x.html)\n<span id="a"></span>x\n'

def test_how_names_are_imported():
    assert frame.import_line('schedule.sampling').startswith('```python\nfrom fastai_clr_ext.schedule import ')
    assert frame.import_line('plot.gradients')=='```python\nimport fastai_clr_ext.plot # methods of RunHistory\n```'
    assert frame.import_line('train.values')=='', 'nothing there is for users'
    for line in frame.import_line('schedule.presets').splitlines(): assert len(line)<100

def test_guides_that_use_a_module_are_named():
    texts = {'x': f'# X\n[it]({doc_url}train.resume.html)', 'y': '# Y\nlearn.resume_fit(path)',
             'z': '# Z\nresume_fitting()'}
    assert frame.see_also('train.resume', texts, ['x', 'y', 'z'])=='**See also:** [X](x.md), [Y](y.md)'

def test_a_page_s_footer_says_where_it_is_made():
    notebooks = {'schedule.cycle': nbs/'11_schedule.cycle.ipynb'}
    files = {'schedule.cycle': 'nbs/11_schedule.cycle.ipynb', 'changelog': 'CHANGELOG.md',
             'train': 'fastai_clr_ext/train/__init__.py', 'names': 'fastai_clr_ext/all.py'}
    for page,path in files.items():
        assert site.file_of(page, notebooks)==path
        assert f'/edit/main/{path}"' in frame.footer(page, path)

def test_markdown_without_what_only_sphinx_reads():
    text = ('---\nmyst: 1\n---\n# A\n\n```{toctree}\nb\n```\n\n```{figure} images/a-1.png\n:alt: Alt\n\nCap\n```\n\n'
            '<span id="a"></span>\n\n::::{py:function} a(x)\n\n<a class="source" href="u">source</a>\n\n'
            ':::{table}\n:class: names\n\n| x |\n:::\n\n::::\n[b](b.md)\n')
    plain = copies.plain_markdown(text)
    assert re.sub(r'\n+', '\n', plain)==('# A\n![Alt](_images/a-1.png)\nCap\n### `a(x)`\n[source](u)\n| x |\n'
                                        '[b](b.html.md)\n')

def test_dead_links_are_found(tmp_path):
    hrefs = ''.join(f'<a href="{href}">it</a>' for href in ('b.html', '#x', '#y', 'c.html'))
    (tmp_path/'a.html').write_text(f'<p id="x">{hrefs}')
    (tmp_path/'b.html').write_text('')
    (tmp_path/'a.html.md').write_text('[b](b.html) ![c](_images/c.png) `[d](e.md)`')
    assert links.dead_links(tmp_path)==[('a.html', '#y'), ('a.html', 'c.html')]
    assert links.dead_in_markdown(tmp_path)==[('a.html.md', '_images/c.png')]

def test_a_name_without_an_entry_is_found():
    texts = dict.fromkeys(reference.modules(), '')
    assert ('schedule.cycle', 'no entry for Cycle.table') in site.without_entry(texts)

def test_a_figure_needs_an_alternative_text(tmp_path):
    with pytest.raises(ValueError, match='a figure needs fig-alt'): pages.figure('', {}, tmp_path, 'x', False)

def test_methods_of_cells_that_export_no_name_have_entries_too():
    from fastcore.nbio import mk_cell
    class Notebook: pass
    nb = Notebook()
    source = reference.package/'record'/'history.py'
    code = re.search(r'@patch\(as_prop=True\)\ndef steps\(.*?(?=\n\n# %%|\n@patch)', source.read_text(), re.S)[0]
    nb.cells = [mk_cell(f'#| exporti\n{code}'), mk_cell('#| exporti\nclass Batches: pass')]
    shown = [cell.source for cell in pages.with_helpers(nb, 'record.history').cells if cell.cell_type=='markdown']
    assert '{py:property} RunHistory.steps' in shown[0] and shown[1].startswith('<details>')

def test_class_methods_are_told_from_others():
    from fastai_clr_ext.record import RunHistory
    assert '{py:classmethod} RunHistory.load(' in reference.entry(vars(RunHistory)['load'], 'RunHistory.load')

@pytest.mark.parametrize('module,name,line', [
    ('schedule.cycle', 'Cycle', 'class Cycle'),
    ('schedule.cycle', 'Cycle.table', 'def table(self'),
    ('train.one_cycle', 'Learner.fit_one_cycle_ext', 'def fit_one_cycle_ext(self:Learner'),
    ('record.files', 'RunHistory.save', 'def save(self:RunHistory')])
def test_a_source_link_goes_to_the_line_of_the_definition(module, name, line):
    path,number = re.search(r'/blob/main/(\S+)#L(\d+)"', reference.source_link(module, name)).groups()
    assert (root/path).read_text(encoding='utf-8').splitlines()[int(number)-1].strip().startswith(line)

def rows(text):
    "The rows of the table of parameters"
    return [line.strip('| ').split(' | ') for line in text.splitlines() if line.startswith('| <code>')]

def test_an_entry_has_signature_docstring_parameters_and_source():
    def stretch(
        x:int|None, # What is stretched, in cm
        *,
        by:float=2. # Factor
    )->float: # In cm
        "Make longer"
    stretch.__module__,stretch.__qualname__ = 'fastai_clr_ext.train.one_cycle', 'group_lrs'
    lines = reference.entry(stretch).splitlines()
    assert lines[0]=='<span id="group_lrs"></span>' and lines[2]=='::::{py:function} group_lrs(x, *, by=2.0)'
    assert 'one_cycle.py#L' in lines[4] and lines[6]=='Make longer' and lines[-1]=='::::'
    assert rows('\n'.join(lines))==[
        ['<code>x</code>', '<code>int &#124; None</code>', '', 'What is stretched, in cm'],
        ['<code>by</code>', '<code>float</code>', '<code>2.0</code>', 'Factor']]
    assert '| *returns* | <code>float</code> |  | In cm |' in lines

def test_a_class_shows_the_methods_of_its_body_and_links_the_others():
    from fastai_clr_ext.record import RunHistory
    text = reference.entry(RunHistory)
    assert '{py:property} RunHistory.epochs' in text, 'defined in the body'
    assert '{py:method} RunHistory.tail' not in text, 'patched, with an entry of its own on the page'
    assert f'[`plot_grads`]({doc_url}plot.gradients.html#runhistory.plot_grads)' in text

def test_answers_to_events_and_methods_of_base_classes_are_no_entries():
    from fastai_clr_ext.record import GradRecorder
    text = reference.Shown(GradRecorder.before_step).text
    assert text.startswith('<details>') and '{py:' not in text
    assert not {'GradRecorder.before_step', 'GradRecorder.check_fit'} & set(reference.public_names('record.gradients'))
    assert 'Learner.fit_one_cycle_ext' in reference.public_names('train.one_cycle')

def test_fastai_s_events_are_no_parameters_of_our_callbacks():
    from fastai_clr_ext.record import HistoryRecorder
    assert '{py:class} HistoryRecorder()' in reference.entry(HistoryRecorder)

def test_an_entry_names_no_address():
    thing = object()
    def group_lrs(x=thing): "Do nothing"
    group_lrs.__module__,group_lrs.__qualname__ = 'fastai_clr_ext.train.one_cycle', 'group_lrs'
    with pytest.raises(ValueError, match='an address, which is another one in each build'): reference.entry(group_lrs)

def test_every_name_that_a_notebook_needs_is_documented():
    import fastai_clr_ext.all as every
    listed = {name for module in reference.modules() for name in reference.public_names(module)}
    exported = {name for name in vars(every) if not name.startswith('_')}
    wings = {'schedule', 'record', 'train', 'plot', 'situations', 'compare', 'cli', 'core'}
    assert exported-wings <= listed

def test_all_names_are_on_one_page():
    text = reference.names_page()
    listed = re.findall(r'^\| \[`([^`]+)`\]', text, flags=re.M)
    assert len(listed)==len(set(listed))>80
    assert {'learn.fit_one_cycle_ext', 'learn.recorder.history', 'learn.recorder.plot_grads',
            'learn.recorder.divergence', 'GradRecorder'} <= set(listed)
    in_order = 'learn.fit_one_cycle_ext', '## On its recorder', 'learn.recorder.plot_grads'
    places = [text.index(each) for each in in_order]
    assert places==sorted(places)

def test_the_look_at_pages_finds_what_is_wrong(browser, tmp_path, monkeypatch):
    monkeypatch.setattr(look, 'site', tmp_path)
    wide = '<div style="width:2000px">x</div>'
    (tmp_path/'a.html').write_text(f'<!doctype html><script>console.log("hm")</script>{wide}<img src="no.png">')
    (tmp_path/'b.html').write_text('<!doctype html><img src="https://example.org/x.png" alt="x">')
    (tmp_path/'c.html').write_text('<!doctype html><p>Well <code>a](b</code></p>')
    (tmp_path/'d.html').write_text('<!doctype html><p>See [this](x.html)</p>')
    faults = look.page_faults(browser, 390)
    assert {page for page,_ in faults}=={f'{name}.html at 390 px' for name in 'abd'}
    text = ' '.join(fault for _,fault in faults)
    for part in ('console: hm', 'scrolls sideways', 'does not show', 'without alternative text', 'failed request',
                 'shown as text: See [this]', 'requests https://example.org/x.png'): assert part in text

def test_a_search_that_leads_elsewhere_is_found(browser, tmp_path, monkeypatch):
    monkeypatch.setattr(look, 'site', tmp_path)
    monkeypatch.setattr(look, 'searches', {'a': 'wanted', 'b': 'other'})
    found = '<p class="search-summary">found</p><ul class="search"><li><a href="wanted.html">x</a>'
    (tmp_path/'search.html').write_text(found)
    assert look.search_faults(browser)==[('search for b', "leads to ['wanted.html']")]

def test_a_page_for_language_models_lists_every_page_with_a_line():
    items = [name for items in site.navigation().values() for name in site.page_names(items)]
    modules = [name for _,names in site.wings(site.navigation()) for name in names]
    names = [name for name in items if name!='genindex'] + modules
    texts = {name: f'# Title of {name}\n\n> About [`it`](x.html).\n' for name in ['index', *names]}
    text = copies.llms_text(texts, site.navigation())
    for name in names: assert f'- [Title of {name}]({doc_url}{name}.html.md): About `it`.' in text
