"""What any training program needs: checked parameters, precision and devices, checkpoints, several processes,
random streams, schedules, progress, provenance, the colours of figures and a figure below a control.

Imports nothing of the house.
"""
