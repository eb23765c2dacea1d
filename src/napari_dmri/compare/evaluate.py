r"""How near a harmonized scan comes to the scan that the target site measured.

The reference is the target scan **as measured**: its own S/b0 at its own directions, and FA and MD
of its own volumes. Each row is one scan, compared with it by

.. math:: \mathrm{NMSE} = \frac{\sum (x - t)^2}{\sum t^2}

over the voxels of a tissue (and, for the signal, over the target's directions of the shell).

Source and target have different gradient tables, so a scan whose directions are not the target's
(to 1 degree, in any order) is carried there by an SH fit **without smoothing** of the largest order
that its directions support: interpolation, not a model. A scan that is an SH fit already (refitted,
harmonized) passes through it unchanged as long as its order is supported; smoothing it a second
time would count as an improvement that no method made.

Reading the rows

* *source, raw*: the source's volumes, carried to the target's directions.
* *source, refitted*: the source after a smoothed SH fit and no model. What a method gains is
  measured from here; the step from raw to here is noise reduction, not harmonization.
* *harmonized*: the method's output.
* *target repeat, raw*: a second scan at the target site, with its noise.
* *target repeat, refitted (floor)*: the same after the same SH fit as the source. The reference's
  own noise is in every row; this row holds nothing else but what the fit leaves or takes away, and
  is as near as a method can be expected to come.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_dmri.compare.maps import common_order, require_same_grid
from napari_dmri.compare.metrics import nmse
from napari_dmri.compare.tables import Row, Table
from napari_dmri.compare.tissue import TISSUES, tissue_labels
from napari_dmri.errors import InputError
from napari_dmri.images import ScalarImage
from napari_dmri.progress import Progress, part

if TYPE_CHECKING:
    from napari_dmri.images import ShImage
    from napari_dmri.scan import Scan

__all__ = ["ROWS", "evaluate_harmonization", "normalised_shell", "signal_at"]

Array = NDArray[Any]

ROWS: tuple[str, ...] = (
    "source, raw",
    "source, refitted",
    "harmonized",
    "target repeat, raw",
    "target repeat, refitted (floor)",
)
"""The rows of the table, worst expected first."""

SAME_DIRECTION = np.cos(np.deg2rad(1.0))
WITH_TISSUE = (1, 2)


def evaluate_harmonization(
    source: Scan,
    refitted: Scan | ShImage | None,
    harmonized: Scan,
    target: Scan,
    repeat: Scan | None,
    labels: Array | ScalarImage | None = None,
    *,
    shell: float | None = None,
    order: int | None = None,
    smooth: float = 0.006,
    device: str = "auto",
    progress: Progress | None = None,
) -> Table:
    """Tabulate NMSE of signal, FA and MD against the target scan, in white and grey matter.

    Parameters
    ----------
    source
        The scan as measured at the source site.
    refitted
        The source after an SH fit without a model, as a scan or its SH image; None makes it.
    harmonized
        The source as a method makes it.
    target
        The scan measured at the target site: the reference.
    repeat
        A second scan at the target site; None leaves its rows out.
    labels
        1 white matter, 2 grey matter (X, Y, Z); None takes the tissue rule on the target.
    shell
        b-value of the target's shell in s/mm²; None takes its default shell.
    order, smooth
        SH fit of the refitted rows; None takes the largest order that source and target support.
    device, progress
        Where it runs, who is told.

    Returns
    -------
    Table with the rows `ROWS` and the columns signal, FA and MD by tissue.

    Raises
    ------
    InputError
        If grids differ, a shell is missing, or a tissue has no voxel.
    """
    from napari_dmri.harmonize.reconstruct import refit

    scans = {ROWS[0]: source, ROWS[2]: harmonized}
    if repeat is not None:
        scans[ROWS[3]] = repeat
    for scan in scans.values():
        require_same_grid(scan, target, "evaluation", (scan.name, f"the target {target.name}"))
    wanted = target.gradients.shell(shell)
    regions = _regions(labels, target, device, part(progress, 0, 0.1))
    inside = np.isin(regions, WITH_TISSUE)
    level = order or common_order([source, target], wanted.bvalue)
    fit: dict[str, Any] = {
        "order": level,
        "smooth": smooth,
        "shell": wanted.bvalue,
        "device": device,
    }
    scans[ROWS[1]] = _as_scan(refitted, source, inside, **fit)
    if repeat is not None:
        scans[ROWS[4]] = refit(repeat.with_mask(inside), **fit)

    directions = target.gradients.directions[wanted.indices]
    reference = normalised_shell(target, wanted.bvalue)
    maps = _tensor_maps(target, wanted.bvalue, inside, device)
    rows = []
    for done, name in enumerate(row for row in ROWS if row in scans):
        if progress is not None:
            progress(0.15 + 0.85 * done / len(scans), f"evaluating {name}")
        scan = scans[name]
        signal = signal_at(scan, directions, wanted.bvalue, mask=inside, device=device)
        own = _tensor_maps(scan, wanted.bvalue, inside, device)
        values: dict[str, float | int | str | None] = {}
        for what, x, y in (
            ("signal", signal, reference),
            *((m, own[m], maps[m]) for m in ("FA", "MD")),
        ):
            for tissue in WITH_TISSUE:
                values[_column(what, tissue)] = nmse(x, y, regions == tissue)
        rows.append(Row(name, values))
    if progress is not None:
        progress(1.0, "evaluated")
    counts = ", ".join(f"{TISSUES[t]} {int((regions == t).sum())} voxels" for t in WITH_TISSUE)
    simulated = " Simulated scans." if target.simulated else ""
    note = (
        f"NMSE against {target.name} as measured, {len(directions)} directions at "
        f"b={wanted.bvalue:g} s/mm²; {counts}. Refitted: SH order {level}, lambda {smooth:g}."
        + simulated
    )
    return Table(
        f"NMSE of {harmonized.name} against {target.name}",
        tuple(rows[0].values),
        tuple(rows),
        "scan",
        (note,),
    )


def normalised_shell(scan: Scan, bvalue: float | None = None) -> NDArray[np.float32]:
    """Return S/b0 of one shell, clipped to [0, 1] (X, Y, Z, V); zero where b0 is."""
    chosen = scan.gradients.shell(bvalue)
    b0 = scan.mean_b0()[..., None]
    signal = np.nan_to_num(scan.volumes(chosen.indices), posinf=0, neginf=0)
    ratio = np.divide(signal, b0, out=np.zeros_like(signal), where=b0 > 0)
    return np.clip(ratio, 0, 1)


def signal_at(
    scan: Scan,
    directions: Array,
    bvalue: float | None = None,
    *,
    mask: Array | None = None,
    device: str = "auto",
) -> NDArray[np.float32]:
    """Return S/b0 of a shell at given directions (X, Y, Z, V), by the module's rule.

    Volumes are taken as they are where every direction was measured (to 1 degree, antipodes are
    one); else they are interpolated by an SH fit without smoothing of the largest order that the
    scan's directions support.
    """
    from napari_dmri.signal.sh_fit import choose_order, evaluate_sh, fit_sh

    chosen = scan.gradients.shell(bvalue)
    own = scan.gradients.directions[chosen.indices]
    matches = np.abs(np.asarray(directions) @ own.T)
    if matches.shape[0] == matches.shape[1] and (matches.max(1) >= SAME_DIRECTION).all():
        pairing = matches.argmax(1)
        if len(set(pairing.tolist())) == len(pairing):
            return np.asarray(normalised_shell(scan, chosen.bvalue)[..., pairing])
    image = fit_sh(scan, choose_order(own), 0.0, chosen.bvalue, mask=mask, device=device)
    return np.clip(evaluate_sh(image, directions, device=device), 0, 1)


def _regions(
    labels: Array | ScalarImage | None, target: Scan, device: str, progress: Progress
) -> NDArray[np.int64]:
    if labels is None:
        labels = tissue_labels(target, device=device, progress=progress)
    regions = np.asarray(labels.data if isinstance(labels, ScalarImage) else labels)
    if regions.shape != target.grid:
        raise InputError(
            f"The labels have shape {regions.shape} and the target {target.grid}; resample them "
            "to the target's grid."
        )
    for tissue in WITH_TISSUE:
        if not (regions == tissue).any():
            raise InputError(
                f"The labels hold no {TISSUES[tissue]} (label {tissue}); check the labels or the "
                "mask."
            )
    return regions.astype(np.int64)


def _as_scan(refitted: Scan | ShImage | None, source: Scan, inside: Array, **fit: Any) -> Scan:
    from napari_dmri.harmonize.reconstruct import rebuild, refit
    from napari_dmri.images import ShImage

    if refitted is None:
        return refit(source.with_mask(inside), **fit)
    require_same_grid(refitted, source, "evaluation")
    if isinstance(refitted, ShImage):
        bvalue = refitted.bvalue or fit["shell"]
        return rebuild(source, {bvalue: refitted}, new_bvalues=False, device=fit["device"])[0]
    return refitted


def _tensor_maps(scan: Scan, bvalue: float, inside: Array, device: str) -> dict[str, Array]:
    """Return FA and MD of b0 and one shell, so that every row has the same kind of data."""
    from napari_dmri.signal.tensor import fit_tensor

    chosen = scan.gradients.shell(bvalue)
    volumes = np.concatenate([np.flatnonzero(scan.gradients.b0_mask), chosen.indices])
    single = scan.select(np.sort(volumes))
    tensor = fit_tensor(single, max_bvalue=chosen.bvalue + 1, mask=inside, device=device)
    return {"FA": tensor.fa, "MD": tensor.md}


def _column(what: str, tissue: int) -> str:
    return f"{what} {'WM' if tissue == 1 else 'GM'}"
