r"""Score scans against the scan that a target site measured, by tissue.

The measures of an evaluation of harmonizers, all relative to the target as measured:

* signal, FA, MD: NMSE :math:`\sum (x - t)^2 / \sum t^2` (Koppers et al., CDMRI 2018, eq. 2), the
  signal as S/b0 of each scan's own b0 at the target's directions;
* RISH by order l: NMSE of the energies :math:`R_l`, of SH fits smoothed alike, once each;
* angle: the median angle in degrees between the tensors' first directions.

A scan whose directions are not the target's is carried there by `evaluate.signal_at`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_dmri.compare.evaluate import normalised_shell, signal_at
from napari_dmri.compare.maps import require_same_grid
from napari_dmri.compare.metrics import angular_error, nmse
from napari_dmri.compare.tissue import TISSUES
from napari_dmri.errors import InputError

if TYPE_CHECKING:
    from napari_dmri.scan import Scan

__all__ = ["MEASURES", "Reference", "columns"]

Array = NDArray[Any]

SHORT = {1: "WM", 2: "GM"}
"""Tissues that are scored, and their short names."""

MEASURES = ("signal", "FA", "MD")
"""The measures that tests and gaps are about."""


def columns(order: int) -> tuple[str, ...]:
    """Return the names of all scores, e.g. ``"signal WM"``."""
    names = [*MEASURES, *(f"RISH{el}" for el in range(0, order + 1, 2)), "angle"]
    return tuple(f"{name} {tissue}" for name in names for tissue in SHORT.values())


class Reference:
    """Hold a target scan's measurements, and score other scans against them.

    Parameters
    ----------
    target
        The scan measured at the target site.
    labels
        1 white matter, 2 grey matter (X, Y, Z).
    bvalue
        The shell in s/mm².
    order, smooth
        SH fit for the energies of the target.
    device
        Where fits run.

    Raises
    ------
    InputError
        If the labels have another shape or lack a tissue.
    """

    def __init__(
        self,
        target: Scan,
        labels: Array,
        bvalue: float,
        order: int,
        smooth: float = 0.006,
        device: str = "auto",
    ) -> None:
        if labels.shape != target.grid:
            raise InputError(
                f"The labels have shape {labels.shape} and {target.name} {target.grid}; resample "
                "them to the target's grid."
            )
        for value in SHORT:
            if not (labels == value).any():
                raise InputError(
                    f"The labels hold no {TISSUES[value]} (label {value}); check the labels or "
                    "the masks."
                )
        self.target, self.labels, self.order, self.smooth = target, labels, order, smooth
        self.device = device
        self.inside = np.isin(labels, tuple(SHORT))
        shell = target.gradients.shell(bvalue)
        self.bvalue = shell.bvalue
        self.directions = target.gradients.directions[shell.indices]
        self.signal = normalised_shell(target, self.bvalue)
        self.maps = self._tensor(target)
        self.energies = self._energies(target, smooth)

    def score(self, scan: Scan, *, smoothed: bool = False) -> dict[str, float]:
        """Return the scores of a scan by column; see `columns`.

        Parameters
        ----------
        scan
            A scan on the target's grid.
        smoothed
            Whether its signal comes from a smoothed SH fit already, as that of a refitted scan, so
            that its energies are not shrunk a second time.

        Raises
        ------
        InputError
            If the scan is on another grid or lacks the shell.
        """
        return self.score_with_errors(scan, smoothed=smoothed)[0]

    def score_with_errors(
        self, scan: Scan, *, smoothed: bool = False
    ) -> tuple[dict[str, float], dict[str, Array]]:
        """Return the scores of a scan, and each voxel's squared error of `MEASURES` (X, Y, Z).

        The signal's are summed over directions; `squares` holds what they are relative to. Takes
        what `score` takes.

        Raises
        ------
        InputError
            If the scan is on another grid or lacks the shell.
        """
        require_same_grid(scan, self.target, "evaluation", (scan.name, self.target.name))
        signal = signal_at(scan, self.directions, self.bvalue, mask=self.inside, device=self.device)
        maps = self._tensor(scan)
        energies = self._energies(scan, 0.0 if smoothed else self.smooth)
        angle = angular_error(maps["direction"], self.maps["direction"], self.inside)
        scores: dict[str, float] = {}
        for value, tissue in SHORT.items():
            where = self.labels == value
            scores[f"signal {tissue}"] = nmse(signal, self.signal, where)
            for name in ("FA", "MD"):
                scores[f"{name} {tissue}"] = nmse(maps[name], self.maps[name], where)
            for k in range(self.order // 2 + 1):
                scores[f"RISH{2 * k} {tissue}"] = nmse(
                    energies[..., k], self.energies[..., k], where
                )
            scores[f"angle {tissue}"] = float(np.nanmedian(angle[where]))
        errors = {name: (maps[name] - self.maps[name]) ** 2 for name in ("FA", "MD")}
        errors["signal"] = ((signal - self.signal) ** 2).sum(-1)
        return {name: scores[name] for name in columns(self.order)}, errors

    @property
    def squares(self) -> dict[str, Array]:
        """The target's own squares of `MEASURES` in each voxel (X, Y, Z)."""
        squares = {name: np.asarray(self.maps[name]) ** 2 for name in ("FA", "MD")}
        return {"signal": (self.signal**2).sum(-1), **squares}

    def _tensor(self, scan: Scan) -> dict[str, Array]:
        from napari_dmri.signal.tensor import fit_tensor

        shell = scan.gradients.shell(self.bvalue)
        volumes = np.concatenate([np.flatnonzero(scan.gradients.b0_mask), shell.indices])
        single = scan.select(np.sort(volumes))
        tensor = fit_tensor(
            single, max_bvalue=shell.bvalue + 1, mask=self.inside, device=self.device
        )
        return {"FA": tensor.fa, "MD": tensor.md, "direction": tensor.principal}

    def _energies(self, scan: Scan, smooth: float) -> NDArray[np.float32]:
        from napari_dmri.signal.rish import rish
        from napari_dmri.signal.sh_fit import fit_sh

        image = fit_sh(scan, self.order, smooth, self.bvalue, mask=self.inside, device=self.device)
        return rish(image)
