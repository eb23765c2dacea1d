"""Levels, patches and tiles of an architecture."""

import json

import pytest

from napari_dmri.deconvolve.shd import Architecture
from napari_dmri.errors import InputError


@pytest.mark.parametrize(
    ("patch", "patches", "strides", "multiple"),
    [
        (1, (1, 1, 1, 1), (0, 0, 0), 1),
        (3, (3, 2, 1, 1), (1, 2, 0), 3),
        (4, (4, 2, 1, 1), (2, 2, 0), 4),
        (5, (5, 4, 2, 1), (1, 2, 2), 5),
        (8, (8, 4, 2, 1), (2, 2, 2), 8),
        (16, (16, 8, 4, 2), (2, 2, 2), 8),
    ],
)
def test_levels_follow_from_the_patch(patch, patches, strides, multiple):
    architecture = Architecture(patch=patch)
    assert architecture.patches == patches
    assert architecture.strides == strides
    assert architecture.spatial == tuple(edge > 1 for edge in patches)
    assert architecture.multiple == multiple
    assert architecture.tiled == (patch not in (3, 5))


def test_levels_of_the_sphere_end_at_one():
    architecture = Architecture(n_side=2, degree=4, depth=4)
    assert architecture.sides == (2, 1, 1, 1)
    assert architecture.vertices == (24, 6, 6, 6)
    assert Architecture(hemisphere=False).vertices == (768, 192, 48, 12)
    assert Architecture().features == (32, 64, 128, 256)
    assert Architecture(full_head=True).spatial == (True,) * 4


def test_a_card_gives_the_architecture_back():
    architecture = Architecture(layer="spectral", bands=(8, 6, 4, 2), patch=8)
    card = json.loads(json.dumps(architecture.as_dict()))
    assert Architecture.from_dict(card) == architecture
    with pytest.raises(InputError, match=r"Unknown settings.*sides_of"):
        Architecture.from_dict({"sides_of": 3})
    old = {name: value for name, value in card.items() if name != "border"}
    assert Architecture.from_dict(old).border == "zeros"


def test_tiles_that_do_not_fit_are_refused():
    Architecture(patch=8).check_tile((16, 8, 24))
    Architecture(patch=1).check_tile((5, 7, 1))
    Architecture(patch=3).check_tile((3, 3, 3))
    with pytest.raises(InputError, match="multiples of 8"):
        Architecture(patch=8).check_tile((12, 8, 8))
    with pytest.raises(InputError, match="3 voxels an edge, not 4x3x3"):
        Architecture(patch=3).check_tile((4, 3, 3))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"layer": "dense"}, "Unknown layer"),
        ({"n_side": 6}, "power of two"),
        ({"n_side": 4}, "do not determine"),
        ({"depth": 0}, "whole number"),
        ({"filters": 2.5}, "whole number"),
        ({"degree": 7}, "even number"),
        ({"bands": (8, 6)}, "one a level"),
        ({"border": "mirror"}, "Unknown border 'mirror'; choose one of zeros, repeat"),
        ({"border": "repeat", "layer": "concat-so3"}, "choose the border zeros"),
        ({"border": "repeat", "isotropic": False}, "choose the border zeros"),
    ],
)
def test_parts_that_do_not_fit_are_refused(settings, words):
    with pytest.raises(InputError, match=words):
        Architecture(**settings)
