"Everything that happened in training, as tables and files"
from . import log, measure, statistics, history, fits, recorder, gradients, archive, files, saving, loggers
from .log import *
from .measure import *
from .statistics import *
from .history import *
from .fits import *
from .recorder import *
from .gradients import *
from .archive import *
from .files import *
from .saving import *
from .loggers import *

MODULES = log, measure, statistics, history, fits, recorder, gradients, archive, files, saving, loggers
__all__ = sum((module.__all__ for module in MODULES), [])
