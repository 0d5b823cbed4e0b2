import copy, pytest, torch
from functools import partial
from torch import nn
from torch.amp import GradScaler
from fastai.callback.core import Callback
from fastai.callback.fp16 import MixedPrecision
from fastai.optimizer import Adam, OptimWrapper, SGD
from fastcore.foundation import L
from fastai_clr_ext.train.state import (
    attributes_of, callback_names, learner_state, may_change, set_attributes, set_learner_state)
from resume_helpers import differences, make

def test_attributes_are_those_that_an_argument_did_not_set():
    class Counting(Callback):
        def __init__(self, most): self.most,self.n,self.f,self.learner = most,0,print,None
    kept = Counting(5)
    kept.n,kept.most = 7,6
    new = Counting(9)
    set_attributes(new, attributes_of(kept))
    assert (new.n, new.most, new.f)==(7, 9, print)

class Keeps(Callback):
    "Has a protocol of its own"
    def __init__(self): self.secret = {'n': 0}
    def state_dict(self): return dict(n=self.secret['n'])
    def load_state_dict(self, state): self.secret['n'] = state['n']+100

def test_a_callback_may_say_itself_what_it_keeps():
    learn,other = make(cbs=Keeps()),make(cbs=Keeps())
    learn.fit(1)
    learn.keeps.secret['n'] = 3
    other.fit(1)
    set_learner_state(other, learner_state(learn))
    assert other.keeps.secret['n']==103

class MeanOfWeights(Callback):
    "Keeps a second model and a scheduler of torch, and the learner's own model by another name"
    def before_fit(self):
        self.mean,self.same = copy.deepcopy(self.learn.model),self.learn.model
        self.schedule = torch.optim.lr_scheduler.ExponentialLR(torch.optim.SGD(self.mean.parameters(), lr=1), .5)

def test_what_has_a_state_within_a_callback_comes_back(tmp_path):
    learn,other = make(cbs=MeanOfWeights()),make(cbs=MeanOfWeights())
    learn.fit(1)
    other.fit(1)
    for p in learn.mean_of_weights.mean.parameters(): p.data += 1
    for _ in range(3): learn.mean_of_weights.schedule.step()
    state = learner_state(learn)
    assert set(state['cbs']['mean_of_weights'])=={'mean', 'schedule', 'run'}, "the learner's model is written once"
    torch.save(state, tmp_path/'x.pt')
    set_learner_state(other, torch.load(tmp_path/'x.pt', weights_only=True))
    assert differences(learn.mean_of_weights.mean.state_dict(), other.mean_of_weights.mean.state_dict())==[]
    assert other.mean_of_weights.schedule.last_epoch==3 and other.mean_of_weights.same is other.model

def test_the_order_of_a_validation_that_is_shuffled_comes_back():
    learn,other = make(),make()
    for each in (learn, other): each.dls.valid.shuffle = True
    learn.fit(2)
    other.create_opt()
    set_learner_state(other, learner_state(learn))
    assert learn.dls.valid.get_idxs()==other.dls.valid.get_idxs()

def test_counts_go_on_and_the_clock_does_not():
    "The time at which the epoch began is that of this process"
    learn,other = make(),make()
    learn.fit(2)
    learn.recorder.start_epoch = 1.
    other.fit(1)
    set_learner_state(other, learner_state(learn))
    assert (other.train_iter, other.pct_train)==(14, learn.pct_train) and other.pct_train>.99
    assert other.smooth_loss==learn.smooth_loss and other.recorder.start_epoch>1

def test_callbacks_of_one_name_are_told_apart():
    learn = make()
    learn.cbs += [Keeps(), Keeps()]
    assert [name for name,_ in callback_names(learn)][-2:]==['keeps', 'keeps_2']

class Odd(nn.Module):
    "Keeps a tensor, a number, a buffer and a list outside of its `state_dict`"
    def __init__(self):
        super().__init__()
        self.linear,self.n,self.last,self.shape = nn.Linear(2, 1),0,torch.zeros(1),(2, 1)
        self.register_buffer('hidden', torch.zeros(2), persistent=False)
        self.pairs,self.params = [(torch.zeros(1), torch.zeros(1))],[self.linear.weight]
    def forward(self, x):
        self.n += 1
        self.last,self.hidden = x.mean()[None],self.hidden+x.mean(0)
        self.pairs = [(self.last, self.last*2)]
        return self.linear(x)

def test_what_a_module_keeps_outside_its_state_dict_comes_back(tmp_path):
    learners = []
    for _ in range(2):
        learn = make(splitter=lambda m: [list(m.parameters())])
        learn.model = Odd()
        learners.append(learn)
    learn,other = learners
    learn.fit(1)
    other.create_opt()
    torch.save(learner_state(learn), tmp_path/'x.pt')
    set_learner_state(other, torch.load(tmp_path/'x.pt', weights_only=True))
    kept = [[getattr(each.model, name) for name in ('n', 'last', 'hidden', 'pairs')] for each in learners]
    assert differences(*kept)==[] and learn.model.n==9
    assert other.model.params[0] is other.model.linear.weight

TENSOR = torch.ones(1)

@pytest.mark.parametrize('value,expected', [
    (3, True), (2.5, True), (TENSOR, True), ([TENSOR], True), ((1, (TENSOR, TENSOR)), True), ((2, 1), False),
    ([], False), ('relu', False), (None, False)], ids=str)
def test_a_module_changes_numbers_and_tensors_not_its_sizes(value, expected): assert may_change(value)==expected

def test_frozen_parameters_and_gradients_are_as_they_were():
    "A gradient of zeros is stepped by momentum, none is not"
    learn,other = make(),make()
    learn.freeze()
    learn.fit(1)
    other.create_opt()
    set_learner_state(other, learner_state(learn))
    for p,q in zip(learn.model.parameters(), other.model.parameters()):
        assert p.requires_grad==q.requires_grad and (p.grad is None)==(q.grad is None)
    assert other.opt.frozen_idx==learn.opt.frozen_idx==1

@pytest.mark.parametrize('opt_func', [partial(SGD, mom=.9), Adam, partial(OptimWrapper, opt=torch.optim.Adam)])
def test_the_optimizer_goes_on(tmp_path, opt_func):
    "One step more with the same gradients"
    learn,other = make(opt_func=opt_func),make(opt_func=opt_func)
    learn.fit(1)
    other.create_opt()
    torch.save(learner_state(learn), tmp_path/'x.pt')
    set_learner_state(other, torch.load(tmp_path/'x.pt', weights_only=True))
    for each in (learn, other):
        for p in each.model.parameters(): p.grad = torch.ones_like(p)
        each.opt.step()
    assert differences(learn.model.state_dict(), other.model.state_dict())==[]

def test_copies_of_parameters_that_only_the_optimizer_has_come_back():
    "As half precision makes them"
    class Master(Callback):
        order = MixedPrecision.order
        def before_fit(self):
            self.copies = [[nn.Parameter(p.detach().clone()) for p in ps] for ps in self.learn.opt.param_lists]
            self.learn.opt.param_lists = L(self.copies)
    learners = [make(cbs=Master()) for _ in range(2)]
    for learn in learners:
        learn.create_opt()
        learn.master.before_fit()
    learn,other = learners
    for copies in learn.master.copies:
        for p in copies: p.data += 1
    set_learner_state(other, learner_state(learn))
    assert differences(learn.master.copies, other.master.copies)==[]

def test_a_scaler_goes_on_if_both_have_one():
    "The half precision of either may be new"
    learn,other = make(),make()
    for each in (learn, other): each.create_opt()
    for scaler,expected in ((None, 8.), (GradScaler('cpu', init_scale=4.), 4.)):
        learn.scaler,other.scaler = scaler,GradScaler('cpu', init_scale=8.)
        set_learner_state(other, learner_state(learn))
        assert other.scaler.get_scale()==expected
    other.scaler = None
    set_learner_state(other, learner_state(learn))
    assert other.scaler is None
