r"""Measure one scan for LinearRISH: SH of each shell, energies per order, FA.

Energies per order (RISH) do not depend on rotations of the head or of the gradients, so they may
be resampled and warped as plain maps; coefficients and signals are never resampled here.

A shell whose b-value differs from the reference b-value by more than 1 % is mapped to it, under
the assumption of mono-exponential decay along each direction:

.. math:: \frac{S'}{\bar S_0} = \left( \mathrm{clip}\frac{S}{\bar S_0} \right)^{b_{new} / b}
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_dmri.errors import InputError
from napari_dmri.harmonize.alignment import Channels
from napari_dmri.progress import Progress, part, silent
from napari_dmri.scan import GradientTable, Scan

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_dmri.images import ShImage

__all__ = [
    "B_TOLERANCE",
    "Brain",
    "common_orders",
    "measure",
    "needs_mapping",
    "shell_scan",
    "with_mask",
]

Array = NDArray[Any]

B_TOLERANCE = 0.01
"""b-values that differ by more than this fraction are mapped."""


@dataclass(frozen=True, eq=False)
class Brain:
    """Hold what training and applying need of one scan.

    ``energies`` has RISH maps (X, Y, Z, L/2 + 1) per reference b-value, ``sh`` the fits they
    come from (only where asked for).
    """

    channels: Channels
    energies: dict[float, NDArray[np.float32]]
    sh: dict[float, ShImage]

    @property
    def mask(self) -> NDArray[np.bool_]:
        """Brain mask (X, Y, Z)."""
        return self.channels.mask


def needs_mapping(bvalue: float, reference: float) -> bool:
    """Tell whether b-values (s/mm²) differ by more than 1 %."""
    return abs(bvalue - reference) > B_TOLERANCE * reference


def with_mask(scan: Scan, progress: Progress | None = None) -> tuple[Scan, bool]:
    """Return the scan with a mask, and whether one had to be made.

    Raises
    ------
    InputError
        If the mask is empty.
    """
    if scan.mask is not None:
        if not scan.mask.any():
            raise InputError(f"{scan.name}: the mask is empty; make a new brain mask.")
        return scan, False
    from napari_dmri.signal.mask import brain_mask

    return scan.with_mask(brain_mask(scan, progress=progress)), True


def shell_scan(scan: Scan, reference: float, map_bvalue: bool = True) -> Scan:
    """Return b0 volumes and one shell as a scan in memory, at the reference b-value.

    Raises
    ------
    InputError
        If there is no b0 volume, or no shell within 100 s/mm² of the reference.
    """
    shell = scan.gradients.shell(reference)
    b0 = np.flatnonzero(scan.gradients.b0_mask)
    if not b0.size:
        scan.mean_b0()
    chosen = np.concatenate([b0, shell.indices])
    single = replace(scan, data=scan.volumes(chosen), gradients=scan.gradients.select(chosen))
    if not map_bvalue or not needs_mapping(shell.bvalue, reference):
        return single
    mean = single.mean_b0()[..., None]
    weighted = np.asarray(single.data[..., b0.size :])
    safe = np.where(mean > 0, mean, 1)
    exponents = (reference / scan.gradients.bvalues[shell.indices]).astype(np.float32)
    mapped = np.clip(np.nan_to_num(weighted / safe), 0, 1) ** exponents * np.maximum(mean, 0)
    bvalues = np.concatenate([scan.gradients.bvalues[b0], np.full(shell.count, reference)])
    table = GradientTable(bvalues, single.gradients.directions)
    data = np.concatenate([np.asarray(single.data[..., : b0.size]), mapped], axis=-1)
    return replace(single, data=data, gradients=table)


def measure(
    scan: Scan,
    orders: dict[float, int],
    smooth: float,
    *,
    map_bvalue: bool = True,
    keep_sh: bool = False,
    device: str = "auto",
    progress: Progress | None = None,
) -> Brain:
    """Fit SH and the tensor of a masked scan.

    Parameters
    ----------
    scan
        A scan with a mask.
    orders
        SH order for each reference b-value; the highest b gives the channels.
    smooth
        Lambda of the SH fit.
    map_bvalue
        Whether shells that differ by more than 1 % are mapped to the reference b-value.
    keep_sh
        Whether the coefficients are kept.
    """
    from napari_dmri.signal.rish import rish
    from napari_dmri.signal.sh_fit import fit_sh
    from napari_dmri.signal.tensor import fit_tensor

    report = progress or silent
    energies: dict[float, NDArray[np.float32]] = {}
    kept: dict[float, ShImage] = {}
    top = max(orders)
    share = 1 / (len(orders) + 1)
    mask = np.asarray(scan.mask, bool)
    images: tuple[NDArray[np.float32], ...] = ()
    for n, (bvalue, order) in enumerate(sorted(orders.items())):
        single = shell_scan(scan, bvalue, map_bvalue)
        inner = part(report, n * share, (n + 1) * share, "SH fit: ")
        image = fit_sh(single, order, smooth, None, mask=mask, device=device, progress=inner)
        energies[bvalue] = rish(image)
        if keep_sh:
            kept[bvalue] = image
        if bvalue == top:
            inner = part(report, 1 - share, 1.0, "tensor fit: ")
            fa = fit_tensor(single, mask=mask, device=device, progress=inner).fa
            images = (np.nan_to_num(fa), energies[bvalue][..., 0])
            if image.mask is not None:
                mask = mask & image.mask
    return Brain(Channels(images, mask, scan.affine), energies, kept)


def common_orders(
    scans: Sequence[tuple[str, Scan]], shells: Sequence[float], order: int | None
) -> tuple[dict[float, int], list[str]]:
    """Choose the order that all scans support, the poorest one's, for each shell.

    Returns
    -------
    Orders by b-value, and sentences that say whose limit it was.

    Raises
    ------
    InputError
        If an order that was asked for is above what a scan's directions support.
    """
    from napari_dmri.signal.sh_fit import choose_order

    orders: dict[float, int] = {}
    notes = []
    for bvalue in shells:
        found = []
        for name, scan in scans:
            shell = scan.gradients.shell(bvalue)
            found.append(
                (choose_order(scan.gradients.directions[shell.indices]), shell.count, name)
            )
        lowest, count, name = min(found)
        highest = max(found)[0]
        if order is not None and order > lowest:
            raise InputError(
                f"SH order {order} is above what {name} supports: {count} directions at "
                f"b={bvalue:g} s/mm² carry order {lowest}; choose order {lowest} or lower."
            )
        orders[bvalue] = lowest if order is None else order
        if order is None and highest > lowest:
            notes.append(
                f"SH order {lowest} at b={bvalue:g}: the common order is the poorer site's "
                f"({name}, {count} directions); the richer one supports {highest}."
            )
    return orders, notes
