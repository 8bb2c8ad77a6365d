"""A run's configuration, presets and identity, its start, the loop, evaluation, and a teacher's corrections.

May import core, runtime, data, networks and methods.
"""
