"""Enhanced Meta Label Correction: the mathematics, the method and the experiments of the ICCV 2023 paper.

Most users need :func:`make_config`, :func:`run` and the :class:`Run` it returns; the meta-gradients are in
:mod:`emlc_lib.core.meta_gradient`.
"""

import importlib

# What users need and where it is; imported when it is asked for, so that ``emlc --help`` does not wait for torch.
_HOMES = {
    "core.meta_gradient": (
        "clean_gradient", "exact_surrogate", "k_step_surrogate", "log_prob_jvp", "lookahead_weights",
    ),
    "core.teacher": ("Classifier", "Teacher", "build_teacher"),
    "data.datasets": ("ImageSet", "load_dataset"),
    "data.experiment_data": ("ExperimentData",),
    "data.images": ("InputError",),
    "data.prepare": ("prepare",),
    "data.spec": ("DatasetSpec",),
    "estimator.estimator": ("EMLCClassifier",),
    "experiments.runs": ("Run", "find_runs", "run"),
    "networks.backbones": ("build_classifier",),
    "runtime.parameters": ("ConfigError", "DataUnavailable"),
    "training.config": ("Config",),
    "training.presets": ("make_config",),
    "training.trainer": ("train",),
}  # fmt: skip
_HOME = {name: home for home, names in _HOMES.items() for name in names}
__all__ = sorted(_HOME)


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    return globals()[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
