r"""SHResNet on single 3 x 3 x 3 patches: the same sums as its convolutions, in a faster order.

Three re-orderings, none of which changes a result:

- The last axis of a patch becomes channels. A 3 x 3 x 3 convolution of C channels that pads with
  zeros is then a 3 x 3 one of 3 C channels, with
  :math:`W'_{(w', o), (w, i)} = W_{o, i, w - w' + 1}` and zero where the tap does not exist.
- Patches lie side by side along the axis that has become free, with a kernel of one voxel along
  it: short axes leave a processor's vector units idle, a long one fills them.
- All behind the last rectified linear units is linear and ends in one voxel, so it is one matrix,
  the adjoint of the convolutions applied to the final kernel:

  .. math::

      T = \mathrm{post}^* \mathrm{final}, \quad
      \hat c = \langle T, y_{n-1} \rangle - \langle \mathrm{third}^* T, h_n \rangle
               - \langle \mathrm{final}, p \rangle + \mathrm{const}.

With two final layers the end is not linear and is computed layer by layer.

Arrays are (N, 3 C, 3, 3, b): N groups of b patches, the channels (w, c) of a voxel row together in
memory.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from napari_dmri.device import choose_device, run_tiles

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_dmri.harmonize.shresnet import Block, SHResNet
    from napari_dmri.progress import Progress

__all__ = ["Folded", "fold", "predict", "run"]

Array = NDArray[Any]
Layer = tuple[torch.Tensor, torch.Tensor]

CHUNK = 1024
"""Patches that are computed together: their hidden layers stay in a processor's caches."""

CHUNK_GPU = 32768


@dataclass(frozen=True, eq=False)
class Folded:
    """Hold a network's weights in the order in which `run` multiplies by them.

    ``blocks`` has the first, second and third layer of each branch; the last block's third is
    part of ``tail``, which has kernels for y, for each branch's h, and for p, and the constant.
    With two final layers there is ``end`` instead of a tail: post, extra and final.
    """

    channels: int
    pre: Layer
    blocks: tuple[tuple[tuple[Layer, ...], ...], ...]
    tail: tuple[torch.Tensor, tuple[torch.Tensor, ...], torch.Tensor, torch.Tensor] | None
    end: tuple[Layer, Layer, Layer] | None = None


def fold(network: SHResNet) -> Folded:
    """Re-order a network's weights; gradients flow back through it."""
    parts = network.config.parts
    blocks: list[Block] = list(network.blocks)  # type: ignore[arg-type]
    folded = []
    for block in blocks:
        third = [(block.third.weight[part], _bias(block.third)[part]) for part in parts]
        layers = [
            _branches(block.first, len(parts)),
            _branches(block.second, len(parts)),
            tuple(_layer(weight, bias) for weight, bias in third),
        ]
        linear_end = block is blocks[-1] and network.extra is None
        folded.append(tuple(layers[: 2 if linear_end else 3]))
    pre = _layer(network.pre.weight, _bias(network.pre))
    channels, final = network.config.channels, network.final
    if network.extra is None:
        return Folded(channels, pre, tuple(folded), _tail(network, blocks[-1]))
    post, extra = (_layer(n.weight, _bias(n)) for n in (network.post, network.extra))
    end = post, extra, (_whole(final.weight), _bias(final))
    return Folded(channels, pre, tuple(folded), None, end)


def run(folded: Folded, patches: torch.Tensor) -> torch.Tensor:
    """Return the centre voxels' coefficients (B, C) of patches (B, C, 3, 3, 3)."""
    count, channels = patches.shape[:2]
    groups = next(n for n in (4, 2, 1) if count % n == 0)
    rows = patches.reshape(groups, count // groups, channels, 3, 3, 3).permute(0, 3, 4, 1, 5, 2)
    return run_rows(folded, rows.reshape(groups, 3, 3, count // groups, 3 * channels))


def run_rows(folded: Folded, rows: torch.Tensor) -> torch.Tensor:
    """Do what `run` does on patches (N, 3, 3, b, 3 C); returns (N b, C)."""
    p = _conv(rows.permute(0, 4, 1, 2, 3), folded.pre)
    y = p
    hidden: list[torch.Tensor] = []
    for first, second, *third in folded.blocks:
        hidden = [
            torch.relu_(_conv(torch.relu_(_conv(y, one)), two))
            for one, two in zip(first, second, strict=True)
        ]
        if third:
            parts = [_conv(h, layer) for h, layer in zip(hidden, third[0], strict=True)]
            y = y - _join(parts)
    if folded.tail is None:
        assert folded.end is not None
        post, extra, final = folded.end
        out = functional.conv3d(torch.relu_(_conv(_conv(y, post) - p, extra)), *final)
    else:
        of_y, of_h, of_p, constant = folded.tail
        out = functional.conv3d(y, of_y, constant) + functional.conv3d(p, of_p)
        for h, kernel in zip(hidden, of_h, strict=True):
            out = out + functional.conv3d(h, kernel)
    return out.permute(0, 2, 3, 4, 1).reshape(-1, folded.channels)


def _conv(x: torch.Tensor, layer: Layer) -> torch.Tensor:
    return functional.conv3d(x, *layer, padding=(1, 1, 0))


def _join(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """Put the branches' coefficients (N, 3 K, 3, 3, b) of each voxel beside each other."""
    shape = (*parts[0].shape[:1], *parts[0].shape[2:], 3, -1)
    by_voxel = [part.permute(0, 2, 3, 4, 1).reshape(shape) for part in parts]
    return torch.cat(by_voxel, -1).flatten(-2).permute(0, 4, 1, 2, 3)


def _bias(layer: torch.nn.Conv3d) -> torch.Tensor:
    assert layer.bias is not None
    return layer.bias


def _branches(layer: torch.nn.Conv3d, count: int) -> tuple[Layer, ...]:
    chunks = zip(layer.weight.chunk(count), _bias(layer).chunk(count), strict=True)
    return tuple(_layer(weight, bias) for weight, bias in chunks)


def _layer(weight: torch.Tensor, bias: torch.Tensor) -> Layer:
    """Make the last axis of a kernel (O, I, 3, 3, 3) channels: (3 O, 3 I, 3, 3, 1)."""
    outputs, inputs = weight.shape[:2]
    padded = functional.pad(weight, (1, 1))
    rows = torch.stack([padded[..., 2 - k : 5 - k] for k in range(3)])
    kernel = rows.permute(0, 1, 3, 4, 5, 2).reshape(3 * outputs, 3, 3, 1, 3 * inputs)
    return kernel.permute(0, 4, 1, 2, 3), bias.repeat(3)


def _tail(
    network: SHResNet, last: Block
) -> tuple[torch.Tensor, tuple[torch.Tensor, ...], torch.Tensor, torch.Tensor]:
    """Return the kernels of what is linear behind the last rectified units, and its constant."""
    adjoint = functional.conv_transpose3d
    final, post = network.final, network.post
    of_y = adjoint(final.weight, post.weight, padding=1)
    constant = final.weight.sum((2, 3, 4)) @ _bias(post) + _bias(final)
    of_h = []
    for part in network.config.parts:
        weight, bias = last.third.weight[part], _bias(last.third)[part]
        of_h.append(-_whole(adjoint(of_y[:, part], weight, padding=1)))
        constant = constant - of_y[:, part].sum((2, 3, 4)) @ bias
    return _whole(of_y), tuple(of_h), -_whole(final.weight), constant


def _whole(weight: torch.Tensor) -> torch.Tensor:
    """Make the last axis of a kernel that covers the patch channels: (O, 3 I, 3, 3, 1)."""
    kernel = weight.permute(0, 2, 3, 4, 1).reshape(len(weight), 3, 3, 1, -1)
    return kernel.permute(0, 4, 1, 2, 3)


def predict(
    network: SHResNet,
    coefficients: Array,
    mask: Array,
    *,
    device: str = "auto",
    progress: Progress | None = None,
) -> NDArray[np.float32]:
    """Run a network in paper mode on the masked voxels of a volume; see `networks.predict`."""
    from napari_dmri.harmonize.networks import replicate_outside

    where = choose_device(device)
    with torch.no_grad():
        folded = fold(copy.deepcopy(network).to(where.torch()))
    channels = network.config.channels
    padded = np.pad(replicate_outside(coefficients, mask, 1), ((1, 1),) * 3 + ((0, 0),), "edge")
    _, ny, nz = padded.shape[:3]
    voxels = torch.from_numpy(padded.reshape(-1, channels)).to(where.torch())
    # Three neighbours along the last axis lie together: a view whose rows overlap.
    rows = voxels.as_strided((len(voxels) - 2, 3 * channels), (channels, 1))
    steps = torch.tensor([[[i * ny + j] for j in range(3)] for i in range(3)]) * nz
    out = np.array(coefficients, np.float32, order="C")
    flat = out.reshape(-1, channels)
    inside = np.flatnonzero(mask)
    x, y, z = np.unravel_index(inside, mask.shape)
    corners = torch.from_numpy((x * ny + y) * nz + z)

    def work(part: slice) -> None:
        chosen = corners[part]
        groups = next(n for n in (4, 2, 1) if len(chosen) % n == 0)
        index = (steps + chosen.reshape(groups, 1, 1, -1)).to(where.torch())
        patches = rows[index.reshape(-1)].reshape(*index.shape, 3 * channels)
        flat[inside[part]] = run_rows(folded, patches).cpu().numpy()

    # Rows, p, y, the joined branches, and two hidden layers of each branch.
    each = 4 * 27 * (4 * channels + 2 * network.config.hidden * len(network.config.parts))
    most = CHUNK if where.name == "cpu" else CHUNK_GPU
    with torch.inference_mode():
        run_tiles(work, len(inside), each, where.name, progress, "patches", most=most)
    return out
