"""Small scans of crossing fibres with a known response, for the tests of the solvers."""

from __future__ import annotations

import numpy as np
from scipy.special import eval_legendre

from napari_dmri.images import Response
from napari_dmri.scan import GradientTable, Scan
from napari_dmri.sphere.sampling import half_sphere

BVALUES = (0.0, 1000.0, 3000.0)


def response(order: int = 8, bvalues: tuple[float, ...] = BVALUES, scale: float = 100) -> Response:
    """Return the zonal coefficients of the tensor (1.7, 0.3, 0.3)e-3 mm²/s, by quadrature."""
    t, w = np.polynomial.legendre.leggauss(100)
    rows = [
        [
            2
            * np.pi
            * np.sqrt((2 * el + 1) / (4 * np.pi))
            * (w * scale * np.exp(-b * (0.3e-3 + 1.4e-3 * t**2)) * eval_legendre(el, t)).sum()
            for el in range(0, order + 1, 2)
        ]
        for b in bvalues
    ]
    return Response(np.array(rows), bvalues, "wm")


def isotropic(tissue: str, diffusivity: float, bvalues: tuple[float, ...] = BVALUES) -> Response:
    """Return the response of an isotropic tissue with the same b0."""
    rows = 100 * np.sqrt(4 * np.pi) * np.exp(-np.array(bvalues) * diffusivity)
    return Response(rows[:, None], bvalues, tissue)


def table(counts: tuple[int, int, int] = (3, 32, 64)) -> GradientTable:
    """Return a table of b0, b=1000 and b=3000 volumes."""
    b = np.repeat(BVALUES, counts)
    g = [np.zeros((counts[0], 3)), half_sphere(counts[1]), half_sphere(counts[2])]
    return GradientTable(b, np.concatenate(g))


def units(count: int, seed: int = 0) -> np.ndarray:
    """Return random unit vectors (count, 3)."""
    v = np.random.default_rng(seed).standard_normal((count, 3))
    return v / np.linalg.norm(v, axis=1, keepdims=True)


def crossing_signal(
    gradients: GradientTable, fibres: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """Return the tensor signal (n, N) of voxels with fibres (n, k, 3) and weights (n, k)."""
    cosine = np.einsum("nkd,gd->nkg", fibres, gradients.directions)
    rate = gradients.bvalues * (0.3e-3 + 1.4e-3 * cosine**2)
    return 100 * np.einsum("nk,nkg->ng", weights, np.exp(-rate))


def scan_of(signal: np.ndarray, gradients: GradientTable, **more: object) -> Scan:
    """Return a scan of one row of voxels."""
    data = np.asarray(signal, np.float32).reshape(-1, 1, 1, len(gradients))
    return Scan(data, np.eye(4), gradients, **more)


def flat(image: object) -> np.ndarray:
    """Return an image's coefficients as (n, C)."""
    coefficients = image.coefficients
    return coefficients.reshape(-1, coefficients.shape[3])


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the cosine similarity of rows."""
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
