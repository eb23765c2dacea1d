from __future__ import annotations

import numpy as np
import pytest

from napari_dmri.deconvolve.base import Deconvolution
from napari_dmri.errors import InputError
from napari_dmri.images import (
    PeakImage,
    Response,
    ResponseSet,
    ScalarImage,
    ShImage,
    TensorImage,
)


def tensor_image(eigenvalues: list[float], principal: tuple[float, ...] = (1, 0, 0)) -> TensorImage:
    shape = (1, 1, 1)
    return TensorImage(
        tensor=np.zeros((*shape, 6), np.float32),
        eigenvalues=np.array(eigenvalues, np.float32).reshape(*shape, 3),
        principal=np.array(principal, np.float32).reshape(*shape, 3),
        affine=np.eye(4),
    )


@pytest.mark.parametrize(
    ("eigenvalues", "fa"),
    [
        ([1e-3, 1e-3, 1e-3], 0.0),
        ([1e-3, 0, 0], 1.0),
        ([0, 0, 0], 0.0),
        ([1.7e-3, 3e-4, 3e-4], 0.799),
    ],
)
def test_fractional_anisotropy_of_known_tensors(eigenvalues: list[float], fa: float) -> None:
    assert tensor_image(eigenvalues).fa.item() == pytest.approx(fa, abs=5e-4)


def test_diffusivities_are_means_of_eigenvalues() -> None:
    image = tensor_image([1.7e-3, 4e-4, 2e-4])
    assert image.ad.item() == pytest.approx(1.7e-3)
    assert image.rd.item() == pytest.approx(3e-4)
    assert image.md.item() == pytest.approx(2.3e-3 / 3)


def test_colour_fa_shows_the_axis_whatever_its_sign() -> None:
    colour = tensor_image([1e-3, 0, 0], (0, -1, 0)).colour_fa
    np.testing.assert_allclose(colour[0, 0, 0], [0, 1, 0], atol=1e-6)


def test_sh_images_know_their_order_and_refuse_other_counts() -> None:
    image = ShImage(np.zeros((2, 2, 2, 45), np.float32), np.eye(4))
    assert image.order == 8 and image.basis == "tournier07"
    with pytest.raises(InputError, match="10 volumes are not a set of even SH"):
        ShImage(np.zeros((2, 2, 2, 10), np.float32), np.eye(4))
    with pytest.raises(InputError, match=r"expected \(x, y, z, C\)"):
        ShImage(np.zeros((2, 15), np.float32), np.eye(4))


def test_at_the_prompt_they_say_what_they_are_and_not_their_voxels() -> None:
    grid = (40, 50, 60)
    fod = ShImage(np.zeros((*grid, 45), np.float32), np.eye(4), name="fODF")
    residual = ScalarImage(np.zeros(grid, np.float32), np.eye(4), "residual", "S/b0")
    responses = ResponseSet(
        {
            "csf": Response(np.ones((2, 1)), (0, 1000), "csf"),
            "wm": Response(np.ones((2, 5)), (0, 1000)),
        },
        voxels=residual,
    )
    said = {
        tensor_image([1e-3, 0, 0]): "TensorImage('tensor', (1, 1, 1))",
        residual: "ScalarImage('residual', (40, 50, 60), S/b0)",
        PeakImage(
            np.zeros((*grid, 5, 3), np.float32), np.zeros((*grid, 5), np.float32), np.eye(4)
        ): ("PeakImage('peaks', (40, 50, 60), up to 5 a voxel)"),
        Deconvolution(fod, {"residual": residual}, voxels=7): (
            "Deconvolution(ShImage('fODF', (40, 50, 60), order 8), maps residual; 7 voxels)"
        ),
    }
    for value, text in said.items():
        assert repr(value) == text
    assert repr(responses) == (
        "ResponseSet(Response('wm', b = 0, 1000, order 8), Response('csf', b = 0, 1000, order 0))"
    )
