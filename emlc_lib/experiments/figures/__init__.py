"""Figures: tidy data in, matplotlib figure out. Nothing here trains or reads files."""

from __future__ import annotations

__all__ = [
    "BLUE",
    "GREEN",
    "GREY",
    "ORANGE",
    "PINK",
    "accuracy_over_k",
    "accuracy_over_noise",
    "contact_sheet",
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
    "pretraining_loss",
    "style",
    "teacher_architecture",
    "teacher_outputs",
    "training_curves",
    "transition_matrices",
]
