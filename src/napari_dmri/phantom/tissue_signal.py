r"""Noise-free diffusion signals of tissue mixtures.

White matter is a sum of fibre populations, each an intra-axonal stick and an extra-axonal
zeppelin with tortuosity :math:`D_\perp = D_\parallel (1 - f)` (Szafer 1995), dispersed by a Watson
distribution; grey matter is a dispersed zeppelin and a dot; CSF is free water. In closed form
per population (see `watson`)

.. math:: S(b, g) = \sum_l \left[ f a_l(b D_\parallel)
          + (1 - f) e^{-b D_\perp} a_l(b (D_\parallel - D_\perp)) \right] w_l(\kappa) P_l(g \cdot n)

and without dispersion the exponentials themselves, which is exact. Tissues weigh by
:math:`\rho \, e^{-TE/T_2} (1 - e^{-TR/T_1})`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_dmri.errors import InputError
from napari_dmri.phantom.composition import MAX_POPULATIONS, Composition
from napari_dmri.phantom.watson import (
    MAX_ORDER,
    kernel_coefficients,
    legendre,
    watson_coefficients,
)
from napari_dmri.progress import Progress, silent

if TYPE_CHECKING:
    from napari_dmri.phantom.anatomy import Subject
    from napari_dmri.scan import GradientTable

__all__ = [
    "TISSUE",
    "Relaxation",
    "grey_signal",
    "mixture_signal",
    "white_signal",
    "zonal_response",
]

Array = NDArray[Any]

BLOCK = 6000
NODES = 5
"""b-values per shell at which the series is computed where b varies."""


@dataclass(frozen=True)
class Relaxation:
    """Proton density, T2 and T1 (ms) of a tissue at 3 T (Wansapura 1999; Stanisz 2005)."""

    density: float
    t2: float
    t1: float

    def weight(self, te: float, tr: float) -> float:
        r"""Return :math:`\rho e^{-TE/T_2} (1 - e^{-TR/T_1})`."""
        return float(self.density * np.exp(-te / self.t2) * (1 - np.exp(-tr / self.t1)))


TISSUE = (
    Relaxation(0.70, 76.0, 850.0),
    Relaxation(0.82, 92.0, 1350.0),
    Relaxation(1.00, 1100.0, 4000.0),
)
"""White matter, grey matter, CSF."""


def white_signal(
    bvalues: Array,
    gradients: Array,
    directions: Array,
    fractions: Array,
    concentrations: Array,
    intra: Array,
    diffusivity: float,
    nominal: Array | None = None,
) -> Array:
    r"""Return the white-matter signal (P, N), 1 at b = 0.

    Parameters
    ----------
    bvalues
        (N,) or (P, N) in s/mm².
    gradients
        Unit directions (N, 3) or (P, N, 3); rows of b = 0 may be zero.
    directions, fractions, concentrations, intra
        Populations (P, F, 3) and (P, F); fractions sum to 1 (or 0 where there are none).
    diffusivity
        :math:`D_\parallel` in mm²/s.
    nominal
        Each volume's nominal b-value (N,): volumes of one shell, whose b varies little. Needed
        for b-values (P, N) only.

    Raises
    ------
    InputError
        If there are more than five populations.
    """
    if directions.shape[1] > MAX_POPULATIONS:
        raise InputError(
            f"{directions.shape[1]} fibre populations in a voxel; at most {MAX_POPULATIONS} are "
            "simulated: merge some."
        )
    b = np.asarray(bvalues, np.float64)
    g = np.asarray(gradients, np.float64)
    shells = np.round(b if b.ndim == 1 else b.mean(0), 3) if nominal is None else nominal
    total = np.zeros((len(directions), b.shape[-1]))
    for f in range(directions.shape[1]):
        rows = np.flatnonzero(fractions[:, f] > 0)
        if not rows.size:
            continue
        mine = b if b.ndim == 1 else b[rows]
        axes = directions[rows, f].astype(np.float64)
        cosine = axes @ g.T if g.ndim == 2 else np.einsum("pi,pni->pn", axes, g[rows])
        signal = _population(
            mine, cosine, intra[rows, f], concentrations[rows, f], diffusivity, shells
        )
        total[rows] += fractions[rows, f, None] * signal
    return total


def _population(
    b: Array, cosine: Array, intra: Array, kappa: Array, diffusivity: float, nominal: Array
) -> Array:
    """Return stick + zeppelin (n, N) of one population per row."""
    inner = np.asarray(intra, np.float64)[:, None]
    across = diffusivity * (1 - inner)
    result = np.empty_like(cosine)
    exact = np.isinf(kappa)
    if exact.any():
        square = cosine[exact] ** 2
        mine = b if b.ndim == 1 else b[exact]
        part, radial = inner[exact], across[exact]
        result[exact] = part * np.exp(-mine * diffusivity * square) + (1 - part) * np.exp(
            -mine * radial - mine * (diffusivity - radial) * square
        )
    if not exact.all():
        rest = ~exact
        mine = b if b.ndim == 1 else b[rest]
        spread = watson_coefficients(kappa[rest])
        result[rest] = _series(
            mine, cosine[rest], inner[rest], across[rest], spread, diffusivity, nominal
        )
    return result


def _series(
    b: Array,
    cosine: Array,
    inner: Array,
    across: Array,
    spread: Array,
    diffusivity: float,
    nominal: Array,
) -> Array:
    """Return the dispersed stick + zeppelin by its Legendre series (n, N).

    Where b differs from voxel to voxel, the zonal coefficients are computed at a few Chebyshev
    nodes of a shell's range of b and interpolated, as they are smooth in b.
    """
    result = np.empty_like(cosine)
    for shell in np.unique(nominal):
        columns = np.flatnonzero(nominal == shell)
        mine = np.broadcast_to(b, cosine.shape)[:, columns]
        low, high = float(mine.min()), float(mine.max())
        middle, half = (low + high) / 2, (high - low) / 2
        turns = (np.arange(NODES) + 0.5) * np.pi / NODES
        nodes = middle + half * np.cos(turns) if half > 1e-9 else np.array([middle])
        stick = kernel_coefficients(nodes * diffusivity)[None]
        zeppelin = kernel_coefficients(nodes * (diffusivity - across))
        zeppelin *= np.exp(-nodes * across)[..., None]
        zonal = (inner[..., None] * stick + (1 - inner)[..., None] * zeppelin) * spread[:, None]
        values = legendre(cosine[:, columns]) @ np.swapaxes(zonal, 1, 2)
        if len(nodes) == 1:
            result[:, columns] = values[..., 0]
            continue
        weights = np.ones((*mine.shape, NODES))
        for i, node in enumerate(nodes):
            for j, other in enumerate(nodes):
                if i != j:
                    weights[..., i] *= (mine - other) / (node - other)
        result[:, columns] = (values * weights).sum(-1)
    return result


def grey_signal(bvalues: Array, gradients: Array, normals: Array, subject: Subject) -> Array:
    """Return the grey-matter signal (P, N): a dispersed zeppelin and a dot, 1 at b = 0."""
    b = np.asarray(bvalues, np.float64)
    g = np.asarray(gradients, np.float64)
    along, across = subject.grey_diffusivity
    axes = normals.astype(np.float64)
    cosine = axes @ g.T if g.ndim == 2 else np.einsum("pi,pni->pn", axes, g)
    order = 8
    spread = watson_coefficients(np.array(subject.grey_concentration), order)
    zonal = kernel_coefficients(b * (along - across), order) * np.exp(-b * across)[..., None]
    zonal = zonal * spread
    values = legendre(cosine, order)
    shape = np.einsum("pnl,nl->pn" if b.ndim == 1 else "pnl,pnl->pn", values, zonal)
    result: Array = subject.dot + (1 - subject.dot) * shape
    return result


def mixture_signal(
    composition: Composition,
    subject: Subject,
    gradients: GradientTable,
    te: float,
    tr: float,
    *,
    field: Array | None = None,
    progress: Progress | None = None,
) -> NDArray[np.float32]:
    r"""Return the noise-free signal (P, N) of every voxel of a composition.

    Parameters
    ----------
    composition, subject
        What is where, and its microstructure.
    gradients
        The table.
    te, tr
        Echo and repetition time (ms).
    field
        Gradient non-linearity L (P, 3, 3): the gradient at the voxel is L g, so that
        :math:`b' = b \lVert L g \rVert^2`; None for none.
    progress
        Told between blocks of voxels.
    """
    report = progress or silent
    weights = np.array([t.weight(te, tr) for t in TISSUE])
    b, g = gradients.bvalues, gradients.directions
    count = len(composition.index)
    signal = np.empty((count, len(b)), np.float32)
    for start in range(0, count, BLOCK):
        report(start / count, "computing signals")
        rows = slice(start, start + BLOCK)
        bv, gv = b, g
        if field is not None:
            gv = np.einsum("pij,nj->pni", field[rows], g)
            size = np.linalg.norm(gv, axis=-1)
            bv = b * np.where(gradients.b0_mask, 1.0, size**2)
            gv = gv / np.where(size > 0, size, 1)[..., None]
        tissue = composition.tissue[rows] * weights
        white = white_signal(
            bv,
            gv,
            composition.directions[rows],
            composition.fractions[rows],
            composition.concentrations[rows],
            composition.intra[rows],
            subject.diffusivity,
            nominal=b,
        )
        total = tissue[:, 0:1] * white
        total += tissue[:, 1:2] * grey_signal(bv, gv, composition.grey_normal[rows], subject)
        total += tissue[:, 2:3] * np.exp(-bv * subject.free_diffusivity)
        signal[rows] = total
    report(1.0, "computing signals")
    return signal


def zonal_response(b: Array, intra: float, diffusivity: float, order: int = MAX_ORDER) -> Array:
    r"""Return the zonal SH coefficients of one undispersed fibre along z, (B, L/2+1).

    :math:`S(b) = \sum_l r_l Y_{l0}` with :math:`r_l = a_l \sqrt{4\pi/(2l+1)}`.
    """
    across = diffusivity * (1 - intra)
    shells = np.asarray(b, np.float64)
    stick = kernel_coefficients(shells * diffusivity, order)
    zeppelin = kernel_coefficients(shells * (diffusivity - across), order)
    legendre_form = intra * stick + (1 - intra) * np.exp(-shells * across)[:, None] * zeppelin
    orders = np.arange(0, order + 1, 2)
    result: Array = legendre_form * np.sqrt(4 * np.pi / (2 * orders + 1))
    return result
