import pickle, pytest
from fastai.callback.core import Callback
from fastai_clr_ext.core.loop import batches_from, epochs_from
from conftest import ValidateAt

class Events(Callback):
    "Notes epochs and training batches"
    def before_fit(self): self.seen = []
    def before_epoch(self): self.seen.append(('epoch', self.epoch))
    def after_batch(self):
        if self.training: self.seen.append((self.epoch, self.iter))

class PickleInFit(Callback):
    "Writes the learner's loop, and with it the learner, and reads it"
    def before_batch(self): self.learn.read = pickle.loads(pickle.dumps(vars(self.learn)['_do_fit']))

@pytest.mark.parametrize('first', [0, 1, 2])
def test_epochs_before_the_first_have_no_event(mlp, first):
    learn = mlp(2, cbs=Events())
    with epochs_from(learn, first): learn.fit(3)
    expected = [event for epoch in range(first, 3) for event in [('epoch', epoch), (epoch, 0), (epoch, 1)]]
    assert learn.events.seen==expected and '_do_fit' not in vars(learn)
    assert len(learn.recorder.values)==3-first

def test_the_first_epoch_begins_with_a_batch_and_no_other_does(mlp):
    learn = mlp(2, cbs=Events())
    with batches_from(learn, 3): learn.fit(2)
    assert learn.events.seen==[('epoch', 0), (0, 3), (0, 4), ('epoch', 1), (1, 0), (1, 1)]

def test_a_validation_before_the_epoch_is_not_what_begins_later(mlp):
    learn = mlp(2, cbs=[Events(), ValidateAt('before_epoch')])
    with batches_from(learn, 3): learn.fit(1)
    assert learn.events.seen[-2:]==[(0, 3), (0, 4)]

def test_a_validation_before_the_epoch_sees_its_batches(mlp):
    class Validated(Callback):
        n = 0
        def after_batch(self): self.n += not self.training
    learn = mlp(2, cbs=[Validated(), ValidateAt('before_epoch')])
    n_valid = len(learn.dls.valid)
    with batches_from(learn, 3): learn.fit(1)
    assert n_valid and learn.validated.n==2*n_valid

def test_an_error_leaves_fastais_loops(mlp):
    class Fail(Callback):
        def before_fit(self): raise OSError('before the first batch')
    learn = mlp(2)
    with pytest.raises(OSError, match='before the first'), epochs_from(learn, 1), batches_from(learn, 1):
        learn.fit(2, cbs=Fail())
    assert not {'_do_fit', 'all_batches'} & vars(learn).keys()

def test_a_learner_can_be_pickled_in_such_a_fit(mlp):
    learn = mlp(1, cbs=PickleInFit())
    learn.logger = print
    with epochs_from(learn, 1): learn.fit(2)
    assert vars(learn)['read'].func.__name__=='train_epochs'
