"""A public name on its page: its signature, what it does, a table of its parameters, and a link to its source."""
import ast, html, importlib, inspect, re
from functools import cached_property, lru_cache
from pathlib import Path
from fastai.callback.core import event
from fastai.learner import Recorder
from fastcore.docments import docments, qual_name
from nbdev.config import get_config

root = Path(__file__).resolve().parent.parent
package,nbs = root/'fastai_clr_ext', root/'nbs'
doc_url,git_url = get_config(root).doc_url, get_config(root).git_url
number = r'(?:\d+[a-zA-Z]?_)?' # of a notebook in the reading order: `10_` in `10_schedule.cycle.ipynb`

def page_name(path):
    "`schedule.cycle` for `nbs/10_schedule.cycle.ipynb`: the name that nbdev's links to the module expect"
    return re.sub(f'^{number}', '', path.stem)

def patched_class(node):
    "The class that a function is patched onto, or None"
    is_patched = any(ast.unparse(decorator).startswith('patch') for decorator in node.decorator_list)
    return ast.unparse(node.args.args[0].annotation) if is_patched else None

def definitions(code):
    "The names that code defines, each with its line; methods with their class"
    found = {}
    for node in ast.parse(code).body:
        if isinstance(node, ast.Assign): # a name, or an attribute such as `Recorder.history`
            named = [t for t in node.targets if isinstance(t, (ast.Name, ast.Attribute))]
            found |= {ast.unparse(t): node.lineno for t in named}
        if isinstance(node, ast.FunctionDef):
            owner = patched_class(node)
            found[f'{owner}.{node.name}' if owner else node.name] = node.lineno
        if isinstance(node, ast.ClassDef):
            found[node.name] = node.lineno
            found |= {f'{node.name}.{f.name}': f.lineno for f in node.body if isinstance(f, ast.FunctionDef)}
    return found

@lru_cache(maxsize=None)
def module_lines(module):
    "The lines of one of our modules: `schedule.cycle`"
    return (package/f'{module.replace(".", "/")}.py').read_text(encoding='utf-8').splitlines()

@lru_cache(maxsize=None)
def module_definitions(module):
    "`definitions` of one of our modules"
    return definitions('\n'.join(module_lines(module)))

def modules(wing=''):
    "The modules of a wing, or of all, in the order in which they build on each other: `['schedule.phase', ...]`"
    names = [page_name(path) for path in sorted(nbs.glob('*.ipynb'))]
    return [name for name in names if '.' in name and name.startswith(wing)]

def imported(module): return importlib.import_module(f'fastai_clr_ext.{module}')

def member(module, name):
    "The object that a public name of a module stands for: `Learner.resume_fit` as well as `Cycle`"
    owner,_,attribute = name.partition('.')
    found = getattr(imported(module), owner)
    return inspect.getattr_static(found, attribute) if attribute else found

def public_names(module):
    "The names that a module defines for its users, methods and properties of classes among them"
    return [name for name in module_definitions(module) if is_public(module, name)]

def entry_names(module):
    "The public names of a module that have an entry on its page: all but constants, which stand among the code"
    return [name for name in public_names(module) if not is_constant(module, name)]

def is_constant(module, name):
    "Whether a name is a plain value, which stands among the code and has no entry"
    return bool(re.match(r'\w+ = ', module_lines(module)[module_definitions(module)[name]-1]))

def is_shown(module, owner, attribute):
    "Whether a reader wants to know of a method: it has a docstring, and is no answer to an event or to a base class"
    cls = getattr(imported(module), owner)
    if attribute.startswith('_') or attribute in vars(event): return False
    is_ours = cls.__module__.startswith('fastai_clr_ext')
    if is_ours and any(hasattr(base, attribute) for base in cls.__mro__[1:]): return False
    return bool(doc_of(inspect.getattr_static(cls, attribute)))

def is_public(module, name):
    "Whether a name is for users: it is exported, or a method that is shown of a class that is exported or fastai's"
    owner,_,attribute = name.partition('.')
    if not attribute: return owner in imported(module).__all__
    cls = getattr(imported(module), owner)
    if not is_shown(module, owner, attribute): return False
    home = cls.__module__
    return not home.startswith('fastai_clr_ext') or owner in importlib.import_module(home).__all__

def function_of(sym):
    "The function behind a property, a decorated or a class method; any other object itself"
    if isinstance(sym, property): sym = sym.fget
    if isinstance(sym, cached_property): sym = sym.func
    if is_classmethod(sym): sym = getattr(sym, '__func__', None) or sym.f # Python's, and that of fastcore's `patch`
    return inspect.unwrap(getattr(sym, '__func__', sym))

def is_classmethod(sym): return isinstance(sym, classmethod) or type(sym).__name__=='_clsmethod'

def doc_of(sym):
    "A docstring; that of a property may be its own"
    return inspect.getdoc(function_of(sym)) or (inspect.getdoc(sym) if isinstance(sym, property) else '') or ''

def type_text(annotation):
    "An annotation as it is written: `str | Path | None`"
    if annotation is inspect.Parameter.empty or annotation is None: return ''
    if inspect.isfunction(annotation): return annotation.__name__ # fastcore's types of command line arguments
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    return re.sub(r'\b(?:\w+\.)+(\w+)', r'\1', text)

def default_text(value):
    "A default as it is written in code; a function by its name"
    return getattr(value, '__name__', None) or repr(value)

def parameters(sym):
    "What can be given to a function or class, without the events that fastai's callbacks take; and what it returns"
    found = docments(function_of(sym), full=True, returns=True)
    events = set(vars(event))
    returned = found.pop('return', None)
    stars = inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD
    def is_told(name, about): return name not in {'self', 'cls', *events} and (about.docment or about.kind not in stars)
    return {name: about for name,about in found.items() if is_told(name, about)}, returned

def call_text(params):
    "The parameters of a call in parentheses, with the defaults and where they must be named"
    parts,is_named = [],False
    for name,about in params.items():
        kind = about.kind
        if kind is inspect.Parameter.KEYWORD_ONLY and not is_named: parts.append('*')
        is_named = is_named or kind in (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_POSITIONAL)
        stars = {inspect.Parameter.VAR_POSITIONAL: '*', inspect.Parameter.VAR_KEYWORD: '**'}.get(kind, '')
        has_default = about.default is not inspect.Parameter.empty
        parts.append(stars + name + (f'={default_text(about.default)}' if has_default else ''))
    return f'({", ".join(parts)})'

def cell(text, is_code=False):
    "Text for a cell of a Markdown table; code so that nobody takes a parameter's name for that of a function"
    if is_code: text = f'<code>{html.escape(text, quote=False)}</code>' if text else ''
    return ' '.join(text.split()).replace('|', r'&#124;' if is_code else r'\|')

def as_table(lines, kind):
    "Lines of a Markdown table as a table that docs.css knows"
    return '\n'.join([':::{table}', f':class: {kind}', '', *lines, ':::'])

def parameter_table(params, returned):
    "A row for each parameter and one for what is returned; '' if there is nothing to say"
    rows = []
    for name,about in params.items():
        default = '' if about.default is inspect.Parameter.empty else default_text(about.default)
        codes = [cell(text, is_code=True) for text in (name, type_text(about.anno), default)]
        rows.append([*codes, cell(about.docment or '')])
    if returned and (returned.docment or type_text(returned.anno)):
        rows.append(['*returns*', cell(type_text(returned.anno), is_code=True), '', cell(returned.docment or '')])
    if not rows: return ''
    head = ['| parameter | type | default | meaning |', '|---|---|---|---|']
    lines = head + [f'| {" | ".join(row)} |' for row in rows]
    return as_table(lines, 'parameters')

def value_text(returned):
    "The type and the meaning of a property"
    kind = type_text(returned.anno) if returned else ''
    return ': '.join(filter(None, [f'<code>{html.escape(kind, quote=False)}</code>' if kind else '',
                                   (returned.docment or '') if returned else '']))

def slug(name): return name.lower()

def anchor(name):
    "What nbdev's links to a name expect on its page"
    return f'<span id="{slug(name)}"></span>'

def source_link(module, name):
    "A link to the line where a name is defined"
    line = module_definitions(module)[name]
    path = f'fastai_clr_ext/{module.replace(".", "/")}.py'
    return f'<a class="source" href="{git_url}/blob/main/{path}#L{line}">source</a>'

def other_members(module, name):
    "A sentence with links to the methods of a class that are on other pages"
    links = []
    for other in modules():
        if other==module: continue
        for found in module_definitions(other):
            owner,_,attribute = found.partition('.')
            if owner!=name or attribute.startswith('_') or owner in module_definitions(other): continue
            links.append(f'[`{attribute}`]({doc_url}{other}.html#{slug(found)})')
    return f'On other pages: {", ".join(links)}.' if links else ''

def also_on_recorder(name):
    "What to write in a notebook for a method that both a history and a learner's recorder have"
    owner,_,method = name.partition('.')
    if owner!='RunHistory' or method not in vars(Recorder): return ''
    return f"In a notebook: `learn.recorder.{method}`, which takes the same arguments."

def kind_of(sym, name):
    "Sphinx's word for what a name stands for"
    if isinstance(sym, (property, cached_property)): return 'property'
    if inspect.isclass(sym): return 'class'
    if is_classmethod(sym): return 'classmethod'
    return 'method' if '.' in name else 'function'

def module_of(sym): return function_of(sym).__module__.removeprefix('fastai_clr_ext.')

def entry(sym, name=None):
    "A name with its signature, docstring and parameters; a class with the methods in its body"
    name = name or qual_name(sym)
    kind = kind_of(sym, name)
    module = module_of(sym)
    params,returned = parameters(sym)
    fence = ':'*(5 if kind=='class' else 4)
    signature = '' if kind=='property' else call_text(params)
    parts = [anchor(name), f'{fence}{{py:{kind}}} {name}{signature}', source_link(module, name),
             doc_of(sym), also_on_recorder(name),
             value_text(returned) if kind=='property' else parameter_table(params, returned)]
    if kind=='class':
        body = [n for n in public_names(module) if n.startswith(f'{name}.') and is_in_body(module, n)]
        parts += [entry(inspect.getattr_static(sym, n.partition('.')[2]), n) for n in body]
        parts.append(other_members(module, name))
    text = '\n\n'.join(filter(None, [*parts, fence]))
    if ' at 0x' in text: raise ValueError(f'an address, which is another one in each build: {text}')
    return text

def folded(code, without=()):
    "The code of helpers below a line with their names, but for those that have entries, to be opened by who wants to"
    names = [name for name in definitions(code) if name not in without]
    marks = ''.join(anchor(name) for name in names)
    shown = ', '.join(f'<code>{name}</code>' for name in names)
    return f'<details>{marks}<summary>{shown}</summary>\n\n```python\n{code}\n```\n\n</details>'

class Shown:
    "What stands in a notebook's page for `show_doc(sym)`"
    def __init__(self, sym):
        is_for_users = is_public(module_of(sym), qual_name(sym))
        self.text = entry(sym) if is_for_users else folded(inspect.getsource(function_of(sym)).rstrip())
    def _repr_markdown_(self): return self.text

def is_in_body(module, name):
    "Whether a method is defined in its class, not patched onto it: its line is indented"
    return module_lines(module)[module_definitions(module)[name]-1].startswith(' ')

def first_sentence(module, name):
    "What a name is, in a line"
    return doc_of(member(module, name)).split('\n')[0]

def name_table(module):
    "The public names of a module in a table, each with a link and a line"
    names = [name for name in entry_names(module) if not is_in_its_class(module, name)]
    return table_of([row_of(module, name) for name in names]) if names else ''

def is_in_its_class(module, name):
    "Whether a name is a method of a class of the same module, where it is shown with the class"
    owner,_,method = name.partition('.')
    return bool(method) and owner in module_definitions(module)

def table_of(rows):
    "A table of `(link, line)`"
    lines = [f'| {link} | {cell(line)} |' for link,line in rows]
    return as_table(['| name | what it does |', '|---|---|', *lines], 'names')

def row_of(module, name, shown=None):
    "A name as a link, and what it is"
    return f'[`{shown or name}`]({doc_url}{module}.html#{slug(name)})', first_sentence(module, name)

def names_page():
    "What a user types, on one page: methods of a learner and its recorder, and the names of `all`"
    exported = vars(imported('all'))
    learner,recorder,others = {}, {}, {}
    for module in modules():
        for name in entry_names(module):
            owner,_,method = name.partition('.')
            is_on_recorder = owner=='Recorder' or (owner=='RunHistory' and method in vars(Recorder))
            if owner=='Learner': learner[name] = row_of(module, name, f'learn.{method}')
            elif is_on_recorder: recorder[method] = row_of(module, name, f'learn.recorder.{method}')
            elif name in exported: others[name] = row_of(module, name)
    about = '> Everything that a notebook needs, by what you type. The pages of the wings have the rest.'
    tables = {'On a learner': learner, 'On its recorder': recorder, 'From `fastai_clr_ext.all`': others}
    parts = ['# All names', about]
    for title,rows in tables.items(): parts += [f'## {title}', table_of(rows.values())]
    return '\n\n'.join(parts) + '\n'

def wing_page(wing, subtitles):
    "The page of a wing: what each module is for, with its public names"
    about = inspect.getdoc(imported(wing))
    parts = [f'# {wing}', f'> {about}']
    for module in modules(f'{wing}.'):
        parts += [f'## [{module}]({doc_url}{module}.html)', subtitles[module], name_table(module)]
    return '\n\n'.join(filter(None, parts)) + '\n'
