"""Networks of the SHD family: forward passes, training steps, memory, and the layer over N_side.

Run ``python benchmarks/shd.py`` for everything on one and two threads (and a GPU where there is
one), or pick with ``--threads 1 --methods shd rt-esd shd-s --parts networks``. Each figure comes
from a process of its own. Times of one thread are CPU seconds, as the authors' were, of more
threads or a GPU wall seconds; the least of some repeats. Memory is what a pass adds at its peak to
what the process held before. "scaled" is seconds x own GEMM GFLOP/s / 114, the authors' machine,
against the authors' figure; on a GPU times are not scaled.

"As published" is the same network with each layer evaluated as its authors do (the polynomials of
all input features, then a dense 3 x 3 x 3 convolution shared by the vertices), written anew here:
RT-ESD recurs with a sparse Laplacian on the whole sphere, SHD multiplies by dense polynomials on
one half.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import time
import warnings
from dataclasses import replace
from typing import Any

AUTHORS_GEMM = 114.0
AUTHORS = {
    ("shd", "forward 16"): (31.2, 5.23 - 0.4),
    ("shd", "forward 8"): (2.52, 1.18 - 0.4),
    ("shd", "training"): (6.41, 2.01 - 0.4),
    ("rt-esd", "forward 16"): (79.5, 11.78 - 0.4),
    ("rt-esd", "forward 8"): (6.63, 1.99 - 0.4),
    ("rt-esd", "training"): (16.5, 3.07 - 0.4),
}
"""Seconds and GB on the authors' code (methods.md, G.2), about 0.4 GB there before the pass."""

METHODS = ("shd", "rt-esd", "esd", "shd-s", "cnn", "mlp", "concat-so3", "e3-sh")
PUBLISHED = ("rt-esd as published", "half sphere", "dense", "shd as published")
WAYS = {
    "rt-esd as published": ("recursion", False),
    "half sphere": ("recursion", True),
    "dense": ("dense recursion", True),
    "shd as published": ("dense", True),
}
REPEATS = {"forward 16": 2, "forward 8": 4, "training": 4, "figure 4": 4}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    options.add_argument("--methods", nargs="+", default=[*METHODS])
    options.add_argument("--parts", nargs="+", default=["networks", "published", "figure4"])
    options.add_argument("--cases", nargs="+", default=["forward 16", "forward 8", "training"])
    options.add_argument("--case", help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.case:
        print(json.dumps(measure(**json.loads(chosen.case))))
        return
    devices = [("cpu", threads) for threads in chosen.threads]
    if has_gpu():
        devices.append(("cuda", 1))
    for device, threads in devices:
        run(device, threads, chosen)


def run(device: str, threads: int, chosen: argparse.Namespace) -> None:
    where = f"{threads} thread{'s' if threads > 1 else ''}" if device == "cpu" else device
    rate = ask(device, threads, what="gemm")["gflops"]
    print(
        f"\n{where}: float32 GEMM {rate:.0f} GFLOP/s, load average {os.getloadavg()[0]:.1f}; "
        "N_side 8, depth 4, 32 filters (CNN, MLP 128), 2 shells in, white matter and one tissue out"
    )
    found: dict[tuple[str, str], dict[str, Any]] = {}
    names = [*chosen.methods] if "networks" in chosen.parts else []
    if "published" in chosen.parts:
        names += ["shd as published", "rt-esd as published"]
    for case in chosen.cases:
        print(f"\n{TITLES[case]}")
        for name in names:
            if "published" in name and case == "forward 16":
                continue
            result = ask(device, threads, what=case, name=name)
            found[name, case] = result
            print(line(name, case, result, rate, device))
        ratios(found, case)
    if "figure4" in chosen.parts:
        figure4(device, threads)


TITLES = {
    "forward 16": "Forward pass of 16 x 16 x 16 voxels (architecture of P = 16)",
    "forward 8": "Forward pass of 8 x 8 x 8 voxels (architecture of P = 8)",
    "training": "Training step: forward and backward of 16 patches of 3 x 3 x 3 (tiled: 1 of 8^3)",
}


def line(name: str, case: str, result: dict[str, Any], rate: float, device: str) -> str:
    text = f"{name:20s} {result['seconds']:8.3f} s   + {result['added']:6.3f} GB"
    scaled = result["seconds"] * (rate / AUTHORS_GEMM if device == "cpu" else 1)
    peer = "rt-esd" if name.startswith("rt-esd") else "shd"
    seconds, memory = AUTHORS[peer, case]
    return (
        f"{text}   scaled {scaled:8.3f} s   {peer} by its authors {seconds:5.2f} s, "
        f"+ {memory:5.2f} GB: {seconds / scaled:6.1f}x, {memory / result['added']:6.1f}x"
    )


def ratios(found: dict[tuple[str, str], dict[str, Any]], case: str) -> None:
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


def figure4(device: str, threads: int) -> None:
    """Print the paper's figure 4: a layer and the U-Net, steps from RT-ESD to SHD, and ours."""
    ways = [*PUBLISHED, "rt-esd", "shd"]
    print("\nA layer 32 -> 64, 8 x 8 x 8 voxels; time (memory), RT-ESD as published = 100 %")
    print(f"{'vertices of the whole sphere':30s}" + "".join(f"{way:>22s}" for way in ways))
    for side in (1, 2, 4, 8):
        parts = [ask(device, threads, what="layer", name=way, side=side) for way in ways]
        print(f"{12 * side**2:<30d}" + percent(parts))
    parts = [ask(device, threads, what="figure 4", name=way) for way in ways]
    print(f"{'U-Net, 1 in, 1 out':30s}" + percent(parts))


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


def measure(
    what: str, device: str, threads: int, name: str = "", side: int = 8
) -> dict[str, float]:
    import torch

    warnings.simplefilter("ignore")
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    if what == "gemm":
        return {"gflops": gemm(device, threads)}
    if what == "layer":
        call = layer_pass(name, side, device)
        return timed(call, device, threads, 5)
    network, x = network_and_input(what, name)
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


def layer_pass(name: str, side: int, device: str) -> Any:
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


def published_network(architecture: Any, shells: int, others: int, way: str) -> Any:
    from napari_dmri.deconvolve.shd.network import ChebyshevMaker, SphereNetwork

    class Maker(ChebyshevMaker):
        def layer(self, *given: int) -> Any:
            return published_layer(super().layer(*given), way)

    class Network(SphereNetwork):
        def maker(self) -> Any:
            return Maker(self.architecture, self.spheres)

    return Network(architecture, shells, others)


def published_layer(layer: Any, way: str) -> Any:
    """Return a layer with the same weights, evaluated as published."""
    import numpy as np
    import torch
    from torch.nn import functional

    from napari_dmri.deconvolve.shd.pooling import Unpool
    from napari_dmri.deconvolve.shd.unet import Layer
    from napari_dmri.sphere.graph import scaled_laplacian

    class Published(Layer):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.s, self.bias = layer.a, layer.s, layer.bias
            sphere = layer.sphere
            self.unpool = Unpool(sphere)
            scaled = scaled_laplacian(sphere.n_side, sphere.hemisphere)
            dense = torch.tensor(scaled, dtype=torch.float32)
            if way == "recursion":
                laplacian = torch.where(dense.abs() > 1e-9, dense, 0).to_sparse_csr()
            elif way == "dense":
                modes = sphere.modes.double().numpy()
                values = sphere.polynomials(self.a.shape[2])
                stack = [(modes.T * column) @ modes for column in values.T]
                laplacian = torch.tensor(np.concatenate(stack), dtype=torch.float32)
            else:
                laplacian = dense
            self.register_buffer("laplacian", laplacian, persistent=False)
            distance = np.abs(np.mgrid[-1:2, -1:2, -1:2]).sum(0)
            self.register_buffer("distance", torch.tensor(distance), persistent=False)

        def forward(self, x: Any, coarse: Any = None) -> Any:
            if coarse is not None:
                x = torch.cat([self.unpool(coarse, x.shape[2:5]), x], -1)
            terms, inputs = self.a.shape[2], x.shape[-1]
            # (V, B, F, X, Y, Z), so that the convolution has its features where it wants them.
            flat = x.movedim(-1, 2).flatten(1)
            space, batch = x.shape[2:5], x.shape[1]
            if way == "dense":
                parts = (self.laplacian @ flat).view(terms, len(x), batch, inputs, *space)
            else:
                rows = [flat, self.laplacian @ flat]
                while len(rows) < terms:
                    rows.append(2 * (self.laplacian @ rows[-1]) - rows[-2])
                parts = torch.stack(rows[:terms]).view(terms, len(x), batch, inputs, *space)
            features = parts.permute(1, 2, 3, 0, 4, 5, 6).reshape(-1, inputs * terms, *space)
            if self.s is None:
                kernel = self.a.flatten(1)[..., None, None, None]
            else:
                s = self.s[:, :, self.distance] if self.s.shape[2] == 4 else self.s
                kernel = (self.a[..., None, None, None] * s[:, :, None]).flatten(1, 2)
            y = functional.conv3d(features, kernel, self.bias, padding=kernel.shape[-1] // 2)
            return y.view(len(x), batch, -1, *space).movedim(2, -1).contiguous()

    return Published()


def timed(call: Any, device: str, threads: int, repeats: int) -> dict[str, float]:
    """Return the least seconds of a call, and the GB it adds at its peak."""
    import torch

    gpu = device == "cuda"
    clock = time.process_time if threads == 1 and not gpu else time.perf_counter
    if gpu:
        call()
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated() / 1e9
    else:
        before = memory("VmRSS")
        with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w") as reset:
            reset.write("5")
    times = []
    for _ in range(repeats):
        begin = clock()
        call()
        if gpu:
            torch.cuda.synchronize()
        times.append(clock() - begin)
    peak = torch.cuda.max_memory_allocated() / 1e9 if gpu else memory("VmHWM")
    return {"seconds": min(times), "added": max(peak - before, 1e-4)}


def memory(field: str) -> float:
    """Return the process's memory in GB."""
    with open("/proc/self/status") as lines:
        for text in lines:
            if text.startswith(field):
                return int(text.split()[1]) * 1024 / 1e9
    return 0.0


def gemm(device: str, threads: int) -> float:
    """Return the rate of a product of 2048 x 2048 matrices in GFLOP/s."""
    import torch

    a, b = torch.randn(2, 2048, 2048, device=device).unbind()
    return 2 * 2048**3 / timed(lambda: a @ b, device, threads, 8)["seconds"] / 1e9


if __name__ == "__main__":
    main()
