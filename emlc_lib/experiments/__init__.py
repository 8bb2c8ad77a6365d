"""Runs on disk, many of them, their tables and figures: what the notebooks call.

May import all rooms but estimator.
"""
