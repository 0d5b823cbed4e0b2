"A cycle as data, named cycles, and the plan of a fit"
from . import cycle, shapes, plan, interop
from .cycle import *
from .shapes import *
from .plan import *
from .interop import *

__all__ = sum((module.__all__ for module in (cycle, shapes, plan, interop)), [])
