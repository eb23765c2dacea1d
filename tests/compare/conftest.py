"""A small synthetic head: white matter, grey matter and CSF in known places."""

from __future__ import annotations

import numpy as np
import pytest

from napari_dmri.scan import GradientTable, Scan


def directions(count: int, seed: int) -> np.ndarray:
    """Spread directions over the half sphere by a golden spiral, turned by the seed."""
    k = np.arange(count) + 0.5
    z = k / count
    phi = np.pi * (1 + 5**0.5) * k + seed
    r = np.sqrt(1 - z**2)
    return np.stack([r * np.cos(phi), r * np.sin(phi), z], axis=1)


def tissue_scan(seed: int = 0, *, count: int = 30, noise: float = 0.0, scale=1.0, name="A") -> Scan:
    """Three slabs along x: WM (FA 0.75, fibre along y), GM (MD 0.8e-3) and CSF (3e-3)."""
    g = directions(count, seed)
    bvalues = np.r_[0, 0, np.full(count, 1000.0)]
    table = GradientTable(bvalues, np.r_[np.zeros((2, 3)), g])
    tensors = np.stack(
        [np.diag([0.4e-3, 1.7e-3, 0.4e-3]), np.diag([0.8e-3] * 3), np.diag([3e-3] * 3)]
    ) * np.asarray(scale)
    shape = (9, 8, 6)
    labels = np.zeros(shape, np.int16)
    labels[1:8, 1:7, 1:5] = 1 + np.arange(7)[:, None, None] // 3 % 3
    data = np.zeros((*shape, len(table)), np.float32)
    for tissue, (tensor, b0) in enumerate(zip(tensors, (600.0, 900.0, 1500.0), strict=True), 1):
        decay = np.exp(
            -bvalues * np.einsum("vi,ij,vj->v", table.directions, tensor, table.directions)
        )
        data[labels == tissue] = b0 * decay
    if noise:
        rng = np.random.default_rng(seed)
        data[labels > 0] += rng.normal(0, noise, data[labels > 0].shape)
        data = np.maximum(data, 0)
    affine = np.diag([2.0, 2.0, 2.5, 1])
    return Scan(data, affine, table, labels > 0, name, metadata={"truth": labels})


@pytest.fixture
def scan() -> Scan:
    return tissue_scan()


@pytest.fixture
def make_scan():
    return tissue_scan
