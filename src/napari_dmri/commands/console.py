"""What all verbs share: how they speak, report progress, stop and fail.

Results go to stdout, everything else to stderr. Exit codes: 0 everything was done, 1 some of
several things failed, 2 an input was refused, 130 stopped by Ctrl-C or SIGTERM.
"""

from __future__ import annotations

import json as json_module
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from napari_dmri.errors import Cancelled, DmriWarning, InputError

if TYPE_CHECKING:
    from napari_dmri.compare.tables import Table
    from napari_dmri.progress import Progress
    from napari_dmri.scan import Scan

__all__ = [
    "BvalOption",
    "BvecOption",
    "DeviceOption",
    "JsonOption",
    "ManyValues",
    "MaskOption",
    "OverwriteOption",
    "QuietOption",
    "Verbs",
    "emit",
    "open_scan",
    "print_table",
    "progress_bar",
    "refuse_file",
    "say_error",
]

MaskOption = Annotated[
    Path | None, typer.Option("--mask", help="Brain mask on the scan's grid.", show_default=False)
]
BvalOption = Annotated[
    Path | None,
    typer.Option("--bval", help="b-values; found beside the scan without it.", show_default=False),
]
BvecOption = Annotated[
    Path | None,
    typer.Option("--bvec", help="b-vectors; found beside the scan without it.", show_default=False),
]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or mps.")]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace existing files.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
QuietOption = Annotated[
    bool, typer.Option("--quiet", "-q", help="Print nothing but warnings and errors.")
]


class Verbs(TyperGroup):
    """A group of verbs in which every failure is one sentence and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run a verb; turn what goes wrong into words."""
        try:
            with _amber_warnings():
                return super().invoke(ctx)
        except (KeyboardInterrupt, Cancelled):
            typer.secho("Stopped; no file is half-written.", fg="yellow", err=True)
            raise typer.Exit(130) from None
        except InputError as error:
            say_error(str(error))
            raise typer.Exit(2) from None
        except MemoryError:
            say_error("Not enough memory; close other programs or use a smaller scan.")
            raise typer.Exit(2) from None
        except BrokenPipeError:
            raise
        except OSError as error:
            where = f" ({error.filename})" if error.filename else ""
            say_error(f"{error.strerror or error}{where}; check the path and its permissions.")
            raise typer.Exit(2) from None


class ManyValues(TyperCommand):
    """A verb whose list options take several values: ``--sites ge_st prisma_st``.

    The values end at the next option, or at ``--``. Repeating the option and separating by commas
    work as well.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Write each value with its option's name, then parse as usual."""
        many = {
            name
            for parameter in self.params
            if getattr(parameter, "multiple", False)
            for name in parameter.opts
        }
        return super().parse_args(ctx, spread(args, many))


def spread(args: Sequence[str], many: set[str]) -> list[str]:
    """Repeat an option's name before each of its values.

    Examples
    --------
    >>> spread(["out", "--sites", "a", "b,c", "--seed", "7"], {"--sites"})
    ['out', '--sites', 'a', '--sites', 'b', '--sites', 'c', '--seed', '7']
    """
    found: list[str] = []
    current: str | None = None
    empty = False
    for position, word in enumerate(args):
        if word == "--":
            found += args[position:]
            break
        name, equals, rest = word.partition("=")
        if name in many:
            if empty and current:
                found.append(current)
            current, empty = name, True
            if not equals:
                continue
            word = rest
        elif word.startswith("-") and len(word) > 1:
            if empty and current:
                found.append(current)
            current = None
        if current is None:
            found.append(word)
            continue
        for value in word.split(","):
            if value:
                found += [current, value]
                empty = False
    if empty and current:
        found.append(current)
    return found


def say_error(sentence: str) -> None:
    """Print one red sentence on stderr."""
    typer.secho(f"Error: {' '.join(sentence.split())}", fg="red", err=True)


@contextmanager
def _amber_warnings() -> Iterator[None]:
    """Show the package's own warnings as amber lines, each once; others are for developers."""
    said: set[str] = set()

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: Any = None,
        line: str | None = None,
    ) -> None:
        text = " ".join(str(message).split())
        if issubclass(category, DmriWarning) and text not in said:
            said.add(text)
            typer.secho(f"Warning: {text}", fg="yellow", err=True)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", DmriWarning)
        warnings.showwarning = show
        yield


@contextmanager
def progress_bar(quiet: bool = False) -> Iterator[Progress]:
    """Yield a progress callable that draws a bar on stderr, where stderr is a terminal.

    Within, Ctrl-C and SIGTERM make the callable raise `Cancelled`.
    """
    from napari_dmri.commands.stopping import stopped_by_signals
    from napari_dmri.progress import silent, throttled

    if quiet or not sys.stderr.isatty():
        with stopped_by_signals() as heeding:
            yield heeding(silent)
        return
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
    )
    shown = Bar(*columns, console=Console(stderr=True), transient=True)
    with stopped_by_signals() as heeding, shown as bar:
        task = bar.add_task("starting", total=1.0)

        def report(fraction: float, text: str) -> None:
            bar.update(task, completed=fraction, description=text)

        yield heeding(throttled(report))


def emit(result: dict[str, Any], lines: Sequence[str], *, json: bool, quiet: bool) -> None:
    """Print a result: as JSON, as lines, or not at all."""
    if json:
        from napari_dmri.io.atomic import to_json

        # A round trip in which NaN and infinity become null: JSON has no word for them.
        text = json_module.loads(to_json(result), parse_constant=lambda _: None)
        typer.echo(json_module.dumps(text, indent=2, ensure_ascii=False))
    elif not quiet:
        for line in lines:
            typer.echo(line)


def print_table(table: Table, *, quiet: bool = False) -> None:
    """Print a table with aligned columns, and its notes."""
    if quiet:
        return
    from rich.console import Console
    from rich.table import Table as RichTable

    shown = RichTable(title=table.title, title_justify="left")
    shown.add_column(table.heading, overflow="fold")
    for column in table.columns:
        words = any(isinstance(row.values.get(column), str) for row in table.rows)
        shown.add_column(column, justify="left" if words else "right", overflow="fold")
    for cells in table.cells():
        shown.add_row(*cells)
    width = None if sys.stdout.isatty() else 160
    console = Console(width=width, markup=False, highlight=False)
    console.print(shown)
    for note in table.notes:
        console.print(note)


def open_scan(
    path: Path, mask: Path | None = None, bval: Path | None = None, bvec: Path | None = None
) -> Scan:
    """Read a scan, with its mask and gradient files where they are given."""
    from napari_dmri.io import read_scan

    return read_scan(path, mask=mask, bval=bval, bvec=bvec)


def refuse_file(
    path: Path, overwrite: bool, suffixes: Sequence[str] = (), source: Path | None = None
) -> Path:
    """Refuse a target before any work is done for it.

    Raises
    ------
    InputError
        If it exists, is a folder, has another suffix, would stand on the files of the scan it is
        made from (whatever ``overwrite`` says), or its folder cannot be written to.
    """
    from napari_dmri.io.atomic import full_suffix, stem_of

    path = path.expanduser()
    if source is not None and path.parent.resolve() / stem_of(path) == (
        source.expanduser().resolve().parent / stem_of(source)
    ):
        raise InputError(
            f"{path} would take the place of files of the scan it is made from "
            f"({stem_of(source)}.*); choose another name or folder."
        )
    if suffixes and full_suffix(path) not in suffixes:
        raise InputError(
            f"{path.name} ends with {full_suffix(path) or 'no suffix'}; choose one of "
            f"{', '.join(suffixes)}."
        )
    if path.is_dir():
        raise InputError(f"{path} is a folder; give a file name inside it.")
    if path.exists() and not overwrite:
        raise InputError(
            f"{path} exists already and is not overwritten; choose another name or say --overwrite."
        )
    nearest = next(p for p in path.absolute().parents if p.exists())
    if not nearest.is_dir():
        raise InputError(f"Cannot write {path}: {nearest} is a file; choose another folder.")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise InputError(f"Cannot write {path}: {nearest} is read-only; choose another folder.")
    return path
