"The commands `clr-demo` and `clr-compare`; a name is imported when it is asked for, so that they can start at once"
from importlib import import_module

#: The public names of each module
NAMES = {'demo': ['CLR_BETA', 'TITLES', 'demo_learner', 'train_demo', 'grad_levels', 'run_numbers', 'demo_table',
                  'draw_seeds', 'plot_demo', 'clr_demo'],
         'compare': ['parse_policies', 'read_options', 'compare_options', 'clr_merge'],
         'main': ['main_demo', 'main_compare']}
__all__ = sum(NAMES.values(), [])

def __getattr__(name):
    "Return a public name of a module, or the module"
    for module,names in NAMES.items():
        if name in names: return getattr(import_module(f'.{module}', __name__), name)
        if name==module: return import_module(f'.{module}', __name__)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')

def __dir__(): return [*globals(), *__all__, *NAMES]
