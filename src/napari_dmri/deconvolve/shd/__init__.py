"""Spatio-hemispherical deconvolution: networks that map the shells of a scan to fODFs.

`fit_to_scan` learns from one scan, `train_model` from many, `teach_model` from known fODFs first,
`shd` applies a trained model. Names are looked up when they are first used, so that importing this
package loads no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_dmri.lazy import exports

if TYPE_CHECKING:
    from napari_dmri.deconvolve.shd.amortise import train_model
    from napari_dmri.deconvolve.shd.apply import shd
    from napari_dmri.deconvolve.shd.architecture import Architecture
    from napari_dmri.deconvolve.shd.fit import FitResult, fit_to_scan
    from napari_dmri.deconvolve.shd.forecast import forecast_fit
    from napari_dmri.deconvolve.shd.inputs import prepare
    from napari_dmri.deconvolve.shd.losses import FodLoss, LossWeights
    from napari_dmri.deconvolve.shd.model import ShdModel
    from napari_dmri.deconvolve.shd.network import SphereNetwork, build_network
    from napari_dmri.deconvolve.shd.plan import Plan
    from napari_dmri.deconvolve.shd.prepared import Prepared
    from napari_dmri.deconvolve.shd.presets import PRESETS, Preset, preset
    from napari_dmri.deconvolve.shd.shell_choice import choose_subset
    from napari_dmri.deconvolve.shd.subjects import Subject, read_subjects
    from napari_dmri.deconvolve.shd.teach import teach_model

_HOMES = {
    "Architecture": "architecture",
    "FitResult": "fit",
    "FodLoss": "losses",
    "LossWeights": "losses",
    "PRESETS": "presets",
    "Plan": "plan",
    "Prepared": "prepared",
    "Preset": "presets",
    "ShdModel": "model",
    "SphereNetwork": "network",
    "Subject": "subjects",
    "build_network": "network",
    "choose_subset": "shell_choice",
    "fit_to_scan": "fit",
    "forecast_fit": "forecast",
    "prepare": "inputs",
    "preset": "presets",
    "read_subjects": "subjects",
    "shd": "apply",
    "teach_model": "teach",
    "train_model": "amortise",
}

__all__ = [
    "PRESETS",
    "Architecture",
    "FitResult",
    "FodLoss",
    "LossWeights",
    "Plan",
    "Prepared",
    "Preset",
    "ShdModel",
    "SphereNetwork",
    "Subject",
    "build_network",
    "choose_subset",
    "fit_to_scan",
    "forecast_fit",
    "prepare",
    "preset",
    "read_subjects",
    "shd",
    "teach_model",
    "train_model",
]

__getattr__, __dir__ = exports(__name__, _HOMES)
