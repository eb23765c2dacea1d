"""Verbs of deconvolution by networks: fit to one scan, train on many subjects."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_dmri.commands.console import (
    BvalOption,
    BvecOption,
    DeviceOption,
    JsonOption,
    MaskOption,
    OverwriteOption,
    QuietOption,
    emit,
    open_scan,
    progress_bar,
    refuse_file,
)
from napari_dmri.commands.network_options import (
    ModeOption,
    RuleOption,
    SeedOption,
    SizeOption,
    StartOption,
    StepsOption,
    TissuesOption,
    WeightOption,
    bvalues_of,
    rule_of,
    tissues_of,
    weights_of,
)
from napari_dmri.commands.training import kept_folder, resumable, state_beside
from napari_dmri.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["fit", "train"]

NAMES = ("fod", "gm", "csf", "residual")


def fit(
    scan: Annotated[Path, typer.Argument(help="The scan.", show_default=False)],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="Folder for the results.", show_default=False),
    ],
    method: Annotated[str, typer.Option(help="shd-s-tv, shd-tv, shd, rt-esd, ...")] = "shd-s-tv",
    response: Annotated[
        Path | None,
        typer.Option(
            help="White matter's response file, with NAME_gm and NAME_csf beside it, or a folder; "
            "estimated from the scan without it.",
            show_default=False,
        ),
    ] = None,
    size: SizeOption = None,
    mode: ModeOption = None,
    rule: RuleOption = None,
    weight: WeightOption = None,
    tissues: TissuesOption = None,
    minutes: Annotated[float | None, typer.Option(help="How long it may learn.")] = None,
    steps: StepsOption = None,
    see: Annotated[
        str | None,
        typer.Option(
            help="Directions that the network sees, well spread ones of a shell, e.g. 30 or "
            "30@1000; it explains all of them still."
        ),
    ] = None,
    start: StartOption = None,
    seed: SeedOption = 0,
    mask: MaskOption = None,
    bval: BvalOption = None,
    bvec: BvecOption = None,
    device: DeviceOption = "auto",
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Fit a network to one scan, without any truth, and estimate its fODFs.

    The folder gets fod.nii.gz, gm, csf and residual maps, the model and its card, and curves.tsv,
    all of them or none. A fit that was stopped keeps its state there, and the same command goes on
    from it.
    """
    from napari_dmri.compare.folder import staged_folder
    from napari_dmri.deconvolve.response import estimate_response
    from napari_dmri.deconvolve.shd.fit import fit_to_scan
    from napari_dmri.deconvolve.shd.presets import preset
    from napari_dmri.deconvolve.shd.shell_choice import choose_subset
    from napari_dmri.deconvolve.shd.subjects import read_seen
    from napari_dmri.io import write_map, write_sh
    from napari_dmri.io.atomic import write_text
    from napari_dmri.io.responses import read_responses
    from napari_dmri.progress import part
    from napari_dmri.training.state import drop_state

    weights = weights_of(weight)
    preset(method, size or "small", mode).losses.changed(weights)
    rule = rule_of(rule)
    others = tissues_of(tissues)
    output = output.expanduser()
    for name in (*NAMES, "model"):
        for suffix in (".safetensors" if name == "model" else ".nii.gz", ".json"):
            refuse_file(output / f"{name}{suffix}", overwrite, source=scan)
    refuse_file(output / "curves.tsv", overwrite, source=scan)
    source = open_scan(scan, mask, bval, bvec)
    seen = None if see is None else choose_subset(source.gradients, *read_seen(see, "--see"))
    responses = None if response is None else read_responses(response)
    begun = None if start is None else _load(start)
    state = state_beside(output / "model.safetensors")
    with progress_bar(quiet) as progress:
        if responses is None:
            responses = estimate_response(source, progress=part(progress, 0, 0.05, "response: "))
        with kept_folder(output), resumable(state):
            made = fit_to_scan(
                source,
                responses,
                method,
                others=others,
                size=size,
                mode=mode,
                rule=rule,
                weights=weights,
                inputs=seen,
                start=begun,
                minutes=minutes,
                steps=steps,
                seed=seed,
                device=device,
                state=state,
                on_event=_teller(quiet),
                progress=part(progress, 0.05, 1.0),
            )
    found = made.deconvolution
    notes = list(dict.fromkeys((*found.notes, *made.notes)))
    if source.mask is None:
        notes.append("no mask was given: it learned from all voxels with signal, air as well")
    with staged_folder(output, overwrite) as folder:
        written = write_sh(found.fod, folder / "fod.nii.gz")
        for name, image in found.maps.items():
            written += write_map(image, folder / f"{name}.nii.gz")
        written.append(made.model.save(folder / "model.safetensors"))
        written.append(write_text(folder / "curves.tsv", curves_table(made.curves)))
    files = [output / path.name for path in written]
    drop_state(state)
    outcome = made.model.card["outcome"]
    about = {
        "method": method,
        "voxels": found.voxels,
        "order": found.fod.order,
        "learning_rate": made.lr,
        "outcome": outcome,
        "notes": notes,
        "files": files,
    }
    lines = [
        f"{made.model.card['label']}: {outcome['steps']} steps in {outcome['seconds']:.0f} s, "
        f"order {found.fod.order}, {found.voxels} voxels",
        *notes,
        f"wrote {', '.join(str(f) for f in files if f.suffix != '.json')}",
    ]
    emit(about, lines, json=json, quiet=quiet)


def train(
    method: Annotated[str, typer.Argument(help="shd-s-tv, shd-tv, shd, rt-esd, ...")],
    subjects: Annotated[
        Path,
        typer.Option(
            help="TSV of subjects: subject, scan and, if wanted, mask, wm, gm, csf (responses), "
            "fod (known fODFs).",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Model to write.", show_default=False)
    ],
    validation: Annotated[
        Path | None,
        typer.Option(help="TSV of subjects that choose the best epoch; one of four else."),
    ] = None,
    bvalues: Annotated[
        str | None,
        typer.Option(help="The network's shells in s/mm², e.g. 0,1000; by the subjects else."),
    ] = None,
    supervised: Annotated[
        float | None, typer.Option(help="Weight of known fODFs; 1 where all have them.")
    ] = None,
    teach: Annotated[
        bool,
        typer.Option(
            "--teach",
            help="Learn from known fODFs (the column fod) for 70 % of the steps, then without.",
        ),
    ] = False,
    size: SizeOption = None,
    mode: ModeOption = None,
    rule: RuleOption = None,
    weight: WeightOption = None,
    tissues: TissuesOption = None,
    steps: StepsOption = None,
    start: StartOption = None,
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Train a network once on many subjects and schemes, to apply it to other scans.

    Training keeps its state in MODEL.training.safetensors, from which the same command goes on
    after it was stopped.
    """
    from napari_dmri.deconvolve.shd.amortise import read_subjects, train_model
    from napari_dmri.deconvolve.shd.presets import preset
    from napari_dmri.deconvolve.shd.teach import require_known, taught_beside, teach_model
    from napari_dmri.training.checkpoint import require_free
    from napari_dmri.training.state import drop_state

    weights = weights_of(weight)
    preset(method, size or "small", mode).losses.changed(weights)
    rule = rule_of(rule)
    output = require_free(output, overwrite)
    others, shells = tissues_of(tissues), bvalues_of(bvalues)
    if teach and (start is not None or supervised is not None):
        other = "--start" if start is not None else "--supervised"
        raise InputError(
            f"--teach begins a new network with known fODFs at a weight of 1, and goes on without "
            f"them, and {other} is given as well; leave one of the two out."
        )
    listed = read_subjects(subjects)
    kept = None if validation is None else read_subjects(validation)
    own: dict[str, Any] = {}
    if teach:
        require_known(listed, kept)
    else:
        own = {"start": None if start is None else _load(start), "supervised": supervised}
    output.parent.mkdir(parents=True, exist_ok=True)
    state = state_beside(output)
    with progress_bar(quiet) as progress, resumable(state, taught_beside(state)):
        model = (teach_model if teach else train_model)(
            listed,
            method,
            validation=kept,
            others=others,
            bvalues=shells,
            size=size,
            mode=mode,
            rule=rule,
            weights=weights,
            steps=steps,
            seed=seed,
            device=device,
            state=state,
            on_event=_teller(quiet),
            progress=progress,
            **own,
        )
    path = model.save(output, overwrite=overwrite)
    drop_state(state)
    card = model.card
    outcome, count = card["outcome"], len(card["training"])
    taught = f"after {card['taught']['steps']} steps with known fODFs" if teach else ""
    lines = [
        f"{card['label']}: {count} scan{'s' if count > 1 else ''}, "
        f"b = {', '.join(f'{b:g}' for b in card['bvalues'])} s/mm², "
        f"{' + '.join(t.upper() for t in card['tissues'])}, {outcome['steps']} steps in "
        f"{outcome['seconds']:.0f} s",
        *([taught] if taught else []),
        *(["trained on simulated scans"] if card["simulated"] else []),
        *card["notes"],
        f"wrote {path}",
    ]
    emit({"card": card, "files": [path]}, lines, json=json, quiet=quiet)


def curves_table(curves: Sequence[dict[str, Any]]) -> str:
    """Return curves as a table with tabs."""
    columns = list(dict.fromkeys(name for entry in curves for name in entry))
    lines = ["\t".join(columns)]
    for entry in curves:
        values = (entry.get(name) for name in columns)
        lines.append(
            "\t".join(
                "n/a" if v is None else f"{v:.6g}" if isinstance(v, float) else str(v)
                for v in values
            )
        )
    return "\n".join(lines) + "\n"


def _load(given: Path) -> Any:
    from napari_dmri.deconvolve.shd.model import ShdModel
    from napari_dmri.deconvolve.shd.shipped import find_model

    return ShdModel.load(find_model(given))


def _teller(quiet: bool) -> Any:
    """Return what prints the words, not the curves, of a training."""

    def tell(news: Any) -> None:
        if isinstance(news, str) and not quiet:
            typer.secho(f"Warning: {news}", fg="yellow", err=True)

    return tell
