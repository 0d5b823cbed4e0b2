"How the code reads, measured on every run: sizes, density, names, documentation, and the order of imports"
import ast, json, re, statistics
from functools import cache
from pathlib import Path
import pytest

root = Path(__file__).parent.parent
package = root/'fastai_clr_ext'
hand_written = ('__init__.py', '_modidx.py')

# The wings of the package: each one imports only from those before it, and some pairs not at all.
WINGS = ['core', 'schedule', 'record', 'train', 'plot', 'situations', 'compare', 'cli']
APART = [{'train', 'plot'}]

# fastai's callback events explain themselves: a method of that name needs no docstring.
EVENTS = {f'{when}_{what}' for when in ('before', 'after')
          for what in ('create', 'fit', 'epoch', 'train', 'batch', 'pred', 'loss', 'backward', 'step', 'validate')}
EVENTS |= {f'after_cancel_{what}' for what in ('batch', 'train', 'validate', 'epoch', 'fit', 'step', 'backward')}

COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
COMPOUND = (*FUNCTIONS, ast.ClassDef, ast.If, ast.For, ast.While, ast.With, ast.Try)

class Module:
    "A module's text and syntax tree, under the name it has inside the package"
    def __init__(self, path, package):
        self.name = path.relative_to(package).with_suffix('').as_posix().replace('/', '.')
        self.text = path.read_text(encoding='utf-8')
        self.lines = self.text.splitlines()
        self.tree = ast.parse(self.text)
        self.nodes = list(ast.walk(self.tree))
        self.functions = [node for node in self.nodes if isinstance(node, FUNCTIONS)]
        self.classes = [node for node in self.nodes if isinstance(node, ast.ClassDef)]

    @property
    def n_lines(self):
        "Lines that a reader reads: no blank ones, and none of nbdev's cell marks"
        return sum(bool(line.strip()) and not line.startswith('# %%') for line in self.lines)

@cache
def modules(package):
    "All modules of a package that are made from notebooks, and `all`"
    return [Module(path, package) for path in sorted(package.rglob('*.py')) if path.name not in hand_written]

# ---- what is measured

def inner(node, kind):
    "The nodes of one kind below a node, without the node itself"
    return [n for n in ast.walk(node) if isinstance(n, kind) and n is not node]

def is_plain(node):
    "Whether an expression is read at a glance: a name, an attribute, a constant, an empty list, dict or tuple"
    if isinstance(node, (ast.Name, ast.Attribute, ast.Constant)): return True
    return isinstance(node, (ast.List, ast.Dict, ast.Tuple)) and len(list(ast.iter_child_nodes(node)))<=1

def is_nested(comprehension):
    "Whether a comprehension loops over another one, or two more stand inside each other in it"
    for generator in comprehension.generators:
        if any(isinstance(node, COMPREHENSIONS) for node in ast.walk(generator.iter)): return True
    return any(inner(node, COMPREHENSIONS) for node in inner(comprehension, COMPREHENSIONS))

def assigns_several(statement):
    "Whether a statement unpacks a tuple of which two values or more need thought"
    if not isinstance(statement, ast.Assign): return False
    if not isinstance(statement.value, ast.Tuple) or not isinstance(statement.targets[0], ast.Tuple): return False
    return sum(not is_plain(value) for value in statement.value.elts)>1

def why_dense(statement):
    "Why a statement needs a second reading, or an empty text"
    comprehensions = inner(statement, COMPREHENSIONS)
    if any(len(c.generators)>2 for c in comprehensions): return 'three loops in one expression'
    if any(is_nested(c) for c in comprehensions): return 'comprehensions nested'
    if len(comprehensions)>2: return 'three comprehensions'
    if any(inner(node, ast.IfExp) for node in inner(statement, ast.IfExp)): return 'conditional in a conditional'
    if any(inner(c, ast.NamedExpr) for c in comprehensions): return 'walrus in a comprehension'
    if assigns_several(statement): return 'several things assigned at once'
    return ''

def dense_statements(package):
    "Where the dense statements are, and why they are called so"
    found = []
    for module in modules(package):
        for node in module.nodes:
            if not isinstance(node, ast.stmt) or isinstance(node, COMPOUND): continue
            why = why_dense(node)
            if why: found.append(f'{module.name}:{node.lineno} {why}')
    return found

def n_lines(package): return sum(module.n_lines for module in modules(package))

def body_length(function):
    "Lines of a function's body, its docstring left out"
    body = function.body
    if ast.get_docstring(function) is not None and len(body)>1: body = body[1:]
    return function.end_lineno - body[0].lineno + 1

def body_lengths(package):
    "The length of every function's body, with its name, shortest first"
    return sorted((body_length(f), f'{module.name}:{f.name}') for module in modules(package) for f in module.functions)

def is_private(name): return name.startswith('_') and not name.startswith('__')

def private_imports(package):
    "Private names that a module imports from another one of the package"
    found = []
    for module in modules(package):
        for node in module.nodes:
            if not isinstance(node, ast.ImportFrom): continue
            if not node.level and not (node.module or '').startswith(package.name): continue
            found += [f'{module.name}: {alias.name}' for alias in node.names if is_private(alias.name)]
    return found

def defined_names(module):
    "Functions, classes and variables that a module defines at its top"
    for node in module.tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [node]
        for target in targets:
            name = getattr(target, 'name', None) or getattr(target, 'id', None)
            if name: yield name

def private_twice(package):
    "Private names that several modules define"
    homes = {}
    for module in modules(package):
        for name in filter(is_private, defined_names(module)): homes.setdefault(name, set()).add(module.name)
    return {name: sorted(where) for name,where in homes.items() if len(where)>1}

def public_functions(module):
    "Functions and methods that are not private and not an event of fastai"
    return [f for f in module.functions if not f.name.startswith('_') and f.name not in EVENTS]

def undocumented(package):
    "Public functions, methods and classes without a docstring"
    found = []
    for module in modules(package):
        public = [c for c in module.classes if not c.name.startswith('_')] + public_functions(module)
        found += [f'{module.name}:{node.name}' for node in public if ast.get_docstring(node) is None]
    return found

def parameters(function):
    "A function's parameters but `self` and `cls`"
    return [a for a in function.args.args + function.args.kwonlyargs if a.arg not in ('self', 'cls')]

def unannotated(package):
    "Parameters of public functions without an annotation"
    found = []
    for module in modules(package):
        for f in public_functions(module):
            found += [f'{module.name}:{f.name}({a.arg})' for a in parameters(f) if a.annotation is None]
    return found

def wide_lines(package, limit=120):
    "Lines with more characters than the limit"
    return [f'{module.name}:{i}' for module in modules(package)
            for i,line in enumerate(module.lines, 1) if len(line)>limit]

def notebooks(folder):
    "The notebooks under a folder, in the order of their names"
    return sorted(path for path in folder.rglob('*.ipynb') if '.ipynb_checkpoints' not in path.parts)

def long_cells(folder, limit=40):
    "Exported cells with more lines than the limit, the line that says `export` not counted"
    found = []
    for path in notebooks(folder):
        for i,cell in enumerate(json.loads(path.read_text(encoding='utf-8'))['cells']):
            text = ''.join(cell['source'])
            if cell['cell_type']!='code' or not re.match(r'\s*#\| ?export', text): continue
            if text.count('\n')>limit: found.append(f'{path.name}[{i}] {text.count(chr(10))}')
    return found

def heavy_notebooks(folder, limit=300*1024):
    "Notebooks with more bytes than the limit"
    return [path.name for path in notebooks(folder) if path.stat().st_size>limit]

# ---- the goals

def assert_none(found):
    "Fail with all that was found, one a line"
    assert not found, '\n'.join(map(str, found))

def test_function_bodies_are_short():
    lengths = body_lengths(package)
    numbers = [n for n,_ in lengths]
    assert statistics.median(numbers)<=6
    assert numbers[int(len(numbers)*.9)]<=16
    assert numbers[-1]<=40, lengths[-5:]

def test_few_statements_are_dense():
    found = dense_statements(package)
    assert len(found)*1000<=3*n_lines(package), '\n'.join(found)

def test_modules_are_short(): assert_none([(m.name, m.n_lines) for m in modules(package) if m.n_lines>350])

def test_no_module_imports_private_names_of_another(): assert_none(private_imports(package))

def test_private_names_have_one_meaning(): assert_none(private_twice(package).items())

def test_everything_public_is_documented(): assert_none(undocumented(package))

def test_every_parameter_is_annotated(): assert_none(unannotated(package))

def test_no_line_is_wide(): assert_none(wide_lines(package))

def test_exported_cells_are_short(): assert_none(long_cells(root/'nbs'))

def test_notebooks_are_light(): assert_none(heavy_notebooks(root/'nbs'))

# ---- which module imports which

def module_order(folder):
    "The modules that numbered notebooks export, such as `schedule.cycle`, in the order of their numbers"
    found = [re.fullmatch(r'\d+[a-z]?_(\w+\.\w+)', path.stem) for path in sorted(folder.glob('[0-9]*.ipynb'))]
    return [match[1] for match in found if match]

def imported_names(module, package, known):
    "The modules, wings or other names of the package that a module imports, as dotted names inside the package"
    for node in module.nodes:
        if isinstance(node, ast.Import):
            names = [alias.name.split('.') for alias in node.names]
            yield from ('.'.join(name[1:]) for name in names if name[0]==package.name)
        if not isinstance(node, ast.ImportFrom): continue
        path = (node.module or '').split('.') if node.module else []
        if node.level: path = module.name.split('.')[:-node.level] + path
        elif path[0]==package.name: path = path[1:]
        else: continue
        for alias in node.names:
            name = '.'.join([*path, alias.name])
            yield name if name in known else '.'.join(path)

def may_import(name, other, order):
    "Whether module `name` may import `other`, a module or a wing"
    wing = name.partition('.')[0]
    other_wing = other.partition('.')[0]
    if other=='': return True # the package's version
    if other_wing not in WINGS or {wing, other_wing} in APART: return False
    if wing!=other_wing: return WINGS.index(other_wing)<WINGS.index(wing)
    return other in order and order.index(other)<order.index(name)

def wrong_imports(package, folder):
    "Imports that do not point down the table of the wings or, inside a wing, to a notebook with a lower number"
    order = module_order(folder)
    found = []
    for module in modules(package):
        if module.name not in order: continue
        others = sorted(set(imported_names(module, package, order)))
        found += [f'{module.name} imports {other}' for other in others if not may_import(module.name, other, order)]
    return found

def test_imports_point_down(): assert_none(wrong_imports(package, root/'nbs'))

def test_modules_and_notebooks_agree():
    order = module_order(root/'nbs')
    assert sorted(module.name for module in modules(package))==sorted([*order, 'all']), 'one notebook, one module'
    wings = [name.partition('.')[0] for name in order]
    assert list(dict.fromkeys(wings))==WINGS, 'the notebooks are numbered in the order of the wings'
    assert wings==sorted(wings, key=WINGS.index)

def has_tests(path): return path.exists() and re.search(r'^def test_', path.read_text(encoding='utf-8'), flags=re.M)

def test_every_module_has_a_test_file():
    names = [f'test_{name.replace(".", "_")}.py' for name in module_order(root/'nbs')]
    assert_none([name for name in names if not has_tests(root/'tests'/name)])

# ---- the measures themselves, on texts whose answer is plain

DENSE = {
    'x = [a for b in c for d in b for a in d]': 'three loops in one expression',
    'x = [a for a in [b for b in c]]': 'comprehensions nested',
    'x = [[[a for a in b] for b in c] for c in d]': 'comprehensions nested',
    'x = f([a for a in b], {c for c in d}, (e for e in g))': 'three comprehensions',
    'x = a if b else c if d else e': 'conditional in a conditional',
    'x = [y for a in b if (y := f(a))]': 'walrus in a comprehension',
    'x,y = f(a),g(b)': 'several things assigned at once',
    'return f(lambda: [a for b in c for d in b for a in d])': 'three loops in one expression',
    'x = [a for b in c for a in b]': '',
    'x = [[a for a in b] for b in c]': '',
    'x = f([a for a in b], [c for c in d])': '',
    'x = f(a if b else c, d if e else g)': '',
    'x = (y := f(a))': '',
    'x,y = a.b,[]': '',
    'x,y,z = a,f(b),{}': '',
    'x,y = [1],[2]': 'several things assigned at once',
}

@pytest.mark.parametrize('text,why', DENSE.items(), ids=list(DENSE))
def test_dense_is_what_style_calls_dense(text, why):
    function = ast.parse(f'def f():\n    {text}').body[0]
    assert why_dense(function.body[0])==why

SMALL = '''# %% ../nbs/10_a.b.ipynb 1
from .c import one, _two
from other import _three
_name = 1

class Public:
    def method(self, a, b:int, *, c=1): # two without annotation
        "Documented"
        x = 1

        return x
    def before_fit(self): pass
    def _hidden(self, a): pass
'''

@pytest.fixture
def small(tmp_path):
    "A package of two modules and a notebook, with one fault of each kind"
    folder = tmp_path/'small'
    (folder/'a').mkdir(parents=True)
    (folder/'a'/'__init__.py').write_text('def not_measured(): pass\n')
    (folder/'a'/'b.py').write_text(SMALL)
    (folder/'a'/'c.py').write_text(f'_name = 2\nx,y = f(1),g(2)\nz = 1 # {"wide"*29}\n')
    cells = [dict(cell_type=kind, source=[line + '\n' for line in lines]) for kind,lines in {
        'markdown': ['#| export']*50, 'code': ['#| export', *['x = 1']*40]}.items()]
    (tmp_path/'nbs').mkdir()
    (tmp_path/'nbs'/'10_a.b.ipynb').write_text(json.dumps(dict(cells=cells)))
    return folder

def test_measures_of_a_small_package(small):
    assert n_lines(small)==10 + 3
    assert body_lengths(small)==[(1, 'a.b:_hidden'), (1, 'a.b:before_fit'), (3, 'a.b:method')]
    assert dense_statements(small)==['a.c:2 several things assigned at once']
    assert private_imports(small)==['a.b: _two']
    assert private_twice(small)=={'_name': ['a.b', 'a.c']}
    assert undocumented(small)==['a.b:Public']
    assert unannotated(small)==['a.b:method(a)', 'a.b:method(c)']
    assert wide_lines(small)==['a.c:3']
    assert long_cells(small.parent/'nbs')==['10_a.b.ipynb[1] 41']
    assert long_cells(small.parent/'nbs', limit=41)==[]
    assert heavy_notebooks(small.parent/'nbs', limit=100)==['10_a.b.ipynb'] and not heavy_notebooks(small.parent/'nbs')

IMPORTS = {
    'a lower wing': ('train.late', 'from ..core.base import x', []),
    'a lower wing as a whole': ('train.late', 'from ..core import *', []),
    'the version': ('train.late', 'from .. import __version__', []),
    'another package': ('train.late', 'import plot.one\nfrom plot.one import x', []),
    'a lower number': ('train.late', 'from .early import x', []),
    'a lower number, as a module': ('train.late', 'from . import early', []),
    'a higher number': ('train.early', 'from .late import x', ['train.late']),
    'a higher number, as a module': ('train.early', 'from . import late', ['train.late']),
    'its own wing': ('train.late', 'from . import x', ['train']),
    'a higher wing': ('core.base', 'from ..train.early import x', ['train.early']),
    'a higher wing, in a function': ('core.base', 'def f():\n    import small.train.late', ['train.late']),
    'a higher wing, by its full name': ('core.base', 'from small.train import x', ['train']),
    'plot from train': ('plot.one', 'from ..train.early import x', ['train.early']),
    'train from plot': ('train.late', 'from ..plot import x', ['plot']),
    'all': ('plot.one', 'from ..all import *', ['all']),
}

@pytest.mark.parametrize('name,text,wrong', IMPORTS.values(), ids=IMPORTS.keys())
def test_which_imports_are_wrong(tmp_path, name, text, wrong):
    (tmp_path/'nbs').mkdir()
    for i,module in enumerate(['core.base', 'train.early', 'train.late', 'plot.one']):
        (tmp_path/'nbs'/f'{i}0_{module}.ipynb').touch()
        path = tmp_path/'small'/f'{module.replace(".", "/")}.py'
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text if module==name else '')
    expected = [f'{name} imports {other}' for other in wrong]
    assert wrong_imports(tmp_path/'small', tmp_path/'nbs')==expected
