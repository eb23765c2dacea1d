"""Take the pictures of the guide from the running program: python docs/make_pictures.py [FOLDER].

Runs the demo in a folder (a temporary one unless named) and keeps its screenshots.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from PIL import Image

from napari_dmri.viewer.demo import run_demo

PICTURES = {
    "2_quality.png": "scan.png",
    "3_sh_fit.png": "sh_fit.png",
    "4_harmonize.png": "harmonize.png",
    "4_harmonize_alignment.png": "alignment.png",
    "4_harmonize_scale.png": "scale.png",
    "5_compare_FA_source_harmonized_difference.png": "compare_fa.png",
    "5_compare_MD_with_target.png": "compare.png",
}


def main() -> None:
    """Run the demo and keep its pictures."""
    images = Path(__file__).parent / "images"
    images.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        folder = run_demo(out=sys.argv[1] if len(sys.argv) > 1 else scratch, headless=True)
        for taken, kept in PICTURES.items():
            picture = Image.open(folder / taken).convert("RGB")
            picture.save(images / kept, optimize=True)
            print(f"{kept}: {(images / kept).stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
