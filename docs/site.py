"""The pages as a site: navigation, links, Sphinx, which needs no network and makes a search that works from a file."""
import json, shutil, time
from pathlib import Path
import yaml
from fastai_clr_ext.core.pages import SORT_CSS, SORT_SCRIPT
from . import frame, links, pages, reference
from .copies import copy_markdown, llms_text
from .reference import doc_url, nbs, page_name, root

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

def scorer(guides):
    "How Sphinx's search ranks: guides first, what is about the project last"
    return (Path(__file__).parent/'scorer.js').read_text(encoding='utf-8').replace('GUIDES', json.dumps(guides))

def page_texts(notebooks, sections):
    "Every page as Markdown by its name: notebooks, files of the repository, and the wings"
    texts = {name: pages.to_markdown(path, source/'images') for name,path in notebooks.items()}
    for path in (*repo_files, protocol):
        texts[path.stem.lower()] = pages.with_page_links(path.read_text(encoding='utf-8'))
    texts['names'] = reference.names_page()
    subtitles = {name: frame.description(text) for name,text in texts.items()}
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

def write_source(sections):
    "All pages as Markdown in `_proc`; returns their texts by name"
    shutil.rmtree(source, ignore_errors=True)
    notebooks = all_notebooks()
    texts = {name: pages.with_file_links(text) for name,text in page_texts(notebooks, sections).items()}
    texts = {name: links.with_unique_spans(text) for name,text in links.with_real_anchors(texts).items()}
    guides = [name for items in list(sections.values())[:2] for name in page_names(items)]
    for _,modules in wings(sections):
        for module in modules:
            also = frame.see_also(module, texts, guides)
            texts[module] = f'{frame.with_names(texts[module], module)}\n{also}\n'
    for name,text in texts.items():
        page = f'{frame.meta(text)}{text}\n{frame.footer(name, file_of(name, notebooks))}\n'
        (source/f'{name}.md').write_text(page, encoding='utf-8')
    for name in ('conf.py', 'docs.css'): shutil.copy(Path(__file__).parent/name, source)
    (source/'scorer.js').write_text(scorer([*guides, 'glossary', 'compatibility']), encoding='utf-8')
    (source/'tables.js').write_text(SORT_SCRIPT, encoding='utf-8')
    (source/'tables.css').write_text(SORT_CSS, encoding='utf-8')
    return texts

def localise():
    "Links to our own documentation made relative, so that they work from a file"
    for p in site.rglob('*.html'): p.write_text(p.read_text(encoding='utf-8').replace(doc_url, ''), encoding='utf-8')

def without_entry(texts):
    "Public names that no page has an entry for"
    found = []
    for module in reference.modules():
        there = set(links.entries(texts[module]))
        found += [(module, f'no entry for {name}') for name in reference.entry_names(module) if name not in there]
    return found

def build():
    "Write the site; warnings and dead links are errors"
    from sphinx.cmd.build import main as sphinx
    start = time.time()
    sections = navigation()
    texts = write_source(sections)
    shutil.rmtree(site, ignore_errors=True)
    if sphinx(['-q', '-W', '--keep-going', '-b', 'html', str(source), str(site)]): return False
    shutil.copytree(nbs/'atlas'/'records', site/'records')
    (site/'llms.txt').write_text(llms_text(texts, sections), encoding='utf-8')
    localise()
    copy_markdown(source, site)
    dead = links.dead_links(site) + links.dead_docstrings(site) + links.dead_in_markdown(site)
    faults = [(page, f'dead link {href}') for page,href in dead]
    faults += without_entry(texts)
    for page,fault in faults: print(f'{page}: {fault}')
    print(f'{len(texts)} pages in {site.name}/index.html, {time.time()-start:.0f} s')
    return not faults
