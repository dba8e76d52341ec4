"""Cohorts, synthesis, training and evaluation of anomaly detectors.

Importing this package imports nothing else; see the sub-packages.
"""
