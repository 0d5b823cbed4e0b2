"The commands `clr-demo` and `clr-compare`"
from . import demo, compare
from .demo import *
from .compare import *

__all__ = sum((module.__all__ for module in (demo, compare)), [])
