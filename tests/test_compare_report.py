"Pages and forum posts, also of hostile records"
from html.parser import HTMLParser
import re, subprocess, sys
from functools import cache
import pytest
from compare_helpers import *
from fastai_clr_ext.compare import *
from fastai_clr_ext.core.pages import SORT_SCRIPT

@cache
def hostile(text):
    "The comparison that has a text wherever it has text, and its page: drawing its figures takes a second"
    comparison = Comparison(check_record(poisoned(text)))
    return comparison, report_html(comparison)

@cache
def plain_page(): return report_html(Comparison(made()))

@pytest.mark.parametrize('text', HOSTILE)
def test_hostile_text_is_text(text):
    "Only the page's own tags are left; and jinja2 leaves the text's own braces alone"
    c,page = hostile(text)
    tags = set(re.findall(r'<\s*([a-zA-Z/!]\w*)', page))
    assert tags <= {'!doctype', 'html', 'head', 'meta', 'title', 'style', 'body', 'h1', 'h2', 'h3', 'ul', 'li', 'p',
                    'table', 'thead', 'tbody', 'tr', 'th', 'td', 'div', 'figure', 'img', 'figcaption', 'b', 'pre',
                    *('/' + o for o in ('html', 'head', 'title', 'style', 'body', 'h1', 'h2', 'h3', 'ul', 'li', 'p',
                                        'table', 'thead', 'tbody', 'tr', 'th', 'td', 'div', 'figure', 'figcaption',
                                        'b', 'pre'))}, tags
    assert not re.search(r'<[^>]*\son\w+=', page) and page.count('<img')==page.count('src="data:image/svg+xml;base64,')
    md = report_markdown(c)
    outside = re.sub(r'(?ms)^(`{3,})text\n.*?^\1$', '', md)
    assert '<' not in outside and not re.search(r'(?<!\\)(\[|`|\*)', outside) and not re.search(r'(?<!\\)://', outside)
    assert len({line.count(' | ') for line in outside.splitlines()
                if line.startswith('| ')})<=3, 'no cell makes another'
    assert merged_page(merge_records([c])) and '<' not in merged_markdown(merge_records([c]))

@pytest.mark.parametrize('sign', ['\x1b', '\x07', '\x9b', '\u202e'])
def test_no_control_character_is_left(sign):
    "A terminal would obey it, or the text be read backwards"
    r,text = made(),f'a{sign}[31mb'
    r['runs'][0]['end'] = 'error'
    r['runs'][0]['why'] = r['situation']['data'] = r['situation']['again'] = r['policies'][0]['what'] = text
    c = Comparison(r)
    pages = report_html(c), report_markdown(c), merged_page(merge_records([c])), merged_markdown(merge_records([c]))
    assert not any(sign in page for page in pages) and all('a\ufffd' in page for page in pages)

class Elements(HTMLParser):
    "Every element of a page with its attributes"
    def __init__(self, page):
        super().__init__()
        self.found = []
        self.feed(page)
    def handle_starttag(self, tag, attrs): self.found.append((tag, dict(attrs)))

@pytest.mark.parametrize('i', range(len(HOSTILE)))
def test_hostile_pages_have_no_element_that_acts(i):
    "What a parser sees, with or without a browser on the machine"
    found = Elements(hostile(HOSTILE[i])[1]).found
    plain = Elements(plain_page()).found
    assert {tag for tag,_ in found} <= {tag for tag,_ in plain}, 'no element that an honest page does not have'
    assert not {'script', 'iframe', 'object', 'a', 'form'} & {tag for tag,_ in found}
    assert (not [k for _,attrs in found for k in attrs if k.startswith('on')]
            and all(attrs['src'].startswith('data:image/') for tag,attrs in found if tag=='img'))

def open_quietly(browser, path):
    "A page on a phone, and what it asked for or said"
    page,seen = browser.new_page(viewport=dict(width=390, height=800)),[]
    page.on('dialog', lambda d: seen.append('dialog'))
    page.on('console', lambda message: seen.append(message.text))
    page.on('request', lambda q: seen.append(q.url) if not q.url.startswith(('data:', 'file:')) else None)
    page.goto(f'file://{path}')
    return page,seen

def test_hostile_pages_do_nothing_in_a_browser(browser, tmp_path):
    for text in HOSTILE:
        (tmp_path/'r.html').write_text(hostile(text)[1], encoding='utf-8')
        page,seen = open_quietly(browser, tmp_path/'r.html')
        assert not seen and page.evaluate('document.querySelectorAll("script,iframe,object,a,form").length')==0
        assert page.evaluate('document.documentElement.scrollWidth')<=390, 'readable on a phone'
        assert page.evaluate('[...document.images].every(i => i.complete && i.naturalWidth>0)')
        page.close()

def test_hostile_records_over_situations_do_nothing_in_a_browser(browser, tmp_path):
    "Its only script is the one that sorts"
    for text in HOSTILE:
        html = merged_page(merge_records([poisoned(text)]))
        assert html.count('<script>')==1 and html.endswith(f'<script>{SORT_SCRIPT}</script></body></html>')
        (tmp_path/'m.html').write_text(html, encoding='utf-8')
        page,seen = open_quietly(browser, tmp_path/'m.html')
        assert not seen and page.evaluate('document.querySelectorAll("script,iframe,object,a,form").length')==1
        assert page.evaluate('document.documentElement.scrollWidth')<=390, 'readable on a phone'
        assert page.locator('table.sortable th button').count()>20
        page.close()

def test_the_page_says_the_verdict_first_and_is_the_same_every_time():
    c = Comparison(made())
    page = report_html(c)
    assert (page.index('1cycle: worked') < page.index('<table') < page.index('<img') < page.index('What was run')
            < page.index('How to run it again'))
    assert page==report_html(c) and page.count('<img')==3 and "default-src 'none'" in page
    assert '1cycle: worked' in report_markdown(c) and '| 1cycle | worked |' in report_markdown(c)

def test_a_level_is_printed_as_it_is():
    c = Comparison(made(level=.995))
    for text in (c.verdicts()[0], report_html(c), report_markdown(c)):
        assert '99.5% interval' in text and '100% interval' not in text

def test_files_are_written(tmp_path):
    c = Comparison(made())
    assert ((tmp_path/'r.html').write_text('old')
            and c.to_html(tmp_path/'r.html', overwrite=True)==tmp_path/'r.html')
    assert (tmp_path/'r.html').read_text(encoding='utf-8')==report_html(c)
    assert c.to_markdown(tmp_path/'r.md').read_text(encoding='utf-8')==report_markdown(c)

PAGE_WRITERS = {'to_html': Comparison.to_html, 'to_markdown': Comparison.to_markdown,
                'merged_html': lambda c, *args, **kwargs: merged_html(merge_records([c]), *args, **kwargs)}

@pytest.mark.parametrize('writer', PAGE_WRITERS)
def test_another_file_is_replaced_only_if_that_is_asked_for(writer, tmp_path):
    "As `RunHistory.save` and `SaveHistory` do; to run a cell again is no loss"
    write,path = PAGE_WRITERS[writer],tmp_path/'page'
    for _ in range(2): assert write(Comparison(made()), path)==path.resolve()
    text = path.read_text(encoding='utf-8')
    other = Comparison(made(metric='valid_loss', seeds=(0, 1)))
    for old in (text, 'mine', ''):
        path.write_text(old, encoding='utf-8')
        with pytest.raises(ValueError, match='overwrite=True replaces it.*; got .*page'): write(other, path)
        assert path.read_text(encoding='utf-8')==old
    write(other, path, overwrite=True)
    assert path.read_text(encoding='utf-8')!=text
    for wrong in (tmp_path, tmp_path/'no'/'page', 3):
        with pytest.raises(ValueError, match='path must be a'): write(other, wrong)
    with pytest.raises(ValueError, match='overwrite must be True or False'): write(other, path, 'yes')

def test_a_record_with_nothing_to_draw():
    r = made(seeds=(0,))
    for run in r['runs']: run.update(curves={}, scores={'accuracy': None}, end='error', why='RuntimeError: x')
    page = report_html(Comparison(r))
    assert page.count('<img')==1 and 'no result' in page and 'Runs that failed' not in page
    text = report_markdown(Comparison(r))
    assert '### Runs that an exception ended: no result\n\n- constant, seed 0: RuntimeError: x\n' in text

def test_the_three_ends_are_told_apart(tmp_path):
    "In the table, the lists, the figure and the sentences"
    r = made(('constant', '1cycle', 'wild', 'broken'))
    by_name = lambda name: [run for run in r['runs'] if run['policy']==name]
    for run in by_name('wild')[:2]: run.update(end='failed', why='its loss was nan')
    by_name('broken')[1].update(end='error', why='OSError: disk full')
    c = Comparison(r)
    table = report_table(c).set_index('policy')
    assert table.failed.str[:6].tolist()==['0 of 3', '0 of 3', '2 of 3', '0 of 2']
    assert table.errors.tolist()==[0, 0, 0, 1]
    assert table.verdict['broken']=='no result' and c.df.end.value_counts().to_dict()==dict(well=9, failed=2, error=1)
    text = report_markdown(c)
    failed,error = text.split('### Runs that failed')[1].split('### Runs that an exception ended: no result')
    assert failed.count('its loss was nan')==2 and 'disk full' not in failed and error.count('OSError: disk full')==1
    assert 'broken: no result, because an exception ended 1 run of broken.' in c.verdicts()[2]
    assert '2 of 3 of its runs failed, and 0 of 3 of constant; a failed run counts as' in c.verdicts()[1]
    labels = [text.get_text() for text in c.plot()[0].get_legend().get_texts()]
    assert labels==['mean', 'failed', 'error, no result']
    assert 'errors' not in report_table(Comparison(made())), 'no column where there is none'

def test_the_report_says_what_was_checked():
    "Looks, batches, what varied, notes and the trials"
    r = made()
    text = lambda **more: report_markdown(Comparison(r | more))
    assert 'For each seed all policies trained on the same batches' in text()
    assert 'With the seed changed: initial weights. ' in text() and 'The plan was' not in text()
    twice = text(looks=dict(planned=[3, 6], taken=[[3, True], [4, False]], present=0))
    assert ('The plan was to look after 3 and 6 seeds. The runs were looked at after 3 and 4 seeds. Not planned: '
            'after 4 seeds. All these looks together are wrong in at most 7.5%' in twice)
    assert '98.75% interval' in twice, 'a quarter of the error at half of the seeds'
    other = text(runs=[run | dict(inputs=['x', 'y']) if run['policy']=='1cycle' else run for run in r['runs']])
    assert 'The batches were not the same for all policies' in other
    assert 'not known' in text(runs=[run | dict(inputs=[], targets=[]) for run in r['runs']])
    varied = text(varies={'initial weights': True, 'validation set': True, 'training set': None,
                          'order of the data': False})
    assert ('With the seed changed: initial weights and validation set. The same for all seeds: order of the data. So '
            'the verdicts speak for other splits' in varied)
    assert 'Note: mind the gap' in text(notes=['mind the gap'])
    trials = [dict(policy='1cycle', seed=TUNE_SEED+i, lr_max=lr, scores=dict(accuracy=y), end='well', why=None)
              for lr,ys in ((.5, (.6, .7)), (1., (.8, .9))) for i,y in enumerate(ys)]
    r['policies'][1]['n_trials'] = 4
    assert '| 1cycle | 1 | 2 | 0.85 ± 0.05 | yes |' in text(tuning=trials)

def test_markdown_says_what_the_page_says():
    page,text = report_html(Comparison(made())),report_markdown(Comparison(made()))
    titles = re.findall('<h2>(.*?)</h2>', page)
    assert [t for t in titles if t not in ('The numbers', 'The figures')]==re.findall('(?m)^### (.*)$', text)
    assert '#### 1cycle\n\n```text\nCycle(…)\n```' in text and 'Runs that failed' not in text

def test_how_to_run_it_again_can_be_run():
    "The call that is printed has every number of the record, and no rate for a policy that is no cycle"
    how = dict(baseline='1cycle', metric='valid_loss', higher=False, level=.9, margin=.01, fail_score=.5)
    r = made(('constant', '1cycle', 'it\'s mine'), seeds=(4, 9), **how)
    r['budget'] |= dict(n_threads=2)
    r['situation'] |= dict(same_start=True)
    for p,lr in zip(r['policies'], ([.1, .2], 'slice(1e-05, 0.5, None)', None)): p['lr_max'] = lr
    given = dict(same_start=True, n_epoch=2, n_threads=2, seeds=[4, 9], **how,
                 lr_max={'constant': [.1, .2], '1cycle': slice(1e-5, .5)})
    text = report_markdown(Comparison(r)).split('```text\n')[-1].split('```')[0]
    assert eval(text, dict(compare=lambda *_, **kwargs: kwargs, make_learner=None, policies=None))==given
    for p in r['policies']: p['lr_max'] = None
    assert 'lr_max' not in report_markdown(Comparison(r)).split('```text\n')[-1]
    r['policies'][0]['lr_max'] = 'slice(print(1))'
    assert "'constant': 'slice(print(1))'" in report_markdown(Comparison(r)), 'no code from a record'

@pytest.mark.parametrize('module', ['comparison', 'runner', 'verdict'])
def test_a_comparison_has_its_reports_whatever_was_imported(module):
    "In a process of its own, which has imported nothing else"
    code = f"""import fastai_clr_ext.compare.{module}
from fastai_clr_ext.compare.comparison import Comparison
print(all(callable(getattr(Comparison, name)) for name in ('read', 'plot', 'to_html', 'to_markdown')))"""
    r = subprocess.run([sys.executable, '-W', 'ignore', '-c', code], capture_output=True, text=True)
    assert r.stdout.strip()=='True', r.stderr

@pytest.mark.parametrize('report', [report_html, report_markdown])
def test_a_report_judges_its_record_once(report, monkeypatch):
    calls = []
    def counted(*args):
        calls.append(args)
        return paired_summary(*args)
    monkeypatch.setattr('fastai_clr_ext.compare.comparison.paired_summary', counted)
    c = Comparison(made())
    assert report(c) and len(calls)==1

def test_dollars_are_no_formula():
    "Two of them would be one, and be drawn as such"
    name = 'a $x^2$ b'
    c = Comparison(poisoned(name))
    for ax in (*c.plot(), *c.plot_grads(), c.plot_curves()):
        texts = [*ax.get_xticklabels(), *ax.get_yticklabels(), ax.title, ax.xaxis.label, ax.yaxis.label]
        if ax.get_legend(): texts += ax.get_legend().get_texts()
        assert not [text for text in texts if name in text.get_text() and text.get_parse_math()]
