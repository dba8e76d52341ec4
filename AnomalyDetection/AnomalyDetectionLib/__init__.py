"""Calibrated anomaly maps of medical images: read, score and report.

Importing this package imports nothing else; see the sub-packages.
"""

__version__ = "0.1.0"
