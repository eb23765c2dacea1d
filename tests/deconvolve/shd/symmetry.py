"""Rotations of spheres and grids, scans of crossings, and networks with weights of no meaning."""

from __future__ import annotations

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from napari_dmri.sphere.harmonics import design_matrix
from napari_dmri.sphere.quadrature import half_quadrature


def random_rotation(seed):
    return Rotation.random(rng=np.random.default_rng(seed)).as_matrix()


def rotation_matrix(rotation, order):
    """Return D (C, C) that takes coefficients of f(u) to those of f(R^T u)."""
    points, weights = half_quadrature(2 * order)
    turned = design_matrix(points @ rotation, order)
    return torch.tensor((design_matrix(points, order).T * weights) @ turned, dtype=torch.float32)


def crossings(shape, seed=0, order=8):
    """Return shells (*shape, 2, C): b0, and b = 3000 s/mm2 of two fibres in tissue."""
    rng = np.random.default_rng(seed)
    points, weights = half_quadrature(41)
    count = int(np.prod(shape))
    fibres = rng.standard_normal((count, 2, 3))
    fibres /= np.linalg.norm(fibres, axis=-1, keepdims=True)
    signal = np.exp(-3 * (0.3 + 1.4 * (fibres @ points.T) ** 2))
    still = np.broadcast_to(np.exp(-3 * rng.uniform(0.7, 3, (count, 1, 1))), signal[:, :1].shape)
    parts = rng.dirichlet([2, 2, 1], count)[..., None]
    mixed = (parts * np.concatenate([signal, still], 1)).sum(1)
    shells = np.zeros((count, 2, design_matrix(points, order).shape[1]))
    shells[:, 0, 0] = np.sqrt(4 * np.pi)
    shells[:, 1] = mixed * weights @ design_matrix(points, order)
    return torch.tensor(shells.reshape(*shape, *shells.shape[1:]), dtype=torch.float32)


def settle(network, x, seed=0):
    """Give a network weights of no meaning and the statistics of an input, and freeze them."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "norm.weight" in name:
                parameter.copy_(torch.rand(parameter.shape, generator=generator) + 0.5)
            elif "norm.bias" in name:
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
            elif name in ("unet.head.a", "unet.head.s"):
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
        for module in network.modules():
            if hasattr(module, "momentum"):
                module.momentum = 1.0
        network.train()(x.clone())
    return network.eval()


def error(found, expected):
    """Return the relative error of fODFs."""
    return float((found - expected).norm() / expected.norm())


def shape_error(found, expected):
    """Return the relative error of the orders above 0 of fODFs."""
    return error(found[..., 1:], expected[..., 1:])
