r"""SHResNet on single 3 x 3 x 3 patches: the same sums as its convolutions, in a faster order.

Two re-orderings, both exact:

- The last axis of a patch becomes channels. A 3 x 3 x 3 convolution of C channels that pads with
  zeros is then a 3 x 3 one of 3 C channels, with
  :math:`W'_{(w', o), (w, i)} = W_{o, i, w - w' + 1}` and zero where the tap does not exist. The
  short axis, on which kernels idle, is gone.
- All behind the last rectified linear units is linear and ends in one voxel, so it is one matrix,
  the adjoint of the convolutions applied to the final kernel:

  .. math::

      T = \mathrm{post}^* \mathrm{final}, \quad
      \hat c = \langle T, y_{n-1} \rangle - \langle \mathrm{third}^* T, h_n \rangle
               - \langle \mathrm{final}, p \rangle + \mathrm{const}.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from napari_dmri.device import choose_device, run_tiles

if TYPE_CHECKING:
    from napari_dmri.harmonize.shresnet import Block, SHResNet
    from napari_dmri.progress import Progress

__all__ = ["Folded", "fold", "predict", "run"]

Array = NDArray[Any]
Layer = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True, eq=False)
class Folded:
    """Hold a network's weights in the order in which `run` multiplies by them.

    ``blocks`` has (first, second, third) with a layer for each branch in the latter two; the last
    block's third is part of ``tail``. ``tail`` has the matrices for y, h and p, and the constant.
    """

    channels: int
    pre: Layer
    blocks: tuple[tuple[Layer, tuple[Layer, ...], tuple[Layer, ...]], ...]
    tail: tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


def fold(network: SHResNet) -> Folded:
    """Re-order a network's weights; gradients flow back through it."""
    parts = network.config.parts
    blocks: list[Block] = list(network.blocks)  # type: ignore[arg-type]
    folded = []
    for n, block in enumerate(blocks):
        first = tuple(
            _layer(weight, bias)
            for weight, bias in zip(*_chunks(block.first, len(parts)), strict=True)
        )
        wide = (torch.cat([w for w, _ in first]), torch.cat([b for _, b in first]))
        second = tuple(
            _layer(weight, bias)
            for weight, bias in zip(*_chunks(block.second, len(parts)), strict=True)
        )
        third = (
            ()
            if n == len(blocks) - 1
            else tuple(_layer(block.third.weight[part], _bias(block.third)[part]) for part in parts)
        )
        folded.append((wide, second, third))
    return Folded(
        network.config.channels,
        _layer(network.pre.weight, _bias(network.pre)),
        tuple(folded),
        _tail(network, blocks[-1]),
    )


def run(folded: Folded, patches: torch.Tensor) -> torch.Tensor:
    """Return the centre voxels' coefficients (B, C) of patches (B, C, 3, 3, 3)."""
    count, channels = patches.shape[:2]
    x = patches.permute(0, 4, 1, 2, 3).reshape(count, 3 * channels, 3, 3)
    return run_rows(folded, x)


def run_rows(folded: Folded, x: torch.Tensor) -> torch.Tensor:
    """Do what `run` does on patches (B, 3 C, 3, 3) whose last axis has become channels."""
    count, channels = len(x), folded.channels
    p = _conv(x, folded.pre)
    y = p
    h: list[torch.Tensor] = []
    for first, second, third in folded.blocks:
        wide = torch.relu_(_conv(y, first))
        h = [
            torch.relu_(_conv(branch, layer))
            for branch, layer in zip(wide.chunk(len(second), 1), second, strict=True)
        ]
        if third:
            parts = [
                _conv(branch, layer).reshape(count, 3, -1, 3, 3)
                for branch, layer in zip(h, third, strict=True)
            ]
            y = y - torch.cat(parts, 2).reshape(count, 3 * channels, 3, 3)
    of_y, of_h, of_p, constant = folded.tail
    out = torch.addmm(constant, y.reshape(count, -1), of_y)
    for branch, matrix in zip(h, of_h, strict=True):
        out = torch.addmm(out, branch.reshape(count, -1), matrix)
    return torch.addmm(out, p.reshape(count, -1), of_p)


def _conv(x: torch.Tensor, layer: Layer) -> torch.Tensor:
    return functional.conv2d(x, *layer, padding=1)


def _bias(layer: torch.nn.Conv3d) -> torch.Tensor:
    assert layer.bias is not None
    return layer.bias


def _chunks(layer: torch.nn.Conv3d, count: int) -> tuple[Any, Any]:
    return layer.weight.chunk(count), _bias(layer).chunk(count)


def _layer(weight: torch.Tensor, bias: torch.Tensor) -> Layer:
    """Make the last axis of a kernel (O, I, 3, 3, 3) channels: (3 O, 3 I, 3, 3)."""
    outputs, inputs = weight.shape[:2]
    padded = functional.pad(weight, (1, 1))
    rows = torch.stack([padded[..., 2 - k : 5 - k] for k in range(3)])
    folded = rows.permute(0, 1, 5, 2, 3, 4).reshape(3 * outputs, 3 * inputs, 3, 3)
    return folded, bias.repeat(3)


def _tail(
    network: SHResNet, last: Block
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return what is linear behind the last rectified units, as matrices (405, C) and so on."""
    adjoint = functional.conv_transpose3d
    final, post = network.final, network.post
    of_y = adjoint(final.weight, post.weight, padding=1)
    sums = final.weight.sum((2, 3, 4)) @ _bias(post) + _bias(final)
    of_h = []
    for part in network.config.parts:
        weight, bias = last.third.weight[part], _bias(last.third)[part]
        of_h.append(-_rows(adjoint(of_y[:, part], weight, padding=1)))
        sums = sums - of_y[:, part].sum((2, 3, 4)) @ bias
    return _rows(of_y), torch.stack(of_h), -_rows(final.weight), sums


def _rows(weight: torch.Tensor) -> torch.Tensor:
    """Turn a kernel over a patch (O, I, 3, 3, 3) into the matrix that folded patches take."""
    return weight.permute(4, 1, 2, 3, 0).reshape(-1, weight.shape[0])


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
    folded = _on(network, where.torch())
    channels = network.config.channels
    padded = np.pad(replicate_outside(coefficients, mask, 1), ((1, 1),) * 3 + ((0, 0),), "edge")
    shape = padded.shape[:3]
    voxels = torch.from_numpy(padded.reshape(-1, channels)).to(where.torch())
    # Rows of three neighbours along the last axis lie together: a view that overlaps itself.
    rows = voxels.as_strided((len(voxels) - 2, 3 * channels), (channels, 1))
    offsets = torch.tensor([(i * shape[1] + j) * shape[2] for i in range(3) for j in range(3)])
    x, y, z = np.nonzero(mask)
    corners = torch.from_numpy((x * shape[1] + y) * shape[2] + z)
    out = np.array(coefficients, np.float32, order="C")
    flat = out.reshape(-1, channels)
    inside = np.flatnonzero(mask)

    def work(part: slice) -> None:
        chosen = (corners[part, None] + offsets).reshape(-1).to(where.torch())
        patches = rows[chosen].reshape(-1, 3, 3, 3 * channels).permute(0, 3, 1, 2)
        flat[inside[part]] = run_rows(folded, patches).cpu().numpy()

    each = 4 * 27 * (5 * channels + 2 * network.config.hidden * len(network.config.parts))
    with torch.inference_mode():
        run_tiles(work, len(inside), each, where.name, progress, "patches", most=2048)
    return out


def _on(network: SHResNet, device: torch.device) -> Folded:
    import copy

    with torch.no_grad():
        return fold(copy.deepcopy(network).to(device))
