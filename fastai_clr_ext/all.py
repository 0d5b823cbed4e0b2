"The names that a notebook needs; everything else is in the wings"
from .schedule import (
    ByGroup, Cycle, CycleLR, Phase, Plan, clr_07, clr_beta_07, constant, flat_cos, inverse_sqrt,
    one_cycle, one_cycle_fastai, one_cycle_torch, one_cycle_v1, plot_schedule, polynomial,
    step_decay, triangular, warmup_cosine, wsd)
from .record import STATS, ForwardHistory, GradRecorder, HistoryRecorder, RunHistory, SaveHistory
from .train import (
    CycleScheduler, Divergence, DivergenceGuard, FitCheckpoint, Stage, StagedPlan, can_resume, plan_stages,
    stages_fine_tune, stages_gradual, stages_long, stages_two_cycles)
from .plot import HistoryView, ShowCycle
from .situations import (
    SITUATIONS, Images, Situation, cifar_resnet, digits_dls, folder_images, idx_images, images_dls, load_images,
    situation)
from .compare import (
    Comparison, check_record, compare, merge_records, merged_html, merged_markdown, over_situations, paired_summary,
    plot_situations, read_record, run_policy, seeds_needed)
