"""Clothing1M, which stays on disk: its folder, its parts as the data of a run, a made-up example.

Belongs to the room data.
"""
