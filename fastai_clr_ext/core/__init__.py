"What every wing uses: checks of arguments, base callbacks, whole-or-nothing files, axes, lines, pages, progress"
from . import checks, callback, files, labels, figures, spans, pages, progress
from .checks import *
from .callback import *
from .files import *
from .labels import *
from .figures import *
from .spans import *
from .pages import *
from .progress import *

__all__ = sum((module.__all__ for module in (checks, callback, files, labels, figures, spans, pages, progress)), [])
