"""Apply a network to a scan: fit, predict, project, rebuild, and say what was done."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_dmri.errors import DmriWarning
from napari_dmri.harmonize import features, networks
from napari_dmri.harmonize.base import Harmonization, trained_subject
from napari_dmri.harmonize.cards import refuse_errors
from napari_dmri.harmonize.novelty import judge, novelty_map
from napari_dmri.harmonize.reconstruct import rebuild
from napari_dmri.harmonize.trained_range import blend
from napari_dmri.images import ScalarImage
from napari_dmri.progress import Progress, part, silent
from napari_dmri.provenance import provenance

if TYPE_CHECKING:
    from napari_dmri.harmonize.learned import LearnedHarmonizer
    from napari_dmri.harmonize.learned_fit import Trained
    from napari_dmri.images import ShImage
    from napari_dmri.scan import Scan

__all__ = ["harmonize_scan"]

Array = NDArray[Any]

KEPT = "source kept"
"""Name of the map of the share that is the source's own."""

NO_ENERGY = 1e-12
"""Energy of an order below which its scale is not told."""


def harmonize_scan(
    model: LearnedHarmonizer,
    trained: Trained,
    scan: Scan,
    *,
    projected: bool,
    device: str,
    progress: Progress | None,
) -> Harmonization:
    """Harmonize a scan; see `LearnedHarmonizer.apply_detailed`."""
    card, checks = trained.card, model.check(scan)
    refuse_errors(checks, f"The {model.LABEL} model")
    notes = [c.sentence for c in checks if c.level == "warning" and "trained on" not in c.sentence]
    report = progress or silent
    report(0.0, "mask")
    scan, made = features.with_mask(scan, part(report, 0.0, 0.1))
    if made and scan.mask is not None:
        notes.append(f"{scan.name} had no mask; one was made ({int(scan.mask.sum())} voxels).")
    bvalue = float(card["shell"])
    source = _source(model, card, scan, device, part(report, 0.1, 0.4))
    unlike = _novelty(trained, source)
    judged = judge(trained.novelty, unlike.data, _inside(source))
    refuse_errors(judged, f"The {model.LABEL} model")
    notes += [c.sentence for c in judged if c.level == "warning"]
    predicted = networks.predict(
        trained.network,
        source.coefficients,
        source.mask,
        device=device,
        progress=part(report, 0.4, 0.8, f"{model.LABEL}: "),
    )
    predicted, kept, outside = _within(card, source, predicted)
    notes += outside
    final, said = _final(source, predicted, projected, model.cap)
    notes += said
    harmonized, clipped = rebuild(
        scan,
        {bvalue: final},
        new_bvalues=model.map_bvalue,
        device=device,
        progress=part(report, 0.8, 1.0),
    )
    if clipped:
        notes.append(f"{clipped} values of S'/b0 were clipped to [0, 1].")
    known = trained_subject(card, scan)
    if known is not None:
        words = f"The model was trained on {known}; this result says nothing about others."
        notes.append(words)
        warnings.warn(words, DmriWarning, stacklevel=3)
    record = provenance(
        model.NAME,
        {**model.parameters, "projection": projected, "model": card.get("sha256", "in memory")},
        inputs={"scan": scan.name, "path": str(scan.path or "")},
        citations=model.CITATIONS,
        simulated=bool(card["simulated"]) or scan.simulated,
        source_site=card["source_site"],
        target_site=card["target_site"],
        notes=notes,
    )
    named = replace(
        harmonized,
        name=f"{scan.name} -> {card['target_site']} ({model.LABEL})",
        metadata={**scan.metadata, "provenance": record, "harmonized_to": card["target_site"]},
    )
    report(1.0, "harmonized")
    maps = {**_maps(source, final, bvalue), unlike.name: unlike, **kept}
    return Harmonization(named, maps, tuple(notes))


def _source(
    model: LearnedHarmonizer, card: dict[str, Any], scan: Scan, device: str, progress: Progress
) -> ShImage:
    """Fit the source as its coefficients were fitted for training."""
    from napari_dmri.signal.sh_fit import fit_sh

    single = features.shell_scan(scan, float(card["shell"]), model.map_bvalue)
    order, smooth = int(card["order"]), float(card["smooth"])
    return fit_sh(single, order, smooth, device=device, progress=progress)


def _within(
    card: dict[str, Any], source: ShImage, predicted: Array
) -> tuple[Array, dict[str, ScalarImage], list[str]]:
    """Keep the source where its signal is far from what was trained on, and say so."""
    known = card.get("signal_range")
    if known is None:
        return predicted, {}, []
    inside = _inside(source)
    blended, kept = blend(known, source.coefficients, predicted, inside)
    maps = {KEPT: ScalarImage(kept, source.affine, KEPT, "share")}
    count = int((kept > 0).sum())
    share = count / max(int(inside.sum()), 1)
    if not count:
        return blended, maps, []
    words = (
        f"{count} voxels ({share:.1%}) have a mean S/b0 below {known['low']:.2f} or above "
        f"{known['high']:.2f}, far from the training voxels, of white and grey matter (CSF is "
        "darker): there the result fades to the source's own fit."
    )
    return blended, maps, [words]


def _final(
    source: ShImage, predicted: Array, projected: bool, cap: float
) -> tuple[ShImage, list[str]]:
    """Return the coefficients to rebuild from, projected if asked for, and what was guarded."""
    if not projected:
        return source.with_coefficients(predicted), []
    from napari_dmri.signal.rish import project_rish

    coefficients, counts = project_rish(predicted, source, cap)
    said = []
    for what, words in (
        ("capped", f"at the projection's cap of {cap:g}"),
        ("guarded", "without energy of their own, so that the projection has no direction to keep"),
    ):
        found = [f"{n} at l={2 * k}" for k, n in enumerate(counts[what]) if n]
        if found:
            said.append(f"Voxels {words}: {', '.join(found)}.")
    return source.with_coefficients(coefficients), said


def _maps(source: ShImage, final: ShImage, bvalue: float) -> dict[str, ScalarImage]:
    """Return the scale of each order, the root of its energies' ratio."""
    from napari_dmri.signal.rish import rish

    before, after = rish(source), rish(final)
    known = _inside(source)[..., None] & (before > NO_ENERGY)
    ratio = np.divide(after, before, out=np.ones_like(before), where=known)
    maps = {}
    for k in range(ratio.shape[3]):
        name = f"scale l={2 * k} b={bvalue:g}"
        maps[name] = ScalarImage(np.sqrt(ratio[..., k]), source.affine, name, "ratio")
    return maps


def _novelty(trained: Trained, source: ShImage) -> ScalarImage:
    """Return how unlike the training voxels each voxel is; above 1 one in a hundred was."""
    values = novelty_map(trained.novelty, source.coefficients, _inside(source))
    return ScalarImage(values, source.affine, "novelty", "")


def _inside(source: ShImage) -> NDArray[np.bool_]:
    return np.ones(source.shape[:3], bool) if source.mask is None else source.mask
