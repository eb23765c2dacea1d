r"""The loss of unsupervised deconvolution, and its parts.

With fODFs f and other tissues normalised to the measured b0, and the signal :math:`\hat s` that
they give, the loss of a batch is a weighted sum of means over the voxels of the brain mask:

====================  ==================================================================
reconstruction        mean over all volumes, b0 included, of :math:`(\hat s - s)^2`
non_negativity        :math:`\min(f, 0)^2`, mean over 3072 vertices
sparsity              Cauchy, :math:`2 \log(1 + f^2 / 2 \sigma)`, mean over 3072 vertices
spatial               squared jumps of shapes between neighbours, or total variation
anti_collapse         :math:`\sum_t 1 / (\bar v_t + 10^{-3})`, of the mean fractions
supervised            :math:`(c - c^\star)^2`, mean over the coefficients that both have
====================  ==================================================================

Elaldi, Gerig, Dey, NeurIPS 2024; the reciprocal against collapse is of Elaldi et al., IPMI 2021.
The first three are most of the work: `amplitudes` multiplies each fODF by the 1536 vertices of one
half once for both of its terms, and `smoothness` needs no vertices at all.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from napari_dmri.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

__all__ = ["FodLoss", "LossWeights", "masked_mean"]

FORMS = ("squared", "tv")

NONE = 1e-3
"""A mean fraction that counts as none: the reciprocal ends at its inverse."""


@dataclass(frozen=True)
class LossWeights:
    """Weigh the parts of the loss; the defaults are the paper's for SHD.

    Parameters
    ----------
    reconstruction, non_negativity, sparsity, spatial, anti_collapse, supervised
        Weights, 0 or more.
    sparsity_scale
        Sigma of the Cauchy norm, for fODFs in units of the response.
    spatial_form
        ``"squared"`` (the paper's "total variation") or ``"tv"``.

    Raises
    ------
    InputError
        If a weight is negative or not finite, all are 0, sigma is not positive, or the form is
        unknown.
    """

    reconstruction: float = 1.0
    non_negativity: float = 0.1
    sparsity: float = 5e-5
    sparsity_scale: float = 1e-5
    spatial: float = 0.0
    spatial_form: str = "squared"
    anti_collapse: float = 0.0
    supervised: float = 0.0

    def __post_init__(self) -> None:
        values = asdict(self)
        form, scale = values.pop("spatial_form"), values.pop("sparsity_scale")
        wrong = [f"{k}={v}" for k, v in values.items() if not 0 <= v < math.inf]
        if wrong or not any(values.values()) or not 0 < scale < math.inf:
            raise InputError(
                f"Loss weights have {', '.join(wrong) or f'sparsity_scale={scale}'}; weights are 0 "
                "or more, at least one above 0, and the scale is above 0."
            )
        if form not in FORMS:
            raise InputError(f"Unknown spatial form {form!r}; choose one of {', '.join(FORMS)}.")

    def as_dict(self) -> dict[str, Any]:
        """Return what was set, as JSON can hold it."""
        return asdict(self)

    def changed(self, given: Mapping[str, float | str]) -> LossWeights:
        """Return the weights with some of them set anew.

        Raises
        ------
        InputError
            If a name is unknown, or a value cannot be.
        """
        known = asdict(self)
        for name, value in given.items():
            if name not in known:
                raise InputError(
                    f"The loss has no weight {name!r}; choose among {', '.join(known)}."
                )
            if (name == "spatial_form") != isinstance(value, str):
                kind = f"one of {', '.join(FORMS)}" if name == "spatial_form" else "a number"
                raise InputError(f"The loss's {name} is {value!r}; give {kind}.")
        return replace(self, **given)  # type: ignore[arg-type]


def masked_mean(values: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return the mean of values (...) where the weight (...) is 1; 0 where it is 1 nowhere."""
    return (values * weight).sum() / weight.sum().clamp(min=1)


class FodLoss:
    """Compute the loss of a batch; what `training.loop` calls.

    Parameters
    ----------
    weights
        What counts how much.
    degree
        SH order of the fODFs.
    centre_only
        Whether only the middle voxel of each (odd) patch counts, as only it is used in prediction.

    Attributes
    ----------
    last
        The parts of the last batch, unweighted and without gradients, by name; ``"total"`` is the
        loss.
    """

    def __init__(self, weights: LossWeights, degree: int, centre_only: bool = False) -> None:
        self.weights, self.degree, self.centre_only = weights, degree, centre_only
        self.last: dict[str, torch.Tensor] = {}
        self._held: dict[Any, tuple[torch.Tensor, torch.Tensor]] = {}

    def __call__(self, network: torch.nn.Module, tensors: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """Return the loss of a batch.

        Parameters
        ----------
        network
            Maps shells (B, P, P, P, S, C_in) to fODFs (B, P, P, P, C) and f_00 of the other tissues
            (B, P, P, P, T).
        tensors
            One subject's shells; signal (B, P, P, P, N); b0 and mask (B, P, P, P); forward matrices
            (N, C) and (N, T); kernel (1 + T,); true fODFs (B, P, P, P, C) or an empty tensor.

        Raises
        ------
        InputError
            If true fODFs count and there are none, a patch has no inner voxel and smoothness
            counts, or only the middle one counts and there is none.
        """
        return self._compute(network, tensors)

    def terms(
        self, network: torch.nn.Module, tensors: tuple[torch.Tensor, ...]
    ) -> dict[str, torch.Tensor]:
        """Return the parts of a batch's loss by name, unweighted, without gradients."""
        import torch

        with torch.no_grad():
            self._compute(network, tensors)
        return dict(self.last)

    def of_outputs(
        self, fod: torch.Tensor, others: torch.Tensor, tensors: tuple[torch.Tensor, ...]
    ) -> torch.Tensor:
        """Return the loss of outputs that a network gave, before the b0 normalisation."""
        import torch

        from napari_dmri.deconvolve.shd.amplitudes import amplitude_terms
        from napari_dmri.deconvolve.shd.reconstruction import fractions, normalise, reconstruct
        from napari_dmri.deconvolve.shd.smoothness import shapes, smoothness

        _, signal, b0, mask, forward_wm, forward_others, kernel, target = tensors
        w = self.weights
        basis, factor = self._matrices(fod.device)
        with torch.autocast(fod.device.type, enabled=False):
            fod, others = normalise(fod.float(), others.float(), b0.float(), kernel.float())
            counted = self._counted(mask)
            weight = counted.to(fod.dtype)
            predicted = reconstruct(fod, others, (forward_wm, forward_others))
            error = (predicted - signal).square().mean(-1)
            parts = {"reconstruction": masked_mean(error, weight)}
            total = w.reconstruction * parts["reconstruction"]
            both, parts["non_negativity"], parts["sparsity"] = amplitude_terms(
                fod.flatten(0, -2),
                weight.flatten(),
                basis,
                w.sparsity_scale,
                w.non_negativity,
                w.sparsity,
            )
            total = total + both
            if w.spatial:
                _require_inner(mask)
                parts["spatial"] = smoothness(shapes(fod, factor), mask, counted, w.spatial_form)
                total = total + w.spatial * parts["spatial"]
            if w.anti_collapse:
                amounts = fractions(fod, others) * weight[..., None]
                mean = amounts.flatten(0, -2).sum(0) / weight.sum().clamp(min=1)
                parts["anti_collapse"] = (1 / (mean + NONE)).sum()
                total = total + w.anti_collapse * parts["anti_collapse"]
            if w.supervised:
                parts["supervised"] = masked_mean(_distance(fod, target), weight)
                total = total + w.supervised * parts["supervised"]
        self.last = {name: value.detach() for name, value in parts.items()}
        self.last["total"] = total.detach()
        return total

    def _compute(self, network: torch.nn.Module, tensors: tuple[torch.Tensor, ...]) -> torch.Tensor:
        fod, others = network(tensors[0])
        return self.of_outputs(fod, others, tensors)

    def _matrices(self, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the basis on the vertices and the factor of norms, on a device."""
        import torch

        from napari_dmri.deconvolve.shd.amplitudes import amplitude_basis, norm_factor

        if device not in self._held:
            arrays = amplitude_basis(self.degree), norm_factor(self.degree)
            basis, factor = (torch.tensor(a, device=device) for a in arrays)
            self._held[device] = basis, factor
        return self._held[device]

    def _counted(self, mask: torch.Tensor) -> torch.Tensor:
        """Return which voxels the means are over."""
        import torch

        if not self.centre_only:
            return mask
        if any(edge % 2 == 0 for edge in mask.shape[1:]):
            raise InputError(
                f"Patches of {'x'.join(str(n) for n in mask.shape[1:])} voxels have no middle one; "
                "count all voxels, or train on odd patches."
            )
        counted = torch.zeros_like(mask)
        x, y, z = (edge // 2 for edge in mask.shape[1:])
        counted[:, x, y, z] = mask[:, x, y, z]
        return counted


def _require_inner(mask: torch.Tensor) -> None:
    if min(mask.shape[1:]) < 3:
        raise InputError(
            f"Patches of {'x'.join(str(n) for n in mask.shape[1:])} voxels have no inner voxel to "
            "be smooth with its neighbours; train on 3 voxels an edge or more, or leave the "
            "spatial weight at 0."
        )


def _distance(fod: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return the mean squared difference of the coefficients that both have."""
    if target.ndim != fod.ndim:
        raise InputError(
            "The loss counts true fODFs and the batch has none; give fODFs to learn from, or leave "
            "the supervised weight at 0."
        )
    shared = min(fod.shape[-1], target.shape[-1])
    return (fod[..., :shared] - target[..., :shared]).square().mean(-1)
