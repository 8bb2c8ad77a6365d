"""``EMLCClassifier``: a user's own images, their labels corrected and ranked.

May import all rooms but experiments.
"""
