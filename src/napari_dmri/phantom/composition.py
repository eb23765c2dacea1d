r"""What each voxel of a grid holds: tissue fractions and up to five fibre populations.

A voxel is cut into cubes; at each cube's centre the anatomy says the tissue and which bundles run
there. A bundle's directions within the voxel have the dyadic :math:`D = \langle t t^T \rangle`;
its main eigenvector is the population's direction, and the spread :math:`(3 \lambda_1 - 1)/2`
times the bundle's own :math:`w_2(\kappa)` gives the population's Watson concentration, so curving
and fanning within a voxel count as dispersion.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_dmri.phantom.anatomy import Subject, texture_at, tissue_at
from napari_dmri.phantom.bundles import Bundle, all_bundles
from napari_dmri.phantom.hindbrain import head_distance
from napari_dmri.phantom.watson import concentration_of, watson_coefficients
from napari_dmri.progress import Progress, silent

__all__ = ["MAX_POPULATIONS", "Composition", "Grid", "sample"]

Array = NDArray[Any]

MAX_POPULATIONS = 5
MERGE_DEGREES = 22.0
"""Bundles closer than this in a voxel are one population: no method could tell them apart."""
SMALLEST_FRACTION = 0.06
BLOCK_POINTS = 1_500_000


@dataclass(frozen=True, eq=False)
class Grid:
    """A voxel grid: shape (X, Y, Z) and affine (4, 4) to scanner RAS millimetres."""

    shape: tuple[int, int, int]
    affine: NDArray[np.float64]

    @property
    def voxel_size(self) -> NDArray[np.float64]:
        """Edge lengths (3,) in mm."""
        sizes: NDArray[np.float64] = np.linalg.norm(self.affine[:3, :3], axis=0)
        return sizes

    def centres(self, index: Array) -> NDArray[np.float32]:
        """Return positions (P, 3) in mm of voxels given by their flat index (P,)."""
        voxels = np.stack(np.unravel_index(index, self.shape), 1).astype(np.float64)
        return (voxels @ self.affine[:3, :3].T + self.affine[:3, 3]).astype(np.float32)

    def fill(self, index: Array, values: Array, background: float = 0.0) -> Array:
        """Return an image (X, Y, Z, ...) holding values (P, ...) at flat indices (P,)."""
        flat = np.full((int(np.prod(self.shape)), *values.shape[1:]), background, values.dtype)
        flat[index] = values
        return flat.reshape(*self.shape, *values.shape[1:])


@dataclass(frozen=True, eq=False)
class Composition:
    """Hold what the P voxels of a grid that are not empty contain.

    Parameters
    ----------
    grid
        The grid they lie on.
    index
        Their flat index (P,).
    tissue
        Fractions of WM, GM and CSF (P, 3); their sum is the part of the voxel inside the head.
    directions, fractions, concentrations, intra
        Fibre populations: unit vectors (P, 5, 3) in scanner RAS, fractions of the white matter
        (P, 5; they sum to 1 where there is any), Watson concentrations and intra-axonal
        fractions (P, 5). Largest first; absent ones have fraction 0.
    grey_normal
        Main direction of grey matter (P, 3).
    bundles
        Each bundle's part of the white matter (P, K), as uint8 of 255.
    """

    grid: Grid
    index: NDArray[np.intp]
    tissue: NDArray[np.float32]
    directions: NDArray[np.float32]
    fractions: NDArray[np.float32]
    concentrations: NDArray[np.float32]
    intra: NDArray[np.float32]
    grey_normal: NDArray[np.float32]
    bundles: NDArray[np.uint8]

    @property
    def mask(self) -> NDArray[np.bool_]:
        """Voxels more than half inside the head (X, Y, Z)."""
        inside: NDArray[np.bool_] = self.grid.fill(self.index, self.tissue.sum(1)) > 0.5
        return inside

    def image(self, name: str) -> Array:
        """Return one of the arrays as an image (X, Y, Z, ...)."""
        return self.grid.fill(self.index, getattr(self, name))


def sample(
    subject: Subject, grid: Grid, *, splits: int = 2, progress: Progress | None = None
) -> Composition:
    """Sample a subject's anatomy on a grid.

    Parameters
    ----------
    subject
        Whose anatomy.
    grid
        Where.
    splits
        Cubes per voxel edge for partial volume.
    progress
        Told between blocks of voxels.
    """
    report = progress or silent
    every = np.arange(int(np.prod(grid.shape)))
    inside = []
    for start in range(0, len(every), BLOCK_POINTS):
        block = every[start : start + BLOCK_POINTS]
        away = head_distance(subject.deformation.to_template(grid.centres(block)))
        inside.append(block[away < float(grid.voxel_size.max())])
    index = np.concatenate(inside)
    size = max(1, BLOCK_POINTS // splits**3)
    parts = []
    for start in range(0, len(index), size):
        report(start / max(len(index), 1), "sampling the anatomy")
        parts.append(_sample_block(subject, grid, index[start : start + size], splits))
    report(1.0, "sampling the anatomy")
    merged = [np.concatenate(columns) for columns in zip(*parts, strict=True)]
    held = merged[0].sum(1) > 0.01
    return Composition(grid, index[held], *(column[held] for column in merged))


def _sample_block(subject: Subject, grid: Grid, index: Array, splits: int) -> tuple[Array, ...]:
    count = len(index)
    steps = (np.arange(splits) + 0.5) / splits - 0.5
    offsets = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), -1).reshape(-1, 3)
    offsets = (offsets @ grid.affine[:3, :3].T).astype(np.float32)
    scanner = grid.centres(index)
    points = (scanner[:, None] + offsets).reshape(-1, 3)
    template = subject.deformation.to_template(points)
    width = float(grid.voxel_size.mean()) / splits
    found = tissue_at(subject, template, width)
    per_voxel = (count, len(offsets))
    tissue = found.fractions.reshape(*per_voxel, 3).mean(1)
    grey = found.fractions[:, 1:2] * _oriented(found.grey_normal, found.fill)
    grey_normal = grey.reshape(*per_voxel, 3).sum(1)

    white = found.fractions[:, 0]
    active = np.flatnonzero(white > 0)
    voxel = active // len(offsets)
    fill = (found.fill[active], found.fill_weight[active])
    shares, dyadics = _bundle_shares(subject, template[active], fill, white[active], voxel, count)
    # Only a direction matters, so the mean Jacobian of the voxel serves all its cubes.
    back = subject.deformation.inverse_jacobian(scanner)
    populations = _populations(subject, shares, dyadics, back)
    texture = texture_at(subject, subject.deformation.to_template(scanner))
    populations[3][:] *= texture[:, None].astype(np.float32)
    normal = np.einsum("pij,pj->pi", np.swapaxes(np.linalg.inv(back), 1, 2), grey_normal)
    length = np.linalg.norm(normal, axis=1, keepdims=True)
    normal = np.where(length > 1e-6, normal / np.maximum(length, 1e-6), [0, 0, 1])
    total = np.maximum(shares.sum(1, keepdims=True), 1e-6)
    levels = np.rint(255 * shares[:, :-1] / total * (tissue[:, :1] > 0.01)).astype(np.uint8)
    return (tissue, *populations, normal.astype(np.float32), levels)


def _oriented(normals: Array, outward: Array) -> Array:
    """Return normals with the sign that points out of the head."""
    sign = np.where((normals * outward).sum(1) < 0, -1, 1).astype(np.float32)
    return normals * sign[:, None]


def _bundle_shares(
    subject: Subject,
    points: Array,
    fill: tuple[Array, Array],
    white: Array,
    voxel: Array,
    count: int,
) -> tuple[Array, Array]:
    """Return each bundle's amount (V, K + 1) and its dyadic's sum (V, K + 1, 6); fill comes last.

    Where bundles overlap they share the white matter by weight; what none claims is short
    fibres that run towards the crowns of the gyri.
    """
    bundles = all_bundles()
    claims: list[tuple[Array, Array, Array]] = []
    total = fill[1].copy()
    for bundle, factor in zip(bundles, subject.bundle_radii, strict=True):
        claim = _claim(bundle, points, float(factor))
        claims.append(claim)
        total[claim[0]] += claim[1]
    shares = np.zeros((count, len(bundles) + 1), np.float32)
    dyadics = np.zeros((count, len(bundles) + 1, 6), np.float32)
    claims.append((np.arange(len(points)), fill[1], fill[0]))
    for k, (where, weight, tangent) in enumerate(claims):
        if not where.size:
            continue
        amount = weight / total[where] * white[where]
        at = voxel[where]
        shares[:, k] = np.bincount(at, amount, count)
        for c, (i, j) in enumerate(((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))):
            dyadics[:, k, c] = np.bincount(at, amount * tangent[:, i] * tangent[:, j], count)
    return shares, dyadics


def _claim(bundle: Bundle, points: Array, factor: float) -> tuple[Array, Array, Array]:
    """Return the points (n,) a bundle reaches, its density (n,) and tangents (n, 3) there."""
    from scipy.spatial import cKDTree

    line, tangents, radii = bundle.points, bundle.tangents, bundle.radii * np.float32(factor)
    reach = float(radii.max()) * 1.16
    near = np.flatnonzero(((points > line.min(0) - reach) & (points < line.max(0) + reach)).all(1))
    if not near.size:
        return near, np.zeros(0, np.float32), np.zeros((0, 3), np.float32)
    neighbours = min(4, len(line))
    distance, index = cKDTree(line).query(points[near], k=neighbours, distance_upper_bound=reach)
    hit = index[:, 0] < len(line)
    near, distance, index = near[hit], distance[hit].astype(np.float32), index[hit]
    missing = index == len(line)
    index = np.where(missing, index[:, :1], index)
    closeness = np.where(missing, 0, 1 / (distance**2 + 1)).astype(np.float32)
    directions = tangents[index]
    # Neighbours may belong to curves that run the other way: align to the nearest.
    sign = np.sign((directions * directions[:, :1]).sum(-1, keepdims=True))
    mean = (directions * sign * closeness[..., None]).sum(1)
    mean /= np.linalg.norm(mean, axis=1, keepdims=True) + np.float32(1e-9)
    edge = distance[:, 0] / radii[index[:, 0]]
    density = np.float32(bundle.weight) * np.clip((1.15 - edge) / 0.6, 0, 1)
    away = np.abs(2 * bundle.along[index[:, 0]] - 1)
    density *= 1 - np.float32(bundle.fade) * np.minimum(2 * away, 1)
    kept = density > 0
    return near[kept], density[kept], mean[kept]


def _populations(
    subject: Subject, shares: Array, dyadics: Array, back: Array
) -> tuple[Array, Array, Array, Array]:
    """Return directions (V, 5, 3), fractions, concentrations and intra fractions (V, 5)."""
    count = len(shares)
    candidates = MAX_POPULATIONS + 3
    order = np.argsort(-shares, axis=1, kind="stable")[:, :candidates]
    share = np.take_along_axis(shares, order, 1).astype(np.float64)
    parts = np.take_along_axis(dyadics, order[..., None], 1).astype(np.float64)
    bundles = all_bundles()
    spread_factor = np.array([b.dispersion for b in bundles] + [1.4])
    intra_factor = np.array([b.intra for b in bundles] + [0.92])
    intra_factor[:-1] *= subject.bundle_intra
    dispersion = share * spread_factor[order]
    intra = share * intra_factor[order]
    matrix = parts[..., [0, 1, 2, 1, 3, 4, 2, 4, 5]].reshape(count, candidates, 3, 3)
    # Template tangents to scanner tangents; trace is restored so that weights stay amounts.
    turned = back[:, None] @ matrix @ np.swapaxes(back, 1, 2)[:, None]
    trace = np.trace(turned, axis1=2, axis2=3)
    matrix = turned * (share / np.maximum(trace, 1e-12))[..., None, None]
    _merge(share, dispersion, intra, matrix)
    order2 = np.argsort(-share, axis=1, kind="stable")[:, :MAX_POPULATIONS]
    share = np.take_along_axis(share, order2, 1)
    dispersion = np.take_along_axis(dispersion, order2, 1)
    intra = np.take_along_axis(intra, order2, 1)
    matrix = np.take_along_axis(matrix, order2[..., None, None], 1)
    fraction = share / np.maximum(share.sum(1, keepdims=True), 1e-12)
    fraction[fraction < SMALLEST_FRACTION] = 0
    fraction /= np.maximum(fraction.sum(1, keepdims=True), 1e-12)
    present = fraction > 0
    directions = np.zeros((count, MAX_POPULATIONS, 3), np.float32)
    concentration = np.zeros((count, MAX_POPULATIONS), np.float32)
    inner = np.zeros((count, MAX_POPULATIONS), np.float32)
    if present.any():
        values, vectors = np.linalg.eigh(matrix[present] / share[present][:, None, None])
        directions[present] = vectors[:, :, 2]
        inner[present] = intra[present] / share[present] * subject.intra
        own = np.full(int(present.sum()), np.inf)
        if np.isfinite(subject.concentration):
            factor = dispersion[present] / share[present]
            own_kappa = subject.concentration / factor**2
            spread = np.clip(1.5 * values[:, 2] - 0.5, 0.02, 1)
            own = concentration_of(watson_coefficients(own_kappa, 2)[:, 1] * spread)
        concentration[present] = own
    return directions, fraction.astype(np.float32), concentration, inner


def _merge(share: Array, dispersion: Array, intra: Array, matrix: Array) -> None:
    """Join candidates whose main directions are within `MERGE_DEGREES`, in place."""
    limit = np.cos(np.deg2rad(MERGE_DEGREES))
    main = np.zeros((*share.shape, 3))
    held = share > 1e-9
    main[held] = np.linalg.eigh(matrix[held])[1][:, :, 2]
    for i in range(share.shape[1]):
        for j in range(i + 1, share.shape[1]):
            close = np.abs((main[:, i] * main[:, j]).sum(1)) > limit
            close &= (share[:, i] > 0) & (share[:, j] > 0)
            for array in (share, dispersion, intra, matrix):
                array[close, i] += array[close, j]
                array[close, j] = 0
