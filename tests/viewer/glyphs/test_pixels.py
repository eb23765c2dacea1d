"""What is drawn, judged from pixels: axes, colours, silhouettes."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import binary_dilation, binary_erosion

from napari_dmri.images import ShImage
from napari_dmri.sphere.harmonics import design_matrix
from napari_dmri.viewer.orientation import CONVENTIONS, PLANES

from .conftest import field_of, fodf, spread

pytestmark = pytest.mark.viewer


@pytest.fixture
def viewer(clean):
    """Return the viewer that this module's tests share."""
    return clean


AXES = {"R": (1, 0, 0), "A": (0, 1, 0), "S": (0, 0, 1)}
SEEN = {"axial": ("A", "R"), "coronal": ("S", "R"), "sagittal": ("S", "A")}
"""The axes that run up and across the screen."""


def one_voxel(direction, affine=None):
    return field_of(direction, (1, 1, 1), affine)


@pytest.mark.parametrize("plane", SEEN)
@pytest.mark.parametrize("sizes", [(2, 2, 2), (1, 2, 5)], ids=["cubic", "anisotropic"])
def test_fibres_run_along_their_screen_axes(viewer, draw, pixels, plane, sizes):
    up, across = SEEN[plane]
    affine = np.diag([*map(float, sizes), 1])
    for name, direction in AXES.items():
        layer = draw(one_voxel(direction, affine))
        viewer.dims.order = PLANES[plane]
        viewer.reset_view()
        colour, tall, wide = spread(pixels())
        assert np.argmax(colour) == "RAS".index(name), name
        if name == up:
            assert tall > 2.5 * wide
        elif name == across:
            assert wide > 2.5 * tall
        else:
            assert 0.9 < tall / wide < 1.1
        viewer.layers.remove(layer)


def test_a_slanted_fibre_leans_to_the_right_side(viewer, draw, pixels):
    """In the radiological view, right is on the left: R+A points to the upper left."""
    draw(one_voxel(np.array([1, 1, 0]) / np.sqrt(2)))
    picture = pixels()[..., :3].sum(-1) > 40
    rows, columns = np.nonzero(picture)
    slope = np.corrcoef(rows, columns)[0, 1]
    assert slope > 0.9
    viewer.scene.camera.orientation = CONVENTIONS["neurological"]
    rows, columns = np.nonzero(pixels()[..., :3].sum(-1) > 40)
    assert np.corrcoef(rows, columns)[0, 1] < -0.9


def test_a_flipped_layer_keeps_directions_in_the_world(viewer, draw, pixels):
    slanted = one_voxel(np.array([1, 1, 0]) / np.sqrt(2))
    layer = draw(slanted)
    before = pixels()[..., :3]
    layer.scale = np.asarray(layer.scale) * [1, -1, 1]
    after = pixels()[..., :3]
    assert np.abs(before.astype(int) - after).mean() < 1


def test_an_oblique_volume_turns_glyphs_with_its_axes_and_colours_in_ras(viewer, draw, pixels):
    """The image is shown unrotated, so a fibre along its first axis must run across the screen."""
    angle = np.deg2rad(30)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0],
                     [0, 0, 1]])  # fmt: skip
    affine = np.eye(4)
    affine[:3, :3] = turn * [1, 2, 3]
    layer = draw(one_voxel(turn[:, 0], affine))
    layer.restyle(lighting=0)
    picture = pixels()
    _, tall, wide = spread(picture)
    assert wide > 2.5 * tall
    row, _ = np.argwhere(picture[..., :3].sum(-1) > 300).mean(0).astype(int)
    tip = picture[row, np.nonzero(picture[row, :, :3].sum(-1) > 300)[0][3], :3] / 255
    np.testing.assert_allclose(tip, np.abs(turn[:, 0]), atol=0.06)


def test_3d_shows_the_same_directions(viewer, draw, pixels):
    viewer.dims.ndisplay = 3
    for name, direction in AXES.items():
        layer = draw(one_voxel(direction, np.diag([1.0, 2, 4, 1])))
        viewer.dims.ndisplay = 3
        viewer.reset_view()
        viewer.scene.camera.angles = (0, 0, 0)
        colour, tall, wide = spread(pixels())
        assert np.argmax(colour) == "RAS".index(name)
        if name == "S":
            assert 0.9 < tall / wide < 1.1
        else:
            assert (tall / wide if name == "A" else wide / tall) > 2.5
        viewer.layers.remove(layer)


@pytest.mark.parametrize("kind", ["sharp", "crossing", "negative"])
def test_the_silhouette_is_the_function_itself(viewer, draw, pixels, node_of, kind):
    rng = np.random.default_rng(3)
    coefficients = fodf([1, 0.3, 0.1] / np.sqrt(1.1))[0]
    if kind == "crossing":
        coefficients = coefficients + fodf([0, 1, 0])[0]
    if kind == "negative":
        coefficients = rng.normal(size=45) * 0.3
    image = ShImage(coefficients.astype(np.float32)[None, None, None], np.eye(4), name="one")
    layer = draw(image, opacity=1)
    layer.restyle(normalise=True, lighting=0)
    found = pixels()[..., :3].sum(-1) > 100
    expected = outline(coefficients * layer.shown()[1][0], viewer.scene.camera.zoom, found.shape)
    ring = np.ones((3, 3), bool)
    beyond = found & ~binary_dilation(expected, ring)
    missing = binary_erosion(expected, ring) & ~found
    assert expected.sum() > 50_000
    assert beyond.sum() + missing.sum() < 1e-4 * expected.sum()


def outline(coefficients, zoom, shape):
    """Return the pixels that a glyph at the centre covers, seen from the feet, R on the left.

    Its shadow reaches R(phi) = max over t of |r(u)| cos t, u tilted by t out of the plane at phi.
    """
    phi, tilt = np.linspace(-np.pi, np.pi, 721), np.linspace(-np.pi / 2, np.pi / 2, 361)
    p, t = (x.ravel() for x in np.meshgrid(phi, tilt, indexing="ij"))
    u = np.stack([np.cos(t) * np.cos(p), np.cos(t) * np.sin(p), np.sin(t)], -1)
    reach = np.abs(design_matrix(u, 8) @ coefficients) * np.cos(t)
    reach = reach.reshape(721, 361).max(1) * zoom
    rows, columns = np.indices(shape)
    right, front = (shape[1] - 1) / 2 - columns, (shape[0] - 1) / 2 - rows
    return np.hypot(right, front) < np.interp(np.arctan2(front, right), phi, reach)


def test_colours_are_the_absolute_directions(viewer, draw, pixels):
    sphere = np.zeros(45, np.float32)
    sphere[0] = 1
    layer = draw(ShImage(sphere[None, None, None], np.eye(4), name="ball"))
    layer.restyle(lighting=0)
    picture = pixels()[..., :3] / 255
    rows, columns = np.nonzero(picture.sum(-1) > 0.3)
    top, bottom, left, right = rows.min(), rows.max(), columns.min(), columns.max()
    radius = (bottom - top + right - left + 2) / 4
    y = ((top + bottom) / 2 - rows) / radius
    x = (columns - (left + right) / 2) / radius
    inner = np.hypot(x, y) < 0.95
    z = np.sqrt(1 - np.minimum(x**2 + y**2, 1))
    expected = np.abs(np.stack([x, y, z], -1))[inner]
    assert np.abs(picture[rows, columns][inner] - expected).max() < 0.05
    assert abs(right - left - (bottom - top)) <= 1


def test_negative_lobes_are_white_or_hidden(viewer, draw, pixels):
    coefficients = np.zeros(6, np.float32)
    coefficients[3] = 1
    layer = draw(ShImage(coefficients[None, None, None], np.eye(4), name="lobes"))
    viewer.dims.order = PLANES["coronal"]
    viewer.reset_view()
    layer.restyle(lighting=0)
    white = (pixels()[..., :3] > 250).all(-1).sum()
    layer.restyle(negative=False)
    hidden = pixels()[..., :3]
    assert white > 500
    assert (hidden > 250).all(-1).sum() == 0
    assert (hidden[..., 2] > 100).sum() > 500


def test_one_colour_map_and_amplitude(viewer, draw, pixels):
    image = field_of((1, 0, 0), (3, 3, 1))
    values = np.zeros((1, 3, 3), np.float32)
    values[0, :, 0] = 1
    colours = viewer.add_image(values, name="map", colormap="green", visible=False)
    layer = draw(image)
    layer.restyle(colour="uniform", uniform=(0.0, 0.0, 1.0), lighting=0, negative=False)
    lit = pixels()[..., :3]
    lit = lit[lit.sum(-1) > 200]
    assert (lit == (0, 0, 255)).mean() > 0.95
    layer.restyle(colour="map", colour_layer=colours)
    picture = pixels()
    assert (picture[..., 1] > 200).any() and (picture[..., 2] < 50).all()
    assert (picture[..., 1] > 200).sum() < 0.5 * len(lit)
    layer.restyle(colour="amplitude", colormap="red")
    picture = pixels()
    assert (picture[..., 0] > 200).any() and (picture[..., 1:3] < 30).all()


def test_glyphs_lie_over_maps_and_under_later_layers(viewer, draw, pixels):
    viewer.add_image(np.full((5, 5, 5), 0.4), contrast_limits=(0, 1), name="map")
    draw(field_of((0, 0, 1)))
    picture = pixels()[..., :3].astype(int)
    blue = (picture[..., 2] - picture[..., 0] > 60).sum()
    assert blue > 300
    viewer.add_image(np.full((5, 5, 5), 0.8), contrast_limits=(0, 1), name="cover")
    picture = pixels()[..., :3].astype(int)
    assert (picture[..., 2] - picture[..., 0] > 60).sum() == 0


def test_both_ways_to_evaluate_draw_the_same(viewer, draw, pixels, node_of):
    rng = np.random.default_rng(1)
    u = rng.normal(size=(9, 3))
    u /= np.linalg.norm(u, axis=1, keepdims=True)
    coefficients = fodf(u).reshape(3, 3, 1, 45).astype(np.float32)
    layer = draw(ShImage(coefficients, np.eye(4)))
    stored = pixels().astype(int)
    assert node_of(layer).path == "stored"
    node_of(layer).evaluate = "summed"
    layer.refresh()
    summed = pixels().astype(int)
    assert node_of(layer).path == "summed"
    assert np.abs(stored - summed).max() <= 3


@pytest.mark.parametrize("basis", ["descoteaux07", "tournier07_legacy"])
def test_a_wrong_basis_is_corrected_live(viewer, draw, pixels, basis):
    from napari_dmri.sphere.harmonics import convert_basis

    direction = np.array([1, 0.5, 0.3]) / np.linalg.norm([1, 0.5, 0.3])
    right = one_voxel(direction)
    layer = draw(right)
    expected = pixels().astype(int)
    viewer.layers.remove(layer)
    stored = convert_basis(right.coefficients, "tournier07", basis)
    wrong = ShImage(stored, np.eye(4), name="wrong")
    layer = draw(wrong)
    assert np.abs(pixels().astype(int) - expected).max() > 100
    layer.restyle(basis=basis)
    different = np.abs(pixels().astype(int) - expected).max(-1) > 30
    assert different.sum() < 2e-3 * (expected[..., :3].sum(-1) > 60).sum()
