"""Networks that detectors share, in plain torch."""
