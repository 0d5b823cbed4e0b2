"""How often a verdict of `compare` is wrong: `python -m bench.verdict [TABLES]`, minutes on one core, no network

Tables of outcomes are drawn at random and judged by `paired_summary`, as `compare` does. In the first part the policies
do not differ, so that *worked* and *did not* are false; in the second there is a difference to find. NaN is a lost run.
With 5,000 tables a share of 5 % is known to .6 points (twice its standard error)."""
import sys
from collections import Counter

import numpy as np, pandas as pd
from fastai_clr_ext.compare import paired_summary

SEEDS = 5, 10, 20
GRID = 360 # Images of digits that are judged: accuracy comes in steps of 1/360

def normal(rng, n): return .9 + .01*rng.normal(size=n)
def student(rng, n): return .9 + .01*rng.standard_t(3, size=n)
def exponential(rng, n): return .9 - .01*rng.exponential(size=n)
def lognormal(rng, n): return .9 - .01*rng.lognormal(sigma=1, size=n)
def collapses(rng, n): return np.where(rng.random(n)<.1, .1, normal(rng, n))
def grid(rng, n): return np.round(GRID*normal(rng, n))/GRID

def failing(share):
    "Outcomes of which a share is lost, whatever they would have been"
    def draw(rng, n): return np.where(rng.random(n)<share, np.nan, normal(rng, n))
    return draw

def failing_informatively(rng, n):
    "Outcomes of which the worst are lost"
    y = normal(rng, n)
    return np.where(y<.9-.01*rng.exponential(.7, size=n), np.nan, y)

NULL = {'normal': normal, 't with 3 degrees of freedom': student, 'exponential': exponential, 'lognormal': lognormal,
        '10 % collapse': collapses, 'accuracy of 360 images': grid, '10 % fail': failing(.1), '30 % fail': failing(.3),
        '50 % fail': failing(.5), 'the worst fail': failing_informatively}

def null_table(draw, n_policies):
    "Tables of policies that do not differ, and of their baseline"
    def table(rng, n):
        return pd.DataFrame({f'p{i}': draw(rng, n) for i in range(n_policies+1)}, dtype=float)
    return table

def saved(rng, n):
    "The baseline loses 40 % of its runs, the policy none; where both end well, the policy is .005 better"
    base = failing(.4)(rng, n)
    return pd.DataFrame({'p0': base, 'p1': normal(rng, n)+.005})

def one_sd(rng, n):
    "An effect of one standard deviation of the differences"
    base = normal(rng, n)
    return pd.DataFrame({'p0': base, 'p1': base+.01+.01*rng.normal(size=n)})

def verdicts(table, n, n_tables):
    "Count what the policies of random tables are said to be; a table counts once, by its strongest word"
    rng = np.random.default_rng(0)
    counts = Counter()
    for _ in range(n_tables):
        said = set(paired_summary(table(rng, n)).verdict[1:])
        counts[next((word for word in ('did not', 'worked') if word in said), 'cannot tell')] += 1
    return {word: counts[word]/n_tables for word in ('worked', 'did not')}

def main(n_tables=5000):
    print(f'{n_tables} tables a cell\n\n| no difference | policies | ' + ' | '.join(f'{n} seeds' for n in SEEDS) + ' |')
    print('|---|---|' + '---|'*len(SEEDS))
    for name,draw in NULL.items():
        for n_policies in (1, 3, 8) if name=='normal' else (1,):
            shares = [sum(verdicts(null_table(draw, n_policies), n, n_tables).values()) for n in SEEDS]
            print(f'| {name} | {n_policies} | ' + ' | '.join(f'{share:.1%}' for share in shares) + ' |', flush=True)
    print('\n| a difference, 10 seeds | worked | did not |\n|---|---|---|')
    for name,table in {'the baseline loses 40 %': saved, 'one sd': one_sd}.items():
        found = verdicts(table, 10, n_tables)
        print(f'| {name} | {found["worked"]:.1%} | {found["did not"]:.1%} |', flush=True)

if __name__=='__main__': main(*map(int, sys.argv[1:]))
