"""The pages as a site: navigation, links, Sphinx, which needs no network and makes a search that works from a file."""
import json, re, shutil, time
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

def names_of(module):
    "Links to the names on a module's page, to stand below its title"
    names = [name for name in reference.public_names(module) if not reference.is_constant(module, name)]
    links = [f'[`{name}`]({doc_url}{module}.html#{reference.slug(name)})' for name in names]
    return f'*On this page:* {", ".join(links)}' if links else ''

def with_names(text, module):
    "A module's page with its names below the title and the line that follows it"
    head,line,rest = text.split('\n\n', 2)
    return '\n\n'.join(filter(None, [head, line, names_of(module), rest]))

def scorer(guides):
    "How Sphinx's search ranks: guides first, what is about the project last"
    return (Path(__file__).parent/'scorer.js').read_text(encoding='utf-8').replace('GUIDES', json.dumps(guides))

def see_also(page, texts, tutorials):
    "Links to the tutorials that use what a page of the reference documents"
    links = [f'[{first_heading(texts[name])}]({name}.md)' for name in tutorials
             if f'{doc_url}{page}.html' in texts[name]]
    return f'**See also:** {", ".join(links)}' if links else ''

def first_heading(text): return re.search(r'^# (.+)$', text, flags=re.M)[1]

def footer(page, notebooks):
    "Where the page can be edited, and where it is as Markdown"
    path = file_of(page, notebooks)
    links = {'Edit this page': f'{git_url}/edit/main/{path}', 'This page as Markdown': f'{page}.html.md'}
    if page in notebooks: links['As a notebook'] = f'{git_url}/blob/main/{path}'
    shown = ' · '.join(f'<a href="{url}">{text}</a>' for text,url in links.items())
    return f'<p class="page-links">{shown}</p>'

def anchors(text):
    "What links to a page's headings and symbols can name"
    headings = re.findall(r'^#{1,4} (.+)$', text, flags=re.M)
    return {heading.lower() for heading in headings} | set(re.findall(r'<span id="([^"]+)">', text))

def unlink_undocumented(texts):
    "The pages, where the name of a helper that no page documents is code without the link that nbdev gives it"
    known = {name: anchors(text) for name,text in texts.items()}
    symbol_link = re.compile(rf'\[(`[^`\n]+`)\]\({re.escape(doc_url)}([\w.-]+)\.html#([^)\s]+)\)')
    def keep(link): return link[0] if link[3] in known.get(link[2], ()) else link[1]
    return {name: symbol_link.sub(keep, text) for name,text in texts.items()}

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
    texts = unlink_undocumented(texts)
    tutorials = [name for items in list(sections.values())[:2] for name in page_names(items)]
    for _,modules in wings(sections):
        for module in modules:
            also = see_also(module, texts, tutorials)
            texts[module] = f'{with_names(texts[module], module)}\n{also}\n'
    for name,text in texts.items():
        (source/f'{name}.md').write_text(f'{text}\n{footer(name, notebooks)}\n', encoding='utf-8')
    for name in ('conf.py', 'docs.css'): shutil.copy(Path(__file__).parent/name, source)
    (source/'scorer.js').write_text(scorer([*tutorials, 'glossary', 'compatibility']), encoding='utf-8')
    (source/'tables.js').write_text(SORT_SCRIPT, encoding='utf-8')
    (source/'tables.css').write_text(SORT_CSS, encoding='utf-8')
    return texts

def description(text):
    "The line below a page's title, without links"
    found = re.search(r'^> (.+)$', text, flags=re.M)
    return re.sub(r'\[([^\]]+)\]\([^)]*\)', r'\1', found[1]) if found else ''

def llms_text(texts):
    "The list of all pages for language models, as https://llmstxt.org describes it"
    parts = ['# fastai_clr_ext', f'> {description(texts["index"])}']
    for section,items in navigation().items():
        lines = []
        for name in page_names(items):
            if name not in texts: continue # Sphinx's own
            about = description(texts[name])
            lines.append(f'- [{first_heading(texts[name])}]({doc_url}{name}.html.md)' + (f': {about}' if about else ''))
        parts.append(f'## {section}\n\n' + '\n'.join(lines))
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

def copy_markdown():
    "Every page as Markdown beside it, `schedule.cycle.html.md`: the docstrings of modules link to these"
    for page in source.glob('*.md'): shutil.copy(page, site/f'{page.stem}.html.md')

def dead_docstrings():
    "Links in docstrings of modules whose page isn't there"
    found = []
    for module in sorted(reference.package.rglob('*.py')):
        text = module.read_text(encoding='utf-8')
        for page in re.findall(rf'^Docs: {re.escape(doc_url)}(\S+?)"*$', text, flags=re.M):
            if not (site/page).exists(): found.append((module.name, page))
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
    dead = dead_links() + dead_docstrings()
    for page,href in dead: print(f'{page}: dead link {href}')
    print(f'{len(texts)} pages in {site.name}/index.html, {time.time()-start:.0f} s')
    return not dead
