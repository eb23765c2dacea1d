"""The card of a LinearRISH model: what it is, what it was trained on, what was changed."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_dmri.errors import DmriWarning
from napari_dmri.harmonize.cards import scan_hash
from napari_dmri.provenance import versions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_dmri.harmonize.linear_rish import LinearRish
    from napari_dmri.harmonize.scale_maps import ScaleMaps
    from napari_dmri.harmonize.template import Template
    from napari_dmri.scan import Scan

__all__ = ["CITATIONS", "KIND", "LABEL", "NAME", "Facts", "facts_of", "make_card"]

KIND = "harmonizer"
NAME = "linear-rish"
LABEL = "LinearRISH"

CITATIONS = (
    "Mirzaalian H, Ning L, Savadjiev P, et al. Inter-site and inter-scanner diffusion MRI data "
    "harmonization. NeuroImage 135:311-323, 2016.",
    "Mirzaalian H, Ning L, Savadjiev P, et al. Multi-site harmonization of diffusion MRI data in a "
    "registration framework. Brain Imaging Behav 12:284-295, 2018.",
    "Cetin Karayumak S, Bouix S, Ning L, et al. Retrospective harmonization of multi-site "
    "diffusion MRI data acquired with different acquisition parameters. NeuroImage 184:180-200, "
    "2019.",
)


@dataclass(frozen=True, eq=False)
class Facts:
    """Hold what a card says of one training scan."""

    subject: str
    role: str
    name: str
    sha256: str
    simulated: bool
    site: str
    bvalues: dict[float, float]
    voxel_size: NDArray[np.float64]


def facts_of(subject: str, role: str, scan: Scan, orders: dict[float, int]) -> Facts:
    """Return what a card says of a scan."""
    found = {b: scan.gradients.shell(b).bvalue for b in orders}
    site = str(scan.metadata.get("site") or "")
    return Facts(
        subject, role, scan.name, scan_hash(scan), scan.simulated, site, found, scan.voxel_size
    )


def make_card(
    model: LinearRish,
    trained_from: str,
    facts: Sequence[Facts],
    orders: dict[float, int],
    maps: dict[float, ScaleMaps],
    template: Template,
    notes: list[str],
) -> dict[str, Any]:
    """Write down what a model is and was made from, and warn with its notes."""
    for note in notes:
        warnings.warn(note, DmriWarning, stacklevel=5)
    sites = {
        role: next((f.site for f in facts if f.role == role and f.site), role)
        for role in ("source", "target")
    }
    simulated = any(f.simulated for f in facts)
    shells = []
    for bvalue, order in sorted(orders.items()):
        found = maps[bvalue]
        shells.append(
            {
                "bvalue": bvalue,
                "order": order,
                "source_bvalue": float(
                    np.mean([f.bvalues[bvalue] for f in facts if f.role == "source"])
                ),
                "voxels": int(found.mask.sum()),
                "capped": list(found.capped),
                "rim": list(found.rim),
                "median_scale": [
                    round(float(np.median(found.scales[found.mask][:, k])), 4)
                    for k in range(found.scales.shape[3])
                ],
            }
        )
    top = shells[-1]
    return {
        "kind": KIND,
        "method": NAME,
        "label": LABEL,
        "order": top["order"],
        "shell": top["bvalue"],
        "shells": shells,
        "smooth": model.smooth,
        "voxel_size": [round(float(v), 4) for v in facts[0].voxel_size],
        "source_site": sites["source"],
        "target_site": sites["target"],
        "trained_from": trained_from,
        "subjects": list(dict.fromkeys(f.subject for f in facts)),
        "inputs": [
            {"subject": f.subject, "role": f.role, "name": f.name, "sha256": f.sha256}
            for f in facts
        ],
        "simulated": simulated,
        "purpose": "simulated, demo only" if simulated else "research",
        "licence": "the licence of the training scans" if not simulated else "BSD-3-Clause",
        "template": {
            "shape": list(template.channels.shape),
            "rounds": template.rounds,
            "changes": [round(c, 5) for c in template.changes],
            "settled": template.settled,
        },
        "parameters": model.parameters,
        "notes": notes,
        "citations": list(CITATIONS),
        "versions": versions(),
    }
