"What every wing uses: checks, base callbacks, fastai's loop, random states, ranks, files, axes, lines, pages, progress"
from . import checks, callback, loop, random, ranks, files, labels, figures, spans, pages, progress
from .checks import *
from .callback import *
from .loop import *
from .random import *
from .ranks import *
from .files import *
from .labels import *
from .figures import *
from .spans import *
from .pages import *
from .progress import *

MODULES = checks, callback, loop, random, ranks, files, labels, figures, spans, pages, progress
__all__ = sum((module.__all__ for module in MODULES), [])
