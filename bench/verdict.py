"""How often a verdict of `compare` is wrong: `python -m bench.verdict [PART…] [--tables N]`, no network

Tables of outcomes are drawn at random and judged by `paired_summary`, as `compare` does; a table counts once, however
many of its policies are misjudged. Parts: null (the policies do not differ), tuned (nor at the rates that trials have
chosen), looks (nor at several looks), power (there is a difference to find). With 5,000 tables a share of 5 % is known
to .6 points (twice its standard error). All parts take about an hour on one core. NaN is a failed run."""
import argparse, zlib

import numpy as np, pandas as pd
from fastai_clr_ext.compare import look_level, next_rates, paired_summary, rate_means, tuning_noise
from fastai_clr_ext.compare.tuning import MIN_TRIALS, best_rate

SEEDS = 5, 10, 20
GRID = 360 # Images of digits that are judged: accuracy comes in steps of 1/360
SD = .01 # Of outcomes from seed to seed

def normal(rng, n): return .9 + SD*rng.normal(size=n)
def student(rng, n): return .9 + SD*rng.standard_t(3, size=n)
def exponential(rng, n): return .9 - SD*rng.exponential(size=n)
def lognormal(rng, n): return .9 - SD*rng.lognormal(sigma=1, size=n)
def collapses(rng, n): return np.where(rng.random(n)<.1, .1, normal(rng, n))
def grid(rng, n): return np.round(GRID*normal(rng, n))/GRID

def failing(share):
    "Outcomes of which a share fails, whatever they would have been"
    def draw(rng, n): return np.where(rng.random(n)<share, np.nan, normal(rng, n))
    return draw

def failing_informatively(rng, n):
    "Outcomes of which the worst fail"
    y = normal(rng, n)
    return np.where(y<.9-SD*rng.exponential(.7, size=n), np.nan, y)

NULL = {'normal': normal, 't with 3 degrees of freedom': student, 'exponential': exponential, 'lognormal': lognormal,
        '10 % collapse': collapses, 'accuracy of 360 images': grid, '10 % fail': failing(.1), '30 % fail': failing(.3),
        '50 % fail': failing(.5), 'the worst fail': failing_informatively}

def null_table(draw, n_policies):
    "Tables of policies that do not differ, and of their baseline"
    def table(rng, n):
        return pd.DataFrame({f'p{i}': draw(rng, n) for i in range(n_policies+1)}, dtype=float)
    return table

def shifted(effect, fails=0.):
    "A policy that is better by `effect`, give or take one `SD` a seed, than a baseline of which a share fails"
    def table(rng, n):
        base = normal(rng, n)
        policy = base+effect+SD*rng.normal(size=n)
        return pd.DataFrame({'p0': np.where(rng.random(n)<fails, np.nan, base), 'p1': policy})
    return table

def unpaired(rng, n):
    "A policy that is better by half an `SD` than a baseline of which 40 % fail; nothing but the seed is shared"
    return pd.DataFrame({'p0': failing(.4)(rng, n), 'p1': normal(rng, n)+.5*SD})

def all_fail(rng, n): return pd.DataFrame({'p0': normal(rng, n), 'p1': np.full(n, np.nan)})

#: Name, table, number of seeds, options
POWER = [('the baseline fails in 40 %, policy .5 sd better', shifted(.5*SD, fails=.4), 10, {}),
         ('the same, a failed run counts as chance (.1)', shifted(.5*SD, fails=.4), 10, dict(fail_score=.1)),
         ('the same, independent outcomes', unpaired, 10, {}),
         ('the same, a failed run counts as chance', unpaired, 10, dict(fail_score=.1)),
         ('one sd better', shifted(SD), 10, {}), ('one sd worse', shifted(-SD), 10, {}),
         ('margin/3 better, margin = 1 sd', shifted(SD/3), 20, dict(margin=SD)),
         ('no difference, margin = 1 sd', shifted(0.), 20, dict(margin=SD)),
         ('two margins better, margin = 1 sd', shifted(2*SD), 20, dict(margin=SD)),
         ('the policy fails each time', all_fail, 5, {})]

WORDS = 'worked', 'did worse', 'made no difference', 'cannot tell'

def rng_of(*cell): return np.random.default_rng(zlib.crc32(repr(cell).encode()))

def shares(name, table, n, n_tables, **options):
    "Return how often each verdict is given; a table counts by its first word in `WORDS`"
    rng,counts = rng_of(name, n),dict.fromkeys(WORDS, 0)
    for _ in range(n_tables):
        said = set(paired_summary(table(rng, n), **options).verdict[1:])
        counts[next(word for word in WORDS if word in said)] += 1
    return {word: count/n_tables for word,count in counts.items()}

FAR = .85 # What is reached by a rate beyond those that were given

def n_wrong(found): return found['worked']+found['did worse']

def tuned_pair(rng, n, means):
    "Two equally good policies at the rates that trials have chosen for each; their outcomes, noises and trials"
    columns,noises,n_trials = {},{},0
    for name in ('p0', 'p1'):
        scores,wanted = {},dict.fromkeys(means, MIN_TRIALS)
        while wanted:
            for rate,k in wanted.items():
                done = scores.setdefault(rate, [])
                done += list(means.get(rate, FAR) + SD*rng.normal(size=k-len(done)))
            rates = rate_means([(rate, y) for rate,of in scores.items() for y in of], True)
            wanted = next_rates(rates, len(means), max(n, MIN_TRIALS))
        columns[name] = means.get(best_rate(rates), FAR) + SD*rng.normal(size=n)
        noises[name] = tuning_noise(rates)
        n_trials += sum(map(len, scores.values()))
    return pd.DataFrame(columns), noises, n_trials/2

def tuned_errors(n, gap, n_tables):
    "Return the share of wrong verdicts on equally good policies, and the trials of each; `gap` between rates in sd"
    rng,wrong,trials = rng_of('tuned', n, gap),0,0
    means = {.1: .9-gap*SD, .3: .9, 1.: .9-gap*SD}
    for _ in range(n_tables):
        outcomes,noises,n_trials = tuned_pair(rng, n, means)
        wrong += paired_summary(outcomes, tuning_sd=noises).verdict['p1']!='cannot tell'
        trials += n_trials
    return wrong/n_tables, trials/n_tables

def looked_at(table, name, planned, taken, n_tables):
    "Return how often the first look that tells finds something, and the seeds used"
    rng,found,used = rng_of('looks', name),0,0
    for _ in range(n_tables):
        outcomes = table(rng, taken[-1][0])
        for i,(n,_) in enumerate(taken):
            level = look_level(dict(planned=planned, taken=taken, present=i), .95)
            told = paired_summary(outcomes[:n], level=level).verdict['p1']!='cannot tell'
            if told: break
        found += told
        used += n
    return found/n_tables, used/n_tables

def row(*cells): print('| ' + ' | '.join(map(str, cells)) + ' |', flush=True)

def header(*cells):
    print()
    row(*cells)
    row(*['---']*len(cells))

def part_null(n_tables):
    header('no difference', 'policies', *(f'{n} seeds' for n in SEEDS))
    for name,draw in NULL.items():
        for k in (1, 3, 8):
            found = [shares((name, k), null_table(draw, k), n, n_tables) for n in SEEDS]
            row(name, k, *(f'{n_wrong(one):.1%}' for one in found))

def part_tuned(n_tables):
    header('equally good, tuned at 3 rates', *(f'{n} seeds (trials)' for n in SEEDS))
    for gap in (.25, .5, .75, 1., 1.5, 3.):
        found = [tuned_errors(n, gap, n_tables) for n in SEEDS]
        row(f'{gap:g} sd between rates', *(f'{wrong:.1%} ({trials:.0f})' for wrong,trials in found))

def part_looks(n_tables):
    plan = [5, 10, 20, 30]
    planned = plan, [[n, True] for n in plan]
    unplanned = [5], [[n, n==5] for n in (5, 10, 15, 20)]
    header('looks', 'found', 'seeds used')
    for name,table,(plan,taken) in [
            ('no difference, planned at 5, 10, 20, 30', null_table(normal, 1), planned),
            ('no difference, 10 % collapse, the same plan', null_table(collapses, 1), planned),
            ('no difference, 30 % fail, the same plan', null_table(failing(.3), 1), planned),
            ('no difference, 5 planned, then 10, 15, 20 (stated: 9.4 %)', null_table(normal, 1), unplanned),
            ('half an sd, planned', shifted(.5*SD), planned), ('one sd, planned', shifted(SD), planned),
            ('two sd, planned', shifted(2*SD), planned)]:
        found,used = looked_at(table, name, plan, taken, n_tables)
        row(name, f'{found:.1%}', f'{used:.1f}')

def part_power(n_tables):
    header('a difference', 'seeds', *WORDS)
    for name,table,n,options in POWER:
        found = shares(name, table, n, n_tables, **options)
        row(name, n, *(f'{found[word]:.1%}' for word in WORDS))

PARTS = dict(null=part_null, tuned=part_tuned, looks=part_looks, power=part_power)

def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('parts', nargs='*', metavar='PART', default=list(PARTS), help=f'some of {", ".join(PARTS)}')
    parser.add_argument('--tables', type=int, default=5000, help='tables a cell')
    args = parser.parse_args()
    print(f'{args.tables} tables a cell')
    for name in args.parts: PARTS[name](args.tables)

if __name__=='__main__': main()
