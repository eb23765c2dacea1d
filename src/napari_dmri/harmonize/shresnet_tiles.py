"""SHResNet on larger patches and whole volumes: no padding, so that no voxel sees where it was cut.

The branches run one after the other on arrays with a voxel's channels together in memory: that is
faster than one grouped convolution, and holds two hidden layers at a time instead of six.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from napari_dmri.device import choose_device, run_tiles
from napari_dmri.progress import silent

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_dmri.harmonize.shresnet import Block, SHResNet
    from napari_dmri.progress import Progress

__all__ = ["crop", "predict", "run"]

Array = NDArray[Any]

TILE_BYTES = 768 * 2**20
"""Working memory of a tile on a CPU: every cut computes the halo twice."""


def run(
    network: SHResNet, patches: torch.Tensor, between: Callable[[], None] | None = None
) -> torch.Tensor:
    """Return coefficients (B, C, d, d', d'') of patches that are a halo larger on each side.

    ``between`` is called between convolutions, and may raise `Cancelled`.
    """
    pause = between or _nothing
    x = patches.contiguous(memory_format=torch.channels_last_3d)
    p = network.pre(x)
    y = p
    for block in network.blocks:
        y = crop(y, 3) - _residual(block, y, pause)  # type: ignore[arg-type]
    z = network.post(y) - crop(p, 1 + 3 * len(network.blocks))
    pause()
    if network.extra is not None:
        z = torch.relu_(network.extra(z))
    out: torch.Tensor = network.final(z)
    return out


def _residual(block: Block, y: torch.Tensor, pause: Callable[[], None]) -> torch.Tensor:
    """Return F(y), three voxels shorter at each end."""
    count = len(block.parts)
    first, second = _chunks(block.first, count), _chunks(block.second, count)
    weight, bias = block.third.weight, block.third.bias
    assert bias is not None
    found = []
    for k, part in enumerate(block.parts):
        pause()
        h = torch.relu_(functional.conv3d(y, *first[k]))
        pause()
        h = torch.relu_(functional.conv3d(h, *second[k]))
        found.append(functional.conv3d(h, weight[part], bias[part]))
    return torch.cat(found, 1)


def _chunks(layer: torch.nn.Conv3d, count: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    assert layer.bias is not None
    return list(zip(layer.weight.chunk(count), layer.bias.chunk(count), strict=True))


def crop(values: torch.Tensor, margin: int) -> torch.Tensor:
    """Cut a margin off the last three axes."""
    inner = slice(margin, -margin)
    return values[..., inner, inner, inner]


def _nothing() -> None:
    """Do nothing between convolutions."""


def predict(
    network: SHResNet,
    coefficients: Array,
    mask: Array,
    *,
    device: str = "auto",
    progress: Progress | None = None,
) -> NDArray[np.float32]:
    """Run a network in tiled mode on the masked part of a volume; see `networks.predict`."""
    from napari_dmri.harmonize.networks import replicate_outside

    where = choose_device(device)
    report = progress or silent
    halo, channels = network.halo, network.config.channels
    net = copy.deepcopy(network).to(where.torch()).eval()
    out = np.array(coefficients, np.float32, order="C")
    box = _box(mask)
    inside, result = mask[box], out[box]
    filled = replicate_outside(out, mask)
    volume = torch.from_numpy(_with_halo(filled, box, halo)).permute(3, 0, 1, 2)[None]
    done = 0.0

    def told(fraction: float, text: str) -> None:
        nonlocal done
        done = fraction
        report(fraction, text)

    def work(part: slice) -> None:
        if not inside[part].any():
            return
        tile = volume[:, :, part.start : part.stop + 2 * halo].to(where.torch())
        values = run(net, tile, lambda: report(done, "tile"))
        found = values[0].permute(1, 2, 3, 0).cpu().numpy()
        np.copyto(result[part], found, where=inside[part][..., None])

    # p, y, the joined branches and two hidden layers.
    plane = 4 * volume.shape[3] * volume.shape[4] * (3 * channels + 2 * network.config.hidden)
    with torch.inference_mode():
        run_tiles(work, len(inside), plane, where.name, told, "tile", tile_bytes=TILE_BYTES)
    return out


def _box(mask: Array) -> tuple[slice, slice, slice]:
    """Return the smallest box that holds a mask."""
    spans = []
    for axis in range(3):
        filled = np.flatnonzero(mask.any(tuple(a for a in range(3) if a != axis)))
        spans.append(slice(int(filled[0]), int(filled[-1]) + 1))
    return spans[0], spans[1], spans[2]


def _with_halo(values: Array, box: tuple[slice, ...], halo: int) -> Array:
    """Return a box of an array (X, Y, Z, C) and what is around it, replicated beyond its edges."""
    wide, missing = [], []
    for span, length in zip(box, values.shape, strict=False):
        start, stop = span.start - halo, span.stop + halo
        wide.append(slice(max(start, 0), min(stop, length)))
        missing.append((max(-start, 0), max(stop - length, 0)))
    return np.pad(values[tuple(wide)], (*missing, (0, 0)), "edge")
