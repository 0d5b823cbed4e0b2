"What the pages of nbs/studies and nbs/atlas read from the records, so that each number is worked out in one place"
import json, matplotlib.pyplot as plt, numpy as np, pandas as pd
from pathlib import Path
from fastai_clr_ext.all import *
from fastai_clr_ext.compare import in_margins
from fastai_clr_ext.compare.verdict import mean_interval, plural

# ---- tables

def study_paths(letter:str, folder:str|Path='../atlas/records')->list:
    "The records of a study"
    paths = sorted(Path(folder).glob(f'{letter}-*.json'))
    return paths if letter=='d-why' else [path for path in paths if not path.stem.startswith('d-why-')]

def judged(paths:list, baseline:str|None=None, by_name:bool=False)->pd.DataFrame:
    "A row for each policy and situation, gains in smallest differences that matter; `records` has the names"
    table = in_margins(merge_records(paths, baseline, by_name))
    return table.assign(records=[[Path(path).stem for path in source.split(', ')] for source in table.source])

def one_policy(table:pd.DataFrame, policy:str)->pd.DataFrame:
    return table[table.policy==policy].reset_index(drop=True)

def data_set(table:pd.DataFrame)->pd.Series:
    "The data set of each row; `diamonds-cut` and `diamonds-price` are one"
    return table.data.str.partition('-')[0]

# ---- words

def interval_text(row, digits:int=1)->str:
    "Such as `'+1.5 [0.6, 2.5]'`; without brackets if there is no interval"
    gain = f'{row.gain:+.{digits}f}'
    return gain if np.isnan(row.gain_lo) else f'{gain} [{row.gain_lo:.{digits}f}, {row.gain_hi:.{digits}f}]'

def mean_over(table:pd.DataFrame):
    "The row of `over_situations` for the one policy of a table"
    row, = over_situations(table).itertuples()
    return row

def over_text(table:pd.DataFrame)->str:
    "Mean gain over situations, its interval, and in how many it is above 0"
    row = mean_over(table)
    return f'{interval_text(row)}, better in {row.n_better} of {row.n_situations}'

def counts_text(table:pd.DataFrame)->str:
    return f'{plural(table.situation.nunique(), "situation")}, {plural(data_set(table).nunique(), "data set")}'

def over_table(tables:dict)->pd.DataFrame:
    "What holds over situations, and over data sets, for people; `tables` have one policy each"
    rows = {}
    for name,table in tables.items():
        row,by_data = mean_over(table),mean_over(table.assign(situation=data_set(table)))
        rows[name] = {'mean gain': interval_text(row, 2),
                      'one more situation': f'{row.next_lo:.1f} to {row.next_hi:.1f}',
                      'mean over data sets': interval_text(by_data, 2),
                      'better in': f'{row.n_better} of {row.n_situations}', 'intervals': row.directions,
                      'verdicts': row.verdicts}
    return pd.DataFrame(rows).T

def clear_in_all(tables:list, word:str)->pd.DataFrame:
    "Rows of the first table whose interval is `word`, better or worse, in every table of the same situations"
    first,*others = tables
    is_clear = [set(table.situation[table.direction==word]) for table in others]
    return first[(first.direction==word) & first.situation.map(lambda name: all(name in names for names in is_clear))]

def situation_text(data:str, model:str, optimizer:str, n_epoch:int)->str:
    return f'{model} on {data}, {optimizer}, {n_epoch} epochs'

def earlier_recipes()->dict:
    "Gains over recipe B, by policy, that `python -m bench.recipes` found before the protocol; in points of accuracy"
    policies = json.loads(EARLIER.read_text())['policies']
    gains = {}
    for name,policy in policies.items():
        differences = 100*(np.array(policy['accuracy'])-policies['long (B)']['accuracy'])
        low,high = mean_interval(differences)
        gains[name] = pd.Series(dict(gain=differences.mean(), gain_lo=low, gain_hi=high))
    return gains

# ---- the figure

def forest(tables:list, titles:list):
    "Draw tables of one policy each side by side, a line for each situation of the first"
    tables = [table.set_index('situation') for table in tables]
    order = tables[0].sort_values('gain', ascending=False).index
    size = 9, .21*len(order)+1.2
    axs = plt.subplots(1, len(tables), figsize=size, layout='constrained', sharex=True, squeeze=False)[1][0]
    for ax,table,title in zip(axs, tables, titles):
        plot_situations(table.loc[order].reset_index(), np.array([ax]))
        ax.set_title(title, fontsize=9)
        ax.tick_params(axis='y', labelleft=False)
        ax.set_xlabel('')
    lines = tables[0].loc[order].itertuples()
    names = [situation_text(row.data, row.model, row.optimizer, row.n_epoch) for row in lines]
    axs[0].set_yticks(axs[0].get_yticks(), [*names, 'mean, and the next situation'], fontsize=8)
    axs[0].tick_params(axis='y', labelleft=True)
    most = max(table.gain.abs().max() for table in tables)
    axs[0].set_xlim(-1.4*most, 1.4*most)
    axs[0].figure.supxlabel('gain, in smallest differences that matter', fontsize=9)

# ---- study d and g: rates

MOST_FAILED = 2 # Of 8 runs, at a rate that a policy takes

def rates_tried(paths:list)->pd.DataFrame:
    "A row for each network, optimizer, policy and rate: `failed` runs of `runs`, `mean` of the metric"
    rows = []
    for path in paths:
        network,_,optimizer = path.stem.removeprefix('d-').rpartition('-')
        for policy,row in read_record(path).summary().iterrows():
            kind,_,lr = policy.partition(' at ')
            rows.append(dict(network=network, optimizer=optimizer, policy=kind, lr=float(lr),
                             failed=int(row.n_failed), runs=int(row.n_seeds), mean=row['mean']))
    return pd.DataFrame(rows).set_index(['network', 'optimizer', 'policy'])

def rates_taken(rates:pd.DataFrame)->pd.DataFrame:
    "The highest rate that a policy takes, for each network and optimizer"
    taken = rates[rates.failed<=MOST_FAILED].groupby(level=[0, 1, 2]).lr.max()
    return taken.unstack()[['constant', '1cycle']]

def room_above_best(rates:pd.DataFrame)->pd.DataFrame:
    "For the 1cycle with each network and optimizer: best rate, its failed runs, highest rate taken, and the factor"
    cycle = rates.xs('1cycle', level='policy')
    groups = cycle.groupby(level=[0, 1])
    best = groups.apply(lambda part: part.iloc[part['mean'].argmax()])
    taken = rates_taken(rates)['1cycle']
    return pd.DataFrame({'best': best.lr, 'failed at the best': best.failed.astype(int), 'highest taken': taken,
                         'factor': taken/best.lr, 'highest tried': groups.lr.max()})

def half_decades(factor:pd.Series)->pd.Series: return (2*np.log10(factor)).round().astype(int)

def lowest_failing(rates:pd.DataFrame)->pd.DataFrame:
    "For the 1cycle: the lowest rate that it does not take, and the failed runs at the rate below"
    rows = []
    for key,part in rates.xs('1cycle', level='policy').sort_values('lr').groupby(level=[0, 1]):
        i = int((part.failed>MOST_FAILED).argmax()) # 0 if there is none, or none below it
        if i: rows.append((*key, part.lr.iloc[i], part.failed.iloc[i-1]))
    columns = 'network', 'optimizer', 'lr', 'failed_below'
    return pd.DataFrame(rows, columns=columns).set_index(['network', 'optimizer'])

# ---- study a: gradients

GRADIENTS = Path(__file__).parents[1]/'nbs'/'studies'/'gradients.json' # What `python -m studies.gradients` writes
EARLIER = GRADIENTS.with_name('recipes.json')

def gradient_runs()->list: return json.loads(GRADIENTS.read_text())['runs']

def gradient_curves(runs:list, situation:str, policy:str, what:str)->np.ndarray:
    "A row for each seed, a column for each hundredth of the training"
    return np.array([run[what] for run in runs if (run['situation'], run['policy'])==(situation, policy)])

def ratio(lines:np.ndarray, after:tuple, before:tuple)->tuple:
    "One part of the training over another: geometric mean over seeds, and its interval"
    def part(ends): return lines[:,slice(*ends)].mean(axis=1)
    logs = np.log(part(after)/part(before))
    return tuple(map(float, np.exp([logs.mean(), *mean_interval(logs)])))

START,PLATEAU,END = (0, 2), (20, 80), (98, 100) # Parts of the training in percent, as the protocol has them

def ends_over_plateau(runs:list, policy:str, what:str='mean_abs')->pd.DataFrame:
    "A row for each situation: start and end over the plateau, with intervals"
    rows = {}
    for situation in dict.fromkeys(run['situation'] for run in runs):
        lines,row = gradient_curves(runs, situation, policy, what),{}
        for name,ends in dict(start=START, end=END).items():
            row |= dict(zip((name, f'{name}_lo', f'{name}_hi'), ratio(lines, ends, PLATEAU)))
        rows[situation] = row
    return pd.DataFrame(rows).T.rename_axis('situation')
