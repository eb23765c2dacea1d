"""Options of the verbs of networks, and how their words are read."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from napari_dmri.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "ModeOption",
    "RuleOption",
    "SeedOption",
    "SizeOption",
    "StartOption",
    "StepsOption",
    "TissuesOption",
    "WeightOption",
    "bvalues_of",
    "rule_of",
    "tissues_of",
    "weights_of",
]

SizeOption = Annotated[
    str | None,
    typer.Option(help="small or paper; paper on a GPU and small elsewhere without it."),
]
TissuesOption = Annotated[
    str | None,
    typer.Option(
        help="Tissues besides white matter: gm,csf, csf, gm or none; without it all that have a "
        "response, and as many as b-values in a fit to one scan."
    ),
]
ModeOption = Annotated[
    str | None,
    typer.Option(
        help="paper (patches of 3 voxels) or tiled (of 8, predicts whole tiles); the method's own "
        "without it."
    ),
]
RuleOption = Annotated[
    str | None,
    typer.Option(
        help="How shells are fitted: safe (distinct directions, smoothed where they lie badly) or "
        "paper; safe, or that of --start, without it."
    ),
]
WeightOption = Annotated[
    list[str] | None,
    typer.Option(
        help="A weight of the loss other than the method's, e.g. sparsity=1e-3; may be repeated."
    ),
]
StepsOption = Annotated[int | None, typer.Option(help="Steps of training in all.")]
SeedOption = Annotated[int, typer.Option(help="Of weights and batches.", min=0)]
StartOption = Annotated[
    Path | None,
    typer.Option(help="A trained model to begin from (a file, or a model of the package)."),
]


def tissues_of(text: str | None) -> tuple[str, ...] | None:
    """Read a list of tissues besides white matter; none is the word for no others.

    Raises
    ------
    InputError
        If one is unknown or comes twice.
    """
    from napari_dmri.deconvolve.shd.inputs import check_others

    if text is None:
        return None
    words = [w.strip().lower() for w in text.split(",") if w.strip()]
    return check_others([w for w in words if w not in ("none", "wm")])


def weights_of(given: Sequence[str] | None) -> dict[str, float | str]:
    """Read weights of the loss, NAME=VALUE each.

    Raises
    ------
    InputError
        If one is written in another way; names and values are judged by `LossWeights`.
    """
    found: dict[str, float | str] = {}
    for text in given or ():
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            raise InputError(f"--weight {text}: write NAME=VALUE, e.g. sparsity=1e-3.")
        try:
            found[name.strip()] = float(value)
        except ValueError:
            found[name.strip()] = value.strip()
    return found


def bvalues_of(text: str | None) -> tuple[float, ...] | None:
    """Read a list of b-values in s/mm², b0 first; it is put there if it is missing.

    Raises
    ------
    InputError
        If one is not a number.
    """
    if text is None:
        return None
    try:
        values = sorted({float(word) for word in text.split(",") if word.strip()})
    except ValueError:
        raise InputError(f"--bvalues {text}: give numbers in s/mm², e.g. 0,1000,3000.") from None
    if not all(0 <= value < math.inf for value in values):
        raise InputError(f"--bvalues {text}: b-values are 0 or more, e.g. 0,1000,3000.")
    return (*(() if values and values[0] <= 50 else (0.0,)), *values)


def rule_of(text: str | None) -> str | None:
    """Read how shells are fitted.

    Raises
    ------
    InputError
        If the rule is unknown.
    """
    from napari_dmri.deconvolve.shd.order_rule import RULES

    if text is not None and text not in RULES:
        raise InputError(f"--rule {text}: choose one of {', '.join(RULES)}.")
    return text
