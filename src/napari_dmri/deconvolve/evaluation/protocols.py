"""The simulated scans of an evaluation for training, validation and test, with their truth.

A voxel is scored where white matter fills at least half of it; a true fibre has at least a tenth of
its fibre signal. Thresholds and settings are chosen on validation scans, and scored on test scans,
for every method alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_dmri.compare.fibre_truth import FibreTruth
from napari_dmri.errors import InputError
from napari_dmri.images import ResponseSet

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_dmri.phantom.anatomy import Lesion
    from napari_dmri.phantom.travelling import TravellingSubject
    from napari_dmri.phantom.truth import Truth
    from napari_dmri.scan import GradientTable, Scan

__all__ = [
    "PROTOCOLS",
    "ROLES",
    "TEST_SUBJECT",
    "Case",
    "Protocol",
    "Size",
    "make_case",
    "seen_volumes",
    "simulated",
    "subject_case",
    "true_fibres",
]

POPULATION = 2024
"""Seed of the simulated people: other ones than those of shipped models, samples and tests."""

LEAST_WHITE, LEAST_SHARE = 0.5, 0.1

Size = str | tuple[int, int, int]
"""Of simulated scans, as `simulate_subject` takes it."""


@dataclass(frozen=True)
class Protocol:
    """Describe which scans are made and which volumes a method sees.

    Parameters
    ----------
    name, summary
        Its name on the command line, and one sentence.
    site
        The simulated scanner; empty for independent voxels of random crossings.
    seen
        b-values of the shells that methods see, beside b0; empty for all. Networks learn to
        reconstruct all shells all the same.
    voxels
        Shape of the grid of random crossings, for training and for scoring.
    """

    name: str
    summary: str
    site: str = ""
    seen: tuple[float, ...] = ()
    voxels: tuple[int, int, int] = (40, 40, 15)


PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol("high", "30 + 64 directions at b = 1000 and 3000 s/mm²", "research_hr"),
        Protocol("low", "30 directions at b = 1200 s/mm²", "clinical"),
        Protocol(
            "super",
            "30 directions at b = 1000 s/mm² seen, 30 + 64 at 1000 and 3000 reconstructed",
            "research_hr",
            (1000.0,),
        ),
        Protocol("random", "voxels of random crossings without neighbourhood, SNR 30"),
    )
}
"""The protocols in the order of the tables."""

ROLES = {"train": (0, 1, 2, 3), "validation": (4,), "test": (5, 6)}
"""Numbers of the subjects of each role."""

TEST_SUBJECT = ROLES["test"][0]
"""Who is made ill."""


@dataclass(frozen=True, eq=False)
class Case:
    """Hold one simulated scan, what methods see of it, and its true fibres.

    Parameters
    ----------
    name
        The subject.
    scan
        All volumes, with a brain mask.
    inputs
        Indices of the volumes that methods see; None for all.
    responses
        Estimated from the scan, as a user's would be; those of the generator for random crossings.
    truth, scored
        True fibres of the scored voxels, and where these are (X, Y, Z).
    subject
        The truth of a subject; None for random crossings.
    """

    name: str
    scan: Scan
    inputs: NDArray[np.intp] | None
    responses: ResponseSet
    truth: FibreTruth
    scored: NDArray[np.bool_]
    subject: Truth | None = None

    @property
    def seen(self) -> Scan:
        """The scan with the volumes that methods see."""
        return self.scan if self.inputs is None else self.scan.select(self.inputs)


def simulated(
    site: str,
    index: int,
    *,
    size: Size = "small",
    seed: int = POPULATION,
    lesion: Lesion | None = None,
) -> TravellingSubject:
    """Simulate one person of the evaluation's population at a site; the last few are kept."""
    return _simulated(site, index, size, seed, lesion)


def make_case(
    protocol: Protocol,
    role: str,
    number: int,
    *,
    size: Size = "small",
) -> Case:
    """Make one scan of a protocol; the last few are kept.

    Parameters
    ----------
    protocol
        Which.
    role, number
        ``"train"``, ``"validation"`` or ``"test"``, and which of the role's subjects, from 0.
    size
        Of a subject's scan, as in `simulate_subject`.

    Raises
    ------
    InputError
        If the role has no such subject.
    """
    if role not in ROLES or not 0 <= number < len(ROLES[role]):
        raise InputError(f"There is no {role} subject {number}; roles and subjects are {ROLES}.")
    index = ROLES[role][number]
    if protocol.site:
        return _subject_case(protocol, index, size)
    return _crossing_case(protocol, index)


def true_fibres(truth: Truth, mask: NDArray[Any]) -> tuple[FibreTruth, NDArray[np.bool_]]:
    """Return the true fibres of the scored voxels of a subject, and where these are."""
    scored = mask.astype(bool) & (truth.tissue[..., 0] >= LEAST_WHITE)
    there = truth.fractions[scored] >= LEAST_SHARE
    return FibreTruth.of(truth.directions[scored] * there[..., None]), scored


def seen_volumes(gradients: GradientTable, bvalues: tuple[float, ...]) -> NDArray[np.intp] | None:
    """Return the indices of b0 and of some shells; None for no b-values."""
    if not bvalues:
        return None
    own = [gradients.shell(b).indices for b in bvalues]
    return np.sort(np.concatenate([np.flatnonzero(gradients.b0_mask), *own])).astype(np.intp)


def subject_case(protocol: Protocol, subject: TravellingSubject) -> Case:
    """Make the case of a subject that was simulated at the protocol's site."""
    from napari_dmri.deconvolve.response import estimate_response

    scan = subject.scans[protocol.site]
    assert scan.mask is not None
    truth, scored = true_fibres(subject.truth, scan.mask)
    inputs = seen_volumes(scan.gradients, protocol.seen)
    responses = estimate_response(scan)
    return Case(subject.subject, scan, inputs, responses, truth, scored, subject.truth)


@lru_cache(maxsize=8)
def _subject_case(protocol: Protocol, index: int, size: Size) -> Case:
    return subject_case(protocol, simulated(protocol.site, index, size=size))


@lru_cache(maxsize=8)
def _crossing_case(protocol: Protocol, index: int) -> Case:
    from napari_dmri.phantom.crossings import crossing_response, simulate_crossings

    made = simulate_crossings(protocol.voxels, seed=POPULATION + index, snr=(30,))
    scan = made.scans[30]
    everywhere = np.ones(scan.shape[:3], bool)
    scan = scan.with_mask(everywhere)
    responses = ResponseSet({"wm": crossing_response()})
    return Case(f"crossings {index}", scan, None, responses, made.truth, everywhere)


@lru_cache(maxsize=4)
def _simulated(
    site: str, index: int, size: Size, seed: int, lesion: Lesion | None
) -> TravellingSubject:
    from napari_dmri.phantom.travelling import simulate_subject

    return simulate_subject(
        index, sites=(site,), size=size, seed=seed, lesion=lesion, repeats=False
    )
