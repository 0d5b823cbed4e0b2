"Cycles as data, cycles by name, and the plan of a fit"
from . import phase, sampling, cycle, presets, plan, interop
from .phase import *
from .sampling import *
from .cycle import *
from .presets import *
from .plan import *
from .interop import *

__all__ = sum((module.__all__ for module in (phase, sampling, cycle, presets, plan, interop)), [])
