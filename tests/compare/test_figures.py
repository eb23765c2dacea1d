"""Plots and panels: what is drawn, in which colours and which way round."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure

from napari_dmri.compare import figures
from napari_dmri.compare.maps import difference
from napari_dmri.errors import InputError
from napari_dmri.images import ScalarImage

SHAPE = (6, 7, 8)


@pytest.fixture
def pair():
    rng = np.random.default_rng(0)
    a = rng.uniform(0.1, 1, SHAPE).astype(np.float32)
    affine = np.diag([2.0, 2.0, 3.0, 1])
    b = (a + rng.normal(0.05, 0.02, SHAPE)).astype(np.float32)
    return ScalarImage(a, affine, "A FA"), ScalarImage(b, affine, "B FA")


@pytest.fixture
def ax():
    return Figure().subplots()


def test_histogram_shows_each_map_as_shares_in_the_theme_s_colours(ax, pair):
    style = figures.Style.dark()
    figures.draw_histogram(ax, pair, style=style)
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["A FA", "B FA"]
    shares = [patch.get_data().values.sum() for patch in ax.patches]
    assert all(95 < share <= 100.01 for share in shares)
    assert ax.xaxis.label.get_color() == style.text
    assert ax.get_ylabel() == "voxels (%)"


def test_histogram_of_a_constant_map_is_drawn(ax):
    flat = ScalarImage(np.ones(SHAPE, np.float32), np.eye(4), "flat", "mm²/s")
    figures.draw_histogram(ax, [flat])
    assert ax.get_xlabel() == "value (mm²/s)"


def test_bland_altman_returns_what_it_draws(ax, pair):
    found = figures.draw_bland_altman(ax, *pair, names=("ours", "theirs"))
    assert found.bias == pytest.approx(-0.05, abs=0.01)
    assert found.upper - found.lower == pytest.approx(2 * 1.96 * 0.02, rel=0.2)
    heights = [line.get_ydata()[0] for line in ax.lines]
    np.testing.assert_allclose(heights[:3], [found.bias, found.upper, found.lower])
    assert ax.get_ylabel() == "ours − theirs"


def test_slices_are_radiological(ax):
    data = np.zeros(SHAPE, np.float32)
    data[-1, 0, 3] = 1  # the subject's right-most, posterior-most voxel
    panel = figures.Panel(ScalarImage(data, np.eye(4)), "x")
    drawn = figures.draw_slice(ax, panel, "axial", 3, limits=(0, 1))
    picture = drawn.get_array()
    row, column = np.argwhere(np.asarray(picture) == 1)[0]
    assert column == 0  # right is on the left
    assert row == 0
    assert drawn.origin == "lower"  # posterior is below
    drawn = figures.draw_slice(ax, panel, "sagittal", SHAPE[0] - 1, limits=(0, 1))
    row, column = np.argwhere(np.asarray(drawn.get_array()) == 1)[0]
    assert (row, column) == (3, SHAPE[1] - 1)  # posterior is on the right


def test_voxel_proportions_are_true(ax, pair):
    panel = figures.Panel(pair[0], "A")
    figures.draw_slice(ax, panel, "coronal", 2, limits=(0, 1))
    assert ax.get_aspect() == pytest.approx(1.5)


def test_panels_share_limits_and_differences_are_symmetric(pair):
    a, b = pair
    panels = [
        figures.Panel(a, "A"),
        figures.Panel(b, "B"),
        figures.Panel(difference(b, a), "B − A", diverging=True),
    ]
    figure = figures.panel_figure(panels, planes=("axial", "coronal"), title="FA")
    images = [im for axis in figure.axes for im in axis.get_images()]
    assert len(images) == 6
    assert images[0].get_clim() == images[1].get_clim()
    diverging = [im.get_clim() for im in images if im.get_cmap().name == "RdBu_r"]
    assert len(diverging) == 2
    assert diverging[0][0] == -diverging[0][1]
    assert len(figure.axes) == 6 + 3  # a colour bar for each panel
    assert [figure.axes[i].get_title() for i in range(3)] == ["A", "B", "B − A"]


def test_a_ratio_diverges_about_one(pair):
    ratio = difference(*pair, "ratio")
    low, high = figures.limits_of(ratio, diverging=True, centre=1.0)
    assert (low + high) / 2 == pytest.approx(1)


def test_centre_of_a_mask():
    mask = np.zeros(SHAPE, bool)
    mask[1:4, 2:3, 5:8] = True
    assert figures.centre_of(mask, SHAPE) == (2, 2, 6)
    assert figures.centre_of(None, SHAPE) == (3, 3, 4)


def test_bad_input_is_refused(ax, pair):
    small = ScalarImage(np.ones((2, 2, 2), np.float32), np.eye(4))
    with pytest.raises(InputError, match="one grid"):
        figures.panel_figure([figures.Panel(pair[0], "A"), figures.Panel(small, "B")])
    with pytest.raises(InputError, match="at least one panel"):
        figures.panel_figure([])
    with pytest.raises(InputError, match="Unknown plane"):
        figures.draw_slice(ax, figures.Panel(pair[0], "A"), "oblique", 0, limits=(0, 1))
    with pytest.raises(InputError, match="outside 0 to 7"):
        figures.draw_slice(ax, figures.Panel(pair[0], "A"), "axial", 8, limits=(0, 1))
    with pytest.raises(InputError, match="mask has shape"):
        figures.draw_histogram(ax, pair, mask=np.ones((2, 2, 2), bool))
    with pytest.raises(InputError, match="No voxel to plot"):
        figures.draw_histogram(ax, [ScalarImage(np.zeros(SHAPE, np.float32), np.eye(4))])
