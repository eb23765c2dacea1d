"""A real viewer, and small scans to put into it."""

from __future__ import annotations

import gc
import os
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest

if TYPE_CHECKING:
    from pathlib import Path

os.environ.setdefault("NAPARI_CONFIG", "")


@pytest.fixture(scope="module", autouse=True)
def _what_is_old_is_not_searched():
    """Keep what a module begins with out of the garbage collections that each viewer asks for.

    Imported libraries are most of it, and searching them takes longer than closing the viewer.
    """
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def viewer(make_napari_viewer):
    """Return a shown viewer of fixed size."""
    viewer = make_napari_viewer(show=True)
    viewer.window.resize(1200, 800)
    return viewer


@pytest.fixture
def settle(qtbot):
    """Return a function that runs the event loop until a condition holds."""

    def until(condition, timeout=400.0) -> None:
        qtbot.waitUntil(lambda: bool(condition()), timeout=round(1000 * timeout))

    return until


@pytest.fixture
def pixels(viewer, qtbot):
    """Return a function that takes the canvas as an array once it is drawn."""

    def shot() -> np.ndarray:
        for _ in range(3):
            qtbot.wait(20)
        return viewer.screenshot(canvas_only=True, flash=False)

    return shot


@pytest.fixture
def finish(qtbot):
    """Return a function that waits for a dock's job and returns when its result is shown."""

    def wait(bar, timeout=400.0) -> None:
        end = time.monotonic() + timeout
        qtbot.waitUntil(lambda: bar.job is not None and not bar.running, timeout=timeout * 1000)
        assert time.monotonic() < end
        qtbot.wait(10)

    return wait


@pytest.fixture
def small_scan():
    """Return a scan of 14 x 16 x 12 voxels: 2 b0 and 20 directions, a sheet of x fibres."""
    return make_scan()


@pytest.fixture
def many_directions():
    """Return the same with 48 directions, enough to predict one from the others."""
    return make_scan(count=48)


def make_scan(name="sub-01", shape=(14, 16, 12), seed=0, affine=None, simulated=False, count=20):
    """Simulate tensors along x in one half and along z in the other, in a ball."""
    from napari_dmri.scan import GradientTable, Scan

    rng = np.random.default_rng(seed)
    directions = rng.normal(size=(count, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    for _ in range(200):
        gaps = np.concatenate([directions[:, None] - directions, directions[:, None] + directions])
        far = np.linalg.norm(gaps, axis=2, keepdims=True)
        push = (gaps / np.maximum(far, 1e-3) ** 3).sum(1).reshape(2, -1, 3).sum(0)
        directions += 0.01 * push
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    bvalues = np.r_[0, 0, np.full(count, 1000.0)]
    table = GradientTable(bvalues, np.r_[np.zeros((2, 3)), directions])
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij"), -1)
    ball = np.linalg.norm(grid, axis=-1) < 0.95
    axis = np.where(grid[..., 2] > 0, 0, 2)
    along = table.directions[:, axis].transpose(1, 2, 3, 0)
    signal = 1000 * np.exp(-bvalues * (0.0004 + 0.0013 * along**2))
    data = np.where(
        ball[..., None], signal + rng.normal(0, 8, signal.shape), rng.rayleigh(8, signal.shape)
    )
    affine = np.diag([2.0, 2.0, 2.5, 1.0]) if affine is None else affine
    return Scan(
        data.astype(np.float32), affine, table, name=name, metadata={"simulated": simulated}
    )


@pytest.fixture
def scan_files(tmp_path, small_scan) -> Path:
    """Return a folder with the small scan, a map and a mask of it as NIfTI."""
    import nibabel as nib

    from napari_dmri.io import write_scan

    write_scan(small_scan, tmp_path / "sub-01_dwi.nii.gz")
    affine = small_scan.affine
    b0 = np.asarray(small_scan.data[..., 0])
    nib.save(nib.Nifti1Image(b0, affine), tmp_path / "t1.nii.gz")
    nib.save(nib.Nifti1Image((b0 > 300).astype(np.uint8), affine), tmp_path / "brain_mask.nii.gz")
    nib.save(nib.Nifti1Image(np.asarray(small_scan.data), affine), tmp_path / "bare.nii.gz")
    return tmp_path
