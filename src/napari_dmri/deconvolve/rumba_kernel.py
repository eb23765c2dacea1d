r"""Build the dictionary of RUMBA-SD: the signal of each fibre axis and of each isotropic tissue.

A fibre along v gives, on the shell b and along g,

.. math:: H_{g v} = \frac{1}{R} \sum_l r_{bl} \sqrt{\frac{4\pi}{2l+1}}
                    \sum_m Y_{lm}(g)\, Y_{lm}(v)

with R white matter's own b0 signal; isotropic tissue gives its own signal over its own b0. All b0
volumes are one row, their mean. Singular values below the noise by orders of magnitude are left
out: :math:`H \approx A B` with fewer columns in A than there are volumes, which saves a third of
the products.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_dmri.deconvolve.shells import (
    Shells,
    forward_matrix,
    match_rows,
    require_anisotropy,
    select_shells,
)
from napari_dmri.errors import InputError
from napari_dmri.images import ResponseSet
from napari_dmri.scan import B0_THRESHOLD
from napari_dmri.sphere.harmonics import design_matrix

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from napari_dmri.images import Response
    from napari_dmri.scan import Scan

__all__ = ["Dictionary", "factorise", "make_dictionary"]

TRUNCATION = 1e-4
"""Largest error of an entry of A B, in units of b0: a hundredth of the noise at SNR 100."""

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Dictionary:
    """Hold what a voxel's signal is made of.

    Parameters
    ----------
    matrix
        H (N, M): a column an axis, then a column for each isotropic tissue, in units of b0.
    axes
        The fibre axes (D, 3), unit vectors of a half sphere.
    tissues
        The isotropic tissues, in the order of their columns.
    units
        For each of white matter and these tissues, its response's b0 signal.
    shells
        The shells that are used, and their response rows.
    volumes
        Indices (V,) into the scan, ascending: those of the shells, and all b0 volumes.
    weighted, b0
        Which of these volumes are diffusion-weighted and used, and which are b0 (indices).
    has_b0
        Whether the first row of H is the mean b0.
    """

    matrix: NDArray[np.float64]
    axes: NDArray[np.float64]
    tissues: tuple[str, ...]
    units: tuple[float, ...]
    shells: Shells
    volumes: NDArray[np.intp]
    weighted: NDArray[np.intp]
    b0: NDArray[np.intp]
    has_b0: bool

    def normalise(self, signal: torch.Tensor, clip: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """Return S/b0 (n, N), in the order of the rows of H, and b0 (n, 1)."""
        import torch

        mean = signal[:, self.b0].mean(1, keepdim=True)
        weighted = signal[:, self.weighted].div_(mean).clamp_(0, 1 if clip else None)
        if not self.has_b0:
            return weighted, mean
        return torch.cat([torch.ones_like(mean), weighted], 1), mean


def make_dictionary(
    scan: Scan, responses: Response | ResponseSet, axes: Array, shell: float | str
) -> Dictionary:
    """Build the dictionary of a scan.

    Parameters
    ----------
    scan
        The scan; its data are not read.
    responses
        White matter's response, or a set with grey matter and CSF beside it.
    axes
        Fibre axes (D, 3).
    shell
        ``"all"`` or a b-value in s/mm².

    Raises
    ------
    InputError
        If a response has no row for a shell, no anisotropy, or nothing positive, or the scan has
        no b0 volume.
    """
    if not isinstance(responses, ResponseSet):
        responses = ResponseSet({responses.tissue: responses})
    b0 = np.flatnonzero(scan.gradients.b0_mask)
    if not b0.size:
        raise InputError(
            f"{scan.name} has no b0 volume; RUMBA-SD works on S/b0 and needs one: add it, or use "
            "another method."
        )
    wm = responses.wm
    has_b0 = all(_knows_b0(response, scan) for response in responses.values())
    shells = select_shells(scan, shell, wm, b0=has_b0)
    require_anisotropy(shells.rows, shells.bvalues)
    used = shells.volumes
    is_b0 = scan.gradients.b0_mask[used]
    has_b0 = bool(is_b0.any())

    columns, units = [], []
    for tissue, response in responses.items():
        order = response.order if tissue == "wm" else 0
        forward = forward_matrix(scan.gradients, used, response, order)
        design = design_matrix(axes if tissue == "wm" else axes[:1], order)
        signal = forward @ design.T
        signal = np.concatenate([signal[is_b0][:1], signal[~is_b0]])
        unit = float(signal[0].mean()) if has_b0 else float(signal.max())
        if not unit > 0:
            raise InputError(
                f"The {tissue} response has no positive signal (largest {unit:g}); estimate the "
                "response again."
            )
        columns.append(np.maximum(signal / unit, 0))
        units.append(unit)
    volumes = np.union1d(used, b0)
    return Dictionary(
        np.concatenate(columns, axis=1),
        axes,
        tuple(responses)[1:],
        tuple(units),
        shells,
        volumes,
        np.flatnonzero(np.isin(volumes, used[~is_b0])),
        np.flatnonzero(np.isin(volumes, b0)),
        has_b0,
    )


def _knows_b0(response: Response, scan: Scan) -> bool:
    """Tell whether a response has a row for b0."""
    if response.bvalues is not None:
        return min(response.bvalues) <= B0_THRESHOLD
    every: Sequence[float] = [s.bvalue for s in scan.gradients.shells]
    try:
        match_rows(response, every[:1], every=every)
    except InputError:
        return False
    return True


def factorise(matrix: Array, accuracy: float = TRUNCATION) -> tuple[Array, Array] | None:
    """Return A (N, K) and B (K, M) with every entry of A B within ``accuracy`` of the matrix.

    None where that would not save products.
    """
    rows, columns = matrix.shape
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    for rank in range(1, len(values)):
        scaled = left[:, :rank] * values[:rank]
        if np.abs(scaled @ right[:rank] - matrix).max() <= accuracy:
            cost = 3 * rank * columns + 2 * rank * rows + rank * rank
            return (scaled, right[:rank]) if cost < 3 * rows * columns else None
    return None
