"""A fit to one scan: exact resume, previews that disturb nothing, collapse, refusals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.deconvolve.shd.conftest import GRID, make_scan

from napari_dmri.deconvolve.base import ResponseSet
from napari_dmri.deconvolve.shd import running as module
from napari_dmri.deconvolve.shd.fit import (
    Collapsed,
    choose_others,
    fit_to_scan,
    forecast_fit,
)
from napari_dmri.deconvolve.shd.live import Live, Preview
from napari_dmri.deconvolve.shd.running import read_settings
from napari_dmri.errors import Cancelled, InputError
from napari_dmri.training.parts import Event, Switch

pytestmark = pytest.mark.usefixtures("tiny")


def run(scan, responses, method="shd-s-tv", **more):
    return fit_to_scan(scan, responses, method, device="cpu", **more)


def same(a, b) -> bool:
    pairs = zip(a.network.state_dict().values(), b.network.state_dict().values(), strict=True)
    return all(torch.equal(x, y) for x, y in pairs)


@pytest.fixture(scope="module")
def fitted(responses):
    from tests.deconvolve.shd.conftest import make_tiny

    from napari_dmri.deconvolve.shd import presets

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(presets, "preset", make_tiny)
        return run(make_scan(), responses)


class StopAt:
    """A progress that cancels at its n-th call with a step in it."""

    def __init__(self, n):
        self.left = n

    def __call__(self, fraction, text):
        assert 0 <= fraction <= 1
        self.left -= text.startswith("epoch")
        if self.left < 0:
            raise Cancelled


def test_a_fit_gives_fods_maps_a_model_and_its_card(fitted, scan):
    found, card = fitted.deconvolution, fitted.model.card
    assert found.fod.shape == (*GRID, 15) and set(found.maps) == {"residual", "gm", "csf"}
    assert found.voxels == int(scan.mask.sum())
    assert found.provenance["parameters"]["mode"] == card["mode"] == "tiled"
    assert found.provenance["inputs"]["model"]["sha256"] == fitted.model.sha256
    assert card["trained_from"] == "scan" and card["training"][0]["sha256"]
    assert card["bvalues"] == [0, 1000, 3000] and card["tissues"] == ["wm", "gm", "csf"]
    assert [entry["epoch"] for entry in fitted.curves] == [0, 1, 2, 3, 4]
    assert fitted.curves[-1]["train"] < fitted.curves[1]["train"]
    assert fitted.curves[-1]["validation"] < fitted.curves[0]["validation"]
    assert "trained on this scan" in found.notes[0]


def test_the_residual_is_what_is_left_of_the_signal(fitted, scan, responses):
    from napari_dmri.deconvolve.shd.inputs import prepare

    prepared = prepare(scan, responses, others=("gm", "csf"), degree=4)
    fod = fitted.deconvolution.fod.coefficients[4, 3, 2]
    signal = prepared.forward["wm"] @ fod
    for tissue in ("gm", "csf"):
        amount = fitted.deconvolution.maps[tissue].data[4, 3, 2]
        signal = signal + prepared.forward[tissue][:, 0] * amount
    left = np.sqrt(np.mean((signal - prepared.signal[4, 3, 2]) ** 2)) / prepared.b0[4, 3, 2]
    assert np.isclose(fitted.deconvolution.maps["residual"].data[4, 3, 2], left, rtol=1e-4)


def test_the_same_seed_gives_the_same_weights_and_previews_disturb_nothing(fitted, scan, responses):
    shown, told = [], []
    before = torch.get_rng_state()
    again = run(scan, responses, on_preview=shown.append, on_event=told.append,
                preview_slice=lambda: (0, 3), preview_every=0.0)  # fmt: skip
    assert torch.equal(before, torch.get_rng_state())
    assert same(fitted.model, again.model)
    assert np.array_equal(
        fitted.deconvolution.fod.coefficients, again.deconvolution.fod.coefficients
    )
    assert all(isinstance(event, Event) for event in told)
    assert not same(fitted.model, run(scan, responses, seed=1).model)
    for preview in shown:  # a step must last long enough for one
        assert (preview.axis, preview.index) == (0, 3)


@pytest.mark.parametrize("method", ["shd-s-tv", "shd"])
def test_a_preview_is_the_slice_of_the_prediction_now(tiny, scan, responses, method):
    from napari_dmri.deconvolve.shd.inputs import prepare
    from napari_dmri.deconvolve.shd.network import build_network
    from napari_dmri.deconvolve.shd.predict import predict_network
    from napari_dmri.deconvolve.shd.samples import FodPatches, PatchStore

    chosen = tiny(method)
    prepared = prepare(scan, responses, others=("csf",), degree=4)
    store = PatchStore(("csf",))
    store.add(prepared)
    network = build_network(chosen.architecture, 3, 1, seed=0).train()
    shown: list[Preview] = []
    live = Live(chosen, prepared, "cpu", None, shown.append, lambda: (2, 9), 0.0)
    live.begin(network, chosen.plan, FodPatches(store.volumes, chosen.architecture.patch))
    state = {k: v.clone() for k, v in network.state_dict().items()}
    live(Event("step", 1, 1, 2, 3, train=0.25))
    (preview,) = shown
    assert (preview.axis, preview.index, preview.loss) == (2, 4, 0.25)  # the last slice there is
    whole = predict_network(
        network, chosen.architecture, prepared, ("csf",), mode=chosen.mode, device="cpu", core=4
    )
    assert preview.coefficients.shape == (7, 6, 15) and preview.others.shape == (7, 6, 1)
    assert np.allclose(preview.coefficients, whole.coefficients[:, :, 4], atol=1e-4)
    assert network.training
    assert all(torch.equal(v, state[k]) for k, v in network.state_dict().items())
    # While it waits, once for each slice, whatever the time.
    live.next = float("inf")
    for wanted in (9, 9, 2, 2):
        live.slice = lambda wanted=wanted: (2, wanted)
        live(Event("pause", 1, 1, 2, 3, train=0.25))
    assert [p.index for p in shown] == [4, 2] and shown.pop().loss == 0.25
    if method == "shd":
        live.most, live.next = 10, 0.0
        live(Event("step", 1, 1, 2, 3, train=0.25))
        there = (shown[1].coefficients != 0).any(-1)
        assert 0 < there.sum() <= 12


@pytest.mark.parametrize("calls", [2, 7])
def test_a_fit_that_was_stopped_goes_on_to_the_same_bits(tmp_path, fitted, scan, responses, calls):
    state = tmp_path / "state.safetensors"
    with pytest.raises(Cancelled):
        run(scan, responses, state=state, progress=StopAt(calls))
    assert state.is_file() and read_settings(state)["attempt"] == 0
    found = run(scan, responses, state=state)
    assert same(fitted.model, found.model) and found.curves == fitted.curves
    with pytest.raises(InputError, match=r"other settings \(seed: 0 then, 5 now\)"):
        run(scan, responses, state=state, seed=5)
    with pytest.raises(InputError, match=r"other settings \(minutes: None then, 1 now\)"):
        run(scan, responses, state=state, minutes=1)


def test_a_fit_that_was_killed_goes_on_to_the_same_bits(
    tmp_path, fitted, scan, responses, monkeypatch
):
    from napari_dmri.training import loop

    class Killed(BaseException):
        pass

    real, state = loop.train, tmp_path / "state.safetensors"

    def often(*args, **more):
        return real(*args, every=0.0, **more)

    def die(fraction, text):
        if text.startswith("epoch 3, step 2"):
            raise Killed

    monkeypatch.setattr(loop, "train", often)
    with pytest.raises(Killed):
        run(scan, responses, state=state, progress=die)
    assert same(fitted.model, run(scan, responses, state=state).model)


def test_finishing_early_keeps_the_best_so_far(scan, responses):
    switch = Switch()

    def tell(event):
        switch.finish |= event.kind == "epoch" and event.epoch == 2

    found = run(scan, responses, on_event=tell, switch=switch)
    assert found.model.card["outcome"]["ended_by_hand"]
    assert len(found.curves) == 3 and found.deconvolution.voxels


def test_a_collapse_is_told_and_begun_again_at_a_lower_rate(tmp_path, scan, responses, monkeypatch):
    from napari_dmri.deconvolve.shd.collapse import Watch

    def collapsed(self, *_):
        rate.append(1)
        return "all voxels have the same fODF" if len(rate) == 2 else ""

    rate: list[int] = []
    monkeypatch.setattr(Watch, "look", collapsed)
    told = []
    state = tmp_path / "state.safetensors"
    found = run(scan, responses, on_event=told.append, state=state)
    words = [t for t in told if isinstance(t, str)]
    assert len(words) == 1 and "all voxels have the same fODF" in words[0]
    assert "learning rate of 0.0017" in words[0] and words[0] in found.notes
    assert found.lr == pytest.approx(5e-3 / 3) and len(found.curves) == 5
    assert found.model.card["plan"]["lr"] == found.lr
    # A state of the second beginning is gone on from as such.
    assert read_settings(state)["attempt"] == 1
    assert same(found.model, run(scan, responses, state=state).model)

    monkeypatch.setattr(Watch, "look", lambda *_: "all fODFs are round")
    with pytest.raises(Collapsed, match=r"also after 2 beginnings.*Check the responses"):
        run(scan, responses, retries=1)
    one_shell = scan.select(np.flatnonzero(scan.gradients.bvalues < 2000))
    with pytest.raises(Collapsed, match=r"\. 3 tissues from 2 b-values may be too many: fit 2\."):
        run(one_shell, responses, others=("gm", "csf"), retries=0)


def test_a_loss_that_is_not_finite_is_begun_again_too(scan, responses, monkeypatch):
    from napari_dmri.deconvolve.shd.losses import FodLoss

    calls = []
    real = FodLoss.__call__

    def broken(self, network, tensors):
        calls.extend([1] * torch.is_grad_enabled())
        value = real(self, network, tensors)
        return value * np.nan if len(calls) < 3 else value

    monkeypatch.setattr(FodLoss, "__call__", broken)
    found = run(scan, responses)
    assert found.lr == pytest.approx(5e-3 / 3) and "lower the learning rate" in found.notes[0]


def test_a_step_that_does_not_fit_in_memory_is_said_in_words(scan, responses, monkeypatch):
    from napari_dmri.deconvolve.shd.losses import FodLoss

    def full(self, network, tensors):
        raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(FodLoss, "__call__", full)
    with pytest.raises(InputError, match="a step of 1 patch of 4 voxels an edge; choose the size"):
        run(scan, responses)


def test_the_plan_follows_steps_minutes_and_a_model_to_begin_from(
    scan, responses, fitted, monkeypatch
):
    assert run(scan, responses, steps=6).model.card["outcome"]["steps"] == 6
    monkeypatch.setattr(module, "time_steps", lambda *args: 6.0)
    # The looks at fixed places take their part of the time.
    assert run(scan, responses, minutes=0.6).model.card["outcome"]["steps"] == 4
    tuned = run(scan, responses, start=fitted.model)
    assert tuned.model.card["started_from"] and tuned.lr == pytest.approx(1e-3)
    assert tuned.model.card["outcome"]["steps"] < 12 and not same(tuned.model, fitted.model)
    assert tuned.model.card["outcome"]["best_epoch"] > 0
    with pytest.raises(InputError, match="give one"):
        run(scan, responses, steps=6, minutes=1)
    with pytest.raises(InputError, match="separates wm, gm, csf and wm, csf are asked for"):
        run(scan, responses, start=fitted.model, others=("csf",))
    with pytest.raises(InputError, match=r"is of SHD-S-TV \(shd-s-tv\).*choose shd-s-tv"):
        run(scan, responses, "shd", start=fitted.model)
    with pytest.raises(InputError, match="give a number above 0"):
        run(scan, responses, minutes=-1)


def test_the_time_of_a_step_is_measured_without_a_trace(tiny, scan, responses):
    from napari_dmri.deconvolve.shd.inputs import prepare
    from napari_dmri.deconvolve.shd.samples import PatchStore

    store = PatchStore(("csf",))
    store.add(prepare(scan, responses, others=("csf",), degree=4))
    before = torch.get_rng_state()
    assert module.time_steps(tiny("shd"), store, "cpu", 1) > 0
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("method", ["shd", "rt-esd", "esd", "cnn-tv", "mlp"])
def test_each_kind_of_network_can_be_fitted(scan, responses, method):
    found = run(scan, responses, method, others=("csf",), steps=2)
    assert (found.deconvolution.fod.coefficients[..., 0] > 0)[scan.mask].all()
    assert found.deconvolution.provenance["parameters"]["mode"] == "paper"


def test_every_tissue_with_a_response_is_separated():
    assert choose_others(2, ("wm", "gm", "csf")) == ("gm", "csf")
    assert choose_others(3, ("csf", "wm", "gm")) == ("gm", "csf")
    assert choose_others(2, ("wm", "gm")) == ("gm",)
    assert choose_others(3, ("wm",)) == ()
    assert choose_others(1, ("wm", "gm", "csf")) == ()


def test_one_scan_is_separated_into_as_many_tissues_as_b_values():
    assert choose_others(2, ("wm", "gm", "csf"), one_scan=True) == ("csf",)
    assert choose_others(3, ("csf", "wm", "gm"), one_scan=True) == ("gm", "csf")
    assert choose_others(2, ("wm", "gm"), one_scan=True) == ("gm",)
    assert choose_others(1, ("wm", "gm", "csf"), one_scan=True) == ()


def test_super_resolution_sees_some_volumes_and_explains_all(scan, responses):
    from napari_dmri.deconvolve.shd.inputs import choose_subset

    some = choose_subset(scan.gradients, 10, 3000)
    found = run(scan, responses, others=("csf",), inputs=some, steps=2)
    assert found.model.card["bvalues"] == [0, 3000]
    assert found.deconvolution.volumes == tuple(some)


def test_bad_scans_are_refused_in_words(scan, responses, fitted):
    empty = replace(scan, mask=np.zeros(GRID, bool))
    with pytest.raises(InputError, match="mask"):
        run(empty, responses)
    with pytest.raises(InputError, match="there are responses for wm"):
        run(scan, ResponseSet({"wm": responses["wm"]}), others=("csf",))
    with pytest.raises(InputError, match="Unknown method 'best'"):
        run(scan, responses, "best")
    one_shell = scan.select(np.flatnonzero(scan.gradients.bvalues < 2000))
    with pytest.raises(InputError, match="The model sees shells at b = 0, 1000, 3000"):
        run(one_shell, responses, start=fitted.model)
    tiny_scan = make_scan((1, 2, 1), mask=np.ones((1, 2, 1), bool))
    assert run(tiny_scan, responses, steps=2).deconvolution.voxels == 2


@pytest.mark.parametrize("name", ["shd-s-tv-one-shell", "shd-s-tv-two-shells"])
def test_a_forecast_knows_the_network_that_a_fit_begins_from(name):
    from napari_dmri.deconvolve.shd.shipped import find_model
    from napari_dmri.training.checkpoint import load_card

    card = load_card(find_model(name))
    plain, tuned = (forecast_fit(1000, device="cpu", start=start) for start in (None, card))
    assert tuned.steps == round(0.2 * plain.steps) and tuned.seconds < plain.seconds / 2
    # Larger patches are fewer: as many voxels a step, and as much memory.
    large = {**card, "architecture": {**card["architecture"], "patch": 8}}
    assert forecast_fit(1000, device="cpu", start=large).memory == tuned.memory == plain.memory
    wide = {**card, "architecture": {**card["architecture"], "filters": 64}}
    assert forecast_fit(1000, device="cpu", start=wide).memory > 1.3 * tuned.memory
    slow = forecast_fit(1000, device="cpu", start={**card, "size": "paper"}, size="small")
    assert slow.seconds > tuned.seconds


def test_a_forecast_grows_with_voxels_and_ends_with_the_minutes():
    few, many = forecast_fit(1000, device="cpu"), forecast_fit(100_000, device="cpu")
    assert few.seconds < many.seconds and few.preview_seconds <= many.preview_seconds < few.seconds
    short = forecast_fit(1000, device="cpu", minutes=few.seconds / 240)
    assert short.seconds < few.seconds and short.steps < few.steps
    assert forecast_fit(1000, "shd", size="paper", device="cpu").seconds > few.seconds
    # A tile's voxels share their neighbours, a patch for each voxel does not.
    whole = (
        forecast_fit(10**6, "shd", size="small", mode=m, device="cpu") for m in (None, "tiled")
    )
    patches, tiles = (made.seconds for made in whole)
    assert tiles < patches
    assert few.memory > 2e8
