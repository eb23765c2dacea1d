r"""Predict every volume of a shell from the others, and read a scan once for it.

A shell's signal s is smooth over the sphere. With the SH design B and the fitting matrix M of the
volumes that are kept, :math:`H = B M` gives the fit, and leaving each volume out of its own
prediction needs no refit,

.. math:: \hat s_i = \frac{(H s)_i - H_{ii} s_i}{1 - H_{ii}},

so that all leave-one-out predictions are one matrix product. b0 volumes are predicted by the mean
of the others (order 0).

References
----------
The closed form is the classical PRESS identity for (ridge) least squares: Allen 1974,
"The relationship between variable selection and data augmentation", Technometrics 16.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_dmri.progress import Progress, silent
from napari_dmri.signal.sh_fit import choose_order, fitting_matrix
from napari_dmri.sphere.harmonics import design_matrix

if TYPE_CHECKING:
    from napari_dmri.scan import GradientTable, Scan, Shell

__all__ = [
    "bright_voxels",
    "gather",
    "predictable_shells",
    "prediction_matrix",
    "slice_axis",
]

Array = NDArray[Any]

SMOOTH = 0.006
"""Laplace-Beltrami weight of the predictions."""

LEAST_B0 = 3
"""b0 volumes are predicted from each other when there are at least this many."""


def predictable_shells(gradients: GradientTable) -> tuple[tuple[Shell, int], ...]:
    """Return the shells whose volumes predict each other, with the SH order to do it.

    b0 shells of three volumes or more have order 0; weighted shells need directions enough for
    order 2 (eight).
    """
    found: list[tuple[Shell, int]] = []
    for shell in gradients.shells:
        if shell.is_b0:
            if shell.count >= LEAST_B0:
                found.append((shell, 0))
            continue
        directions = gradients.directions[shell.indices]
        if gradients.distinct_directions(shell.indices) < 2:
            continue
        order = choose_order(directions)
        if order >= 2:
            found.append((shell, order))
    return tuple(found)


def prediction_matrix(
    directions: Array, order: int, keep: Array | None = None
) -> NDArray[np.float64]:
    """Return P (V, V): row i predicts volume i from the kept volumes other than itself.

    Parameters
    ----------
    directions
        Unit vectors (V, 3); not looked at for order 0.
    order
        SH order of the prediction.
    keep
        Volumes (V,) bool that predict; None means all.
    """
    count = len(directions)
    kept = np.ones(count, bool) if keep is None else np.asarray(keep, dtype=bool)
    if order == 0:
        hat = np.tile(kept / max(kept.sum(), 1), (count, 1))
    else:
        hat = np.zeros((count, count))
        design = design_matrix(directions, order)
        hat[:, kept] = design @ fitting_matrix(np.asarray(directions)[kept], order, SMOOTH)
    own = np.where(kept, np.diag(hat), 0.0)
    np.fill_diagonal(hat, np.diag(hat) - own)
    predictor: NDArray[np.float64] = hat / np.maximum(1 - own, 1e-6)[:, None]
    return predictor


def slice_axis(scan: Scan) -> int:
    """Return the axis (0, 1 or 2) that slices were acquired along: the third axis on disk.

    From ``metadata["orientation"]`` (axis codes on disk); z where it is not known.
    """
    codes = str(scan.metadata.get("orientation", ""))
    if len(codes) == 3:
        for axis, letters in enumerate(("LR", "PA", "IS")):
            if codes[2] in letters:
                return axis
    return 2


def bright_voxels(scan: Scan, mask: Array | None = None) -> NDArray[np.bool_]:
    """Return the mask given, the scan's own, or the voxels that are bright at low b (X, Y, Z).

    Bright is over a fifth of the 98th percentile of the mean b0 (of the lowest b without b0).
    """
    from napari_dmri.signal.blocks import fitting_mask

    chosen = fitting_mask(scan, mask)
    if chosen is not None:
        return chosen
    lowest = scan.gradients.shells[0].indices[:5]
    mean = np.zeros(scan.grid, np.float32)
    for volume in lowest:
        mean += np.nan_to_num(scan.volumes(int(volume)), posinf=0, neginf=0) / len(lowest)
    bright: NDArray[np.bool_] = mean > 0.2 * np.percentile(mean, 98)
    return bright


def gather(
    scan: Scan, voxels: NDArray[np.bool_], progress: Progress | None = None
) -> NDArray[np.float32]:
    """Read some voxels' signal (n, N), one volume at a time, in the order files have.

    Values that are not finite come as 0.
    """
    report = progress or silent
    rows = np.empty((scan.shape[3], int(voxels.sum())), np.float32)
    for volume in range(len(rows)):
        report(volume / len(rows), f"reading volume {volume + 1} of {len(rows)}")
        rows[volume] = scan.volumes(volume)[voxels]
    np.nan_to_num(rows, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
    report(1.0, "read")
    return rows.T
