"""The sample image of the module in Slicer's Sample Data module; it comes with the extension, nothing is downloaded."""

from __future__ import annotations

import hashlib
import urllib.parse
import urllib.request
from pathlib import Path

CATEGORY = "Anomaly Detection"
SAMPLE = "brain_flair_3mm.nii.gz"


def register(folder: Path) -> None:
    """Offer the sample of the module's folder Resources/SampleData.

    The checksum is there for Slicer's cache: it is what makes Slicer copy the file anew after an update changed it.
    """
    import SampleData

    file = folder / SAMPLE
    SampleData.SampleDataLogic.registerCustomSampleDataSource(
        category=CATEGORY,
        sampleName="AnomalyBrainFLAIR",
        uris=urllib.parse.urljoin("file:", urllib.request.pathname2url(str(file))),
        fileNames=SAMPLE,
        nodeNames="brain_flair_3mm",
        checksums=f"SHA256:{hashlib.sha256(file.read_bytes()).hexdigest()}",
        thumbnailFileName=str(folder.parent / "Icons" / "brain_flair_3mm.png"),
        loadFileTypes="VolumeFile",
    )
