"Pages and pictures in one file"
import base64, re, xml.etree.ElementTree as ET
import matplotlib.pyplot as plt, numpy as np, pandas as pd, pytest
from fastai_clr_ext.core.pages import (CSS, END, HEAD, SORT_CSS, SORT_SCRIPT, TABLE, image_address, show_number,
    shown_rows, snippet, template, visible, write_page)

@pytest.mark.parametrize('value,text', [
    (None, '–'), (float('nan'), '–'), (pd.NA, '–'), (1/3, '0.3333'), (np.float64(1e-9), '1e-09'),
    (12345678, '12345678'), (True, 'True'), ('a', 'a'), ([1, 2], '[1, 2]'), (0., '0'), (float('inf'), 'inf')], ids=str)
def test_numbers_for_people(value, text): assert show_number(value)==text

def picture():
    figure,ax = plt.subplots(figsize=(2, 1))
    ax.plot([0, 1], [0, 1])
    ax.set_title('<b>')
    return figure

@pytest.mark.parametrize('is_small', [True, False])
def test_a_picture_is_the_same_each_time_and_closed(is_small):
    first,second = [image_address(picture(), is_small) for _ in range(2)]
    assert first==second and not plt.get_fignums()
    kind,_,data = first.partition(';base64,')
    svg = ET.fromstring(base64.b64decode(data))
    assert kind=='data:image/svg+xml' and svg.tag.endswith('svg') and svg.get('viewBox')=='0 0 144 72'
    texts = [element.text for element in svg.iter() if element.tag.endswith('text')]
    assert ('<b>' in texts)==is_small, 'letters are paths unless the picture is small'

def test_a_snippet_shows_text_as_text():
    html = snippet(['<i>one</i>'], pd.DataFrame({'<a>': [1/3, None], 'b': ['</td>', 'x']}), picture(), '"alt"')
    assert '<i>' not in html and '<a>' not in html and html.count('<td>')==4
    assert re.findall(r'<td>(.*?)</td>', html)==['0.3333', '&lt;/td&gt;', '–', 'x']
    assert 'alt="&#34;alt&#34;"' in html and not plt.get_fignums()
    assert '<table>' not in snippet(['a']) and '<img' not in snippet(['a'])

def test_rows_keep_their_order():
    assert shown_rows(pd.DataFrame({'b': [1.5], 'a': ['x']}))==[{'b': '1.5', 'a': 'x'}]

def test_what_a_terminal_would_obey_is_taken_out():
    assert visible('a\x1b[31mb\u202ec\n\td')=='a\ufffd[31mb\ufffdc\n\td'

def test_a_page_is_written_once(tmp_path):
    path = write_page('a\x07', tmp_path/'p.html')
    assert path==(tmp_path/'p.html').resolve() and path.read_text(encoding='utf-8')=='a\ufffd'
    assert write_page('a\x07', path)==path, 'the same page again'
    with pytest.raises(ValueError, match='overwrite=True replaces it'): write_page('b', path)
    write_page('b', path, overwrite=True)
    assert path.read_text()=='b'
    with pytest.raises(ValueError, match='path must be a file in a folder'): write_page('b', tmp_path/'no'/'x')

ROWS = [dict(name=name, gain=gain, seeds=seeds) for name,gain,seeds in
        [('c', '–', '100'), ('b', '0.5 [0.1, 0.9]', '10'), ('A', '-2', '9'), ('Ba', '\u22121e-3', '8')]]

def sortable_page(browser, path, more='', rows=ROWS):
    "A page with a table that can be sorted, and what its console said"
    path.write_text(template(TABLE + HEAD + "{{ table(rows, 'sortable') }}" + more + END).render(
        title='t', css=CSS+SORT_CSS, script=SORT_SCRIPT, rows=rows), encoding='utf-8')
    page,said = browser.new_page(),[]
    page.on('console', lambda message: said.append(message.text))
    page.goto(f'file://{path}')
    return page,said

def first_cells(page): return page.locator('tbody tr:visible td:first-child').all_inner_texts()

def test_a_table_is_sorted_by_number_or_text(browser, tmp_path):
    "Empty cells come last both ways; the head says how it is sorted"
    page,said = sortable_page(browser, tmp_path/'p.html')
    sorted_by = {'name': ['A', 'b', 'Ba', 'c'], 'gain': ['A', 'Ba', 'b', 'c'], 'seeds': ['Ba', 'A', 'b', 'c']}
    for name,names in sorted_by.items():
        page.get_by_role('button', name=name).click()
        assert first_cells(page)==names
        assert page.locator('th[aria-sort=ascending]').all_inner_texts()==[name]
        arrow = "button => getComputedStyle(button, '::after').content"
        assert page.get_by_role('button', name=name).evaluate(arrow)=='" ▲"'
    page.get_by_role('button', name='gain').click()
    page.get_by_role('button', name='gain').click()
    assert first_cells(page)==['b', 'Ba', 'A', 'c'] and not said

def test_numbers_that_are_none_or_infinite_are_sorted(browser, tmp_path):
    rows = [dict(x=x) for x in ('inf', '10', 'nan', '9', '-inf')]
    page,said = sortable_page(browser, tmp_path/'p.html', rows=rows)
    page.get_by_role('button', name='x').click()
    assert first_cells(page)==['-inf', '9', '10', 'inf', 'nan'] and not said

def test_a_word_is_found_in_one_cell(browser, tmp_path):
    page,_ = sortable_page(browser, tmp_path/'p.html', rows=[dict(a='7', b='1', c='0'), dict(a='10', b='', c='')])
    page.get_by_label('Rows with words that begin so:').fill('10')
    assert first_cells(page)==['10']

def test_a_table_is_filtered_by_words(browser, tmp_path):
    page,said = sortable_page(browser, tmp_path/'p.html')
    field = page.get_by_label('Rows with words that begin so:')
    found = {'10': ['c', 'b'], '0.1 B': ['b'], '9 A': ['A'], 'a': ['A'], '.5': [], 'nothing': [],
             '': ['c', 'b', 'A', 'Ba']}
    for words,names in found.items():
        field.fill(words)
        assert first_cells(page)==names and page.locator('output').inner_text().strip()==f'{len(names)} of 4 rows'
    assert not said

def test_no_other_script_runs(browser, tmp_path):
    more = '<script>window.ran = true</script><p onclick="window.ran = 1">x</p>'
    page,said = sortable_page(browser, tmp_path/'p.html', more)
    page.locator('p').click()
    assert page.evaluate('window.ran')is None and any('Content Security Policy' in text for text in said)
    assert page.locator('th button').count()==3

def test_a_page_without_the_script_allows_none():
    html = template(TABLE + HEAD + '{{ table(rows) }}' + END).render(title='t', css=CSS, rows=ROWS)
    assert 'script' not in html and 'sortable' not in html
