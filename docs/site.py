"""The pages as a site: navigation, links, Sphinx, which needs no network and makes a search that works from a file."""
import json, re, shutil, textwrap, time
from pathlib import Path
from urllib.parse import unquote
import yaml
from fastai_clr_ext.core.pages import SORT_CSS, SORT_SCRIPT
from . import pages, reference
from .reference import doc_url, git_url, nbs, page_name, root

site,source = root/'_docs', root/'_proc'
repo_files = root/'CONTRIBUTING.md', root/'CHANGELOG.md'
protocol = nbs/'studies'/'PROTOCOL.md'
contributors = 'For contributors' # The section that the files beside nbs are in

def navigation():
    """The sections of nbs/sidebar.yml: by name, a list of pages, in which a wing is `(name, pages of its modules)`

    With what quarto could not show: files that are not in nbs, the page of all names, and Sphinx's index."""
    found = {}
    def name(item): return page_name(nbs/item) if item.endswith('.ipynb') else Path(item).stem.lower()
    contents = yaml.safe_load((nbs/'sidebar.yml').read_text(encoding='utf-8'))['website']['sidebar']['contents']
    for section in contents:
        if isinstance(section, str): continue # the first page, which is in no section
        found[section['section']] = [
            name(item) if isinstance(item, str) else (item['section'], [name(module) for module in item['contents']])
            for item in section['contents']]
    found['Reference'] = ['names', *found['Reference'], 'genindex']
    found[contributors] = [*(path.stem.lower() for path in repo_files), *found[contributors]]
    return found

def all_notebooks():
    "The notebook of each page: `{'schedule.cycle': path}`"
    paths = [p for p in sorted(nbs.rglob('*.ipynb')) if '.ipynb_checkpoints' not in p.parts]
    names = [page_name(path) for path in paths]
    if len(set(names))!=len(names): raise ValueError('two notebooks would have the same page')
    return dict(zip(names, paths))

def toctree(entries, caption=''):
    "A part of the navigation, which the page itself does not show"
    options = [':hidden:', f':caption: {caption}'] if caption else [':hidden:']
    return '\n'.join(['```{toctree}', *options, '', *entries, '```', ''])

def file_of(page, notebooks):
    "The file that a page is made from, in the repository"
    others = {path.stem.lower(): path for path in (*repo_files, protocol)}
    generated = reference.package/('all.py' if page=='names' else f'{page}/__init__.py')
    path = notebooks.get(page) or others.get(page) or generated
    return path.relative_to(root).as_posix()

def import_line(module):
    "How the names on a module's page are imported, and which methods come with that"
    wing = module.partition('.')[0]
    names = [name for name in reference.public_names(module) if pages.has_entry(module, name)]
    functions = [name for name in names if '.' not in name]
    methods = [name for name in names if '.' in name and name.partition('.')[0] not in functions]
    owners = ', '.join(dict.fromkeys(name.partition('.')[0] for name in methods))
    if not functions: return f'```python\nimport fastai_clr_ext.{wing} # methods of {owners}\n```' if methods else ''
    lines = textwrap.wrap(', '.join(functions), 80-len(wing))
    what = lines[0] if len(lines)==1 else '\n    '.join(['(', *lines]) + ')'
    return f'```python\nfrom fastai_clr_ext.{wing} import {what}\n```'

def with_names(text, module):
    "A module's page with the line that imports its names below the title and the line that follows it"
    head,line,rest = text.split('\n\n', 2)
    current = f'```{{py:currentmodule}} fastai_clr_ext.{module.partition(".")[0]}\n```'
    return '\n\n'.join(filter(None, [head, line, current, import_line(module), rest]))

def scorer(guides):
    "How Sphinx's search ranks: guides first, what is about the project last"
    return (Path(__file__).parent/'scorer.js').read_text(encoding='utf-8').replace('GUIDES', json.dumps(guides))

def uses(text, module):
    "Whether a page links to a module's page or calls one of its names"
    if f'{doc_url}{module}.html' in text: return True
    names = [name.rpartition('.') for name in reference.public_names(module) if pages.has_entry(module, name)]
    calls = [rf'\.{name}\(' if owner else rf'(?<![\w.]){name}\(' for owner,_,name in names]
    return bool(calls) and bool(re.search('|'.join(calls), text))

def see_also(page, texts, tutorials):
    "Links to the guides that use what a page of the reference documents"
    links = [f'[{first_heading(texts[name])}]({name}.md)' for name in tutorials if uses(texts[name], page)]
    return f'**See also:** {", ".join(links)}' if links else ''

def first_heading(text): return re.search(r'^# (.+)$', text, flags=re.M)[1]

def footer(page, notebooks):
    "Where the page can be edited, and where it is as Markdown"
    path = file_of(page, notebooks)
    links = {'Edit this page': f'{git_url}/edit/main/{path}', 'This page as Markdown': f'{page}.html.md'}
    if page in notebooks: links['As a notebook'] = f'{git_url}/blob/main/{path}'
    shown = ' · '.join(f'<a href="{url}">{text}</a>' for text,url in links.items())
    return f'<p class="page-links">{shown}</p>'

symbol_link = re.compile(rf'\[(`[^`\n]+`)\]\({re.escape(doc_url)}([\w.-]+)\.html#([^)\s]+)\)')

def entries(text):
    "The names that have an entry on a page"
    return re.findall(r'^:+\{py:\w+\} ([\w.]+)', text, flags=re.M)

def anchors(text):
    "What else links to a page can name"
    headings = re.findall(r'^#{1,4} (.+)$', text, flags=re.M)
    return {heading.lower() for heading in headings} | set(re.findall(r'<span id="([^"]+)">', text))

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
    headings = re.findall(r'^#{1,4} (.+)$', text, flags=re.M)
    seen = {re.sub(r'[^a-z0-9]+', '-', heading.lower()).strip('-') for heading in headings} | set(entries(text))
    def once(span):
        if span[1] in seen: return ''
        seen.add(span[1])
        return span[0]
    return re.sub(r'<span id="([^"]+)"></span>', once, text)

def page_texts(notebooks):
    "Every page as Markdown by its name: notebooks, files of the repository, and the wings"
    texts = {name: pages.to_markdown(path, source/'images') for name,path in notebooks.items()}
    texts |= {path.stem.lower(): path.read_text(encoding='utf-8') for path in (*repo_files, protocol)}
    texts['names'] = reference.names_page()
    sections = navigation()
    subtitles = {name: pages.head(path)[1] for name,path in notebooks.items() if '.' in name}
    for wing,modules in wings(sections):
        texts[wing] = reference.wing_page(wing, subtitles) + '\n' + toctree(modules)
    texts['index'] += '\n' + '\n'.join(toctree(page_names(items), name) for name,items in sections.items())
    return texts

def page_names(items):
    "The pages of a section itself, without those of a wing's modules"
    return [item if isinstance(item, str) else item[0] for item in items]

def wings(sections):
    "Each wing with the pages of its modules"
    return [item for items in sections.values() for item in items if isinstance(item, tuple)]

def write_source():
    "All pages as Markdown in `_proc`; returns their texts by name"
    shutil.rmtree(source, ignore_errors=True)
    notebooks = all_notebooks()
    sections = navigation()
    texts = {name: pages.linked_to_pages(text) for name,text in page_texts(notebooks).items()}
    texts = {name: with_unique_spans(text) for name,text in with_real_anchors(texts).items()}
    tutorials = [name for items in list(sections.values())[:2] for name in page_names(items)]
    for _,modules in wings(sections):
        for module in modules:
            also = see_also(module, texts, tutorials)
            texts[module] = f'{with_names(texts[module], module)}\n{also}\n'
    for name,text in texts.items():
        page = f'{meta(text)}{text}\n{footer(name, notebooks)}\n'
        (source/f'{name}.md').write_text(page, encoding='utf-8')
    for name in ('conf.py', 'docs.css'): shutil.copy(Path(__file__).parent/name, source)
    (source/'scorer.js').write_text(scorer([*tutorials, 'glossary', 'compatibility']), encoding='utf-8')
    (source/'tables.js').write_text(SORT_SCRIPT, encoding='utf-8')
    (source/'tables.css').write_text(SORT_CSS, encoding='utf-8')
    return texts

def description(text):
    "The line below a page's title, without links"
    found = re.search(r'^> (.+)$', text, flags=re.M)
    return re.sub(r'\[([^\]]+)\]\([^)]*\)', r'\1', found[1]) if found else ''

def meta(text):
    "The description of a page for search engines, as MyST takes it"
    about = json.dumps(description(text).replace('`', ''), ensure_ascii=False)
    if about=='""': return ''
    return f'---\nmyst:\n  html_meta:\n    description: {about}\n---\n'

def line_of(name, text):
    "A page in the list of all pages"
    about = description(text)
    return f'- [{first_heading(text)}]({doc_url}{name}.html.md)' + (f': {about}' if about else '')

def llms_text(texts):
    "The list of all pages for language models, as https://llmstxt.org describes it"
    parts = ['# fastai_clr_ext', f'> {description(texts["index"])}']
    sections = navigation()
    for section,items in sections.items():
        lines = [line_of(name, texts[name]) for name in page_names(items) if name in texts] # Sphinx's index is not
        parts.append(f'## {section}\n\n' + '\n'.join(lines))
    modules = [module for _,names in wings(sections) for module in names]
    parts.append('## Optional\n\n' + '\n'.join(line_of(name, texts[name]) for name in modules))
    return '\n\n'.join(parts) + '\n'

def localise():
    "Links to our own documentation made relative, so that they work from a file"
    for p in site.rglob('*.html'): p.write_text(p.read_text(encoding='utf-8').replace(doc_url, ''), encoding='utf-8')

def dead_links():
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

def plain_markdown(text):
    "A page without what only Sphinx reads"
    text = re.sub(r'\A---\n.*?\n---\n', '', text, flags=re.S)
    text = re.sub(r'```\{(toctree|py:currentmodule)\}.*?```\n?', '', text, flags=re.S)
    text = re.sub(r'```\{figure\} images/(\S+)\n:alt: (.*)\n(?::.*\n)*\n?(.*)\n```', r'![\2](_images/\1)\n\n\3', text)
    text = re.sub(r'^:{4,}\{py:\w+\} (.+)$', r'### `\1`', text, flags=re.M)
    text = re.sub(r'<a class="source" href="([^"]+)">source</a>', r'[source](\1)', text)
    text = re.sub(r'^:::+(\{\w+\})?\n(:class: .*\n)?|<span id="[^"]+"></span>\n*', '', text, flags=re.M)
    return re.sub(r'\]\(([\w.-]+)\.md\)', r'](\1.html.md)', text)

def copy_markdown():
    "Every page as Markdown beside it, `schedule.cycle.html.md`: the docstrings of modules link to these"
    for page in source.glob('*.md'):
        text = plain_markdown(page.read_text(encoding='utf-8'))
        (site/f'{page.stem}.html.md').write_text(text, encoding='utf-8')

def dead_in_markdown():
    "Files beside a page's Markdown that it links to or shows and that are not there"
    found = []
    for page in site.glob('*.html.md'):
        text = re.sub(r'```.*?```|`[^`\n]*`', '', page.read_text(encoding='utf-8'), flags=re.S)
        for href in re.findall(r'\]\((?!https?:|#)([^)#\s]+)', text):
            if not (site/href).exists(): found.append((page.name, href))
    return found

def dead_docstrings():
    "Links in docstrings of modules whose page isn't there"
    found = []
    for module in sorted(reference.package.rglob('*.py')):
        text = module.read_text(encoding='utf-8')
        for page in re.findall(rf'^Docs: {re.escape(doc_url)}(\S+?)"*$', text, flags=re.M):
            if not (site/page).exists(): found.append((module.name, page))
    return found

def without_entry(texts):
    "Public names that no page has an entry for"
    found = []
    for module in reference.modules():
        there = set(entries(texts[module]))
        public = [name for name in reference.public_names(module) if not reference.is_constant(module, name)]
        found += [(module, f'no entry for {name}') for name in public if name not in there]
    return found

def build():
    "Write the site; warnings and dead links are errors"
    from sphinx.cmd.build import main as sphinx
    start = time.time()
    texts = write_source()
    shutil.rmtree(site, ignore_errors=True)
    if sphinx(['-q', '-W', '--keep-going', '-b', 'html', str(source), str(site)]): return False
    shutil.copytree(nbs/'atlas'/'records', site/'records')
    (site/'llms.txt').write_text(llms_text(texts), encoding='utf-8')
    localise()
    copy_markdown()
    faults = [(page, f'dead link {href}') for page,href in dead_links() + dead_docstrings() + dead_in_markdown()]
    faults += without_entry(texts)
    for page,fault in faults: print(f'{page}: {fault}')
    print(f'{len(texts)} pages in {site.name}/index.html, {time.time()-start:.0f} s')
    return not faults
