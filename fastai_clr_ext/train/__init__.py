"Methods of `Learner` that train with cycles and in stages, and a guard that ends lost runs"
from . import scheduler, one_cycle, divergence, stage, stages, recipes, rewind, guard
from .scheduler import *
from .one_cycle import *
from .divergence import *
from .stage import *
from .stages import *
from .recipes import *
from .rewind import *
from .guard import *

__all__ = sum((module.__all__ for module in (scheduler, one_cycle, divergence, stage, stages, recipes, rewind,
                                              guard)), [])
