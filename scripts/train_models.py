"""Train the models that come with the package: python scripts/train_models.py [NAME ...].

Simulated travelling subjects of a population of their own (`SEED`), so that nobody in the sample
files, the demo or the tests was trained on. A training that was stopped goes on from its state in
build/models. On one core the four take about a quarter of an hour.
"""

from __future__ import annotations

import sys
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

from napari_dmri.errors import DmriWarning
from napari_dmri.harmonize import METHODS, Pair
from napari_dmri.harmonize.learned import PAPER_STAGES
from napari_dmri.harmonize.shipped import FOLDER, ORDER
from napari_dmri.phantom.travelling import simulate_subject

SITES = ("ge_st", "prisma_st")
SEED = 2718
SUBJECTS = 5
"""The last of them chooses the best epoch of the networks."""

EPOCHS = {"demo-golkov": 20, "demo-shresnet": 10, "demo-shresnet-tiled": 20}
"""Of the second stage, at most: validation improves little after so many."""

LARGEST = 2_000_000

SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "demo-linear-rish": ("linear-rish", {}),
    "demo-golkov": ("golkov", {}),
    "demo-shresnet": ("shresnet", {"blocks": 2, "mode": "paper"}),
    "demo-shresnet-tiled": ("shresnet", {"blocks": 2, "mode": "tiled"}),
}


def make_pairs() -> list[Pair]:
    """Simulate the training subjects, under names that no other simulated subject has."""
    pairs = []
    for index in range(SUBJECTS):
        made = simulate_subject(index, sites=SITES, size="small", seed=SEED, repeats=False)
        label = f"{made.subject}-of-{SEED}"
        scans = [
            replace(made.scans[site], metadata={**made.scans[site].metadata, "subject": label})
            for site in SITES
        ]
        pairs.append(Pair(scans[0], scans[1], label))
    return pairs


def train(name: str, pairs: list[Pair]) -> Path:
    """Train one model and write it into the package."""
    method, settings = SETTINGS[name]
    said = [0.0]

    def progress(done: float, text: str) -> None:
        if time.monotonic() - said[0] > 10:
            said[0] = time.monotonic()
            print(f"{name}: {done:.0%} {text}", flush=True)

    if method == "linear-rish":
        model = METHODS[method].make(**settings).fit(pairs, device="cpu", progress=progress)
        return model.save(FOLDER / name, overwrite=True)
    first, second = PAPER_STAGES
    model = METHODS[method].make(
        **settings, seed=0, stages=(first, replace(second, epochs=EPOCHS[name]))
    )
    folder = Path(__file__).resolve().parent.parent / "build" / "models"
    folder.mkdir(parents=True, exist_ok=True)
    state = folder / f"{name}.safetensors"
    model.fit(pairs, device="cpu", progress=progress, state=state)
    path = model.save(FOLDER / name, overwrite=True)
    for file in (state, state.with_suffix(".json")):
        file.unlink(missing_ok=True)
    return path


def main() -> None:
    """Train what is named, or all."""
    chosen = sys.argv[1:] or list(ORDER)
    warnings.simplefilter("ignore", DmriWarning)
    FOLDER.mkdir(exist_ok=True)
    pairs = make_pairs()
    for name in chosen:
        begun = time.process_time()
        path = train(name, pairs)
        size = path.stat().st_size
        if size > LARGEST:
            raise SystemExit(f"{path.name} has {size} bytes; {LARGEST} are allowed.")
        print(f"{path.name}: {size / 1e6:.2f} MB, {time.process_time() - begun:.0f} s of CPU")


if __name__ == "__main__":
    main()
