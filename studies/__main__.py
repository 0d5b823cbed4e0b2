"""Train what a study compares: `python -m studies STUDY [NAME…] [--runs FOLDER] [--workers N]`

STUDY is b, c, d (which is g too), d-why, e or f; NAME one of its comparisons, all of them if none is given. Runs go to
FOLDER and are not trained again. The record of each comparison goes to nbs/atlas/records; the scores of the trials of
study e, which chooses its rates here, go to nbs/atlas/trials. Study a is `python -m studies.gradients`."""
import argparse, os, shutil, time, warnings
from pathlib import Path

warnings.simplefilter('ignore')
os.environ.setdefault('OMP_NUM_THREADS', '1')
import pandas as pd
from fastai_clr_ext.all import *
from studies.comparisons import (FINE_TUNED, RECORDS, STUDIES, TRIALS, HeldOut, Spec, rates_beyond, rates_of,
    recipes_at)
from studies.policies import RECIPES

RUNS = Path(__file__).parents[1]/'studies_runs'

def train(spec:Spec, command:str, out:Path, n_workers:int)->Comparison:
    "Compare as a spec says"
    return compare(spec.sit, spec.policies, spec.sit.n_epoch, spec.n_seeds, spec.lr_max, out, tune=spec.rates,
                   n_workers=n_workers, grads=False, situation=dict(again=command), with_bar=False,
                   margin=spec.sit.source.margin, metric=spec.metric)

def keep(result:Comparison, name:str, seconds:float):
    "Put the record of a comparison into the atlas, and say what it found"
    shutil.copyfile(result.path/'record.json', RECORDS/f'{name}.json')
    print(f'== {name}: {seconds:.0f} s\n' + '\n'.join(result.verdicts()), flush=True)

def tried(sit:Situation, recipe:str, rates:list, n_trials:int, out:Path, n_workers:int)->pd.DataFrame:
    "Train a recipe at some rates, judged on held-out images; a row for each policy, with its `rate` and `mean`"
    policies = recipes_at(sit, recipe, rates)
    trials = compare(HeldOut(sit), policies, sit.n_epoch, list(range(1000, 1000+n_trials)), None, out,
                     n_workers=n_workers, grads=False, with_bar=False)
    scores = trials.df[['policy', 'seed', 'end', 'accuracy']].merge(trials.summary()['mean'], on='policy')
    return scores.assign(rate=[policies[name].lr for name in scores.policy])

def fine_tuned(name:str, command:str, out:Path, n_workers:int)->Comparison:
    "Choose rate and ratio of each recipe on held-out images, then compare the recipes"
    sit,n_trials,n_seeds = FINE_TUNED[name]
    chosen,tables = {},[]
    for recipe in RECIPES:
        rates = rates_of(sit, recipe)
        table = tried(sit, recipe, rates, n_trials, out/f'trials {recipe}', n_workers)
        best = table.loc[table['mean'].idxmax()]
        more = rates_beyond(rates, best.rate)
        if more:
            further = tried(sit, recipe, more, n_trials, out/f'more trials {recipe}', n_workers)
            table = pd.concat([table, further], ignore_index=True)
            best = table.loc[table['mean'].idxmax()]
        print(table.groupby('policy', sort=False)['mean'].first().round(3).to_dict(), flush=True)
        chosen[recipe] = recipes_at(sit, recipe, [best.rate])[best.policy]
        tables.append(table)
    TRIALS.mkdir(parents=True, exist_ok=True)
    pd.concat(tables).to_csv(TRIALS/f'e-{name}.csv', index=False)
    return train(Spec(sit, chosen, n_seeds, is_tuned=False), command, out/'runs', n_workers)

def main(study:str, names:list, runs:Path, n_workers:int):
    RECORDS.mkdir(parents=True, exist_ok=True)
    specs = FINE_TUNED if study=='e' else STUDIES[study]()
    for name in names or specs:
        start = time.monotonic()
        out,command = runs/f'{study}-{name}',f'python -m studies {study} {name}'
        if study=='e': result = fine_tuned(name, command, out, n_workers)
        else: result = train(specs[name], command, out, n_workers)
        keep(result, f'{study}-{name}', time.monotonic()-start)

if __name__=='__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('study', choices=[*STUDIES, 'e'])
    p.add_argument('names', nargs='*', metavar='NAME')
    p.add_argument('--runs', type=Path, default=RUNS)
    p.add_argument('--workers', type=int, default=os.cpu_count())
    a = p.parse_args()
    main(a.study, a.names, a.runs, a.workers)
