"""The whole path in the real viewer: open, check, fit, harmonize, compare; pictures and numbers.

With a display the window stays open at the end; without one it runs the same under Xvfb, pressing
the docks' own buttons. Everything that is made lies in one folder.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
from pathlib import Path
from typing import Any

from rich.console import Console

from napari_dmri.errors import InputError

__all__ = ["run_demo"]

MARK = "demo.json"
SUBJECTS = 1
"""One person; the models of the package were trained on others."""

MODEL = "demo-shresnet"
SITES = ("ge_st", "prisma_st")
SEED = 7
SIZE: str | tuple[int, int, int] = "small"
PATHS = ("source", "target", "source_mask", "target_mask", "target_repeat")


def run_demo(
    scan: str | Path | None = None,
    out: str | Path = "demo_output",
    headless: bool | None = None,
) -> Path:
    """Run the demo and return its folder.

    Parameters
    ----------
    scan
        A scan of one's own: load, QC, mask, SH fit and maps. None simulates a travelling subject,
        harmonizes it with a model of the package, and compares all of these models.
    out
        Where results go: a new folder, or one that this demo made (its results are replaced, its
        simulated subjects used again).
    headless
        Close the window at the end; None asks the environment (``NAPARI_DMRI_HEADLESS``).

    Raises
    ------
    InputError
        If the folder holds something else, or the scan cannot be read.
    """
    console = Console()

    def say(text: str) -> None:
        console.print(text, soft_wrap=True, highlight=False, markup=False)

    if headless is None:
        headless = bool(os.environ.get("NAPARI_DMRI_HEADLESS"))
    folder = _prepare(Path(out))
    if scan is None:
        say("Simulating a travelling subject (one person, two scanners) ...")
        pairs = _simulate(folder / "simulated")

    import napari

    from napari_dmri.viewer.demo_stages import own_scan, travelling_subject
    from napari_dmri.viewer.launch import open_docks

    viewer = napari.Viewer(title="napari-dmri", show=True)
    viewer.window.resize(1560, 940)
    try:
        docks = open_docks(viewer)
        if scan is None:
            travelling_subject(viewer, docks, pairs[-1], folder, say)
        else:
            own_scan(viewer, docks, Path(scan), folder, say)
    except BaseException:
        viewer.close()
        raise
    say(f"Everything is in {folder}{os.sep}")
    if headless:
        viewer.close()
    else:
        say("The window stays open: try the docks on the right.")
        napari.run()
    return folder


def _prepare(folder: Path) -> Path:
    """Make the folder, or clear what an earlier demo left in it."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; name a folder for the demo's results.")
    if folder.is_dir() and any(folder.iterdir()):
        if not (folder / MARK).is_file():
            raise InputError(
                f"{folder} is not empty and was not made by this demo; name another folder."
            )
        for item in folder.iterdir():
            if item.name == "simulated":
                continue
            if item.is_dir():
                shutil.rmtree(item)
            else:
                item.unlink()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARK).write_text(json.dumps({"made_by": "napari-dmri demo"}) + "\n")
    return folder


def _simulate(folder: Path) -> list[dict[str, Any]]:
    """Make the travelling subject, or take the one that is there; return one row a subject."""
    from rich.progress import Progress

    from napari_dmri.phantom.travelling import make_travelling

    def make(resume: bool) -> None:
        with Progress() as bar:
            task = bar.add_task("simulating", total=1.0)
            make_travelling(
                folder,
                subjects=SUBJECTS,
                sites=SITES,
                size=SIZE,
                seed=SEED,
                resume=resume,
                truth=False,
                progress=lambda done, text: bar.update(task, completed=done, description=text),
            )

    try:
        make(resume=folder.exists())
    except InputError:
        # Left by a demo with other scanners or another seed: it is this demo's own folder.
        shutil.rmtree(folder, ignore_errors=True)
        make(resume=False)
    with (folder / "pairs.tsv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    return [{"subject": row["subject"], **{c: folder / row[c] for c in PATHS}} for row in rows]
