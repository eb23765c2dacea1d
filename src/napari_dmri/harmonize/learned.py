r"""Harmonize by a network: SHResNet, and the voxel-wise network of Golkov as its baseline.

The network maps the source's SH coefficients c to the target site's, :math:`\hat c`. Its output is
used as it is, or projected: the energy of each order is the network's, the direction the source's,

.. math::

    c'_{lm} = c_{lm} \sqrt{\frac{\sum_m \hat c_{lm}^2}{\sum_m c_{lm}^2}}, \qquad
    S' = \mathrm{clip}(B c', 0, 1)\, \bar S_0 .

Projection happens when a model is applied, never in training (Koppers et al., CDMRI 2018, eq. 1).
b0 images are not harmonized.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from napari_dmri.errors import InputError
from napari_dmri.harmonize import networks
from napari_dmri.harmonize.base import CardCheck
from napari_dmri.harmonize.cards import check_card
from napari_dmri.training.stages import Stage

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import torch

    from napari_dmri.harmonize.base import Harmonization, PairLike
    from napari_dmri.harmonize.learned_fit import Trained
    from napari_dmri.harmonize.learned_preview import Place, Preview
    from napari_dmri.progress import Progress
    from napari_dmri.scan import Scan
    from napari_dmri.training.parts import Event, Switch

__all__ = ["PAPER_STAGES", "GolkovHarmonizer", "LearnedHarmonizer", "SHResNetHarmonizer"]

Array = NDArray[Any]

PAPER_STAGES = (
    Stage("adam", 1e-3, batch=256, epochs=5),
    Stage("sgd", 1e-3, 128, epochs=100, momentum=0.9, factor=0.9, patience=5, stop=10),
)
"""The two stages of Koppers et al. (2018). SGD's rate and momentum are ours: they state none."""


class LearnedHarmonizer:
    """Harmonize with a network; the parts that all networks share.

    Parameters
    ----------
    order
        SH order; None takes the largest that all training scans support (the poorer site's).
    smooth
        Lambda of the SH fit, one for all scans.
    shell
        b-value (s/mm²); None takes the target's shell with most directions.
    projection
        Whether only the energies per order are the network's, unless applying says otherwise.
    cap
        Largest factor of a projection.
    seed
        Of the initial weights, the order of samples and dropout.
    map_bvalue
        Whether shells that differ by more than 1 % are mapped to the target's b-value.
    registration
        How pairs on different grids are aligned: ``"rigid"`` or ``"affine"``; ``"always"`` aligns
        those on one grid too, rigidly.
    tile
        Edge in voxels of the blocks that training cuts in tiled mode.
    stages
        The plan of training; None takes `PAPER_STAGES`.
    energy
        Weight of the error of order 2's energy in the loss (see `training.losses`); 0 is the
        papers' squared error alone. None takes 1 for SHResNet, 0 for Golkov's network.
    network
        The network's own settings (see `networks.build`).
    """

    NAME: ClassVar[str] = ""
    LABEL: ClassVar[str] = ""
    PROJECTION: ClassVar[bool] = False
    ENERGY: ClassVar[float] = 0.0
    CITATIONS: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        order: int | None = None,
        smooth: float = 0.006,
        shell: float | None = None,
        *,
        projection: bool | None = None,
        cap: float = 10.0,
        seed: int = 0,
        map_bvalue: bool = True,
        registration: str = "rigid",
        tile: int = 16,
        stages: Sequence[Stage] | None = None,
        energy: float | None = None,
        **network: Any,
    ) -> None:
        if order is not None and (order < 0 or order % 2 or order > 8):
            raise InputError(f"The SH order is {order}; it must be an even number from 0 to 8.")
        if not np.isfinite(smooth) or smooth < 0:
            raise InputError(f"The smoothing lambda is {smooth}; it must be 0 or more.")
        if not cap >= 1 or tile < 1 or seed < 0:
            raise InputError(
                f"cap={cap:g}, tile={tile}, seed={seed}; cap and tile are at least 1, the seed 0 "
                "or more."
            )
        if stages is not None and not stages:
            raise InputError("Training needs at least one stage.")
        self.energy = self.ENERGY if energy is None else float(energy)
        if not 0 <= self.energy < np.inf:
            raise InputError(
                f"The weight of the energy is {self.energy:g}; it must be a number from 0 up."
            )
        self.order, self.smooth, self.shell = order, float(smooth), shell
        self.projection = self.PROJECTION if projection is None else bool(projection)
        self.cap, self.seed, self.map_bvalue = float(cap), int(seed), map_bvalue
        self.registration, self.tile = registration, int(tile)
        self.stages = PAPER_STAGES if stages is None else tuple(stages)
        probe = networks.build(self.NAME, 2 if order is None else order, **network)
        settings = networks.settings(probe)
        self.network_settings = {k: v for k, v in settings.items() if k != "order"}
        self._trained: Trained | None = None

    def __repr__(self) -> str:
        name = type(self).__name__
        if self._trained is None:
            return f"{name}(not trained)"
        card = self._trained.card
        return f"{name}({card['source_site']} -> {card['target_site']}, {card['mode']})"

    @property
    def parameters(self) -> dict[str, Any]:
        """What was set, as JSON can hold it."""
        return {
            "order": self.order,
            "smooth": self.smooth,
            "shell": self.shell,
            "projection": self.projection,
            "cap": self.cap,
            "seed": self.seed,
            "map_bvalue": self.map_bvalue,
            "registration": self.registration,
            "tile": self.tile,
            "stages": [asdict(stage) for stage in self.stages],
            "energy": self.energy,
            **self.network_settings,
        }

    @property
    def card(self) -> dict[str, Any]:
        """What the model is and was made from.

        Raises
        ------
        InputError
            If it has not been trained.
        """
        return dict(self._model().card)

    @property
    def network(self) -> torch.nn.Module:
        """The trained network."""
        return self._model().network

    @property
    def curves(self) -> list[dict[str, Any]]:
        """Training and validation loss by epoch; epoch 0 is before training."""
        return [dict(entry) for entry in self._model().card["curves"]]

    def fit(
        self,
        pairs: Sequence[PairLike | tuple[Scan, Scan]],
        *,
        validation: Sequence[PairLike | tuple[Scan, Scan]] | None = None,
        device: str = "auto",
        progress: Progress | None = None,
        on_event: Callable[[Event], None] | None = None,
        on_preview: Callable[[Preview], None] | None = None,
        preview_at: Place | None = None,
        switch: Switch | None = None,
        state: str | Path | None = None,
    ) -> Self:
        """Train on travelling subjects; a cancelled or failed training changes nothing.

        Parameters
        ----------
        pairs
            (source, target) scans of each subject, or objects with ``source``, ``target``,
            ``subject`` and perhaps ``tissue``; read one at a time.
        validation
            Pairs that choose the best epoch. None: the last of three or more pairs; of fewer, one
            end of each brain.
        device, progress
            Where it runs; who is told.
        on_event, switch
            Who is told of the curves; who may pause it, or end it with the best weights so far.
        on_preview
            Who is shown a slice of a validation subject, as the network has it, each epoch.
        preview_at
            Asked which slice that is to be (see `learned_preview.Place`).
        state
            A file to keep the state of training in. A training that was cancelled or killed goes on
            from it, given the same scans and settings.

        Returns
        -------
        The model itself.

        Raises
        ------
        InputError
            If there are no pairs, a subject comes twice, pairs are of several sites, or scans do
            not fit each other, with the figures.

        Warns
        -----
        DmriWarning
            For one pair only, one tissue only, a common order that is one site's limit, scans that
            were moved, pairs that look misaligned.
        """
        from napari_dmri.harmonize.learned_fit import train_network

        self._trained = train_network(
            self,
            pairs,
            validation,
            device=device,
            progress=progress,
            on_event=on_event,
            on_preview=on_preview,
            preview_at=preview_at,
            switch=switch,
            state=state,
        )
        return self

    def _model(self) -> Trained:
        if self._trained is None:
            raise InputError(
                f"This {self.LABEL} model is not trained; call fit(pairs) or load a model file "
                "first."
            )
        return self._trained

    def check(self, scan: Scan) -> tuple[CardCheck, ...]:
        """Check the model's card against a scan, in words; its signal is not read."""
        card = self.card
        words = f"{self.LABEL} in {card['mode']} mode, {len(card['subjects'])} training subjects."
        return (*check_card(card, scan), CardCheck("ok", words))

    def apply(
        self,
        scan: Scan,
        *,
        projection: bool | None = None,
        device: str = "auto",
        progress: Progress | None = None,
    ) -> Scan:
        """Harmonize a scan of the source site; see `apply_detailed`."""
        return self.apply_detailed(
            scan, projection=projection, device=device, progress=progress
        ).scan

    def apply_detailed(
        self,
        scan: Scan,
        *,
        projection: bool | None = None,
        device: str = "auto",
        progress: Progress | None = None,
    ) -> Harmonization:
        """Harmonize a scan and show how: the scale of each order, how novel voxels are, notes.

        Parameters
        ----------
        scan
            A scan of the source site.
        projection
            Whether only the energies per order are the network's; None takes the model's own.
        device, progress
            Where it runs; who is told.

        Raises
        ------
        InputError
            If the card does not fit the scan, or most of the scan is unlike all training scans.

        Warns
        -----
        DmriWarning
            When a training subject is harmonized.
        """
        from napari_dmri.harmonize.learned_apply import harmonize_scan

        return harmonize_scan(
            self,
            self._model(),
            scan,
            projected=self.projection if projection is None else projection,
            device=device,
            progress=progress,
        )

    def save(self, path: str | Path, overwrite: bool = False) -> Path:
        """Write the model: one safetensors file, and its card beside it as JSON."""
        from napari_dmri.training.checkpoint import save_checkpoint

        trained = self._model()
        tensors = {
            f"network/{name}": value for name, value in networks.to_tensors(trained.network).items()
        }
        tensors |= {f"novelty/{name}": value for name, value in trained.novelty.tensors().items()}
        return save_checkpoint(path, tensors, self.card, overwrite)

    @classmethod
    def from_checkpoint(cls, tensors: dict[str, Array], card: dict[str, Any]) -> Self:
        """Build the model from what `load_checkpoint` read.

        Raises
        ------
        InputError
            If a tensor or an entry of the card is missing or of another shape.
        """
        from napari_dmri.harmonize.learned_fit import Trained
        from napari_dmri.harmonize.novelty import Novelty

        try:
            given = dict(card["parameters"])
            stages = [Stage(**stage) for stage in given.pop("stages")]
            model = cls(**given, stages=stages)
            if card["mode"] != card["network"]["mode"]:
                raise InputError(
                    f"The card says {card['mode']!r} mode and the network was made for "
                    f"{card['network']['mode']!r}: a model runs only in its own mode."
                )
            network = networks.from_tensors(cls.NAME, card["network"], _under(tensors, "network/"))
            needed = ("order", "smooth", "shell", "shells", "curves", "subjects", "simulated")
            for name in needed:
                card[name]
        except (KeyError, TypeError) as error:
            raise InputError(
                f"The model lacks {error} and is not a whole {cls.LABEL} model; train it anew."
            ) from error
        novelty = Novelty.from_tensors(_under(tensors, "novelty/"))
        model._trained = Trained(network, novelty, card)
        return model


class SHResNetHarmonizer(LearnedHarmonizer):
    """Harmonize with SHResNet: residual blocks with a branch for each SH order, on neighbourhoods.

    Settings of the network: ``blocks`` (2), ``hidden`` (15), ``final_layers`` (1) and ``mode``,
    ``"paper"`` for 3^3 patches or ``"tiled"`` for larger ones. Koppers et al., CDMRI 2018.
    """

    NAME = "shresnet"
    LABEL = "SHResNet"
    PROJECTION = True
    ENERGY = 1.0
    CITATIONS = (
        "Koppers S, Bloy L, Berman JI, Tax CMW, Edgar JC, Merhof D. Spherical harmonic residual "
        "network for diffusion signal harmonization. Computational Diffusion MRI (MICCAI "
        "workshop), 2018.",
    )


class GolkovHarmonizer(LearnedHarmonizer):
    """Harmonize with the voxel-wise network of Golkov, its output changed to SH coefficients.

    Settings of the network: ``hidden`` (150), ``dropout`` (0.1), ``residual`` (False).
    Golkov et al., IEEE Trans Med Imaging 2016; as a baseline of harmonization Koppers et al. 2018.
    """

    NAME = "golkov"
    LABEL = "Golkov"
    PROJECTION = False
    CITATIONS = (
        "Golkov V, Dosovitskiy A, Sperl JI, et al. q-Space deep learning: twelve-fold shorter and "
        "model-free diffusion MRI scans. IEEE Trans Med Imaging 35:1344-1351, 2016.",
        *SHResNetHarmonizer.CITATIONS,
    )


def _under(tensors: dict[str, Array], prefix: str) -> dict[str, Array]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
