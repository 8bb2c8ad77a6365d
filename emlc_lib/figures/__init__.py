"""Figures: tidy data in, matplotlib figure out. Nothing here trains or reads files."""

from .cost import cost_growth, cost_of_steps, data_rates
from .meta import look_ahead_errors
from .results import accuracy_over_noise
from .style import BLUE, GREEN, GREY, ORANGE, PINK, style
from .teacher import gate_distributions, teacher_architecture, teacher_outputs, transition_matrices
from .training import image_strip, nearest_neighbours, pretraining_loss, training_curves

__all__ = [
    "BLUE",
    "GREEN",
    "GREY",
    "ORANGE",
    "PINK",
    "accuracy_over_noise",
    "cost_growth",
    "cost_of_steps",
    "data_rates",
    "gate_distributions",
    "image_strip",
    "look_ahead_errors",
    "nearest_neighbours",
    "pretraining_loss",
    "style",
    "teacher_architecture",
    "teacher_outputs",
    "training_curves",
    "transition_matrices",
]
