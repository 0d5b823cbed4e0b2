"Data and networks that need no download, and ready set-ups"
from . import nets, images, catalog
from .nets import *
from .images import *
from .catalog import *

__all__ = sum((module.__all__ for module in (nets, images, catalog)), [])
