"""File > Open Sample: two small real patches from DIPY, and a simulated travelling subject."""

from __future__ import annotations

from dataclasses import replace
from importlib.resources import files
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
    """Open one simulated subject, scanned at two simulated sites."""
    from napari_dmri.images import ScalarImage
    from napari_dmri.io import read_mask, read_scan

    folder = Path(str(files("napari_dmri"))) / "sample_data"
    layers, masks = [], []
    for path in sorted(folder.glob("*_dwi.nii.gz")):
        scan = read_scan(path)
        mask = read_mask(path.with_name(path.name.replace("_dwi", "_mask")), scan)
        image = ScalarImage(mask, scan.affine, f"{scan.name} mask (simulated)")
        named = replace(scan, name=f"{scan.name} (simulated)")
        layers.append(scan_layer(named, visible=not layers))
        masks.append(labels_layer(image, "mask", visible=False))
    return [*layers, *masks]
