"""Networks of the SHD family: forward passes, training steps, memory, and what they do in use.

Run ``python benchmarks/shd.py`` for everything on one and two threads (and a GPU where there is
one), or pick with ``--threads 1 --methods shd rt-esd shd-s --parts networks``. Each figure comes
from a process of its own. ``--tsv FILE`` writes them all as rows as well. The parts:

- ``networks``: a forward pass of 16^3 and of 8^3 voxels and a training step, by the architecture of
  each method: seconds, memory, and both against the authors' figures.
- ``published``: the same of SHD and RT-ESD evaluated as published, and SHD's ratios to RT-ESD.
- ``figure4``: one layer and the U-Net in percent of RT-ESD as published, step by step as in the
  paper's figure 4.
- ``brain``: a network of the package on a simulated brain of 200,000 voxels, as a click deconvolves
  it, its responses known: voxels in the mask, seconds, voxels a second, memory, and the target.
- ``fit``: *Fit to this scan* with SHD-S-TV of the size small: what the forecast says before *Run*,
  seconds in all and to the first preview, and F1 over time beside CSD's. A snapshot at some minutes
  (``--marks``, from *Run* on) is what a user who stops then keeps: the best weights of an epoch's
  end so far by the validation places, their batch norms settled as at an end. (A stop also tries
  the epoch that it breaks off.) ``--minutes`` or ``--steps`` shorten the fit, and with the few
  steps that are left of an epoch its validation is what takes most of the time.

In the first three parts times of one thread are CPU seconds, as the authors' were, of more threads
or a GPU wall seconds; the least of some repeats. In use they are wall seconds of one call, CPU
seconds beside them. Memory is what a pass adds at its peak to what the process held before.
"scaled" is seconds x own GEMM GFLOP/s / 114, the authors' machine, against the authors' figure; on
a GPU times are not scaled.

"As published" is the same network with each layer evaluated as its authors do (the polynomials of
all input features, then a dense 3 x 3 x 3 convolution shared by the vertices), written anew here:
RT-ESD recurs with a sparse Laplacian on the whole sphere, SHD multiplies by dense polynomials on
one half.

A ratio in the table is the peer's seconds (or GB) over the row's own, scaled where they are: above
1 the row's is the faster (or smaller).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from _cost import gemm, timed
from _shd_fit import MARKS, fit, measure_fit
from _shd_published import PUBLISHED, WAYS, published_layer, published_network
from _shd_use import brain, measure_brain, simulate
from _table import Table

AUTHORS_GEMM = 114.0
AUTHORS = {
    ("shd", "forward 16"): (31.2, 5.23 - 0.4),
    ("shd", "forward 8"): (2.52, 1.18 - 0.4),
    ("shd", "training"): (6.41, 2.01 - 0.4),
    ("rt-esd", "forward 16"): (79.5, 11.78 - 0.4),
    ("rt-esd", "forward 8"): (6.63, 1.99 - 0.4),
    ("rt-esd", "training"): (16.5, 3.07 - 0.4),
}
"""Seconds and GB of the authors' code on their machine, less about 0.4 GB from before the pass."""

PARTS = ("networks", "published", "figure4", "brain", "fit")
METHODS = ("shd", "rt-esd", "esd", "shd-s", "cnn", "mlp", "concat-so3", "e3-sh")
REPEATS = {"forward 16": 2, "forward 8": 4, "training": 4, "figure 4": 4}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    options.add_argument("--methods", nargs="+", default=[*METHODS])
    options.add_argument("--parts", nargs="+", default=[*PARTS], choices=PARTS)
    options.add_argument("--cases", nargs="+", default=["forward 16", "forward 8", "training"])
    limits = options.add_mutually_exclusive_group()
    limits.add_argument("--minutes", type=float, help="of the fit; its plan's steps without")
    limits.add_argument("--steps", type=int, help="of the fit")
    options.add_argument("--marks", type=float, nargs="+", default=[*MARKS], help="minutes")
    options.add_argument(
        "--grid", type=int, nargs=3, help="voxels of the scans in use, for a quick look"
    )
    options.add_argument("--tsv", type=Path, help="a file for all figures")
    options.add_argument("--case", help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.case:
        print(json.dumps(measure(**json.loads(chosen.case))))
        return
    devices = [("cpu", threads) for threads in chosen.threads]
    if has_gpu():
        devices.append(("cuda", 1))
    # Lines are seen as they come, also in a file.
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    table = Table(chosen.tsv)
    with TemporaryDirectory() as folder:
        for device, threads in devices:
            run(device, threads, chosen, table, folder)


def run(device: str, threads: int, chosen: argparse.Namespace, table: Table, folder: str) -> None:
    note = partial(table.add, device=device, threads=threads if device == "cpu" else None)
    where = f"{threads} thread{'s' if threads > 1 else ''}" if device == "cpu" else device
    rate, load = ask(device, threads, what="gemm")["gflops"], os.getloadavg()[0]
    print(
        f"\n{where}: float32 GEMM {rate:.0f} GFLOP/s, load average {load:.1f}; "
        "N_side 8, depth 4, 32 filters (CNN, MLP 128), 2 shells in, white matter and one tissue out"
    )
    note(part="machine", name="float32 GEMM, GFLOP/s", rate=rate)
    note(part="machine", name="load average", rate=load)
    found: dict[tuple[str, str], dict[str, Any]] = {}
    names = [*chosen.methods] if "networks" in chosen.parts else []
    if "published" in chosen.parts:
        names += ["shd as published", "rt-esd as published"]
    for case in chosen.cases if names else ():
        print(f"\n{TITLES[case]}")
        for name in names:
            if "published" in name and case == "forward 16":
                continue
            result = ask(device, threads, what=case, name=name)
            found[name, case] = result
            line(name, case, result, rate if device == "cpu" else AUTHORS_GEMM, note)
        ratios(found, case, note)
    if "figure4" in chosen.parts:
        figure4(device, threads, note)
    asked = partial(ask, device, threads)
    if "brain" in chosen.parts:
        brain(asked, note, threads, folder, chosen.grid)
    if "fit" in chosen.parts:
        limits = ("marks", "minutes", "steps", "grid")
        fit(asked, note, {name: getattr(chosen, name) for name in limits})


TITLES = {
    "forward 16": "Forward pass of 16 x 16 x 16 voxels (architecture of P = 16)",
    "forward 8": "Forward pass of 8 x 8 x 8 voxels (architecture of P = 8)",
    "training": "Training step: forward and backward of 16 patches of 3 x 3 x 3 (tiled: 1 of 8^3)",
}


def line(name: str, case: str, result: dict[str, Any], rate: float, note: Any) -> None:
    """Print a network's figures against the authors'."""
    scaled = result["seconds"] * rate / AUTHORS_GEMM
    peer = "rt-esd" if name.startswith("rt-esd") else "shd"
    seconds, memory = AUTHORS[peer, case]
    print(
        f"{name:20s} {result['seconds']:8.3f} s   + {result['added']:6.3f} GB   "
        f"scaled {scaled:8.3f} s   {peer} by its authors {seconds:5.2f} s, "
        f"+ {memory:5.2f} GB: {seconds / scaled:6.1f}x, {memory / result['added']:6.1f}x"
    )
    peers = {"peer": f"{peer} by its authors", "peer_seconds": seconds, "peer_gb": memory}
    note(part=case, name=name, scaled_seconds=scaled, **own(result), **peers)


def own(result: dict[str, Any]) -> dict[str, float]:
    return {"seconds": result["seconds"], "added_gb": result["added"]}


def against(name: str, result: dict[str, Any]) -> dict[str, Any]:
    return {"peer": name, "peer_seconds": result["seconds"], "peer_gb": result["added"]}


def ratios(found: dict[tuple[str, str], dict[str, Any]], case: str, note: Any) -> None:
    """Print SHD against RT-ESD: both ours, ours against as published, both as published."""
    for one, other in (
        ("shd", "rt-esd"),
        ("shd", "rt-esd as published"),
        ("shd", "shd as published"),
        ("shd as published", "rt-esd as published"),
    ):
        if (one, case) in found and (other, case) in found:
            a, b = found[one, case], found[other, case]
            print(
                f"  {one} / {other}: time {a['seconds'] / b['seconds']:.2f}, "
                f"memory {a['added'] / b['added']:.2f}"
            )
            note(part=case, name=one, **own(a), **against(other, b))


def figure4(device: str, threads: int, note: Any) -> None:
    """Print the paper's figure 4: a layer and the U-Net, steps from RT-ESD to SHD, and ours."""
    ways = [*PUBLISHED, "rt-esd", "shd"]
    print("\nA layer 32 -> 64, 8 x 8 x 8 voxels; time (memory), RT-ESD as published = 100 %")
    print(f"{'vertices of the whole sphere':30s}" + "".join(f"{way:>22s}" for way in ways))
    rows: dict[str, dict[str, Any]] = {
        f"{12 * side**2}": {"what": "layer", "side": side} for side in (1, 2, 4, 8)
    }
    rows["U-Net, 1 in, 1 out"] = {"what": "figure 4"}
    for title, case in rows.items():
        parts = [ask(device, threads, name=way, **case) for way in ways]
        print(f"{title:30s}" + percent(parts))
        for way, result in zip(ways, parts, strict=True):
            vertices = f"layer of {title} vertices" if title.isdigit() else title
            note(
                part=f"figure 4, {vertices}",
                name=way,
                **own(result),
                **against(ways[0], parts[0]),
            )


def percent(parts: list[dict[str, Any]]) -> str:
    first = parts[0]
    return "".join(
        f"{100 * part['seconds'] / first['seconds']:12.0f} % "
        f"({100 * part['added'] / first['added']:3.0f} %)"
        for part in parts
    )


def ask(device: str, threads: int, **case: Any) -> dict[str, Any]:
    """Measure in a process of its own."""
    case |= {"device": device, "threads": threads}
    environment = dict(os.environ, OMP_NUM_THREADS=str(threads), MKL_NUM_THREADS=str(threads))
    done = subprocess.run(
        [sys.executable, __file__, "--case", json.dumps(case)],
        env=environment,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise SystemExit(f"{case} failed:\n{done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def measure(what: str, device: str, threads: int, **more: Any) -> dict[str, Any]:
    import torch

    warnings.simplefilter("ignore")
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    if what == "simulate":
        return simulate(**more)
    if what == "brain":
        return measure_brain(device, **more)
    if what == "fit":
        return measure_fit(device, **more)
    if what == "gemm":
        return {"gflops": gemm(device, threads)}
    if what == "layer":
        call = layer_pass(device, **more)
        return timed(call, device, threads, 5)
    network, x = network_and_input(what, **more)
    network, x = network.to(device), x.to(device)

    def forward() -> None:
        with torch.no_grad():
            network(x)

    def step() -> None:
        network.zero_grad()
        fod, others = network(x)
        (fod.square().mean() + others.square().mean()).backward()

    if what == "training":
        network.train()
        return timed(step, device, threads, REPEATS[what])
    network.eval()
    return timed(forward, device, threads, REPEATS[what])


def network_and_input(what: str, name: str) -> tuple[Any, Any]:
    import torch

    from napari_dmri.deconvolve.shd.network import build_network
    from napari_dmri.deconvolve.shd.presets import preset

    edge, batch = {"forward 16": (16, 1), "training": (3, 16)}.get(what, (8, 1))
    published = name in WAYS
    base = preset({"rt-esd as published": "rt-esd"}.get(name, "shd") if published else name)
    architecture = base.architecture
    if what == "training" and base.mode == "tiled":
        edge, batch = 8, 1
    if architecture.patch > 1:
        architecture = replace(architecture, patch=edge)
    shells, others = (1, 0) if what == "figure 4" else (2, 1)
    if published:
        architecture = replace(architecture, hemisphere=WAYS[name][1])
        network = published_network(architecture, shells, others, WAYS[name][0])
    else:
        network = build_network(architecture, shells, others)
    return network, torch.randn(batch, edge, edge, edge, shells, architecture.coefficients_in)


def layer_pass(device: str, name: str, side: int) -> Any:
    """Return a forward pass of a layer 32 -> 64."""
    import torch

    from napari_dmri.deconvolve.shd.chebyshev import ChebyshevLayer
    from napari_dmri.deconvolve.shd.sphere import Sphere

    half = WAYS[name][1] if name in WAYS else name == "shd"
    layer = ChebyshevLayer(Sphere(side, half), 32, 0, 64)
    x = torch.randn(layer.sphere.vertices, 1, 8, 8, 8, 32)
    if name in WAYS:
        layer = published_layer(layer, WAYS[name][0])
    layer, x = layer.to(device), x.to(device)

    def call() -> None:
        with torch.no_grad():
            layer(x)

    return call


if __name__ == "__main__":
    main()
