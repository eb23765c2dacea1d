r"""White matter, grey matter and CSF from the diffusion scan alone.

A transparent rule, not a segmentation package: enough to average maps by tissue.

* dark: b0 below a tenth of its median inside the mask, or MD of zero: no label (0);
* CSF (3): :math:`MD > 1.5 \cdot 10^{-3}` mm²/s (free water at 37 °C has 3.0, tissue about 0.8);
* white matter (1): FA above a threshold; grey matter (2): the rest.

The FA threshold is Otsu's on the voxels that are neither dark nor CSF, kept within 0.20 to 0.28:
noise lifts the FA of grey matter (to about 0.15 at SNR 15) and low resolution lowers that of white
matter, so no one number fits all scans, and where a crop holds one tissue only Otsu's alone would
cut it in two. Compare scans by the labels of one of them, never each by its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_dmri.errors import InputError
from napari_dmri.progress import Progress, part
from napari_dmri.scan import Scan, same_grid

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_dmri.images import TensorImage

__all__ = ["TISSUES", "fa_threshold", "labels_on", "tissue_labels"]

TISSUES: dict[int, str] = {1: "white matter", 2: "grey matter", 3: "CSF"}
"""Label values and their names."""

CSF_MD = 1.5e-3
FA_LIMITS = (0.20, 0.28)
DARK = 0.1


def tissue_labels(
    source: Scan | TensorImage,
    *,
    b0: NDArray[Any] | None = None,
    mask: NDArray[Any] | None = None,
    device: str = "auto",
    progress: Progress | None = None,
) -> NDArray[np.int16]:
    """Label white matter 1, grey matter 2 and CSF 3 by the module's rule.

    Parameters
    ----------
    source
        A scan, whose tensor is fitted here, or a tensor that was fitted before.
    b0
        Mean b0 (X, Y, Z); taken from a scan, optional beside a tensor.
    mask
        Voxels to label (X, Y, Z); None takes the source's own, or a brain mask of the scan.
    device, progress
        Where the tensor fit runs, who is told.

    Returns
    -------
    Labels (X, Y, Z) int16, 0 outside.

    Raises
    ------
    InputError
        If the mask has another shape, or no voxel is left to label.
    """
    inside: NDArray[Any] | None = source.mask
    if mask is not None:
        inside = np.asarray(mask, dtype=bool)
    if isinstance(source, Scan):
        from napari_dmri.signal.tensor import fit_tensor

        if inside is None:
            from napari_dmri.signal.mask import brain_mask

            inside = brain_mask(source, progress=part(progress, 0, 0.3))
        _require_shape(inside, source.grid)
        tensor = fit_tensor(source, mask=inside, device=device, progress=part(progress, 0.3, 1))
        b0 = source.mean_b0() if b0 is None else b0
    else:
        tensor = source
        if inside is None:
            inside = np.asarray(tensor.eigenvalues.any(-1))
        _require_shape(inside, tensor.shape[:3])
    fa, md = tensor.fa, tensor.md
    bright = inside & np.isfinite(md) & (md > 0)
    if b0 is not None and bright.any():
        level = np.asarray(b0)
        bright &= level > DARK * float(np.median(level[bright]))
    if not bright.any():
        raise InputError(
            f"No voxel to label: the mask holds {int(inside.sum())} voxels and none has signal; "
            "check the mask."
        )
    labels = np.zeros(bright.shape, np.int16)
    tissue = bright & (md <= CSF_MD)
    labels[bright & ~tissue] = 3
    threshold = fa_threshold(fa[tissue])
    labels[tissue] = np.where(fa[tissue] > threshold, 1, 2)
    return labels


def labels_on(given: Any, target: Scan) -> NDArray[Any]:
    """Return tissue labels that were given for a scan, if they are of its voxels.

    Parameters
    ----------
    given
        An image with its affine, or an array (X, Y, Z), which is taken to lie on the scan.
    target
        The scan.

    Raises
    ------
    InputError
        If the labels have another shape, or lie elsewhere, with the millimetres.
    """
    affine = getattr(given, "affine", None)
    labels = np.asarray(given if affine is None else given.data)
    if labels.shape != target.grid:
        raise InputError(
            f"The tissue labels have shape {labels.shape} and {target.name} {target.grid}; "
            "resample them to the target's grid."
        )
    if affine is not None and not same_grid(given, target):
        corners = np.array([(*corner, 1) for corner in np.ndindex(2, 2, 2)], float)
        corners[:, :3] *= np.array(target.grid) - 1
        apart = corners @ (np.asarray(affine, float) - target.affine).T
        raise InputError(
            f"The tissue labels ({getattr(given, 'name', 'labels')}) and {target.name} have "
            f"{' x '.join(str(n) for n in target.grid)} voxels each, which lie up to "
            f"{np.linalg.norm(apart[:, :3], axis=1).max():.3g} mm apart; resample the labels to "
            "the target's grid (nearest neighbour), or mend their header."
        )
    return labels


def fa_threshold(fa: NDArray[Any]) -> float:
    r"""Find the FA between white and grey matter by Otsu's method, within 0.20 to 0.28.

    .. math:: t^* = \arg\max_t\; w_0(t)\, w_1(t)\, (\mu_0(t) - \mu_1(t))^2

    Otsu, IEEE Trans. SMC 1979, on a histogram of 100 bins.
    """
    counts, edges = np.histogram(np.clip(fa, 0, 1), bins=100, range=(0, 1))
    centres = (edges[1:] + edges[:-1]) / 2
    below = np.cumsum(counts)
    sums = np.cumsum(counts * centres)
    above = below[-1] - below
    usable = (below > 0) & (above > 0)
    if not usable.any():
        return FA_LIMITS[0]
    gap = sums / np.maximum(below, 1) - (sums[-1] - sums) / np.maximum(above, 1)
    between = np.where(usable, below * above * gap**2, 0)
    return float(np.clip(edges[1:][int(between.argmax())], *FA_LIMITS))


def _require_shape(mask: NDArray[Any], grid: tuple[int, ...]) -> None:
    if mask.shape != tuple(grid):
        raise InputError(
            f"The mask has shape {mask.shape} and the scan {tuple(grid)}; resample the mask to "
            "the scan's grid or make a new one."
        )
