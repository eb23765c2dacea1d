"""Reading block by block, and going on in halves where memory runs out."""

from __future__ import annotations

import numpy as np
import pytest

from napari_dmri import GradientTable, InputError, Scan
from napari_dmri.signal import blocks as module
from napari_dmri.signal.blocks import blocks, empty_like_scan
from napari_dmri.signal.sh_fit import fit_sh
from napari_dmri.signal.tensor import fit_tensor

LAYOUTS = ["C", "F"]


def make(order: str) -> Scan:
    rng = np.random.default_rng(4)
    directions = rng.normal(size=(13, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    directions[0] = 0
    data = rng.uniform(100, 900, (7, 6, 9, 13)).astype(np.float32)
    data[..., 0] = 1000
    data[2, 3, 4, 5] = np.nan
    data[3, 3, 4] = 0
    table = GradientTable(np.r_[0, np.full(12, 1000.0)], directions)
    return Scan(np.asarray(data, order=order), np.eye(4), table)


def together(scan: Scan, volumes, mask=None):
    out = empty_like_scan(scan, len(volumes))
    for block in blocks(scan, np.asarray(volumes), mask):
        block.put(out, block.signal)
    return out


@pytest.mark.parametrize("order", LAYOUTS)
@pytest.mark.parametrize("limit", [1, 3000, 10**9])
def test_blocks_hold_every_voxel_once(order, limit, monkeypatch):
    monkeypatch.setattr(module, "BLOCK_BYTES", limit)
    scan = make(order)
    np.testing.assert_array_equal(together(scan, [3, 0, 12]), scan.data[..., [3, 0, 12]])
    mask = np.random.default_rng(0).random(scan.grid) > 0.5
    found = together(scan, [1, 2], mask)
    np.testing.assert_array_equal(found[mask], scan.data[mask][:, [1, 2]])
    assert not found[~mask].any()


@pytest.mark.parametrize("order", LAYOUTS)
def test_a_block_that_does_not_fit_is_read_in_halves(order, monkeypatch):
    read = module._read
    sizes = []

    def short_of_memory(scan, volumes, mask, planes, *rest):
        if planes.stop - planes.start > 2:
            raise MemoryError
        sizes.append(planes.stop - planes.start)
        return read(scan, volumes, mask, planes, *rest)

    monkeypatch.setattr(module, "_read", short_of_memory)
    scan = make(order)
    np.testing.assert_array_equal(together(scan, range(13)), scan.data)
    assert max(sizes) <= 2


@pytest.mark.parametrize("order", LAYOUTS)
@pytest.mark.filterwarnings("ignore::napari_dmri.errors.DmriWarning")
def test_fits_go_on_in_halves_and_count_voxels_once(order, monkeypatch):
    from napari_dmri.signal import sh_fit, tensor

    scan = make(order)
    whole = fit_sh(scan, 2), fit_tensor(scan)

    fit, solve = sh_fit._Fitter._fit, tensor.TensorSolver._solve

    def early(self, signal):
        if len(signal) > 50:
            raise MemoryError
        return fit(self, signal)

    def early_solve(self, signal):
        if signal.shape[1] > 50:
            raise MemoryError
        return solve(self, signal)

    monkeypatch.setattr(sh_fit._Fitter, "_fit", early)
    monkeypatch.setattr(tensor.TensorSolver, "_solve", early_solve)
    halved = fit_sh(scan, 2), fit_tensor(scan)
    np.testing.assert_allclose(halved[0].coefficients, whole[0].coefficients, atol=1e-6)
    np.testing.assert_allclose(halved[1].tensor, whole[1].tensor, atol=1e-9)
    for a, b in zip(halved, whole, strict=True):
        assert a.provenance["voxels"] == b.provenance["voxels"]


def test_a_result_larger_than_memory_is_refused(monkeypatch):
    from napari_dmri import device

    monkeypatch.setattr(device, "free_memory", lambda name="cpu": 1000)
    with pytest.raises(InputError, match="A result of 6 values for each of the 378 voxels of scan"):
        fit_sh(make("C"), 2)
