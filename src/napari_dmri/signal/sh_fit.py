r"""Fit spherical harmonics to one shell: regularised least squares, one matrix for all voxels.

With the design :math:`B_{ij} = Y_{l_j m_j}(g_i)` of the V directions of a shell and the normalised
signal :math:`s = \mathrm{clip}(S / \bar S_0, 0, 1)`,

.. math::

    c = \arg\min_c \lVert B c - s \rVert^2 + \lambda \sum_{lm} (l(l+1))^2 c_{lm}^2
      = (B^T B + \lambda\,\mathrm{diag}(l^2 (l+1)^2))^{-1} B^T s .

The penalty is the Laplace-Beltrami operator of Descoteaux et al. 2007, eq. 13. The matrix is
factorised once in float64; voxels are then one float32 matrix product a block.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_dmri.device import choose_device, run_tiles
from napari_dmri.errors import DmriWarning, InputError
from napari_dmri.images import ShImage
from napari_dmri.progress import Progress, silent
from napari_dmri.provenance import provenance
from napari_dmri.scan import B0_THRESHOLD, Scan
from napari_dmri.signal.blocks import Block, blocks, empty_like_scan, fitting_mask
from napari_dmri.signal.sh_matrix import (
    CHUNK,
    as_tensor,
    choose_order,
    condition_number,
    fit_sh_array,
    fitting_matrix,
    need_two,
)
from napari_dmri.sphere.harmonics import design_matrix, n_coefficients, order_of

if TYPE_CHECKING:
    import torch

__all__ = [
    "choose_order",
    "condition_number",
    "evaluate_sh",
    "fit_sh",
    "fit_sh_array",
    "fitting_matrix",
    "residual_map",
]

BLOCK_VOXELS = 2**16
"""Voxels that are evaluated between two reports of progress."""

CITATION = (
    "Descoteaux M, Angelino E, Fitzgibbons S, Deriche R. Regularized, fast, and robust analytical "
    "Q-ball imaging. Magn Reson Med 58:497-510, 2007."
)

Array = NDArray[Any]


def fit_sh(
    scan: Scan,
    order: int | None = None,
    smooth: float = 0.006,
    shell: float | None = None,
    normalise: bool = True,
    *,
    mask: Array | None = None,
    clip: bool = True,
    device: str = "auto",
    progress: Progress | None = None,
) -> ShImage:
    r"""Fit spherical harmonics to a shell of a scan.

    .. math:: c = (B^T B + \lambda\,\mathrm{diag}(l^2 (l+1)^2))^{-1} B^T
              \,\mathrm{clip}(S / \bar S_0, 0, 1)

    Parameters
    ----------
    scan
        The scan; its data are read block by block.
    order
        Maximum degree L; None chooses it (see `choose_order`).
    smooth
        Lambda of the Laplace-Beltrami penalty.
    shell
        b-value in s/mm²; None takes the shell with most directions, the highest b on a tie.
    normalise
        Fit S/b0 (b0 the mean of volumes with b <= 50); False fits S as it is.
    mask
        Voxels to fit (X, Y, Z); None takes the scan's mask, else all voxels.
    clip
        Whether S/b0 is clipped at 1 from above; it always is at 0 from below.
    device, progress
        Where it runs; who is told.

    Returns
    -------
    Coefficients (X, Y, Z, C), zero outside the mask, laid out in memory as the scan's data are.

    Raises
    ------
    InputError
        If the directions do not support the order, the shell or the b0 volumes are missing, the
        mask does not fit, or no voxel has signal.

    Warns
    -----
    DmriWarning
        With the number of voxels left out because of NaN, Inf or b0 <= 0.
    """
    chosen = scan.gradients.shell(shell)
    directions = scan.gradients.directions[chosen.indices]
    distinct = scan.gradients.distinct_directions(chosen.indices)
    need_two(distinct)
    automatic = order is None
    order = choose_order(directions) if order is None else order
    if n_coefficients(order) > distinct:
        raise InputError(
            f"SH order {order} has {n_coefficients(order)} coefficients and the shell at "
            f"b={chosen.bvalue:g} s/mm² has {distinct} distinct directions; "
            f"choose order {choose_order(directions)} or lower."
        )
    b0 = _b0_indices(scan) if normalise else np.empty(0, np.intp)
    inside = fitting_mask(scan, mask)
    where = choose_device(device)
    said = f"SH order {order}, b={chosen.bvalue:g}, {distinct} directions"
    report = progress or silent
    report(0.0, said)

    matrix = fitting_matrix(directions, order, smooth)
    fitter = _Fitter(matrix, len(b0), normalise, clip, where.torch())
    coefficients = empty_like_scan(scan, len(matrix))
    fitted = empty_like_scan(scan, 1, bool)[..., 0]
    for block in blocks(scan, np.concatenate([b0, chosen.indices]), inside, where.name):
        values, good = fitter(block.signal)
        block.put(coefficients, values)
        block.put(fitted, good)
        report(block.done, said)
    if not fitter.used:
        raise InputError(
            f"{scan.name}: no voxel can be fitted ({fitter.empty} are zero in every volume, "
            f"{fitter.broken} hold NaN or Inf, {fitter.no_b0} have b0 <= 0); check the image file."
        )
    fitter.warn(scan.name, inside is not None)
    return ShImage(
        coefficients,
        scan.affine,
        mask=fitted,
        bvalue=chosen.bvalue,
        normalised=normalise,
        name=f"{scan.name} SH order {order} b={chosen.bvalue:g}",
        provenance=provenance(
            "sh-fit",
            {
                "order": order,
                "order_chosen_automatically": automatic,
                "smooth": smooth,
                "shell": chosen.bvalue,
                "normalise": normalise,
                "clip_upper": clip,
            },
            inputs={"scan": scan.name, "path": str(scan.path or "")},
            citations=(CITATION,),
            simulated=scan.simulated,
            directions=chosen.count,
            distinct_directions=distinct,
            condition_number=round(condition_number(directions, order), 3),
            voxels=fitter.counts(),
            device=where.name,
        ),
    )


def _b0_indices(scan: Scan) -> NDArray[np.intp]:
    indices = np.flatnonzero(scan.gradients.b0_mask)
    if not indices.size:
        raise InputError(
            f"{scan.name} has no b0 volume (lowest b-value {scan.gradients.bvalues.min():g} "
            f"s/mm², b0 means b <= {B0_THRESHOLD:g}); S/b0 needs one: add a b0 volume, or fit "
            "without normalising."
        )
    return indices


class _Fitter:
    """Normalise and fit blocks, and count the voxels that were left out."""

    def __init__(
        self, matrix: Array, n_b0: int, normalise: bool, clip: bool, device: torch.device
    ) -> None:
        self.factor = as_tensor(np.ascontiguousarray(matrix.T, dtype=np.float32)).to(device)
        self.n_b0, self.normalise, self.clip, self.device = n_b0, normalise, clip, device
        self.on_cpu = device.type == "cpu"
        self.used = self.empty = self.broken = self.no_b0 = self.clipped = 0

    def __call__(self, signal: Array) -> tuple[Array, Array]:
        """Return coefficients (n, C) and which voxels were fitted (n,)."""
        import torch

        n, by_volume = len(signal), signal.strides[0] < signal.strides[1]
        shape = (self.factor.shape[1], n) if by_volume else (n, self.factor.shape[1])
        out = torch.from_numpy(np.empty(shape, np.float32))
        out = out.T if by_volume else out
        good = torch.empty(n, dtype=torch.bool)
        whole = as_tensor(signal)

        def fit(part: slice) -> None:
            values, good[part] = self._fit(whole[part].to(self.device))
            out[part] = values.to("cpu")

        # The signal, its normalised copy, and the coefficients.
        each = 4 * (3 * signal.shape[1] + self.factor.shape[1])
        run_tiles(fit, n, each, str(self.device), most=CHUNK if self.on_cpu else None)
        return out.numpy(), good.numpy()

    def _fit(self, signal: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        import torch

        finite = torch.isfinite(signal.sum(1))
        weighted = signal[:, self.n_b0 :]
        clipped = 0
        if self.normalise:
            b0 = signal[:, : self.n_b0].mean(1)
            good = finite & (b0 > 0)
            weighted = weighted * torch.where(good, 1 / b0, 0)[:, None]
            if self.clip:
                clipped = int((weighted.amax(1) > 1).sum())
            weighted = weighted.clamp_(0, 1 if self.clip else None)
        else:
            good = finite & (signal != 0).any(1)
        empty = int((signal == 0).all(1).sum()) if not bool(good.all()) else 0
        n_good, n_finite = int(good.sum()), int(finite.sum())
        if n_finite < len(good):
            weighted = torch.where(good[:, None], weighted, 0)
        values = weighted @ self.factor
        # Counted at the end: a tile that runs out of memory is fitted again in halves.
        self.clipped += clipped
        self.used += n_good
        self.broken += len(good) - n_finite
        self.empty += empty
        self.no_b0 += n_finite - n_good - empty
        return values, good

    def warn(self, name: str, masked: bool) -> None:
        if self.broken:
            warnings.warn(
                f"{name}: {self.broken} voxels hold NaN or Inf and were left out of the fit.",
                DmriWarning,
                stacklevel=3,
            )
        lost = self.no_b0 + (self.empty if masked else 0)
        if lost:
            place = " of the mask" if masked else ""
            warnings.warn(
                f"{name}: {lost} voxels{place} have b0 <= 0 and were left out of the fit.",
                DmriWarning,
                stacklevel=3,
            )

    def counts(self) -> dict[str, int]:
        return {
            "fitted": self.used,
            "not_finite": self.broken,
            "b0_not_positive": self.no_b0,
            "zero_in_all_volumes": self.empty,
            "clipped_at_1": self.clipped,
        }


def evaluate_sh(
    image_or_coefficients: ShImage | Array,
    directions: Array,
    *,
    mask: Array | None = None,
    device: str = "auto",
    progress: Progress | None = None,
) -> NDArray[np.float32]:
    r"""Evaluate functions on the sphere, :math:`f(u_i) = \sum_j c_j Y_j(u_i)`.

    Parameters
    ----------
    image_or_coefficients
        An `ShImage`, or coefficients (..., C) in the internal basis.
    directions
        Unit vectors (V, 3) in the scanner's RAS frame.
    mask
        Where to evaluate (the leading shape); zero elsewhere. None evaluates everywhere.
    device, progress
        Where it runs; who is told.

    Returns
    -------
    (..., V) float32.
    """
    coefficients = (
        image_or_coefficients.coefficients
        if isinstance(image_or_coefficients, ShImage)
        else np.asarray(image_or_coefficients)
    )
    design = design_matrix(directions, order_of(coefficients.shape[-1]))
    lead = coefficients.shape[:-1]
    if mask is not None and np.asarray(mask).shape != lead:
        raise InputError(
            f"The mask has shape {np.asarray(mask).shape} and the coefficients {lead}; "
            "they must be on one grid."
        )
    report = progress or silent
    out = np.zeros((*lead, len(design)), np.float32)
    rows = max(1, BLOCK_VOXELS // max(1, int(np.prod(lead[1:]))))
    count = lead[0] if lead else 1
    if not lead:
        return fit_sh_array(coefficients, design, device)
    for start in range(0, count, rows):
        part = slice(start, min(start + rows, count))
        report(start / count, "evaluating SH")
        if mask is None:
            out[part] = fit_sh_array(coefficients[part], design, device)
        else:
            inside = np.asarray(mask)[part].astype(bool)
            out[part][inside] = fit_sh_array(coefficients[part][inside], design, device)
    report(1.0, "evaluating SH")
    return out


def residual_map(
    scan: Scan,
    image: ShImage,
    *,
    device: str = "auto",
    progress: Progress | None = None,
) -> NDArray[np.float32]:
    r"""Return the root mean square of signal minus fit in each voxel.

    .. math:: r = \sqrt{\tfrac{1}{V} \sum_i (s_i - (B c)_i)^2}

    with s as it was fitted: S/b0, clipped as in the fit, or S where it was not normalised.

    Raises
    ------
    InputError
        If the two are on different grids or the image has no shell.
    """
    if image.shape[:3] != scan.grid:
        raise InputError(
            f"The SH image has shape {image.shape[:3]} and the scan {scan.grid}; "
            "a residual needs the scan that was fitted."
        )
    if image.bvalue is None:
        raise InputError(f"{image.name} has no b-value: a residual needs a fit of a shell.")
    chosen = scan.gradients.shell(image.bvalue)
    design = design_matrix(scan.gradients.directions[chosen.indices], image.order)
    b0 = _b0_indices(scan) if image.normalised else np.empty(0, np.intp)
    upper = 1.0 if image.provenance.get("parameters", {}).get("clip_upper", True) else np.inf
    mask = np.ones(scan.grid, bool) if image.mask is None else image.mask
    out = empty_like_scan(scan, 1)[..., 0]
    report = progress or silent
    for block in blocks(scan, np.concatenate([b0, chosen.indices]), mask):
        signal = np.array(block.signal[:, len(b0) :])
        if image.normalised:
            mean = block.signal[:, : len(b0)].mean(1)
            signal *= np.divide(1, mean, out=np.zeros_like(mean), where=mean > 0)[:, None]
            np.clip(signal, 0, upper, out=signal)
        signal -= fit_sh_array(_take(image.coefficients, block), design, device)
        block.put(out, np.sqrt(np.nan_to_num((signal**2).mean(1))))
        report(block.done, "residual")
    return out


def _take(array: Array, block: Block) -> Array:
    """Return the block's voxels of an array (X, Y, Z, K) as (n, K)."""
    if block.by_voxel:
        return array[block.planes].reshape(-1, array.shape[3])[block.inside]
    part = array[:, :, block.planes].T
    return np.ascontiguousarray(part.reshape(array.shape[3], -1)[:, block.inside].T)
