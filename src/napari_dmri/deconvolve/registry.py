"""The methods that deconvolve, by their command-line names: what they need, and what can be set.

The dock and the command line read this list, so that a method that joins it appears in both.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from napari_dmri.deconvolve.base import TISSUES, Deconvolution, ResponseSet
from napari_dmri.deconvolve.csd import SHARPEST
from napari_dmri.deconvolve.shd.forecast import voxel_pace
from napari_dmri.deconvolve.shd.presets import PRESETS
from napari_dmri.errors import InputError
from napari_dmri.images import n_coefficients

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from napari_dmri.images import Response
    from napari_dmri.progress import Progress
    from napari_dmri.scan import GradientTable, Scan

__all__ = ["METHODS", "Method", "Setting", "deconvolve", "suggest_method"]


@dataclass(frozen=True)
class Setting:
    """Describe one setting of a method, so that docks and commands can offer it.

    Parameters
    ----------
    name, label, tip
        The solver's keyword, its label in a form, and what it does in one sentence.
    default
        Its default; None is shown as "auto".
    choices
        All values allowed, where they can be listed.
    low, high, step
        Bounds and step of a number.
    """

    name: str
    label: str
    default: Any
    tip: str
    choices: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 1.0
    step: float = 1.0

    def check(self, value: Any, method: str) -> Any:
        """Return a value of the default's type.

        Raises
        ------
        InputError
            If it is not one of the choices, not a number, or out of bounds.
        """
        if value is None and self.default is None:
            return None
        if self.choices:
            if value not in self.choices:
                listed = ", ".join("auto" if c is None else str(c) for c in self.choices)
                raise InputError(f"{self.name} = {value} of {method}; choose one of {listed}.")
            return value
        if isinstance(self.default, bool):
            return bool(value)
        kind = int if isinstance(self.default, int) else float
        try:
            number = kind(value)
        except (TypeError, ValueError):
            raise InputError(f"{self.name} = {value!r} of {method} is not a number.") from None
        if not self.low <= number <= self.high:
            raise InputError(
                f"{self.name} = {number:g} of {method}; expected {self.low:g} to {self.high:g}."
            )
        return number


@dataclass(frozen=True)
class Method:
    """Describe a method without importing it.

    Parameters
    ----------
    name, label, summary, reference
        Its command-line name, its name in a form, one sentence, and the paper.
    target
        ``"module:function"``, called as ``function(scan, responses, **settings)``.
    tissues
        The tissues that it tells apart by how they decay: it needs a b-value for each of them that
        has a response.
    settings
        What can be set.
    presets
        Keywords by the name of a preset, which the setting ``preset`` offers.
    fixed
        Keywords that make the method what it is.
    shell
        Which it takes where ``shell=`` is not given, ``"highest"`` or ``"all"``; empty for a
        method that always uses every volume.
    maps
        Names of the maps that it gives.
    pace, pace_order
        Voxels a second on two cores with the defaults, for a forecast, and the SH order that this
        is at: the cost grows with the square of the number of coefficients. 0 where the order does
        not matter.
    family
        ``"classical"``, solved voxel by voxel, or ``"networks"``, which need a model.
    """

    name: str
    label: str
    summary: str
    reference: str
    target: str
    tissues: tuple[str, ...] = ("wm",)
    settings: tuple[Setting, ...] = ()
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    shell: str = ""
    maps: tuple[str, ...] = ("residual",)
    pace: float = 1000.0
    pace_order: int = 0
    family: str = "classical"

    def load(self) -> Callable[..., Deconvolution]:
        """Import the function."""
        module, name = self.target.split(":")
        function: Callable[..., Deconvolution] = getattr(importlib.import_module(module), name)
        return function

    @property
    def defaults(self) -> dict[str, Any]:
        """The settings' defaults by name."""
        return {setting.name: setting.default for setting in self.settings}

    def forecast(self, voxels: int, settings: Mapping[str, Any] | None = None) -> float:
        """Return about how many seconds some voxels take on two cores."""
        seconds = voxels / self.pace
        given = self.keywords(settings or {})
        if self.pace_order and given.get("order"):
            seconds *= (n_coefficients(given["order"]) / n_coefficients(self.pace_order)) ** 2
        if "iterations" in self.defaults:
            seconds *= _steps(given) / _steps(self.defaults)
        return seconds

    def keywords(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Check settings and return what the function is called with.

        A preset sets what is left at its default.

        Raises
        ------
        InputError
            If the method does not take one of them, or not that value.
        """
        known = {setting.name: setting for setting in self.settings}
        more = ("shell",) if self.shell else ("model", "mode") * (self.family == "networks")
        chosen = {}
        for name, value in settings.items():
            if name in more:
                chosen[name] = value
            elif name in known:
                chosen[name] = known[name].check(value, self.label)
            else:
                raise InputError(
                    f"{self.label} does not take {name}; it takes {', '.join((*known, *more))}."
                )
        preset = self.presets.get(chosen.pop("preset", ""), {})
        usual = {name: value for name, value in self.defaults.items() if name != "preset"}
        own = {k: v for k, v in chosen.items() if k not in preset or v != usual.get(k)}
        return {**usual, **preset, **own, **self.fixed}

    def problem(
        self, gradients: GradientTable, responses: Mapping[str, Response] | None = None
    ) -> str:
        """Say in one sentence why the method cannot be used on a scan, or nothing.

        Parameters
        ----------
        gradients
            The scan's gradient table.
        responses
            The responses at hand; None where they are still to be estimated.
        """
        shells = gradients.weighted_shells
        if not shells:
            return "The scan has no diffusion-weighted shell; check the bval file."
        apart = [t for t in self.tissues if responses is None or t in responses]
        have = len(gradients.shells)
        if have < len(apart):
            listed = ", ".join(f"{s.bvalue:g}" for s in gradients.shells)
            return (
                f"{self.label} tells {len(apart)} tissues apart by {len(apart)} b-values or more, "
                f"with b0; this scan has {have} ({listed} s/mm²): choose CSD."
            )
        return ""


ORDERS = (4, 6, 8, 10, 12, 14, 16)


def fod_order(default: int | None) -> Setting:
    """Describe the order of the fODF; None leaves it to the method."""
    tip = "Highest degree of the fODF; more than the directions support is super-resolution."
    choices = ORDERS if default else (None, *ORDERS)
    return Setting("order", "SH order", default, tip, choices=choices)


REGULARISER = Setting("regulariser", "Regulariser", 1e-3, "Weight of the fODF's norm; more damps "
                      "noise and blurs.", low=1e-6, high=1.0, step=5e-4)  # fmt: skip

NOISE = Setting("noise", "Noise", "gaussian", "Gaussian is the usual; Rician takes the noise "
                "floor of magnitudes into account.", choices=("gaussian", "rician"))  # fmt: skip

PRESET = Setting("preset", "Preset", "standard", "Sharpest: order 16 from all shells with Rician "
                 "noise and a hard constraint. Finds the most crossings in scans with several "
                 "shells; two to three times slower. What is set otherwise below stays.",
                 choices=("standard", "sharpest"))  # fmt: skip

HARDNESS = Setting("hardness", "Hardness", None, "Cost of negative amplitudes, inf to forbid them: "
                   "soft parts close fibres, hard keeps noise out. Auto goes by order and noise.",
                   choices=(None, 0.4, 1.0, 3.0, 8.0, 20.0, float("inf")))  # fmt: skip

_RUMBA_SETTINGS = (
    Setting("iterations", "Iterations", 1200, "Richardson-Lucy steps; more sharpen the fODF. The "
            "paper has 600 without acceleration; 1200 find more crossings in simulations.",
            low=1, high=5000, step=50),
    Setting("accelerate", "Accelerate", True, "Extrapolate between steps: the work of 1200 in "
            "about 92, and nearly the same fODF."),
    fod_order(12),
)  # fmt: skip

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method(
            name="csd",
            label="CSD",
            summary="Constrained spherical deconvolution of one shell: fast, white matter only.",
            reference="Tournier et al., NeuroImage 35:1459-1472, 2007",
            target="napari_dmri.deconvolve.csd:csd",
            settings=(PRESET, fod_order(None), HARDNESS, REGULARISER, NOISE),
            presets={"sharpest": SHARPEST},
            shell="highest",
            pace=30_000,
            pace_order=12,
        ),
        Method(
            name="msmt-csd",
            label="MSMT-CSD",
            summary="All shells at once: white matter's fODF beside grey matter and CSF.",
            reference="Jeurissen et al., NeuroImage 103:411-426, 2014",
            target="napari_dmri.deconvolve.msmt:msmt_csd",
            tissues=TISSUES,
            settings=(fod_order(None), REGULARISER, NOISE),
            maps=("residual", "gm", "csf"),
            pace=22_000,
            pace_order=10,
        ),
        Method(
            name="rumba",
            label="RUMBA-SD",
            summary="Richardson-Lucy with the noise of magnitude images: robust at low SNR.",
            reference="Canales-Rodríguez et al., PLoS ONE 10:e0138910, 2015",
            target="napari_dmri.deconvolve.rumba:rumba",
            settings=_RUMBA_SETTINGS,
            fixed={"total_variation": False},
            shell="all",
            maps=("residual", "noise", "gm", "csf"),
            pace=8_000,
        ),
        Method(
            name="rumba-tv",
            label="RUMBA-TV",
            summary="RUMBA-SD that also smooths along space by total variation.",
            reference="Canales-Rodríguez et al., PLoS ONE 10:e0138910, 2015",
            target="napari_dmri.deconvolve.rumba:rumba",
            settings=_RUMBA_SETTINGS,
            fixed={"total_variation": True},
            shell="all",
            maps=("residual", "noise", "gm", "csf"),
            pace=3_500,
        ),
        *(
            Method(
                name=one.name,
                label=one.label,
                summary=one.summary,
                reference=one.reference,
                target="napari_dmri.deconvolve.shd.apply:shd",
                fixed={"method": one.name},
                maps=("residual", "gm", "csf"),
                pace=voxel_pace(one.name),
                family="networks",
            )
            for one in PRESETS.values()
        ),
    )
}
"""All deconvolution methods, in the order in which they are offered."""


def _steps(settings: Mapping[str, Any]) -> float:
    """Return the work of RUMBA-SD's iterations in plain steps."""
    plain = float(settings["iterations"])
    return min(plain, (7 * plain) ** 0.5) if settings["accelerate"] else plain


def method_named(name: str) -> Method:
    """Return a method by its command-line name.

    Raises
    ------
    InputError
        If there is none.
    """
    if name not in METHODS:
        raise InputError(f"Unknown method {name!r}; choose one of {', '.join(METHODS)}.")
    return METHODS[name]


def deconvolve(
    scan: Scan,
    method: str,
    responses: ResponseSet | Response,
    *,
    device: str = "auto",
    progress: Progress | None = None,
    **settings: Any,
) -> Deconvolution:
    """Run a method by its name.

    Parameters
    ----------
    scan
        The scan; its mask restricts the voxels.
    method
        A name in `METHODS`.
    responses
        The responses of the tissues that it needs, from `estimate_response` or `read_responses`.
    device, progress
        Where it runs and who is told.
    settings
        Settings of the method; ``mask``, voxels to deconvolve instead of those of the scan's mask,
        of which networks still see all; ``shell`` where a method takes it; of networks ``model``
        (a model or its file, None for one of the package) and ``mode``. What is not given has the
        method's default here, which for RUMBA-SD is accelerated, with 1200 iterations.

    Raises
    ------
    InputError
        If the method is not known, does not take a setting, or cannot be used on the scan.
    """
    chosen = method_named(method)
    if not isinstance(responses, ResponseSet):
        responses = ResponseSet({responses.tissue: responses})
    problem = chosen.problem(scan.gradients, responses)
    if problem:
        raise InputError(problem)
    mask = settings.pop("mask", None)
    passed = chosen.keywords(settings)
    if mask is not None and chosen.family == "networks":
        # They see the neighbours of what they deconvolve.
        passed["mask"] = mask
    elif mask is not None:
        scan = scan.with_mask(mask)
    return chosen.load()(scan, responses, device=device, progress=progress, **passed)


def suggest_method(scan: Scan, responses: Mapping[str, Response] | None = None) -> str:
    """Name the method to begin with: MSMT-CSD for several shells and tissues, else CSD.

    Parameters
    ----------
    scan
        The scan.
    responses
        The responses at hand; None where they are still to be estimated.
    """
    several = METHODS["msmt-csd"]
    alone = responses is not None and not {"gm", "csf"} & set(responses)
    return "csd" if alone or several.problem(scan.gradients, responses) else several.name
