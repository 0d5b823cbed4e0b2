"Everything a notebook needs: `from fastai_clr_ext.all import *` after fastai's own import"
from fastai_clr_ext.schedule import *
from fastai_clr_ext.history import *
from fastai_clr_ext.one_cycle import *
from fastai_clr_ext.record import *
from fastai_clr_ext.forward import *
from fastai_clr_ext.guard import *
from fastai_clr_ext.finetune import *
from fastai_clr_ext.view import *
from fastai_clr_ext.plot import *
from fastai_clr_ext.run import *
from fastai_clr_ext.situations import *
from fastai_clr_ext.trials import *
from fastai_clr_ext.verdict import *
from fastai_clr_ext.compare import *
from fastai_clr_ext.records import *
from fastai_clr_ext.report import *
from fastai_clr_ext.cli import *
