"""Average the responses of several scans into that of a group."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np

from napari_dmri.errors import DmriWarning, InputError
from napari_dmri.images import TISSUES, Response, ResponseSet
from napari_dmri.provenance import provenance

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["average_responses"]

ROOT = float(np.sqrt(4 * np.pi))


def average_responses(sets: Sequence[ResponseSet]) -> ResponseSet:
    """Average the responses of several scans.

    Each coefficient is the mean over those that have its tissue, shell and order. Magnitudes are
    averaged as they are: a group that is deconvolved with the mean needs scans of one scale.

    Parameters
    ----------
    sets
        One set or more, with the same shells (within 100 s/mm²).

    Raises
    ------
    InputError
        If there is none, or shells differ.

    Warns
    -----
    DmriWarning
        If the scans' scales differ by more than a factor of 1.5.
    """
    if not sets:
        raise InputError("There are no responses to average; give those of one scan or more.")
    if len(sets) == 1:
        return sets[0]
    found = {}
    for tissue in TISSUES:
        some = [s[tissue] for s in sets if tissue in s]
        if some:
            found[tissue] = _average(some, tissue)
    scale = np.array([s.wm.zonal[0, 0] for s in sets])
    notes = [f"The mean of {len(sets)} scans' responses."]
    notes += [
        f"{tissue}: {sum(tissue in s for s in sets)} of {len(sets)} have it."
        for tissue in found
        if not all(tissue in s for s in sets)
    ]
    if scale.max() > 1.5 * scale.min():
        sentence = (
            f"The scans' signals differ in scale (white matter at the lowest shell from "
            f"{scale.min() / ROOT:.4g} to {scale.max() / ROOT:.4g}), so their mean response suits "
            "none of them; bring the scans to one scale first."
        )
        notes.append(sentence)
        warnings.warn(sentence, DmriWarning, stacklevel=2)
    return ResponseSet(found, None, tuple(notes))


def _average(responses: Sequence[Response], tissue: str) -> Response:
    first = responses[0]
    for other in responses[1:]:
        a, b = first.bvalues, other.bvalues
        known = a is not None and b is not None
        same = len(first.zonal) == len(other.zonal) and (
            not known or np.allclose(a or (), b or (), atol=100, rtol=0)
        )
        if not same:
            raise InputError(
                f"The {tissue} responses have different shells ({_shells(first)} and "
                f"{_shells(other)}); only responses of the same shells are averaged."
            )
    columns = max(r.zonal.shape[1] for r in responses)
    total, count = np.zeros((len(first.zonal), columns)), np.zeros(columns)
    for response in responses:
        total[:, : response.zonal.shape[1]] += response.zonal
        count[: response.zonal.shape[1]] += 1
    bvalues = None
    known_shells = [r.bvalues for r in responses if r.bvalues is not None]
    if known_shells:
        bvalues = tuple(float(round(v)) for v in np.mean(np.array(known_shells), axis=0).tolist())
    about = provenance(
        "response-average",
        {"responses": len(responses)},
        {"responses": [str(r.provenance.get("inputs", {})) for r in responses]},
        simulated=any(bool(r.provenance.get("simulated")) for r in responses),
    )
    return Response(total / count, bvalues, tissue, sum(r.voxels for r in responses), about)


def _shells(response: Response) -> str:
    if response.bvalues is None:
        return f"{len(response.zonal)} rows"
    return "b=" + ", ".join(f"{b:g}" for b in response.bvalues)
