"""What any training program needs: checked parameters, precision and devices, checkpoints, several processes,
random streams, schedules, progress, provenance, the look of figures.

Imports nothing of the house.
"""
