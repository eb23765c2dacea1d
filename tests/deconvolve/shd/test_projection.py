"""From positive values at the vertices to coefficients."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.deconvolve.sticks import units

from napari_dmri.deconvolve.shd.architecture import Architecture
from napari_dmri.deconvolve.shd.network import build_network
from napari_dmri.sphere.harmonics import design_matrix
from napari_dmri.sphere.sampling import healpix_half


@pytest.mark.parametrize(("n_side", "degree"), [(4, 8), (4, 10), (4, 12), (8, 18)])
def test_a_positive_lobe_keeps_its_place_and_height(n_side: int, degree: int) -> None:
    """N_side 4 has 96 vertices for the 91 coefficients of degree 12, and is blind to 4 of them."""
    made = Architecture(n_side=n_side, degree=degree, depth=1, filters=1)
    project = build_network(made, 2, seed=0).project
    vertices, fine = healpix_half(n_side), healpix_half(16)
    axes = units(40, seed=2)
    lobes = np.exp(10 * ((vertices @ axes.T) ** 2 - 1)).astype(np.float32)
    f = design_matrix(fine, degree) @ (project @ torch.from_numpy(lobes)).numpy()
    assert f.min() > -0.06
    np.testing.assert_allclose(f.max(0), 1, atol=0.13)
    angle = np.rad2deg(np.arccos(np.abs((fine[f.argmax(0)] * axes).sum(1)).clip(0, 1)))
    assert angle.max() < 4
