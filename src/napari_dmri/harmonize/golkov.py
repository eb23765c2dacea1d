r"""The voxel-wise network of Golkov et al. (2016), its output changed to SH coefficients.

Three hidden layers of 150 rectified linear units with dropout, one voxel in, one voxel out; the
baseline of Koppers et al. (CDMRI 2018). As published the output is the last layer's own. With
``residual`` the network adds to its input, :math:`y = x + f(x)`, with f = 0 before training.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from napari_dmri.device import choose_device, run_tiles
from napari_dmri.errors import InputError
from napari_dmri.sphere.harmonics import n_coefficients

if TYPE_CHECKING:
    from napari_dmri.progress import Progress

__all__ = ["GolkovConfig", "GolkovNet"]

Array = NDArray[Any]


@dataclass(frozen=True)
class GolkovConfig:
    """Say what a voxel-wise network is made of.

    Parameters
    ----------
    order
        SH order in and out, 0 to 8.
    hidden
        Units of each of the three hidden layers.
    dropout
        Share of hidden units left out in training (the papers do not state theirs).
    residual
        Whether the network adds to its input and so starts as the identity.
    mode
        Always ``"voxel"``.
    """

    order: int = 4
    hidden: int = 150
    dropout: float = 0.1
    residual: bool = False
    mode: str = "voxel"

    def __post_init__(self) -> None:
        n_coefficients(self.order)
        if self.order > 8:
            raise InputError(f"The SH order is {self.order}; these networks take 0 to 8.")
        if self.hidden < 1:
            raise InputError(f"The hidden layers have {self.hidden} units; at least 1 is needed.")
        if not 0 <= self.dropout < 1:
            raise InputError(f"The dropout is {self.dropout:g}; it must be in [0, 1).")
        if self.mode != "voxel":
            raise InputError(f"The Golkov network has no mode {self.mode!r}; it is voxel-wise.")

    @property
    def channels(self) -> int:
        """Coefficients a voxel."""
        return n_coefficients(self.order)


class GolkovNet(torch.nn.Module):
    """Map one voxel's coefficients (B, C) to the other site's (B, C)."""

    Config = GolkovConfig
    halo = 0

    def __init__(self, config: GolkovConfig | None = None, *, seed: int = 0) -> None:
        super().__init__()
        self.config = config or GolkovConfig()
        widths = [self.config.channels, *3 * [self.config.hidden]]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.layers = torch.nn.ModuleList(torch.nn.Linear(a, b) for a, b in pairwise(widths))
            self.last = torch.nn.Linear(self.config.hidden, self.config.channels)
        self.drop = torch.nn.Dropout(self.config.dropout)
        if self.config.residual:
            torch.nn.init.zeros_(self.last.weight)
            torch.nn.init.zeros_(self.last.bias)

    def forward(self, voxels: torch.Tensor) -> torch.Tensor:
        """Return the target site's coefficients (B, C)."""
        values = voxels
        for layer in self.layers:
            values = self.drop(torch.relu(layer(values)))
        out: torch.Tensor = self.last(values)
        return voxels + out if self.config.residual else out

    def predict(
        self,
        coefficients: Array,
        mask: Array,
        *,
        device: str = "auto",
        progress: Progress | None = None,
    ) -> NDArray[np.float32]:
        """Run on the masked voxels of a volume (X, Y, Z, C); see `networks.predict`."""
        where = choose_device(device)
        network = copy.deepcopy(self).to(where.torch()).eval()
        out = np.array(coefficients, np.float32, order="C")
        flat = out.reshape(-1, out.shape[3])
        rows = np.flatnonzero(mask)

        def work(part: slice) -> None:
            values = torch.from_numpy(flat[rows[part]]).to(where.torch())
            flat[rows[part]] = network(values).cpu().numpy()

        each = 4 * (2 * self.config.channels + 2 * self.config.hidden)
        with torch.inference_mode():
            run_tiles(work, len(rows), each, where.name, progress, "voxels", most=65536)
        return out
