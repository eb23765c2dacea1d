"""Networks in the Deconvolve dock: models and their check, a fit that is followed and steered."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest

from napari_dmri.deconvolve.registry import METHODS
from napari_dmri.deconvolve.shd import presets, shipped
from napari_dmri.deconvolve.shd.architecture import Architecture
from napari_dmri.deconvolve.shd.model import ShdModel
from napari_dmri.errors import InputError
from napari_dmri.images import Response, ResponseSet
from napari_dmri.io.responses import write_responses
from napari_dmri.training.parts import Event
from napari_dmri.viewer import commands, deconvolving, network_commands, network_fit, preferences
from napari_dmri.viewer.jobs import Outcome
from napari_dmri.viewer.launch import open_dock
from napari_dmri.viewer.layers import KEY, kind_of, scan_layer
from napari_dmri.viewer.network_fit import FitOptions, state_file
from napari_dmri.viewer.network_models import Known, is_network
from napari_dmri.viewer.widgets import _parts
from napari_dmri.viewer.widgets._parts import time_words
from napari_dmri.viewer.widgets.deconvolve_curves import TermCurves
from napari_dmri.viewer.widgets.deconvolve_fit_settings import WeightField
from napari_dmri.viewer.widgets.deconvolve_method import FAMILIES

pytestmark = pytest.mark.viewer

TINY = Architecture(layer="spectral", n_side=2, degree=4, depth=2, filters=2, patch=4)


def responses_of(scan) -> ResponseSet:
    """Give the response of the tensors that the small scan is made of."""
    from numpy.polynomial.legendre import leggauss, legval

    t, w = leggauss(32)
    every = tuple(s.bvalue for s in scan.gradients.shells)
    wm = np.zeros((len(every), 3))
    for row, b in zip(wm, every, strict=True):
        for i, degree in enumerate((0, 2, 4)):
            basis = np.sqrt((2 * degree + 1) / 4 / np.pi) * legval(t, [0] * degree + [1])
            row[i] = 2 * np.pi * (w * 1000 * np.exp(-b * (0.0004 + 0.0013 * t**2)) * basis).sum()
    csf = np.sqrt(4 * np.pi) * 1500 * np.exp(-0.003 * np.array(every))[:, None]
    return ResponseSet({"wm": Response(wm, every, "wm"), "csf": Response(csf, every, "csf")})


@pytest.fixture
def plan(monkeypatch, tmp_path):
    """Make every network tiny, with previews at once; return a function that sets the plan."""
    monkeypatch.setattr("platformdirs.user_cache_path", lambda name: tmp_path / name)
    monkeypatch.setattr(network_fit, "PREVIEW_EVERY", 0.2)

    def use(epochs: int, steps: int) -> None:
        def tiny(name, size="paper", mode=None):
            made = presets.PRESETS[name]
            drawn = presets.Plan(lr=5e-3, batch=2, epochs=epochs, steps=steps, drops=())
            return replace(made, architecture=TINY, plan=drawn, mode="tiled", size=size)

        monkeypatch.setattr(presets, "preset", tiny)

    use(3, 4)
    return use


@pytest.fixture
def none_shipped(monkeypatch, tmp_path):
    """Take the package's models away, which would be chosen for the scan."""
    monkeypatch.setattr(shipped, "FOLDER", tmp_path / "none")


@pytest.fixture
def dock(viewer, small_scan, plan, none_shipped, tmp_path):
    """Return the dock with the small scan, its mask and responses, and SHD-S-TV to be fitted."""
    scan = replace(small_scan, mask=np.asarray(small_scan.data)[..., 0] > 300)
    data, kwargs, _ = scan_layer(scan)
    viewer.add_image(data, **kwargs)
    made = open_dock(viewer, "Deconvolve")
    made.mask_row.add(scan.mask, scan, {}).visible = False
    write_responses(responses_of(scan), tmp_path / "wm.txt")
    assert made.response.load(tmp_path / "wm.txt")
    made.choose_fit("shd-s-tv")
    return made


def test_networks_are_a_group_of_their_own_and_can_be_fitted(dock):
    method = dock.method
    rows = [method.itemText(i) for i in range(method.count())]
    heads = [rows.index(words) for words in FAMILIES.values()]
    assert heads == sorted(heads) and rows.index("CSD") < heads[1] < rows.index("SHD-S-TV")
    for at in heads:
        assert not method.model().item(at).flags() & Qt.ItemFlag.ItemIsEnabled
    assert {n for n in METHODS if is_network(n)} == set(presets.PRESETS)
    assert dock.form.isRowVisible(dock.models.choice)
    assert "fitted to this scan alone" in dock.models.line.sentence
    assert "first glyphs after" in dock.device.sentence
    assert dock.run_bar.button.text() == "Fit" and dock.run_bar.button.isEnabled()
    dock.method.choose("csd")
    assert not dock.form.isRowVisible(dock.models.choice)
    assert dock.run_bar.button.text() == "Run"
    assert not dock.compare.boxes["shd-s-tv"].isEnabled()
    # A fit has one place for its state, and others have others.
    scan = dock.scan
    here = state_file(scan, "shd-s-tv", FitOptions())
    assert here == state_file(dock.scan, "shd-s-tv", FitOptions())
    other = replace(scan, mask=~scan.mask)
    assert len({here, state_file(scan, "shd-s", FitOptions()),
                state_file(scan, "shd-s-tv", FitOptions(seed=1)),
                state_file(other, "shd-s-tv", FitOptions())}) == 4  # fmt: skip


def test_a_fit_shows_the_slice_and_its_curves_and_leaves_fods_and_a_model(
    viewer, dock, plan, settle, finish, tmp_path, monkeypatch
):
    plan(3, 16)
    shown = []
    show = dock.live.show
    dock.live.show = lambda *a: (show(*a), shown.append((dock.live.layer, dock.live.layer.data)))
    viewer.dims.set_point(1, 2.5 * 7)
    dock.outputs["peaks"].setChecked(True)
    dock.run_bar.button.click()
    settle(lambda: dock.fit.pause.isVisible())
    finish(dock.run_bar)
    assert dock.run_bar.message.level in ("ok", "warning"), dock.run_bar.message.sentence
    # One layer, drawn anew, that the result fills.
    layers = {id(layer) for layer, _ in shown}
    assert len(layers) == 1 and len(shown) > 1
    filled = (np.asarray(shown[0][1]) != 0).any((1, 2, 3))
    assert np.flatnonzero(filled).tolist() == [7]
    glyphs = viewer.layers[-1]
    assert id(glyphs) in layers and glyphs.name == "sub-01 | SHD-S-TV glyphs"
    fod = dock.result.result.fod
    assert glyphs.metadata[KEY]["object"] is fod and fod.order == 4
    names = [layer.name for layer in viewer.layers[2:]]
    assert "sub-01 | SHD-S-TV | peaks" in names and "sub-01 | SHD-S-TV | AFD" in names
    assert {"loss", "reconstruction", "spatial"} <= dock.fit.curves.terms.keys()
    assert not list((tmp_path / "napari-dmri" / "fits").iterdir())

    # The model is on the list, fits the scan, and gives the same again.
    assert dock.models.known is not None and dock.models.known.origin == "fitted"
    settle(lambda: dock.models.line.level == "ok")
    assert dock.run_bar.button.text() == "Run"
    assert dock.fit.save(tmp_path / "mine") and not dock.fit.save(tmp_path / "mine")
    assert dock.fit.save_line.level == "error"
    dock.models.load(tmp_path / "mine.safetensors")
    settle(lambda: dock.models.known.origin == "file" and not dock.models.problem)
    dock.run_bar.button.click()
    finish(dock.run_bar)
    assert np.allclose(dock.result.result.fod.coefficients, fod.coefficients, atol=1e-5)

    # Beside CSD: what is there is not run again.
    ran = []
    solve = deconvolving.deconvolve
    monkeypatch.setattr(
        deconvolving, "deconvolve", lambda s, m, *a, **k: ran.append(m) or solve(s, m, *a, **k)
    )
    assert dock.fit.beside.isVisible() and dock.fit.beside.text() == "Besi&de MSMT-CSD"
    dock.fit.beside.click()
    finish(dock.compare.run_bar)
    settle(lambda: viewer.canvas.grid.enabled)
    assert ran == ["msmt-csd"]
    assert [panel[0].name for panel in dock.compare.panels] == ["MSMT-CSD", "SHD-S-TV"]
    assert [kind_of(panel[1]) for panel in dock.compare.panels] == ["glyphs"] * 2
    dock.compare.let_go()


def test_a_fit_pauses_stops_goes_on_and_its_best_is_used(
    viewer, dock, plan, settle, finish, tmp_path
):
    plan(400, 2)
    before = list(viewer.layers)
    dock.run_bar.button.click()
    settle(lambda: dock.fit.curves.steps > 4)
    settle(lambda: dock.live.layer is not None)
    network_commands.pause_fit()
    settle(lambda: "paused" in dock.run_bar.step.text())
    assert dock.fit.pause.text() == "Res&ume"
    dock.run_bar.button.click()
    settle(lambda: not dock.run_bar.running)
    assert "the best so far is kept" in dock.run_bar.message.sentence
    assert list(viewer.layers) == before
    assert dock.run_bar.button.text() == "Go on" and dock.fit.anew.isVisible()
    stopped = dock.fit.curves.steps
    dock.run_bar.button.click()
    settle(lambda: dock.fit.curves.steps > stopped)
    dock.run_bar.button.click()
    settle(lambda: not dock.run_bar.running)
    # Another seed is another fit; this one waits.
    dock.fit_settings.seed.setValue(1)
    assert dock.run_bar.button.text() == "Fit" and not dock.fit.anew.isVisible()
    assert not dock.run_bar.message.sentence
    dock.fit_settings.seed.setValue(0)
    assert "was stopped after" in dock.run_bar.message.sentence
    assert dock.run_bar.button.text() == "Go on"
    # With other responses it does not go on, and nothing of it is lost.
    own = responses_of(dock.scan)
    other = replace(own["csf"], zonal=1.1 * own["csf"].zonal)
    write_responses(ResponseSet({"wm": own["wm"], "csf": other}), tmp_path / "other_wm.txt")
    assert dock.response.load(tmp_path / "other_wm.txt")
    dock.run_bar.button.click()
    settle(lambda: not dock.run_bar.running)
    assert "had other responses" in dock.run_bar.message.sentence and dock.fit.anew.isVisible()
    assert dock.response.load(tmp_path / "wm.txt")
    chosen = [box for box in dock.outputs.values() if box.isChecked()]
    for box in chosen:
        box.setChecked(False)
    dock.fit.use.click()
    assert not dock.run_bar.running and dock.fit.line.sentence == "Choose an output."
    for box in chosen:
        box.setChecked(True)
    dock.fit.use.click()
    finish(dock.run_bar)
    assert dock.result is not None, dock.run_bar.message.sentence
    assert dock.result.model.card["outcome"]["ended_by_hand"]
    assert dock.run_bar.button.text() == "Run" and not dock.fit.use.isVisible()


def test_a_method_of_the_papers_is_fitted_to_tiles_and_to_few_directions(dock, settle, finish):
    from napari_dmri.deconvolve.shd.shell_choice import choose_subset

    dock.choose_fit("shd-tv")
    dock.method.choose("shd-tv")
    dock.models.choose_fit()
    how = dock.fit_settings
    modes = [how.mode.itemData(i) for i in range(how.mode.count())]
    assert modes == ["paper", "tiled"] and how.mode.isEnabled()
    assert how.options.mode == "paper" and how.options.seen is None
    assert how.seen.text() == "all directions"
    how.mode.setCurrentIndex(1)
    how.seen.setValue(500)
    dock.run_bar.button.click()
    settle(lambda: not dock.run_bar.running)
    assert "500 directions are asked for of" in dock.run_bar.message.sentence
    how.seen.setValue(9)
    assert how.options.mode == "tiled" and how.options.seen == 9
    assert dock.run_bar.button.text() == "Fit"
    dock.run_bar.button.click()
    finish(dock.run_bar)
    assert dock.result is not None, dock.run_bar.message.sentence
    made = dock.result.result
    assert list(made.volumes) == choose_subset(dock.scan.gradients, 9).tolist()
    assert dock.result.model.card["mode"] == "tiled"


def test_tissues_and_weights_of_the_loss_are_chosen_told_and_kept(
    dock, settle, finish, tmp_path, monkeypatch
):
    how, scan = dock.fit_settings, dock.scan
    rows = [how.tissues.itemText(i) for i in range(how.tissues.count())]
    assert rows == ["as many as b-values", "WM", "WM + CSF", "WM + GM", "WM + GM + CSF"]
    items = how.tissues.model()
    assert [items.item(i).isEnabled() for i in range(5)] == [True, True, True, False, False]
    assert "responses of WM, CSF and none of GM" in items.item(4).toolTip()
    assert how.options.others is None and how.options.weights == {}
    assert dock.device.sentence.endswith("| WM + CSF")
    usual = presets.PRESETS["shd-s-tv"].losses
    shown = {name: field.value() for name, field in how.weights.items()}
    assert shown == {name: getattr(usual, name) for name in shown}
    assert how.weights["sparsity"].text() == "5e-05"
    states = [state_file(scan, "shd-s-tv", how.options)]

    # As it is typed, not before it is finished.
    field = how.weights["sparsity"]
    field.selectAll()
    QTest.keyClicks(field, "1e-3")
    assert not how.options.weights
    QTest.keyClick(field, Qt.Key.Key_Return)
    assert how.options.weights == {"sparsity": 1e-3}
    states.append(state_file(scan, "shd-s-tv", how.options))
    how.tissues.setCurrentIndex(1)
    states.append(state_file(scan, "shd-s-tv", how.options))
    assert len(set(states)) == 3
    assert dock.device.sentence.endswith("| WM | sparsity 0.001 (usually 5e-05)")
    # Each method has its own; what was set by hand is remembered.
    dock.method.choose("shd")
    assert how.weights["spatial"].value() == 0 and how.options.weights == {}
    how.weights["spatial"].stepUp()
    assert how.options.weights == {"spatial": 1e-3}
    dock.method.choose("shd-s-tv")
    assert how.weights["spatial"].value() == 0.5 and field.text() == "0.001"
    dock.run_bar.button.click()
    finish(dock.run_bar)
    assert dock.result is not None, dock.run_bar.message.sentence
    card = dock.result.model.card
    assert card["tissues"] == ["wm"] and card["losses"]["sparsity"] == 1e-3
    assert card["losses"]["spatial"] == 0.5

    # A model to begin from keeps its tissues.
    dock.models.choose_fit()
    how.start.setCurrentIndex(1)
    assert not how.tissues.isEnabled() and "begins from: WM" in how.tissues.toolTip()
    assert how.options.others is None and "| WM | sparsity" in dock.device.sentence
    how.start.setCurrentIndex(0)
    how.tissues.setCurrentIndex(2)
    assert how.tissues.isEnabled() and how.options.others == ("csf",)
    write_responses(ResponseSet({"wm": responses_of(scan).wm}), tmp_path / "alone.txt")
    assert dock.response.load(tmp_path / "alone.txt")
    assert how.options.others is None and not items.item(2).isEnabled()
    field.setValue(5e-5)
    assert how.options.weights == {} and dock.device.sentence.endswith("| WM")


def test_weights_of_any_magnitude_can_be_typed(qtbot):
    field = WeightField()
    qtbot.addWidget(field)
    states = {text: field.validate(text, 0)[0].name for text in ("2e-4", "5", "0,1", "1e-", ".")}
    assert states == {
        "2e-4": "Acceptable", "5": "Acceptable", "0,1": "Acceptable", "1e-": "Intermediate",
        ".": "Intermediate",
    }  # fmt: skip
    assert {field.validate(text, 0)[0].name for text in ("-1", "nan", "1 x")} == {"Invalid"}
    field.setValue(2e-4)
    field.stepUp()
    assert field.text() == "0.0004"
    field.stepBy(-2)
    assert field.text() == "0.0001" and field.valueFromText("0,5") == 0.5


def test_a_slice_that_is_chosen_while_a_fit_waits_is_drawn(
    viewer, dock, plan, settle, qtbot, monkeypatch
):
    monkeypatch.setattr(network_fit, "PREVIEW_EVERY", 1000.0)
    plan(400, 2)
    drawn = []
    show = dock.live.show
    dock.live.show = lambda fod, *a: (drawn.append(fod), show(fod, *a))

    def slices():
        return [np.flatnonzero((f.coefficients != 0).any((0, 1, 3))).tolist() for f in drawn]

    viewer.dims.set_point(1, 2.5 * 7)
    dock.run_bar.button.click()
    settle(lambda: dock.fit.curves.steps > 4)
    assert not drawn
    dock.fit.pause.click()
    # First the slice on show, as the network has it now, then each that is chosen, once.
    settle(lambda: drawn, 10)
    for index, where in enumerate((5, 8), start=2):
        viewer.dims.set_point(1, 2.5 * where)
        settle(lambda index=index: len(drawn) == index, 10)
    settle(lambda: "paused" in dock.run_bar.step.text())
    qtbot.wait(800)
    assert slices() == [[7], [5], [8]]
    there = (np.asarray(dock.live.layer.data) != 0).any((1, 2, 3))
    assert np.flatnonzero(there).tolist() == [8]
    steps = dock.fit.curves.steps
    dock.fit.pause.click()
    settle(lambda: dock.fit.curves.steps > steps)
    dock.run_bar.button.click()
    settle(lambda: not dock.run_bar.running)


def test_a_taught_model_is_called_so_beside_others(viewer, dock, settle, finish):
    taught = ShdModel.new(
        replace(presets.PRESETS["shd-s-tv"], architecture=TINY),
        others=("csf",),
        bvalues=(0, 1000),
        simulated=True,
        known_fods=True,
        training=[{"subject": "a"}, {"subject": "b"}],
    )
    known = Known("file", "mine.safetensors", taught.card, model=taught)
    dock.models.add(known)
    assert dock.models.box.currentText() == "mine.safetensors (taught)"
    settle(lambda: not dock.models.problem)
    said = dock.models.line.sentence
    assert said.startswith("SHD-S-TV, taught, in tiled mode: trained on simulated scans and their")
    assert "sub-01 is not simulated" in said and dock.models.line.level == "warning"
    dock.run_bar.button.click()
    finish(dock.run_bar)
    assert dock.result is not None, dock.run_bar.message.sentence
    assert viewer.layers[-1].name == "sub-01 | SHD-S-TV, taught glyphs"
    dock.fit.beside.click()
    finish(dock.compare.run_bar)
    settle(lambda: viewer.canvas.grid.enabled)
    labels = ["MSMT-CSD", "SHD-S-TV, taught"]
    assert [panel[0].name for panel in dock.compare.panels] == labels
    assert [row.name for row in dock.compare.compared.table.rows] == labels
    dock.compare.let_go()
    # Once it is tuned to a scan, it is still one that was taught.
    dock.models.choose_fit()
    dock.fit_settings.start.setCurrentIndex(1)
    dock.run_bar.button.click()
    finish(dock.run_bar)
    assert viewer.layers[-1].name == "sub-01 | SHD-S-TV, taught glyphs [2]"
    settle(lambda: not dock.models.problem)
    assert "beginning from a model that was taught known fODFs" in dock.models.line.sentence


def test_a_collapse_is_said_and_what_failed_stays_in_gray(viewer, dock, settle, monkeypatch):
    from napari_dmri.deconvolve.shd import collapse

    monkeypatch.setattr(collapse.Watch, "look", lambda *_: "all voxels have the same fODF")
    dock.run_bar.button.click()
    settle(lambda: dock.run_bar.message.level == "error")
    assert "It begins again at a learning rate of" in dock.fit.line.sentence
    assert dock.fit.line.level == "warning" and len(dock.fit.curves.failed) == 2
    assert "all voxels have the same fODF" in dock.run_bar.message.sentence
    assert "use a trained model" in dock.run_bar.message.sentence
    assert dock.live.layer is None and dock.result is None
    assert not dock.fit.pause.isVisible() and dock.run_bar.button.text() == "Fit"
    viewer.dims.set_point(1, 2.5 * 3)
    assert dock.slice_shown() == (2, 3)
    dock.stop()
    viewer.dims.set_point(1, 2.5 * 5)
    assert dock.slice_shown() == (2, 3)


def test_wrong_models_are_refused_in_words_and_commands_say_what_is_missing(
    viewer, dock, settle, tmp_path, monkeypatch
):
    (tmp_path / "bad.safetensors").write_text("not a model")
    dock.models.load(tmp_path / "bad.safetensors")
    settle(lambda: dock.models.line.level == "error")
    assert "bad.safetensors" in dock.models.line.sentence
    said = []
    for module in (commands, network_commands):
        monkeypatch.setattr(module, "show_info", said.append)
    network_commands.pause_fit()
    network_commands.finish_fit()
    network_commands.save_fitted_network()
    assert said[:2] == ["No fit is at work."] * 2 and "No network was fitted" in said[2]
    network_commands.network_beside_csd()
    assert "Fit a network" in dock.run_bar.message.sentence
    viewer.layers.clear()
    network_commands.fit_network()
    assert "No scan is open" in said[3]


def fitted(label: str, check=lambda scan, responses: (), saved=None) -> Known:
    """Name a model of SHD-S-TV that does as it is told when it is checked and saved."""
    model = SimpleNamespace(check=check, save=lambda path: saved.append((label, path.name)))
    card = {"method": "shd-s-tv", "architecture": TINY.as_dict(), "mode": "tiled"}
    return Known("fitted", label, card, model=model)


def test_a_refusal_is_said_again_and_every_scan_is_checked(viewer, dock, small_scan, settle):
    seen = []

    def refuse(scan, responses):
        seen.append(scan.data)
        raise InputError("It has learned other shells.")

    dock.models.add(fitted("wrong", refuse))
    settle(lambda: dock.models.line.level == "error")
    dock.models.choose_fit()
    assert "fitted to this scan alone" in dock.models.line.sentence
    assert dock.run_bar.button.isEnabled()
    dock.models.box.setCurrentIndex(0)
    settle(lambda: dock.models.line.level == "error")
    assert dock.models.line.sentence == "It has learned other shells."
    assert not dock.run_bar.button.isEnabled()
    # Data of the same shape are not the same data.
    data, kwargs, _ = scan_layer(replace(small_scan, data=np.array(small_scan.data), name="sub-02"))
    dock.scans.choose(viewer.add_image(data, **kwargs))
    dock.method.choose("shd-s-tv")
    settle(lambda: len(seen) > 2 and dock.models.line.level == "error")
    assert seen[-1] is not seen[0]


def test_fitted_models_stay_and_the_chosen_one_is_saved(dock, settle, tmp_path):
    saved = []
    for label in ("first", "second"):
        known = fitted(label, saved=saved)
        dock.models.add(known)
        dock.fit.take(known)
    dock.models.box.setCurrentIndex(0)
    assert dock.fit.save(tmp_path / "one")
    dock.models.choose_fit()
    assert dock.fit.save(tmp_path / "two")
    assert saved == [("first", "one.safetensors"), ("second", "two.safetensors")]
    # A fit that comes to nothing takes none away.
    dock.fit.begin(tmp_path / "state.safetensors")
    assert not dock.fit.save_button.isVisible()
    dock.fit.end(Outcome(cancelled=True))
    assert dock.fit.save_button.isVisible() and dock.fit.model is known
    settle(lambda: not dock.models.problem)


def test_a_gpu_is_named_only_where_it_may_be_used(monkeypatch):
    monkeypatch.setattr(_parts, "Path", lambda _: SimpleNamespace(exists=lambda: True))
    for device, start in (("auto", "NVIDIA"), ("cuda", "NVIDIA"), ("cpu", "CPU"), ("mps", "CPU")):
        monkeypatch.setattr(preferences, "device", lambda device=device: device)
        assert _parts.device_line().startswith(start)


def test_times_are_said_in_the_unit_that_is_easiest_to_read():
    said = [time_words(s) for s in (0.2, 100, 900, 9000, 500_000)]
    assert said == ["1 s", "100 s", "15 min", "2.5 h", "6 days"]


def test_curves_hold_terms_attempts_and_steps(viewer, qtbot):
    curves = TermCurves(viewer)
    qtbot.addWidget(curves)
    for epoch in (1, 2):
        for step in (5, 10):
            curves.tell(Event("step", 1, epoch, step, 10, 0.5 / step, metrics={"sparsity": 0.0}))
    assert curves.steps == 20
    curves.again()
    assert curves.steps == 0 and len(curves.failed) == 1
    curves.tell(Event("epoch", 1, 1, 10, 10, 0.4, metrics={"reconstruction": 0.3}))
    curves.repaint_theme()
    labels = [t.get_text() for t in curves.figure.legends[0].get_texts()]
    assert labels == ["loss", "reconstruction"]
    curves.begin()
    assert not curves.failed and not curves.figure.legends
