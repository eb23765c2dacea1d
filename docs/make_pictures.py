"""Take the pictures of the guide from the running program: python docs/make_pictures.py [FOLDER].

Runs the demo in a folder (a temporary one unless named) and keeps its screenshots. One picture
alone, here that of networks beside CSD on a measured scan (half an hour and more on a CPU):

    bash scripts/on-screen.sh .venv/bin/python docs/make_pictures.py --only real_networks

It fits SHD-TV to the scan first; ``--steps 500`` makes that shorter, and ``--model FILE`` takes one
that was fitted before, such as that of ``napari-dmri deconvolve fit SCAN -o FOLDER --method
shd-tv --size small``.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from napari_dmri.viewer.demo import run_demo

PICTURES = {
    "2_quality.png": "scan.png",
    "3_sh_fit.png": "sh_fit.png",
    "4_harmonize.png": "harmonize.png",
    "4_harmonize_scale.png": "scale.png",
    "5_compare_FA_source_harmonized_difference.png": "compare_fa.png",
    "5_compare_MD_with_target.png": "compare.png",
    "6_methods.png": "harmonize_methods.png",
}

FIT_STEPS = 400
"""Steps of a fit after which its picture is taken."""


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


def real_glyphs(images: Path, folder: Path) -> None:
    """Draw the fODFs of a few coronal slices of a real scan over its FA, in the real viewer."""
    import napari

    from napari_dmri import ScalarImage, fit_tensor, read_scan
    from napari_dmri.deconvolve.csd import csd
    from napari_dmri.deconvolve.response import estimate_response
    from napari_dmri.signal.mask import brain_mask
    from napari_dmri.viewer.driving import settle
    from napari_dmri.viewer.glyphs.show import show_glyphs
    from napari_dmri.viewer.layers import map_layer
    from napari_dmri.viewer.orientation import PLANES, prepare

    scan = read_scan(folder / "siemens_trio" / "dwi.nii.gz")
    mask = brain_mask(scan)
    scan = replace(scan, mask=mask)
    slices = np.zeros_like(mask)
    slices[:, 49:52] = True
    fod = csd(scan, estimate_response(scan, "fa"), order=6, mask=mask & slices).fod
    fa = ScalarImage(fit_tensor(scan).fa * mask, scan.affine, "FA")
    viewer = napari.Viewer()
    viewer.window.resize(1280, 860)
    prepare(viewer)
    data, kwargs, _ = map_layer(fa)
    viewer.add_image(data, **{**kwargs, "contrast_limits": (0, 1)})
    layer = show_glyphs(viewer, replace(fod, name="fODF"))
    layer.restyle(size=1.5, threshold=0.2)
    viewer.dims.order = PLANES["coronal"]
    viewer.dims.set_current_step(1, 50)
    settle(0.5)
    viewer.scene.camera.center = tuple((scan.affine @ [51, 50, 33, 1])[2::-1])
    viewer.scene.camera.zoom = 21
    settle(1.5)
    path = images / "glyphs.png"
    viewer.screenshot(str(path), canvas_only=False, flash=False)
    Image.open(path).convert("RGB").save(path, optimize=True)
    viewer.close()


def train_dock(images: Path) -> None:
    """Train SHResNet on three simulated subjects, and take the window while it runs."""
    import napari

    from napari_dmri.harmonize import Pair
    from napari_dmri.phantom.travelling import simulate_subject
    from napari_dmri.viewer.driving import bring_to_front, settle, wait_for
    from napari_dmri.viewer.launch import open_docks
    from napari_dmri.viewer.layers import scan_layer

    made = [simulate_subject(n, size=(64, 76, 8), repeats=False).scans for n in range(3)]
    viewer = napari.Viewer()
    viewer.window.resize(1280, 900)
    dock = open_docks(viewer)["Train"]
    bring_to_front(dock)
    data, kwargs, _ = scan_layer(made[2]["ge_st"])
    viewer.add_image(data, **kwargs)
    dock.pairs.add(
        [Pair(s["ge_st"], s["prisma_st"], f"sub-{n + 1:02d}") for n, s in enumerate(made)]
    )
    wait_for(lambda: not dock.pairs.problem, "the check of the pairs")
    dock.run_bar.button.click()
    wait_for(lambda: 4 in dock.curves.curves or not dock.run_bar.running, "four epochs")
    settle(1.5)
    dock.ensureWidgetVisible(dock.slice)
    settle(0.3)
    path = images / "train.png"
    viewer.screenshot(str(path), canvas_only=False, flash=False)
    Image.open(path).convert("RGB").save(path, optimize=True)
    dock.run_bar.button.click()
    wait_for(lambda: not dock.run_bar.running, "the training to stop")
    viewer.close()


def fit_dock(images: Path) -> None:
    """Fit SHD-S-TV to a simulated subject, and take the window while it learns."""
    import napari

    from napari_dmri.phantom.travelling import simulate_subject
    from napari_dmri.viewer.driving import bring_to_front, settle, wait_for
    from napari_dmri.viewer.launch import open_docks
    from napari_dmri.viewer.layers import scan_layer

    site = "prisma_st+b3000"
    scan = simulate_subject(0, sites=(site,), repeats=False).scans[site]
    viewer = napari.Viewer()
    viewer.window.resize(1280, 900)
    dock = open_docks(viewer)["Deconvolve"]
    bring_to_front(dock)
    data, kwargs, _ = scan_layer(replace(scan, name="sub-01 (simulated)"))
    viewer.add_image(data, **kwargs)
    dock.mask_row.add(scan.mask, scan, {}).visible = False
    dock.choose_fit("shd-s-tv")
    dock.fit.begin_anew()
    _, up, along = viewer.scene.camera.center
    viewer.scene.camera.center = (0, up + 12, along + 6)
    viewer.scene.camera.zoom *= 3
    dock.run_bar.button.click()
    wait_for(
        lambda: dock.fit.curves.steps >= FIT_STEPS or not dock.run_bar.running, "the fit", 1200
    )
    if dock.live.layer is not None:
        dock.live.layer.restyle(size=1.5)
    dock.ensureWidgetVisible(dock.fit.curves)
    settle(1.5)
    keep(viewer, images / "deconvolve_fit.png")
    dock.run_bar.button.click()
    wait_for(lambda: not dock.run_bar.running, "the fit to stop")
    dock.fit.begin_anew()
    viewer.close()


def real_networks(
    images: Path, folder: Path, model: Path | None = None, steps: int | None = None
) -> None:
    """Draw a real scan's fODFs side by side: CSD, SHD-TV fitted to it, and the package's SHD-S-TV.

    Parameters
    ----------
    images, folder
        Where the picture goes; where the scans are.
    model
        An SHD-TV that was fitted to the scan; None fits a small one.
    steps
        Of that fit; None follows its plan, of 3000.
    """
    import napari

    from napari_dmri import read_scan
    from napari_dmri.deconvolve.response import estimate_response
    from napari_dmri.deconvolve.shd.fit import fit_to_scan
    from napari_dmri.signal.mask import brain_mask
    from napari_dmri.viewer.driving import press, wait_for
    from napari_dmri.viewer.launch import open_dock
    from napari_dmri.viewer.layers import scan_layer
    from napari_dmri.viewer.orientation import PLANES, prepare

    scan = read_scan(folder / "siemens_trio" / "dwi.nii.gz")
    mask = brain_mask(scan)
    mask[:, :38] = mask[:, 63:] = False
    scan = replace(scan, name="siemens_trio", mask=mask)
    responses = estimate_response(scan)
    with tempfile.TemporaryDirectory() as scratch:
        if model is None:
            made = fit_to_scan(
                scan, responses, "shd-tv", size="small", steps=steps, progress=_printed()
            )
            model = made.model.save(Path(scratch) / "siemens_trio.safetensors")
        viewer = napari.Viewer()
        # Wide enough for what stands above the panels.
        viewer.window.resize(1560, 860)
        prepare(viewer)
        data, kwargs, _ = scan_layer(replace(scan, mask=None))
        viewer.add_image(data, **kwargs)
        dock = open_dock(viewer, "Deconvolve")
        dock.mask_row.add(mask, scan, {}).visible = False
        dock.response.take(responses)
        viewer.dims.order = PLANES["coronal"]
        viewer.dims.set_current_step(1, 50)
        dock.models.load(model)
        wait_for(lambda: any(k.origin == "file" for k in dock.models.of("shd-tv")), "the file")
    dock.method.choose("shd-s-tv")
    wait_for(lambda: dock.models.known is not None and not dock.models.problem, "the model")
    press(dock.run_bar, 1200)
    # Last in the row.
    dock.compare.boxes["shd-s-tv"] = dock.compare.boxes.pop("shd-s-tv")
    set_beside(viewer, dock, "csd", "shd-tv", "shd-s-tv", size=1.5, threshold=0.2)
    viewer.scene.camera.center = tuple((scan.affine @ [51, 50, 33, 1])[2::-1])
    viewer.scene.camera.zoom = 14
    keep(viewer, images / "deconvolve_beside.png")
    viewer.close()


def set_beside(viewer: Any, dock: Any, *methods: str, size: float, threshold: float) -> None:
    """Run methods in the dock, and style their glyphs in the panels side by side."""
    from napari_dmri.viewer.driving import settle, wait_for

    dock.compare.run_these(*methods)
    wait_for(lambda: viewer.canvas.grid.enabled, "the panels", 3600)
    for panel in dock.compare.panels:
        panel[1].restyle(size=size, threshold=threshold)
        panel[0].colorbar.visible = False
    settle(0.5)


def lesion(images: Path) -> None:
    """Draw fODFs in and around a simulated cavity, method by method."""
    import napari

    from napari_dmri.deconvolve.evaluation.lesion import lesion_scans
    from napari_dmri.deconvolve.evaluation.protocols import PROTOCOLS, subject_case
    from napari_dmri.viewer.driving import wait_for
    from napari_dmri.viewer.launch import open_dock
    from napari_dmri.viewer.layers import scan_layer
    from napari_dmri.viewer.orientation import PLANES, prepare

    protocol = PROTOCOLS["high"]
    subject, inside = lesion_scans(protocol, "csf")
    case = subject_case(protocol, subject)
    scan = replace(case.scan, name="simulated cavity")
    centre = np.argwhere(inside).mean(0).round().astype(int)
    viewer = napari.Viewer()
    viewer.window.resize(1560, 760)
    prepare(viewer)
    data, kwargs, _ = scan_layer(scan)
    viewer.add_image(data, **kwargs)
    dock = open_dock(viewer, "Deconvolve")
    dock.response.take(case.responses)
    viewer.dims.order = PLANES["axial"]
    viewer.dims.set_current_step(2, int(centre[2]))
    dock.method.choose("shd-s-tv")
    wait_for(lambda: dock.models.known is not None and not dock.models.problem, "the model")
    set_beside(viewer, dock, "csd", "msmt-csd", "shd-s-tv", size=3.2, threshold=0.1)
    viewer.scene.camera.center = tuple((scan.affine @ [*centre, 1])[2::-1])
    viewer.scene.camera.zoom = 17
    keep(viewer, images / "deconvolve_lesion.png")
    viewer.close()


def _printed() -> Any:
    """Return a progress that prints every percent once."""
    told = [-1]

    def report(fraction: float, text: str) -> None:
        if int(100 * fraction) > told[0]:
            told[0] = int(100 * fraction)
            print(f"{told[0]} %  {text}", flush=True)

    return report


def keep(viewer: Any, path: Path) -> None:
    """Save a picture of the whole window as a small PNG."""
    from napari_dmri.viewer.driving import settle

    settle(1.5)
    shot = Image.fromarray(viewer.screenshot(canvas_only=False, flash=False)).convert("RGB")
    shot.quantize(192, dither=Image.Dither.NONE).save(path, optimize=True)


def alignment(images: Path) -> None:
    """Harmonize the sample with LinearRISH, and take template and scan as they were aligned."""
    import napari

    from napari_dmri.viewer.demo_stages import show_only
    from napari_dmri.viewer.driving import bring_to_front, press, settle
    from napari_dmri.viewer.launch import open_docks

    viewer = napari.Viewer()
    viewer.window.resize(1560, 940)
    dock = open_docks(viewer)["Harmonize"]
    viewer.open_sample("napari-dmri", "travelling")
    bring_to_front(dock)
    dock.scan_picker.choose(viewer.layers[0])
    dock.choose_model("demo-linear-rish")
    dock.compare_when_done.setChecked(False)
    press(dock.run_bar)
    show_only(list(viewer.layers), "| template FA", "| scan FA")
    settle(0.5)
    path = images / "alignment.png"
    viewer.screenshot(str(path), canvas_only=False, flash=False)
    Image.open(path).convert("RGB").save(path, optimize=True)
    viewer.close()


def demo(images: Path, folder: str | None) -> None:
    """Run the demo in a folder, a temporary one unless named, and keep its pictures."""
    with tempfile.TemporaryDirectory() as scratch:
        made = run_demo(out=folder or scratch, headless=True)
        for taken, kept in PICTURES.items():
            picture = Image.open(made / taken).convert("RGB")
            picture.save(images / kept, optimize=True)
            print(f"{kept}: {(images / kept).stat().st_size / 1000:.0f} kB")


def main() -> None:
    """Take all pictures, or those that are asked for."""
    images = Path(__file__).parent / "images"
    images.mkdir(exist_ok=True)
    data = Path(os.environ.get("NAPARI_DMRI_DATA", Path(__file__).parents[2] / "shared" / "data"))
    stages = {
        "phantom_glyphs": lambda: phantom_glyphs(images),
        "train_dock": lambda: train_dock(images),
        "fit_dock": lambda: fit_dock(images),
        "real_glyphs": lambda: real_glyphs(images, data),
        "real_networks": lambda: real_networks(images, data, given.model, given.steps),
        "lesion": lambda: lesion(images),
        "demo": lambda: demo(images, given.folder),
    }
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("folder", nargs="?", help="where the demo runs; a temporary one else")
    parser.add_argument("--only", choices=stages, action="append", help="may be repeated")
    parser.add_argument("--model", type=Path, help="an SHD-TV fitted to the real scan")
    parser.add_argument("--steps", type=int, help="of the fit of SHD-TV to the real scan")
    given = parser.parse_args()
    for name in given.only or stages:
        if name.startswith("real") and not data.is_dir():
            print(f"{name} is left as it is: real scans were not found at {data}")
            continue
        stages[name]()


if __name__ == "__main__":
    main()
