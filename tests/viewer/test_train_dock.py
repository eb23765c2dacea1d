"""The Train dock in the real viewer: pairs, training, pausing, going on, and using the model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from napari_dmri import InputError, harmonize
from napari_dmri.harmonize import Pair
from napari_dmri.harmonize.learned_preview import Preview
from napari_dmri.io import write_map, write_scan
from napari_dmri.phantom.travelling import simulate_subject
from napari_dmri.viewer.layers import kind_of, object_of, scan_layer
from napari_dmri.viewer.orientation import set_convention
from napari_dmri.viewer.widgets import train_rish
from napari_dmri.viewer.widgets.harmonize import HarmonizeDock
from napari_dmri.viewer.widgets.train import TrainDock
from napari_dmri.viewer.widgets.train_plots import SlicePlot

pytestmark = [
    pytest.mark.viewer,
    pytest.mark.filterwarnings("ignore::napari_dmri.errors.DmriWarning"),
]
SITES = ("ge_st", "prisma_st")


@pytest.fixture(scope="module")
def pairs():
    made = [simulate_subject(i, size=(16, 18, 4), repeats=False) for i in range(3)]
    return [Pair(*(s.scans[site] for site in SITES), s.subject) for s in made]


@pytest.fixture
def dock(viewer):
    dock = TrainDock(viewer)
    viewer.window.add_dock_widget(dock)
    return dock


def fill(dock, pairs, settle, method="golkov"):
    dock.pairs.add(pairs)
    dock.method.setCurrentIndex(dock.method.findData(method))
    dock.epochs.setValue(1)
    settle(lambda: not dock.pairs.problem)


def add(viewer, scan):
    data, kwargs, _ = scan_layer(scan)
    return viewer.add_image(data, **kwargs)


def test_a_pair_is_added_from_two_layers_and_checked(viewer, dock, pairs, settle):
    assert not dock.run_bar.button.isEnabled()
    assert "Load a table" in dock.pairs.line.sentence
    source, target = add(viewer, pairs[0].source), add(viewer, pairs[0].target)
    for role, layer in (("source", source), ("target", target)):
        dock.pairs.pickers[role].choose(layer)
    assert dock.pairs.subject.text() == "sub-01"
    dock.pairs.add_button.click()
    settle(lambda: not dock.pairs.problem)
    assert "ge_st → prisma_st" in dock.pairs.table.item(0, 1).text()
    assert "30 and 30 directions" in dock.pairs.table.item(0, 1).text()
    assert dock.run_bar.button.isEnabled() and "1 pair" in dock.pairs.line.sentence
    dock.pairs.add_button.click()
    assert "in the table already" in dock.pairs.line.sentence and len(dock.pairs.rows) == 1
    dock.pairs.pickers["target"].choose(source)
    dock.pairs.add_button.click()
    assert "same layer" in dock.pairs.line.sentence


def test_a_pair_that_cannot_be_trained_on_is_red_and_holds_training(dock, pairs, settle):
    empty = pairs[1].source.with_mask(np.zeros(pairs[1].source.grid, bool))
    dock.pairs.add([pairs[0], replace(pairs[1], source=empty)])
    settle(lambda: all(row.check for row in dock.pairs.rows))
    assert "mask is empty" in dock.pairs.table.item(1, 1).text()
    assert not dock.run_bar.button.isEnabled() and "sub-02" in dock.run_bar.button.toolTip()
    assert "\nGood: " in dock.pairs.table.item(0, 1).text()
    assert "\nRefused: " in dock.pairs.table.item(1, 1).text()
    assert "marked Refused" in dock.pairs.line.sentence and dock.pairs.line.level == "error"
    dock.pairs.table.selectRow(1)
    dock.pairs.remove_button.click()
    assert dock.run_bar.button.isEnabled()
    dock.order.setCurrentIndex(dock.order.findData(8))
    settle(lambda: all(row.check for row in dock.pairs.rows))
    assert "above what" in dock.pairs.table.item(0, 1).text()


def test_pairs_of_several_target_sites_hold_training(dock, pairs, settle):
    target = pairs[1].target
    other = replace(target, metadata={**target.metadata, "site": "elsewhere"})
    dock.pairs.add([pairs[0], replace(pairs[1], target=other)])
    settle(lambda: all(row.check for row in dock.pairs.rows))
    words = "of 2 target sites (prisma_st: sub-01; elsewhere: sub-02)"
    assert words in dock.pairs.line.sentence and dock.pairs.line.level == "error"
    assert not dock.run_bar.button.isEnabled() and words in dock.run_bar.button.toolTip()
    dock.pairs.table.selectRow(1)
    dock.pairs.remove_button.click()
    assert dock.run_bar.button.isEnabled() and dock.pairs.line.level == "ok"
    unnamed = replace(target, metadata={**target.metadata, "site": ""})
    dock.pairs.add([replace(pairs[1], target=unnamed)])
    settle(lambda: not dock.pairs.problem)
    assert dock.run_bar.button.isEnabled()


def test_a_table_is_loaded_and_a_bad_one_refused(dock, pairs, tmp_path, settle):
    from napari_dmri.images import ScalarImage

    lines = ["subject\tsource\ttarget\tsource_mask\ttarget_mask"]
    for pair in pairs[:2]:
        names = []
        for site, scan in zip(SITES, (pair.source, pair.target), strict=True):
            names.append(f"{pair.subject}_{site}")
            write_scan(scan, tmp_path / f"{names[-1]}.nii.gz")
            mask = ScalarImage(scan.mask, scan.affine, "mask")
            write_map(mask, tmp_path / f"{names[-1]}_mask.nii.gz")
        files = [f"{n}{end}.nii.gz" for end in ("", "_mask") for n in names]
        lines.append("\t".join([pair.subject, *files]))
    table = tmp_path / "pairs.tsv"
    table.write_text("\n".join(lines) + "\n")
    assert dock.pairs.load(table)
    settle(lambda: not dock.pairs.problem)
    assert [p.subject for p in dock.pairs.pairs] == ["sub-01", "sub-02"]
    assert dock.target.text() == str(tmp_path / "shresnet.safetensors")
    dock.method.setCurrentIndex(dock.method.findData("golkov"))
    assert dock.target.text() == str(tmp_path / "golkov.safetensors")
    # A name of one's own stays.
    dock.target.setText(str(tmp_path / "mine.safetensors"))
    dock.method.setCurrentIndex(dock.method.findData("shresnet"))
    assert dock.pairs.load(table)
    assert dock.target.text() == str(tmp_path / "mine.safetensors")
    (tmp_path / "bad.tsv").write_text("subject\tsource\n")
    assert not dock.pairs.load(tmp_path / "bad.tsv")
    assert "lacks the column(s) target" in dock.pairs.line.sentence
    assert len(dock.pairs.rows) == 2


def test_training_shows_curves_and_a_slice_and_the_model_is_used(
    viewer, dock, pairs, tmp_path, settle
):
    add(viewer, pairs[2].target)
    viewer.dims.set_current_step(1, 1)
    fill(dock, pairs, settle, "shresnet")
    assert "about" in dock.device.sentence and "validates on sub-03" in dock.device.sentence
    target = tmp_path / "model.safetensors"
    dock.target.setText(str(target))
    dock.run_bar.button.click()
    settle(lambda: dock.pause.isEnabled() and dock.pause.isVisible())
    settle(lambda: not dock.run_bar.running)
    assert dock.run_bar.message.level in ("ok", "warning"), dock.run_bar.message.sentence
    assert "Trained on 2 subjects, validated on sub-03." in dock.run_bar.message.sentence
    assert [path.name for path in sorted(tmp_path.iterdir())] == [
        "model.json",
        "model.safetensors",
    ]
    entries = harmonize.load(target).curves
    assert sorted(dock.curves.curves) == [entry["epoch"] for entry in entries] == list(range(7))
    assert dock.slice.isVisible() and dock.slice.preview.epoch == 6
    # The slice that the viewer shows.
    assert (dock.slice.preview.axis, dock.slice.preview.index) == (2, 1)
    assert np.isfinite(dock.slice.preview.prediction).any()
    layer = add(viewer, simulate_subject(4, size=(24, 28, 4), repeats=False).scans["ge_st"])
    other = dock.use_in_harmonize()
    assert isinstance(other, HarmonizeDock)
    assert other.model is dock.model and other.method.currentText() == "SHResNet"
    assert "model.safetensors" in other.model_choice.currentText()
    other.scan_picker.choose(layer)
    assert other.run_bar.button.isEnabled(), other.model_line.sentence
    other.compare_when_done.setChecked(False)
    assert other.projection.isChecked()
    other.projection.setChecked(False)
    other.run_bar.button.click()
    settle(lambda: not other.run_bar.running)
    made = {new.name: new for new in viewer.layers if new is not layer}
    assert "sub-05 ge_st | prisma_st (SHResNet)" in made, other.run_bar.message.sentence
    done = object_of(made["sub-05 ge_st | prisma_st (SHResNet)"])
    assert done.metadata["provenance"]["parameters"]["projection"] is False
    novelty = next(new for name, new in made.items() if name.endswith("| novelty"))
    assert kind_of(novelty) == "map" and novelty.colormap.name == "inferno"
    assert float(np.nanmax(object_of(novelty).data)) > 0
    # Each method lists its own models.
    other.method.setCurrentIndex(other.method.findData("golkov"))
    assert other.known.name == "demo-golkov" and not other.projection.isChecked()
    other.method.setCurrentIndex(other.method.findData("shresnet"))
    assert other.model is dock.model


def test_linear_rish_is_trained_here_too(dock, pairs, tmp_path, settle):
    fill(dock, pairs[:2], settle, "linear-rish")
    assert "about" in dock.device.sentence
    dock.target.setText(str(tmp_path / "rish.safetensors"))
    dock.run_bar.button.click()
    assert not dock.pause.isVisible() and not dock.curves.isVisible()
    settle(lambda: not dock.run_bar.running)
    assert "Trained on 2 subjects. Saved rish.safetensors." in (
        dock.run_bar.message.sentence.replace("\n", " ")
    )
    assert harmonize.load(tmp_path / "rish.safetensors").card["subjects"] == ["sub-01", "sub-02"]
    assert dock.use_button.isVisible()


def test_training_pauses_stops_and_goes_on_from_there(dock, pairs, settle, qtbot):
    fill(dock, pairs, settle)
    dock.epochs.setValue(500)
    dock.run_bar.button.click()
    settle(lambda: 2 in dock.curves.curves)
    dock.pause.click()
    settle(lambda: "paused" in dock.run_bar.step.text())
    assert dock.pause.text() == "&Resume"
    seen = max(dock.curves.curves)
    qtbot.wait(200)
    assert max(dock.curves.curves) <= seen + 1
    dock.run_bar.button.click()
    settle(lambda: not dock.run_bar.running)
    assert "Go on continues from there" in dock.run_bar.message.sentence
    assert dock.run_bar.button.text() == "Go on" and dock.model is None
    stopped = max(dock.curves.curves)
    dock.run_bar.button.click()
    settle(lambda: max(dock.curves.curves) > stopped)
    dock.finish.click()
    settle(lambda: not dock.run_bar.running)
    assert dock.model is not None, dock.run_bar.message.sentence
    assert dock.run_bar.button.text() == "Train"
    # Its curves hold the epochs from before it was stopped, too.
    assert [e["epoch"] for e in dock.model.curves] == list(range(len(dock.model.curves)))


def test_a_training_that_diverged_begins_again_and_keeps_what_it_learned_before(
    dock, pairs, tmp_path, settle, monkeypatch
):
    from napari_dmri.harmonize import learned
    from napari_dmri.training import Stage

    hopeless = (Stage("adam", 1e-3, batch=512, epochs=1), Stage("sgd", 1e30, batch=512, epochs=1))
    monkeypatch.setattr(learned, "PAPER_STAGES", hopeless)
    fill(dock, pairs, settle)
    dock.target.setText(str(tmp_path / "model"))
    said = []
    monkeypatch.setattr(dock.run_bar.message, "say", _noting(dock.run_bar.message, said))
    dock.run_bar.button.click()
    settle(lambda: not dock.run_bar.running)
    assert sum("It begins again from the best weights" in words for words in said) == 2
    assert dock.run_bar.message.level == "error"
    assert "in the Train dock Go on does" in dock.run_bar.message.sentence
    assert dock.run_bar.button.text() == "Go on" and dock.anew.isVisible()
    dock.run_bar.button.click()
    settle(lambda: not dock.run_bar.running)
    assert (tmp_path / "model.safetensors").is_file() and dock.model is not None
    assert dock.run_bar.message.level == "warning"
    assert "Best of 1 epochs: 1" in dock.run_bar.message.sentence
    assert "The best weights before are those of epoch 1" in dock.run_bar.message.sentence


def _noting(line, said):
    say = line.say

    def note(text, level=""):
        said.append(text)
        say(text, level)

    return note


def test_a_stopped_training_can_be_forgotten(dock, pairs, tmp_path, settle):
    fill(dock, pairs, settle)
    dock.epochs.setValue(500)
    dock.target.setText(str(tmp_path / "model"))
    dock.run_bar.button.click()
    settle(lambda: 1 in dock.curves.curves)
    dock.run_bar.button.click()
    settle(lambda: not dock.run_bar.running)
    assert (tmp_path / "model.training.safetensors").is_file() and dock.anew.isVisible()
    dock.seed.setValue(1)
    dock.run_bar.button.click()
    settle(lambda: not dock.run_bar.running)
    assert "other settings" in dock.run_bar.message.sentence
    dock.anew.click()
    assert list(tmp_path.iterdir()) == [] and dock.run_bar.button.text() == "Train"


def test_a_model_is_saved_afterwards_and_nothing_overwritten(dock, pairs, tmp_path, settle):
    fill(dock, pairs[:2], settle)
    assert not dock.save(tmp_path / "early")
    dock.run_bar.button.click()
    settle(lambda: not dock.run_bar.running)
    assert dock.save(tmp_path / "late") and (tmp_path / "late.safetensors").is_file()
    assert not dock.save(tmp_path / "late") and dock.save_line.level == "error"
    dock.target.setText(str(tmp_path / "late.safetensors"))
    dock.run_bar.button.click()
    assert not dock.run_bar.running and "not overwritten" in dock.run_bar.message.sentence


def test_a_stray_card_is_refused_and_not_suggested(dock, pairs, tmp_path, settle):
    fill(dock, pairs[:2], settle)
    (tmp_path / "golkov.json").write_text("{}")
    dock.target.setText(str(tmp_path / "golkov"))
    dock.run_bar.button.click()
    assert not dock.run_bar.running and dock.model is None
    assert "golkov.json, where the model's card goes, exists" in dock.run_bar.message.sentence
    dock.target.clear()
    dock._suggest(tmp_path / "pairs.tsv")
    assert dock.target.text() == str(tmp_path / "golkov-2.safetensors")


def test_a_model_that_could_not_be_saved_is_there_to_be_saved(dock, pairs, tmp_path, settle):
    fill(dock, pairs[:2], settle)
    dock.target.setText(str(tmp_path / "model"))
    dock.run_bar.button.click()
    settle(lambda: dock.curves.curves)
    (tmp_path / "model.json").write_text("{}")
    settle(lambda: not dock.run_bar.running)
    said = dock.run_bar.message
    assert "is trained and not saved" in said.sentence and said.level == "warning"
    assert "model.json exists already" in said.sentence
    assert dock.model is not None and dock.saved is None and dock.save_button.isVisible()
    # Until it is saved somewhere, what it was trained from stays.
    assert (tmp_path / "model.training.safetensors").is_file()
    assert dock.save(tmp_path / "other")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "model.json",
        "other.json",
        "other.safetensors",
    ]
    assert harmonize.load(tmp_path / "other.safetensors").card["subjects"] == ["sub-01", "sub-02"]


def test_linear_rish_from_a_table_is_refused_before_it_is_read(tmp_path):
    (tmp_path / "m.json").write_text("{}")
    with pytest.raises(InputError, match="where the model's card goes, exists already"):
        train_rish.train_model("pairs", str(tmp_path / "none.tsv"), str(tmp_path / "m"))


def test_a_model_that_is_not_saved_is_let_go_only_when_pressed_again(dock, pairs, tmp_path, settle):
    fill(dock, pairs[:2], settle, "linear-rish")
    dock.run_bar.button.click()
    settle(lambda: not dock.run_bar.running)
    model = dock.model
    dock.run_bar.button.click()
    assert not dock.run_bar.running and dock.model is model
    assert "is not saved" in dock.run_bar.message.sentence and dock.save_button.isVisible()
    assert dock.save(tmp_path / "model") and not dock.run_bar.message.sentence
    dock.run_bar.button.click()
    assert dock.run_bar.running
    settle(lambda: not dock.run_bar.running)
    dock.run_bar.button.click()
    assert "is not saved" in dock.run_bar.message.sentence
    dock.run_bar.button.click()
    assert dock.run_bar.running
    settle(lambda: not dock.run_bar.running)


@pytest.mark.parametrize("text", ["/", ".", "~nobody-of-that-name/x"])
def test_what_is_no_file_name_is_refused_in_words(dock, pairs, settle, text):
    fill(dock, pairs[:2], settle, "linear-rish")
    dock.target.setText(text)
    dock.run_bar.button.click()
    assert not dock.run_bar.running
    assert "is no file that can be written" in dock.run_bar.message.sentence


@pytest.mark.parametrize(("axis", "ends"), [(0, "AP"), (1, "RL"), (2, "RL")])
def test_the_slice_is_turned_as_the_window_is(viewer, axis, ends):
    picture = np.arange(20, dtype=np.float32).reshape(5, 4)
    made = Preview(picture, picture, picture, (0.1, 0.1), "sub-01", 3, 1, axis)
    plot = SlicePlot(viewer)
    plot.show_preview(made)
    for convention, letters, row in (
        ("radiological", ends, [16, 12, 8, 4, 0]),
        ("neurological", ends[::-1], [0, 4, 8, 12, 16]),
    ):
        set_convention(viewer, convention)
        for axes in plot.figure.axes:
            assert axes.images[0].get_array()[0].tolist() == row
            at = {text.get_position()[0]: text.get_text() for text in axes.texts}
            assert at[0.02] + at[0.98] == letters
    plot.let_go()
    before = plot.figure.axes
    set_convention(viewer, "radiological")
    assert plot.figure.axes == before


def test_a_closed_dock_stops_its_training(viewer, pairs, settle):
    dock = TrainDock(viewer)
    window = viewer.window.add_dock_widget(dock)
    fill(dock, pairs, settle)
    dock.epochs.setValue(500)
    dock.run_bar.button.click()
    settle(lambda: 1 in dock.curves.curves)
    job = dock.run_bar.job
    viewer.window.remove_dock_widget(window)
    settle(lambda: not job.running)
