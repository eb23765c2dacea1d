"""Turn a scan of one site into what another site would have measured.

Methods are listed in `METHODS`; each is trained (``fit``), saved, loaded (`load`) and applied.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_dmri.lazy import exports

if TYPE_CHECKING:
    from napari_dmri.harmonize.base import (
        CardCheck,
        Harmonization,
        Harmonizer,
        Pair,
        choose_projection,
        refuse_training_subject,
    )
    from napari_dmri.harmonize.cohort import read_groups, read_pairs
    from napari_dmri.harmonize.evaluation import cross_validate
    from napari_dmri.harmonize.learned import GolkovHarmonizer, SHResNetHarmonizer
    from napari_dmri.harmonize.linear_rish import LinearRish
    from napari_dmri.harmonize.reconstruct import refit
    from napari_dmri.harmonize.registry import METHODS, Method, load
    from napari_dmri.harmonize.shipped import ShippedModel, shipped_models
    from napari_dmri.harmonize.side_by_side import SideBySide, compare_models
    from napari_dmri.harmonize.side_by_side_report import write_side_by_side

_HOMES = {
    "METHODS": "registry",
    "CardCheck": "base",
    "GolkovHarmonizer": "learned",
    "Harmonization": "base",
    "Harmonizer": "base",
    "LinearRish": "linear_rish",
    "Method": "registry",
    "Pair": "base",
    "SHResNetHarmonizer": "learned",
    "ShippedModel": "shipped",
    "SideBySide": "side_by_side",
    "choose_projection": "base",
    "compare_models": "side_by_side",
    "cross_validate": "evaluation",
    "load": "registry",
    "read_groups": "cohort",
    "read_pairs": "cohort",
    "refit": "reconstruct",
    "refuse_training_subject": "base",
    "shipped_models": "shipped",
    "write_side_by_side": "side_by_side_report",
}

__all__ = [
    "METHODS",
    "CardCheck",
    "GolkovHarmonizer",
    "Harmonization",
    "Harmonizer",
    "LinearRish",
    "Method",
    "Pair",
    "SHResNetHarmonizer",
    "ShippedModel",
    "SideBySide",
    "choose_projection",
    "compare_models",
    "cross_validate",
    "load",
    "read_groups",
    "read_pairs",
    "refit",
    "refuse_training_subject",
    "shipped_models",
    "write_side_by_side",
]

__getattr__, __dir__ = exports(__name__, _HOMES)
