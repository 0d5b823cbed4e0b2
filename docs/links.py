"""Links between pages: to the ids that Sphinx gives, and which of them lead nowhere."""
import re
from urllib.parse import unquote
from .reference import doc_url, package

symbol_link = re.compile(rf'\[(`[^`\n]+`)\]\({re.escape(doc_url)}([\w.-]+)\.html#([^)\s]+)\)')

def entries(text):
    "The names that have an entry on a page"
    return re.findall(r'^:+\{py:\w+\} ([\w.]+)', text, flags=re.M)

def headings(text):
    "The headings of a page in lower case, without the links in them"
    found = re.findall(r'^#{1,4} (.+)$', text, flags=re.M)
    return [re.sub(r'\[([^\]]+)\]\([^)]*\)', r'\1', heading).lower() for heading in found]

def anchors(text):
    "What else links to a page can name"
    return set(headings(text)) | set(re.findall(r'<span id="([^"]+)">', text))

def with_real_anchors(texts):
    """The pages, where links to names go to the ids that Sphinx gives them

    nbdev's links are in lower case, which `Situation` and `situation` share; the text of the link tells them apart. The
    name of a helper that no page documents is code without a link."""
    named = {name: entries(text) for name,text in texts.items()}
    others = {name: anchors(text) for name,text in texts.items()}
    def real(link):
        shown,page,anchor = link[1], link[2], unquote(link[3])
        same = [name for name in named.get(page, ()) if name.lower()==anchor.lower()]
        exact = [name for name in same if name==shown.strip('`')] or same
        if exact: return f'[{shown}]({doc_url}{page}.html#fastai_clr_ext.{page.partition(".")[0]}.{exact[0]})'
        return link[0] if anchor in others.get(page, ()) else shown
    return {name: symbol_link.sub(real, text) for name,text in texts.items()}

def with_unique_spans(text):
    "A page without the ids in lower case, for nbdev's links from other projects, that it has already"
    seen = {re.sub(r'[^a-z0-9]+', '-', heading).strip('-') for heading in headings(text)}
    def once(span):
        if span[1] in seen: return ''
        seen.add(span[1])
        return span[0]
    return re.sub(r'<span id="([^"]+)"></span>', once, text)

def dead_links(site):
    "Links between pages whose page or anchor isn't there"
    pages = {p.name: p.read_text(encoding='utf-8') for p in site.glob('*.html')}
    ids = {name: set(re.findall(r'\bid="([^"]+)"', text)) for name,text in pages.items()}
    links = {(name, h) for name,text in pages.items() for h in re.findall(r'href="([^":?]*)"', text)
             if not h.startswith('_')}
    def dead(name, href):
        page,_,anchor = href.partition('#')
        page = page or name
        if page.endswith('.json'): return not (site/page).is_file()
        return page.endswith('.html') and (page not in pages or (anchor and unquote(anchor) not in ids[page]))
    return sorted(l for l in links if dead(*l))

def dead_in_markdown(site):
    "Files beside a page's Markdown that it links to or shows and that are not there"
    found = []
    for page in site.glob('*.html.md'):
        text = re.sub(r'```.*?```|`[^`\n]*`', '', page.read_text(encoding='utf-8'), flags=re.S)
        for href in re.findall(r'\]\((?!https?:|#)([^)#\s]+)', text):
            if not (site/href).exists(): found.append((page.name, href))
    return found

def dead_docstrings(site):
    "Links in docstrings of modules whose page isn't there"
    found = []
    for module in sorted(package.rglob('*.py')):
        text = module.read_text(encoding='utf-8')
        for page in re.findall(rf'^Docs: {re.escape(doc_url)}(\S+?)"*$', text, flags=re.M):
            if not (site/page).exists(): found.append((module.name, page))
    return found
