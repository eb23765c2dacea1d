"""What Run QC of the Scan dock runs: the slow checks of one scan, one after the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_dmri.errors import InputError
from napari_dmri.progress import Progress, part
from napari_dmri.scan import Scan

if TYPE_CHECKING:
    from napari_dmri.images import TensorImage
    from napari_dmri.signal.findings import Finding
    from napari_dmri.signal.motion import Motion
    from napari_dmri.signal.noise import ShellSnr
    from napari_dmri.signal.orientation import OrientationCheck
    from napari_dmri.signal.outliers import Outliers

__all__ = ["CHECKS", "QcResult", "findings_of", "run_checks"]

CHECKS = {
    "noise": ("signal-to-noise ratio", "Noise and SNR of every shell.", 0.1),
    "orientation": ("b-vector orientation", "Would flipped b-vectors make fibres line up?", 0.25),
    "outliers": ("outliers and dropouts", "Volumes and slices unlike the rest.", 0.25),
    "motion": ("head motion", "Rigid motion from volume to volume.", 0.3),
}
"""Name: (label, what it does, share of the time)."""


@dataclass(frozen=True, eq=False)
class QcResult:
    """What the checks found; None for what was not asked for or could not be done."""

    scan: Scan
    mask: np.ndarray
    mask_made: bool
    snr: tuple[ShellSnr, ...] = ()
    tensor: TensorImage | None = None
    orientation: OrientationCheck | None = None
    outliers: Outliers | None = None
    motion: Motion | None = None
    failed: tuple[str, ...] = ()


def run_checks(
    scan: Scan,
    wanted: tuple[str, ...] = tuple(CHECKS),
    device: str = "auto",
    progress: Progress | None = None,
) -> QcResult:
    """Run the checks that are wanted; one that cannot be done says why and stops no other.

    Parameters
    ----------
    scan
        The scan; a brain mask is made where it has none.
    wanted
        Names from `CHECKS`.
    device, progress
        Where to compute; who is told.
    """
    from napari_dmri.signal.mask import brain_mask

    mask_made = scan.mask is None
    mask = (
        scan.mask
        if scan.mask is not None
        else brain_mask(scan, progress=part(progress, 0, 0.08, "mask: "))
    )
    masked = scan.with_mask(mask)
    found: dict[str, object] = {}
    failed: list[str] = []
    start, total = 0.08, sum(CHECKS[name][2] for name in wanted) or 1.0
    for name in wanted:
        label, _, share = CHECKS[name]
        stop = start + 0.92 * share / total
        try:
            found |= _check(name, masked, device, part(progress, start, stop, f"{label}: "))
        except InputError as error:
            failed.append(f"{label.capitalize()}: {error}")
        start = stop
    return QcResult(scan, mask, mask_made, failed=tuple(failed), **found)  # type: ignore[arg-type]


def findings_of(result: QcResult) -> tuple[Finding, ...]:
    """Say what the checks found, one finding a check."""
    from napari_dmri.signal.findings import Finding

    found = [Finding("warning", "A check could not be done", text) for text in result.failed]
    if result.orientation is not None:
        check = result.orientation
        if check.suspicious:
            title = f"b-vectors look wrong: {check.best}"
            found.append(Finding("error", title, check.sentence, fix=check.best))
        else:
            found.append(Finding("ok", "b-vector orientation", check.sentence))
    if result.outliers is not None:
        found.extend(_outlier_findings(result.outliers))
    if result.motion is not None:
        found.append(_motion_finding(result.motion, float(result.scan.voxel_size.min())))
    return tuple(found)


def _outlier_findings(outliers: Outliers) -> list[Finding]:
    from napari_dmri.signal.findings import Finding

    found = []
    if outliers.volumes:
        text = f"{len(outliers.volumes)} of {len(outliers.volume_scores)} are unlike the others."
        found.append(Finding("warning", "Outlying volumes", text, tuple(outliers.volumes)))
    for title, pairs in (
        ("Slices that lost signal", outliers.dropouts),
        ("Slices that gained signal", outliers.spikes),
    ):
        if pairs:
            volumes = tuple(sorted({volume for volume, _ in pairs}))
            text = f"{_count(len(pairs), 'slice')} in {_count(len(volumes), 'volume')}."
            found.append(Finding("warning", title, text, volumes))
    if not found:
        found.append(Finding("ok", "No outliers", "All volumes and slices fit their shell."))
    if outliers.unscored:
        text = "Too few volumes of their shell to compare them with."
        found.append(Finding("note", "Volumes not judged", text, tuple(outliers.unscored)))
    return found


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _motion_finding(motion: Motion, voxel: float) -> Finding:
    from napari_dmri.signal.findings import Finding

    if not motion.judged:
        return Finding("note", "Head motion cannot be judged", motion.sentence())
    moved = np.flatnonzero(motion.displacement > voxel)
    level = "warning" if moved.size else "ok"
    if not moved.size and (motion.displacement > voxel / 2).any():
        level = "note"
    return Finding(level, "Head motion", motion.sentence(), tuple(int(v) for v in moved))


def _check(name: str, scan: Scan, device: str, progress: Progress) -> dict[str, object]:
    if name == "noise":
        from napari_dmri.signal.noise import shell_snr

        progress(0.0, "estimating")
        return {"snr": shell_snr(scan, scan.mask)}
    if name == "orientation":
        from napari_dmri.signal.orientation import check_orientation
        from napari_dmri.signal.tensor import fit_tensor

        tensor = fit_tensor(
            scan, mask=scan.mask, device=device, progress=part(progress, 0, 0.7, "tensor, ")
        )
        check = check_orientation(tensor, scan, progress=part(progress, 0.7, 1))
        return {"tensor": tensor, "orientation": check}
    if name == "outliers":
        from napari_dmri.signal.outliers import find_outliers

        return {"outliers": find_outliers(scan, mask=scan.mask, device=device, progress=progress)}
    from napari_dmri.signal.motion import estimate_motion

    return {"motion": estimate_motion(scan, mask=scan.mask, progress=progress)}
