"""SHD and RT-ESD with their weights, evaluated as their authors do."""

from __future__ import annotations

from typing import Any

PUBLISHED = ("rt-esd as published", "half sphere", "dense", "shd as published")
"""The steps of the paper's figure 4, from RT-ESD to SHD."""

WAYS = {
    "rt-esd as published": ("recursion", False),
    "half sphere": ("recursion", True),
    "dense": ("dense recursion", True),
    "shd as published": ("dense", True),
}
"""How polynomials of the Laplacian are evaluated, and whether on one half of the sphere."""


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
