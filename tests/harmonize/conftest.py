"""Small smooth brains whose SH coefficients are known."""

import warnings
from dataclasses import dataclass, replace

import numpy as np
import pytest
from scipy import ndimage

from napari_dmri import DmriWarning, GradientTable, Scan
from napari_dmri.harmonize import LinearRish, Pair
from napari_dmri.sphere.harmonics import degrees, design_matrix
from napari_dmri.sphere.sampling import half_sphere

SHAPE = (22, 26, 12)
FACTORS = (0.96, 1.15, 1.3)
AFFINE = np.diag([2.4, 2.4, 2.4, 1.0])
AFFINE[:3, 3] = -1.2 * np.array(SHAPE)
QUICK = {"rounds": 2, "iterations": (12, 8), "rim": 0.0}


DIRECTIONS = half_sphere(30)


def smooth_noise(rng, sigma, shape=SHAPE):
    field = ndimage.gaussian_filter(rng.standard_normal(shape), sigma)
    return field / field.std()


def base_brain(seed=0):
    """Return coefficients (X, Y, Z, 15) of S/b0 with energy in each order, and a mask."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in SHAPE], indexing="ij"), axis=-1)
    mask = (grid[..., 0] / 0.8) ** 2 + (grid[..., 1] / 0.85) ** 2 < 1
    coefficients = np.zeros((*SHAPE, 15))
    coefficients[..., 0] = 1.4 + 0.25 * smooth_noise(rng, 2)
    axis = np.stack([smooth_noise(rng, 4) for _ in range(3)], -1)
    axis /= np.linalg.norm(axis, axis=-1, keepdims=True)
    shape = design_matrix(axis.reshape(-1, 3), 4).reshape(*SHAPE, 15)
    strength = 0.12 + 0.05 * np.tanh(smooth_noise(rng, 2))
    coefficients[..., 1:6] = -strength[..., None] * shape[..., 1:6]
    coefficients[..., 6:] = 0.4 * strength[..., None] * shape[..., 6:]
    return coefficients, mask


def warped(coefficients, mask, seed, amplitude=(1.2, 1.2, 0.3)):
    """Move a brain by a smooth warp; return what `base_brain` does."""
    rng = np.random.default_rng(seed)
    shift = [a * smooth_noise(rng, 5) / 3 for a in amplitude]
    at = np.stack([i + s for i, s in zip(np.indices(SHAPE), shift, strict=True)])
    moved = [
        ndimage.map_coordinates(coefficients[..., k], at, order=1, mode="nearest")
        for k in range(coefficients.shape[3])
    ]
    inside = ndimage.map_coordinates(mask.astype(float), at, order=1, mode="nearest") > 0.5
    return np.stack(moved, -1), inside


def make_scan(coefficients, mask, *, subject, site, bvalue=1200.0, directions=DIRECTIONS, **more):
    signal = 800 * (coefficients @ design_matrix(directions, 4).T)
    data = np.concatenate([np.full((*mask.shape, 2), 800.0), signal], axis=-1)
    data = (data * mask[..., None]).astype(np.float32)
    bvalues = np.r_[0, 0, np.full(len(directions), bvalue)]
    table = GradientTable(bvalues, np.concatenate([np.zeros((2, 3)), directions]))
    metadata = {"subject": subject, "site": site, "simulated": True, **more}
    return Scan(data, AFFINE, table, mask=mask, name=f"{subject} {site}", metadata=metadata)


def scaled(coefficients, factors=FACTORS):
    return coefficients * np.array(factors)[degrees(4) // 2]


def subject_pair(n, factors=FACTORS, **more):
    coefficients, mask = warped(*base_brain(), seed=n)
    source = make_scan(coefficients, mask, subject=f"sub-{n}", site="a", **more)
    target = make_scan(scaled(coefficients, factors), mask, subject=f"sub-{n}", site="b", **more)
    return Pair(source, target, f"sub-{n}")


@dataclass
class World:
    """Hold a trained model and what it was trained on."""

    model: LinearRish
    pairs: list
    held_out: Pair


@pytest.fixture(scope="session")
def world():
    pairs = [subject_pair(n) for n in (1, 2, 3)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DmriWarning)
        model = LinearRish(**QUICK).fit(pairs)
    return World(model, pairs, subject_pair(9))


@pytest.fixture
def real(world):
    """The held-out source scan without the simulator's mark."""
    return replace(world.held_out.source, metadata={"site": "a"})
