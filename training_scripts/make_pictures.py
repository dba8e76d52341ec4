"""Make the README's pictures from a quickstart's output.

python3 training_scripts/make_pictures.py [quickstart_output]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import _environment

ROOT = Path(__file__).resolve().parent.parent
PICTURES = ROOT / "Resources" / "Screenshots"


def main() -> None:
    """Copy the chosen overlays into `Resources/Screenshots`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", nargs="?", type=Path, default=ROOT / "quickstart_output")
    output = parser.parse_args().output
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
    _environment.run_inside(["train", "demo"])
    main()
