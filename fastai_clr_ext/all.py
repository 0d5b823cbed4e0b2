"Everything a notebook needs"
from fastai_clr_ext.schedule import *
from fastai_clr_ext.record import *
from fastai_clr_ext.train import *
from fastai_clr_ext.plot import *
from fastai_clr_ext.situations import *
from fastai_clr_ext.compare import *
