"""Backbones, SimCLR with its views and probes, and the weights that networks start from.

May import core, runtime and data.
"""
