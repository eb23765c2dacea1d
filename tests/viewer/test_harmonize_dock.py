"""The Harmonize dock in the real viewer: train, apply, refuse, cancel."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from napari_dmri import harmonize
from napari_dmri.io import write_map, write_scan
from napari_dmri.phantom.travelling import simulate_subject
from napari_dmri.viewer import preferences
from napari_dmri.viewer.harmonizing import KnownModel, card_text
from napari_dmri.viewer.layers import kind_of, map_layer, scan_layer, scan_of
from napari_dmri.viewer.widgets.harmonize import HarmonizeDock

pytestmark = [
    pytest.mark.viewer,
    pytest.mark.filterwarnings("ignore::napari_dmri.errors.DmriWarning"),
]
SIZE = (52, 62, 10)


@pytest.fixture(scope="module")
def subjects():
    return [simulate_subject(i, size=SIZE, repeats=False) for i in range(3)]


@pytest.fixture(scope="module")
def table(subjects, tmp_path_factory):
    """Two travelling subjects on disk."""
    from napari_dmri.images import ScalarImage

    folder = tmp_path_factory.mktemp("pairs")
    lines = ["subject\tsource\ttarget\tsource_mask\ttarget_mask"]
    for subject in subjects[:2]:
        names = []
        for site, scan in subject.scans.items():
            name = f"{subject.subject}_{site}"
            write_scan(scan, folder / f"{name}.nii.gz")
            write_map(ScalarImage(scan.mask, scan.affine, "mask"), folder / f"{name}_mask.nii.gz")
            names.append(name)
        scans = [f"{name}.nii.gz" for name in names]
        masks = [f"{name}_mask.nii.gz" for name in names]
        lines.append("\t".join([subject.subject, *scans, *masks]))
    path = folder / "pairs.tsv"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def model_file(table, tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    harmonize.LinearRish().fit(harmonize.read_pairs(table)).save(path)
    return path


def add(viewer, scan):
    data, kwargs, _ = scan_layer(scan)
    return viewer.add_image(data, **kwargs)


def test_a_model_is_trained_from_a_table_and_offered_at_once(viewer, table, tmp_path, settle):
    dock = HarmonizeDock(viewer)
    viewer.window.add_dock_widget(dock)
    target = tmp_path / "trained.safetensors"
    dock.train.table.setText(str(table))
    dock.train.target.setText(str(target))
    dock.train.run_bar.button.click()
    assert dock.train.run_bar.button.text() == "Cancel"
    settle(lambda: not dock.train.run_bar.running)
    assert target.is_file()
    assert dock.model is not None and dock.model.card["subjects"] == ["sub-01", "sub-02"]
    assert "sub-01" in card_text(dock.model.card)


def test_subjects_can_be_simulated_to_train_on(viewer, tmp_path, settle, monkeypatch):
    from napari_dmri.phantom import travelling

    def two_small_ones(folder, *, size, subjects, **others):
        return make(folder, size=(12, 14, 4), subjects=2, **others)

    make = travelling.make_travelling
    monkeypatch.setattr(travelling, "make_travelling", two_small_ones)
    dock = HarmonizeDock(viewer)
    viewer.window.add_dock_widget(dock)
    dock.train.simulate_into(tmp_path / "simulated")
    settle(lambda: dock.train.table.text() != "")
    pairs = harmonize.read_pairs(dock.train.table.text())
    assert [pair.subject for pair in pairs] == ["sub-01", "sub-02"]
    assert all(pair.source.simulated for pair in pairs)


def test_cancelled_training_leaves_nothing(viewer, table, tmp_path, settle):
    dock = HarmonizeDock(viewer)
    viewer.window.add_dock_widget(dock)
    dock.train.table.setText(str(table))
    dock.train.target.setText(str(tmp_path / "model.safetensors"))
    dock.train.run_bar.button.click()
    settle(lambda: dock.train.run_bar.bar.value() > 0)
    dock.train.run_bar.button.click()
    assert dock.train.run_bar.button.text() == "Cancelling…"
    settle(lambda: not dock.train.run_bar.running, timeout=10)
    assert "Cancelled" in dock.train.run_bar.message.sentence
    assert list(tmp_path.iterdir()) == []
    assert dock.model is None


def test_harmonizing_adds_new_layers_and_changes_no_old_one(viewer, subjects, model_file, settle):
    scan = subjects[2].scans["ge_st"]
    before = np.array(scan.data)
    layer = add(viewer, scan)
    dock = HarmonizeDock(viewer)
    viewer.window.add_dock_widget(dock)
    assert dock.load_model(model_file)
    assert "Simulated, demo only" in dock.model_line.sentence
    assert dock.run_bar.button.isEnabled()
    dock.compare_when_done.setChecked(False)
    dock.run_bar.button.click()
    settle(lambda: not dock.run_bar.running)
    made = [scan_of(new) for new in viewer.layers if new is not layer and scan_of(new)]
    assert len(made) == 1 and made[0].name == "sub-03 ge_st | prisma_st (LinearRISH)"
    assert made[0].metadata["provenance"]["method"] == "linear-rish"
    np.testing.assert_array_equal(np.asarray(scan.data), before)
    names = [new.name for new in viewer.layers]
    assert sum("scale l=" in name for name in names) == 3
    assert any("template FA" in name for name in names)
    assert all(tuple(new.scale[-3:]) == tuple(layer.scale[-3:]) for new in viewer.layers)
    direct = dock.model.apply(scan)
    # The dock leaves one core to the window, and sums are taken in another order then.
    np.testing.assert_allclose(np.asarray(made[0].data), np.asarray(direct.data), rtol=1e-5)


def test_a_simulated_model_is_not_run_on_a_measured_scan(viewer, subjects, model_file):
    scan = subjects[2].scans["ge_st"]
    measured = replace(scan, metadata={**scan.metadata, "simulated": False}, name="measured")
    add(viewer, measured)
    dock = HarmonizeDock(viewer)
    viewer.window.add_dock_widget(dock)
    # The models of the package are listed, but not suggested.
    assert dock.known is None and dock.model_choice.count() > 1
    assert "for simulated scans" in dock.model_line.sentence
    assert not any(box.isEnabled() for box in dock.compare.boxes.values())
    simulated = add(viewer, scan)
    dock.scan_picker.choose(simulated)
    assert all(box.isEnabled() and box.isChecked() for box in dock.compare.boxes.values())
    assert dock.known is not None and dock.run_bar.button.isEnabled()
    dock.scan_picker.choose(viewer.layers[0])
    assert dock.known is None and dock.result_name.text() == ""
    dock.load_model(model_file)
    assert not dock.run_bar.button.isEnabled()
    assert "simulated" in dock.model_line.sentence
    assert "train your own" in dock.model_line.sentence.lower()
    assert dock.model_line.level == "error"


def test_models_of_the_package_are_compared_with_what_the_target_measured(
    viewer, subjects, settle, tmp_path
):
    source, target = (add(viewer, scan) for scan in subjects[2].scans.values())
    dock = HarmonizeDock(viewer)
    viewer.window.add_dock_widget(dock)
    dock.scan_picker.choose(source)
    assert "demo-linear-rish" in dock.model_choice.currentText()
    assert dock.run_bar.button.isEnabled()
    part = dock.compare
    part.expand()
    assert "Choose as reference" in part.problem[0] and not part.run_bar.button.isEnabled()
    part.reference.choose(source)
    assert "the scan and the reference" in part.device.sentence
    part.reference.choose(target)
    assert [known.title for known in part.chosen][:2] == ["LinearRISH", "Golkov"]
    for known, box in part.boxes.items():
        box.setChecked(known.name == "demo-golkov")
    missing = KnownModel("gone", dict(part.chosen[0].card), "", tmp_path / "gone.safetensors")
    dock.models.append(missing)
    part.list_models()
    part.both.setChecked(True)
    before = list(viewer.layers)
    part.run_bar.button.click()
    settle(lambda: not part.run_bar.running)
    settle(lambda: part.layout_.active)
    names = [panel[0].name for panel in part.layout_.panels]
    assert names[:3] == ["FA: reference", "FA: refit only", "FA: Golkov"]
    assert names[3:6] == ["FA: Golkov, projected", "FA: as measured", "refit only − ref."]
    assert names[6:] == ["Golkov − ref.", "Golkov, projected − ref."]
    heads = [part.table.horizontalHeaderItem(n).text() for n in range(part.table.columnCount())]
    assert heads == ["as measured", "refit only", "Golkov", "Golkov, projected", "Golkov (2)"]
    assert "▼" in part.table.item(0, 2).text()
    assert "Golkov (2) was left out: No model file" in part.line.sentence
    part.side.click()
    assert list(viewer.layers) == before
    part.keep.click()
    kept = [layer.name for layer in viewer.layers[-2:]]
    assert kept == ["sub-03 ge_st | Golkov", "sub-03 ge_st | Golkov, projected"]
    part.export(tmp_path / "out")
    # What is chosen while something is at work comes after it; what is cancelled is not named.
    part.map.setCurrentText("MD")
    part.map.activated.emit(part.map.currentIndex())
    settle(lambda: part.compared.map_name == "MD" and part.layout_.active)
    assert (tmp_path / "out" / "tests.tsv").is_file(), part.run_bar.message.sentence
    assert part.layout_.panels[0][0].name == "MD: reference"
    part.map.setCurrentText("RISH0")
    part.map.activated.emit(part.map.currentIndex())
    part.run_bar.button.click()
    settle(lambda: not part.run_bar.running)
    assert part.map.currentText() == "MD" == part.compared.map_name
    part.let_go()


def test_work_goes_where_the_preferences_say(
    viewer, subjects, table, tmp_path, settle, monkeypatch
):
    monkeypatch.setattr(preferences, "device", lambda: "nowhere")
    source, target = (add(viewer, scan) for scan in subjects[2].scans.values())
    dock = HarmonizeDock(viewer)
    viewer.window.add_dock_widget(dock)
    dock.scan_picker.choose(source)
    assert dock.choose_model("demo-golkov")
    dock.compare.expand()
    dock.compare.reference.choose(target)
    dock.train.table.setText(str(table))
    dock.train.target.setText(str(tmp_path / "model.safetensors"))
    for bar in (dock.run_bar, dock.compare.run_bar, dock.train.run_bar):
        bar.button.click()
        settle(lambda bar=bar: not bar.running)
        assert "'nowhere' is not available" in bar.message.sentence


def test_a_training_subject_may_be_harmonized_but_it_is_said(viewer, subjects, model_file):
    add(viewer, subjects[0].scans["ge_st"])
    dock = HarmonizeDock(viewer)
    viewer.window.add_dock_widget(dock)
    dock.load_model(model_file)
    assert "was trained on sub-01" in dock.model_line.sentence
    assert dock.model_line.level == "warning" and dock.run_bar.button.isEnabled()
    viewer.layers.clear()
    assert dock.model_line.sentence == "Open a scan to see whether the model fits."
    assert dock.model_line.level == "note" and not dock.result_name.text()
    assert "needs" not in dock.device.sentence and not dock.run_bar.button.isEnabled()


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x10\x00\x00\x00\x00\x00\x00\x00{"])
def test_what_is_not_a_model_is_refused_in_words(viewer, tmp_path, content):
    path = tmp_path / "broken.safetensors"
    path.write_bytes(content)
    dock = HarmonizeDock(viewer)
    viewer.window.add_dock_widget(dock)
    assert not dock.load_model(path)
    assert dock.model_line.level == "error" and "broken.safetensors" in dock.model_line.sentence
    assert dock.model is None


def test_without_a_scan_the_dock_says_what_to_do_first(viewer, small_scan):
    from napari_dmri.images import ScalarImage

    data, kwargs, _ = map_layer(ScalarImage(np.ones((3, 3, 3)), np.eye(4), "a map"))
    layer = viewer.add_image(data, **kwargs)
    assert kind_of(layer) == "map"
    dock = HarmonizeDock(viewer)
    viewer.window.add_dock_widget(dock)
    assert dock.scan_picker.layer is None
    assert "Open a scan first" in dock.scan_line.sentence
    assert not dock.run_bar.button.isEnabled()


def test_the_result_belongs_to_the_scan_that_was_run(
    viewer, subjects, model_file, small_scan, settle
):
    dock = HarmonizeDock(viewer)
    viewer.window.add_dock_widget(dock)
    source = add(viewer, subjects[2].scans["ge_st"])
    source.contrast_limits = (0, 321)
    other = add(viewer, small_scan)
    dock.scan_picker.choose(source)
    assert dock.load_model(model_file)
    assert dock.run_bar.button.isEnabled()
    dock.compare_when_done.setChecked(False)
    dock.run_bar.button.click()
    dock.scan_picker.choose(other)
    settle(lambda: not dock.run_bar.running)
    made = viewer.layers[-1]
    assert kind_of(made) == "scan"
    assert tuple(made.contrast_limits) == (0, 321)
    assert dock.scan_picker.layer is other
    assert dock.model_line.level == "error"
    assert not dock.run_bar.button.isEnabled()
    assert not other.visible and made.visible
