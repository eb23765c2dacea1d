"""Maps by name, their cache, and differences with guards near zero."""

from __future__ import annotations

import numpy as np
import pytest

from napari_dmri.compare import maps
from napari_dmri.errors import InputError
from napari_dmri.images import ScalarImage

AFFINE = np.eye(4)


def image(values, name="A", units="mm²/s", affine=AFFINE) -> ScalarImage:
    return ScalarImage(np.asarray(values, np.float32).reshape(-1, 1, 1), affine, name, units)


@pytest.mark.parametrize("name", [m for m in maps.MAPS if m != "volume"])
def test_every_map_has_the_scan_s_grid_units_and_provenance(scan, name):
    made = maps.compute_map(scan, name)
    assert made.shape == scan.grid
    assert made.data.dtype == np.float32
    assert np.isfinite(made.data).all()
    assert made.units == maps.MAP_INFO[name].units
    assert made.name == f"A {name}"
    assert made.provenance["versions"]


def test_maps_have_their_known_values(scan):
    truth = scan.metadata["truth"]
    md = maps.compute_map(scan, "MD").data
    np.testing.assert_allclose(md[truth == 2], 0.8e-3, rtol=1e-3)
    np.testing.assert_allclose(maps.compute_map(scan, "b0").data[truth == 1], 600, rtol=1e-6)
    ad = maps.compute_map(scan, "AD").data
    np.testing.assert_allclose(ad[truth == 1], 1.7e-3, rtol=1e-3)


def test_a_volume_is_read_as_it_is(scan):
    made = maps.compute_map(scan, "volume", volume=5)
    np.testing.assert_array_equal(made.data, scan.data[..., 5])
    assert made.units == "a.u."


def test_the_cache_keeps_one_fit_for_several_maps(scan, monkeypatch):
    from napari_dmri.signal import tensor

    calls = []
    fit = tensor.fit_tensor

    def counted(*args, **kwargs):
        calls.append(1)
        return fit(*args, **kwargs)

    monkeypatch.setattr(tensor, "fit_tensor", counted)
    cache = maps.MapCache()
    for name in ("FA", "MD", "FA"):
        maps.compute_map(scan, name, cache=cache)
    assert len(calls) == 1
    cache.forget(scan)
    maps.compute_map(scan, "FA", cache=cache)
    cache.forget()
    maps.compute_map(scan, "FA", cache=cache)
    assert len(calls) == 3


def test_common_order_is_that_of_the_poorer_scan(make_scan):
    assert maps.common_order([make_scan(count=30), make_scan(count=12, name="B")]) == 2


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"name": "kurtosis"}, "Unknown map 'kurtosis'"),
        ({"name": "volume"}, "no volume was given"),
        ({"name": "volume", "volume": 99}, "volume 99"),
        ({"name": "RISH4", "order": 2}, "order 4 .* order 2"),
    ],
)
def test_maps_that_cannot_be_made_are_refused_in_words(scan, kwargs, words):
    with pytest.raises(InputError, match=words):
        maps.compute_map(scan, **kwargs)


def test_difference_percent_and_ratio_have_their_values_and_units():
    a, b = image([2, 3, 5]), image([1, 4, 5], "B")
    assert maps.difference(a, b).data.ravel().tolist() == [1, -1, 0]
    assert maps.difference(a, b).units == "mm²/s"
    assert maps.difference(a, b).name == "A − B"
    percent = maps.difference(a, b, "percent")
    assert percent.data.ravel().tolist() == [100, -25, 0]
    assert percent.units == "%"
    ratio = maps.difference(a, b, "ratio")
    np.testing.assert_allclose(ratio.data.ravel(), [2, 0.75, 1])
    assert ratio.units == ""


def test_a_baseline_near_zero_is_undefined_and_counted():
    a, b = image([2, 2, 2, 0]), image([1, 1e-9, 2, 0], "B")
    percent = maps.difference(a, b, "percent")
    assert np.isnan(percent.data.ravel()).tolist() == [False, True, False, True]
    assert percent.provenance["undefined"] == 1
    assert np.isnan(maps.difference(a, image([0, 0, 0, 0]), "ratio").data).all()


def test_other_grids_and_modes_are_refused():
    a = image([1, 2])
    with pytest.raises(InputError, match="2 x 1 x 1 voxels and B 3 x 1 x 1"):
        maps.difference(a, image([1, 2, 3], "B"))
    with pytest.raises(InputError, match="affines that differ by 1"):
        maps.difference(a, image([1, 2], "B", affine=np.diag([2.0, 1, 1, 1])))
    with pytest.raises(InputError, match="Unknown comparison 'log'"):
        maps.difference(a, a, "log")
