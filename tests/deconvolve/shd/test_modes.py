"""The quick change between vertices and modes against the dense one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.linalg import block_diag

from napari_dmri.deconvolve.shd.modes import Modes
from napari_dmri.sphere.graph import laplacian_basis


@pytest.mark.parametrize("half", [True, False])
@pytest.mark.parametrize("n_side", [1, 2, 4])
def test_modes_are_those_of_the_dense_basis(n_side: int, half: bool) -> None:
    mirror, blocks, _ = laplacian_basis(n_side, half)
    dense = block_diag(*blocks).T @ mirror
    modes = Modes(n_side, half)
    x = torch.tensor(np.random.default_rng(0).standard_normal((len(dense), 7)))
    found = modes.to_modes(x, torch.empty_like(x))
    np.testing.assert_allclose(found, dense @ x.numpy(), atol=1e-12)
    back = modes.from_modes(found, torch.empty_like(x))
    np.testing.assert_allclose(back, x, atol=1e-12)


def test_modes_in_place_in_pieces_with_shift_and_rectifier(monkeypatch) -> None:
    monkeypatch.setattr("napari_dmri.deconvolve.shd.modes.CHUNK", 24 * 6)
    modes = Modes(2)
    x = torch.randn(24, 3 * 5)
    wanted = x.clone()
    hat = modes.to_modes(x, x)
    assert hat is x
    shift = torch.tensor([0.1, -0.2, 0.3])
    found = modes.from_modes(hat, hat, shift, rectify=True)
    wanted = (wanted.view(24, 5, 3) + shift).relu().view(24, 15)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
