"""Turn RUMBA-SD's compartments into SH coefficients and maps, and measure their misfit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_dmri.sphere.harmonics import design_matrix, n_coefficients

if TYPE_CHECKING:
    import torch

    from napari_dmri.deconvolve.rumba_kernel import Dictionary
    from napari_dmri.deconvolve.rumba_steps import Plan

__all__ = ["Output"]


class Output:
    """Convert the compartments of some voxels.

    Parameters
    ----------
    dictionary, plan
        What the compartments belong to.
    order
        L of the fODF.
    keep
        Whether densities along the axes are part of the result.
    device
        Where the compartments are.
    """

    def __init__(
        self, dictionary: Dictionary, plan: Plan, order: int, keep: bool, device: torch.device
    ) -> None:
        import torch

        self.plan, self.keep, self.units = plan, keep, dictionary.units
        self.fibres = len(dictionary.axes)
        basis = design_matrix(dictionary.axes, order)
        self.basis = torch.tensor(basis, dtype=torch.float32, device=device)
        vertices = (self.fibres,) if keep else ()
        self.widths = (n_coefficients(order), 1, *(1,) * len(dictionary.tissues), *vertices)

    def __call__(
        self,
        f: torch.Tensor,
        sigma: torch.Tensor,
        signal: torch.Tensor,
        mean: torch.Tensor,
        converged: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        r"""Return the parts of the result side by side, which converged, and the misfit.

        Parameters
        ----------
        f
            Compartments (n, M), of S/b0.
        sigma
            Noise (n,).
        signal
            S/b0 (n, N).
        mean
            b0 (n, 1).
        converged
            Which voxels converged (n,).

        Returns
        -------
        :math:`f_{lm}`, sigma, :math:`f_{00}` of isotropic tissues and, if kept, densities along
        the axes (n, sum of `widths`); ``converged``; the root mean square of measured minus
        predicted signal (n,).
        """
        import torch

        predicted = f @ self.plan.right_t
        if self.plan.left_t is not None:
            predicted = predicted @ self.plan.left_t
        error = predicted.sub_(signal).square_().mean(1).sqrt_().mul_(mean[:, 0])
        fibres = f[:, : self.fibres] * (mean / self.units[0])
        parts = [fibres @ self.basis, sigma[:, None]]
        for k, unit in enumerate(self.units[1:]):
            share = f[:, self.fibres + k, None]
            parts.append(share * mean / (unit * float(np.sqrt(4 * np.pi))))
        if self.keep:
            parts.append(fibres)
        return torch.cat(parts, 1), converged, error
