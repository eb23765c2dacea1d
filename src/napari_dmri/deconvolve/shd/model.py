"""A network of the family with its card: made, saved, loaded, and checked against scans."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from napari_dmri.deconvolve.shd.architecture import Architecture
from napari_dmri.deconvolve.shd.inputs import check_others
from napari_dmri.deconvolve.shd.model_checks import check_model
from napari_dmri.deconvolve.shd.order_rule import RULES
from napari_dmri.errors import InputError
from napari_dmri.provenance import versions
from napari_dmri.scan import B0_THRESHOLD

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import torch

    from napari_dmri.deconvolve.shd.presets import Preset
    from napari_dmri.harmonize.base import CardCheck
    from napari_dmri.images import Response
    from napari_dmri.scan import Scan

__all__ = ["KIND", "ShdModel"]

KIND = "deconvolve"

LICENCE = "BSD-3-Clause"

PREFIX = "network/"

NEEDED = ("method", "label", "size", "mode", "losses", "plan", "training", "simulated")
"""What every card must hold beside what `ShdModel` is made of."""

Array = NDArray[Any]


class ShdModel:
    """Hold a network, what it takes and gives, and the card that says where it is from.

    Parameters
    ----------
    architecture
        What the network is made of.
    others
        Tissues besides white matter, of ``"gm"`` and ``"csf"``.
    bvalues
        The shells that it takes (S,) in s/mm², b0 first.
    network
        The network.
    card
        What JSON can hold; see `new` for its entries. It is the model's own and may be added to.

    Raises
    ------
    InputError
        If the tissues are unknown, the first shell is not b0, shells are not ascending, or the card
        lacks an entry.
    """

    def __init__(
        self,
        architecture: Architecture,
        others: Sequence[str],
        bvalues: Sequence[float],
        network: torch.nn.Module,
        card: Mapping[str, Any],
    ) -> None:
        self.architecture, self.others = architecture, check_others(others)
        self.bvalues = tuple(float(b) for b in bvalues)
        ascending = all(a < b for a, b in pairwise(self.bvalues))
        if len(self.bvalues) < 2 or not ascending or not 0 <= self.bvalues[0] <= B0_THRESHOLD:
            raise InputError(
                f"A model for shells at b = {', '.join(f'{b:g}' for b in self.bvalues)} s/mm²; "
                "expected b0 and then at least one shell, ascending."
            )
        missing = [name for name in NEEDED if name not in card]
        if missing:
            raise InputError(f"The model's card lacks {', '.join(missing)}; train the model anew.")
        rule = card.get("rule", RULES[0])
        if rule not in RULES:
            raise InputError(
                f"The model's card has the rule {rule!r}; known are {', '.join(RULES)}."
            )
        self.network = network
        self.card: dict[str, Any] = {
            **card,
            "kind": KIND,
            "rule": rule,
            "architecture": architecture.as_dict(),
            "tissues": ["wm", *self.others],
            "bvalues": list(self.bvalues),
        }

    def __repr__(self) -> str:
        shells = ", ".join(f"{b:g}" for b in self.bvalues)
        return (
            f"ShdModel({self.card['label']}, b = {shells}, {' + '.join(self.tissues)}, "
            f"{self.parameters} parameters)"
        )

    @classmethod
    def new(
        cls,
        preset: Preset,
        *,
        others: Sequence[str],
        bvalues: Sequence[float],
        rule: str = "safe",
        seed: int = 0,
        simulated: bool = False,
        training: Sequence[Mapping[str, Any]] = (),
        **more: Any,
    ) -> Self:
        """Make an untrained model of a method.

        Parameters
        ----------
        preset
            The method.
        others, bvalues
            Tissues besides white matter; shells that go in, b0 first.
        rule
            How shells are fitted (`shell_matrix`).
        seed
            Of the initial weights.
        simulated
            Whether it learns from simulated scans.
        training
            An entry a training scan: ``subject``, ``name``, ``sha256``.
        more
            Further entries, such as ``voxel_size`` (3,) in mm, ``orders`` (S,) of the fitted
            shells, ``curves``, ``notes``, ``licence``.
        """
        from napari_dmri.deconvolve.shd.network import build_network

        tissues = check_others(others)
        network = build_network(preset.architecture, len(bvalues), len(tissues), seed=seed)
        network.eval()
        card = {
            **preset.as_dict(),
            "rule": rule,
            "seed": int(seed),
            "simulated": bool(simulated),
            "training": [dict(entry) for entry in training],
            "curves": [],
            "parameters": sum(p.numel() for p in network.parameters()),
            "licence": LICENCE,
            "citations": [preset.reference],
            "versions": versions(),
            **more,
        }
        return cls(preset.architecture, tissues, bvalues, network, card)

    @property
    def tissues(self) -> tuple[str, ...]:
        """White matter and the others, in the order of the outputs."""
        return ("wm", *self.others)

    @property
    def parameters(self) -> int:
        """Number of trained numbers."""
        return sum(p.numel() for p in self.network.parameters())

    @property
    def sha256(self) -> str:
        """SHA-256 of the network's tensors, as a file would have it."""
        from napari_dmri.training.checkpoint import tensor_hash

        return tensor_hash(self._tensors())

    def check(
        self, scan: Scan, responses: Mapping[str, Response] | Response | None = None
    ) -> tuple[CardCheck, ...]:
        """Check the card against a scan and its responses, in words; signals are not read."""
        return check_model(self.card, scan, responses)

    def save(self, path: str | Path, overwrite: bool = False) -> Path:
        """Write the model: one safetensors file, and its card beside it as JSON.

        Raises
        ------
        InputError
            If a target exists and ``overwrite`` is not set, or a weight is not finite.
        """
        from napari_dmri.training.checkpoint import save_checkpoint

        tensors = self._tensors()
        for name, array in tensors.items():
            _require_finite(name, array)
        return save_checkpoint(path, tensors, self.card, overwrite)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a model file.

        Raises
        ------
        InputError
            If it is missing, truncated, altered, of another kind, or not a whole model.
        """
        from napari_dmri.training.checkpoint import load_checkpoint

        tensors, card = load_checkpoint(path, KIND)
        return cls.from_checkpoint(tensors, card)

    @classmethod
    def from_checkpoint(cls, tensors: Mapping[str, Array], card: Mapping[str, Any]) -> Self:
        """Build the model from what `load_checkpoint` read.

        Raises
        ------
        InputError
            If an entry of the card or a tensor is missing, or has another shape.
        """
        from napari_dmri.deconvolve.shd.network import build_network

        try:
            architecture = Architecture.from_dict(dict(card["architecture"]))
            tissues, bvalues = list(card["tissues"]), [float(b) for b in card["bvalues"]]
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"The model's card lacks {error} and is not that of a whole model; train it anew."
            ) from error
        if tissues[:1] != ["wm"]:
            raise InputError(f"The model's card names the tissues {tissues}; expected wm first.")
        network = build_network(architecture, len(bvalues), len(tissues) - 1, seed=0)
        _fill(network, tensors)
        return cls(architecture, tissues[1:], bvalues, network.eval(), card)

    def _tensors(self) -> dict[str, Array]:
        state = self.network.state_dict()
        return {f"{PREFIX}{k}": np.atleast_1d(v.detach().cpu().numpy()) for k, v in state.items()}


def _fill(network: torch.nn.Module, tensors: Mapping[str, Array]) -> None:
    """Put saved weights into a network."""
    import torch

    state = network.state_dict()
    unknown = set(tensors) - {PREFIX + name for name in state}
    if unknown:
        raise InputError(
            f"The model file holds {len(unknown)} tensors that its network does not have "
            f"({min(unknown)}); it was made by another version."
        )
    for name, value in state.items():
        shape = tuple(np.atleast_1d(value.cpu().numpy()).shape)
        found = tensors.get(PREFIX + name)
        if found is None or tuple(found.shape) != shape:
            words = "nothing" if found is None else str(tuple(found.shape))
            raise InputError(
                f"The model's weights {name!r} should have shape {shape} and the file holds "
                f"{words}; it is not a whole model of its card's settings."
            )
        _require_finite(name, found)
        array = np.array(found).reshape(tuple(value.shape))
        state[name] = torch.from_numpy(array).to(value.dtype)
    network.load_state_dict(state)


def _require_finite(name: str, array: Array) -> None:
    bad = int((~np.isfinite(array)).sum())
    if bad:
        raise InputError(
            f"The model's weights {name!r} hold {bad} values that are not finite; train it anew "
            "with a lower learning rate."
        )
