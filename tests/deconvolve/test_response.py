"""Responses of scans whose tissue is known: analytic answers, invariance, refusals, real scans."""

from __future__ import annotations

import warnings
from dataclasses import replace
from functools import lru_cache
from pathlib import Path  # noqa: TC003

import numpy as np
import pytest

from napari_dmri.deconvolve import response_signals as signals_module
from napari_dmri.deconvolve.response import ALGORITHMS, average_responses, estimate_response
from napari_dmri.deconvolve.response_kernel import kernel_zonal
from napari_dmri.deconvolve.response_signals import read_signals
from napari_dmri.deconvolve.response_voxels import read_voxels
from napari_dmri.errors import Cancelled, DmriWarning, InputError
from napari_dmri.images import Response, ResponseSet
from napari_dmri.io import read_scan
from napari_dmri.phantom.presets import get_scanner
from napari_dmri.phantom.travelling import simulate_subject
from napari_dmri.phantom.truth import responses
from napari_dmri.scan import GradientTable, Scan
from napari_dmri.signal.mask import brain_mask

GRID = (12, 12, 9)
ROOT = np.sqrt(4 * np.pi)
TURN = np.linalg.qr(np.random.default_rng(9).normal(size=(3, 3)))[0]
TURN = TURN * np.sign(np.linalg.det(TURN))


def unit(rng: np.random.Generator, count: int) -> np.ndarray:
    v = rng.normal(size=(count, 3))
    return v / np.linalg.norm(v, axis=1, keepdims=True)


def spread_out(count: int) -> np.ndarray:
    k = np.arange(count) + 0.5
    z, phi = k / count, np.pi * (1 + 5**0.5) * k
    r = np.sqrt(1 - z**2)
    return np.stack([r * np.cos(phi), r * np.sin(phi), z], 1)


def tissues_scan(
    shells: tuple[float, ...] = (1000.0,),
    snr: float = np.inf,
    turn: np.ndarray | None = None,
    tissue: bool = True,
    directions: int = 45,
) -> Scan:
    """Six slices of single fibres, two of grey matter, one of water; b0 is 100, 140 and 300."""
    rng = np.random.default_rng(5)
    turn = np.eye(3) if turn is None else turn
    g = spread_out(directions) @ turn.T
    bvalues = np.concatenate([[0, 0, 0, 0], *(np.full(directions, b) for b in shells)])
    table = GradientTable(bvalues, np.concatenate([np.zeros((4, 3)), *[g] * len(shells)]))
    fibres = (unit(rng, int(np.prod(GRID))) @ turn.T).reshape(*GRID, 3)
    cosine = fibres @ table.directions.T
    data = 100 * np.exp(-1e-3 * bvalues * (0.3 + 1.4 * cosine**2))
    if tissue:
        data[:, :, 6:8] = 140 * np.exp(-0.8e-3 * bvalues)
        data[:, :, 8:] = 300 * np.exp(-3e-3 * bvalues)
    if np.isfinite(snr):
        noise = rng.normal(0, 100 / snr, (2, *data.shape))
        data = np.hypot(data + noise[0], noise[1])
    return Scan(data.astype(np.float32), np.diag([2.0, 2, 2, 1]), table, name="slabs")


def truth(*shells: float) -> np.ndarray:
    rows = np.zeros((1 + len(shells), 6))
    rows[0, 0] = ROOT
    rows[1:] = kernel_zonal(list(shells), 0.0, 1.7, 0.3, 10)
    return 100 * rows


@pytest.mark.parametrize("algorithm", ["fa", "dhollander"])
def test_noise_free_tensors_give_the_analytic_coefficients(algorithm: str) -> None:
    found = estimate_response(tissues_scan((1000.0, 2500.0)), algorithm)
    assert found.wm.bvalues == (0.0, 1000.0, 2500.0)
    np.testing.assert_allclose(found.wm.zonal, truth(1000, 2500), atol=2e-3 * 100 * ROOT)


def test_three_tissues_are_found_with_one_shell_and_several() -> None:
    for shells in ((1000.0,), (700.0, 2000.0)):
        found = estimate_response(tissues_scan(shells, snr=25), "dhollander")
        b = np.array([0.0, *shells])
        grey, water = 140 * np.exp(-0.8e-3 * b), 300 * np.exp(-3e-3 * b)
        np.testing.assert_allclose(found["gm"].zonal[:, 0] / ROOT, grey, rtol=0.02)
        np.testing.assert_allclose(found["csf"].zonal[:, 0] / ROOT, water, atol=2)
        assert found["gm"].order == found["csf"].order == 0
        assert found.voxels is not None
        labels = found.voxels.data
        assert set(np.unique(labels[:, :, :6])) == {0, 1}
        assert set(np.unique(labels[:, :, 6:8])) <= {0, 2}
        assert set(np.unique(labels[:, :, 8])) <= {0, 3}
        assert found.wm.voxels == (labels == 1).sum()


def test_water_as_bright_as_tissue_is_found_and_followed_below_the_noise() -> None:
    scan = tissues_scan((1000.0, 3000.0), snr=25)
    data = np.array(scan.data)
    rng = np.random.default_rng(8)
    clean = 100 * np.exp(-3e-3 * scan.gradients.bvalues)
    noise = rng.normal(0, 4, (2, *data[:, :, 8].shape))
    data[:, :, 8] = np.hypot(clean + noise[0], noise[1])
    water = estimate_response(replace(scan, data=data))["csf"].zonal[:, 0] / ROOT
    assert water[1] == pytest.approx(100 * np.exp(-3), abs=0.6)
    assert water[2] == pytest.approx(100 * np.exp(-9), abs=0.01)


@pytest.mark.parametrize("algorithm", ["auto", "fa", "tournier"])
def test_turning_everything_changes_nothing(algorithm: str) -> None:
    plain = estimate_response(tissues_scan((3000.0,)), algorithm, noise=False)
    turned = estimate_response(tissues_scan((3000.0,), turn=TURN), algorithm, noise=False)
    assert list(plain) == list(turned)
    for tissue in plain:
        a, b = plain[tissue].zonal, turned[tissue].zonal
        np.testing.assert_allclose(a, b, atol=2e-3 * a[-1, 0])


def test_tourniers_selection_finds_single_fibres_among_crossings() -> None:
    scan = tissues_scan((3000.0,), snr=30, tissue=False)
    data = np.array(scan.data)
    data[::2] = (data[::2] + data[::2, ::-1]) / 2
    found = estimate_response(replace(scan, data=data), "tournier")
    assert found.voxels is not None
    assert found.voxels.data[1::2].sum() > 0.9 * found.wm.voxels
    assert "rounds of deconvolution at b=3000" in found.notes[0]
    np.testing.assert_allclose(found.wm.zonal, truth(3000), atol=0.06 * truth(3000)[1, 0])


def test_the_same_scan_gives_the_same_response() -> None:
    scan = tissues_scan(snr=15)
    first, second = estimate_response(scan), estimate_response(scan)
    for tissue in first:
        np.testing.assert_array_equal(first[tissue].zonal, second[tissue].zonal)


def test_no_tissue_is_invented_where_there_is_none() -> None:
    found = estimate_response(tissues_scan((1000.0, 3000.0), snr=20, tissue=False))
    assert list(found) == ["wm"]
    assert any("no grey matter and no CSF was found" in note for note in found.notes)
    error = np.abs(found.wm.zonal - truth(1000, 3000))[1:] / truth(1000, 3000)[1:, :1]
    assert error.max() < 0.03
    with pytest.warns(DmriWarning, match="no grey matter and no CSF"):
        estimate_response(tissues_scan(snr=20, tissue=False), "dhollander")


@lru_cache(maxsize=1)
def brain() -> tuple[Scan, dict[str, np.ndarray]]:
    site = "research_hr"
    made = simulate_subject(4, sites=(site,), size=(64, 76, 6), repeats=False)
    return made.scans[site], responses(made.truth.subject, get_scanner(site))


def test_a_simulated_brain_gives_its_true_responses() -> None:
    scan, true = brain()
    found = estimate_response(scan)
    assert list(found) == ["wm", "gm", "csf"]
    assert found.wm.provenance["simulated"] is True
    for tissue, rows in (("wm", 3), ("gm", 3), ("csf", 2)):
        ours, theirs = (
            found[tissue].zonal[:rows],
            true[tissue][:rows, : found[tissue].order // 2 + 1],
        )
        assert (np.abs(ours - theirs) / theirs[:, :1]).max() < 0.07
        shape = np.abs(ours / ours[0, 0] - theirs / theirs[0, 0]) / (theirs[:, :1] / theirs[0, 0])
        assert shape.max() < 0.03
    kept = estimate_response(scan, spread="keep").wm.zonal
    assert abs(kept[1, 1]) < 0.9 * abs(found.wm.zonal[1, 1])


def test_real_scans_give_plausible_responses(real_data: Path) -> None:
    for name, b in (("philips_achieva_crop", 1000), ("siemens_sagittal", 2000)):
        path = next(p for p in (real_data / name).glob("*.nii.gz") if "mask" not in p.name)
        scan = read_scan(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DmriWarning)
            found = estimate_response(scan, mask=brain_mask(scan))
        assert list(found) == ["wm", "gm", "csf"]
        mean = {t: r.zonal[1, 0] / r.zonal[0, 0] for t, r in found.items()}
        # Mean diffusivities of about 0.7 to 0.9 in tissue; water loses nearly everything.
        assert 0.22 < mean["gm"] < 0.55
        assert 0.25 < mean["wm"] < 0.55
        assert mean["csf"] < 0.1
        shape = found.wm.zonal[1] / found.wm.zonal[1, 0]
        expected = kernel_zonal([b], 0.5, 1.7, 0.85, 4)[0]
        assert shape[1] == pytest.approx((expected / expected[0])[1], abs=0.1)
        assert found["csf"].zonal[0, 0] > 1.3 * found.wm.zonal[0, 0]


def test_air_is_kept_out_without_a_mask() -> None:
    scan = tissues_scan(snr=25)
    whole = np.pad(np.array(scan.data), ((6, 6), (6, 6), (3, 3), (0, 0)))
    noise = np.random.default_rng(3).normal(0, 4, (2, *whole.shape))
    air = whole == 0
    whole[air] = np.hypot(*noise)[air]
    found = estimate_response(replace(scan, data=whole.astype(np.float32)))
    assert any("a brain mask was made" in note for note in found.notes)
    assert found.voxels is not None
    assert not found.voxels.data[air[..., 0]].any()
    expected = truth(1000)
    np.testing.assert_allclose(found.wm.zonal, expected, atol=0.05 * expected[1, 0])


def test_progress_is_told_and_can_cancel() -> None:
    told: list[float] = []
    estimate_response(tissues_scan(), progress=lambda f, _: told.append(f))
    assert told[-1] == 1.0
    assert told == sorted(told)

    def stop(fraction: float, text: str) -> None:
        if fraction > 0.4:
            raise Cancelled

    with pytest.raises(Cancelled):
        estimate_response(tissues_scan(), progress=stop)


def test_voxels_that_cannot_be_used_are_counted() -> None:
    scan = tissues_scan(snr=20)
    data = np.array(scan.data)
    data[0, 0, :3, 5] = np.nan
    data[1, 0, :2] = 0
    mask = np.ones(GRID, bool)
    with pytest.warns(DmriWarning, match="3 voxels with NaN or Inf and 2 without signal") as told:
        found = estimate_response(replace(scan, data=data), mask=mask)
    assert len(told) == 1
    assert np.isfinite(found.wm.zonal).all()
    assert any("5 voxels" in note for note in found.notes)


@pytest.mark.parametrize("algorithm", list(ALGORITHMS))
def test_bad_scans_are_refused_in_words(algorithm: str) -> None:
    scan = tissues_scan()
    with pytest.raises(InputError, match="holds no voxel"):
        estimate_response(scan, algorithm, mask=np.zeros(GRID, bool))
    with pytest.raises(InputError, match=r"mask has shape \(3, 3, 3\)"):
        estimate_response(scan, algorithm, mask=np.ones((3, 3, 3), bool))
    with pytest.raises(InputError, match="no b0 volume"):
        estimate_response(scan.select(np.arange(4, 49)), algorithm)
    with pytest.raises(InputError, match=r"too few directions .*5 at b=1000"):
        estimate_response(scan.select(np.arange(9)), algorithm)
    with pytest.raises(InputError, match=r"too few directions .*none"):
        estimate_response(scan.select(np.arange(4)), algorithm)
    with pytest.raises(InputError, match="no voxel can be used"):
        estimate_response(replace(scan, data=np.full(scan.shape, np.nan, np.float32)), algorithm)
    flat = np.broadcast_to(scan.data[0, 0, 6], scan.shape)
    with pytest.raises(InputError, match=r"None of 1296 voxels has an FA between 0\.2 and 0\.99"):
        estimate_response(replace(scan, data=np.array(flat)), algorithm)


def test_bad_settings_are_refused_in_words() -> None:
    scan = tissues_scan()
    with pytest.raises(InputError, match="Unknown response algorithm 'best'"):
        estimate_response(scan, "best")
    for order in (0, 3, 18):
        with pytest.raises(InputError, match="an even number from 2 to 16"):
            estimate_response(scan, order=order)
    with pytest.raises(InputError, match="'remove' or 'keep'"):
        estimate_response(scan, spread="drop")
    assert estimate_response(scan, order=4).wm.order == 4


def test_noise_alone_has_no_response() -> None:
    rng = np.random.default_rng(0)
    scan = tissues_scan()
    noise = 100 + rng.normal(0, 0.01, scan.shape)
    with pytest.raises(InputError, match=r"has an FA between|has no anisotropy"):
        estimate_response(replace(scan, data=noise.astype(np.float32)))


@pytest.mark.parametrize("algorithm", list(ALGORITHMS))
def test_a_scan_of_background_is_refused_in_words(algorithm: str) -> None:
    scan = tissues_scan((1000.0, 3000.0))
    noise = np.abs(np.random.default_rng(0).normal(0, 10, scan.shape)).astype(np.float32)
    with pytest.raises(InputError, match="does not rise above the noise"):
        estimate_response(replace(scan, data=noise), algorithm)


def test_a_response_from_a_few_voxels_is_warned_of() -> None:
    mask = np.zeros(GRID, bool)
    mask[2, 2, 2] = True
    with pytest.warns(DmriWarning, match="comes from 1 voxel, and fewer than 20"):
        found = estimate_response(tissues_scan(), mask=mask)
    assert found.notes[0] == "White matter: 1 voxel with one fibre direction."


@pytest.mark.parametrize("layout", ["C", "F"])
def test_signals_are_those_of_the_voxels_in_any_layout(layout: str) -> None:
    scan = tissues_scan()
    mask = np.random.default_rng(3).random(GRID) > 0.4
    voxels = read_voxels(replace(scan, data=np.array(scan.data, order=layout)), mask)
    several = [np.array([9, 4, 70]), np.array([4, 11])]
    signals = read_signals(replace(scan, data=np.array(scan.data, order=layout)), voxels, several)
    assert signals.rows.tolist() == [4, 9, 11, 70]
    wanted = scan.data[mask][[70, 4]]
    np.testing.assert_array_equal(signals.of(np.array([70, 4])), wanted)
    small = signals.as_scan(np.array([70, 4]), np.array([0, 5]))
    np.testing.assert_array_equal(small.data[:, 0, 0], wanted[:, [0, 5]])


@pytest.mark.parametrize("algorithm", list(ALGORITHMS))
def test_the_scan_is_read_a_few_times_however_often_it_is_looked_at(
    algorithm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = []
    plain = signals_module.blocks

    def counted(scan: Scan, *more: object) -> object:
        reads.append(scan)
        return plain(scan, *more)

    monkeypatch.setattr(signals_module, "blocks", counted)
    estimate_response(tissues_scan((1000.0, 2500.0), snr=25), algorithm)
    assert len(reads) == 1


@pytest.mark.parametrize("algorithm", ["auto", "fa"])
def test_grey_matter_alone_has_no_fibres_though_its_noise_has_fa(algorithm: str) -> None:
    scan = tissues_scan(directions=30)
    rng = np.random.default_rng(1)
    clean = np.tile(100 * np.exp(-0.8e-3 * scan.gradients.bvalues), (20, 20, 12, 1))
    noise = rng.normal(0, 10, (2, *clean.shape))
    data = np.hypot(clean + noise[0], noise[1])
    with pytest.raises(InputError, match="one half of the volumes confirms"):
        estimate_response(Scan(data.astype(np.float32), scan.affine, scan.gradients), algorithm)


def test_noise_as_high_as_scans_have_it_is_no_reason_to_refuse() -> None:
    found = estimate_response(tissues_scan(snr=8, directions=15), "fa")
    assert found.wm.zonal[1, 1] < -0.2 * found.wm.zonal[1, 0]


def made(scale: float, order: int = 2, bvalue: float = 1000, gm: bool = False) -> ResponseSet:
    zonal = np.zeros((2, order // 2 + 1))
    zonal[0, 0], zonal[1] = 10 * scale, np.linspace(4, 1, order // 2 + 1) * scale
    tissues = {"wm": Response(zonal, (0, bvalue), "wm", 5)}
    if gm:
        tissues["gm"] = Response([[12.0], [5.0]], (0, bvalue), "gm", 3)
    return ResponseSet(tissues)


def test_averages_are_means_over_those_that_have_an_order() -> None:
    mean = average_responses([made(1), made(1.2, order=4, bvalue=1010), made(1.1, gm=True)])
    np.testing.assert_allclose(mean.wm.zonal[0], [11, 0, 0])
    np.testing.assert_allclose(mean.wm.zonal[1], [4.4, (1 + 2.5 * 1.2 + 1.1) / 3, 1.2])
    assert mean.wm.voxels == 15
    assert mean.wm.bvalues == (0.0, 1003.0)
    np.testing.assert_allclose(mean["gm"].zonal[:, 0], [12, 5])
    assert any("gm: 1 of 3" in note for note in mean.notes)
    one = made(1)
    assert average_responses([one]) is one


def test_averages_of_different_shells_or_scales_are_refused_or_told() -> None:
    with pytest.raises(InputError, match="different shells"):
        average_responses([made(1), made(1, bvalue=2000)])
    with pytest.raises(InputError, match="no responses to average"):
        average_responses([])
    with pytest.warns(DmriWarning, match="differ in scale"):
        average_responses([made(1), made(2)])
