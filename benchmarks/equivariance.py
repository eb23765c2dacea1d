"""How far networks are from commuting with rotations: of the grid, of the sphere, of both.

    python benchmarks/equivariance.py [--filters 8] [--weights 2] [--turns 2] [--out FILE]

The table is like figure 8 of Elaldi, Gerig, Dey (NeurIPS 2024). The error is
|N(R x) - R N(x)| / |R N(x)| over the coefficients of all fODFs, once of all orders and once without
order 0: the shape alone, which is stricter, as untrained networks give little of it and the graph
of HEALPix makes of a constant what is not quite a constant. A rotation of the grid is a random one
of the cube's 23 turns, which need no interpolation; one of the sphere is any, of the shells'
coefficients; both are one of each. The input holds crossing fibres, new in each voxel; weights are
random, with batch norms far from their start and statistics of other such input. A layer is linear:
one convolution from the shells to features, projected to the SH order that it works on.
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
from napari_dmri.deconvolve.shd.network import build_network
from napari_dmri.deconvolve.shd.spectral import SpectralConv
from napari_dmri.deconvolve.shd.sphere import Sphere
from napari_dmri.sphere.harmonics import design_matrix, n_coefficients
from napari_dmri.sphere.quadrature import half_quadrature

ROWS = {
    "SHD (P = 3)": {"patch": 3},
    "SHD (P = 8)": {"patch": 8},
    "SHD-S (P = 8)": {"layer": "spectral", "patch": 8},
    "RT-ESD (P = 8)": {"patch": 8, "hemisphere": False, "full_head": True},
    "ESD (P = 1)": {"patch": 1},
    "CNN (P = 8)": {"layer": "convolution", "patch": 8},
    "Concat-SO(3) (P = 8)": {"layer": "concat-so3", "patch": 8},
    "E(3)-SH (P = 8)": {"layer": "e3-sh", "patch": 8},
}
ORDER = 8
DEGREE = 12
"""Of a layer's output, beyond which the vertices' filters hold next to nothing of order 8."""


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


def crossings(batch: int, edge: int, seed: int) -> torch.Tensor:
    """Return shells (B, P, P, P, 2, C): b0, and b = 3000 s/mm2 of two fibres in tissue."""
    rng = np.random.default_rng(seed)
    points, weights = half_quadrature(41)
    count = batch * edge**3
    fibres = rng.standard_normal((count, 2, 3))
    fibres /= np.linalg.norm(fibres, axis=-1, keepdims=True)
    signal = np.exp(-3 * (0.3 + 1.4 * (fibres @ points.T) ** 2))
    still = np.broadcast_to(np.exp(-3 * rng.uniform(0.7, 3, (count, 1, 1))), signal[:, :1].shape)
    shares = rng.dirichlet([2, 2, 1], count)[..., None]
    mixed = (shares * np.concatenate([signal, still], 1)).sum(1)
    shells = np.zeros((count, 2, n_coefficients(ORDER)))
    shells[:, 0, 0] = np.sqrt(4 * np.pi)
    shells[:, 1] = mixed * weights @ design_matrix(points, ORDER)
    return torch.tensor(shells).float().view(batch, edge, edge, edge, 2, -1)


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
        into, out = turn_sphere(rotation, ORDER), turn_sphere(rotation, degree)
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
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent / "results" / "equivariance.tsv"
    )
    options = parser.parse_args()
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    lines = ["architecture\tpart\trotation\terror_percent\tshape_error_percent\trotations"]
    print(f"{'':22s}{'':9s}" + "".join(f"{name:>18s}" for name in ("grid", "sphere", "both")))
    for label, settings in ROWS.items():
        for part in ("layer", "network"):
            found: dict[str, list[tuple[float, float]]] = {"grid": [], "sphere": [], "both": []}
            for seed in range(options.weights):
                edge = 3 if settings["patch"] == 3 else 8
                x = crossings(1, edge, seed)
                if part == "layer":
                    torch.manual_seed(seed)
                    layer = Layer(settings, options.filters)
                    call, degree = layer, layer.degree
                else:
                    seen = crossings(4 * (8 // edge) ** 3, edge, 1000 + seed)
                    net = network(settings, options.filters, seen, seed)
                    degree = net.architecture.degree

                    def call(shells, net=net):
                        return net(shells)[0]

                for name, whole, shape in errors(call, x, degree, options.turns, seed):
                    found[name].append((whole, shape))
            means = {name: np.mean(pairs, axis=0) for name, pairs in found.items()}
            print(
                f"{label:22s}{part:9s}"
                + "".join(f"{whole:9.2g} ({shape:6.2g})" for whole, shape in means.values()),
                flush=True,
            )
            for name, (whole, shape) in means.items():
                count = len(found[name])
                lines.append(f"{label}\t{part}\t{name}\t{whole:.3g}\t{shape:.3g}\t{count}")
    options.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
