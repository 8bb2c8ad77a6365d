"""Enhanced Meta Label Correction: the mathematics, the method and the experiments of the ICCV 2023 paper.

Most users need :func:`make_config`, :func:`run` and the :class:`Run` it returns; the meta-gradients are in
:mod:`emlc_lib.meta_gradient`.
"""

from .config import Config, ConfigError
from .data import DataUnavailable, ExperimentData, ImageSet, load_dataset, prepare
from .estimator import EMLCClassifier
from .images import InputError
from .meta_gradient import clean_gradient, exact_surrogate, k_step_surrogate, log_prob_jvp, lookahead_weights
from .models import Classifier, Teacher, build_classifier, build_teacher
from .presets import make_config
from .runs import Run, find_runs, run
from .trainer import train

__all__ = [
    "Classifier",
    "Config",
    "ConfigError",
    "DataUnavailable",
    "EMLCClassifier",
    "ExperimentData",
    "ImageSet",
    "InputError",
    "Run",
    "Teacher",
    "build_classifier",
    "build_teacher",
    "clean_gradient",
    "exact_surrogate",
    "find_runs",
    "k_step_surrogate",
    "load_dataset",
    "log_prob_jvp",
    "lookahead_weights",
    "make_config",
    "prepare",
    "run",
    "train",
]
