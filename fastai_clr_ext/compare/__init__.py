"Policies compared at the same budget over seeds, with a verdict"
from . import (verdict, sentences, looks, metrics, schema, identity, workers, learners, progress, batches, ends, tuning,
               runs, trials, comparison, recording, runner, report, atlas)
from .verdict import *
from .sentences import *
from .looks import *
from .metrics import *
from .schema import *
from .identity import *
from .workers import *
from .learners import *
from .progress import *
from .batches import *
from .ends import *
from .tuning import *
from .runs import *
from .trials import *
from .comparison import *
from .recording import *
from .runner import *
from .report import *
from .atlas import *

__all__ = sum((module.__all__ for module in (
    verdict, sentences, looks, metrics, schema, identity, workers, learners, progress, batches, ends, tuning, runs,
    trials, comparison, recording, runner, report, atlas)), [])
