"Policies compared at the same budget over seeds, with a verdict"
from . import verdict, schema, identity, workers, learners, progress, runs, comparison, runner, report, atlas
from .verdict import *
from .schema import *
from .identity import *
from .workers import *
from .learners import *
from .progress import *
from .runs import *
from .comparison import *
from .runner import *
from .report import *
from .atlas import *

__all__ = sum((module.__all__ for module in (verdict, schema, identity, workers, learners, progress, runs, comparison,
                                              runner, report, atlas)), [])
