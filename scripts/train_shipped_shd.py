"""Train the networks that come with the package: python scripts/train_shipped_shd.py [NAME ...].

Simulated subjects of a population of their own (`SEED`), scanned with several protocols, so that a
network meets other directions, voxels, noise and b-values. Each has an oedema around a cavity in
its left hemisphere, as a network that has met healthy tissue alone makes fibres fainter than they
are where water dilutes them. It learns from their true fODFs first, then from the signals alone, as
a fit to a scan does (`teach_model`); its card says so. A training that was stopped goes on from its
state in build/models. On one core each takes about a quarter of an hour.

``--steps N`` and ``--size N`` (voxels an edge) make it short, to try the script itself.
"""

from __future__ import annotations

import argparse
import time
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_dmri.deconvolve.response import estimate_response
from napari_dmri.deconvolve.shd.amortise import Subject, train_model
from napari_dmri.deconvolve.shd.model import ShdModel
from napari_dmri.deconvolve.shd.shipped import FOLDER
from napari_dmri.deconvolve.shd.teach import KEPT, teach_model
from napari_dmri.errors import DmriWarning
from napari_dmri.phantom.anatomy import Lesion, make_subject
from napari_dmri.phantom.composition import sample
from napari_dmri.phantom.presets import get_scanner
from napari_dmri.phantom.travelling import field_of_view
from napari_dmri.phantom.truth import Truth
from napari_dmri.training.state import drop_state

if TYPE_CHECKING:
    from napari_dmri.phantom.scanner import Scanner

SEED = 31415
METHOD = "shd-s-tv"
DEGREE = 12
LARGEST = 4_000_000
"""Bytes of a model's file at most."""


@dataclass(frozen=True)
class Shipped:
    """Say what a model learns from: the network's shells and tissues, scanners, steps.

    The last steps, ``again``, see true fODFs once more. At b = 3000 water gives less signal than
    noise does, which signals alone explain by faint fibres in it.
    """

    bvalues: tuple[float, ...]
    others: tuple[str, ...]
    scanners: tuple[Scanner, ...]
    validation: Scanner
    steps: int = 2_600
    again: int = 0


GE, PRISMA, CLINICAL, HIGH = (
    get_scanner(name) for name in ("ge_st", "prisma_st", "clinical", "research_hr")
)

MODELS = {
    "shd-s-tv-one-shell": Shipped(
        (0.0, 1100.0),
        ("gm", "csf"),
        (
            GE,
            PRISMA,
            CLINICAL,
            replace(PRISMA, name="prisma_1000", shells=((1000.0, 64),), directions=11),
            replace(GE, name="ge_1000", shells=((1000.0, 32),), directions=12),
            replace(CLINICAL, name="clinical_20", shells=((1000.0, 20),), directions=13),
        ),
        PRISMA,
    ),
    "shd-s-tv-two-shells": Shipped(
        (0.0, 1000.0, 3000.0),
        ("gm", "csf"),
        (
            HIGH,
            replace(HIGH, name="research_24", voxel_size=2.4, directions=14),
            replace(
                HIGH, name="research_32", shells=((1000.0, 32), (2800.0, 45)), directions=15, snr=14
            ),
            get_scanner("prisma_st+b3000"),
        ),
        HIGH,
        again=400,
    ),
}


def lesion(index: int) -> Lesion:
    """Draw a subject's lesion: where in the left hemisphere, how large, how much water."""
    rng = np.random.default_rng([SEED, index, 2])
    centre = rng.uniform((-40, -50, 16), (-18, 25, 34)).tolist()
    radius, water, hole = rng.uniform((16, 0.2, 0.3), (24, 0.7, 0.5)).tolist()
    return Lesion("oedema", tuple(centre), radius, water, hole * radius)


def simulate(scanner: Scanner, index: int, size: int | None) -> Subject:
    """Scan a simulated subject, and estimate its responses."""
    person = make_subject(index, SEED).with_lesion(lesion(index))
    view = field_of_view("small" if size is None else (size, size, max(4, size // 3)))
    composition = sample(person, view.grid(scanner.voxel_size))
    clean = scanner.noise_free(person, composition)
    scan = scanner.scan(person, composition, seed=[SEED, index, 0], clean=clean)
    label = f"{person.label}-of-{SEED}"
    scan = replace(scan, metadata={**scan.metadata, "subject": label})
    target = Truth(person, composition).fod(DEGREE)
    return Subject(label, scan, estimate_response(scan), target)


def train(name: str, steps: int | None, size: int | None, folder: Path) -> Path:
    """Train one model and write it to a folder."""
    plan = MODELS[name]
    said = [0.0]

    def progress(done: float, text: str) -> None:
        if time.monotonic() - said[0] > 10:
            said[0] = time.monotonic()
            print(f"{name}: {done:.1%} {text}", flush=True)

    subjects = [simulate(scanner, i, size) for i, scanner in enumerate(plan.scanners)]
    settings: dict[str, Any] = {
        "validation": [simulate(plan.validation, len(subjects), size)],
        "others": plan.others,
        "bvalues": plan.bvalues,
        "size": "small",
        "device": "cpu",
        "on_event": lambda news: print(f"{name}: {news}") if isinstance(news, str) else None,
        "progress": progress,
    }
    states = Path(__file__).resolve().parent.parent / "build" / "models"
    states.mkdir(parents=True, exist_ok=True)
    short = f"-{steps or plan.steps}-{size}" if steps or size else ""
    state = states / f"{name}{short}.safetensors"
    before = state.with_suffix(".before.safetensors")
    if before.is_file():
        model = ShdModel.load(before)
    else:
        model = teach_model(subjects, METHOD, steps=steps or plan.steps, state=state, **settings)
        drop_state(state)
    if plan.again:
        model.save(before, overwrite=True)
        again = min(plan.again, steps or plan.again)
        alone = {part: model.card[part] for part in KEPT}
        taught = {**model.card["taught"], "signals_alone": alone}
        settings |= {"start": model, "supervised": 1.0, "steps": again, "state": state}
        model = train_model(subjects, METHOD, **settings)
        model.card["taught"] = taught
    path = model.save(folder / name, overwrite=True)
    for done in (state, before):
        drop_state(done)
    return path


def main() -> None:
    """Train the models that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(MODELS)}")
    parser.add_argument("--steps", type=int, help="steps of training")
    parser.add_argument("--size", type=int, help="voxels along an edge of the simulated scans")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where models go")
    given = parser.parse_args()
    unknown = set(given.names) - set(MODELS)
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}; choose of {', '.join(MODELS)}")
    warnings.simplefilter("ignore", DmriWarning)
    for name in given.names or MODELS:
        begun = time.monotonic()
        path = train(name, given.steps, given.size, given.folder)
        size = path.stat().st_size
        print(f"{path.name}: {size / 1e6:.2f} MB in {(time.monotonic() - begun) / 60:.1f} min")
        assert size <= LARGEST, f"{path.name} holds {size} bytes; {LARGEST} at most"


if __name__ == "__main__":
    main()
