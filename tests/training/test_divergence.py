"""A training that diverges: nothing broken is kept, it begins again, and what is left is said."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from napari_dmri import Cancelled, DmriWarning, InputError
from napari_dmri.training import Stage, Switch, load_checkpoint, save_checkpoint, train
from napari_dmri.training.divergence import CHECK, given_up
from napari_dmri.training.parts import Diverged

from .test_loop import Line, StopAt, network, same, squares

ADAM = Stage("adam", lr=1e-2, batch=8, epochs=3)
STEEP = Stage("sgd", lr=0.3, batch=4, epochs=4, momentum=0.9, factor=0.9, patience=1)
"""Diverges at this rate and at a third of it, not at a ninth."""

HOPELESS = replace(STEEP, lr=1e9)


def run(model, stages=(ADAM, STEEP), retries=2, loss=squares, **more):
    return train(
        model,
        loss,
        Line(),
        Line(16, 1),
        stages,
        seed=3,
        device="cpu",
        retries=retries,
        **more,
    )


def broken(file):
    """Return the names of what is not finite in a state."""
    return [name for name, value in load_file(file).items() if not np.isfinite(value).all()]


def finite(model):
    return all(bool(v.isfinite().all()) for v in model.state_dict().values())


@pytest.fixture(scope="module")
def recovered():
    model, told = network(), []
    with pytest.warns(DmriWarning, match="begins again"):
        done = run(model, on_event=told.append)
    return model, done, told


def test_it_begins_again_from_the_best_weights_at_a_third_of_the_rate(recovered):
    model, done, told = recovered
    assert finite(model) and len(done.notes) == 2
    before = train(network(), squares, Line(), Line(16, 1), [ADAM], seed=3, device="cpu")
    assert done.best_loss < before.best_loss
    # Each epoch of the plan has its place on the curves, those that diverged have none.
    assert [entry["epoch"] for entry in done.curves] == list(range(8))
    assert all(np.isfinite(entry["validation"]) for entry in done.curves)
    # The stage's own rule lowers the rate too, by 0.9 after epoch 4.
    assert [entry["lr"] for entry in done.curves[3:6]] == pytest.approx([0.01, 0.1, 0.03])
    first, second = done.notes
    assert re.search(
        r"training loss is (nan|inf) in epoch 4, by step 10\. It begins again from the best "
        r"weights so far \(epoch 3\), at a learning rate of 0\.1\.",
        first,
    )
    assert second.endswith("at a learning rate of 0.03.")
    again = [event for event in told if event.kind == "again"]
    assert [event.words for event in again] == list(done.notes)
    assert [event.lr for event in again] == pytest.approx([0.1, 0.03])


@pytest.mark.parametrize("calls", [20, 30, 36, 45, 60])
def test_a_training_that_began_again_is_resumed_bit_for_bit(tmp_path, recovered, calls):
    whole, expected, _ = recovered
    path = tmp_path / "state.safetensors"
    with pytest.warns(DmriWarning, match="begins again"):
        for n in (calls, 7):
            with pytest.raises(Cancelled):
                run(network(), state=path, progress=StopAt(n))
            assert not broken(path)
        model = network(seed=99)
        found = run(model, state=path)
    assert same(whole.state_dict(), model.state_dict())
    assert found.curves == expected.curves and found.notes == expected.notes


@pytest.mark.parametrize("died", [35, 48])
def test_a_training_that_was_killed_while_it_diverged_goes_on_bit_for_bit(
    tmp_path, recovered, died
):
    class Killed(BaseException):
        pass

    whole, expected, _ = recovered
    path = tmp_path / "state.safetensors"
    left = died

    def die(fraction, text):
        nonlocal left
        left -= 1
        if left < 0:
            raise Killed

    with pytest.warns(DmriWarning, match="begins again"):
        with pytest.raises(Killed):
            run(network(), state=path, every=0.0, progress=die)
        assert not broken(path)
        model = network(seed=99)
        found = run(model, state=path)
    assert same(whole.state_dict(), model.state_dict()) and found.curves == expected.curves


@pytest.mark.parametrize("retries", [0, 2])
def test_no_state_that_is_not_finite_is_ever_written(tmp_path, retries):
    path = tmp_path / "state.safetensors"
    seen = []

    def look(fraction, text):
        if path.is_file():
            seen.append(broken(path))

    with pytest.raises(Diverged), pytest.warns(DmriWarning) if retries else nothing():
        run(network(), (ADAM, HOPELESS), retries, state=path, every=0.0, progress=look)
    assert len(seen) > 20 and not any(seen)
    assert not broken(path) and np.isfinite(load_checkpoint(path)[1]["sum"])


class nothing:
    """Expect no warning; the tests' settings make any an error."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return False


def test_where_it_does_not_help_the_best_weights_are_kept_and_taken_by_going_on(tmp_path):
    path = tmp_path / "model.training.safetensors"
    before = network()
    expected = train(before, squares, Line(), Line(16, 1), [ADAM], seed=3, device="cpu")
    with pytest.raises(Diverged) as caught, pytest.warns(DmriWarning):
        run(network(), (ADAM, HOPELESS), state=path)
    words = str(caught.value)
    assert "It had begun again 2 times, the last at a learning rate of 1.1e+08." in words
    assert f"those of epoch {expected.best_epoch} (loss {expected.best_loss:.4g})" in words
    assert "model.training.safetensors keeps them" in words
    assert "To train anew, delete it, lower the learning rate" in words
    model, told = network(seed=9), []
    with pytest.warns(DmriWarning) as warned:
        found = run(model, (ADAM, HOPELESS), state=path, on_event=told.append)
    assert tuple(str(w.message) for w in warned) == found.notes
    assert "The best weights before are those of epoch 3" in found.notes[-1]
    assert same(before.state_dict(), model.state_dict())
    assert (found.best_epoch, found.best_loss) == (expected.best_epoch, expected.best_loss)
    assert len(found.notes) == 3 and not found.finished_early
    assert [event.kind for event in told] == ["done"]


@pytest.mark.parametrize(
    ("stages", "state", "words"),
    [
        ((HOPELESS,), True, "No epoch was better than none: lower the learning rate"),
        ((ADAM, HOPELESS), False, "No state was asked for that keeps them: lower"),
    ],
)
def test_where_nothing_is_kept_the_error_says_so_and_no_file_stays(tmp_path, stages, state, words):
    path = tmp_path / "state.safetensors" if state else None
    with pytest.raises(Diverged, match=words), pytest.warns(DmriWarning):
        run(network(), stages, state=path, every=0.0)
    assert list(tmp_path.iterdir()) == []


def test_a_broken_state_of_an_earlier_version_is_recovered_from(tmp_path):
    path = tmp_path / "state.safetensors"
    stages = (ADAM, replace(STEEP, lr=0.01))
    with pytest.raises(Cancelled):
        run(network(), stages, state=path, progress=StopAt(40))
    tensors, card = load_checkpoint(path)
    tensors = {
        k: v * np.float32(np.nan) if k.startswith("model/") else v for k, v in tensors.items()
    }
    for name in ("sha256", "tried", "notes"):
        card.pop(name, None)
    card["sum"] = float("nan")
    save_checkpoint(path, tensors, card, overwrite=True)
    model = network()
    with pytest.warns(DmriWarning, match=r"loss is nan.*begins again"):
        found = run(model, stages, state=path)
    assert finite(model) and len(found.notes) == 1 and len(found.curves) == 8


def test_without_retries_the_error_is_let_through_at_once(tmp_path):
    with pytest.raises(Diverged, match=r"lower the learning rate \(0\.3\) or check") as caught:
        run(network(), retries=0)
    assert caught.value.found.endswith("in epoch 4, by step 10.")


def test_weights_that_the_last_step_broke_are_not_kept_as_the_best():
    def steep(model, tensors):
        return 1e6 * squares(model, tensors)

    stage = Stage("sgd", lr=1e38, batch=40, epochs=2)
    with pytest.raises(Diverged, match="weights are not finite in epoch 1, by step 1"):
        train(network(), steep, Line(), None, [stage], seed=3, device="cpu")


def test_a_long_epoch_is_not_waited_for():
    steps = []

    def broken_loss(model, tensors):
        steps.append(1)
        return squares(model, tensors) * float("nan")

    stage = Stage("sgd", lr=1e-3, batch=1, epochs=1)
    with pytest.raises(Diverged, match=f"by step {CHECK}"):
        train(network(), broken_loss, Line(3 * CHECK), None, [stage], device="cpu")
    assert len(steps) == CHECK


def test_ending_it_by_hand_takes_the_best_weights_though_the_epoch_diverged():
    switch = Switch()

    def progress(fraction, text):
        switch.finish |= "epoch 4, step 9" in text

    model = network()
    done = run(model, retries=0, switch=switch, progress=progress)
    assert done.finished_early and done.best_epoch == 3 and finite(model)


@pytest.mark.parametrize(("tried", "words"), [(1, "begun again once,"), (2, "begun again 2 times")])
def test_how_often_it_began_again_is_said(tried, words):
    error = given_up(Diverged("It broke."), tried, 1e-4, 0, float("inf"), None)
    assert words in str(error) and isinstance(error, InputError)


def test_an_error_of_another_process_arrives_whole():
    import pickle

    error = pickle.loads(pickle.dumps(Diverged("a; do b", "a.")))
    assert (str(error), error.found) == ("a; do b", "a.")


def test_a_loss_that_breaks_once_costs_no_more_than_its_epoch():
    calls = []

    def once(model, tensors):
        if torch.is_grad_enabled():
            calls.append(1)
        value = squares(model, tensors)
        return value * float("nan") if len(calls) == 7 else value

    with pytest.warns(DmriWarning, match=r"epoch 2, by step 5\. It begins again.*\(epoch 1\)"):
        done = run(network(), (ADAM,), loss=once)
    assert done.steps == 4 * 5 and len(done.curves) == 4


def test_batches_are_those_of_the_epoch_that_diverged():
    drawn = []

    class Noted(Line):
        def batches(self, size, key=None, start=0):
            drawn.append((key, start))
            yield from super().batches(size, key, start)

    with pytest.raises(Diverged), pytest.warns(DmriWarning):
        train(network(), squares, Noted(), None, [HOPELESS], device="cpu", retries=1)
    assert drawn == [((0, 0, 0), 0)] * 2
