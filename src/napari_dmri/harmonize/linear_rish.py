r"""LinearRISH: scale the SH of each order, voxel by voxel, to the target site's energy.

.. math::

    R_l = \sum_m c_{lm}^2, \qquad
    c'_{lm} = s_l\, c_{lm}, \qquad
    S' = \mathrm{clip}(B c', 0, 1)\, \bar S_0

The scale maps :math:`s_l` (see `scale_maps`) live in a template of FA and :math:`R_0`; applying a
model registers the scan with the template and warps the maps to it. Directions are untouched:
only energies per order change. b0 images are not harmonized.

Mirzaalian et al., NeuroImage 135:311-323, 2016 and Brain Imaging Behav 12:284-295, 2018; Cetin
Karayumak et al., NeuroImage 184:180-200, 2019.
"""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_dmri.errors import DmriWarning, InputError
from napari_dmri.harmonize import features, scale_maps
from napari_dmri.harmonize.alignment import Channels
from napari_dmri.harmonize.base import CardCheck, Harmonization, trained_subject
from napari_dmri.harmonize.cards import check_card, refuse_errors
from napari_dmri.harmonize.linear_rish_card import CITATIONS, LABEL, NAME
from napari_dmri.harmonize.placement import at_cap, onto_scan
from napari_dmri.harmonize.reconstruct import rebuild, scale_coefficients
from napari_dmri.harmonize.syn import ITERATIONS
from napari_dmri.harmonize.template import to_template
from napari_dmri.images import ScalarImage
from napari_dmri.progress import Progress, part, silent
from napari_dmri.provenance import provenance

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from napari_dmri.harmonize.base import PairLike
    from napari_dmri.scan import Scan

__all__ = ["LinearRish"]

Array = NDArray[Any]


class LinearRish:
    """Harmonize by scaling energies per SH order, from travelling pairs or two groups.

    Parameters
    ----------
    order
        SH order; None takes the largest that all training scans support (the poorer site's).
    smooth
        Lambda of the SH fit, one for all scans (0.006; the RISH pipeline uses 1e-5).
    shell
        b-value (s/mm²) or several; None takes the target's shell with most directions.
    cap
        Lowest and highest scale.
    rim
        Width in mm of the rim where outlying scales are replaced by their surroundings' median.
    fwhm
        Smoothing of the scale maps in mm; 0 for none.
    rounds, tolerance
        Rounds of the template at most, and the relative change at which it has settled.
    iterations
        SyN iterations per level, coarse to fine.
    map_bvalue
        Whether shells that differ by more than 1 % are mapped to the target's b-value.
    """

    def __init__(
        self,
        order: int | None = None,
        smooth: float = 0.006,
        shell: float | Sequence[float] | None = None,
        *,
        cap: tuple[float, float] = scale_maps.CAP,
        rim: float = scale_maps.RING,
        fwhm: float = 0.0,
        rounds: int = 4,
        tolerance: float = 0.03,
        iterations: Sequence[int] = ITERATIONS,
        map_bvalue: bool = True,
    ) -> None:
        if order is not None and (order < 0 or order % 2):
            raise InputError(f"The SH order is {order}; it must be an even number from 0.")
        if not np.isfinite(smooth) or smooth < 0:
            raise InputError(f"The smoothing lambda is {smooth}; it must be 0 or more.")
        low, high = cap
        if not 0 < low <= 1 <= high:
            raise InputError(
                f"The scale cap is {low:g} to {high:g}; it must enclose 1 and begin above 0."
            )
        if fwhm < 0 or rim < 0 or rounds < 1 or tolerance < 0:
            raise InputError(
                f"fwhm={fwhm:g} mm, rim={rim:g} mm, rounds={rounds}, tolerance={tolerance:g}: "
                "lengths and tolerance are 0 or more, rounds at least 1."
            )
        self.order, self.smooth, self.shell = order, float(smooth), shell
        self.cap, self.rim, self.fwhm = (float(low), float(high)), float(rim), float(fwhm)
        self.rounds, self.tolerance = rounds, float(tolerance)
        self.iterations, self.map_bvalue = tuple(iterations), map_bvalue
        self._card: dict[str, Any] | None = None
        self._template: Channels | None = None
        self._maps: dict[float, scale_maps.ScaleMaps] = {}

    def __repr__(self) -> str:
        if self._card is None:
            return "LinearRish(not trained)"
        return f"LinearRish({self._card['source_site']} -> {self._card['target_site']})"

    @property
    def parameters(self) -> dict[str, Any]:
        """What was set, as JSON can hold it."""
        return {
            "order": self.order,
            "smooth": self.smooth,
            "shell": self.shell if self.shell is None else np.atleast_1d(self.shell).tolist(),
            "cap": list(self.cap),
            "rim": self.rim,
            "fwhm": self.fwhm,
            "rounds": self.rounds,
            "tolerance": self.tolerance,
            "iterations": list(self.iterations),
            "map_bvalue": self.map_bvalue,
        }

    @property
    def card(self) -> dict[str, Any]:
        """What the model is and was made from.

        Raises
        ------
        InputError
            If it has not been trained.
        """
        self._trained()
        return dict(self._card or {})

    @property
    def template(self) -> tuple[ScalarImage, ScalarImage]:
        """FA and RISH order 0 of the template, each divided by its 99th percentile."""
        template = self._trained()
        return (
            ScalarImage(template.images[0], template.affine, "template FA", ""),
            ScalarImage(template.images[1], template.affine, "template L0", ""),
        )

    @property
    def maps(self) -> dict[str, ScalarImage]:
        """Scale maps in template space by name, e.g. ``"scale l=2 b=1200"``."""
        template = self._trained()
        return {
            _map_name(bvalue, 2 * k): ScalarImage(
                maps.scales[..., k], template.affine, _map_name(bvalue, 2 * k), "ratio"
            )
            for bvalue, maps in self._maps.items()
            for k in range(maps.scales.shape[3])
        }

    def fit(
        self,
        pairs: Sequence[PairLike | tuple[Scan, Scan]],
        *,
        device: str = "auto",
        progress: Progress | None = None,
    ) -> LinearRish:
        """Train on travelling subjects; a cancelled or failed training changes nothing.

        Parameters
        ----------
        pairs
            (source, target) scans of each subject, or objects with ``source``, ``target`` and
            ``subject``.
        device, progress
            Where it runs; who is told.

        Raises
        ------
        InputError
            If there are no pairs, a subject comes twice, pairs are of several sites, or scans do
            not fit each other or cannot be aligned, with the figures.
        """
        from napari_dmri.harmonize.linear_rish_fit import train_pairs

        return self._take(*train_pairs(self, pairs, device=device, progress=progress))

    def fit_groups(
        self,
        source_scans: Sequence[Any],
        target_scans: Sequence[Any],
        *,
        device: str = "auto",
        progress: Progress | None = None,
    ) -> LinearRish:
        """Train on two groups of matched subjects, at least 10 a site.

        Parameters
        ----------
        source_scans, target_scans
            Scans, or objects whose ``load()`` returns one.

        Returns
        -------
        The model itself.

        Raises
        ------
        InputError
            If a site has fewer than 10 scans, or scans do not fit each other or cannot be
            aligned.
        """
        from napari_dmri.harmonize.linear_rish_fit import train_groups

        trained = train_groups(self, source_scans, target_scans, device=device, progress=progress)
        return self._take(*trained)

    def _take(
        self, card: dict[str, Any], template: Channels, maps: dict[float, scale_maps.ScaleMaps]
    ) -> LinearRish:
        self._card, self._template, self._maps = card, template, maps
        return self

    def _trained(self) -> Channels:
        if self._template is None:
            raise InputError(
                "This LinearRISH model is not trained; call fit(pairs) or load a model file first."
            )
        return self._template

    def check(self, scan: Scan) -> tuple[CardCheck, ...]:
        """Check the model's card against a scan, in words; its signal is not read."""
        return check_card(self.card, scan)

    def apply(self, scan: Scan, *, device: str = "auto", progress: Progress | None = None) -> Scan:
        """Harmonize a scan of the source site; see `apply_detailed`."""
        return self.apply_detailed(scan, device=device, progress=progress).scan

    def apply_detailed(
        self, scan: Scan, *, device: str = "auto", progress: Progress | None = None
    ) -> Harmonization:
        """Harmonize a scan and show how: scale maps and the template on its grid, notes.

        Raises
        ------
        InputError
            If the card does not fit the scan, or the scan cannot be aligned with the template.

        Warns
        -----
        DmriWarning
            When a training subject is harmonized.
        """
        template = self._trained()
        card, checks = self.card, self.check(scan)
        refuse_errors(checks, f"The {LABEL} model")
        notes = [
            c.sentence for c in checks if c.level == "warning" and "trained on" not in c.sentence
        ]
        report = progress or silent
        report(0.0, "mask")
        scan, made = features.with_mask(scan, part(report, 0.0, 0.1))
        if made:
            notes.append(f"{scan.name} had no mask; one was made ({int(scan.mask.sum())} voxels).")  # type: ignore[union-attr]
        orders = {float(e["bvalue"]): int(e["order"]) for e in card["shells"]}
        brain = features.measure(
            scan,
            orders,
            self.smooth,
            map_bvalue=self.map_bvalue,
            keep_sh=True,
            device=device,
            progress=part(report, 0.1, 0.25),
        )
        warp = to_template(
            template,
            brain.channels,
            scan.name,
            iterations=self.iterations,
            progress=part(report, 0.25, 0.85),
        )
        slab_axes = [axis for axis in range(3) if template.touches(axis)]
        maps: dict[str, ScalarImage] = {}
        fits = {}
        for bvalue, trained in self._maps.items():
            scales, covered = onto_scan(warp, trained, brain.mask, slab_axes)
            missing = int((brain.mask & ~covered).sum())
            if missing:
                notes.append(
                    f"{missing} of {int(brain.mask.sum())} voxels lie outside the template and "
                    f"keep a scale of 1 (b={bvalue:g})."
                )
            fits[bvalue] = scale_coefficients(brain.sh[bvalue], scales)
            for k in range(scales.shape[3]):
                name = _map_name(bvalue, 2 * k)
                maps[name] = ScalarImage(scales[..., k], scan.affine, name, "ratio")
                notes.append(at_cap(scales[..., k], brain.mask, self.cap, name))
        for image, name in zip(template.images, ("template FA", "template L0"), strict=True):
            maps[name] = ScalarImage(warp.to_moving(image), scan.affine, name, "")
        for image, name in zip(brain.channels.normalised(), ("scan FA", "scan L0"), strict=True):
            maps[name] = ScalarImage(image, scan.affine, name, "")
        harmonized, clipped = rebuild(
            scan,
            fits,
            new_bvalues=self.map_bvalue,
            device=device,
            progress=part(report, 0.85, 1.0),
        )
        if clipped:
            notes.append(f"{clipped} values of S'/b0 were clipped to [0, 1].")
        known = trained_subject(card, scan)
        if known is not None:
            words = f"The model was trained on {known}; this result says nothing about others."
            if not any(f"trained on {known}" in note for note in notes):
                notes.append(words)
            warnings.warn(words, DmriWarning, stacklevel=2)
        record = provenance(
            NAME,
            {**self.parameters, "model": card.get("sha256", "in memory")},
            inputs={"scan": scan.name, "path": str(scan.path or "")},
            citations=CITATIONS,
            simulated=bool(card["simulated"]) or scan.simulated,
            source_site=card["source_site"],
            target_site=card["target_site"],
            notes=[note for note in notes if note],
        )
        named = replace(
            harmonized,
            name=f"{scan.name} -> {card['target_site']} ({LABEL})",
            metadata={**scan.metadata, "provenance": record, "harmonized_to": card["target_site"]},
        )
        report(1.0, "harmonized")
        return Harmonization(named, maps, tuple(filter(None, notes)))

    def save(self, path: str | Path, overwrite: bool = False) -> Path:
        """Write the model: one safetensors file, and its card beside it as JSON."""
        from napari_dmri.training.checkpoint import save_checkpoint

        template = self._trained()
        tensors: dict[str, Array] = {
            "template_fa": template.images[0],
            "template_l0": template.images[1],
            "template_mask": template.mask.astype(np.uint8),
            "template_affine": template.affine,
        }
        for bvalue, maps in self._maps.items():
            tensors[f"scales_{bvalue:g}"] = maps.scales
            tensors[f"cover_{bvalue:g}"] = maps.mask.astype(np.uint8)
        return save_checkpoint(path, tensors, self.card, overwrite)

    @classmethod
    def from_checkpoint(cls, tensors: dict[str, Array], card: dict[str, Any]) -> LinearRish:
        """Build the model from what `load_checkpoint` read.

        Raises
        ------
        InputError
            If a tensor or an entry of the card is missing or of another shape.
        """
        try:
            given = card["parameters"]
            names = ("order", "smooth", "shell", "rim", "fwhm", "rounds", "tolerance", "map_bvalue")
            model = cls(
                **{name: given[name] for name in names},
                cap=tuple(given["cap"]),
                iterations=given["iterations"],
            )
            template = Channels(
                (tensors["template_fa"], tensors["template_l0"]),
                tensors["template_mask"].astype(bool),
                tensors["template_affine"],
            )
            maps = {}
            for entry in card["shells"]:
                key = f"{float(entry['bvalue']):g}"
                scales, cover = tensors[f"scales_{key}"], tensors[f"cover_{key}"]
                if scales.shape != (*template.shape, int(entry["order"]) // 2 + 1):
                    raise InputError(
                        f"The scale maps at b={key} have shape {scales.shape} and the template "
                        f"{template.shape}, order {entry['order']}; train the model anew."
                    )
                counts = tuple(entry["capped"]), tuple(entry["rim"])
                maps[float(entry["bvalue"])] = scale_maps.ScaleMaps(
                    scales, cover.astype(bool), *counts
                )
        except (KeyError, TypeError) as error:
            raise InputError(
                f"The model lacks {error} and is not a whole {LABEL} model; train it anew."
            ) from error
        return model._take(card, template, maps)


def _map_name(bvalue: float, order: int) -> str:
    return f"scale l={order} b={bvalue:g}"
