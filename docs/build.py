"""Build the documentation from the notebooks: `python docs/build.py` writes the site to `_docs`,
`python docs/build.py --readme` writes README.md from nbs/index.ipynb, `--check` says whether README.md is in step.

nbdev's processors run the notebooks' imports and exported cells for `show_doc`; everything else shown is the committed
output. Pages go through Markdown to Sphinx, which needs no network and makes a search that works from a file."""
import argparse, ast, base64, re, shutil, sys, time, warnings
from pathlib import Path
from urllib.parse import unquote

root = Path(__file__).resolve().parent.parent
site,source,nbs = root/'_docs', root/'_proc', root/'nbs'
repo_files = root/'CHANGELOG.md', root/'CONTRIBUTING.md'
protocol = nbs/'studies'/'PROTOCOL.md'
captions = {'cli': 'Command line'} # of groups in the navigation that are not called by their name

number = r'(?:\d+[a-zA-Z]?_)?' # of a notebook in the reading order: `10_` in `10_schedule.cycle.ipynb`
# of fastai's callbacks, which every class of them takes
event_arguments = re.compile(r'\(\n {4}\*, after_create:NoneType=None,[^)]*\n\)')
# to a file that has a page too
file_link = re.compile(r'\]\((?:\.{0,2}/)*(?:nbs/|studies/)*(CHANGELOG|CONTRIBUTING|PROTOCOL)\.md\)')
notebook_link = re.compile(rf'\]\((?:\.{{0,2}}/)*(?:[\w-]+/)*{number}([\w.-]+)\.ipynb(#[^)]*)?\)')

def page_name(path):
    "`schedule.cycle` for `nbs/10_schedule.cycle.ipynb`: the name that nbdev's links to the module expect"
    return re.sub(f'^{number}', '', path.stem)

def group_name(path):
    "The heading above a notebook's page in the navigation: the folder it is in or, if that is nbs itself, its wing"
    if path.parent!=nbs: return path.parent.name
    return page_name(path).partition('.')[0]

def options(source):
    "Quarto's `#|` options at the top of a cell, and the code without them"
    lines = source.splitlines()
    n = next((i for i,l in enumerate(lines) if not l.startswith('#|')), len(lines))
    found = [re.match(r'#\|\s*([\w-]+)\s*(?::\s*(.*))?$', l) for l in lines[:n]]
    return {m[1]: (m[2] or '').strip().strip('"') for m in found if m}, '\n'.join(lines[n:]).strip()

def markdown_cell(text, doc_url):
    "Quarto's callouts as MyST admonitions, where any other div is an error, and links to notebooks as links to pages"
    text = re.sub(r'^:{3,}\s*\{\.callout-(note|tip|warning|important)[^}]*\}\s*\n(.*?)^:{3,}\s*$',
                  lambda m: f':::{{{m[1]}}}\n{m[2]}:::', text, flags=re.M|re.S)
    if (bad := re.search(r'^:{3,}\s*\{?\.(?!callout).*$', text, flags=re.M)):
        raise ValueError(f'a div that has no MyST form: {bad[0]}')
    return with_notebook_links(text, doc_url)

def with_notebook_links(text, doc_url):
    "Markdown whose links to notebooks go to their pages"
    return notebook_link.sub(lambda m: f']({doc_url}{m[1]}.html{m[2] or ""})', text)

def linked_to_pages(text, doc_url):
    "Markdown whose links to files and notebooks that have a page go there"
    return file_link.sub(lambda m: f']({m[1].lower()}.md)', with_notebook_links(text, doc_url))

def source_link(path, symbol):
    "nbdev's link to a symbol's source with the line, which nbdev doesn't find for what is taken from the module"
    line = definitions((root/path).read_text(encoding='utf-8')).get(symbol)
    if line is None: raise ValueError(f'{path}: {symbol} is not defined there')
    return f'{path}#L{line})'

def show_doc_output(text):
    "nbdev's `show_doc` without quarto's link attributes, with the anchor that nbdev's links expect"
    text = re.sub(r'(\[source\]\([^)]*\))\{[^}]*\}', r'\1', text).removeprefix('---\n\n')
    text = re.sub(r'(?<=/blob/main/)([\w/.]+)#LNone\)(?=\s*#+ (.+))',
                  lambda m: source_link(m[1], m[2].replace('\\', '')), text)
    text = re.sub(r'<function (\w+) at 0x\w+>', r'\1', text) # an address is another one in each build
    if '#LNone' in text or ' at 0x' in text: raise ValueError(f'a link without a line, or an address: {text}')
    text = event_arguments.sub('()', text)
    def anchor(m):
        slug = m[2].replace('\\', '').lower()
        return (f'<span id="{slug}"></span>\n\n' if not re.fullmatch('[a-z0-9-]+', slug) else '') + m[0]
    return re.sub(r'^(#{2,4}) (.+)$', anchor, text, flags=re.M)

def figure(png, opts, images, stem, for_readme):
    "Save a picture and refer to it, with its caption and alternative text"
    name = f'{stem}-{len(list(images.glob(f"{stem}-*.png")))+1}.png'
    (images/name).write_bytes(base64.b64decode(png))
    alt,cap = opts.get('fig-alt', ''), opts.get('fig-cap', '')
    if not alt: raise ValueError(f'{stem}: a figure needs fig-alt')
    if for_readme: return f'![{alt}]({images.relative_to(root).as_posix()}/{name})\n\n*{cap}*'
    return f'```{{figure}} {images.name}/{name}\n:alt: {alt}\n\n{cap}\n```'

def output(out, opts, images, stem, for_readme):
    "One output as Markdown; what went to stderr is left out"
    if out['output_type']=='stream':
        return '' if out.get('name')=='stderr' else f'```text\n{"".join(out["text"]).rstrip()}\n```'
    if out['output_type']=='error': raise ValueError(f'{stem}: a committed output is an error: {out["evalue"]}')
    data = {k: ''.join(v) if isinstance(v, list) else v for k,v in out['data'].items()}
    if 'image/png' in data: return figure(data['image/png'], opts, images, stem, for_readme)
    if opts.get('output')=='asis': return show_doc_output(data['text/markdown'])
    if 'text/html' in data: return re.sub(r'<style.*?</style>|\n\s*', '', data['text/html'], flags=re.S)
    return data.get('text/markdown') or f'```text\n{data["text/plain"].rstrip()}\n```'

def code_cell(cell, images, stem, for_readme):
    opts,code = options(cell.source)
    if opts.get('include')=='false': return ''
    parts = [] if opts.get('echo')=='false' or not code else [f'```python\n{code}\n```']
    if opts.get('output')!='false':
        parts += [output(o, opts, images, stem, for_readme) for o in cell.get('outputs', [])]
    return '\n\n'.join(filter(None, parts))

def patched_class(node):
    "The class that a function is patched onto, or None"
    is_patched = any(ast.unparse(decorator).startswith('patch') for decorator in node.decorator_list)
    return ast.unparse(node.args.args[0].annotation) if is_patched else None

def definitions(code):
    "The names that code defines, each with its line; methods with their class"
    found = {}
    for node in ast.parse(code).body:
        if isinstance(node, ast.Assign): found |= {t.id: node.lineno for t in node.targets if isinstance(t, ast.Name)}
        if isinstance(node, ast.FunctionDef):
            owner = patched_class(node)
            found[f'{owner}.{node.name}' if owner else node.name] = node.lineno
        if isinstance(node, ast.ClassDef):
            found[node.name] = node.lineno
            found |= {f'{node.name}.{f.name}': f.lineno for f in node.body if isinstance(f, ast.FunctionDef)}
    return found

def folded(code):
    "The code of helpers below a line with their names, to be opened by who wants to read it"
    names = definitions(code)
    marks = ''.join(f'<span id="{name.lower()}"></span>' for name in names)
    shown = ', '.join(f'<code>{name}</code>' for name in names)
    return f'<details>{marks}<summary>{shown}</summary>\n\n```python\n{code}\n```\n\n</details>'

def with_helpers(nb):
    "A notebook whose helpers, which nbdev leaves out of the docs, can be read where they stand"
    from fastcore.nbio import mk_cell
    cells = []
    for cell in nb.cells:
        cells.append(cell)
        if cell.cell_type=='code' and cell.source.startswith('#| exporti'):
            cells.append(mk_cell(folded(options(cell.source)[1]), 'markdown'))
    nb.cells = cells
    return nb

def notebook(path):
    "A notebook after nbdev's processors, with its title and description"
    from nbdev.processors import FilterDefaults, exec_show_docs
    from fastcore.nbio import read_nb
    module = f'fastai_clr_ext.{page_name(path)}'

    class ShowInstalled(exec_show_docs):
        "Take symbols from the module instead of the notebook's cells: comments and names are those that users see"
        def begin(self):
            super().begin()
            self.k.run_cell(f'import importlib; globals().update(vars(importlib.import_module({module!r})))')
        def __call__(self, cell):
            if not cell.source.startswith('#| export'): super().__call__(cell)

    class Filter(FilterDefaults):
        def base_procs(self):
            is_module = path.parent==nbs and path.stem!='index'
            return [ShowInstalled if is_module and p is exec_show_docs else p for p in super().base_procs()]

    nb = with_helpers(read_nb(path))
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        nb = Filter()(nb) or nb
    return nb, nb.frontmatter_['title'], nb.frontmatter_['description']

def to_markdown(path, images, for_readme=False):
    "A notebook as one Markdown page, its pictures in `images`"
    from nbdev.config import get_config
    doc_url = get_config(root).doc_url
    nb,title,description = notebook(path)
    images.mkdir(parents=True, exist_ok=True)
    for old in images.glob(f'{page_name(path)}-*.png'): old.unlink()
    parts = [f'# {title}', f'> {description}']
    for cell in nb.cells:
        if cell.cell_type=='markdown' and not cell.source.startswith('<!-- WARNING'):
            parts.append(markdown_cell(cell.source, doc_url))
        if cell.cell_type=='code': parts.append(code_cell(cell, images, page_name(path), for_readme))
    return '\n\n'.join(p.strip() for p in parts if p and p.strip()) + '\n'

def readme():
    return ('<!-- Made from nbs/index.ipynb by `python docs/build.py --readme`; edit the notebook. -->\n\n'
            + to_markdown(nbs/'index.ipynb', root/'docs'/'images', for_readme=True))

def check_readme():
    "Whether README.md says what the index notebook says"
    images = root/'docs'/'images'
    text = (root/'README.md').read_text(encoding='utf-8')
    before = {p: p.read_bytes() for p in images.glob('*.png')}
    same = readme()==text and before=={p: p.read_bytes() for p in images.glob('*.png')}
    print('README.md is in step with nbs/index.ipynb' if same
          else 'README.md is not in step: python docs/build.py --readme')
    return same

def pages():
    "The notebooks of all pages but the first one, in reading order"
    return [p for p in sorted(nbs.rglob('*.ipynb')) if '.ipynb_checkpoints' not in p.parts and p!=nbs/'index.ipynb']

def navigation(paths):
    "The pages under their headings: first what is read from top to bottom, then the wings, then what else there is"
    groups = {name: [] for name in ('tutorials', 'atlas', 'studies')}
    for path in paths: groups.setdefault(group_name(path), []).append(page_name(path))
    groups['studies'].append(protocol.stem.lower())
    groups['project'] = [path.stem.lower() for path in repo_files]
    return {name: pages for name,pages in groups.items() if pages}

def toctree(name, pages):
    "A part of the navigation, which the page itself does not show"
    caption = captions.get(name, name.capitalize())
    return '\n'.join(['```{toctree}', ':hidden:', f':caption: {caption}', '', *pages, '```', ''])

def index_page(paths):
    "The first page, with the navigation of them all"
    text = to_markdown(nbs/'index.ipynb', source/'images')
    return '\n'.join([text, *(toctree(name, pages) for name,pages in navigation(paths).items())])

def anchors(text):
    "What links to a page's headings and symbols can name"
    headings = re.findall(r'^#{1,4} (.+)$', text, flags=re.M)
    return {heading.lower() for heading in headings} | set(re.findall(r'<span id="([^"]+)">', text))

def unlink_undocumented(texts, doc_url):
    "The pages, where the name of a helper that no page documents is code without the link that nbdev gives it"
    known = {name: anchors(text) for name,text in texts.items()}
    symbol_link = re.compile(rf'\[(`[^`\n]+`)\]\({re.escape(doc_url)}([\w.-]+)\.html#([^)\s]+)\)')
    def keep(link): return link[0] if link[3] in known.get(link[2], ()) else link[1]
    return {name: symbol_link.sub(keep, text) for name,text in texts.items()}

def write_source(doc_url):
    "All pages as Markdown in `_proc`; returns how many they are"
    from fastai_clr_ext.core.pages import SORT_CSS, SORT_SCRIPT
    shutil.rmtree(source, ignore_errors=True)
    paths = pages()
    if len({page_name(p) for p in paths})!=len(paths): raise ValueError('two notebooks would have the same page')
    texts = {page_name(p): to_markdown(p, source/'images') for p in paths}
    texts |= {path.stem.lower(): path.read_text(encoding='utf-8') for path in (*repo_files, protocol)}
    texts['index'] = index_page(paths)
    texts = {name: linked_to_pages(text, doc_url) for name,text in texts.items()}
    texts = unlink_undocumented(texts, doc_url)
    for name,text in texts.items(): (source/f'{name}.md').write_text(text, encoding='utf-8')
    for name in ('conf.py', 'docs.css'): shutil.copy(Path(__file__).parent/name, source)
    (source/'tables.js').write_text(SORT_SCRIPT, encoding='utf-8')
    (source/'tables.css').write_text(SORT_CSS, encoding='utf-8')
    return len(texts)

def localise(doc_url):
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

def dead_docstrings(doc_url):
    "Links in docstrings of modules whose page isn't there"
    found = []
    for module in sorted((root/'fastai_clr_ext').rglob('*.py')):
        text = module.read_text(encoding='utf-8')
        for page in re.findall(rf'^Docs: {re.escape(doc_url)}(\S+?)"*$', text, flags=re.M):
            if not (site/page).exists(): found.append((module.name, page))
    return found

def build():
    "Write the site; warnings and dead links are errors"
    from nbdev.config import get_config
    from sphinx.cmd.build import main as sphinx
    start = time.time()
    doc_url = get_config(root).doc_url
    n_pages = write_source(doc_url)
    shutil.rmtree(site, ignore_errors=True)
    if sphinx(['-q', '-W', '--keep-going', '-b', 'html', str(source), str(site)]): return False
    shutil.copytree(nbs/'atlas'/'records', site/'records')
    localise(doc_url)
    copy_markdown()
    dead = dead_links() + dead_docstrings(doc_url)
    for page,href in dead: print(f'{page}: dead link {href}')
    print(f'{n_pages} pages in {site.name}/index.html, {time.time()-start:.0f} s')
    return not dead

if __name__=='__main__':
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--readme', action='store_true', help='write README.md from nbs/index.ipynb')
    parser.add_argument('--check', action='store_true', help='check that README.md is in step')
    args = parser.parse_args()
    if args.readme: (root/'README.md').write_text(readme(), encoding='utf-8')
    elif not (check_readme() if args.check else build()): sys.exit(1)
