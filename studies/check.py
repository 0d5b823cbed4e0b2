"""Check records that are to join the atlas: `python -m studies.check FILE…`

Says for each file what it found, or what is missing, and exits with 1 if anything is. CI checks all records of
nbs/atlas/records in the same way."""
import sys, warnings
from pathlib import Path

warnings.simplefilter('ignore')
from fastai_clr_ext.all import *
from fastai_clr_ext.compare.identity import policy_text
from fastai_clr_ext.compare.schema import MAX_TEXT
from studies.comparisons import FINE_TUNED, STUDIES
from studies.policies import RECIPES

LEAST_SEEDS,MOST_BYTES = 5, 1_000_000
_FACTS = 'data', 'model', 'optimizer', 'again' # What a situation must say of itself; the last is how to train it again

def problems(path:Path)->list:
    "Return what keeps a record out of the atlas, in sentences"
    try: comparison = read_record(path)
    except ValueError as e: return [str(e)]
    record,found = comparison.record,[]
    missing = [name for name in _FACTS if not record['situation'].get(name)]
    if missing: found.append(f'The situation must say: {", ".join(missing)}. Give them to compare(situation={{…}}).')
    if not record['margin']>0: found.append('It must have a margin, the smallest difference that matters.')
    n_seeds = len(comparison.outcomes)
    if n_seeds<LEAST_SEEDS: found.append(f'It must have at least {LEAST_SEEDS} seeds, and has {n_seeds}.')
    n_errors = int(comparison.errors.to_numpy().sum())
    if n_errors: found.append(f'An exception ended {n_errors} of its runs: mend that, and train them again.')
    n_bytes = (path/'record.json' if path.is_dir() else path).stat().st_size
    if n_bytes>MOST_BYTES: found.append(f'It must have at most {MOST_BYTES:,} bytes: train with grads=False.')
    return found + _other_than_its_study(path, comparison)

def _other_than_its_study(path, comparison)->list:
    "Return in what a record is not what the command of its name trains; nothing for a record of no study"
    study = next((each for each in ('d-why', *STUDIES, 'e') if path.stem.startswith(f'{each}-')), None)
    if study is None: return []
    name = path.stem.removeprefix(f'{study}-')
    specs = FINE_TUNED if study=='e' else STUDIES[study]()
    if name not in specs: return [f'Study {study} has no comparison {name}.']
    sit,policies,n_seeds = _planned(study, specs[name])
    record = comparison.record
    about = {key: list(value) if isinstance(value, tuple) else value for key,value in sit.about().items()}
    has = {policy['name']: policy['what'] for policy in record['policies']}
    same = {'command': record['situation'].get('again')==f'python -m studies {study} {name}',
            'situation': all(record['situation'].get(key)==value for key,value in about.items()),
            'number of epochs': record['budget'].get('n_epoch')==sit.n_epoch,
            'margin': record['margin']==sit.source.margin,
            'seeds': list(comparison.outcomes.index)==list(range(n_seeds)),
            'policies': list(has)==list(policies) and all(text in (None, has[each]) for each,text in policies.items())}
    return [f'The {what} must be as study {study} has it.' for what,is_same in same.items() if not is_same]

def _planned(study, spec)->tuple:
    "Return situation, policies by name with their text, and number of seeds; None where trials choose the policy"
    if study=='e':
        sit,_,n_seeds = spec
        return sit, dict.fromkeys(RECIPES), n_seeds
    return spec.sit, {name: policy_text(policy)[:MAX_TEXT] for name,policy in spec.policies.items()}, spec.n_seeds

def main(paths:list)->int:
    n_bad = 0
    for path in paths:
        found = problems(path)
        n_bad += bool(found)
        print(f'{path}: ' + (' '.join(found) or 'can join the atlas'))
        if not found: print('\n'.join(f'  {line}' for line in read_record(path).verdicts()))
    return min(n_bad, 1)

if __name__=='__main__':
    if not sys.argv[1:] or sys.argv[1].startswith('-'): print(__doc__)
    else: sys.exit(main([Path(arg) for arg in sys.argv[1:]]))
