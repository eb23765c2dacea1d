"""Write simulated subjects as a BIDS-like folder: scans, repeats, masks, truth, pairs table.

Layout, for subject ``sub-01`` and site ``ge_st``::

    dataset_description.json  participants.tsv  pairs.tsv  simulation.json
    sub-01/ses-gest/dwi/sub-01_ses-gest_run-1_dwi.nii.gz (+ bval, bvec, json), run-2: the repeat
    derivatives/truth/sub-01/res-2p4/  mask, tissue, directions, fractions, fODFs, bundles, ends
    derivatives/truth/sub-01/ses-gest/ noise-free signal, response_wm|gm|csf.txt

A subject's folder is complete once ``derivatives/truth/sub-01/done.json`` is there, which is how
an interrupted run is resumed.
"""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_dmri.errors import InputError
from napari_dmri.images import ScalarImage
from napari_dmri.phantom.bundles import bundle_names
from napari_dmri.phantom.presets import get_scanner
from napari_dmri.phantom.truth import responses
from napari_dmri.progress import Progress, part, silent

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from napari_dmri.phantom.anatomy import Lesion
    from napari_dmri.phantom.truth import Truth

__all__ = ["make_travelling"]

FOD_ORDERS = (8, 18)
ALL_SHELLS_ORDER = 10


def make_travelling(
    out: str | Path,
    *,
    subjects: int = 10,
    sites: Sequence[str] = ("ge_st", "prisma_st"),
    size: str | tuple[int, int, int] = "small",
    seed: int = 7,
    resume: bool = False,
    workers: int | None = None,
    truth: bool = True,
    lesion: Lesion | None = None,
    progress: Progress | None = None,
) -> Path:
    """Simulate travelling subjects into a BIDS-like folder.

    Parameters
    ----------
    out
        A folder that is empty or not there yet.
    subjects
        How many.
    sites
        Names of presets. In ``pairs.tsv`` every other site is a source and the last the target.
    size
        ``small``, ``medium`` or ``full``, or a count of 2.4 mm voxels along each axis.
    seed
        The population; the same seed gives the same bytes.
    resume
        Go on in a folder that an earlier call with the same settings has begun.
    workers
        Processes, one subject each at a time; None takes the number of cores, up to 4.
    truth
        Whether to write the truth (the larger part of the folder).
    lesion
        A lesion for every subject, for tests of safety.
    progress
        Told as subjects are done; may raise `Cancelled`, which stops between subjects.

    Returns
    -------
    The path of ``pairs.tsv``.

    Raises
    ------
    InputError
        If a site or size is unknown, the count is not positive, the folder is not empty (without
        ``resume``), or was begun with other settings.
    """
    from napari_dmri.phantom.travelling import check_sites, field_of_view

    if subjects < 1:
        raise InputError(f"{subjects} subjects asked for; at least 1 is needed.")
    if seed < 0:
        raise InputError(f"The seed is {seed}; it must be 0 or more.")
    if workers is not None and workers < 1:
        raise InputError(f"{workers} workers asked for; at least 1 is needed.")
    check_sites(sites)
    field_of_view(size)
    settings: dict[str, Any] = {
        "Simulated": True,
        "sites": list(sites),
        "size": size if isinstance(size, str) else list(size),
        "seed": seed,
        "truth": truth,
        "lesion": None if lesion is None else asdict(lesion),
        "scanners": [asdict(get_scanner(name)) for name in sites],
    }
    settings = json.loads(json.dumps(settings))
    folder = _prepare(Path(out).expanduser(), settings, resume)
    waiting = [i for i in range(subjects) if not _done_file(folder, i).is_file()]
    _run(folder, settings, lesion, waiting, subjects, workers, progress)
    return _write_tables(folder, subjects, sites, truth)


def _prepare(folder: Path, settings: dict[str, Any], resume: bool) -> Path:
    """Make or check the folder."""
    from napari_dmri.io.atomic import write_json

    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; give a folder.")
    found = sorted(p.name for p in folder.iterdir()) if folder.is_dir() else []
    card = folder / "simulation.json"
    if found and not resume:
        raise InputError(
            f"{folder} is not empty ({len(found)} entries, {found[0]} among them); choose an empty "
            "folder, or resume (--resume) one that was begun with the same settings."
        )
    if found and not card.is_file():
        raise InputError(
            f"{folder} holds {len(found)} entries and no simulation.json, so there is nothing to "
            "resume; choose an empty folder."
        )
    if card.is_file():
        before = json.loads(card.read_text())
        different = [k for k in settings if before.get(k) != settings[k]]
        if different:
            said = "; ".join(f"{k}: {before.get(k)} then, {settings[k]} now" for k in different)
            raise InputError(f"{folder} was begun with other settings ({said}); use the same.")
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    write_json(
        folder / "dataset_description.json",
        {
            "Name": "Simulated travelling subjects",
            "BIDSVersion": "1.10.0",
            "DatasetType": "raw",
            "Simulated": True,
            "GeneratedBy": [{"Name": "napari-dmri phantom"}],
        },
    )
    write_json(card, settings)
    return folder


def _run(
    folder: Path,
    settings: dict[str, Any],
    lesion: Lesion | None,
    waiting: list[int],
    subjects: int,
    workers: int | None,
    progress: Progress | None,
) -> None:
    """Write the subjects that are missing, in this process or in several."""
    report = progress or silent
    processes = min(workers or min(os.cpu_count() or 1, 4), len(waiting))
    script = getattr(sys.modules["__main__"], "__file__", None)
    if script is not None and not Path(script).exists():
        processes = 1  # Code from standard input cannot be started again in another process.
    done = subjects - len(waiting)
    if processes <= 1:
        for n, index in enumerate(waiting):
            steps = part(progress, (done + n) / subjects, (done + n + 1) / subjects)
            _write_subject(folder, settings, lesion, index, steps)
    else:
        from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
        from concurrent.futures.process import BrokenProcessPool
        from multiprocessing import get_context

        with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
            running = {pool.submit(_write_subject, folder, settings, lesion, i) for i in waiting}
            try:
                while running:
                    ready, running = wait(running, timeout=0.25, return_when=FIRST_COMPLETED)
                    for future in ready:
                        future.result()
                    done += len(ready)
                    report(done / subjects, f"{done} of {subjects} subjects")
            except BrokenProcessPool as error:
                raise InputError(
                    f"{processes} worker processes could not start or were killed; call from "
                    'under `if __name__ == "__main__":` in a script, or use one worker.'
                ) from error
            except BaseException:
                for future in running:
                    future.cancel()
                raise
    report(1.0, f"{subjects} of {subjects} subjects")


def _write_subject(
    folder: Path,
    settings: Mapping[str, Any],
    lesion: Lesion | None,
    index: int,
    progress: Progress | None = None,
) -> None:
    """Write one subject; its done file comes last."""
    from napari_dmri.io import write_scan
    from napari_dmri.io.atomic import write_json
    from napari_dmri.phantom.travelling import simulate_subject

    size = settings["size"]
    made = simulate_subject(
        index,
        sites=settings["sites"],
        size=size if isinstance(size, str) else (size[0], size[1], size[2]),
        seed=settings["seed"],
        lesion=lesion,
        progress=part(progress, 0, 0.6),
    )
    report = part(progress, 0.6, 1.0, f"{made.subject}: ")
    how = {
        "method": "phantom",
        "simulated": True,
        "parameters": {k: settings[k] for k in ("size", "seed", "lesion")},
    }
    for n, site in enumerate(settings["sites"]):
        report(0.5 * n / len(settings["sites"]), f"writing {site}")
        for run, scan in ((1, made.scans[site]), (2, made.repeats[site])):
            path = folder / scan_path(made.subject, site, run)
            path.parent.mkdir(parents=True, exist_ok=True)
            whole = replace(scan, data=np.asarray(scan.data).astype(np.int16))
            write_scan(whole, path, overwrite=True, provenance=how)
        _write_mask(folder / mask_path(made.subject, site), made.scans[site].mask, scan.affine)
    if settings["truth"]:
        _write_truths(folder, made.subject, made.truths, report)
    write_json(_done_file(folder, index), {"Simulated": True, "subject": made.subject})


def scan_path(subject: str, site: str, run: int) -> Path:
    """Return a scan's path inside the folder."""
    session = _session(site)
    name = f"{subject}_{session}_run-{run}_dwi.nii.gz"
    return Path(subject) / session / "dwi" / name


def mask_path(subject: str, site: str) -> Path:
    """Return a site's mask's path inside the folder."""
    session = _session(site)
    name = f"{subject}_{session}_desc-brain_mask.nii.gz"
    return Path("derivatives") / "truth" / subject / session / name


def truth_paths(subject: str, site: str) -> tuple[Path, Path]:
    """Return the paths of a subject's tissue labels on a site's grid, and of its true signal."""
    base = Path("derivatives") / "truth" / subject
    labels = base / _resolution(get_scanner(site).voxel_size) / "labels.nii.gz"
    return labels, base / _session(site) / "desc-noisefree_dwi.nii.gz"


def _resolution(voxel_size: float) -> str:
    """Return the name of the folder of one voxel size."""
    return "res-" + f"{voxel_size:g}".replace(".", "p")


def _session(site: str) -> str:
    """Return the BIDS session label of a site, letters and digits only."""
    return "ses-" + "".join(c for c in site if c.isalnum())


def _done_file(folder: Path, index: int) -> Path:
    return folder / "derivatives" / "truth" / f"sub-{index + 1:02d}" / "done.json"


def _write_mask(path: Path, mask: Any, affine: NDArray[np.float64]) -> None:
    from napari_dmri.io import write_map

    path.parent.mkdir(parents=True, exist_ok=True)
    write_map(ScalarImage(np.asarray(mask, bool), affine), path, overwrite=True)


def _write_truths(
    folder: Path, label: str, truths: Mapping[str, Truth], progress: Progress
) -> None:
    """Write each grid's truth once, and each site's noise-free signal and responses."""
    from napari_dmri.io import write_map
    from napari_dmri.io.atomic import write_text

    written: set[str] = set()
    for n, (site, truth) in enumerate(truths.items()):
        progress(0.5 + 0.5 * n / len(truths), f"writing the truth of {site}")
        base = folder / "derivatives" / "truth" / label
        grid = _resolution(truth.composition.grid.voxel_size[0])
        if grid not in written:
            written.add(grid)
            _write_grid_truth(base / grid, truth)
        at = base / _session(site)
        at.mkdir(parents=True, exist_ok=True)
        machine = get_scanner(site)
        clean = machine.noise_free(truth.subject, truth.composition)
        write_map(
            ScalarImage(clean, truth.affine, name="noise-free signal"),
            at / "desc-noisefree_dwi.nii.gz",
            overwrite=True,
        )
        for tissue, rows in responses(truth.subject, machine, ALL_SHELLS_ORDER).items():
            lines = [" ".join(f"{v:.9g}" for v in row) for row in rows]
            shells = ",".join(f"{b:g}" for b in (0.0, *sorted(b for b, _ in machine.shells)))
            text = f"# Simulated: true\n# Shells: {shells}\n" + "\n".join(lines) + "\n"
            write_text(at / f"response_{tissue}.txt", text, overwrite=True)


def _write_grid_truth(folder: Path, truth: Truth) -> None:
    from napari_dmri.io import write_map, write_sh
    from napari_dmri.io.atomic import write_text

    folder.mkdir(parents=True, exist_ok=True)
    grid = truth.mask.shape

    def save(name: str, data: NDArray[Any], units: str = "") -> None:
        image = ScalarImage(data, truth.affine, name=name, units=units)
        write_map(image, folder / f"{name}.nii.gz", overwrite=True)

    save("mask", truth.mask)
    save("tissue", truth.tissue)
    save("labels", truth.labels)
    save("directions", truth.directions.reshape(*grid, -1))
    save("fractions", truth.fractions)
    save("concentrations", truth.concentrations)
    for order in FOD_ORDERS:
        write_sh(truth.fod(order), folder / f"fod_order-{order}.nii.gz", overwrite=True)
    masks = truth.bundle_masks()
    save("bundles", np.stack([masks[name] for name in bundle_names()], -1).astype(np.uint8))
    save("ends", truth.endpoint_labels().data)
    write_text(folder / "bundles.txt", "\n".join(bundle_names()) + "\n", overwrite=True)


def _write_tables(folder: Path, subjects: int, sites: Sequence[str], truth: bool) -> Path:
    """Write participants.tsv and pairs.tsv for all subjects, replacing older ones."""
    from napari_dmri.io.atomic import write_text

    labels = [f"sub-{i + 1:02d}" for i in range(subjects)]
    write_text(
        folder / "participants.tsv",
        _table(["participant_id", "simulated"], [[s, "true"] for s in labels]),
        overwrite=True,
    )
    target = sites[-1]
    sources = list(sites[:-1]) or [target]
    rows = [
        [
            label,
            scan_path(label, source, 1).as_posix(),
            scan_path(label, target, 1).as_posix(),
            mask_path(label, source).as_posix(),
            mask_path(label, target).as_posix(),
            source,
            target,
            scan_path(label, source, 2).as_posix(),
            scan_path(label, target, 2).as_posix(),
            *([p.as_posix() for p in truth_paths(label, target)] if truth else []),
        ]
        for source in sources
        for label in labels
    ]
    names = "subject source target source_mask target_mask source_site target_site"
    header = [*names.split(), "source_repeat", "target_repeat"]
    if truth:
        header += ["tissue", "target_truth"]
    pairs = folder / "pairs.tsv"
    write_text(pairs, _table(header, rows), overwrite=True)
    return pairs


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, delimiter="\t", lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()
