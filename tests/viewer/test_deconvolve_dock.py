"""The Deconvolve dock: responses, a run with its preview, methods side by side, and refusals."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QApplication

from napari_dmri.deconvolve.registry import METHODS, deconvolve
from napari_dmri.images import Response, ResponseSet
from napari_dmri.io.responses import write_responses
from napari_dmri.scan import GradientTable, Scan
from napari_dmri.viewer import deconvolving
from napari_dmri.viewer.launch import open_dock
from napari_dmri.viewer.layers import KEY, kind_of, scan_layer, scan_of
from napari_dmri.viewer.widgets.deconvolve_show import slice_on_show

pytestmark = pytest.mark.viewer

AFFINE = np.diag([2.0, 2.0, 2.5, 1.0])
SHAPE = (8, 9, 6)


def fibres(*bvalues: float, name="sub-01") -> Scan:
    """Simulate fibres along x below, along z above, and one corner of CSF, in a ball."""
    count = 24
    k = np.arange(count) + 0.5
    z, phi = k / count, np.pi * (1 + 5**0.5) * k
    r = np.sqrt(1 - z**2)
    axes = np.stack([r * np.cos(phi), r * np.sin(phi), z], axis=1)
    b = np.r_[0, 0, np.repeat(bvalues, count)]
    table = GradientTable(b, np.r_[np.zeros((2, 3)), np.tile(axes, (len(bvalues), 1))])
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in SHAPE], indexing="ij"), -1)
    ball = np.linalg.norm(grid, axis=-1) < 1.1
    axis = np.where(grid[..., 2] > 0, 2, 0)
    along = table.directions[:, axis].transpose(1, 2, 3, 0)
    signal = 500 * np.exp(-b / 1000 * (0.3 + 1.4 * along**2))
    signal[:2] = 900 * np.exp(-3 * b / 1000)
    noise = np.random.default_rng(1).normal(0, 4, signal.shape)
    data = np.where(ball[..., None], np.abs(signal + noise), np.abs(noise))
    mask = ball.copy()
    return Scan(data.astype(np.float32), AFFINE, table, mask=mask, name=name)


def responses_of(*bvalues: float) -> ResponseSet:
    """Give the responses of what `fibres` simulates."""
    from numpy.polynomial.legendre import leggauss, legval

    t, w = leggauss(64)
    every = (0.0, *bvalues)
    wm = np.zeros((len(every), 5))
    for row, b in zip(wm, every, strict=True):
        s = 500 * np.exp(-b / 1000 * (0.3 + 1.4 * t**2))
        for i, degree in enumerate((0, 2, 4, 6, 8)):
            basis = np.sqrt((2 * degree + 1) / 4 / np.pi) * legval(t, [0] * degree + [1])
            row[i] = 2 * np.pi * (w * s * basis).sum()
    decay = np.exp(-np.array(every) / 1000)[:, None]
    tissues = {
        "wm": Response(wm, every, "wm", 50),
        "gm": Response(np.sqrt(4 * np.pi) * 600 * decay**0.9, every, "gm", 20),
        "csf": Response(np.sqrt(4 * np.pi) * 900 * decay**3, every, "csf", 10),
    }
    return ResponseSet(tissues)


def open_with(viewer, scan):
    array, kwargs, _ = scan_layer(scan)
    viewer.add_image(array, **kwargs)
    mask = viewer.add_labels(
        scan.mask.T.astype(np.uint8), name="mask", scale=kwargs["scale"][1:],
        translate=kwargs["translate"][1:], units=("mm",) * 3,
        metadata={KEY: {"kind": "mask", "affine": scan.affine}}, visible=False,
    )  # fmt: skip
    dock = open_dock(viewer, "Deconvolve")
    dock.mask_row.picker.choose(mask)
    return dock


@pytest.fixture
def dock(viewer):
    return open_with(viewer, fibres(1500))


@pytest.fixture
def fod():
    return deconvolve(fibres(1500), "csd", responses_of(1500), order=4, device="cpu").fod


@pytest.fixture
def given(dock, tmp_path):
    """Return the dock with responses read from a file."""
    path = tmp_path / "resp_wm.txt"
    write_responses(responses_of(1500), path)
    assert dock.response.load(path)
    return dock


def test_without_a_scan_it_says_what_to_do_first(viewer):
    dock = open_dock(viewer, "Deconvolve")
    assert "Open a scan first" in dock.scan_line.sentence
    assert not dock.run_bar.button.isEnabled()
    assert dock.run_bar.button.toolTip() == "Open a scan first."
    assert not dock.compare.run_bar.button.isEnabled()
    assert dock.response.responses is None


def test_one_shell_rules_out_msmt_with_the_reason(dock):
    index = dock.method.findData("msmt-csd")
    assert dock.method.currentData() == "csd"
    assert not dock.method.model().item(index).isEnabled()
    reason = dock.method.itemData(index, Qt.ItemDataRole.ToolTipRole)
    assert "this scan has 2 (0, 1500 s/mm²)" in reason
    assert not dock.compare.boxes["msmt-csd"].isEnabled()
    assert dock.compare.boxes["msmt-csd"].toolTip() == reason
    dock.method.setCurrentIndex(index)
    assert dock.method_line.level == "error"
    assert not dock.run_bar.button.isEnabled()
    assert dock.run_bar.button.toolTip() == reason


def test_several_shells_suggest_msmt_and_offer_the_shells(viewer):
    dock = open_with(viewer, fibres(1000, 2500))
    assert dock.method.currentData() == "msmt-csd"
    assert not dock.form.isRowVisible(dock.shell)
    dock.method.setCurrentIndex(dock.method.findData("csd"))
    assert dock.form.isRowVisible(dock.shell)
    words = [dock.shell.itemText(i) for i in range(dock.shell.count())]
    assert words == ["highest (b=2500)", "b=1000 (24 volumes)", "b=2500 (24 volumes)", "all"]
    dock.shell.setCurrentIndex(dock.shell.findData("all"))
    assert dock.options.settings["shell"] == "all"


def test_run_shows_the_slice_first_and_then_what_the_core_makes(viewer, given, finish):
    dock, shown = given, []
    begin = dock.live.begin
    dock.live.begin = lambda fod, note: (begin(fod, note), shown.append((fod, dock.live.layer)))
    viewer.dims.set_point(1, 2.5 * 4)
    for box in dock.outputs.values():
        box.setChecked(True)
    dock.method_settings.set({"order": 8})
    dock.run_bar.button.click()
    finish(dock.run_bar)
    assert dock.run_bar.message.level == "ok", dock.run_bar.message.sentence
    assert "24 volumes at b=1500" in dock.run_bar.message.sentence

    fod, layer = shown[0]
    filled = (fod.coefficients[..., 0] != 0).any((0, 1))
    assert np.flatnonzero(filled).tolist() == [4]

    direct = deconvolve(fibres(1500), "csd", responses_of(1500), order=8, device="cpu")
    names = [made.name for made in viewer.layers[2:]]
    assert names == [
        f"sub-01 | CSD{rest}"
        for rest in (" | residual", " | peak count", " | AFD", " | peaks", " glyphs")
    ]
    glyphs = viewer.layers[-1]
    assert glyphs is layer and kind_of(glyphs) == "glyphs"
    assert np.allclose(
        np.asarray(glyphs.data).transpose(2, 1, 0, 3), direct.fod.coefficients, atol=1e-5
    )
    assert glyphs.metadata[KEY]["provenance"]["method"] == "csd"
    assert viewer.layers.selection.active is glyphs
    for made in viewer.layers[2:]:
        assert np.allclose(made.scale[-3:], viewer.layers[0].scale[-3:])
        assert [str(u) for u in made.units[-3:]] == ["millimeter"] * 3
    density = np.asarray(viewer.layers["sub-01 | CSD | AFD"].data).T
    assert np.median(density[2:][fibres(1500).mask[2:]]) == pytest.approx(1, abs=0.1)
    count = np.asarray(viewer.layers["sub-01 | CSD | peak count"].data).T
    assert count[4, 4, 1] >= 1 and not count[~fibres(1500).mask].any()


def test_settings_reach_the_method(given, finish):
    given.method_settings.set({"order": 4})
    assert given.options.settings["order"] == 4
    for name, box in given.outputs.items():
        box.setChecked(name == "AFD")
    given.run_bar.button.click()
    finish(given.run_bar)
    assert given.result.result.fod.order == 4
    assert given.result.peaks is None
    assert given.viewer.layers[-1].visible
    given.method_settings.show_method("rumba")
    given.method_settings.show_method("csd")
    assert given.options.settings["order"] == 4


def test_cancel_takes_the_slice_away(viewer, given, settle, monkeypatch):
    def slow(scan, *args, progress=None, **kwargs):
        if scan.grid == SHAPE:
            while True:
                progress(0.5, "working")
                time.sleep(0.01)
        return deconvolve(scan, *args, progress=progress, **kwargs)

    monkeypatch.setattr(deconvolving, "deconvolve", slow)
    before = list(viewer.layers)
    given.run_bar.button.click()
    settle(lambda: given.live.layer is not None)
    assert viewer.layers[-1].name.endswith("(this slice) glyphs")
    given.compare.boxes["rumba"].setChecked(True)
    given.compare.run_bar.button.click()
    assert "A run is at work" in given.compare.run_bar.message.sentence
    given.run_bar.button.click()
    settle(lambda: not given.run_bar.running and given.run_bar.message.sentence)
    assert list(viewer.layers) == before
    assert given.run_bar.message.sentence == "Cancelled; nothing was changed."


def test_closing_the_dock_cancels_its_run(viewer, given, settle, monkeypatch):
    def slow(*args, progress=None, **kwargs):
        while True:
            progress(0.5, "working")
            time.sleep(0.01)

    monkeypatch.setattr(deconvolving, "deconvolve", slow)
    given.run_bar.button.click()
    job, before = given.run_bar.job, list(viewer.layers)
    given.setParent(None)
    settle(lambda: not job.running)
    assert list(viewer.layers) == before
    viewer.layers.pop()


def test_responses_are_estimated_looked_at_and_saved(viewer, dock, settle, tmp_path):
    assert "when you press Run" in dock.response.line.sentence
    dock.response.source.setCurrentIndex(dock.response.source.findData("fa"))
    dock.response.make.click()
    settle(lambda: dock.response.responses is not None, 60)
    assert dock.response.line.level == "ok"
    assert "b=0, 1500 | WM order 10" in dock.response.line.sentence
    layer = dock.response.add_voxels()
    inside = np.asarray(layer.data).T > 0
    assert inside.any() and not inside[~fibres(1500).mask].any()
    dock.response.show_plot.click()
    assert len(dock.response.plot.figure.axes) == 2
    dock.response.write(tmp_path / "mine.txt")
    assert (tmp_path / "mine.txt").exists()
    dock.response.write(tmp_path / "mine.txt")
    assert dock.response.line.level == "error"
    dock.response.source.setCurrentIndex(0)
    assert dock.response.responses is None


def test_a_wrong_response_is_refused_in_words(given, tmp_path, settle):
    wrong = tmp_path / "wrong.txt"
    wrong.write_text("no numbers\n")
    assert not given.response.load(wrong)
    assert given.response.line.level == "error"
    other = tmp_path / "other_wm.txt"
    write_responses(responses_of(700), other)
    assert given.response.load(other)
    given.run_bar.button.click()
    settle(lambda: given.run_bar.message.level == "error")
    assert "estimate the response from this scan" in given.run_bar.message.sentence


def test_a_result_is_not_used_again_once_the_gradients_are_mended(viewer, given, finish):
    given.run_bar.button.click()
    finish(given.run_bar)
    assert list(given.results_at_hand(["csd"])) == ["csd"], given.run_bar.message.sentence
    scan = scan_of(given.scans.layer)
    table = GradientTable(scan.gradients.bvalues, scan.gradients.directions * [-1, 1, 1])
    data, kwargs, _ = scan_layer(replace(scan, gradients=table, name="sub-01 mended"))
    given.scans.choose(viewer.add_image(data, **kwargs))
    assert given.scan.data is scan.data and given.scan.gradients is table
    assert not given.results_at_hand(["csd"])


def test_methods_side_by_side_with_a_table(viewer, tmp_path, finish, settle, qtbot):
    dock = open_with(viewer, fibres(1000, 2500))
    path = tmp_path / "resp_wm.txt"
    write_responses(responses_of(1000, 2500), path)
    assert dock.response.load(path)
    compare, before = dock.compare, list(viewer.layers)
    compare.boxes["csd"].setChecked(False)
    assert compare.run_bar.button.toolTip() == "Tick at least two methods."
    compare.boxes["csd"].setChecked(True)
    compare.expand()
    compare.run_bar.button.click()
    finish(compare.run_bar)
    assert compare.run_bar.message.level != "error", compare.run_bar.message.sentence
    settle(lambda: viewer.canvas.grid.enabled)
    assert compare.side.isChecked()
    qtbot.wait(100)
    assert [panel[0].name for panel in compare.panels] == ["CSD", "MSMT-CSD"]
    table = compare.compared.table
    first, second = table["CSD"], table["MSMT-CSD"]
    assert first["volumes"] == 24 and second["volumes"] == 50
    assert second["angle to CSD (°)"] < 3
    assert 0 < first["residual"] < 0.1 and first["seconds"] > 0
    compare.copy.click()
    assert QApplication.clipboard().text() == table.to_tsv()
    compare.save_table(tmp_path / "methods.tsv")
    assert (tmp_path / "methods.tsv").read_text().startswith("method\tresidual")
    compare.save_table(tmp_path / "methods.tsv")
    assert compare.line.level == "error"
    compare.side.click()
    assert not viewer.canvas.grid.enabled
    kept = [layer for layer in viewer.layers if layer not in before]
    assert len(kept) == 4 and not any(layer.visible for layer in kept)
    assert compare.panels[1][0].name == "sub-01 | MSMT-CSD | AFD"
    assert compare.side.isEnabled() and not compare.side.isChecked()
    for _ in range(3):
        compare.side.click()
        settle(lambda: viewer.canvas.grid.enabled)
        qtbot.wait(200)
        compare.side.click()
        settle(lambda: not viewer.canvas.grid.enabled)
        qtbot.wait(200)
    viewer.layers.remove(compare.panels[0][0])
    qtbot.wait(200)
    assert not viewer.canvas.grid.enabled


def test_glyphs_of_an_earlier_run_make_way_and_come_back(viewer, given, finish, fod):
    for box in given.outputs.values():
        box.setChecked(False)
    given.outputs["glyphs"].setChecked(True)
    given.run_bar.button.click()
    finish(given.run_bar)
    first = viewer.layers[-1]
    given.live.begin(fod)
    assert not first.visible and viewer.layers[-1].visible
    given.live.drop()
    assert first.visible and viewer.layers[-1] is first
    given.run_bar.button.click()
    finish(given.run_bar)
    shown = [layer for layer in viewer.layers if kind_of(layer) == "glyphs" and layer.visible]
    assert shown == [viewer.layers[-1]] and shown != [first]


def test_export_writes_everything_and_never_overwrites(given, tmp_path, finish, settle):
    given.run_bar.button.click()
    finish(given.run_bar)
    given.format.setCurrentIndex(given.format.findData(".mif"))
    assert given.basis.currentData() == "tournier07" and not given.basis.isEnabled()
    folder = tmp_path / "out"
    folder.mkdir()
    given.export(folder)
    settle(given.export_button.isEnabled)
    assert given.export_line.level == "ok", given.export_line.sentence
    names = {path.name for path in folder.iterdir()}
    assert {"sub-01_CSD_fod.mif", "sub-01_CSD_peaks.mif", "sub-01_CSD_response_wm.txt"} <= names
    assert {"sub-01_CSD_AFD.nii.gz", "sub-01_CSD_methods.txt"} <= names
    text = (folder / "sub-01_CSD_methods.txt").read_text()
    assert "constrained spherical deconvolution" in text and "Tournier" in text
    given.export(folder)
    settle(given.export_button.isEnabled)
    assert "already" in given.export_line.sentence


def test_the_slice_follows_the_view(viewer, dock):
    layer, scan = viewer.layers[0], fibres(1500)
    viewer.dims.set_point(1, 2.5 * 2)
    assert slice_on_show(viewer, layer, scan) == (2, 2)
    viewer.dims.order = (0, 2, 1, 3)
    viewer.dims.set_point(2, 2.0 * 7)
    assert slice_on_show(viewer, layer, scan) == (1, 7)
    viewer.dims.order = (0, 3, 1, 2)
    viewer.dims.set_point(3, 2.0 * 100)
    assert slice_on_show(viewer, layer, scan) == (0, SHAPE[0] - 1)
    viewer.dims.order = (0, 1, 2, 3)
    viewer.dims.ndisplay = 3
    assert slice_on_show(viewer, layer, scan)[0] == 2


def test_every_method_has_a_row_of_settings(dock):
    for name, method in METHODS.items():
        dock.method_settings.show_method(name)
        assert set(dock.method_settings.fields) == set(method.defaults)
        assert dock.method_settings.values() == method.defaults
        assert all(field.toolTip() for field in dock.method_settings.fields.values())
