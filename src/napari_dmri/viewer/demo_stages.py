"""The stages of the demo, each done by pressing the docks' own buttons."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from napari_dmri.errors import InputError
from napari_dmri.images import ScalarImage
from napari_dmri.viewer.driving import bring_to_front, press, settle, shoot, wait_for
from napari_dmri.viewer.layers import object_of, scan_of

__all__ = ["own_scan", "travelling_subject"]

Say = Callable[[str], None]

PLUGIN = "napari-dmri"
COMPARED = ("FA", "MD", "RISH2")


def open_scan(viewer: Any, path: Path) -> Any:
    """Open a scan through the plugin's reader and return its layer."""
    layers = [layer for layer in viewer.open(str(path), plugin=PLUGIN) if scan_of(layer)]
    if not layers:
        raise InputError(f"{path} did not open as a scan: see the message in the window.")
    return layers[0]


def check_quality(viewer: Any, docks: dict[str, Any], layer: Any, folder: Path, say: Say) -> None:
    """Run the Scan dock's QC and make a mask."""
    scan = docks["Scan"]
    bring_to_front(scan)
    scan.scans.choose(layer)
    settle()
    shoot(viewer, folder / "1_open.png")
    say("Checking quality: SNR, outliers, motion, gradient directions ...")
    press(scan.run_bar)
    shoot(viewer, folder / "2_quality.png")


def fit(viewer: Any, docks: dict[str, Any], layer: Any, folder: Path, say: Say) -> list[Any]:
    """Run the SH fit dock, export what it made, and return the new layers."""
    say("Fitting spherical harmonics and the tensor ...")
    dock = docks["SH fit"]
    bring_to_front(dock)
    dock.scans.choose(layer)
    if dock.mask_row.picker.layer is None:
        dock.mask_row.make.click()
        wait_for(lambda: dock.mask_row.picker.layer is not None, "the brain mask")
    before = set(viewer.layers)
    press(dock.run_bar)
    shoot(viewer, folder / "3_sh_fit.png")
    job = dock.export(folder / "maps")
    wait_for(lambda: not job.running, "the export of the maps")
    return [made for made in viewer.layers if made not in before]


def save_maps(layers: list[Any], folder: Path) -> None:
    """Write maps and masks as NIfTI."""
    from napari_dmri.io import write_map, write_scan

    folder.mkdir(parents=True, exist_ok=True)
    for layer in layers:
        image = object_of(layer)
        name = "".join(c if c.isalnum() or c in "-_=." else "_" for c in layer.name)
        while "__" in name:
            name = name.replace("__", "_")
        if scan_of(layer) is not None:
            write_scan(scan_of(layer), folder / f"{name}.nii.gz")
        elif isinstance(image, ScalarImage):
            write_map(image, folder / f"{name}.nii.gz")


def travelling_subject(
    viewer: Any, docks: dict[str, Any], row: dict[str, Any], folder: Path, say: Say
) -> None:
    """Open a subject's two scans, harmonize one at a click, compare and evaluate."""
    from napari_dmri.viewer.demo import MODEL

    target = open_scan(viewer, row["target"])
    source = open_scan(viewer, row["source"])
    target.visible = False
    check_quality(viewer, docks, source, folder, say)
    for layer in fit(viewer, docks, source, folder, say):
        layer.visible = False

    dock = docks["Harmonize"]
    bring_to_front(dock)
    dock.scan_picker.choose(source)
    if not dock.choose_model(MODEL):
        raise InputError(f"The package lacks the model {MODEL}; install it anew.")
    label = dock.method.currentText()
    say(f"Harmonizing with {label}, trained on other simulated people (demo only) ...")
    dock.compare_when_done.setChecked(False)
    before = set(viewer.layers)
    press(dock.run_bar)
    new = [layer for layer in viewer.layers if layer not in before]
    harmonized = next(layer for layer in new if scan_of(layer) is not None)
    shoot(viewer, folder / "4_harmonize.png")
    show_only([*new, source], "| scale l=2 b=1200")
    shoot(viewer, folder / "4_harmonize_scale.png")
    show_only([*new, source], "| novelty")
    shoot(viewer, folder / "4_harmonize_novelty.png")
    show_only(new)
    harmonized.visible = source.visible = True
    save_maps(new, folder / "maps")
    compare(viewer, docks, (source, harmonized, target), folder, say)
    compare_methods(viewer, dock, (source, target), row, folder, say)
    evaluate(docks, (source, harmonized, target), row, folder, say)


def compare_methods(
    viewer: Any, dock: Any, layers: tuple[Any, Any], row: dict[str, Any], folder: Path, say: Say
) -> None:
    """Run all models of the package on the scan, side by side, and write the tables."""
    bring_to_front(dock)
    part = dock.compare
    part.expand()
    settle()
    again = open_scan(viewer, row["target_repeat"])
    again.visible = False
    dock.scan_picker.choose(layers[0])
    part.reference.choose(layers[1])
    part.repeat.choose(again)
    say(f"Comparing {len(part.chosen)} methods with the scan of the target site ...")
    press(part.run_bar)
    wait_for(lambda: part.layout_.active, "the panels")
    settle(0.8)
    dock.ensureWidgetVisible(part.row_)
    shoot(viewer, folder / "6_methods.png")
    part.export(folder / "methods")
    wait_for(lambda: not part.run_bar.running, "the export")
    say((folder / "methods" / "comparison.md").read_text(encoding="utf-8"))
    part.side.click()
    settle()


def show_only(layers: list[Any], *parts: str) -> None:
    """Show the layers whose names end with one of some parts, and hide the others."""
    for layer in layers:
        layer.visible = layer.name.endswith(parts) if parts else False


def compare(
    viewer: Any, docks: dict[str, Any], layers: tuple[Any, Any, Any], folder: Path, say: Say
) -> None:
    """Lay out source, harmonized and difference for a few maps, and export them."""
    dock = docks["Compare"]
    bring_to_front(dock)
    source, harmonized, target = layers
    for name, reference in (("FA", None), *((name, target) for name in COMPARED)):
        say(f"Comparing {name}{' with the scan of the target site' if reference else ''} ...")
        dock.compare_now(source, harmonized, reference=reference, map_name=name)
        wait_for(lambda: not dock.run_bar.running, f"the comparison of {name}")
        settle(0.5)
        part = "with_target" if reference else "source_harmonized_difference"
        shoot(viewer, folder / f"5_compare_{name}_{part}.png")
        dock.export(folder / "comparison" / f"{name}_{part}")
        wait_for(lambda: not dock.run_bar.running, "the export")
    dock.leave_comparison()


def evaluate(
    docks: dict[str, Any], layers: tuple[Any, Any, Any], row: dict[str, Any], folder: Path, say: Say
) -> None:
    """Write the table of errors against the scan that the target site measured."""
    from napari_dmri.compare.evaluate import evaluate_harmonization
    from napari_dmri.harmonize import refuse_training_subject
    from napari_dmri.io import read_mask, read_scan

    source, harmonized, target = (scan_of(layer) for layer in layers)
    refuse_training_subject(docks["Harmonize"].model, source)
    repeat = read_scan(row["target_repeat"])
    labels = true_tissue(row["subject"], read_mask(row["target_mask"], target))
    table = evaluate_harmonization(source, None, harmonized, target, repeat, labels)
    (folder / "evaluation.tsv").write_text(table.to_tsv(), encoding="utf-8")
    (folder / "evaluation.md").write_text(table.to_markdown(), encoding="utf-8")
    say(table.to_markdown())


def true_tissue(subject: str, mask: np.ndarray) -> np.ndarray:
    """Return a simulated subject's true tissue (1 white, 2 grey matter, 3 CSF) above one half."""
    from napari_dmri.phantom.travelling import simulate_subject
    from napari_dmri.viewer.demo import SEED, SITES, SIZE

    index = int(subject.removeprefix("sub-")) - 1
    made = simulate_subject(index, sites=SITES[-1:], size=SIZE, seed=SEED, repeats=False)
    fractions = np.asarray(made.truth.tissue)
    return np.where(mask & (fractions.max(-1) > 0.5), fractions.argmax(-1) + 1, 0)


def own_scan(viewer: Any, docks: dict[str, Any], path: Path, folder: Path, say: Say) -> None:
    """Load, check, mask and fit a scan of the user's own."""
    layer = open_scan(viewer, path)
    check_quality(viewer, docks, layer, folder, say)
    fit(viewer, docks, layer, folder, say)
    save_maps([docks["SH fit"].mask_row.picker.layer], folder / "maps")
