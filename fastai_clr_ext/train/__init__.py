"Methods of `Learner` that train with cycles and in stages, and a guard that ends lost runs"
from . import one_cycle, divergence, stage, stages, recipes, rewind, guard
from .one_cycle import *
from .divergence import *
from .stage import *
from .stages import *
from .recipes import *
from .rewind import *
from .guard import *

__all__ = sum((module.__all__ for module in (one_cycle, divergence, stage, stages, recipes, rewind, guard)), [])
