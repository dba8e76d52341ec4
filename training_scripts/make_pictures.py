"""Make the README's pictures: those of a quickstart's output, and that of the panel in 3D Slicer.

python3 training_scripts/make_pictures.py [quickstart_output] [--only-slicer]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import _environment

ROOT = Path(__file__).resolve().parent.parent
PICTURES = ROOT / "Resources" / "Screenshots"
THUMBNAIL = ROOT / "AnomalyDetection" / "Resources" / "Icons" / "brain_flair_3mm.png"


def main() -> None:
    """Copy the chosen overlays into `Resources/Screenshots`, and picture the panel."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", nargs="?", type=Path, default=ROOT / "quickstart_output")
    parser.add_argument("--only-slicer", action="store_true", help="the picture of the panel alone")
    arguments = parser.parse_args()
    if not arguments.only_slicer:
        copy_overlays(parser, arguments.output)
    import _panel_pictures

    for path in _panel_pictures.take(PICTURES, THUMBNAIL):
        print(path)


def copy_overlays(parser: argparse.ArgumentParser, output: Path) -> None:
    """The picture of a tumour and the contact sheet."""
    from PIL import Image

    overlays = sorted(output.rglob("overlay.png"))
    chosen = next((path for path in overlays if "tumour" in path.parent.name), None)
    if chosen is None:
        parser.error(f"{output}: there is no case with a tumour in it; run training_scripts/quickstart.py first.")
    PICTURES.mkdir(parents=True, exist_ok=True)
    for source, name in ((chosen, "overlay.png"), (output / "contact_sheet.png", "contact_sheet.png")):
        if source.exists():
            Image.open(source).convert("RGB").save(PICTURES / name, optimize=True)
            print(f"{PICTURES / name}: from {source}")


if __name__ == "__main__":
    _environment.run_inside(["train", "demo", "test"])
    main()
