"""Apply a trained network: by file, by name, the one of the package, and refusals in words."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tests.deconvolve.shd.conftest import GRID, make_scan, make_tiny

from napari_dmri.deconvolve import deconvolve
from napari_dmri.deconvolve.base import ResponseSet
from napari_dmri.deconvolve.shd import apply, shipped
from napari_dmri.deconvolve.shd.apply import no_model, shd
from napari_dmri.deconvolve.shd.model import ShdModel
from napari_dmri.errors import DmriWarning, InputError


@pytest.fixture(scope="module")
def model() -> ShdModel:
    return ShdModel.new(
        make_tiny("shd-s-tv"), others=("csf",), bvalues=(0, 1000, 3000), simulated=True
    )


@pytest.fixture
def package(monkeypatch, tmp_path, model):
    """Let the package come with one model."""
    model.save(tmp_path / "small-two-shells")
    monkeypatch.setattr(shipped, "FOLDER", tmp_path)
    return tmp_path


@pytest.fixture
def simulated():
    return make_scan(metadata={"simulated": True})


def test_a_model_is_applied_by_itself_its_file_and_its_name(package, simulated, responses, model):
    path = package / "small-two-shells.safetensors"
    found = [
        deconvolve(simulated, "shd-s-tv", responses, model=given, device="cpu")
        for given in (model, path, "small-two-shells", None)
    ]
    for one in found:
        assert np.array_equal(one.fod.coefficients, found[0].fod.coefficients)
        assert one.provenance["inputs"]["model"]["sha256"] == model.sha256
    assert set(found[0].maps) == {"residual", "csf"}
    assert found[0].provenance["method"] == "shd-s-tv"
    assert found[0].provenance["parameters"]["mode"] == "tiled"
    assert found[0].fod.shape == (*GRID, 15) and found[0].voxels == simulated.mask.sum()


def test_a_network_takes_another_scheme_than_its_own(package, responses, model):
    other = make_scan(counts=(2, 30, 20), metadata={"simulated": True})
    found = deconvolve(other, "shd-s-tv", responses, device="cpu")
    assert (found.fod.coefficients[..., 0] > 0)[other.mask].all()


def test_a_mask_restricts_it(package, simulated, responses):
    mask = np.zeros(GRID, bool)
    mask[3, 3, 3] = True
    found = deconvolve(simulated, "shd-s-tv", responses, mask=mask, device="cpu")
    assert found.voxels == 1 and np.count_nonzero(found.fod.coefficients[..., 0]) == 1


def test_what_is_around_a_mask_is_seen_where_the_scan_has_its_own(simulated, responses, model):
    mask = np.zeros(GRID, bool)
    mask[2:4, 2:4, 2:4] = True
    given = {"method": "shd-s-tv", "model": model, "device": "cpu"}
    whole = shd(simulated, responses, **given).fod.coefficients

    def error(found):
        shape, true = found[mask][:, 1:], whole[mask][:, 1:]
        return np.linalg.norm(shape - true) / np.linalg.norm(true)

    part = shd(simulated, responses, mask=mask, **given).fod
    assert error(part.coefficients) < 1e-3
    assert np.array_equal(part.mask, mask) and not part.coefficients[~mask].any()
    named = deconvolve(simulated, "shd-s-tv", responses, model=model, mask=mask, device="cpu")
    assert np.array_equal(named.fod.coefficients, part.coefficients)
    # A mask alone is all that there is: voxels outside it are filled from within.
    alone = shd(simulated.with_mask(mask), responses, **given).fod.coefficients
    assert error(alone) > 1e-2
    outside = ~np.asarray(simulated.mask)
    if outside.any():
        with pytest.raises(InputError, match=r"None of the \d+ voxels of the mask"):
            shd(simulated, responses, mask=outside, **given)


def test_what_does_not_fit_is_refused_with_the_remedy(package, simulated, responses, model):
    with pytest.raises(InputError, match=r"No trained model of shd comes with this program .*fit"):
        deconvolve(simulated, "shd", responses, device="cpu")
    low = simulated.select(np.flatnonzero(simulated.gradients.bvalues < 2000))
    with pytest.raises(InputError, match=r"has the scan's b = 0, 1000 .*deconvolve fit SCAN"):
        deconvolve(low, "shd-s-tv", responses, device="cpu")
    with pytest.raises(InputError, match="The model sees shells"):
        deconvolve(low, "shd-s-tv", responses, model=model, device="cpu")
    with pytest.raises(InputError, match=r"The model is of SHD-S-TV .*shd is asked for"):
        deconvolve(simulated, "shd", responses, model=model, device="cpu")
    with pytest.raises(InputError, match="No model is called 'other'"):
        deconvolve(simulated, "shd-s-tv", responses, model="other", device="cpu")
    with pytest.raises(InputError, match="No model file at"):
        deconvolve(simulated, "shd-s-tv", responses, model="other.safetensors", device="cpu")
    with pytest.raises(InputError, match="no response of CSF"):
        shd(simulated, ResponseSet({"wm": responses["wm"]}), model=model, device="cpu")
    with pytest.raises(InputError, match="runs in tiled mode only"):
        shd(simulated, responses, model=model, mode="paper", device="cpu")
    empty = replace(simulated, mask=np.zeros(GRID, bool))
    with pytest.raises(InputError, match="mask"):
        shd(empty, responses, model=model, device="cpu")


def test_real_scans_are_warned_of_models_that_saw_simulations_alone(responses, model):
    with pytest.warns(DmriWarning, match="trained on simulated scans"):
        shd(make_scan(), responses, model=model, device="cpu")


def test_a_package_without_models_says_so(monkeypatch, tmp_path, simulated):
    monkeypatch.setattr(shipped, "FOLDER", tmp_path)
    words = no_model("shd-s-tv", simulated.gradients)
    assert words.startswith("No trained model of shd-s-tv comes with this program: fit one")
    assert apply.no_model is no_model
