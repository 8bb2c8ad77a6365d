"""Figures: tidy data in, matplotlib figure out. Nothing here trains or reads files."""

from ...runtime.palette import BLUE, GREEN, GREY, ORANGE, PINK
from .cost import cost_growth, cost_of_steps, data_rates
from .label_errors import label_errors
from .meta import look_ahead_errors
from .paper import (
    accuracy_over_k,
    embedding_maps,
    gradient_error_curves,
    label_recovery,
    meta_losses,
    option_effects,
)
from .results import accuracy_over_noise
from .style import style
from .teacher import gate_distributions, teacher_architecture, teacher_outputs, transition_matrices
from .training import (
    image_strip,
    learning_rate_plans,
    nearest_neighbours,
    pretraining_curves,
    pretraining_loss,
    training_curves,
)

__all__ = [
    "BLUE",
    "GREEN",
    "GREY",
    "ORANGE",
    "PINK",
    "accuracy_over_k",
    "accuracy_over_noise",
    "cost_growth",
    "cost_of_steps",
    "data_rates",
    "embedding_maps",
    "gate_distributions",
    "gradient_error_curves",
    "image_strip",
    "label_errors",
    "label_recovery",
    "learning_rate_plans",
    "look_ahead_errors",
    "meta_losses",
    "nearest_neighbours",
    "option_effects",
    "pretraining_curves",
    "pretraining_loss",
    "style",
    "teacher_architecture",
    "teacher_outputs",
    "training_curves",
    "transition_matrices",
]
