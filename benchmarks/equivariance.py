"""How far networks are from commuting with rotations: of the grid, of the sphere, of both.

    python benchmarks/equivariance.py [--filters 8] [--weights 2] [--turns 2] [--models FILE ...]

The table is like figure 8 of Elaldi, Gerig, Dey (NeurIPS 2024). The error is
|N(R x) - R N(x)| / |R N(x)| over the coefficients of all fODFs, once of all orders and once without
order 0: the shape alone, which is stricter, as untrained networks give little of it and the graph
of HEALPix makes of a constant what is not quite a constant. A rotation of the grid is a random one
of the cube's 23 turns, which need no interpolation; one of the sphere is any, of the shells'
coefficients; both are one of each. The input holds crossing fibres, new in each voxel; weights are
random, with batch norms far from their start and statistics of other such input. A layer is linear:
one convolution from the shells to features, projected to the SH order that it works on. Trained
networks follow: those of the package, and files of models that are named.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from napari_dmri.deconvolve.shd.architecture import Architecture
from napari_dmri.deconvolve.shd.chebyshev import ChebyshevLayer
from napari_dmri.deconvolve.shd.convolutional import ConvolutionLayer
from napari_dmri.deconvolve.shd.figure8 import ConcatLayer
from napari_dmri.deconvolve.shd.model import ShdModel
from napari_dmri.deconvolve.shd.network import build_network
from napari_dmri.deconvolve.shd.shipped import shipped_models
from napari_dmri.deconvolve.shd.spectral import SpectralConv
from napari_dmri.deconvolve.shd.sphere import Sphere
from napari_dmri.sphere.harmonics import design_matrix, n_coefficients, order_of
from napari_dmri.sphere.quadrature import half_quadrature

ROWS = {
    "SHD (P = 3)": {"patch": 3},
    "SHD (P = 8)": {"patch": 8},
    "SHD-S (P = 8)": {"layer": "spectral", "patch": 8, "border": "repeat"},
    "RT-ESD (P = 8)": {"patch": 8, "hemisphere": False, "full_head": True},
    "ESD (P = 1)": {"patch": 1},
    "CNN (P = 8)": {"layer": "convolution", "patch": 8},
    "Concat-SO(3) (P = 8)": {"layer": "concat-so3", "patch": 8},
    "E(3)-SH (P = 8)": {"layer": "e3-sh", "patch": 8},
}
ORDER = 8
DEGREE = 12
"""Of a layer's output, beyond which the vertices' filters hold next to nothing of order 8."""

Found = dict[str, list[tuple[float, float]]]
"""Errors, of all orders and of the shape, by rotation."""


def turn_sphere(rotation: np.ndarray, order: int) -> torch.Tensor:
    """Return D (C, C) that takes coefficients of f(u) to those of f(R^T u)."""
    points, weights = half_quadrature(2 * order)
    turned = design_matrix(points @ rotation, order)
    return torch.tensor((design_matrix(points, order).T * weights) @ turned).float()


def turn_grid(x: torch.Tensor, turns: list[tuple[int, int]]) -> torch.Tensor:
    """Turn axes 1 to 3 by quarters: (number of the axis, how often) in turn."""
    for axis, times in turns:
        x = x.rot90(times, [a for a in (1, 2, 3) if a != axis + 1])
    return x


def random_turns(rng: np.random.Generator) -> list[tuple[int, int]]:
    """Return one of the cube's turns that changes something."""
    probe = torch.arange(27).view(1, 3, 3, 3)
    while True:
        turns = [(axis, int(rng.integers(4))) for axis in range(3)]
        if not torch.equal(turn_grid(probe, turns), probe):
            return turns


def crossings(
    batch: int, edge: int, seed: int, bvalues: tuple[float, ...] = (0.0, 3000.0)
) -> torch.Tensor:
    """Return shells (B, P, P, P, S, C) of two fibres in tissue: b0 first, b-values in s/mm2."""
    rng = np.random.default_rng(seed)
    points, weights = half_quadrature(41)
    count = batch * edge**3
    fibres = rng.standard_normal((count, 2, 3))
    fibres /= np.linalg.norm(fibres, axis=-1, keepdims=True)
    tissue = rng.uniform(0.7, 3, (count, 1, 1))
    shares = rng.dirichlet([2, 2, 1], count)[..., None]
    shells = np.zeros((count, len(bvalues), n_coefficients(ORDER)))
    for shell, b in enumerate(np.asarray(bvalues) / 1000):
        signal = np.exp(-b * (0.3 + 1.4 * (fibres @ points.T) ** 2))
        still = np.broadcast_to(np.exp(-b * tissue), signal[:, :1].shape)
        mixed = (shares * np.concatenate([signal, still], 1)).sum(1)
        shells[:, shell] = mixed * weights @ design_matrix(points, ORDER)
    return torch.tensor(shells).float().view(batch, edge, edge, edge, len(bvalues), -1)


class Layer(torch.nn.Module):
    """One convolution from shells to coefficients of features, (B, X, Y, Z, F, C)."""

    def __init__(self, settings: dict[str, object], features: int) -> None:
        super().__init__()
        self.kind = settings.get("layer", "chebyshev")
        self.features = features
        space = settings["patch"] != 1
        if self.kind == "spectral":
            self.conv = SpectralConv([(2, ORDER)], features, ORDER, spatial=space)
            self.degree = ORDER
        elif self.kind in ("convolution", "e3-sh"):
            weights = 4 if self.kind == "e3-sh" else 27
            count = n_coefficients(ORDER)
            self.conv = ConvolutionLayer(2 * count, 0, features * count, weights)
            self.degree = ORDER
        else:
            sphere = Sphere(8, bool(settings.get("hemisphere", True)))
            if self.kind == "concat-so3":
                self.conv = ConcatLayer(sphere, 2, 0, features)
            else:
                self.conv = ChebyshevLayer(sphere, 2, 0, features, rings=4 if space else 0)
            self.degree = DEGREE
            self.into = torch.tensor(sphere.harmonics(ORDER)).float()
            self.back = torch.tensor(np.linalg.pinv(sphere.harmonics(DEGREE))).float()

    def forward(self, shells: torch.Tensor) -> torch.Tensor:
        if self.kind in ("convolution", "e3-sh"):
            y = self.conv(shells.flatten(-2)[None])[0] - self.conv.bias
            return y.unflatten(-1, (self.features, -1))
        x = shells.movedim(-1, 0)
        if self.kind == "spectral":
            return self.conv(x.contiguous()).movedim(0, -1)
        y = self.conv(torch.tensordot(self.into, x, 1))
        return torch.tensordot(self.back, y, 1).movedim(0, -1)


def network(settings: dict[str, object], filters: int, x: torch.Tensor, seed: int):
    """Return a network with weights of no meaning, its batch norms frozen on an input."""
    architecture = Architecture(filters=filters, **settings)
    net = build_network(architecture, 2, 0, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in net.named_parameters():
        size = parameter.shape
        if "norm.weight" in name:
            parameter.copy_(torch.rand(size, generator=generator) + 0.5)
        elif "norm.bias" in name:
            parameter.copy_(0.3 * torch.randn(size, generator=generator))
        elif name in ("unet.head.a", "unet.head.s"):
            parameter.copy_(torch.randn(size, generator=generator))
    for module in net.modules():
        if hasattr(module, "momentum"):
            module.momentum = 1.0
    net.train()(x.clone())
    return net.eval()


def errors(call, x: torch.Tensor, degree: int, turns: int, seed: int):
    """Yield (rotation, error, error of the shape), in percent, of random rotations."""
    rng = np.random.default_rng(seed)
    plain = call(x.clone())
    for _ in range(turns):
        grid = random_turns(rng)
        rotation = Rotation.random(rng=rng).as_matrix()
        into, out = (turn_sphere(rotation, order) for order in (order_of(x.shape[-1]), degree))
        for name, turned, expected in (
            ("grid", turn_grid(x, grid), turn_grid(plain, grid)),
            ("sphere", x @ into.T, plain @ out.T),
            ("both", turn_grid(x @ into.T, grid), turn_grid(plain @ out.T, grid)),
        ):
            wrong = call(turned.contiguous()) - expected
            yield (
                name,
                100 * float(wrong.norm() / expected.norm()),
                100 * float(wrong[..., 1:].norm() / expected[..., 1:].norm()),
            )


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--filters", type=int, default=8)
    parser.add_argument("--weights", type=int, default=2)
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--models", type=Path, nargs="*", default=[], help="trained networks")
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent / "results" / "equivariance.tsv"
    )
    options = parser.parse_args()
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    lines = ["architecture\tpart\trotation\terror_percent\tshape_error_percent\trotations"]
    print(f"{'':29s}{'':9s}" + "".join(f"{name:>18s}" for name in ("grid", "sphere", "both")))
    for label, settings in ROWS.items():
        edge = 3 if settings["patch"] == 3 else 8
        for part in ("layer", "network"):
            found: Found = {"grid": [], "sphere": [], "both": []}
            for seed in range(options.weights):
                x = crossings(1, edge, seed)
                if part == "layer":
                    torch.manual_seed(seed)
                    layer = Layer(settings, options.filters)
                    collect(found, layer, x, layer.degree, options.turns, seed)
                else:
                    seen = crossings(4 * (8 // edge) ** 3, edge, 1000 + seed)
                    net = network(settings, options.filters, seen, seed)
                    collect(found, fods(net), x, net.architecture.degree, options.turns, seed)
            tell(label, part, found, lines)
    for path in (*(held.path for held in shipped_models()), *options.models):
        model = ShdModel.load(path)
        made = model.architecture
        found = {"grid": [], "sphere": [], "both": []}
        for seed in range(options.weights):
            x = crossings(1, 3 if made.patch == 3 else 8, seed, model.bvalues)
            x = x[..., : made.coefficients_in]
            collect(found, fods(model.network.eval()), x, made.degree, options.turns, seed)
        tell(f"{path.stem}, trained", "network", found, lines)
    options.out.write_text("\n".join(lines) + "\n")


def fods(net: torch.nn.Module):
    """Return a function that gives a network's fODFs alone."""
    return lambda shells: net(shells)[0]


def collect(found: Found, call, x: torch.Tensor, degree: int, turns: int, seed: int) -> None:
    """Add the errors of some rotations."""
    for name, whole, shape in errors(call, x, degree, turns, seed):
        found[name].append((whole, shape))


def tell(label: str, part: str, found: Found, lines: list[str]) -> None:
    """Print the means of errors, and add them to the lines of the table."""
    means = {name: np.mean(pairs, axis=0) for name, pairs in found.items()}
    print(
        f"{label:29s}{part:9s}"
        + "".join(f"{whole:9.2g} ({shape:6.2g})" for whole, shape in means.values()),
        flush=True,
    )
    for name, (whole, shape) in means.items():
        lines.append(f"{label}\t{part}\t{name}\t{whole:.3g}\t{shape:.3g}\t{len(found[name])}")


if __name__ == "__main__":
    main()
