"""Take the pictures of the guide from the running program: python docs/make_pictures.py [FOLDER].

Runs the demo in a folder (a temporary one unless named) and keeps its screenshots.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
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


def phantom_glyphs(images: Path) -> None:
    """Draw a simulated subject's true fODFs over its FA, in the real viewer."""
    import napari

    from napari_dmri import ScalarImage, fit_tensor
    from napari_dmri.phantom.travelling import simulate_subject
    from napari_dmri.viewer.driving import settle
    from napari_dmri.viewer.glyphs.show import show_glyphs
    from napari_dmri.viewer.layers import map_layer
    from napari_dmri.viewer.orientation import prepare

    subject = simulate_subject(0, sites=("prisma_st",), repeats=False)
    scan = subject.scans["prisma_st"]
    fa = ScalarImage(fit_tensor(scan).fa * scan.mask, scan.affine, "FA (simulated)")
    viewer = napari.Viewer()
    viewer.window.resize(1280, 860)
    prepare(viewer)
    data, kwargs, _ = map_layer(fa)
    viewer.add_image(data, **{**kwargs, "contrast_limits": (0, 2)})
    fod = replace(subject.truth.fod(8), name="true fODFs (simulated)")
    show_glyphs(viewer, fod).restyle(size=2.3, threshold=0.1)
    viewer.scene.camera.center = (scan.affine[:3, 3] + 1.2 * np.array(scan.grid) + [-18, 4, 0])[
        ::-1
    ]
    viewer.scene.camera.zoom = 13
    settle(1.5)
    viewer.screenshot(str(images / "phantom_glyphs.png"), canvas_only=False, flash=False)
    viewer.close()


def main() -> None:
    """Run the demo and keep its pictures."""
    images = Path(__file__).parent / "images"
    images.mkdir(exist_ok=True)
    phantom_glyphs(images)
    with tempfile.TemporaryDirectory() as scratch:
        folder = run_demo(out=sys.argv[1] if len(sys.argv) > 1 else scratch, headless=True)
        for taken, kept in PICTURES.items():
            picture = Image.open(folder / taken).convert("RGB")
            picture.save(images / kept, optimize=True)
            print(f"{kept}: {(images / kept).stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
