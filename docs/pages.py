"""From a notebook to a page in Markdown, by nbdev's processors.

They run the notebook's imports and exported cells; everything else shown is the committed output."""
import ast, base64, re, warnings
from fastcore.nbio import mk_cell, read_nb
from nbdev.processors import FilterDefaults, exec_show_docs
from .reference import (
    Shown, definitions, doc_url, entry, entry_names, folded, imported, member, nbs, number, page_name, root)

# to a file that has a page too
file_link = re.compile(r'\]\((?:\.{0,2}/)*(?:nbs/|studies/)*(CHANGELOG|CONTRIBUTING|PROTOCOL)\.md\)')
notebook_link = re.compile(rf'\]\((?:\.{{0,2}}/)*(?:[\w-]+/)*{number}([\w.-]+)\.ipynb(#[^)]*)?\)')

def options(source):
    "Quarto's `#|` options at the top of a cell, and the code without them"
    lines = source.splitlines()
    n = next((i for i,l in enumerate(lines) if not l.startswith('#|')), len(lines))
    found = [re.match(r'#\|\s*([\w-]+)\s*(?::\s*(.*))?$', l) for l in lines[:n]]
    return {m[1]: (m[2] or '').strip().strip('"') for m in found if m}, '\n'.join(lines[n:]).strip()

def markdown_cell(text):
    "Quarto's callouts as MyST admonitions, where any other div is an error"
    text = re.sub(r'^:{3,}\s*\{\.callout-(note|tip|warning|important)[^}]*\}\s*\n(.*?)^:{3,}\s*$',
                  lambda m: f':::{{{m[1]}}}\n{m[2]}:::', text, flags=re.M|re.S)
    if (bad := re.search(r'^:{3,}\s*\{?\.(?!callout).*$', text, flags=re.M)):
        raise ValueError(f'a div that has no MyST form: {bad[0]}')
    return text

def without_links_in_links(text):
    "Markdown where a name that nbdev linked within a link has only the link that the author wrote"
    return re.sub(r'\[\[(`[^`\n]+`)\]\([^)\n]*\)\]\(', r'[\1](', text)

def with_page_links(text):
    "Markdown whose links to notebooks go to their pages"
    return notebook_link.sub(lambda m: f']({doc_url}{m[1]}.html{m[2] or ""})', without_links_in_links(text))

def with_file_links(text):
    "Markdown whose links to other files that have a page go there"
    return file_link.sub(lambda m: f']({m[1].lower()}.md)', text)

def figure(png, opts, images, stem, for_readme):
    "Save a picture and refer to it, with its caption and alternative text"
    name = f'{stem}-{len(list(images.glob(f"{stem}-*.png")))+1}.png'
    (images/name).write_bytes(base64.b64decode(png))
    alt,cap = opts.get('fig-alt', ''), opts.get('fig-cap', '')
    if not alt: raise ValueError(f'{stem}: a figure needs fig-alt')
    if for_readme: return f'![{alt}]({images.relative_to(root).as_posix()}/{name})\n\n*{cap}*'
    options = [f':alt: {alt}'] + ([f':figclass: {opts["classes"]}'] if 'classes' in opts else [])
    return '\n'.join([f'```{{figure}} {images.name}/{name}', *options, '', cap, '```'])

def output(out, opts, images, stem, for_readme):
    "One output as Markdown; what went to stderr is left out"
    if out['output_type']=='stream':
        return '' if out.get('name')=='stderr' else f'```text\n{"".join(out["text"]).rstrip()}\n```'
    if out['output_type']=='error': raise ValueError(f'{stem}: a committed output is an error: {out["evalue"]}')
    data = {k: ''.join(v) if isinstance(v, list) else v for k,v in out['data'].items()}
    if 'image/png' in data: return figure(data['image/png'], opts, images, stem, for_readme)
    if opts.get('output')=='asis': return data['text/markdown']
    if 'text/html' in data: return re.sub(r'<style.*?</style>|\n\s*', '', data['text/html'], flags=re.S)
    if re.match(r'<Axes|\d+ Axes:', data['text/plain']): return '' # of a figure that is shown beside it
    return data.get('text/markdown') or f'```text\n{data["text/plain"].rstrip()}\n```'

def code_cell(cell, images, stem, for_readme):
    opts,code = options(cell.source)
    if opts.get('include')=='false': return ''
    parts = [] if opts.get('echo')=='false' or not code else [f'```python\n{code}\n```']
    if opts.get('output')!='false':
        parts += [output(o, opts, images, stem, for_readme) for o in cell.get('outputs', [])]
    return '\n\n'.join(filter(None, parts))

def is_shown_by_nbdev(code):
    "Whether an exported cell defines a function or class: nbdev adds `show_doc` for these, and for nothing else"
    kinds = ast.FunctionDef, ast.ClassDef
    return any(isinstance(node, kinds) and not node.name.startswith('_') for node in ast.parse(code).body)

def with_helpers(nb, module):
    "A notebook with what nbdev leaves out: methods of cells that export no name, and helpers and constants as code"
    cells = []
    for cell in nb.cells:
        cells.append(cell)
        if cell.cell_type!='code' or not cell.source.startswith('#| export'): continue
        code = options(cell.source)[1]
        if not cell.source.startswith('#| exporti') and is_shown_by_nbdev(code): continue
        public = [name for name in definitions(code) if name in entry_names(module)]
        cells += [mk_cell(entry(member(module, name), name), 'markdown') for name in public]
        if len(public)<len(definitions(code)): cells.append(mk_cell(folded(code, public), 'markdown'))
    nb.cells = cells
    return nb

def notebook(path):
    "A notebook after nbdev's processors, with its title and description"
    module = page_name(path)

    class ShowInstalled(exec_show_docs):
        "Take symbols from the module instead of the notebook's cells: comments and names are those that users see"
        def begin(self):
            super().begin()
            self.k.user_ns.update(vars(imported(module)) | {'show_doc': Shown})
        def __call__(self, cell):
            if not cell.source.startswith('#| export'): super().__call__(cell)

    class Filter(FilterDefaults):
        def base_procs(self):
            is_module = path.parent==nbs and path.stem!='index'
            return [ShowInstalled if is_module and p is exec_show_docs else p for p in super().base_procs()]

    nb = with_helpers(read_nb(path), module)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        nb = Filter()(nb) or nb
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
    return with_page_links('\n\n'.join(p.strip() for p in parts if p and p.strip())) + '\n'
