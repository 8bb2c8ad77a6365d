"""From data sets and files of labels to what one run sees: splits, corruption, batches, augmentation.

May import core and runtime.
"""
