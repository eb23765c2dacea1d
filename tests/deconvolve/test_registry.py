"""The list of methods says what the solvers do, and refuses what they cannot."""

from __future__ import annotations

import inspect
from dataclasses import replace

import numpy as np
import pytest

from napari_dmri.deconvolve.base import ResponseSet
from napari_dmri.deconvolve.csd import SHARPEST
from napari_dmri.deconvolve.registry import METHODS, Method, deconvolve, suggest_method
from napari_dmri.errors import InputError
from napari_dmri.images import Response
from napari_dmri.scan import GradientTable, Scan
from napari_dmri.sphere.sampling import half_sphere


def responses(*bvalues: float) -> ResponseSet:
    """Give responses of sharp white matter, dull grey matter and fast CSF, with b0 first."""
    every = (0.0, *bvalues)
    b = np.array(every)[:, None] / 1000
    wm = np.exp(-0.8 * b) * [3.5, -1.2, 0.3] * [[1, 1, 1]] * np.where(b > 0, 1, [[1, 0, 0]])
    tissues = {
        "wm": Response(100 * wm, every, "wm", 300),
        "gm": Response(100 * 3.6 * np.exp(-0.9 * b), every, "gm", 200),
        "csf": Response(100 * 7 * np.exp(-3 * b), every, "csf", 100),
    }
    return ResponseSet(tissues)


def scan_of(*bvalues: float, shape=(3, 3, 2)) -> Scan:
    directions = half_sphere(30)
    table = GradientTable(
        np.r_[0, 0, np.repeat(bvalues, 30)],
        np.r_[np.zeros((2, 3)), np.tile(directions, (len(bvalues), 1))],
    )
    along = directions[:, 0] ** 2
    signal = [np.full(2, 100.0)]
    signal += [100 * np.exp(-b / 1000 * (0.3 + 1.4 * along)) for b in bvalues]
    data = np.broadcast_to(np.concatenate(signal), (*shape, len(table)))
    return Scan(data.astype(np.float32), np.diag([2.0, 2, 2, 1]), table, name="one fibre")


@pytest.mark.parametrize("method", METHODS.values(), ids=lambda m: m.name)
def test_settings_are_the_solvers_own(method: Method):
    parameters = inspect.signature(method.load()).parameters
    named = {s.name for s in method.settings} | set(method.fixed) | {"device", "progress", "mask"}
    named = (named - {"preset"}).union(*method.presets.values())
    assert named <= set(parameters)
    assert ("shell" in parameters) == bool(method.shell)
    for setting in method.settings:
        if setting.name in ("iterations", "accelerate"):
            assert method.keywords({})[setting.name] == setting.default
        elif setting.name != "preset":
            assert setting.default == parameters[setting.name].default
        assert setting.check(setting.default, method.label) == setting.default
        assert setting.label and setting.tip.endswith(".")


CLASSICAL = [m for m in METHODS.values() if m.family == "classical"]


@pytest.mark.parametrize("method", CLASSICAL, ids=lambda m: m.name)
def test_each_finds_the_fibre_and_gives_the_maps_it_promises(method: Method):
    scan = scan_of(1000, 2000, 3000)
    quick = {"iterations": 60} if "iterations" in method.defaults else {}
    found = deconvolve(scan, method.name, responses(1000, 2000, 3000), device="cpu", **quick)
    assert set(found.maps) == set(method.maps)
    axes = half_sphere(400)
    from napari_dmri.sphere.harmonics import design_matrix

    values = found.fod.coefficients[1, 1, 1] @ design_matrix(axes, found.fod.order).T
    assert abs(axes[values.argmax()][0]) > 0.98
    assert found.provenance["method"] in METHODS
    assert found.notes and found.volumes and found.voxels == 18


def test_networks_are_listed_and_take_a_model():
    from napari_dmri.deconvolve.shd.presets import PRESETS

    assert [m.name for m in METHODS.values() if m.family == "networks"] == list(PRESETS)
    kept = METHODS["shd-tv"].keywords({"model": "some.safetensors", "mode": "paper"})
    assert kept == {"model": "some.safetensors", "mode": "paper", "method": "shd-tv"}
    with pytest.raises(InputError, match="SHD-TV does not take shell; it takes model, mode"):
        METHODS["shd-tv"].keywords({"shell": "all"})
    with pytest.raises(InputError, match="CSD does not take model"):
        METHODS["csd"].keywords({"model": "some.safetensors"})


def test_the_suggestion_goes_by_shells_and_responses():
    one, three = scan_of(1000), scan_of(1000, 2000, 3000)
    assert suggest_method(one) == "csd"
    assert suggest_method(three) == "msmt-csd"
    only_wm = ResponseSet({"wm": responses(1000, 2000, 3000).wm})
    assert suggest_method(three, only_wm) == "csd"


def test_why_a_method_is_not_offered():
    several = METHODS["msmt-csd"]
    assert several.problem(scan_of(1000, 2000).gradients) == ""
    reason = several.problem(scan_of(1000).gradients)
    assert "tells 3 tissues apart" in reason and "this scan has 2 (0, 1000 s/mm²)" in reason
    two = ResponseSet({name: responses(1000)[name] for name in ("wm", "csf")})
    assert several.problem(scan_of(1000).gradients, two) == ""
    assert "tells 3" in several.problem(scan_of(1000).gradients, responses(1000))
    b0 = GradientTable(np.zeros(3), np.zeros((3, 3)))
    assert "no diffusion-weighted shell" in METHODS["csd"].problem(b0)


def test_refusals_are_sentences():
    scan, have = scan_of(1000), responses(1000)
    with pytest.raises(InputError, match="Unknown method 'best'; choose one of csd, msmt-csd"):
        deconvolve(scan, "best", have)
    with pytest.raises(InputError, match="CSD does not take iterations; it takes preset, order"):
        deconvolve(scan, "csd", have, iterations=3)
    with pytest.raises(InputError, match="order = 5 of CSD; choose one of auto, 4, 6"):
        deconvolve(scan, "csd", have, order=5)
    with pytest.raises(InputError, match=r"regulariser = 0 of CSD; expected 1e-06 to 1"):
        deconvolve(scan, "csd", have, regulariser=0)
    with pytest.raises(InputError, match="regulariser = 'much' of CSD is not a number"):
        deconvolve(scan, "csd", have, regulariser="much")
    with pytest.raises(InputError, match="by 3 b-values or more"):
        deconvolve(scan, "msmt-csd", have)


def test_one_response_is_enough_for_csd_and_a_mask_restricts_it():
    scan = scan_of(1000)
    mask = np.zeros(scan.grid, bool)
    mask[1, 1, 1] = True
    found = deconvolve(scan, "csd", responses(1000).wm, mask=mask, shell="all", device="cpu")
    assert found.voxels == 1
    assert np.count_nonzero(found.fod.coefficients[..., 0]) == 1
    again = deconvolve(replace(scan, mask=mask), "csd", responses(1000), device="cpu")
    assert np.allclose(found.fod.coefficients, again.fod.coefficients, atol=1e-6)


def test_a_preset_sets_what_is_left_at_its_default():
    csd = METHODS["csd"]
    left = {**csd.defaults, "shell": None}
    sharpest = csd.keywords({**left, "preset": "sharpest"})
    assert sharpest == {**SHARPEST, "regulariser": 1e-3}
    mixed = csd.keywords({**left, "preset": "sharpest", "order": 10, "regulariser": 0.01})
    assert mixed == {**SHARPEST, "order": 10, "regulariser": 0.01}
    assert csd.keywords({"preset": "standard"}) == csd.keywords({})
    with pytest.raises(InputError, match="preset = best of CSD; choose one of standard, sharpest"):
        csd.keywords({"preset": "best"})
    scan = scan_of(1000, 3000, shape=(2, 1, 1))
    found = deconvolve(scan, "csd", responses(1000, 3000), preset="sharpest", device="cpu")
    assert found.fod.order == 16 and len(found.volumes) == 60
    assert csd.forecast(1000, {"preset": "sharpest"}) > csd.forecast(1000)


@pytest.mark.parametrize("name", ["rumba", "rumba-tv"])
def test_results_are_called_as_their_method_is(name):
    scan = scan_of(1000, 3000, shape=(2, 1, 1))
    found = deconvolve(scan, name, responses(1000, 3000), iterations=2, device="cpu")
    assert METHODS[name].label == {"rumba": "RUMBA-SD", "rumba-tv": "RUMBA-TV"}[name]
    assert METHODS[name].label in found.fod.name


def test_rumba_is_accelerated_unless_asked_otherwise():
    for name in ("rumba", "rumba-tv"):
        usual = METHODS[name].keywords({})
        assert (usual["iterations"], usual["accelerate"]) == (1200, True)
        assert not METHODS[name].keywords({"accelerate": False})["accelerate"]


def test_the_forecast_follows_voxels_order_and_iterations():
    quick = METHODS["csd"]
    assert quick.forecast(1000) == pytest.approx(quick.forecast(1000, {"order": 12}))
    assert quick.forecast(1000, {"order": 8}) < quick.forecast(1000) / 4
    slow = METHODS["rumba"]
    assert slow.forecast(2000) == pytest.approx(2 * slow.forecast(1000))
    assert slow.forecast(1000, {"accelerate": False}) > 5 * slow.forecast(1000)
    assert slow.forecast(1000, {"iterations": 4800}) == pytest.approx(2 * slow.forecast(1000))
