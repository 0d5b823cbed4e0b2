"Methods of `Learner` that train with cycles and in stages, a guard that ends lost runs, and checkpoints to go on from"
from . import (
    scheduler, one_cycle, divergence, stage, stages, recipes, rewind, watched, guard, values, order, state, facts,
    contents, checkpoint, resume)
from .scheduler import *
from .one_cycle import *
from .divergence import *
from .stage import *
from .stages import *
from .recipes import *
from .rewind import *
from .watched import *
from .guard import *
from .values import *
from .order import *
from .state import *
from .facts import *
from .contents import *
from .checkpoint import *
from .resume import *

MODULES = (scheduler, one_cycle, divergence, stage, stages, recipes, rewind, watched, guard, values, order, state,
           facts, contents, checkpoint, resume)
__all__ = sum((module.__all__ for module in MODULES), [])
