"""Synthetic anatomy, lesions and scans.

The names below are those of the tables `anatomy.ANATOMIES`, `contrast.CONTRASTS` and `lesions.KINDS`; they stand here
so that the command line can list them without loading torch.
"""

from __future__ import annotations

ANATOMY_NAMES = ("icbm152",)
CONTRAST_NAMES = ("t1", "flair", "t2")
LESION_NAMES = ("tumour", "plaques", "infarct", "haemorrhage", "atrophy")
