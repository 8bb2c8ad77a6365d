"""Figures: tidy data in, matplotlib figure out. Nothing here trains or reads files."""
