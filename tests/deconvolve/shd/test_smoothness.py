"""Spatial smoothness of shapes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_dmri.deconvolve.shd.amplitudes import norm_factor
from napari_dmri.deconvolve.shd.smoothness import EDGE, shapes, smoothness
from napari_dmri.sphere.harmonics import design_matrix
from napari_dmri.sphere.sampling import healpix


def random_fod(edge: int, coefficients: int = 15, batch: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, edge, edge, edge, coefficients, generator=generator)


def random_mask(edge: int, batch: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.rand(batch, edge, edge, edge, generator=generator) > 0.3


@pytest.mark.parametrize("edge", [3, 4, 6])
def test_the_squared_form_is_the_papers_on_all_vertices(edge: int) -> None:
    """Term by term, with both voxels of a pair in the mask."""
    fod, mask = random_fod(edge), random_mask(edge)
    f = fod.double() @ torch.from_numpy(design_matrix(healpix(16), 4)).T
    u = f / f.norm(dim=-1, keepdim=True)
    terms = []
    for axis in (1, 2, 3):
        centre = u.narrow(axis, 1, edge - 2)
        for start in (2, 0):
            d = (centre - u.narrow(axis, start, edge - 2)).square()
            both = mask.narrow(axis, 1, edge - 2) & mask.narrow(axis, start, edge - 2)
            terms.append(d[both].mean())
    found = smoothness(shapes(fod, torch.tensor(norm_factor(4))), mask, mask)
    assert float(found) == pytest.approx(float(sum(terms)) / 6, rel=1e-4)


def test_one_different_voxel_by_hand() -> None:
    """u is e1 in the middle of 3^3 and e0 around it: all six pairs jump by 2, one in 9 counts."""
    u = torch.zeros(1, 3, 3, 3, 4)
    u[..., 0] = 1
    u[0, 1, 1, 1] = torch.tensor([0.0, 1, 0, 0])
    mask = torch.ones(1, 3, 3, 3, dtype=torch.bool)
    middle = torch.zeros_like(mask)
    middle[0, 1, 1, 1] = True
    assert float(smoothness(u, mask, mask)) == pytest.approx(2 / 9 / 3072, rel=1e-5)
    assert float(smoothness(u, mask, middle)) == pytest.approx(2 / 3072, rel=1e-5)
    # Total variation: half of six jumps of 2 in the middle, half of one in six neighbours.
    root = np.sqrt(6 + EDGE) + 6 * np.sqrt(1 + EDGE) - 7 * np.sqrt(EDGE)
    assert float(smoothness(u, mask, mask, "tv")) == pytest.approx(root / 27 / 3072, rel=1e-5)
    mask[0, 0, 1, 1] = False
    assert float(smoothness(u, mask, middle)) == pytest.approx(5 / 6 * 2 / 3072, rel=1e-5)


@pytest.mark.parametrize("form", ["squared", "tv"])
def test_grid_rotations_and_mirrors_change_nothing(form: str) -> None:
    u = shapes(random_fod(4), torch.tensor(norm_factor(4)))
    mask = random_mask(4)
    plain = smoothness(u, mask, mask, form)
    for turn in (
        lambda x: x.rot90(1, (1, 2)),
        lambda x: x.rot90(1, (2, 3)),
        lambda x: x.flip(1),
        lambda x: x.transpose(1, 3),
    ):
        torch.testing.assert_close(smoothness(turn(u), turn(mask), turn(mask), form), plain)


@pytest.mark.parametrize("form", ["squared", "tv"])
def test_size_does_not_count_and_equal_shapes_cost_nothing(form: str) -> None:
    factor = torch.tensor(norm_factor(4))
    mask = torch.ones(1, 4, 4, 4, dtype=torch.bool)
    amount = torch.linspace(1, 5, 64).reshape(1, 4, 4, 4, 1)
    same = random_fod(1, batch=1).expand(1, 4, 4, 4, 15) * amount
    assert float(smoothness(shapes(same, factor), mask, mask, form)) < 1e-9


@pytest.mark.parametrize("form", ["squared", "tv"])
def test_zero_fods_have_finite_gradients(form: str) -> None:
    factor = torch.tensor(norm_factor(4))
    fod = random_fod(3).clone()
    fod[0] = 0
    fod.requires_grad_()
    mask = torch.ones(2, 3, 3, 3, dtype=torch.bool)
    smoothness(shapes(fod, factor), mask, mask, form).backward()
    assert torch.isfinite(fod.grad).all()
    none = smoothness(shapes(fod, factor), mask & False, mask & False, form)
    assert float(none.detach()) == 0
