"""SH files: only what is shown is read; the basis is asked for; several files side by side."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from napari.layers import Image
from typer.testing import CliRunner

from napari_dmri.errors import DmriWarning, InputError
from napari_dmri.images import ScalarImage
from napari_dmri.io import read_sh, write_map, write_sh
from napari_dmri.io.sh_images import ShFile, open_sh
from napari_dmri.sphere.harmonics import convert_basis
from napari_dmri.viewer.glyphs import commands
from napari_dmri.viewer.glyphs.layer import SHGlyphs
from napari_dmri.viewer.glyphs.show import image_of, show_glyphs
from napari_dmri.viewer.layers import object_of

from .conftest import field_of, fodf, spread

pytestmark = pytest.mark.viewer

DIRECTION = np.array([1, 0.5, 0.3]) / np.linalg.norm([1, 0.5, 0.3])


def glyphs_in(viewer):
    return [layer for layer in viewer.layers if isinstance(layer, SHGlyphs)]


def bare(path, basis, direction=DIRECTION, shape=(4, 5, 6)):
    """Write SH coefficients without a sidecar, on flipped axes."""
    stored = convert_basis(field_of(direction, shape).coefficients, "tournier07", basis)
    nib.save(nib.Nifti1Image(stored[::-1], np.diag([-2.0, 2, 2, 1])), path)
    return path


def highest_memory(reset=False):
    """Return the process's peak of resident memory in MB, from the last reset on."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    words = Path("/proc/self/status").read_text().split("VmHWM:")[1].split()
    return int(words[0]) / 1024


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="measured on Linux")
def test_a_file_of_five_million_voxels_opens_in_little_memory(
    viewer, draw, settle, pixels, tmp_path
):
    """Sparse on disk: 160 x 200 x 160 voxels of order 8 are 0.9 GB."""
    shape = (160, 200, 160, 45)
    header = nib.Nifti1Header()
    header.set_data_shape(shape)
    header.set_data_dtype(np.float32)
    header.set_sform(np.eye(4), code="scanner")
    header["vox_offset"] = 352
    path = tmp_path / "huge_fod.nii"
    values = fodf((0, 1, 0))[0].astype("<f4")
    with path.open("wb") as stream:
        stream.write(header.binaryblock + b"\0\0\0\0")
        for index, value in enumerate(values):
            stream.seek(352 + 4 * 160 * 200 * (160 * index + 80))
            stream.write(np.full(160 * 200, value, "<f4").tobytes())
        stream.truncate(352 + 4 * int(np.prod(shape)))
    draw(field_of((1, 0, 0)))
    viewer.layers.clear()
    before = highest_memory(reset=True)
    viewer.open(str(path), plugin="napari-dmri")
    settle(lambda: bool(glyphs_in(viewer)))
    layer = glyphs_in(viewer)[0]
    viewer.dims.set_current_step(viewer.dims.ndim - 3, 80)
    pixels()
    assert len(layer.shown()[0]) == 160 * 200
    assert highest_memory() - before < 300


@pytest.mark.parametrize("basis", ["tournier07", "descoteaux07"])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_an_opened_file_says_its_basis_or_that_it_is_assumed(tmp_path, basis, suffix):
    path = bare(tmp_path / f"fod{suffix}", basis)
    opened = open_sh(path)
    assert not opened.named and opened.basis == "tournier07" and "does not say" in opened.remark()
    assert opened.shape == (4, 5, 6, 45) and opened.order == 8
    opened = open_sh(path, basis=basis)
    assert opened.named and opened.remark() == ""
    np.testing.assert_allclose(opened.read().coefficients[0, 0, 0], fodf(DIRECTION)[0], atol=1e-6)
    with pytest.warns(DmriWarning, match="does not say its SH basis"):
        read_sh(path)


def test_the_panel_asks_for_the_basis_until_it_is_chosen(viewer, settle, pixels, tmp_path):
    path = bare(tmp_path / "dipy_fod.nii", "descoteaux07", (1, 0, 0), (4, 4, 4))
    viewer.open(str(path), plugin="napari-dmri")
    settle(lambda: bool(glyphs_in(viewer)))
    layer = glyphs_in(viewer)[0]
    assert isinstance(object_of(layer), ShFile)
    panel = viewer.window._qt_viewer.controls.widgets[layer]
    assert panel.basis_question.isVisibleTo(panel)
    at = panel.basis.findData("descoteaux07")
    panel.basis.setCurrentIndex(at)
    panel.basis.activated.emit(at)
    assert layer.style.basis == "descoteaux07" and not panel.basis_question.isVisibleTo(panel)
    np.testing.assert_allclose(image_of(layer).coefficients[1, 1, 1], fodf((1, 0, 0))[0], atol=1e-6)
    layer.restyle(lighting=0)
    viewer.reset_view()
    assert np.argmax(spread(pixels())[0]) == 0
    viewer.layers.selection.active = layer
    commands.show_sh_peaks()
    np.testing.assert_allclose(np.abs(viewer.layers[-1].data[0, 1] @ [0, 0, 1]), 1, atol=0.1)


def test_a_known_basis_is_not_asked_for(viewer, draw, tmp_path):
    write_sh(field_of((1, 0, 0), (3, 3, 3)), tmp_path / "fod.nii.gz", basis="descoteaux07_legacy")
    opened = open_sh(tmp_path / "fod.nii.gz")
    layer = draw(opened)
    panel = viewer.window._qt_viewer.controls.widgets[layer]
    assert layer.style.basis == "descoteaux07_legacy"
    assert not panel.basis_question.isVisibleTo(panel)
    assert panel.basis.currentData() == "descoteaux07_legacy"
    shown = layer.shown()[0].coefficients[0] @ np.eye(45)
    np.testing.assert_allclose(
        convert_basis(shown, "descoteaux07_legacy"), fodf((1, 0, 0))[0], atol=1e-5
    )
    copy = SHGlyphs.create(*layer.as_layer_data_tuple())
    assert copy.style.basis == "descoteaux07_legacy" and copy.basis_named


@pytest.fixture
def launched(make_napari_viewer, monkeypatch, settle):
    """Return a function like the verb ``view``, in a viewer that the test closes."""
    import napari

    from napari_dmri.viewer import launch

    viewer = make_napari_viewer(show=True)
    viewer.window.resize(1200, 800)
    monkeypatch.setattr(napari, "Viewer", lambda **_: viewer)
    monkeypatch.setattr(launch, "open_docks", lambda _: {})

    def view(*words):
        from napari_dmri import cli

        monkeypatch.setattr(napari, "run", lambda: None)
        result = CliRunner().invoke(cli.app, ["view", *map(str, words)])
        assert result.exit_code == 0, result.output
        return viewer

    return view


def test_view_takes_the_basis_also_of_files_with_any_name(launched, settle, tmp_path):
    path = bare(tmp_path / "result.nii.gz", "descoteaux07", (0, 0, 1), (3, 3, 3))
    viewer = launched(path, "--basis", "descoteaux07")
    settle(lambda: bool(glyphs_in(viewer)))
    layer = glyphs_in(viewer)[0]
    assert layer.style.basis == "descoteaux07" and layer.basis_named
    peaks = layer.facts_at((1, 1, 1)).peaks
    assert abs(peaks[0, 2]) > 0.99
    from napari_dmri import cli

    refused = CliRunner().invoke(cli.app, ["view", str(path), "--basis", "fourier"])
    assert refused.exit_code == 2 and "fourier" in refused.output


def test_files_stand_side_by_side_over_a_map_with_one_camera(launched, settle, qtbot, tmp_path):
    affine = np.diag([2.0, 2, 2, 1])
    for name, direction in (("a", (1, 0, 0)), ("b", (0, 1, 0))):
        write_sh(field_of(direction, (6, 6, 6), affine), tmp_path / f"{name}_fod.nii.gz")
    fa = np.full((6, 6, 6), 0.2, np.float32)
    write_map(ScalarImage(fa, affine, "FA"), tmp_path / "FA.nii.gz")
    files = [tmp_path / name for name in ("FA.nii.gz", "a_fod.nii.gz", "b_fod.nii.gz")]
    viewer = launched(*files, "--side-by-side")
    settle(lambda: viewer.canvas.grid.enabled)
    for layer in glyphs_in(viewer):
        layer.restyle(lighting=0)
    qtbot.wait(60)
    picture = viewer.screenshot(canvas_only=True, flash=False)[..., :3].astype(int)
    half = picture.shape[1] // 2
    for part, colour in ((picture[:, :half], 0), (picture[:, half:], 1)):
        strong = part[(part.max(-1) - part.min(-1)) > 100]
        assert len(strong) > 500 and np.argmax(strong.mean(0)) == colour
        assert (np.ptp(part, axis=-1) < 12).mean() > 0.3 and (part.max(-1) > 35).mean() > 0.3
    before = viewer.scene.camera.zoom
    viewer.scene.camera.zoom = 2 * before
    commands.show_side_by_side()
    assert not viewer.canvas.grid.enabled
    maps = [x for x in viewer.layers if isinstance(x, Image) and "FA" in x.name]
    assert len(maps) == 1 and maps[0].visible and len(glyphs_in(viewer)) == 2


def test_side_by_side_needs_two_glyph_layers_and_a_free_grid(viewer, draw, monkeypatch):
    from napari_dmri.viewer.glyphs import side_by_side

    said = []
    monkeypatch.setattr(side_by_side, "show_info", said.append)
    draw(field_of((1, 0, 0), (3, 3, 1)))
    assert side_by_side.toggle(viewer) is None and "two SH images" in said[-1]
    draw(field_of((0, 1, 0), (3, 3, 1)))
    viewer.canvas.grid.enabled = True
    assert side_by_side.toggle(viewer) is None and "grid" in said[-1]
    viewer.canvas.grid.enabled = False
    assert len(side_by_side.toggle(viewer).panels) == 2
    assert side_by_side.toggle(viewer) is None and not viewer.canvas.grid.enabled


def test_a_file_that_does_not_fit_is_refused_when_all_of_it_is_needed(
    viewer, draw, monkeypatch, tmp_path
):
    from napari_dmri import device

    layer = draw(open_sh(bare(tmp_path / "fod.nii", "tournier07")))
    assert len(layer.shown()[0]) > 0
    monkeypatch.setattr(device, "free_memory", lambda _: 1000)
    with pytest.raises(InputError, match="GB of memory"):
        image_of(layer)
    with pytest.raises(InputError, match="GB of memory"):
        object_of(layer).read()


def test_without_instancing_a_file_shows_its_peaks(viewer, monkeypatch, tmp_path):
    from napari_dmri.viewer import _napari_compat as compat
    from napari_dmri.viewer.glyphs import show

    monkeypatch.setattr(compat, "why_no_glyphs", lambda: "SH glyphs need instanced drawing.")
    said = []
    monkeypatch.setattr(show, "show_warning", said.append)
    layer = show_glyphs(viewer, open_sh(bare(tmp_path / "fod.nii", "tournier07")))
    assert "instanced" in said[0] and len(layer.data) == 4 * 5 * 6
