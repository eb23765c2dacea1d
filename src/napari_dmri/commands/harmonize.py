"""Verbs of harmonization: train, apply, evaluate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from napari_dmri.commands.console import (
    BvalOption,
    BvecOption,
    DeviceOption,
    JsonOption,
    MaskOption,
    OverwriteOption,
    QuietOption,
    Verbs,
    emit,
    print_table,
    progress_bar,
    say_error,
)
from napari_dmri.commands.models import compare, models
from napari_dmri.commands.training import LEARNED
from napari_dmri.errors import InputError

__all__ = ["app"]

app = typer.Typer(
    cls=Verbs,
    no_args_is_help=True,
    help="Make scans of one site comparable with another's: train, apply, compare, evaluate.",
)
app.command()(compare)
app.command()(models)

ProjectionOption = Annotated[
    bool | None,
    typer.Option(
        "--projection/--no-projection",
        help="Networks: only energies per order are the network's; the model's own way without it.",
        show_default=False,
    ),
]
ModelArgument = Annotated[
    Path,
    typer.Argument(help="A trained model file, or a name of 'models'.", show_default=False),
]
OutOption = Annotated[
    Path, typer.Option("--output", "-o", help="Where to write.", show_default=False)
]


@app.command()
def train(
    method: Annotated[str, typer.Argument(help="The method, e.g. linear-rish.")],
    output: OutOption,
    pairs: Annotated[
        Path | None, typer.Option(help="TSV of travelling pairs: subject, source, target.")
    ] = None,
    groups: Annotated[
        Path | None, typer.Option(help="TSV of two groups: site, scan, mask.")
    ] = None,
    source_site: Annotated[
        str | None, typer.Option(help="Which site is the source, where the TSV leaves a choice.")
    ] = None,
    order: Annotated[int | None, typer.Option(help="SH order; the poorer scans decide.")] = None,
    smooth: Annotated[float, typer.Option(help="Laplace-Beltrami lambda.")] = 0.006,
    shell: Annotated[float | None, typer.Option(help="b-value in s/mm².")] = None,
    validation: Annotated[
        Path | None,
        typer.Option(help="Networks: TSV of pairs that choose the best epoch; one of three else."),
    ] = None,
    mode: Annotated[str | None, typer.Option(help="SHResNet: paper or tiled.")] = None,
    blocks: Annotated[int | None, typer.Option(help="SHResNet: residual blocks.")] = None,
    projection: ProjectionOption = None,
    epochs: Annotated[
        int | None, typer.Option(help="Networks: epochs of the second stage at most.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Networks: of weights and order.")] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="Networks: of both stages at their beginning; 0.001.")
    ] = None,
    energy: Annotated[
        float | None,
        typer.Option(
            help="Networks: weight of order 2's energy in the loss; 0 is the papers' loss. "
            "1 for SHResNet, 0 for Golkov."
        ),
    ] = None,
    registration: Annotated[
        str | None,
        typer.Option(
            help="Networks: how pairs on two grids are aligned, rigid or affine; always aligns "
            "those on one grid too."
        ),
    ] = None,
    device: DeviceOption = "auto",
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Train a model on travelling pairs or on two groups.

    Networks (shresnet, golkov) learn from pairs. Their training keeps its state in
    MODEL.training.safetensors, from which the same command goes on after it was stopped.
    """
    from napari_dmri.commands.training import fit_network, network_settings
    from napari_dmri.harmonize import METHODS, read_groups, read_pairs
    from napari_dmri.training.checkpoint import require_free
    from napari_dmri.training.state import drop_state

    if method not in METHODS:
        raise InputError(f"Unknown method {method!r}; choose one of {', '.join(METHODS)}.")
    if (pairs is None) == (groups is None):
        given = "both were given" if pairs else "none was given"
        raise InputError(f"Training takes --pairs TSV or --groups TSV, and {given}; give one.")
    settings = network_settings(
        method,
        mode=mode,
        blocks=blocks,
        projection=projection,
        epochs=epochs,
        seed=seed,
        learning_rate=learning_rate,
        energy=energy,
        registration=registration,
    )
    learned = method in LEARNED
    if learned and groups is not None:
        raise InputError(f"{METHODS[method].label} learns from travelling pairs; give --pairs.")
    if validation is not None and not learned:
        raise InputError(f"{method} takes no validation pairs; leave --validation out.")
    output = require_free(output, overwrite)
    model = METHODS[method].make(order=order, smooth=smooth, shell=shell, **settings)
    state: Path | None = None
    with progress_bar(quiet) as progress:
        if learned and pairs is not None:
            chosen = None if validation is None else read_pairs(validation, source_site)
            listed = read_pairs(pairs, source_site)
            state = fit_network(model, listed, chosen, output, device, progress)
        elif pairs is not None:
            model.fit(read_pairs(pairs, source_site), device=device, progress=progress)
        elif groups is not None:
            both = read_groups(groups, source_site)
            model.fit_groups(both.source, both.target, device=device, progress=progress)
    path = model.save(output, overwrite=overwrite)
    if state is not None:
        drop_state(state)
    card = model.card
    lines = [
        f"{card['label']}: {card['source_site']} -> {card['target_site']}, "
        f"{len(card['subjects'])} subjects, order {card['order']} at b={card['shell']:g} s/mm²",
        *(["trained on simulated scans: demo only"] if card.get("simulated") else []),
        f"wrote {path}",
    ]
    emit({"card": card, "files": [path]}, lines, json=json, quiet=quiet)


@app.command()
def apply(
    model: ModelArgument,
    scans: Annotated[
        list[Path], typer.Argument(help="Scans, or folders of scans.", show_default=False)
    ],
    output: OutOption,
    mask: MaskOption = None,
    bval: BvalOption = None,
    bvec: BvecOption = None,
    maps: Annotated[
        bool, typer.Option("--maps", help="Write the scale maps and the alignment beside.")
    ] = False,
    projection: ProjectionOption = None,
    device: DeviceOption = "auto",
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Harmonize scans; a scan that fails does not stop the others.

    One scan goes to the file OUT. Several scans, or a folder, go to the folder OUT with one row a
    scan in summary.tsv. Without --mask, a mask beside a scan (NAME_mask.nii.gz) is used, else one
    is made. With --maps, a folder NAME_maps beside each result holds the scale map of each order
    and what the alignment looks like. The exit code is 1 when a scan failed.
    """
    from napari_dmri.commands.batch import Job, harmonize_all, plan_jobs, summary_table
    from napari_dmri.compare.folder import refuse_existing
    from napari_dmri.harmonize import choose_projection, load
    from napari_dmri.io.atomic import write_text

    jobs: list[Job]
    jobs, folder = plan_jobs(
        scans, output, mask, overwrite, gradients=(bval, bvec) if bval or bvec else None, maps=maps
    )
    if folder is not None:
        refuse_existing(folder, ("summary.tsv",), overwrite)
    trained = choose_projection(load(model), projection)
    with progress_bar(quiet) as progress:
        outcomes = harmonize_all(trained, jobs, device, overwrite, progress, alone=folder is None)
    table = summary_table(trained.card, outcomes)
    if folder is not None:
        write_text(folder / "summary.tsv", table.to_tsv(), overwrite=overwrite)
    if json:
        emit(table.to_dict(), (), json=True, quiet=quiet)
    elif folder is None:
        lines = [*outcomes[0].notes, f"wrote {outcomes[0].output}"]
        if jobs[0].maps is not None:
            lines.append(f"wrote the maps to {jobs[0].maps}")
        emit({}, lines, json=False, quiet=quiet)
    else:
        print_table(table, quiet=quiet)
    failed = [o for o in outcomes if o.error]
    if failed:
        say_error(f"{len(failed)} of {len(outcomes)} scans failed; see the table.")
        raise typer.Exit(1)


@app.command()
def evaluate(
    pairs: Annotated[
        Path,
        typer.Option(
            help="TSV of pairs: subject, source, target; target_repeat, target_truth and tissue "
            "if there are any."
        ),
    ],
    output: OutOption,
    model: Annotated[
        Path | None,
        typer.Argument(help="A trained model; without it, --folds.", show_default=False),
    ] = None,
    source_site: Annotated[
        str | None,
        typer.Option(help="Which source site's rows of the TSV; the model's own without it."),
    ] = None,
    folds: Annotated[
        int | None, typer.Option(help="Cross-validate: train and test in so many folds.")
    ] = None,
    methods: Annotated[
        list[str] | None,
        typer.Option(
            "--method",
            help="linear-rish, golkov, shresnet-N, shresnet-N-tiled, sweep; may be repeated.",
        ),
    ] = None,
    order: Annotated[int | None, typer.Option(help="SH order; the poorer scans decide.")] = None,
    smooth: Annotated[float, typer.Option(help="Laplace-Beltrami lambda.")] = 0.006,
    shell: Annotated[float | None, typer.Option(help="b-value in s/mm².")] = None,
    epochs: Annotated[
        int | None, typer.Option(help="Epochs of the networks' second stage at most.")
    ] = None,
    projection: ProjectionOption = None,
    seed: Annotated[int, typer.Option(help="Of folds and networks.")] = 0,
    fold: Annotated[
        list[int] | None, typer.Option(help="Only this fold now; may be repeated.")
    ] = None,
    models: Annotated[
        Path | None,
        typer.Option(
            help="Folder of a cross-validation of other people: its folds' models are scored "
            "on these, and none is trained."
        ),
    ] = None,
    processes: Annotated[int, typer.Option(help="Folds at a time.")] = 1,
    device: DeviceOption = "auto",
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Compare harmonized scans with what the target site measured, on subjects not trained on.

    With a MODEL, its results. With --folds K instead, methods are trained and tested in K folds of
    the subjects; the folder OUT keeps every model and score, and the same command goes on in it.
    """
    from napari_dmri.commands.batch import evaluate_pairs
    from napari_dmri.commands.training import cross_validation
    from napari_dmri.compare.folder import refuse_existing, staged_folder
    from napari_dmri.compare.methods_text import methods_text
    from napari_dmri.harmonize import choose_projection, load
    from napari_dmri.io.atomic import write_text

    if (model is None) == (folds is None):
        given = "both were given" if model else "none was given"
        raise InputError(f"Evaluation takes a MODEL or --folds K, and {given}; give one.")
    if folds is None and models is not None:
        raise InputError("--models belongs to --folds K; a single model is the argument MODEL.")
    if folds is not None and projection is not None:
        raise InputError(
            "A cross-validation shows networks with and without projection; leave "
            f"{'--projection' if projection else '--no-projection'} out."
        )
    if model is None and folds is not None:
        with progress_bar(quiet) as progress:
            tables, files, refused = cross_validation(
                pairs,
                output,
                source_site=source_site,
                folds=folds,
                methods=methods or (),
                order=order,
                smooth=smooth,
                shell=shell,
                epochs=epochs,
                seed=seed,
                only=fold or (),
                models=models,
                processes=processes,
                device=device,
                progress=progress,
            )
        if json:
            every_table = {name: table.to_dict() for name, table in tables.items()}
            emit({**every_table, "files": files}, (), json=True, quiet=quiet)
        else:
            for name in ("mean", "gap"):
                if name in tables:
                    print_table(tables[name], quiet=quiet)
            names_of = ", ".join(path.name for path in files)
            emit({}, [f"wrote {names_of} to {output}"], json=False, quiet=quiet)
        if refused:
            say_error(f"{len(refused)} scores are missing: {' '.join(refused)}")
            raise typer.Exit(1)
        return
    assert model is not None
    names = ("evaluation.tsv", "mean.tsv", "evaluation.md", "methods.txt")
    folder = refuse_existing(output, names, overwrite)
    trained = choose_projection(load(model), projection)
    with progress_bar(quiet) as progress:
        every, mean, records = evaluate_pairs(trained, pairs, device, progress, source_site)
    texts = (every.to_tsv(), mean.to_tsv(), mean.to_markdown() + "\n" + every.to_markdown())
    with staged_folder(folder, overwrite) as staging:
        for name, text in zip(names, (*texts, methods_text(records)), strict=True):
            write_text(staging / name, text)
    if json:
        result: dict[str, Any] = {"mean": mean.to_dict(), "subjects": every.to_dict()}
        emit({**result, "files": [folder / n for n in names]}, (), json=True, quiet=quiet)
    else:
        print_table(mean, quiet=quiet)
        emit({}, [f"wrote {', '.join(names)} to {folder}"], json=False, quiet=quiet)
