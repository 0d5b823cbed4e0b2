"Figures of a history, as methods of `RunHistory` and `Recorder`"
from . import view, gradients, overview, summary, live
from .view import *
from .gradients import *
from .overview import *
from .summary import *
from .live import *

__all__ = sum((module.__all__ for module in (view, gradients, overview, summary, live)), [])
