r"""Simulate independent voxels with one to three crossing fibres whose directions are known.

6 b0 volumes, 30 directions at b = 1200 and 64 at b = 3000 s/mm²; each fibre is the tensor
:math:`(1.7, 0.3, 0.3) \cdot 10^{-3}` mm²/s, b0 is 100, noise is Rician with SNR = 100 / sigma. Of
the voxels 25 % hold one fibre, 55 % two (30-90 degrees apart, fractions 0.3-0.7), and 20 % three
(each 30 degrees apart or more, fractions 0.2 or more):

.. math:: S(b, g) = 100 \Big( (1 - f_{iso}) \sum_i f_i\,
          e^{-b (D_\perp + (D_\parallel - D_\perp) (g \cdot u_i)^2)}
          + f_{gm} e^{-b D_{gm}} + f_{csf} e^{-b D_{csf}} \Big) .

On request the fibres of a voxel are dispersed (Watson), and grey matter and CSF take a share.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_dmri.compare.fibre_truth import FibreTruth
from napari_dmri.errors import InputError
from napari_dmri.images import Response
from napari_dmri.phantom.watson import (
    concentration_of,
    kernel_coefficients,
    legendre,
    watson_coefficients,
)
from napari_dmri.scan import GradientTable, Scan

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Crossings", "crossing_response", "isotropic_response", "simulate_crossings"]

PARALLEL, PERPENDICULAR = 1.7e-3, 0.3e-3
GREY, CSF = 0.8e-3, 3.0e-3
"""Diffusivities in mm²/s."""

BASELINE = 100.0
BVALUES = (0.0, 1200.0, 3000.0)
VOLUMES = (6, 30, 64)

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Crossings:
    """Hold simulated voxels and what is in them.

    Parameters
    ----------
    scans
        The scan of each SNR.
    truth
        Fibres of every voxel, in C order.
    fractions
        Their shares of the fibres' signal (N, 3).
    tissue
        Shares of fibres, grey matter and CSF (N, 3).
    """

    scans: Mapping[int, Scan]
    truth: FibreTruth
    fractions: Array
    tissue: Array


def simulate_crossings(
    shape: tuple[int, int, int] = (40, 40, 15),
    *,
    seed: int = 20261120,
    snr: Sequence[int] = (30, 20),
    dispersion: float = 0.0,
    isotropic: float = 0.0,
    blocks: int = 1,
) -> Crossings:
    """Simulate a grid of voxels.

    Parameters
    ----------
    shape
        Voxels along x, y and z.
    seed
        Same seed, same voxels; directions and noise do not change with the two below.
    snr
        One scan for each.
    dispersion
        Degrees of Watson dispersion, as the root mean square of the sine of the angle to the axis.
    isotropic
        Largest share of grey matter and CSF; uniform from 0, split between them at random.
    blocks
        Edge of cubes of voxels that hold the same fibres.

    Raises
    ------
    InputError
        If a setting is out of range.
    """
    if not 0 <= dispersion < 45 or not 0 <= isotropic < 1 or blocks < 1:
        raise InputError(
            f"Dispersion {dispersion:g}, isotropic share {isotropic:g} and blocks of {blocks}; "
            "expected degrees in [0, 45), a share in [0, 1) and 1 voxel or more."
        )
    rng = np.random.default_rng(seed)
    vectors = np.concatenate(
        [np.zeros((VOLUMES[0], 3)), *(_electrostatic(n, rng) for n in VOLUMES[1:])]
    )
    table = GradientTable(np.repeat(BVALUES, VOLUMES), vectors)
    index = _configuration_of(shape, blocks)
    count = int(index.max()) + 1
    directions, fractions = np.zeros((count, 3, 3)), np.zeros((count, 3))
    number, angle = np.zeros(count, np.int64), np.zeros(count)
    for i in range(count):
        number[i] = rng.choice([1, 2, 3], p=[0.25, 0.55, 0.20])
        u, f, angle[i] = _configuration(int(number[i]), rng)
        directions[i, : number[i]], fractions[i, : number[i]] = u, f
    clean = _signal(table, directions, fractions, dispersion)
    other = np.random.default_rng([seed, 1])
    tissue = np.zeros((len(index), 3))
    share, split = isotropic * other.random(len(index)), other.random(len(index))
    tissue[:, 0], tissue[:, 1], tissue[:, 2] = 1 - share, share * split, share * (1 - split)
    clean = clean[index] * tissue[:, :1]
    b = table.bvalues
    if isotropic:
        clean += BASELINE * (tissue[:, 1:2] * np.exp(-b * GREY) + tissue[:, 2:] * np.exp(-b * CSF))
    scans = {}
    for level in snr:
        sigma = BASELINE / level
        real = clean + sigma * rng.standard_normal(clean.shape)
        noisy = np.hypot(real, sigma * rng.standard_normal(clean.shape)).astype(np.float32)
        scans[level] = Scan(
            noisy.reshape(*shape, -1),
            np.diag([2.0, 2.0, 2.0, 1.0]),
            table,
            name=f"crossings, SNR {level}",
            metadata={"simulated": True},
        )
    truth = FibreTruth(directions[index], number[index], angle[index])
    return Crossings(scans, truth, fractions[index], tissue)


def crossing_response(order: int = 16) -> Response:
    """Return the response of the fibres that are simulated, for b = 0, 1200 and 3000 s/mm²."""
    el = np.arange(0, order + 1, 2)
    b = np.array(BVALUES)
    series = kernel_coefficients(b * (PARALLEL - PERPENDICULAR), order)
    zonal = BASELINE * np.exp(-b * PERPENDICULAR)[:, None] * series
    return Response(zonal * np.sqrt(4 * np.pi / (2 * el + 1)), BVALUES, "wm")


def isotropic_response(tissue: str) -> Response:
    """Return the response of simulated grey matter (``"gm"``) or CSF (``"csf"``)."""
    rate = {"gm": GREY, "csf": CSF}[tissue]
    zonal = BASELINE * np.sqrt(4 * np.pi) * np.exp(-np.array(BVALUES) * rate)
    return Response(zonal[:, None], BVALUES, tissue)


def _electrostatic(count: int, rng: np.random.Generator) -> Array:
    """Return directions that repel each other as axes, on random sides of the sphere."""
    from dipy.core.sphere import HemiSphere, disperse_charges

    start = HemiSphere(
        theta=np.arccos(rng.uniform(-1, 1, count)), phi=2 * np.pi * rng.random(count)
    )
    spread, _ = disperse_charges(start, 5000)
    directions: Array = spread.vertices * np.sign(rng.standard_normal(count))[:, None]
    return directions


def _configuration_of(shape: tuple[int, int, int], blocks: int) -> NDArray[np.int64]:
    """Return for each voxel the number of its configuration."""
    cubes = [-(-n // blocks) for n in shape]
    x, y, z = np.indices(shape).reshape(3, -1) // blocks
    numbers: NDArray[np.int64] = ((x * cubes[1] + y) * cubes[2] + z).astype(np.int64)
    return numbers


def _configuration(count: int, rng: np.random.Generator) -> tuple[Array, Array, float]:
    """Draw directions, fractions and the smallest angle between fibres in degrees."""
    first = _unit(rng.standard_normal(3))
    if count == 1:
        return first[None], np.ones(1), float("nan")
    if count == 2:
        angle, share = rng.uniform(30, 90), rng.uniform(0.3, 0.7)
        side = rng.standard_normal(3)
        side = _unit(side - side @ first * first)
        tilt = np.deg2rad(angle)
        second = np.cos(tilt) * first + np.sin(tilt) * side
        return np.stack([first, second]), np.array([share, 1 - share]), float(angle)
    while True:
        u = np.vstack([first, _unit(rng.standard_normal((2, 3)))])
        cosine = np.abs(u @ u.T)[np.triu_indices(3, 1)]
        angle = np.rad2deg(np.arccos(cosine.clip(0, 1))).min()
        fractions = rng.dirichlet([5, 5, 5])
        if angle >= 30 and fractions.min() >= 0.2:
            return u, fractions, float(angle)


def _signal(table: GradientTable, directions: Array, fractions: Array, dispersion: float) -> Array:
    """Return the fibres' signal without noise (N, V)."""
    b = table.bvalues
    series = kernel_coefficients(b * (PARALLEL - PERPENDICULAR))
    if dispersion:
        sine = np.sin(np.deg2rad(dispersion))
        series = series * watson_coefficients(concentration_of((3 * (1 - sine**2) - 1) / 2))
    clean = np.zeros((len(directions), len(b)))
    for k in range(directions.shape[1]):
        cosine = directions[:, k] @ table.directions.T
        if dispersion:
            along = np.einsum("nvl,vl->nv", legendre(cosine), series)
            along *= np.exp(-b * PERPENDICULAR)
        else:
            along = np.exp(-b * (PERPENDICULAR + (PARALLEL - PERPENDICULAR) * cosine**2))
        clean += fractions[:, k : k + 1] * along
    signal: Array = BASELINE * clean
    return signal


def _unit(v: Array) -> Array:
    unit: Array = v / np.linalg.norm(v, axis=-1, keepdims=True)
    return unit
