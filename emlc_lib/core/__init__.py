"""The paper in one room: meta-gradient, forward mode, losses, noise, metrics and the teacher of Figure 3.

Imports nothing of the house.
"""
