"""Brain masks: a synthetic head with skull, scalp, eyes and bias, real scans, and bad input."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy import ndimage

from napari_dmri import DmriWarning, GradientTable, InputError, Scan, brain_mask
from napari_dmri.signal.mask import otsu_threshold, shell_means

if TYPE_CHECKING:
    from pathlib import Path

SIGNAL = {"brain": (400, 200), "fluid": (1500, 90), "scalp": (180, 60), "eye": (1400, 100)}
"""Mean b0 and weighted signal of each tissue, for noise of 20."""


def make_head(
    shape: tuple[int, int, int] = (60, 72, 50), size: float = 2.5, sigma: float = 20.0
) -> tuple[Scan, np.ndarray]:
    """Return a head (ventricles, skull, scalp ring, two eyes, bias field) and its brain."""
    rng = np.random.default_rng(0)
    i = np.stack(np.meshgrid(*(np.arange(n) - (n - 1) / 2 for n in shape), indexing="ij"))
    p = i * size
    radius = np.sqrt((p[0] / 58) ** 2 + (p[1] / 72) ** 2 + (p[2] / 52) ** 2)
    brain = radius < 1
    fluid = brain & ((np.abs(np.abs(p[0]) - 10) < 6) & (np.abs(p[1]) < 25) & (np.abs(p[2]) < 12))
    fluid |= brain & (radius > 0.95)
    scalp = (radius > 1.14) & (radius < 1.22)
    eyes = np.zeros(shape, bool)
    for side in (-30, 30):
        eyes |= (p[0] - side) ** 2 + (p[1] - 76) ** 2 + (p[2] + 30) ** 2 < 11**2
    eyes &= ~brain
    nerve = (np.abs(np.abs(p[0]) - 30) < 3) & (np.abs(p[2] + 30) < 3) & (p[1] > 40) & (p[1] < 80)
    bias = np.exp(0.35 * (p[1] / 80) + 0.2 * (p[0] / 80))
    data = np.zeros((*shape, 12), np.float32)
    for v in range(12):
        mean = np.zeros(shape)
        for region, name in (
            (scalp, "scalp"),
            (eyes, "eye"),
            (nerve, "brain"),
            (brain, "brain"),
            (fluid, "fluid"),
        ):
            mean[region] = SIGNAL[name][0 if v < 2 else 1]
        mean = ndimage.gaussian_filter(mean, 0.4) * bias
        noise = rng.normal(0, sigma, (2, *shape))
        data[..., v] = np.hypot(mean + noise[0], noise[1])
    g = rng.normal(size=(10, 3))
    g /= np.linalg.norm(g, axis=1, keepdims=True)
    table = GradientTable(np.r_[0, 0, np.full(10, 1000.0)], np.r_[np.zeros((2, 3)), g])
    return Scan(data, np.diag([size, size, size, 1]), table, name="head"), brain


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


@pytest.mark.parametrize("sigma", [5.0, 20.0, 40.0])
def test_a_synthetic_head(sigma: float) -> None:
    scan, brain = make_head(sigma=sigma)
    mask = brain_mask(scan)
    assert mask.shape == scan.grid and mask.dtype == bool
    assert dice(mask, brain) > 0.98
    assert ndimage.label(mask)[1] == 1
    assert not (ndimage.binary_fill_holes(mask) & ~mask).any()


def test_a_crop_through_the_brain_and_an_extracted_brain() -> None:
    scan, brain = make_head()
    crop = Scan(scan.data[:, :, 20:30], scan.affine, scan.gradients)
    assert dice(brain_mask(crop), brain[:, :, 20:30]) > 0.98
    extracted = np.where(brain[..., None], scan.data, 0)
    assert dice(brain_mask(Scan(extracted, scan.affine, scan.gradients)), brain) > 0.97


def test_voxels_that_are_not_finite_do_not_matter() -> None:
    scan, brain = make_head()
    data = np.array(scan.data)
    data[30, 30, 25, 3], data[0, 0, 0, 0] = np.nan, np.inf
    with pytest.warns(DmriWarning, match="2 voxels hold NaN or Inf"):
        found = brain_mask(Scan(data, scan.affine, scan.gradients))
    assert dice(found, brain) > 0.98


def test_means_of_shells() -> None:
    scan, _ = make_head(shape=(8, 8, 8))
    means = shell_means(scan)
    assert list(means) == [0, 1000]
    np.testing.assert_allclose(means[0], np.asarray(scan.data)[..., :2].mean(-1), rtol=1e-5)
    np.testing.assert_allclose(means[1000], np.asarray(scan.data)[..., 2:].mean(-1), rtol=1e-5)


def test_threshold_between_two_groups() -> None:
    values = np.r_[np.random.default_rng(0).normal(0, 1, 900), np.full(100, 50.0)]
    assert 5 < otsu_threshold(values) < 50
    with pytest.raises(InputError, match="All 5 values are 3"):
        otsu_threshold(np.full(5, 3.0))


def test_images_without_a_brain_are_refused() -> None:
    scan, _ = make_head(shape=(10, 10, 10))
    for value, words in ((0, "all 1000 voxels are zero, NaN or Inf"), (7, "same everywhere")):
        with pytest.raises(InputError, match=words):
            brain_mask(Scan(np.full_like(scan.data, value), scan.affine, scan.gradients))


@pytest.mark.parametrize(
    ("name", "litres"),
    [
        ("siemens_trio/dwi.nii.gz", (1.3, 1.65)),
        ("siemens_sagittal/dwi.nii.gz", (1.4, 1.7)),
        ("vanderbilt_nrrd/WIP_dti_ax_601.nii.gz", (1.2, 1.5)),
    ],
)
def test_real_brains_have_their_volume(
    real_data: Path, name: str, litres: tuple[float, float]
) -> None:
    from napari_dmri import read_scan

    scan = read_scan(real_data / name)
    mask = brain_mask(scan)
    assert litres[0] < mask.sum() * scan.voxel_size.prod() / 1e6 < litres[1]
    assert ndimage.label(mask)[1] == 1
