"""Build the documentation from the notebooks: `python docs/build.py` writes the site to `_docs`,
`python docs/build.py --readme` writes README.md from nbs/index.ipynb, `--check` says whether README.md is in step.

nbdev's processors run the notebooks' imports and exported cells for `show_doc`; everything else shown is the committed
output. Pages go through Markdown to Sphinx, which needs no network and makes a search that works from a file."""
import argparse, base64, re, shutil, sys, time, warnings
from pathlib import Path
from urllib.parse import unquote

root = Path(__file__).resolve().parent.parent
site,source,nbs = root/'_docs', root/'_proc', root/'nbs'
repo_files = ('CHANGELOG.md', 'CONTRIBUTING.md')

def page_name(path): return re.sub(r'^\d+[a-zA-Z]?_', '', path.stem)

def options(source):
    "Quarto's `#|` options at the top of a cell, and the code without them"
    lines = source.splitlines()
    n = next((i for i,l in enumerate(lines) if not l.startswith('#|')), len(lines))
    found = [re.match(r'#\|\s*([\w-]+)\s*(?::\s*(.*))?$', l) for l in lines[:n]]
    return {m[1]: (m[2] or '').strip().strip('"') for m in found if m}, '\n'.join(lines[n:]).strip()

def markdown_cell(text):
    "Quarto's callouts as MyST admonitions; any other div is an error"
    text = re.sub(r'^:{3,}\s*\{\.callout-(note|tip|warning|important)[^}]*\}\s*\n(.*?)^:{3,}\s*$',
                  lambda m: f':::{{{m[1]}}}\n{m[2]}:::', text, flags=re.M|re.S)
    if (bad := re.search(r'^:{3,}\s*\{?\.(?!callout).*$', text, flags=re.M)):
        raise ValueError(f'a div that has no MyST form: {bad[0]}')
    return re.sub(r'\]\((?:\.\./)*(?:[\w/]*/)?(?:\d+[a-zA-Z]?_)?([\w.]+)\.ipynb(#[^)]*)?\)',
                  lambda m: f']({m[1]}.html{m[2] or ""})', text)

def show_doc_output(text):
    "nbdev's `show_doc` without quarto's link attributes, with the anchor that nbdev's links expect"
    text = re.sub(r'(\[source\]\([^)]*\))\{[^}]*\}', r'\1', text).removeprefix('---\n\n')
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

def notebook(path):
    "A notebook after nbdev's processors, with its title and description"
    from nbdev.processors import FilterDefaults
    from fastcore.nbio import read_nb
    nb = read_nb(path)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        nb = FilterDefaults()(nb) or nb
    return nb, nb.frontmatter_['title'], nb.frontmatter_['description']

def to_markdown(path, images, for_readme=False):
    "A notebook as one Markdown page, its pictures in `images`"
    nb,title,description = notebook(path)
    images.mkdir(parents=True, exist_ok=True)
    for old in images.glob(f'{page_name(path)}-*.png'): old.unlink()
    parts = [f'# {title}', f'> {description}']
    for cell in nb.cells:
        if cell.cell_type=='markdown' and not cell.source.startswith('<!-- WARNING'):
            parts.append(markdown_cell(cell.source))
        if cell.cell_type=='code': parts.append(code_cell(cell, images, page_name(path), for_readme))
    return '\n\n'.join(p.strip() for p in parts if p and p.strip()) + '\n'

def readme():
    return ('<!-- Made from nbs/index.ipynb by `python docs/build.py --readme`; edit the notebook. -->\n\n'
            + to_markdown(nbs/'index.ipynb', root/'docs'/'images', for_readme=True))

def check_readme():
    "Whether README.md says what the index notebook says"
    text,images = (root/'README.md').read_text(encoding='utf-8'), root/'docs'/'images'
    before = {p: p.read_bytes() for p in images.glob('*.png')}
    same = readme()==text and before=={p: p.read_bytes() for p in images.glob('*.png')}
    print('README.md is in step with nbs/index.ipynb' if same
          else 'README.md is not in step: python docs/build.py --readme')
    return same

def write_source():
    "All pages as Markdown; their names in the order of the notebooks"
    shutil.rmtree(source, ignore_errors=True)
    paths = [p for p in sorted(nbs.rglob('*.ipynb')) if '.ipynb_checkpoints' not in p.parts and p.stem!='index']
    if len({page_name(p) for p in paths})!=len(paths): raise ValueError('two notebooks would have the same page')
    for p in paths: (source/f'{page_name(p)}.md').write_text(to_markdown(p, source/'images'), encoding='utf-8')
    for name in repo_files: (source/name.lower()).write_text((root/name).read_text(encoding='utf-8'), encoding='utf-8')
    names = [page_name(p) for p in paths] + [Path(n.lower()).stem for n in repo_files]
    toc = '```{toctree}\n:hidden:\n\n' + '\n'.join(names) + '\n```\n'
    index = re.sub(r'\]\((CHANGELOG|CONTRIBUTING)\.md\)', lambda m: f']({m[1].lower()}.md)',
                   to_markdown(nbs/'index.ipynb', source/'images'))
    (source/'index.md').write_text(index + '\n' + toc, encoding='utf-8')
    shutil.copy(Path(__file__).parent/'conf.py', source)
    return names

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
        return page.endswith('.html') and (page not in pages or (anchor and unquote(anchor) not in ids[page]))
    return sorted(l for l in links if dead(*l))

def build():
    "Write the site; warnings and dead links are errors"
    from nbdev.config import get_config
    from sphinx.cmd.build import main as sphinx
    start,names = time.time(),write_source()
    shutil.rmtree(site, ignore_errors=True)
    if sphinx(['-q', '-W', '--keep-going', '-b', 'html', str(source), str(site)]): return False
    localise(get_config().doc_url)
    dead = dead_links()
    for page,href in dead: print(f'{page}: dead link {href}')
    print(f'{len(names)+1} pages in {site.name}/index.html, {time.time()-start:.0f} s')
    return not dead

if __name__=='__main__':
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--readme', action='store_true', help='write README.md from nbs/index.ipynb')
    parser.add_argument('--check', action='store_true', help='check that README.md is in step')
    args = parser.parse_args()
    if args.readme: (root/'README.md').write_text(readme(), encoding='utf-8')
    elif not (check_readme() if args.check else build()): sys.exit(1)
