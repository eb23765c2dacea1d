"""The command line: ``napari-dmri VERB ...``, thin, one verb a function of the package.

Nothing heavy is imported before a verb runs, so that help appears at once.
"""

from __future__ import annotations

from typing import Annotated

import typer

from napari_dmri.commands import compare, deconvolve, harmonize, peaks, response, scan, simulate
from napari_dmri.commands.console import ManyValues, Verbs

__all__ = ["app"]

app = typer.Typer(
    name="napari-dmri",
    cls=Verbs,
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(value: bool) -> None:
    if value:
        from napari_dmri import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Open diffusion MRI, make scanners comparable, and see what each step did."""


app.command()(scan.info)
app.command("fit-sh")(scan.fit_sh)
app.command()(scan.tensor)
app.command()(scan.mask)
app.add_typer(harmonize.app, name="harmonize")
app.command()(response.response)
app.add_typer(deconvolve.app, name="deconvolve")
app.command()(peaks.peaks)
app.command(cls=ManyValues)(compare.compare)
app.command()(simulate.view)
app.command()(simulate.demo)
app.command(cls=ManyValues)(simulate.phantom)
