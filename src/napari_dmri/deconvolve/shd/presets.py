"""The methods of the family by name: architecture, loss, plan of training, and how they run.

``size="paper"`` has the hyperparameters of the papers; ``"small"`` is for a CPU: N_side 4,
16 filters, depth 3, degree 12, 3,000 steps, with weights of the loss and gains of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from napari_dmri.deconvolve.shd.architecture import Architecture
from napari_dmri.deconvolve.shd.losses import LossWeights
from napari_dmri.deconvolve.shd.plan import TUNING, Plan
from napari_dmri.errors import InputError

__all__ = ["MODES", "PRESETS", "SIZES", "Preset", "continued", "preset"]

MODES = ("paper", "tiled")
SIZES = ("paper", "small")

TILE, SMALL_TILE = 8, 4
"""Edge of the patches that tiled training takes, and of the small size's: as many voxels of eight
places tell a step more than those of one, and with few steps that shows. After 500 steps of
SHD-S-TV on simulated clinical scans the angular error is 15.9 degrees with edge 4 (F1 0.817), and
17.9 (0.790) with edge 8.
"""

VOXELS = 16 * 3**3
"""Voxels of a step in the papers."""

SHD = (
    "Elaldi A, Gerig G, Dey N. Equivariant spatio-hemispherical networks for diffusion MRI "
    "deconvolution. NeurIPS, 2024."
)
RT_ESD = (
    "Elaldi A, Gerig G, Dey N. E(3) x SO(3)-equivariant networks for spherical deconvolution in "
    "diffusion MRI. MIDL, 2023."
)
ESD = (
    "Elaldi A, Dey N, Kim H, Gerig G. Equivariant spherical deconvolution: learning sparse "
    "orientation distribution functions from spherical data. IPMI, 2021."
)


@dataclass(frozen=True)
class Preset:
    """Hold a method: its names for people, and all that a training needs to know.

    Parameters
    ----------
    name, label, summary, reference
        Its command-line name, its name in a form, one sentence, and the paper.
    architecture, losses, plan
        The network, the loss, the plan.
    mode
        ``"paper"``: patches as in training, the middle voxel of each is kept; ``"tiled"``: whole
        tiles with a halo.
    size
        One of `SIZES`.
    equalise
        Whether the signal's orders are brought to one size first (see `gains`).
    """

    name: str
    label: str
    summary: str
    reference: str
    architecture: Architecture
    losses: LossWeights
    plan: Plan
    mode: str = "paper"
    size: str = "paper"
    equalise: bool = False

    @property
    def smooth(self) -> bool:
        """Whether neighbours' fODFs are kept alike."""
        return self.losses.spatial > 0

    def as_dict(self) -> dict[str, Any]:
        """Return what a card keeps of it."""
        return {
            "method": self.name,
            "label": self.label,
            "size": self.size,
            "mode": self.mode,
            "architecture": self.architecture.as_dict(),
            "losses": self.losses.as_dict(),
            "plan": self.plan.as_dict(),
        }


_TV = LossWeights(spatial=0.5)
_SPECTRAL = Architecture(layer="spectral", patch=TILE, border="repeat")
_CNN = Architecture(layer="convolution", filters=128)


def _listed(*presets: Preset) -> dict[str, Preset]:
    return {one.name: one for one in presets}


PRESETS: dict[str, Preset] = _listed(
    Preset(
        "shd-s-tv",
        "SHD-S-TV",
        "SHD-TV with spectral layers: rotation-equivariant, many times faster, whole tiles.",
        SHD,
        _SPECTRAL,
        _TV,
        Plan(batch=1),
        "tiled",
        equalise=True,
    ),
    Preset(
        "shd-s",
        "SHD-S",
        "SHD with spectral layers, without the wish that neighbours be alike.",
        SHD,
        _SPECTRAL,
        LossWeights(),
        Plan(batch=1),
        "tiled",
        equalise=True,
    ),
    Preset(
        "shd-tv",
        "SHD-TV",
        "Network on voxels and directions whose neighbouring fODFs are kept alike: best at low "
        "resolution.",
        SHD,
        Architecture(),
        _TV,
        Plan(),
    ),
    Preset(
        "shd",
        "SHD",
        "Equivariant network on voxels and half spheres of directions.",
        SHD,
        Architecture(),
        LossWeights(),
        Plan(),
    ),
    Preset(
        "rt-esd",
        "RT-ESD",
        "SHD's predecessor on whole spheres: the same quality, 2.5 times slower to train.",
        RT_ESD,
        Architecture(hemisphere=False, full_head=True),
        LossWeights(),
        Plan(),
    ),
    Preset(
        "esd",
        "ESD",
        "Equivariant network on directions alone, each voxel by itself.",
        ESD,
        Architecture(patch=1),
        LossWeights(),
        Plan(),
    ),
    Preset(
        "cnn",
        "CNN",
        "Baseline: a convolutional network on SH coefficients, equivariant to shifts alone.",
        SHD,
        _CNN,
        LossWeights(),
        Plan(),
    ),
    Preset(
        "cnn-tv",
        "CNN-TV",
        "Baseline: the CNN, with neighbouring fODFs kept alike.",
        SHD,
        _CNN,
        _TV,
        Plan(),
    ),
    Preset(
        "mlp",
        "MLP",
        "Baseline: a network on the SH coefficients of each voxel by itself.",
        SHD,
        replace(_CNN, patch=1),
        LossWeights(),
        Plan(),
    ),
    Preset(
        "concat-so3",
        "Concat-SO(3)",
        "Comparison: neighbours' spheres side by side as features, filtered along directions.",
        SHD,
        Architecture(layer="concat-so3"),
        LossWeights(),
        Plan(),
    ),
    Preset(
        "e3-sh",
        "E(3)-SH",
        "Comparison: isotropic spatial filters on SH coefficients.",
        SHD,
        Architecture(layer="e3-sh"),
        LossWeights(),
        Plan(),
    ),
)
"""All methods of the family, in the order in which they are offered, at the papers' size."""

SMALL_STEPS, SMALL_LR = 3000, 1e-2
"""Steps of the small size, a fifteenth of the papers', and the rate that they ask for: after 600
steps of SHD-TV on simulated clinical scans F1 is 0.746 with it, and 0.695 with the papers' 0.0017.
"""

SMALL_NON_NEGATIVITY, SMALL_SPARSITY, SMALL_SPATIAL = 1.0, 2e-4, 10.0
"""Weights of the loss, and a factor for smoothness. Minimised over fODFs themselves, without any
network, on a block of the validation subject of the protocol low (`benchmarks/fod_loss.py`), the
loss with the papers' weights has an angular error of 25.4 degrees (F1 0.716), and with these one of
15.5 (0.814); constrained deconvolution has 22.7 there. SHD-S-TV after 1000 steps: 23.4 (0.754) with
the papers' weights, 17.9 (0.804) with these and gains.
"""


def preset(name: str, size: str = "paper", mode: str | None = None) -> Preset:
    """Return a method by its name.

    Parameters
    ----------
    name
        A name in `PRESETS`.
    size
        ``"paper"`` or ``"small"``.
    mode
        ``"tiled"`` trains a method of the papers on larger patches, to predict whole tiles; None
        leaves it as it is.

    Raises
    ------
    InputError
        If there is no such method or size, or the method does not run in the mode.
    """
    if name not in PRESETS:
        raise InputError(f"Unknown method {name!r}; choose one of {', '.join(PRESETS)}.")
    if size not in SIZES:
        raise InputError(f"Unknown size {size!r}; choose one of {', '.join(SIZES)}.")
    chosen = PRESETS[name]
    if mode is not None and mode != chosen.mode:
        chosen = _in_mode(chosen, mode)
    return chosen if size == "paper" else _small(chosen)


def _in_mode(chosen: Preset, mode: str) -> Preset:
    if mode not in MODES:
        raise InputError(f"Unknown mode {mode!r}; choose one of {', '.join(MODES)}.")
    if mode == "paper" or chosen.architecture.patch == 1:
        raise InputError(
            f"{chosen.label} runs in {chosen.mode} mode alone: its "
            + ("patches are of an even edge." if mode == "paper" else "voxels are independent.")
        )
    architecture = replace(chosen.architecture, patch=TILE, full_head=False)
    if architecture.repeats:
        architecture = replace(architecture, border="repeat")
    return replace(
        chosen,
        architecture=architecture,
        plan=replace(chosen.plan, batch=max(1, VOXELS // TILE**3)),
        mode=mode,
    )


def continued(chosen: Preset, architecture: Architecture, mode: str) -> Preset:
    """Return a method that goes on with a trained network, on as many voxels a step as before."""
    voxels = chosen.plan.batch * chosen.architecture.patch**3
    batch = max(1, round(voxels / architecture.patch**3))
    plan = replace(chosen.plan, batch=batch, lr=chosen.plan.lr * TUNING)
    return replace(chosen, architecture=architecture, mode=mode, plan=plan)


def _small(chosen: Preset) -> Preset:
    """Return a method at the size for a CPU."""
    plain = chosen.architecture
    filters = 64 if plain.layer == "convolution" else 16
    architecture = replace(plain, n_side=4, filters=filters, depth=3, degree=12)
    plan = replace(chosen.plan.shortened(SMALL_STEPS), lr=SMALL_LR)
    if chosen.mode == "tiled":
        architecture = replace(architecture, patch=SMALL_TILE)
        plan = replace(plan, batch=plan.batch * (TILE // SMALL_TILE) ** 3)
    if plain.patch == 1:
        # A step of the papers' 16 voxels alone costs a CPU little less than one of 432.
        plan = replace(plan, batch=VOXELS)
    losses = chosen.losses.changed(
        {
            "non_negativity": SMALL_NON_NEGATIVITY,
            "sparsity": SMALL_SPARSITY,
            "spatial": SMALL_SPATIAL * chosen.losses.spatial,
        }
    )
    return replace(
        chosen, architecture=architecture, losses=losses, plan=plan, size="small", equalise=True
    )
