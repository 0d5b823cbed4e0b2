"The comparisons of each study, by name, as nbs/studies/PROTOCOL.md fixes them"
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from fastai.optimizer import Adam
from fastai_clr_ext.all import *
from fastai_clr_ext.compare.tuning import hold_out
from studies.policies import CONSTANT, CYCLE_MOMS, ONE_CYCLE, Recipe, Trained, scaled
from studies.reading import lowest_failing, rates_tried

RECORDS = Path(__file__).parents[1]/'nbs'/'atlas'/'records'
TRIALS = RECORDS.parent/'trials'
N_SEEDS = 12 # Of b and c
HALF_DECADES = .1, .3, 1., 3., 10. # Rates tried, as multiples of the situation's; more while the best is at an edge

@dataclass(frozen=True)
class Spec:
    "One comparison"
    sit:Situation
    policies:dict # By name
    n_seeds:int
    lr_max:dict|None = None # By policy; None means tuned, or that policies set their own
    is_tuned:bool = True
    metric:str|None = None # None means the situation's

    @property
    def rates(self)->list|None:
        "Rates to try"
        if not self.is_tuned: return None
        return [float(f'{k*self.sit.lr_max:.3g}') for k in HALF_DECADES]

def situation_of(name, optimizer=None, n_epoch=None):
    "A situation of the catalogue; a rate of SGD is taken for a hundredth of it with Adam, and the other way round"
    sit = situation(name)
    if optimizer and (optimizer=='sgd')!=(sit.optimizer=='sgd'):
        is_sgd = optimizer=='sgd'
        sit = replace(sit, lr_max=float(f'{sit.lr_max*(10 if is_sgd else .01):.1g}'), wd=5e-4 if is_sgd else 1e-2)
    return replace(sit, optimizer=optimizer or sit.optimizer, n_epoch=n_epoch or sit.n_epoch)

# ---- b: from scratch

def from_scratch()->dict:
    wanted = [('breast-cancer', 'adam', None), ('diabetes', 'adam', None), ('diabetes', 'sgd', None),
              ('digits-rnn', 'sgd', None), ('digits-rnn', 'adam', None), ('digits-mlp', 'sgd', None),
              ('digits-mlp', 'adam', None), ('digits-mlp', 'adam-l2', None), ('digits-lstm', 'adam', None),
              ('diamonds-cut', 'adam', 5), ('diamonds-price', 'adam', 5), ('diamonds-price', 'sgd', 5),
              ('topics', 'adam', None), ('digits', 'sgd', 8), ('digits', 'adam', 8), ('digits-plain', 'sgd', None),
              ('digits-pre-norm', 'adam', 5), ('digits-post-norm', 'adam', 5), ('next-char', 'adam', 4),
              ('fashion-small', 'sgd', 4), ('fashion-small', 'adam', 4), ('digits-rnn', 'sgd', 40),
              ('digits-mlp', 'sgd', 40)]
    specs = {}
    for name,optimizer,n_epoch in wanted:
        sit = situation_of(name, optimizer, n_epoch)
        policies = {'constant': CONSTANT, 'step': step_decay(), 'warmup_cosine': warmup_cosine(), '1cycle': ONE_CYCLE}
        specs[f'{name}-{optimizer}' + (f'-{n_epoch}' if n_epoch==40 else '')] = Spec(sit, policies, N_SEEDS)
    return specs

# ---- c: one long cycle or two short ones

def one_or_two()->dict:
    policies = {'one cycle': ONE_CYCLE, 'two cycles': ONE_CYCLE.repeat(2),
                'two cycles, the second at a third': ONE_CYCLE.then(scaled(ONE_CYCLE, 1/3))}
    wanted = [('digits-rnn', 'sgd', None), ('digits-mlp', 'adam', None), ('diamonds-cut', 'adam', 6),
              ('digits', 'sgd', 8), ('next-char', 'adam', 4), ('fashion-small', 'sgd', 4)]
    return {f'{name}-{optimizer}': Spec(situation_of(name, optimizer, n_epoch), policies, N_SEEDS)
            for name,optimizer,n_epoch in wanted}

# ---- d and g: which rates a net can take

RATES = {'sgd': (.03, .1, .3, 1., 3., 10.), 'adam': (1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1)}
NETS = {'digits-rnn': 10, 'digits-lstm': 10, 'digits-mlp': 10, 'digits-plain': 10, 'digits': 8,
        'digits-transformer': 5, 'digits-pre-norm': 5, 'digits-post-norm': 5} # epochs

def rates_taken()->dict:
    specs = {}
    for name,n_epoch in NETS.items():
        for optimizer,rates in RATES.items():
            sit = situation_of(name, optimizer, n_epoch)
            each = [(f'{kind} at {lr:g}', cycle, lr) for kind,cycle in (('constant', CONSTANT), ('1cycle', ONE_CYCLE))
                    for lr in rates]
            specs[f'{name}-{optimizer}'] = Spec(sit, {label: cycle for label,cycle,_ in each}, 8,
                                                {label: lr for label,_,lr in each}, is_tuned=False)
    return specs

def failing_rate(name:str)->float|None:
    "The lowest rate at which at least 3 of 8 runs of the 1cycle with Adam failed in study d; None if there is none"
    failing = lowest_failing(rates_tried([RECORDS/f'd-{name}-adam.json']))
    return float(failing.lr.iloc[0]) if len(failing) else None

def why_adam()->dict:
    "What changes how often Adam fails, at the rate where it does"
    specs = {}
    for name in ('digits-rnn', 'digits-post-norm', 'digits-transformer'):
        if not (RECORDS/f'd-{name}-adam.json').exists(): continue
        sit,lr = situation_of(name, 'adam', NETS[name]),failing_rate(name)
        if lr is None: continue
        trained = partial(Trained, sit.n_epoch, lr)
        policies = {
            'as it is': trained(), 'L2 decay': trained(opt_func=partial(Adam, decouple_wd=False)),
            'no decay': trained(wd=0.), 'eps 1e-8': trained(opt_func=partial(Adam, eps=1e-8)),
            'eps 1e-3': trained(opt_func=partial(Adam, eps=1e-3)),
            'beta2 .9': trained(opt_func=partial(Adam, sqr_mom=.9)),
            'beta2 .999': trained(opt_func=partial(Adam, sqr_mom=.999)), 'clipped to 1': trained(clip=1.),
            'warm-up of .1': trained(sched=one_cycle(moms=CYCLE_MOMS, pct_start=.1)),
            'beta1 .9': trained(sched=one_cycle(moms=None)), 'constant': trained(sched=CONSTANT)}
        specs[name] = Spec(sit, policies, 32, is_tuned=False)
    return specs

# ---- e: fine-tuning

E_RATES = {'sgd': (.01, .03, .1, .3), 'adam': (1e-3, 3e-3, 1e-2, 3e-2)}
LR_MULTS = 5., 100.

@dataclass(frozen=True)
class HeldOut:
    "A situation whose learners are judged on a part of their training set"
    sit:Situation
    def __call__(self, seed): return hold_out(self.sit(seed))

def random_start(sit:Situation)->Situation:
    "The same situation without pretraining"
    is_imagenet = sit.model=='efficientnet-lite0'
    return replace(sit, pretrain_on=None, model='efficientnet-lite0-random' if is_imagenet else sit.model)

def rates_of(sit:Situation, recipe:str)->list:
    "The rates that a recipe is tried at"
    return list(E_RATES['adam' if recipe=='Adam, use_clr' else sit.optimizer])

def rates_beyond(rates:list, best:float)->list:
    "Two more half-decades beyond the edge that the best rate lies at; none if it lies between"
    if best==max(rates): return [float(f'{k*best:.2g}') for k in (10/3, 10)]
    return [float(f'{best/k:.2g}') for k in (10/3, 10)] if best==min(rates) else []

def recipes_at(sit:Situation, name:str, rates:list)->dict:
    "A recipe at each rate and ratio of rates"
    mults,start = ((1.,), random_start(sit)) if name=='from scratch' else (LR_MULTS, None)
    return {f'{name} at {lr:g}, {mult:g}': Recipe(name, sit.n_epoch, lr, mult, start)
            for lr in rates for mult in mults}

FINE_TUNED = {'transfer-digits-sgd': (situation_of('transfer-digits', 'sgd'), 4, 20),
              'transfer-digits-adam': (situation_of('transfer-digits', 'adam'), 4, 20),
              'transfer-fashion-sgd': (situation_of('transfer-fashion', 'sgd'), 4, 20),
              'transfer-fashion-adam': (situation_of('transfer-fashion', 'adam'), 4, 20),
              'transfer-imagenet-adam': (situation_of('transfer-imagenet', 'adam'), 2, 10)} # trial seeds, seeds

# ---- f: annihilation

def annihilation()->dict:
    policies = {f'pct_final {pct:g}': one_cycle(moms=CYCLE_MOMS, pct_final=pct) for pct in (0, .1, .2)}
    wanted = [('digits', 'sgd', 8), ('fashion-small', 'sgd', 4), ('digits-mlp', 'sgd', None),
              ('diamonds-cut', 'adam', 5)]
    return {f'{name}-{optimizer}': Spec(situation_of(name, optimizer, n_epoch), policies, 30)
            for name,optimizer,n_epoch in wanted}

#: By the letter of a study: its comparisons
STUDIES = {'b': from_scratch, 'c': one_or_two, 'd': rates_taken, 'd-why': why_adam, 'f': annihilation}
