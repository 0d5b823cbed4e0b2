from html.parser import HTMLParser
import json, re
from pathlib import Path
import pytest
from fastai_clr_ext.compare import *
from fastai_clr_ext.compare import *
from fastai_clr_ext.compare import *

def made(policies=('constant', '1cycle'), seeds=(0, 1, 2), **more):
    "A record by hand: the gain is .02, .03 and .04"
    runs = [dict(policy=p, seed=s, lr_max=1.,
                 scores={'train_loss': .1, 'valid_loss': .2, 'accuracy': .9 + .01*s*(1+i) + .02*i}, diverged=False,
                 error=None, n_steps=20, n_tried=20, n_batches=20, seconds=1.,
                 curves={'accuracy': [.5, .9], 'valid_loss': [.4, .2], 'train_loss': [.3, .1],
                         'mean |g|': [3., 2., 1.]}) for s in seeds for i,p in enumerate(policies)]
    return dict(kind=RECORD_KIND, version=1,
                situation=dict(data='digits', model='resnet8', n_train=1437, n_params=75002, pretrained=False,
                               optimizer='sgd', batch_size=64, wd=.005),
                budget=dict(n_epoch=2, n_batches=20, n_steps=20),
                policies=[dict(name=p, what='Cycle(…)', lr_max=1., n_trials=0) for p in policies], seeds=list(seeds),
                baseline=policies[0], metric='accuracy', higher=True, level=.95, method='t', margin=0., tuning=[],
                runs=runs, versions={'fastai': '2.8.12'}, hardware={'gpu': None}) | more

def test_verdicts_are_worked_out_anew(tmp_path):
    (tmp_path/'r.json').write_text(json.dumps(made() | {'verdict': 'worked', 'summary': 'trust me'}))
    row = merge_records([tmp_path/'r.json']).iloc[0]
    assert (row.policy, row.baseline, row.verdict, row.n_better, row.n_seeds)==('1cycle', 'constant', 'worked', 3, 3)
    assert row.gain==pytest.approx(.03) and row.gain_lo==pytest.approx(.03 - 4.30265*.01/3**.5, abs=1e-6)

def test_merge_is_one_row_a_situation_and_policy(tmp_path):
    a,b = made(),made(('constant', '1cycle', 'wsd'))
    b['situation']['data'] = 'fashion-mnist'
    (tmp_path/'record.json').write_text(json.dumps(a))
    df = merge_records([tmp_path, a, Comparison(b)])
    assert list(zip(df.data, df.policy))==[('digits', '1cycle'), ('fashion-mnist', '1cycle'),
                                           ('fashion-mnist', 'wsd')], 'the same record counts once'

def but(*path, value):
    r = made()
    o = r
    for k in path[:-1]: o = o[k]
    if value is KeyError: del o[path[-1]]
    else: o[path[-1]] = value
    return r

@pytest.mark.parametrize('record,says', [
    ([], 'JSON object of kind'), ({}, 'JSON object of kind'), (but('kind', value='report'), 'kind'),
    (but('version', value=2), 'newer fastai_clr_ext made it'), (but('version', value='1'), 'with a version'),
    (but('version', value=True), 'with a version'),
    (but('runs', value=KeyError), 'have runs'), (but('runs', value=[]), 'one for each policy and seed'),
    (but('runs', 0, 'seed', value=7), 'one for each policy and seed'),
    (but('runs', 0, 'seed', value=1), 'one for each policy and seed'),
    (but('runs', 0, 'scores', 'accuracy', value=1e300), 'runs of a record must'),
    (but('runs', 0, 'scores', 'accuracy', value='high'), 'runs of a record must'),
    (but('runs', 0, 'scores', 'accuracy', value=10**400), 'runs of a record must'),
    (but('runs', 0, 'n_steps', value=-1), 'runs of a record must'),
    (but('runs', 0, 'seconds', value=float('inf')), 'runs of a record must'),
    (but('runs', 0, 'lr_max', value={}), 'runs of a record must'),
    (but('runs', 0, 'scores', value={'valid_loss': 1.}), 'be a score of every run'),
    (but('level', value=1), 'level of a record'), (but('method', value='guess'), 'method of a record'),
    (but('method', value=['t']), 'method of a record'),
    (but('baseline', value='other'), 'baseline of a record must be one of'),
    (but('policies', 1, 'name', value='constant'), 'different names'),
    (but('policies', 1, 'name', value='a\nb'), 'policies of a record'),
    (but('policies', 1, 'name', value='x'*81), 'policies of a record'),
    (but('policies', value={}), 'policies of a record'),
    (but('situation', 'data', value={'deep': {'er': 1}}), 'situation of a record'),
    (but('situation', 'data', value='x'*20_001), 'situation of a record'),
    (but('seeds', value=[0]*2000), 'seeds of a record'), (but('budget', value={'n_epoch': -1}), 'budget of'),
    (but('higher', value='yes'), 'higher of'), (but('margin', value=-1), 'margin of'),
    (but('runs', 0, 'curves', value={'accuracy': 'x'}), 'runs of a record')],
    ids=lambda o: '' if not isinstance(o, str) else o[:30])
def test_what_is_not_a_record(record, says, tmp_path):
    with pytest.raises(ValueError, match=says): check_record(record)
    for use in (lambda: Comparison(record).to_html(), lambda: merge_records([Comparison(record)])):
        with pytest.raises(ValueError, match=says): use()

@pytest.mark.parametrize('text', ['', 'no json', '{"a": NaN}', '['*100_000, '{"version": ' + '9'*5000 + '}', '\ufeff{}',
                                  'null'], ids=['empty', 'text', 'NaN', 'deep', 'huge number', 'bom', 'null'])
def test_files_that_are_no_record(text, tmp_path):
    (tmp_path/'r.json').write_text(text)
    with pytest.raises(ValueError, match='r.json'): read_record(tmp_path/'r.json')

def test_a_file_that_is_too_large_or_not_there(tmp_path, monkeypatch):
    monkeypatch.setattr('fastai_clr_ext.compare.comparison.MOST_BYTES', 10)
    (tmp_path/'r.json').write_text(json.dumps(made()))
    with pytest.raises(ValueError, match='have at most 10 bytes; .*r.json'): read_record(tmp_path/'r.json')
    for path in (tmp_path/'none.json', tmp_path):
        with pytest.raises(ValueError, match='a record must be a file, or a folder with record.json'): read_record(path)

@pytest.mark.parametrize('records,says', [
    ([], 'records must be a list'), (made(), 'records must be a list'),
    ([1], 'a record must be a JSON object'), ([None], 'a record must be a JSON object')], ids=str)
def test_what_cannot_be_merged(records, says):
    with pytest.raises(ValueError, match=says): merge_records(records)

HOSTILE = ['<script>alert(1)</script>', '"><img src=x onerror=alert(1)>', "'-alert(1)-'",
           '</title><script>alert(1)</script>', '</style><script>alert(1)</script>', '{{ 7*7 }}{% for x in y %}',
           '</pre><iframe src="//evil">', '| a | b |', '`x` **b** _i_', '[link](javascript:alert(1))',
           '![i](http://evil/x.png)', 'http://evil.example', '$\\frac{1$', '_hidden', '# title', '~~~', '<!-- --><!--x',
           '</td><td onclick=alert(1)>', '&lt;b&gt;', '%s%n{0}']

def poisoned(text):
    "The text in every place of a record that holds text"
    name = text[:70]
    r = made((name, f'{name} 2'), metric=name)
    for run in r['runs']:
        run['scores'][name] = run['scores']['accuracy']
        run['curves'][name] = [.1, .2]
    r['runs'][0]['error'] = text
    for d in ('situation', 'versions', 'hardware'): r[d] = {**r[d], **dict.fromkeys(r[d], text), name: text}
    r['situation']['again'] = text
    for p in r['policies']: p['what'],p['lr_max'] = text,text
    return r

@pytest.mark.parametrize('text', HOSTILE)
def test_hostile_text_is_text(text):
    "Only the page's own tags are left; and jinja2 leaves the text's own braces alone"
    c = Comparison(check_record(poisoned(text)))
    page = c.to_html()
    tags = set(re.findall(r'<\s*([a-zA-Z/!]\w*)', page))
    assert tags <= {'!doctype', 'html', 'head', 'meta', 'title', 'style', 'body', 'h1', 'h2', 'h3', 'ul', 'li', 'p',
                    'table', 'thead', 'tbody', 'tr', 'th', 'td', 'div', 'figure', 'img', 'figcaption', 'b', 'pre',
                    *('/' + o for o in ('html', 'head', 'title', 'style', 'body', 'h1', 'h2', 'h3', 'ul', 'li', 'p',
                                        'table', 'thead', 'tbody', 'tr', 'th', 'td', 'div', 'figure', 'figcaption',
                                        'b', 'pre'))}, tags
    assert not re.search(r'<[^>]*\son\w+=', page) and page.count('<img')==page.count('src="data:image/svg+xml;base64,')
    md = c.to_markdown()
    outside = re.sub(r'(?ms)^(`{3,})text\n.*?^\1$', '', md)
    assert '<' not in outside and not re.search(r'(?<!\\)(\[|`|\*)', outside) and not re.search(r'(?<!\\)://', outside)
    assert len({line.count(' | ') for line in outside.splitlines()
                if line.startswith('| ')})<=2, 'no cell makes another'
    assert merged_html(merge_records([c])) and '<' not in merged_markdown(merge_records([c]))

@pytest.mark.parametrize('sign', ['\x1b', '\x07', '\x9b', '\u202e'])
def test_no_control_character_is_left(sign):
    "A terminal would obey it, or the text be read backwards"
    r,text = made(),f'a{sign}[31mb'
    r['runs'][0]['error'] = r['situation']['data'] = r['situation']['again'] = r['policies'][0]['what'] = text
    c = Comparison(r)
    pages = c.to_html(), c.to_markdown(), merged_html(merge_records([c])), merged_markdown(merge_records([c]))
    assert not any(sign in page for page in pages) and all('a\ufffd' in page for page in pages)

def test_a_name_that_is_read_backwards_is_refused():
    with pytest.raises(ValueError, match='situation of a record must'): check_record(poisoned('\u202egnp.exe'))

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
    found,plain = [Elements(Comparison(r).to_html()).found for r in (poisoned(HOSTILE[i]), made())]
    assert {tag for tag,_ in found} <= {tag for tag,_ in plain}, 'no element that an honest page does not have'
    assert not {'script', 'iframe', 'object', 'a', 'form'} & {tag for tag,_ in found}
    assert (not [k for _,attrs in found for k in attrs if k.startswith('on')]
            and all(attrs['src'].startswith('data:image/') for tag,attrs in found if tag=='img'))

def test_hostile_pages_do_nothing_in_a_browser(tmp_path):
    chromium = next((p for p in map(Path, ('/usr/bin/chromium', '/usr/bin/chromium-browser')) if p.exists()), None)
    sync_api = pytest.importorskip('playwright.sync_api')
    if chromium is None: pytest.skip('no Chromium here')
    with sync_api.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=str(chromium), args=['--no-sandbox'])
        for i,text in enumerate(HOSTILE):
            Comparison(poisoned(text)).to_html(tmp_path/'r.html')
            page,seen = browser.new_page(viewport=dict(width=390, height=800)),[]
            page.on('dialog', lambda d: seen.append('dialog'))
            page.on('request', lambda q: seen.append(q.url) if not q.url.startswith(('data:', 'file:')) else None)
            page.goto(f'file://{tmp_path}/r.html')
            assert not seen and page.evaluate('document.querySelectorAll("script,iframe,object,a,form").length')==0
            assert page.evaluate('document.documentElement.scrollWidth')<=390, 'readable on a phone'
            assert page.evaluate('[...document.images].every(i => i.complete && i.naturalWidth>0)')
            page.close()
        browser.close()

def test_the_page_says_the_verdict_first_and_is_the_same_every_time():
    c = Comparison(made())
    page = c.to_html()
    assert (page.index('1cycle: worked') < page.index('<table') < page.index('<img') < page.index('What was run')
            < page.index('How to run it again'))
    assert page==c.to_html() and page.count('<img')==3 and "default-src 'none'" in page
    assert '1cycle: worked' in c.to_markdown() and '| 1cycle | worked |' in c.to_markdown()

def test_a_level_is_printed_as_it_is():
    c = Comparison(made(level=.995))
    for text in (c.verdicts()[0], c.to_html(), c.to_markdown()):
        assert '99.5% interval' in text and '100% interval' not in text

def test_files_are_written(tmp_path):
    c = Comparison(made())
    assert ((tmp_path/'r.html').write_text('old')
            and c.to_html(tmp_path/'r.html')==(tmp_path/'r.html').read_text(encoding='utf-8'))
    assert c.to_markdown(tmp_path/'r.md')==(tmp_path/'r.md').read_text(encoding='utf-8')

def test_a_record_with_nothing_to_draw():
    r = made(seeds=(0,))
    for run in r['runs']: run.update(curves={}, scores={'accuracy': None}, error='RuntimeError: x')
    page = Comparison(r).to_html()
    assert page.count('<img')==1 and 'Runs that failed' in page and 'cannot tell' in page
    assert '### Runs that failed\n\n- constant, seed 0: RuntimeError: x\n' in Comparison(r).to_markdown()

def test_markdown_says_what_the_page_says():
    page,text = Comparison(made()).to_html(),Comparison(made()).to_markdown()
    titles = re.findall('<h2>(.*?)</h2>', page)
    assert [t for t in titles if t not in ('The numbers', 'The figures')]==re.findall('(?m)^### (.*)$', text)
    assert '#### 1cycle\n\n```text\nCycle(…)\n```' in text and 'Runs that failed' not in text

def test_how_to_run_it_again_can_be_run():
    "The call that is printed has every number of the record, and no rate for a policy that is no cycle"
    how = dict(baseline='1cycle', metric='valid_loss', higher=False, level=.9, method='bootstrap', margin=.01)
    r = made(('constant', '1cycle', 'it\'s mine'), seeds=(4, 9), **how)
    r['budget'] |= dict(n_threads=2)
    r['situation'] |= dict(same_start=True)
    for p,lr in zip(r['policies'], ([.1, .2], 'slice(1e-05, 0.5, None)', None)): p['lr_max'] = lr
    given = dict(same_start=True, n_epoch=2, n_threads=2, seeds=[4, 9], **how,
                 lr_max={'constant': [.1, .2], '1cycle': slice(1e-5, .5)})
    text = Comparison(r).to_markdown().split('```text\n')[-1].split('```')[0]
    assert eval(text, dict(compare=lambda *_, **kwargs: kwargs, make_learner=None, policies=None))==given
    for p in r['policies']: p['lr_max'] = None
    assert 'lr_max' not in Comparison(r).to_markdown().split('```text\n')[-1]
    r['policies'][0]['lr_max'] = 'slice(print(1))'
    assert "'constant': 'slice(print(1))'" in Comparison(r).to_markdown(), 'no code from a record'
