r"""Follow fibres through fODFs of simulated subjects and score them against their bundles.

DIPY tracks, deterministically and at random, from the same seeds with the same rules for every
method. A streamline is *valid* if its ends lie at the two ends of one true bundle, *invalid* if at
ends of different bundles, and otherwise joins nothing; those that leave the field of view do not
count. Even the true fODFs score far from full marks, as fibres cross and fan: they have a row of
their own, which methods whose fODFs go smoothly from voxel to voxel can pass. A bundle's *overlap*
is the share of its voxels that valid streamlines pass, its *overreach* the number of voxels passed
outside it, over its own number.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_dmri.compare.tables import Row, Table
from napari_dmri.errors import InputError
from napari_dmri.progress import Progress, silent

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from napari_dmri.images import ShImage
    from napari_dmri.phantom.truth import Truth

__all__ = ["BundleScore", "Rules", "score_bundles", "track", "track_bundles", "tracking_table"]

KINDS = ("deterministic", "probabilistic")


@dataclass(frozen=True)
class Rules:
    """Say how fibres are followed, for every method alike.

    Parameters
    ----------
    seeds
        Number of seeds, at random places in voxels that are half white matter.
    step, angle
        Length of a step (mm) and largest turn in it (degrees).
    shortest, longest
        Lengths that count (mm).
    threshold
        Amplitude of the fODF as a share of the voxel's largest, below which no step goes.
    white
        Share of white matter below which a streamline ends.
    """

    seeds: int = 20_000
    step: float = 1.0
    angle: float = 30.0
    shortest: float = 30.0
    longest: float = 300.0
    threshold: float = 0.1
    white: float = 0.2


@dataclass(frozen=True)
class BundleScore:
    """Hold how streamlines agree with the true bundles.

    ``valid``, ``invalid`` and ``none`` are shares of the streamlines; ``found`` counts bundles with
    a valid streamline among ``bundles``; ``overlap`` and ``overreach`` are means over bundles.
    """

    streamlines: int
    valid: float
    invalid: float
    none: float
    found: int
    bundles: int
    overlap: float
    overreach: float


def track(
    fod: ShImage, truth: Truth, kind: str, rules: Rules | None = None, *, seed: int = 1
) -> list[NDArray[np.float32]]:
    """Return streamlines (n, 3) in scanner RAS millimetres.

    Parameters
    ----------
    fod
        fODFs on the truth's grid.
    truth
        Where white matter is.
    kind
        ``"deterministic"`` or ``"probabilistic"``.
    rules
        How; None takes the usual.
    seed
        Of seeds and of random tracking.

    Raises
    ------
    InputError
        If the kind is unknown, the grids differ, or there is no white matter.
    """
    from dipy.data import get_sphere
    from dipy.tracking.stopping_criterion import ThresholdStoppingCriterion
    from dipy.tracking.tracker import deterministic_tracking, probabilistic_tracking

    rules = rules or Rules()
    if kind not in KINDS:
        raise InputError(f"Unknown tracking {kind!r}; choose one of {', '.join(KINDS)}.")
    white = truth.tissue[..., 0]
    if white.shape != fod.shape[:3]:
        raise InputError(f"The fODFs have {fod.shape[:3]} voxels and the truth {white.shape}.")
    inside = np.argwhere((white >= 0.5) & (fod.coefficients[..., 0] > 0))
    if not len(inside):
        raise InputError("No voxel is half white matter and has an fODF; there is no seed.")
    rng = np.random.default_rng(seed)
    places = inside[rng.integers(len(inside), size=rules.seeds)] + rng.uniform(
        -0.5, 0.5, (rules.seeds, 3)
    )
    affine = fod.affine
    run = deterministic_tracking if kind == "deterministic" else probabilistic_tracking
    found = run(
        places @ affine[:3, :3].T + affine[:3, 3],
        ThresholdStoppingCriterion(white.astype(np.float64), rules.white),
        affine,
        sh=fod.coefficients.astype(np.float64),
        sphere=get_sphere(name="repulsion724"),
        basis_type="tournier07",
        legacy=False,
        step_size=rules.step,
        max_angle=rules.angle,
        min_len=rules.shortest,
        max_len=rules.longest,
        pmf_threshold=rules.threshold,
        voxel_size=np.linalg.norm(affine[:3, :3], axis=0),
        random_seed=seed,
        nbr_threads=1,
    )
    return [np.asarray(line, np.float32) for line in found]


def score_bundles(lines: Sequence[NDArray[Any]], truth: Truth, margin: float = 6.0) -> BundleScore:
    """Score streamlines against the bundles that have both their ends in the field of view.

    Parameters
    ----------
    lines
        Streamlines (n, 3) in scanner RAS millimetres.
    truth
        Where bundles are.
    margin
        Millimetres around a bundle's ends that count as the end.
    """
    ends = np.asarray(truth.endpoint_labels(margin).data)
    masks = truth.bundle_masks()
    whole = [
        k
        for k, mask in enumerate(masks.values())
        if mask.any() and all((ends[..., k] == side).any() for side in (1, 2))
    ]
    inverse = np.linalg.inv(truth.affine)
    edge = np.array(ends.shape[:3]) - 1
    every = (_voxels(line, inverse, ends.shape[:3]) for line in lines)
    voxels = [v for v in every if (v[[0, -1]] > 0).all() and (v[[0, -1]] < edge).all()]
    valid = np.zeros(len(voxels), bool)
    touching = np.zeros(len(voxels), bool)
    passed = {k: np.zeros(ends.shape[:3], bool) for k in whole}
    for n, line in enumerate(voxels):
        first, last = ends[tuple(line[0])], ends[tuple(line[-1])]
        touching[n] = first.any() and last.any()
        for k in whole:
            if {int(first[k]), int(last[k])} == {1, 2}:
                valid[n] = True
                passed[k][tuple(line.T)] = True
    own = [(passed[k], list(masks.values())[k]) for k in whole]
    overlap = [float((p & m).sum() / m.sum()) for p, m in own]
    beyond = [float((p & ~m).sum() / m.sum()) for p, m in own]
    count = max(len(voxels), 1)
    return BundleScore(
        len(voxels),
        float(valid.sum() / count),
        float((touching & ~valid).sum() / count),
        float((~touching & ~valid).sum() / count),
        sum(bool(p.any()) for p, _ in own),
        len(whole),
        float(np.mean(overlap)) if overlap else float("nan"),
        float(np.mean(beyond)) if beyond else float("nan"),
    )


def track_bundles(
    fods: Mapping[str, ShImage],
    truth: Truth,
    rules: Rules | None = None,
    *,
    progress: Progress | None = None,
) -> dict[tuple[str, str], BundleScore]:
    """Track and score every method's fODFs, by (method, kind of tracking)."""
    report = progress or silent
    pairs = [(name, kind) for name in fods for kind in KINDS]
    scores = {}
    for n, (name, kind) in enumerate(pairs):
        report(n / len(pairs), f"{name}, {kind}")
        scores[name, kind] = score_bundles(track(fods[name], truth, kind, rules), truth)
    report(1.0, "tracked")
    return scores


def tracking_table(*subjects: Mapping[tuple[str, str], BundleScore]) -> Table:
    """Put scores by (method, kind) in a table, shares in percent.

    Several subjects, of whom all have the same methods, give their mean and then each.
    """
    rows = []
    for key in subjects[0]:
        scores = [one[key] for one in subjects]
        if len(scores) == 1:
            rows.append(_row(key, scores, {}))
            continue
        rows.append(_row(key, scores, {"subject": f"mean of {len(scores)}"}))
        rows += [_row(key, [one], {"subject": str(n)}) for n, one in enumerate(scores, 1)]
    notes = (
        "The same seeds and rules for every method; bundles with both ends in the field of view.",
    )
    return Table("Tractography", tuple(rows[0].values), tuple(rows), "method", notes)


def _row(key: tuple[str, str], scores: Sequence[BundleScore], more: Mapping[str, str]) -> Row:
    """Make a row of the mean of some scores."""

    def mean(name: str) -> float:
        return float(np.mean([getattr(s, name) for s in scores]))

    name, kind = key
    return Row(
        name,
        {
            "tracking": kind,
            **more,
            "streamlines": round(mean("streamlines")),
            "valid (%)": round(100 * mean("valid"), 1),
            "invalid (%)": round(100 * mean("invalid"), 1),
            "no connection (%)": round(100 * mean("none"), 1),
            "bundles found": f"{mean('found'):g} of {mean('bundles'):g}",
            "overlap (%)": round(100 * mean("overlap"), 1),
            "overreach (%)": round(100 * mean("overreach"), 1),
        },
    )


def _voxels(line: NDArray[Any], inverse: NDArray[Any], shape: tuple[int, ...]) -> NDArray[np.int64]:
    index = np.rint(line @ inverse[:3, :3].T + inverse[:3, 3]).astype(np.int64)
    clipped: NDArray[np.int64] = index.clip(0, np.array(shape) - 1)
    return clipped
