r"""Go back from SH coefficients to a scan: :math:`S' = \mathrm{clip}(B c', 0, 1)\, \bar S_0`.

The b0 is the source's own, the directions are the scan's own. Only weighted volumes of the given
shells change, and only inside the fitted mask; b0 volumes, other shells and voxels outside the
mask keep what was measured. Where a shell gets another b-value, what is outside the mask is raised
to it too, :math:`(S / \bar S_0)^{b_{new} / b}\, \bar S_0`: one b-value holds for a whole volume.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_dmri.progress import Progress, part, silent
from napari_dmri.scan import GradientTable, Scan
from napari_dmri.sphere.harmonics import degrees

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_dmri.images import ShImage

__all__ = ["rebuild", "refit", "scale_coefficients"]

Array = NDArray[Any]


def scale_coefficients(image: ShImage, scales: Array) -> ShImage:
    r"""Multiply each order by its map, :math:`c'_{lm} = s_l c_{lm}`; maps are (X, Y, Z, L/2+1)."""
    per_coefficient = scales[..., degrees(image.order) // 2]
    return image.with_coefficients(image.coefficients * per_coefficient)


def rebuild(
    scan: Scan,
    fits: Mapping[float, ShImage],
    *,
    new_bvalues: bool = True,
    device: str = "auto",
    progress: Progress | None = None,
) -> tuple[Scan, int]:
    """Replace the shells of a scan by what coefficients say.

    Parameters
    ----------
    scan
        The source scan.
    fits
        Coefficients of S/b0 for each reference b-value.
    new_bvalues
        Whether the b-values of replaced volumes become the reference b-value where they differ
        by more than 1 % from it (the fit was of the mapped signal).

    Returns
    -------
    The scan in memory (float32), and how many values the clip to [0, 1] changed by more than 1 %
    of b0.
    """
    from napari_dmri.harmonize.features import needs_mapping
    from napari_dmri.signal.sh_fit import evaluate_sh

    report = progress or silent
    mean_b0 = scan.mean_b0()
    data = np.empty(scan.shape, np.float32, order="F")
    data[...] = scan.data[...]
    bvalues = scan.gradients.bvalues.copy()
    clipped = 0
    for n, (bvalue, image) in enumerate(sorted(fits.items())):
        shell = scan.gradients.shell(bvalue)
        mask = np.ones(scan.grid, bool) if image.mask is None else image.mask
        inner = part(report, n / len(fits), (n + 1) / len(fits), "signal: ")
        directions = scan.gradients.directions[shell.indices]
        signal = evaluate_sh(image, directions, mask=mask, device=device, progress=inner)
        inside = signal[mask]
        clipped += int(((inside < -0.01) | (inside > 1.01)).sum())
        values = np.clip(inside, 0, 1) * mean_b0[mask][:, None]
        other = new_bvalues and needs_mapping(shell.bvalue, bvalue)
        outside = ~mask & (mean_b0 > 0) if other else np.zeros_like(mask)
        for k, volume in enumerate(shell.indices):
            data[..., volume][mask] = values[:, k]
            if other:
                ratio = np.nan_to_num(data[..., volume][outside] / mean_b0[outside])
                raised = np.clip(ratio, 0, 1) ** np.float32(bvalue / bvalues[volume])
                data[..., volume][outside] = raised * mean_b0[outside]
                bvalues[volume] = bvalue
    table = GradientTable(bvalues, scan.gradients.directions)
    return replace(scan, data=data, gradients=table, path=None), clipped


def refit(
    scan: Scan,
    order: int | None = None,
    smooth: float = 0.006,
    shell: float | None = None,
    *,
    device: str = "auto",
    progress: Progress | None = None,
) -> Scan:
    """Fit a scan's shell and evaluate it again without any model.

    What a harmonizer that works on SH does to a scan apart from harmonizing it: the fair line to
    compare a harmonized scan with.
    """
    from napari_dmri.signal.sh_fit import fit_sh

    report = progress or silent
    bvalue = scan.gradients.shell(shell).bvalue
    image = fit_sh(scan, order, smooth, bvalue, device=device, progress=part(report, 0.0, 0.6))
    rebuilt, _ = rebuild(scan, {bvalue: image}, device=device, progress=part(report, 0.6, 1.0))
    return replace(rebuilt, name=f"{scan.name} refitted")
