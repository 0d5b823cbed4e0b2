"""What the benchmarks share: functions measured in turn, spreads, and versions"""
import importlib.metadata, os, platform
import numpy as np, torch

def in_turn(
    functions:dict, # By name; each returns a number
    n_rounds:int # At least 1
)->dict: # By name, one number for each round
    "Call functions round by round, each round in another order, so that a slow moment of the machine hits all of them"
    names,found = list(functions),{name: [] for name in functions}
    for i in range(n_rounds):
        at = i%len(names)
        for name in names[at:]+names[:at]: found[name].append(functions[name]())
    return {name: np.array(values) for name,values in found.items()}

def spread(values)->dict:
    "Median and quartiles"
    low,middle,high = np.percentile(values, [25, 50, 75]).tolist()
    return dict(median=middle, low=low, high=high)

def version(package:str)->str:
    "Version of a package; empty if it is not installed"
    try: return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError: return ''

def tried(functions:dict)->tuple:
    "Functions that work, called once, and by name the errors of the others, such as a package that is not installed"
    works,errors = {},{}
    for name,f in functions.items():
        try: f()
        except Exception as e: errors[name] = f'{type(e).__name__}: {e}'.splitlines()[0][:200]
        else: works[name] = f
    return works, errors

def machine()->dict:
    "What the figures depend on"
    packages = ['torch', 'fastai', 'fastai_clr_ext', 'timm', 'pytorch-ignite', 'transformers', 'wandb', 'tensorboard',
                'lightning', 'mosaicml', 'cockpit-for-pytorch', 'dask']
    return dict(python=platform.python_version(), cpu=platform.machine(), cores=os.cpu_count(),
                threads=torch.get_num_threads(), packages={name: version(name) for name in packages if version(name)})

def table(rows:list)->str:
    "Rows of one set of names as a Markdown table"
    if not rows: return ''
    names = list(dict.fromkeys(name for row in rows for name in row))
    def cell(v): return f'{v:.4g}' if isinstance(v, float) else '' if v is None else str(v)
    lines = [' | '.join(names), '|'.join(['---']*len(names))]
    lines += [' | '.join(cell(row.get(name)) for name in names) for row in rows]
    return '\n'.join(f'| {line} |' for line in lines)
