"Figures of a history, as methods of `RunHistory` and `Recorder`"
from . import view, curves, gradients, overview, summary, live, page
from .view import *
from .curves import *
from .gradients import *
from .overview import *
from .summary import *
from .live import *
from .page import *

__all__ = sum((module.__all__ for module in (view, curves, gradients, overview, summary, live, page)), [])
