"""Enhanced Meta Label Correction: the mathematics, the method and the experiments of the ICCV 2023 paper.

Most users need :func:`make_config`, :func:`run` and the :class:`Run` it returns; the meta-gradients are in
:mod:`emlc_lib.core.meta_gradient`.
"""

from emlc_lib.core.meta_gradient import (
    clean_gradient,
    exact_surrogate,
    k_step_surrogate,
    log_prob_jvp,
    lookahead_weights,
)
from emlc_lib.core.teacher import Classifier, Teacher, build_teacher
from emlc_lib.data.datasets import ImageSet, load_dataset
from emlc_lib.data.experiment_data import ExperimentData
from emlc_lib.data.images import InputError
from emlc_lib.data.prepare import prepare
from emlc_lib.data.spec import DatasetSpec
from emlc_lib.estimator.estimator import EMLCClassifier
from emlc_lib.experiments.runs import Run, find_runs, run
from emlc_lib.networks.backbones import build_classifier
from emlc_lib.runtime.parameters import ConfigError, DataUnavailable
from emlc_lib.training.config import Config
from emlc_lib.training.presets import make_config
from emlc_lib.training.trainer import train

__all__ = [
    "Classifier",
    "Config",
    "ConfigError",
    "DataUnavailable",
    "DatasetSpec",
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
