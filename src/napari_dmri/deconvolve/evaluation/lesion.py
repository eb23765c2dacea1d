r"""Look for invented fibres in a lesion that no training subject of the evaluation has.

The package's networks have met lesions, of other people and in the other hemisphere.

A cavity of CSF holds no fibre: what fibre density is left inside it, against the same voxels of the
healthy subject, is invented. In an oedema free water dilutes fibres that are still there: a method
should keep their directions and lower their density as the truth does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_dmri.compare.fibres import score_curve
from napari_dmri.compare.tables import Row, Table
from napari_dmri.deconvolve.evaluation.protocols import (
    TEST_SUBJECT,
    Protocol,
    Size,
    simulated,
    true_fibres,
)
from napari_dmri.deconvolve.evaluation.scoring import MOST
from napari_dmri.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from napari_dmri.images import ShImage
    from napari_dmri.phantom.travelling import TravellingSubject

__all__ = ["LesionScore", "lesion_scans", "lesion_table", "probe_lesion"]

PEAK_DENSITY = 0.1
"""A fibre counts as invented above this share of normal white matter's largest amplitude."""


@dataclass(frozen=True)
class LesionScore:
    """Hold what a method finds in a lesion.

    Parameters
    ----------
    voxels
        Voxels that the lesion fills, white matter in the healthy subject.
    true_density, density
        Mean fibre density in the lesion over that of normal white matter: true, and found.
    invented
        Share of the voxels with a peak above a tenth of the amplitude that is usual in normal white
        matter, where truth has no fibre; NaN where truth has fibres everywhere.
    error
        Angular error over true fibres in the lesion (degrees); NaN where there are none.
    """

    voxels: int
    true_density: float
    density: float
    invented: float
    error: float


def lesion_scans(
    protocol: Protocol, kind: str, size: Size = "small"
) -> tuple[TravellingSubject, NDArray[np.bool_]]:
    """Simulate a test subject with a lesion; return it with the voxels that the lesion fills.

    Parameters
    ----------
    protocol
        Whose scanner.
    kind
        ``"csf"`` (a cavity) or ``"oedema"``.
    size
        Of the scan.

    Raises
    ------
    InputError
        If the lesion lies outside the scan.
    """
    from napari_dmri.phantom.anatomy import Lesion

    if not protocol.site:
        raise InputError(f"Protocol {protocol.name} has no subjects, so it has no lesions.")
    healthy = simulated(protocol.site, TEST_SUBJECT, size=size).truth
    ill = simulated(protocol.site, TEST_SUBJECT, size=size, lesion=Lesion(kind))
    lost = healthy.tissue[..., 0] - ill.truth.tissue[..., 0]
    inside = (healthy.tissue[..., 0] >= 0.5) & (lost > 0.3 * healthy.tissue[..., 0])
    if not inside.any():
        raise InputError(f"The {kind} lesion lies outside a scan of size {size}; choose another.")
    return ill, inside


def probe_lesion(
    fod: ShImage, subject: TravellingSubject, inside: NDArray[np.bool_], threshold: float
) -> LesionScore:
    """Score a method's fODFs in a lesion.

    Parameters
    ----------
    fod
        fODFs of the subject with the lesion.
    subject, inside
        As `lesion_scans` gives them.
    threshold
        Relative amplitude of peaks, as chosen for the method.
    """
    from napari_dmri.deconvolve.peaks import find_peaks

    truth = subject.truth
    normal = (truth.tissue[..., 0] >= 0.9) & ~inside & truth.mask
    peaks = find_peaks(fod, most=MOST, mask=inside | normal)
    usual = float(np.median(peaks.amplitudes[normal][:, 0]))
    density = fod.coefficients[..., 0]
    empty = inside & (truth.tissue[..., 0] < 0.05)
    fibres, scored = true_fibres(truth, inside)
    vectors = (peaks.directions * peaks.amplitudes[..., None])[scored]
    found: dict[str, float] = {"invented": float("nan"), "error": float("nan")}
    if empty.any():
        found["invented"] = float((peaks.amplitudes[empty][:, 0] > PEAK_DENSITY * usual).mean())
    if scored.any():
        found["error"] = score_curve(vectors, fibres, thresholds=(threshold,)).error
    return LesionScore(
        int(inside.sum()),
        float(truth.tissue[inside, 0].mean() / truth.tissue[normal, 0].mean()),
        float(density[inside].mean() / density[normal].mean()),
        **found,
    )


def lesion_table(scores: Mapping[tuple[str, str], LesionScore]) -> Table:
    """Put scores, by (kind of lesion, method), in a table."""
    rows = [
        Row(
            method,
            {
                "lesion": kind,
                "voxels": s.voxels,
                "true density (%)": round(100 * s.true_density, 1),
                "density (%)": round(100 * s.density, 1),
                "invented (%)": round(100 * s.invented, 1),
                "error (°)": round(s.error, 1),
            },
        )
        for (kind, method), s in scores.items()
    ]
    notes = (
        "Density against normal white matter's; invented: voxels without true fibres that have a "
        "peak above a tenth of normal white matter's.",
    )
    return Table("Lesions", tuple(rows[0].values), tuple(rows), "method", notes)
