"""SHResNet over whole volumes: tiles with a halo, so that no voxel sees where they were cut."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from napari_dmri.device import choose_device, run_tiles

if TYPE_CHECKING:
    from napari_dmri.harmonize.shresnet import SHResNet
    from napari_dmri.progress import Progress

__all__ = ["predict"]

Array = NDArray[Any]


def predict(
    network: SHResNet,
    coefficients: Array,
    mask: Array,
    *,
    device: str = "auto",
    progress: Progress | None = None,
) -> NDArray[np.float32]:
    """Run a network in tiled mode on a volume; see `networks.predict`."""
    from napari_dmri.harmonize.networks import replicate_outside

    where = choose_device(device)
    halo = network.halo
    net = copy.deepcopy(network).to(where.torch()).eval()
    padded = np.pad(replicate_outside(coefficients, mask), ((halo, halo),) * 3 + ((0, 0),), "edge")
    volume = torch.from_numpy(padded).permute(3, 0, 1, 2)[None]
    out = np.array(coefficients, np.float32, order="C")

    def work(part: slice) -> None:
        tile = volume[:, :, part.start : part.stop + 2 * halo].to(where.torch())
        values = net(tile)[0].permute(1, 2, 3, 0).cpu().numpy()
        inside = mask[part]
        out[part][inside] = values[inside]

    plane = 4 * padded.shape[1] * padded.shape[2]
    each = plane * (network.config.channels + 2 * network.config.hidden * len(network.config.parts))
    with torch.inference_mode():
        run_tiles(work, len(mask), each, where.name, progress, "tile")
    return out
