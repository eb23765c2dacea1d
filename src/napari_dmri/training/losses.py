r"""The losses of learned harmonization: signals at the target's directions, and energy of order 2.

With predicted coefficients :math:`\hat c_i` of voxel i, the design :math:`B_{s(i)}` of its
subject's target directions (V of them) and the measured :math:`t_i = S_i / \bar S_{0,i}`,

.. math:: \mathcal L = \frac1n \sum_i \frac1{V_{s(i)}}
          \lVert B_{s(i)} \hat c_i - t_i \rVert^2 .

The targets are measurements, not a fit of them: what the fit would smooth away belongs to neither
the source nor the network (Koppers et al., CDMRI 2018, train in signal space).

The minimum of a squared error is the conditional mean. Where the source says little of the
direction, as in grey matter, the mean over directions is flatter than every one of them, and so are
the FA maps of what the network makes. `SignalEnergyLoss` therefore adds the error of the root of
the energy of order 2, the order that FA measures, with weight w,

.. math:: \mathcal L + \frac{w}{4 \pi n} \sum_i
          \left( \sqrt{R_2(\hat c_i)} - \sqrt{R_2(B_{s(i)}^+ t_i)} \right)^2,
          \qquad R_2(c) = \sum_m c_{2m}^2,

in the unit of the signal (the mean over the sphere of an order's squared signal is
:math:`R_l / 4 \pi`). The target's energy is of its least-squares fit without smoothing: smoothing
takes energy out of every order above 0. Higher orders stay out: at clinical b-values their
unsmoothed energy is mostly noise. This term is ours, not the paper's.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from napari_dmri.training.parts import Loss

__all__ = ["SignalEnergyLoss", "loss_with_energy", "signal_loss"]

ORDER_2 = slice(1, 6)
TINY = 1e-8
"""Added to an energy, as its root has no slope at zero."""


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

    predicted = _predicted(model, tensors)
    # In full precision: bfloat16 would round the signal at 0.4 %.
    with torch.autocast(predicted.device.type, enabled=False):
        return _signal_error(predicted.float(), tensors)


def loss_with_energy(weight: float) -> Loss:
    """Return the loss with a term of the energy of order 2, or `signal_loss` for a weight of 0."""
    return SignalEnergyLoss(weight) if weight else signal_loss


class SignalEnergyLoss:
    """Measure the error of the signal and of the energy of order 2, by the module's formula.

    Parameters
    ----------
    weight
        w; 0 leaves the signal's error alone.
    """

    def __init__(self, weight: float) -> None:
        self.weight = float(weight)
        self._designs: torch.Tensor | None = None
        self._fits: torch.Tensor | None = None

    def __call__(self, model: torch.nn.Module, tensors: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """Return the loss of a batch; takes what `signal_loss` takes."""
        import torch

        predicted = _predicted(model, tensors)
        _, _, targets, subject, designs, _ = tensors
        with torch.autocast(predicted.device.type, enabled=False):
            predicted = predicted.float()
            error = _signal_error(predicted, tensors)
            if predicted.shape[1] < ORDER_2.stop:
                return error
            wanted = _per_subject(self._fit(designs), subject, targets)
            apart = _root_energy(predicted) - _root_energy(wanted)
            return error + self.weight / (4 * math.pi) * apart.square().mean()

    def _fit(self, designs: torch.Tensor) -> torch.Tensor:
        """Return the rows of the subjects' fits that give the coefficients of order 2."""
        import torch

        if self._designs is not designs or self._fits is None:
            # On the CPU in float64: not every device factorises, and it is done once.
            inverse = torch.linalg.pinv(designs.detach().cpu().double()).float()
            full = torch.zeros_like(inverse)
            full[:, ORDER_2] = inverse[:, ORDER_2]
            self._designs, self._fits = designs, full.to(designs.device)
        return self._fits


def _predicted(model: torch.nn.Module, tensors: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """Return the predicted coefficients of the batch's samples (n, C)."""
    inputs, where = tensors[:2]
    predicted: torch.Tensor = model(inputs)
    if predicted.ndim == 5:
        predicted = predicted.movedim(1, -1).reshape(-1, predicted.shape[1])[where]
    return predicted


def _signal_error(predicted: torch.Tensor, tensors: tuple[torch.Tensor, ...]) -> torch.Tensor:
    _, _, targets, subject, designs, shares = tensors
    signal = _per_subject(designs, subject, predicted)
    error: torch.Tensor = (signal - targets).square().sum(1) * shares[subject]
    return error.mean()


def _per_subject(
    matrices: torch.Tensor, subject: torch.Tensor, values: torch.Tensor
) -> torch.Tensor:
    """Multiply each sample's values (n, I) by its subject's matrix (S, O, I)."""
    import torch

    if len(matrices) == 1:
        return values @ matrices[0].T
    return torch.bmm(matrices[subject], values[:, :, None])[..., 0]


def _root_energy(coefficients: torch.Tensor) -> torch.Tensor:
    return (coefficients[:, ORDER_2].square().sum(1) + TINY).sqrt()
