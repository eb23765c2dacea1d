"""File > Open Sample: two small real patches from DIPY, and a simulated travelling subject."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from napari_dmri.viewer.layers import LayerData, labels_layer, scan_layer

__all__ = ["dipy_patch", "small_64d", "small_101d", "travelling_subject"]


def small_64d() -> list[LayerData]:
    """Open DIPY's patch of a real brain with 64 directions at b=1000."""
    return dipy_patch("small_64D")


def small_101d() -> list[LayerData]:
    """Open DIPY's patch of a real brain with 101 directions up to b=4000."""
    return dipy_patch("small_101D")


def dipy_patch(name: str) -> list[LayerData]:
    """Read a patch that comes with the installed DIPY."""
    from dipy.data import get_fnames

    from napari_dmri.io import read_scan

    image, bval, bvec = (Path(p) for p in get_fnames(name=name))
    scan = read_scan(image, bval=bval, bvec=bvec)
    return [scan_layer(replace(scan, name=f"DIPY {name}"))]


def travelling_subject() -> list[LayerData]:
    """Simulate one subject scanned at two sites; it takes seconds, and nothing is downloaded."""
    from napari.utils import progress

    from napari_dmri.images import ScalarImage
    from napari_dmri.phantom.travelling import simulate_subject

    with progress(total=100, desc="Simulating a subject") as bar:

        def report(fraction: float, text: str) -> None:
            bar.update(round(100 * fraction) - bar.n)

        subject = simulate_subject(0, progress=report)
    layers = []
    for site, scan in subject.scans.items():
        name = f"{subject.subject} {site} (simulated)"
        layers.append(scan_layer(replace(scan, name=name), visible=not layers))
    first = next(iter(subject.scans.values()))
    if first.mask is not None:
        mask = ScalarImage(first.mask, first.affine, f"{subject.subject} mask (simulated)")
        layers.append(labels_layer(mask, "mask", visible=False))
    return layers
