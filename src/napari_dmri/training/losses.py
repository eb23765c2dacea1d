r"""The loss of learned harmonization: signals at the target's directions.

With predicted coefficients :math:`\hat c_i` of voxel i, the design :math:`B_{s(i)}` of its
subject's target directions (V of them) and the measured :math:`t_i = S_i / \bar S_{0,i}`,

.. math:: \mathcal L = \frac1n \sum_i \frac1{V_{s(i)}}
          \lVert B_{s(i)} \hat c_i - t_i \rVert^2 .

The targets are measurements, not a fit of them: what the fit would smooth away belongs to neither
the source nor the network (Koppers et al., CDMRI 2018, train in signal space).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

__all__ = ["signal_loss"]


def signal_loss(model: torch.nn.Module, tensors: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """Return the mean squared error of the signal (S/b0, squared), by the module's formula.

    Parameters
    ----------
    model
        Maps the inputs of a batch to coefficients, (n, C), or those of the cores
        (B, C, x, y, z).
    tensors
        As `Patches` and `Tiles` give them.
    """
    import torch

    inputs, where, targets, subject, designs, shares = tensors
    predicted = model(inputs)
    if predicted.ndim == 5:
        predicted = predicted.movedim(1, -1).reshape(-1, predicted.shape[1])[where]
    # In full precision: bfloat16 would round the signal at 0.4 %.
    with torch.autocast(predicted.device.type, enabled=False):
        predicted = predicted.float()
        if len(designs) == 1:
            signal = predicted @ designs[0].T
        else:
            signal = torch.bmm(designs[subject], predicted[:, :, None])[..., 0]
        error: torch.Tensor = (signal - targets).square().sum(1) * shares[subject]
        return error.mean()
