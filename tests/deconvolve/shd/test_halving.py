"""Where memory runs out a training goes on with half of its patches, and says so."""

from __future__ import annotations

import pytest
import torch
from tests.deconvolve.shd.conftest import make_responses, make_scan

from napari_dmri.deconvolve.shd import running
from napari_dmri.deconvolve.shd.amortise import Subject, train_model
from napari_dmri.deconvolve.shd.fit import fit_to_scan
from napari_dmri.deconvolve.shd.halving import Pieces, halvings
from napari_dmri.deconvolve.shd.inputs import prepare
from napari_dmri.deconvolve.shd.losses import FodLoss
from napari_dmri.deconvolve.shd.running import read_settings
from napari_dmri.deconvolve.shd.samples import FodPatches, PatchStore
from napari_dmri.errors import Cancelled, InputError

pytestmark = pytest.mark.usefixtures("tiny")

REAL = FodLoss.__call__


class Memory:
    """A device with room for some patches: from a step of training on, or for validation too."""

    def __init__(self, monkeypatch, patches, after=0, validation=False):
        self.patches, self.left, self.validation = patches, after, validation
        self.sizes: list[int] = []
        memory = self

        def loss(self, network, tensors):
            memory.take(len(tensors[0]))
            return REAL(self, network, tensors)

        monkeypatch.setattr(FodLoss, "__call__", loss)

    def take(self, size):
        if torch.is_grad_enabled():
            self.left -= 1
        elif not self.validation:
            return
        if self.left < 0 and size > self.patches:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        if torch.is_grad_enabled():
            self.sizes.append(size)


def run(responses, **more):
    return fit_to_scan(make_scan(), responses, "shd-s-tv", device="cpu", **more)


def same(a, b) -> bool:
    pairs = zip(a.network.state_dict().values(), b.network.state_dict().values(), strict=True)
    return all(torch.equal(x, y) for x, y in pairs)


@pytest.mark.parametrize("with_state", [True, False])
def test_a_training_goes_on_with_half_of_its_patches_and_says_so(
    tmp_path, monkeypatch, responses, with_state
):
    memory = Memory(monkeypatch, 1, after=5)
    told = []
    state = tmp_path / "state.safetensors" if with_state else None
    found = run(responses, on_event=told.append, state=state)
    # Five steps of two patches and the other seven of one: it did not begin anew.
    assert memory.sizes == [2] * 5 + [1] * 7
    card = found.model.card
    assert card["outcome"]["steps"] == 12 and [e["epoch"] for e in found.curves] == [0, 1, 2, 3, 4]
    assert card["plan"]["batch"] == 1 and card["plan"]["lr"] == found.lr == 5e-3
    (words,) = [one for one in told if isinstance(one, str)]
    assert words == (
        "Memory ran out on cpu for a step of 2 patches of 4 voxels an edge; it goes on with 1, at "
        "the same learning rate."
    )
    assert words in card["notes"] and words in found.notes


def test_a_halved_training_that_was_stopped_goes_on_to_the_same_bits(
    tmp_path, monkeypatch, responses
):
    Memory(monkeypatch, 1, after=5)
    whole = run(responses)
    state, left = tmp_path / "state.safetensors", [8]

    def stop(fraction, text):
        left[0] -= text.startswith("epoch")
        if left[0] < 0:
            raise Cancelled

    Memory(monkeypatch, 1, after=5)
    with pytest.raises(Cancelled):
        run(responses, state=state, progress=stop)
    assert read_settings(state)["plan"]["batch"] == 1
    told = []
    memory = Memory(monkeypatch, 1)
    again = run(responses, state=state, on_event=told.append)
    assert same(whole.model, again.model) and again.curves == whole.curves
    assert set(memory.sizes) == {1} and again.model.card["plan"]["batch"] == 1
    words = [one for one in told if isinstance(one, str)]
    assert len(words) == 1 and "before this training was stopped; it goes on with 1" in words[0]
    assert words[0] in again.model.card["notes"]
    with pytest.raises(InputError, match="other settings"):
        run(responses, state=state, seed=3)


def test_a_validation_that_does_not_fit_is_halved_too(monkeypatch, responses):
    # Batches of validation are four times as large: one of 8 patches is the first of all.
    memory = Memory(monkeypatch, 4, after=-1, validation=True)
    found = run(responses)
    assert memory.sizes == [1] * 12 and found.model.card["plan"]["batch"] == 1


def test_subjects_in_turn_are_halved_too(monkeypatch):
    memory = Memory(monkeypatch, 1, after=3)
    subjects = [Subject(f"sub-{n}", make_scan(seed=n), make_responses()) for n in range(2)]
    told = []
    model = train_model(subjects, "shd-s-tv", device="cpu", on_event=told.append)
    assert memory.sizes == [2] * 3 + [1] * 9 and model.card["plan"]["batch"] == 1
    assert any("it goes on with 1" in note for note in model.card["notes"])
    assert any(isinstance(one, str) for one in told)


def test_a_collapse_after_it_begins_again_with_what_fits(tmp_path, monkeypatch, responses):
    from napari_dmri.deconvolve.shd.collapse import Watch

    looks = []

    def look(*_):
        looks.append(1)
        return "all fODFs are round" if len(looks) == 2 else ""

    monkeypatch.setattr(Watch, "look", look)
    memory = Memory(monkeypatch, 1, after=2)
    found = run(responses, state=tmp_path / "state.safetensors")
    assert memory.sizes == [2] * 2 + [1] * 4 + [1] * 12
    assert found.model.card["plan"]["batch"] == 1 and found.lr == pytest.approx(5e-3 / 3)
    assert len([n for n in found.notes if "Memory" in n]) == 1


def test_other_errors_are_let_through(monkeypatch, responses):
    def broken(self, network, tensors):
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(FodLoss, "__call__", broken)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        run(responses)


def test_the_time_of_a_step_is_that_of_one_that_fits(monkeypatch, tiny, responses):
    store = PatchStore(("csf",))
    store.add(prepare(make_scan(), responses, others=("csf",), degree=4))
    memory = Memory(monkeypatch, 1)
    assert running.time_steps(tiny("shd-s-tv"), store, "cpu", 1) > 0
    assert set(memory.sizes) == {1}
    Memory(monkeypatch, 0)
    with pytest.raises(InputError, match="a step of 1 patch of 4 voxels an edge; choose the size"):
        running.time_steps(tiny("shd-s-tv"), store, "cpu", 1)


@pytest.mark.parametrize("edge", [3, 4])
def test_a_validation_in_pieces_is_of_the_same_patches(responses, edge):
    store = PatchStore(("csf",))
    for seed in range(2):
        scan = make_scan(seed=seed)
        store.add(prepare(scan, responses, others=("csf",), degree=4))
    patches = FodPatches(store.volumes, edge, 3)
    whole = list(patches.batches(8))
    for size in (8, 4, 3, 1):
        pieces = Pieces(patches, 8)
        found = list(pieces.batches(size))
        each = -(-8 // size)
        assert len(found) == pieces.count(size) == 3 * each
        assert max(len(one.tensors[0]) for one in found) == size
        for number, one in enumerate(whole):
            some = found[number * each : (number + 1) * each]
            assert torch.equal(torch.cat([s.tensors[0] for s in some]), one.tensors[0])
            assert sum(s.weight for s in some) == one.weight
    assert halvings(12) == [6, 3, 1]


def test_the_command_line_says_so(tmp_path, monkeypatch, responses):
    from typer.testing import CliRunner

    from napari_dmri.cli import app
    from napari_dmri.io import write_scan
    from napari_dmri.io.responses import write_responses

    write_scan(make_scan((6, 5, 4)), tmp_path / "dwi.nii.gz")
    write_responses(responses, tmp_path / "wm.txt")
    Memory(monkeypatch, 1, after=3)
    given = ["--response", "wm.txt", "--tissues", "csf", "--device", "cpu", "-o", "out"]
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["deconvolve", "fit", "dwi.nii.gz", *given])
    assert result.exit_code == 0, result.output
    said = " ".join(result.output.split())
    assert "Warning: Memory ran out on cpu for a step of 2 patches" in said
    assert said.count("Memory ran out") == 2  # when it happens, and among the notes at the end
