r"""Tell where a scan is unlike what a model was trained on.

Each voxel is described by the energies of its SH orders, averaged over its neighbours, and by how
much they differ among them:

.. math::

    f = (\overline{\log(R_l + \epsilon)},\; \log(\mathrm{sd} \log(R_l + \epsilon) + \delta))_l

These do not change when the head is turned. A mixture of Gaussians is fitted to the brain voxels of
the training subjects, as tissues and their borders form several clusters, and the score is the
distance that a single Gaussian would call Mahalanobis's,

.. math:: d(f) = \sqrt{2 (\log p_{max} - \log p(f))}

with :math:`p_{max}` the largest density at a cluster's centre. Maps show d divided by the distance
that one in a hundred voxels of the most unusual training subject exceeds: 1 is as unusual as
theirs get.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_dmri.errors import InputError
from napari_dmri.harmonize.base import CardCheck
from napari_dmri.progress import Progress, silent
from napari_dmri.signal.rish import rish

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["Novelty", "fit_novelty", "judge", "novelty_map", "voxel_features"]

Array = NDArray[Any]

FLOOR, SPREAD = 1e-4, 0.05
"""Energy and spread of log energies below which differences are noise."""

CLUSTERS, ROUNDS, SAMPLES = 8, 60, 40_000
QUANTILE = 0.99

USUAL, FOREIGN = 0.03, 0.3
"""Shares of a scan's voxels above 1: up to the first it fits, from the second it is refused."""

REGION, SMALLEST = 3, 10
"""A connected region is new when it is so many times the training's largest, or 10 voxels."""


@dataclass(frozen=True, eq=False)
class Novelty:
    """Hold what training subjects' brains look like: a mixture of K Gaussians of F features.

    Parameters
    ----------
    centre, scale
        Median and spread of each feature (F,).
    weights, means, factors
        Shares (K,), means (K, F) and inverse Cholesky factors (K, F, F) of the clusters, of
        features that are centred and scaled.
    limit
        The distance d that maps are divided by.
    region
        Voxels of the largest connected region above the limit in any training subject.
    """

    centre: NDArray[np.float64]
    scale: NDArray[np.float64]
    weights: NDArray[np.float64]
    means: NDArray[np.float64]
    factors: NDArray[np.float64]
    limit: float
    region: int = 0

    def tensors(self) -> dict[str, Array]:
        """Return named arrays, as checkpoints hold them."""
        named = {name: getattr(self, name) for name in _ARRAYS}
        return {**named, "limit": np.array([self.limit, self.region], np.float64)}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Array]) -> Novelty:
        """Build from what `tensors` returned.

        Raises
        ------
        InputError
            If one is missing or their shapes disagree.
        """
        missing = [name for name in (*_ARRAYS, "limit") if name not in tensors]
        if missing:
            raise InputError(
                f"The model's novelty statistics lack {', '.join(missing)}; train the model anew."
            )
        arrays = {name: np.asarray(tensors[name], np.float64) for name in _ARRAYS}
        count, features = arrays["means"].shape
        shapes = ((features,), (features,), (count,), (count, features), (count, *2 * (features,)))
        whole = tuple(arrays[name].shape for name in _ARRAYS) == shapes
        if not whole or np.size(tensors["limit"]) != 2:
            raise InputError("The model's novelty statistics disagree in shape; train it anew.")
        limit, region = np.asarray(tensors["limit"], np.float64).reshape(2)
        return cls(**arrays, limit=float(limit), region=int(region))

    def distance(self, features: Array) -> NDArray[np.float64]:
        """Return d of features (n, F)."""
        density = _log_density(self, (features - self.centre) / self.scale)
        peak = _log_density(self, self.means).max()
        found: NDArray[np.float64] = np.sqrt(2 * np.maximum(peak - density, 0))
        return found


_ARRAYS = ("centre", "scale", "weights", "means", "factors")


def voxel_features(coefficients: Array, mask: Array) -> NDArray[np.float64]:
    """Return the features (n, F) of the masked voxels of coefficients (X, Y, Z, C)."""
    from scipy.ndimage import uniform_filter

    inside = np.asarray(mask).astype(bool)
    weight = uniform_filter(inside.astype(np.float32), 3, mode="constant")[inside]
    log = np.log(rish(np.where(inside[..., None], coefficients, 0)) + np.float32(FLOOR))
    means, spreads = [], []
    for k in range(log.shape[3]):
        values = np.where(inside, log[..., k], 0)
        mean = uniform_filter(values, 3, mode="constant")[inside] / weight
        square = uniform_filter(values**2, 3, mode="constant")[inside] / weight
        means.append(mean)
        spreads.append(np.log(np.sqrt(np.maximum(square - mean**2, 0)) + SPREAD))
    return np.stack(means + spreads, axis=1).astype(np.float64)


def fit_novelty(
    volumes: Iterable[tuple[Array, Array]], *, seed: int = 0, progress: Progress | None = None
) -> Novelty:
    """Describe the voxels that a model is trained on.

    Parameters
    ----------
    volumes
        Source coefficients (X, Y, Z, C) and mask (X, Y, Z) of each training subject; read one
        after the other.
    seed
        Of the sample of voxels and of the clusters' start.
    progress
        Who is told.

    Raises
    ------
    InputError
        If there are fewer than 100 voxels in all.
    """
    report = progress or silent
    report(0.0, "novelty: features")
    per_subject, masks = [], []
    for values, mask in volumes:
        per_subject.append(voxel_features(values, mask))
        masks.append(np.asarray(mask).astype(bool))
    total = sum(len(f) for f in per_subject)
    if total < 100:
        raise InputError(
            f"{total} training voxels; at least 100 are needed to tell what is unlike them."
        )
    rng = np.random.default_rng(seed)
    share = max(1, SAMPLES // len(per_subject))
    chosen = [f if len(f) <= share else f[rng.permutation(len(f))[:share]] for f in per_subject]
    sample = np.concatenate(chosen)
    centre = np.median(sample, 0)
    scale = 1.4826 * np.median(np.abs(sample - centre), 0)
    scale = np.where(scale > 1e-6, scale, 1.0)
    scaled = np.clip((sample - centre) / scale, -12, 12)
    count = int(np.clip(len(scaled) // 50, 1, CLUSTERS))
    fitted = Novelty(centre, scale, *_start(scaled, count, rng), 1.0)
    for n in range(ROUNDS):
        report(0.1 + 0.8 * n / ROUNDS, "novelty: clusters")
        fitted = Novelty(centre, scale, *_improve(fitted, scaled), 1.0)
    distances = [fitted.distance(f) for f in per_subject]
    limit = float(max(np.quantile(d, QUANTILE) for d in distances if len(d)))
    region = 0
    for mask, found in zip(masks, distances, strict=True):
        above = np.zeros(mask.shape, bool)
        above[mask] = found > limit
        region = max(region, _largest_region(above)[0])
    report(1.0, "novelty")
    return replace(fitted, limit=limit, region=region)


def novelty_map(novelty: Novelty, coefficients: Array, mask: Array) -> NDArray[np.float32]:
    """Return how unlike the training subjects' each voxel is (X, Y, Z); 0 outside the mask.

    Above 1 are voxels more unusual than all but one in a hundred of the most unusual training
    subject's.

    Raises
    ------
    InputError
        If the coefficients are of another order than the model's.
    """
    inside = np.asarray(mask).astype(bool)
    features = voxel_features(coefficients, inside)
    if features.shape[1] != len(novelty.centre):
        raise InputError(
            f"The coefficients have SH order {features.shape[1] - 2} and the model's novelty "
            f"statistics order {len(novelty.centre) - 2}; fit the scan with the model's order."
        )
    out = np.zeros(inside.shape, np.float32)
    out[inside] = novelty.distance(np.nan_to_num(features)) / novelty.limit
    return out


def judge(novelty: Novelty, values: Array, mask: Array) -> tuple[CardCheck, ...]:
    """Say in words whether a scan is like the training data, as a whole and in every region.

    Parameters
    ----------
    novelty
        What the training data look like.
    values
        The scan's `novelty_map` (X, Y, Z).
    mask
        Its mask.

    Returns
    -------
    One entry on the scan as a whole (``"error"`` from 30 % of voxels above 1, ``"warning"`` from
    3 %), and a ``"warning"`` where a connected region above 1 is more than three times as large
    as any in the training data.
    """
    inside = np.asarray(mask).astype(bool)
    above = (np.asarray(values) > 1) & inside
    count, total = int(above.sum()), int(inside.sum())
    share = count / max(total, 1)
    words = (
        f"{count} of {total} voxels ({share:.1%}) are less like the training data than 99 % of any "
        "training subject's"
    )
    if share >= FOREIGN:
        remedy = "the scan is of another kind; use a model trained on its scanner and protocol."
        return (CardCheck("error", f"{words}: {remedy}"),)
    if share > USUAL:
        remedy = "look at the novelty map, and at what was done where it exceeds 1."
        checks = [CardCheck("warning", f"{words}: {remedy}")]
    else:
        checks = [CardCheck("ok", f"{words}.")]
    size, centre = _largest_region(above)
    if size > REGION * max(novelty.region, SMALLEST):
        place = ", ".join(str(i) for i in centre)
        checks.append(
            CardCheck(
                "warning",
                f"A region of {size} voxels around voxel ({place}) is unlike the training data (at "
                f"most {novelty.region} connected voxels were, in any training subject): the model "
                "has not learned what to do with it; it may be a lesion or an artefact.",
            )
        )
    return tuple(checks)


def _largest_region(above: Array) -> tuple[int, tuple[int, ...]]:
    """Return the size of the largest connected region and its middle voxel."""
    from scipy import ndimage

    labels, count = ndimage.label(above)
    if not count:
        return 0, ()
    sizes = np.bincount(labels.reshape(-1))[1:]
    voxels = np.argwhere(labels == int(sizes.argmax()) + 1)
    middle = voxels[((voxels - voxels.mean(0)) ** 2).sum(1).argmin()]
    return int(sizes.max()), tuple(int(i) for i in middle)


def _log_density(mixture: Novelty, scaled: Array) -> NDArray[np.float64]:
    from scipy.special import logsumexp

    density: NDArray[np.float64] = logsumexp(_log_parts(mixture, scaled), axis=1)
    return density


def _log_parts(mixture: Novelty, scaled: Array) -> NDArray[np.float64]:
    """Return the log of each cluster's share of the density (n, K)."""
    columns = []
    for weight, mean, factor in zip(mixture.weights, mixture.means, mixture.factors, strict=True):
        white = (scaled - mean) @ factor.T
        volume = np.log(np.abs(np.diag(factor))).sum()
        columns.append(np.log(weight) + volume - 0.5 * (white**2).sum(1))
    constant = 0.5 * scaled.shape[1] * np.log(2 * np.pi)
    logs: NDArray[np.float64] = np.stack(columns, axis=1) - constant
    return logs


def _start(scaled: Array, count: int, rng: np.random.Generator) -> tuple[Array, Array, Array]:
    """Choose clusters' centres far from each other among the voxels (k-means++)."""
    means = [scaled[rng.integers(len(scaled))]]
    nearest = ((scaled - means[0]) ** 2).sum(1)
    while len(means) < count:
        total = nearest.sum()
        odds = nearest / total if total > 0 else None
        means.append(scaled[rng.choice(len(scaled), p=odds)])
        nearest = np.minimum(nearest, ((scaled - means[-1]) ** 2).sum(1))
    features = scaled.shape[1]
    return (
        np.full(count, 1 / count),
        np.array(means),
        np.repeat(np.eye(features)[None], count, axis=0),
    )


def _improve(mixture: Novelty, scaled: Array) -> tuple[Array, Array, Array]:
    """Take one step of expectation and maximisation."""
    from scipy.linalg import solve_triangular

    parts = _log_parts(mixture, scaled)
    parts -= parts.max(1, keepdims=True)
    shares = np.exp(parts)
    shares /= shares.sum(1, keepdims=True)
    totals = shares.sum(0) + 1e-6
    means = shares.T @ scaled / totals[:, None]
    identity = np.eye(scaled.shape[1])
    factors = np.empty_like(mixture.factors)
    for k, mean in enumerate(means):
        offset = scaled - mean
        covariance = (shares[:, k, None] * offset).T @ offset / totals[k]
        # A ridge: no cluster shrinks onto a few voxels that happen to agree.
        lower = np.linalg.cholesky(covariance + 0.02 * identity)
        factors[k] = solve_triangular(lower, identity, lower=True)
    return totals / totals.sum(), means, factors
