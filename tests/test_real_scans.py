"""Whole real scans: anatomy in the colours, one scan in two formats, memory.

Positions are millimetres from the middle of the brain mask, in the scanner's RAS frame: bundles
of a size and place that every head has, so that no registration is needed.
"""

from __future__ import annotations

import subprocess
import sys
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy import ndimage

from napari_dmri import DmriWarning, brain_mask, fit_sh, fit_tensor, read_scan, rish
from napari_dmri.signal.orientation import check_orientation

if TYPE_CHECKING:
    from pathlib import Path

    from napari_dmri import Scan
    from napari_dmri.images import TensorImage

SCANS = {
    "siemens_trio": "dwi.nii.gz",
    "philips_achieva_crop": "dwi.nii.gz",
    "siemens_sagittal": "dwi.nii.gz",
    "vanderbilt_nrrd": "WIP_dti_ax_601.nii.gz",
}
LITRES = {"siemens_trio": (1.1, 1.8), "siemens_sagittal": (1.1, 1.8), "vanderbilt_nrrd": (1.1, 1.7)}


@dataclass(frozen=True, eq=False)
class Brain:
    """A masked scan, its tensors, and where each voxel is from the middle of the brain (mm)."""

    scan: Scan
    tensor: TensorImage
    place: np.ndarray

    def colours(self, where: np.ndarray) -> np.ndarray:
        """Return which part of the voxels runs mostly R-L (red), A-P (green), S-I (blue)."""
        axis = np.abs(self.tensor.principal[where]).argmax(-1)
        assert len(axis) > 50
        return np.bincount(axis, minlength=3) / len(axis)


def load(path: Path) -> Brain:
    scan = read_scan(path)
    scan = scan.with_mask(brain_mask(scan))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DmriWarning)
        tensor = fit_tensor(scan, device="cpu")
    world = np.moveaxis(np.indices(scan.grid), 0, -1) @ scan.affine[:3, :3].T
    return Brain(scan, tensor, world - world[scan.mask].mean(0))


@pytest.fixture(scope="module", params=list(SCANS))
def brain(request, real_data) -> Brain:
    return load(real_data / request.param / SCANS[request.param])


def test_colours_are_anatomically_right(brain):
    x, y, _ = np.moveaxis(np.abs(brain.place), -1, 0)
    forward, up = brain.place[..., 1], brain.place[..., 2]
    fa = brain.tensor.fa
    # Away from the mask's rim, where noise is anisotropic; a slab's faces are no rim.
    deep = ndimage.binary_erosion(brain.scan.mask, iterations=2, border_value=1)
    callosum = brain.colours(deep & (x < 4) & (y < 45) & (up > -5) & (fa > 0.7))
    assert callosum[0] > 0.7, "the corpus callosum crosses from right to left: red"
    corticospinal = brain.colours(
        deep & (abs(x - 24) < 6) & (y < 15) & (abs(up - 10) < 15) & (fa > 0.5)
    )
    assert corticospinal[2] > 0.6, "the corticospinal tract rises: blue"
    association = brain.colours(
        deep & (abs(x - 35) < 6) & (abs(forward + 10) < 25) & (abs(up - 20) < 15) & (fa > 0.5)
    )
    assert association.argmax() == 1, "long association fibres run from front to back: green"


def test_coherence_finds_no_flip(brain):
    check = check_orientation(brain.tensor, brain.scan)
    assert check.best == "none" and not check.suspicious
    first, second, *_ = sorted(check.scores.values(), reverse=True)
    assert first > 1.12 * second


def test_everything_is_finite_and_in_range(brain):
    tensor, scan = brain.tensor, brain.scan
    for values in (tensor.tensor, tensor.eigenvalues, tensor.principal, tensor.fa, tensor.md):
        assert np.isfinite(values).all()
    assert 0.4e-3 < np.median(tensor.md[scan.mask]) < 1.1e-3
    assert tensor.eigenvalues.max() < 0.02
    np.testing.assert_allclose(np.linalg.norm(tensor.principal[tensor.mask], axis=1), 1, atol=1e-5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DmriWarning)
        image = fit_sh(scan, device="cpu")
    assert np.isfinite(image.coefficients).all()
    energies = rish(image)[image.mask]
    assert (np.diff(np.median(energies, axis=0)) < 0).all()
    litres = scan.mask.sum() * abs(np.linalg.det(scan.affine[:3, :3])) / 1e6
    low, high = LITRES.get(scan.path.parent.name, (0.2, 0.6))
    assert low < litres < high


def test_whole_grid_fits_are_finite_too(real_data):
    """Air holds zeros in single volumes, b0 among them."""
    for name in ("siemens_sagittal", "vanderbilt_nrrd"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DmriWarning)
            tensor = fit_tensor(read_scan(real_data / name / SCANS[name]), device="cpu")
        assert np.isfinite(tensor.fa).all() and np.isfinite(tensor.tensor).all()
        assert tensor.eigenvalues.max() < 1


def test_nifti_and_nhdr_are_one_scan(real_data):
    nifti, nhdr = (
        load(real_data / "vanderbilt_nrrd" / f"WIP_dti_ax_601.{suffix}")
        for suffix in ("nii.gz", "nhdr")
    )
    np.testing.assert_array_equal(nifti.scan.mask, nhdr.scan.mask)
    where = nifti.scan.mask & (nifti.tensor.fa > 0.3)
    assert where.sum() > 5000
    a, b = (brain.tensor.principal[where].astype(float) for brain in (nifti, nhdr))
    sine = np.linalg.norm(np.cross(a, b), axis=1)
    angles = np.rad2deg(np.arctan2(sine, np.abs((a * b).sum(1))))
    assert angles.max() < 0.1


MEMORY = """
import resource, sys
from napari_dmri import fit_sh, read_scan
import torch
torch.zeros(2) @ torch.zeros(2)
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
before = peak()
image = fit_sh(read_scan(sys.argv[1]), device="cpu")
assert image.order == 4
print(peak() - before)
"""


def test_fitting_a_whole_brain_adds_less_than_a_gigabyte(real_data):
    path = real_data / "siemens_trio" / SCANS["siemens_trio"]
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(path)], capture_output=True, text=True, check=True
    )
    assert float(done.stdout) < 1.0
