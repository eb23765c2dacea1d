"""A scan as a network takes it."""

from __future__ import annotations

import numpy as np
import pytest
from tests.deconvolve.sticks import crossing_signal, isotropic, response, scan_of, table, units

from napari_dmri.deconvolve.shd.inputs import check_others, choose_subset, prepare
from napari_dmri.deconvolve.shells import forward_matrix
from napari_dmri.errors import DmriWarning, InputError
from napari_dmri.images import Response, ResponseSet
from napari_dmri.scan import GradientTable, Scan
from napari_dmri.sphere.harmonics import design_matrix

ROOT = np.sqrt(4 * np.pi)
GRADIENTS = table()
RESPONSES = ResponseSet(
    {"wm": response(), "gm": isotropic("gm", 0.8e-3), "csf": isotropic("csf", 3e-3)}
)
SHAPE = (3, 4, 2)


def a_scan(order: str = "C", gradients: GradientTable = GRADIENTS, **more: object) -> Scan:
    fibres = units(24, seed=1)[:, None]
    data = crossing_signal(gradients, fibres, np.linspace(0.5, 1.5, 24)[:, None])
    data = np.asarray(data.reshape(*SHAPE, -1), np.float32, order=order)
    return Scan(data, np.eye(4), gradients, **more)


@pytest.mark.parametrize("order", ["C", "F"])
def test_values_are_in_units_of_white_matters_b0(order: str) -> None:
    scan = a_scan(order)
    p = prepare(scan, RESPONSES, others=("csf",))
    assert p.scale == pytest.approx(100, rel=1e-6)
    np.testing.assert_allclose(p.signal, scan.data / 100, rtol=1e-6)
    np.testing.assert_allclose(p.b0.reshape(-1), np.linspace(0.5, 1.5, 24), rtol=1e-5)
    assert p.coefficients.shape == (*SHAPE, 3, 45)
    assert p.coefficients.dtype == p.signal.dtype == p.b0.dtype == np.float32
    assert p.bvalues == (0, 1000, 3000) and p.orders == (0, 6, 8)
    np.testing.assert_allclose(p.coefficients[..., 0, 0], ROOT * p.b0, rtol=1e-5)
    assert not p.coefficients[..., 0, 1:].any() and not p.coefficients[..., 1, 28:].any()
    basis = design_matrix(GRADIENTS.directions[35:], 8)
    fitted = np.linalg.lstsq(basis, p.signal[..., 35:].reshape(24, -1).T)[0].T
    np.testing.assert_allclose(p.coefficients[..., 2, :].reshape(24, -1), fitted, atol=1e-5)
    assert p.mask.all() and p.grid == SHAPE


@pytest.mark.parametrize("others", [(), ("csf",), ("gm",), ("gm", "csf")])
@pytest.mark.parametrize("counts", [(3, 32, 64), (3, 0, 64)])
def test_forward_matrices_are_those_of_the_responses(
    others: tuple[str, ...], counts: tuple[int, int, int]
) -> None:
    b = np.repeat((0.0, 1000.0, 3000.0), counts)
    keep = np.isin(GRADIENTS.bvalues, b)
    gradients = GRADIENTS.select(np.flatnonzero(keep))
    p = prepare(a_scan(gradients=gradients), RESPONSES, others=others, degree=18)
    assert p.tissues == ("wm", *others) and p.others == others
    every = np.arange(len(gradients))
    wm = forward_matrix(gradients, every, RESPONSES["wm"], 18) / 100
    np.testing.assert_allclose(p.forward["wm"], wm, atol=1e-6)
    assert p.forward["wm"].shape[1] == 190 and not p.forward["wm"][:, 45:].any()
    for i, tissue in enumerate(others):
        plain = forward_matrix(gradients, every, RESPONSES[tissue], 0) / 100
        np.testing.assert_allclose(p.forward_others[:, i], plain[:, 0], rtol=1e-6)
    assert p.forward_others.shape == (len(gradients), len(others))
    np.testing.assert_allclose(p.kernels, [ROOT] * (1 + len(others)), rtol=1e-6)
    told = any("not determined" in note for note in p.notes)
    assert told == (len(others) + 1 > len(gradients.shells))


def test_a_models_shells_are_matched_and_the_others_left_out_with_a_word() -> None:
    with pytest.warns(DmriWarning, match="32 at b=1000"):
        p = prepare(a_scan(), RESPONSES, bvalues=(0, 2960))
    assert p.bvalues == (0, 2960) and p.coefficients.shape[3] == 2
    assert p.volumes.tolist() == [0, 1, 2, *range(35, 99)]
    assert p.signal.shape[3] == len(p.forward["wm"]) == 67
    with pytest.raises(InputError, match="nothing within 100 of 2000"):
        prepare(a_scan(), RESPONSES, bvalues=(0, 2000))


def test_super_resolution_sees_few_and_explains_all() -> None:
    chosen = choose_subset(GRADIENTS, 29, 1000)
    p = prepare(a_scan(), RESPONSES, inputs=chosen)
    assert p.bvalues == (0, 1000) and p.orders == (0, 6)
    assert p.inputs.tolist() == chosen.tolist()
    assert p.signal.shape[3] == 99
    alone = prepare(a_scan().select(chosen), RESPONSES)
    np.testing.assert_allclose(p.coefficients, alone.coefficients, atol=1e-6)
    np.testing.assert_allclose(p.b0, alone.b0, rtol=1e-6)


def test_the_mask_only_says_what_counts() -> None:
    mask = np.zeros(SHAPE, bool)
    mask[1:, 2] = True
    p, whole = prepare(a_scan(mask=mask), RESPONSES), prepare(a_scan(), RESPONSES)
    np.testing.assert_array_equal(p.mask, mask)
    np.testing.assert_array_equal(p.coefficients, whole.coefficients)


def test_broken_voxels_are_counted_and_left_out() -> None:
    data = np.array(a_scan().data)
    data[0, 0, 0, 7], data[1, 1, 1, :3] = np.nan, 0
    scan = Scan(data, np.eye(4), GRADIENTS, mask=np.ones(SHAPE, bool))
    with pytest.warns(DmriWarning, match="1 voxels hold NaN or Inf and 1 voxels have b0 <= 0"):
        p = prepare(scan, RESPONSES)
    assert p.mask.sum() == 22 and not p.mask[0, 0, 0] and not p.mask[1, 1, 1]
    assert np.isfinite(p.coefficients).all() and np.isfinite(p.signal).all()


def test_without_the_signal_nothing_else_changes() -> None:
    p = prepare(a_scan(), RESPONSES, keep_signal=False)
    assert p.signal.shape == (*SHAPE, 0)
    np.testing.assert_array_equal(p.coefficients, prepare(a_scan(), RESPONSES).coefficients)


def test_responses_of_other_magnitudes_are_told_of_or_refused() -> None:
    bright = {t: Response(r.zonal * 5, r.bvalues, t) for t, r in RESPONSES.items()}
    with pytest.warns(DmriWarning, match=r"median b0 is 100 and .* 500, a factor of 0.2"):
        prepare(a_scan(), ResponseSet(bright))
    raw = {t: Response(r.zonal * 200, r.bvalues, t) for t, r in RESPONSES.items()}
    with pytest.raises(InputError, match="estimate the responses from this scan"):
        prepare(a_scan(), ResponseSet(raw))


def test_what_is_missing_is_said() -> None:
    with pytest.raises(InputError, match="estimate csf from this scan"):
        prepare(a_scan(), response(), others=("csf",))
    with pytest.raises(InputError, match="mask holds no voxel"):
        prepare(a_scan(mask=np.zeros(SHAPE, bool)), RESPONSES)
    with pytest.raises(InputError, match="no voxel can be used"):
        prepare(scan_of(np.zeros((2, 99)), GRADIENTS), RESPONSES)
    weighted = a_scan().select(np.arange(3, 99))
    with pytest.raises(InputError, match="no b0 volume"):
        prepare(weighted, RESPONSES)
    with pytest.raises(InputError, match="None of the volumes that go in is a b0"):
        prepare(a_scan(), RESPONSES, inputs=[5, 6, 7])
    with pytest.raises(InputError, match="the scan has 0 to 98"):
        prepare(a_scan(), RESPONSES, inputs=[0, 99])
    with pytest.raises(InputError, match="at most 5 directions of a shell are seen"):
        prepare(a_scan().select(np.arange(8)), RESPONSES)
    lost = Response(response().zonal[1:], (1000, 3000), "wm")
    with pytest.raises(InputError, match="no row for b = 0"):
        prepare(a_scan(), lost)
    flat = Response(np.array([[300.0, 0], [200, 0], [100, 0]]), (0, 1000, 3000), "wm")
    with pytest.raises(InputError, match="same in all directions"):
        prepare(a_scan(), flat)
    with pytest.raises(InputError, match="Unknown rule 'best'"):
        prepare(a_scan(), RESPONSES, rule="best")


@pytest.mark.parametrize("others", [("wm",), ("csf", "csf"), ("bone",)])
def test_other_tissues_are_gm_and_csf(others: tuple[str, ...]) -> None:
    with pytest.raises(InputError, match="choose of gm and csf"):
        check_others(others)
    assert check_others(("csf", "gm")) == ("gm", "csf")
    assert check_others("csf") == ("csf",)
