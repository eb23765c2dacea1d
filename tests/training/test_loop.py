"""The loop: exact resume, best weights, the rules of stages, cancel, pause, refusals."""

import threading
import time

import numpy as np
import pytest
import torch

from napari_dmri import Cancelled, InputError
from napari_dmri.training import Batch, Stage, Switch, train
from napari_dmri.training.parts import Diverged
from napari_dmri.training.stages import Patience

ADAM = Stage("adam", lr=1e-2, batch=8, epochs=3)
SGD = Stage("sgd", lr=1e-2, batch=4, epochs=4, momentum=0.9, factor=0.9, patience=1, stop=3)


class Line:
    """Samples (x, y), shuffled by key."""

    def __init__(self, n=40, seed=0):
        rng = np.random.default_rng(seed)
        self.x = torch.from_numpy(rng.standard_normal((n, 3)).astype(np.float32))
        self.y = (self.x @ torch.tensor([1.0, -2.0, 0.5]))[:, None] + 0.3

    def count(self, size):
        return -(-len(self.x) // size)

    def batches(self, size, key=None, start=0):
        order = np.arange(len(self.x))
        if key is not None:
            order = np.random.default_rng(list(key)).permutation(order)
        for step in range(start, self.count(size)):
            rows = torch.from_numpy(order[step * size : (step + 1) * size])
            yield Batch((self.x[rows], self.y[rows]), float(len(rows)))


def network(seed=0):
    torch.manual_seed(seed)
    return torch.nn.Sequential(
        torch.nn.Linear(3, 8), torch.nn.ReLU(), torch.nn.Dropout(0.2), torch.nn.Linear(8, 1)
    )


def squares(model, tensors):
    return (model(tensors[0]) - tensors[1]).square().mean()


def run(model, stages=(ADAM, SGD), **more):
    return train(model, squares, Line(), Line(16, 1), stages, seed=3, device="cpu", **more)


class StopAt:
    """A progress that cancels at its n-th call."""

    def __init__(self, n):
        self.left = n

    def __call__(self, fraction, text):
        assert 0 <= fraction <= 1
        self.left -= 1
        if self.left < 0:
            raise Cancelled


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.values(), b.values(), strict=True))


@pytest.mark.parametrize("calls", [4, 13, 17, 25, 40])
def test_a_resumed_training_is_the_uninterrupted_one_bit_for_bit(tmp_path, calls):
    whole = network()
    expected = run(whole)
    path = tmp_path / "state.safetensors"
    for n in (calls, 9):
        with pytest.raises(Cancelled):
            run(network(), state=path, progress=StopAt(n))
    model = network(seed=99)  # the weights come from the state
    found = run(model, state=path)
    assert same(whole.state_dict(), model.state_dict())
    assert found.curves == expected.curves
    assert (found.best_epoch, found.best_loss) == (expected.best_epoch, expected.best_loss)
    assert found.steps == expected.steps


def test_a_killed_training_resumes_from_what_was_written_last(tmp_path):
    whole = network()
    run(whole)
    path = tmp_path / "state.safetensors"

    class Killed(BaseException):
        pass

    calls = 0

    def die(fraction, text):
        nonlocal calls
        calls += 1
        if calls > 23:
            raise Killed

    with pytest.raises(Killed):
        run(network(), state=path, every=0.0, progress=die)
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["state.json", "state.safetensors"]
    model = network(seed=5)
    run(model, state=path)
    assert same(whole.state_dict(), model.state_dict())
    again = network(seed=6)
    run(again, state=path)  # done: nothing is trained again
    assert same(whole.state_dict(), again.state_dict())


def test_the_same_seed_gives_the_same_bits_and_leaves_torch_alone():
    first, second = network(), network()
    before = torch.get_rng_state()
    run(first)
    assert torch.equal(before, torch.get_rng_state())
    run(second)
    assert same(first.state_dict(), second.state_dict())


class Scripted:
    """A validation whose losses are given one after the other."""

    def __init__(self, losses):
        self.losses = list(losses)
        self.calls = 0

    def count(self, size):
        return 1

    def batches(self, size, key=None, start=0):
        value = self.losses[min(self.calls, len(self.losses) - 1)]
        self.calls += 1
        yield Batch((torch.zeros(1, 3), torch.full((1, 1), value)), 1.0)


def scripted(model, tensors):
    x, y = tensors
    return y.mean() if len(y) == 1 and not x.any() else squares(model, tensors)


def test_lr_falls_after_five_epochs_without_improvement_and_ten_stop():
    # Epoch 0 (before training) and the first two get better, then none does.
    losses = [5.0, 4.0, 3.0, *[3.0] * 20]
    stage = Stage("sgd", lr=1.0e-3, batch=40, epochs=100, factor=0.9, patience=5, stop=10)
    done = train(network(), scripted, Line(), Scripted(losses), [stage], device="cpu")
    assert len(done.curves) == 1 + 2 + 10
    assert done.best_epoch == 2 and done.best_loss == 3.0
    rates = [entry["lr"] for entry in done.curves]
    # A curve's entry has the rate its epoch was trained with.
    assert rates[:8] == [1e-3] * 8
    assert np.allclose(rates[8:], 0.9e-3)


def test_an_improvement_starts_the_count_anew():
    stage = Stage(factor=0.5, patience=2, stop=5)
    patience = Patience(stage, best=1.0)
    seen = [patience.update(x) for x in (1.1, 1.0, 0.9, 2, 2, 2, 2, float("nan"))]
    assert [s[0] for s in seen] == [False, False, True, *[False] * 5]
    assert [s[1] for s in seen] == [False, True, False, False, True, False, True, False]
    assert [s[2] for s in seen] == [*[False] * 7, True]


def test_the_best_validation_weights_are_kept():
    losses = [5.0, 1.0, 3.0, 4.0]
    after_one = network()
    train(after_one, scripted, Line(), Scripted([5.0, 1.0]), [Stage(batch=8, epochs=1)], seed=2)
    model = network()
    done = train(model, scripted, Line(), Scripted(losses), [Stage(batch=8, epochs=3)], seed=2)
    assert done.best_epoch == 1
    assert same(model.state_dict(), after_one.state_dict())
    worse = network()
    start = {k: v.clone() for k, v in worse.state_dict().items()}
    done = train(worse, scripted, Line(), Scripted([1.0, 2.0]), [Stage(batch=8, epochs=2)])
    assert done.best_epoch == 0 and same(start, worse.state_dict())


def test_a_line_is_learned_and_the_curves_say_so():
    model = torch.nn.Linear(3, 1)
    events = []
    mean = {"mean": lambda m, t: m(t[0]).mean()}
    stages = [Stage("adam", 3e-2, 8, 60), Stage("sgd", 1e-2, 8, 20, momentum=0.9)]
    done = train(model, squares, Line(), Line(16, 1), stages, metrics=mean, on_event=events.append)
    assert done.best_loss < 1e-8
    assert torch.allclose(model.weight, torch.tensor([[1.0, -2.0, 0.5]]), atol=1e-3)
    kinds = [e.kind for e in events]
    assert kinds[0] == "start" and kinds[-1] == "done" and kinds.count("epoch") == 80
    epochs = [e for e in events if e.kind == "epoch"]
    assert [e.epoch for e in epochs] == list(range(1, 81))
    assert epochs[0].train > epochs[-1].train and "mean" in epochs[0].metrics
    assert {e.stage for e in epochs} == {1, 2}


@pytest.mark.parametrize("counts", [True, False])
def test_weights_of_other_data_need_not_count(counts):
    worse = (Stage("sgd", lr=0.5, batch=40, epochs=1),)
    model = network()
    run(model)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    fit = run(model, worse, start_counts=counts)
    assert [entry["epoch"] for entry in fit.curves] == [0, 1]
    assert fit.curves[1]["validation"] > fit.curves[0]["validation"]
    assert fit.best_epoch == (0 if counts else 1)
    same = all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert same == counts


def test_pause_waits_and_finish_keeps_the_best():
    switch = Switch(paused=True)
    texts = []

    def progress(fraction, text):
        texts.append(text)
        if sum("paused" in t for t in texts) == 3:
            switch.paused = False
        if "epoch 2, step 3" in text:
            switch.finish = True

    done = run(network(), switch=switch, progress=progress)
    assert sum("paused" in t for t in texts) == 3
    assert done.finished_early
    assert [c["epoch"] for c in done.curves] == [0, 1, 2]
    assert done.steps == 5 + 2


def test_while_it_waits_it_tells_so_now_and_then():
    switch = Switch(paused=True)
    events = []

    def tell(event):
        events.append(event)
        if sum(e.kind == "pause" for e in events) == 2:
            switch.paused = False

    waited = run(network(), switch=switch, on_event=tell)
    pauses = [e for e in events if e.kind == "pause"]
    assert [(e.epoch, e.step, e.train) for e in pauses] == [(1, 0, None)] * 2
    plain = run(network())
    assert [c["train"] for c in waited.curves] == [c["train"] for c in plain.curves]


def test_cancel_works_while_paused(tmp_path):
    switch = Switch(paused=True)
    path = tmp_path / "state.safetensors"
    with pytest.raises(Cancelled):
        run(network(), switch=switch, progress=StopAt(20), state=path)
    assert path.is_file()


def test_the_state_is_refused_where_settings_or_data_differ(tmp_path):
    path = tmp_path / "state.safetensors"
    with pytest.raises(Cancelled):
        run(network(), state=path, settings={"data": "a"}, progress=StopAt(20))
    with pytest.raises(InputError, match=r"other settings \(data: a then, b now\)"):
        run(network(), state=path, settings={"data": "b"})
    long = {"plan": {"lr": 1, "steps": 2}, "data": "0" * 64}
    other = {"plan": {"lr": 1, "steps": 3}, "data": "1" * 64}
    with pytest.raises(Cancelled):
        run(network(), state=tmp_path / "long", settings=long, progress=StopAt(20))
    with pytest.raises(InputError, match=r"\(other data; plan's steps: 2 then, 3 now\)"):
        run(network(), state=tmp_path / "long", settings=other)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(InputError, match="not a whole safetensors file"):
        run(network(), state=path, settings={"data": "a"})


def test_what_a_listener_remembers_is_kept_with_the_state(tmp_path):
    path = tmp_path / "state.safetensors"
    memory: dict[str, list[int]] = {}

    def tell(event):
        if event.kind == "epoch":
            memory.setdefault("epochs", []).append(event.epoch)

    with pytest.raises(Cancelled):
        run(network(), state=path, memory=memory, on_event=tell, progress=StopAt(20))
    seen = list(memory["epochs"])
    memory.clear()
    fit = run(network(), state=path, memory=memory, on_event=tell)
    assert seen and memory["epochs"] == list(range(1, len(fit.curves)))


def test_what_cannot_be_trained_is_refused():
    with pytest.raises(InputError, match="no sample"):
        train(network(), squares, Line(0), None, [ADAM])
    with pytest.raises(InputError, match="nothing to validate on"):
        train(network(), squares, Line(), Line(0), [ADAM])
    with pytest.raises(InputError, match="at least one stage"):
        train(network(), squares, Line(), None, [])
    with pytest.raises(InputError, match="lower the learning rate"):
        train(torch.nn.Linear(3, 1), squares, Line(), None, [Stage("sgd", 1e9, 4, 30)])
    with pytest.raises(InputError, match="lr=0, batch=0"):
        Stage(lr=0, batch=0)
    with pytest.raises(InputError, match="Unknown optimizer 'lion'"):
        Stage("lion")


def test_without_validation_the_training_loss_decides():
    model = network()
    done = train(model, squares, Line(), None, [ADAM], device="cpu")
    assert done.best_loss == min(c["train"] for c in done.curves)


def test_prefetched_items_come_in_order_and_errors_arrive():
    from napari_dmri.training.prefetch import prefetched

    assert list(prefetched(range(50), depth=3)) == list(range(50))

    def broken():
        yield 1
        raise InputError("no")

    with pytest.raises(InputError, match="no"):
        list(prefetched(broken()))
    before = threading.active_count()
    endless = prefetched(iter(int, 1))
    next(endless)
    endless.close()
    assert threading.active_count() == before


def test_clipped_gradients_make_no_longer_step_than_the_norm_allows():
    stage = Stage("sgd", lr=1.0, batch=40, epochs=1)
    for clip, longest in ((1e-3, 1e-3), (None, np.inf)):
        model, start = network(), network().state_dict()
        train(model, squares, Line(), None, [stage], device="cpu", clip=clip)
        moved = [(v - start[k]).square().sum() for k, v in model.state_dict().items()]
        assert 0 < float(sum(moved)) ** 0.5 <= longest * (1 + 1e-4)


def test_a_loss_that_is_not_finite_is_said_to_diverge():
    with pytest.raises(Diverged, match="lower the learning rate"):
        train(network(), lambda m, t: squares(m, t) * np.nan, Line(), None, [ADAM], device="cpu")


def test_steps_are_told_of_though_epochs_are_short():
    told = []

    def slow(model, tensors):
        time.sleep(0.02)
        return squares(model, tensors)

    stage = Stage("adam", lr=1e-3, batch=20, epochs=40)
    train(network(), slow, Line(), None, [stage], device="cpu", on_event=told.append)
    steps = [event for event in told if event.kind == "step"]
    assert len(steps) > 1
    assert sum(event.kind == "epoch" for event in told) == 40
