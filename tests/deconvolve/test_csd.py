"""Constrained spherical deconvolution of one shell or of all."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import numpy as np
import pytest
from tests.deconvolve.sticks import cosine, crossing_signal, flat, response, scan_of, table, units

from napari_dmri import csd
from napari_dmri.deconvolve.base import ResponseSet
from napari_dmri.deconvolve.csd import SHARPEST, choose_hardness
from napari_dmri.deconvolve.shells import forward_matrix
from napari_dmri.errors import Cancelled, DmriWarning, InputError
from napari_dmri.images import Response
from napari_dmri.scan import Scan
from napari_dmri.sphere.harmonics import degrees, design_matrix
from napari_dmri.sphere.sampling import half_sphere

if TYPE_CHECKING:
    from pathlib import Path

GRADIENTS = table()
QUIET = {"device": "cpu"}


def _crossings(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return fibres (n, 2, 3), at least 45 degrees apart, and their weights."""
    pool = units(6 * count, seed).reshape(-1, 2, 3)
    apart = np.abs((pool[:, 0] * pool[:, 1]).sum(1)) < np.cos(np.deg2rad(45))
    return pool[apart][:count], np.tile([0.6, 0.4], (count, 1))


def _lobes(fibres: np.ndarray, weights: np.ndarray, order: int, blur: float) -> np.ndarray:
    """Return non-negative fODFs (n, C): deltas blurred by heat on the sphere."""
    decay = np.exp(-blur * degrees(order) * (degrees(order) + 1))
    n, k, _ = fibres.shape
    basis = design_matrix(fibres.reshape(-1, 3), order).reshape(n, k, -1)
    return (weights[..., None] * basis).sum(1) * decay


def _rotation(seed: int) -> np.ndarray:
    q, r = np.linalg.qr(np.random.default_rng(seed).standard_normal((3, 3)))
    q *= np.sign(np.diag(r))
    return q * np.sign(np.linalg.det(q))


def test_known_fods_are_recovered_without_noise() -> None:
    truth = _lobes(*_crossings(40), 8, 0.07)
    assert (truth @ design_matrix(half_sphere(500), 8).T).min() > -1e-3
    forward = forward_matrix(GRADIENTS, np.arange(99), response(), 8)
    found = csd(
        scan_of(truth @ forward.T, GRADIENTS),
        response(),
        order=8,
        regulariser=1e-6,
        rho=0.02,
        tolerance=0,
        **QUIET,
    )
    error = np.linalg.norm(flat(found.fod) - truth, axis=1) / np.linalg.norm(truth, axis=1)
    assert np.median(error) < 0.02
    assert found.maps["residual"].data.max() < 2e-3


@pytest.mark.parametrize(
    ("order", "shell", "settings"),
    [(8, None, {}), (12, "all", {}), (14, "all", {"noise": "rician", "sigma": 0.5})],
)
def test_peaks_point_along_the_fibres(order: int, shell: str | None, settings: dict) -> None:
    fibres, weights = _crossings(30, 1)
    scan = scan_of(crossing_signal(GRADIENTS, fibres, weights), GRADIENTS)
    found = csd(scan, response(order), order=order, shell=shell, **settings, **QUIET)
    grid = half_sphere(3000)
    amplitudes = flat(found.fod) @ design_matrix(grid, order).T
    largest = grid[amplitudes.argmax(1)]
    angle = np.rad2deg(np.arccos(np.abs((largest * fibres[:, 0]).sum(1)).clip(0, 1)))
    assert np.median(angle) < 3
    assert (amplitudes.min(1) > -0.1 * amplitudes.max(1)).all()
    density = np.sqrt(4 * np.pi) * flat(found.fod)[:, 0]
    np.testing.assert_allclose(density, 1, atol=0.06)


@pytest.mark.parametrize(("directions", "limit"), [(None, 0.02), (1000, 0.005)])
def test_turning_gradients_and_fibres_together_turns_the_fod(
    directions: int | None, limit: float
) -> None:
    fibres, weights = _crossings(30, 2)
    turn = _rotation(3)
    turned = GRADIENTS.rotate(turn)
    signal = crossing_signal(GRADIENTS, fibres, weights)
    settings = {"order": 8, "directions": directions}
    one = csd(scan_of(signal, GRADIENTS), response(), **settings, **QUIET)
    two = csd(scan_of(signal, turned), response(), **settings, **QUIET)
    grid = half_sphere(400)
    a = flat(one.fod) @ design_matrix(grid, 8).T
    b = flat(two.fod) @ design_matrix(grid @ turn.T, 8).T
    error = np.linalg.norm(a - b, axis=1) / np.linalg.norm(a, axis=1)
    assert np.median(error) < limit


def test_layouts_masks_and_starts_give_the_same_fods() -> None:
    signal = crossing_signal(GRADIENTS, *_crossings(24, 4)).astype(np.float32)
    cube = signal.reshape(2, 3, 4, -1)
    settings = {"order": 8, "iterations": 400, "tolerance": 0, **QUIET}
    plain = csd(Scan(cube, np.eye(4), GRADIENTS), response(), **settings)
    other = csd(Scan(np.asfortranarray(cube), np.eye(4), GRADIENTS), response(), **settings)
    np.testing.assert_allclose(plain.fod.coefficients, other.fod.coefficients, atol=1e-5)
    mask = np.zeros((2, 3, 4), bool)
    mask[1, :, 2:] = True
    part = csd(Scan(cube, np.eye(4), GRADIENTS), response(), mask=mask, **settings)
    assert part.voxels == 6
    np.testing.assert_allclose(part.fod.coefficients[mask], plain.fod.coefficients[mask], atol=1e-5)
    assert (part.fod.coefficients[~mask] == 0).all()
    start = plain.fod
    again = csd(Scan(cube, np.eye(4), GRADIENTS), response(), **settings, start=start)
    np.testing.assert_allclose(again.fod.coefficients, start.coefficients, atol=5e-3)
    higher = csd(
        Scan(cube, np.eye(4), GRADIENTS), response(), order=10, iterations=50, start=start, **QUIET
    )
    assert higher.fod.order == 10


def test_the_notes_say_what_was_used_and_what_converged() -> None:
    scan = scan_of(crossing_signal(GRADIENTS, *_crossings(10, 5)), GRADIENTS)
    found = csd(scan, ResponseSet({"wm": response()}), tolerance=0.02, **QUIET)
    assert found.fod.order == 12
    assert found.notes[0] == "CSD used 64 volumes at b=3000"
    assert any("super-resolution" in note for note in found.notes)
    assert found.volumes == tuple(range(35, 99))
    assert found.voxels == 10
    assert 0 < found.converged <= 10
    assert found.provenance["parameters"]["directions"] == 240
    assert found.provenance["citations"]
    assert csd(scan, response(), shell=1000, order=4, **QUIET).volumes == tuple(range(3, 35))


@pytest.mark.parametrize(("sigma", "hardness"), [(1.5, 0.4), (12.0, 3.0)])
def test_negative_amplitudes_cost_more_where_noise_is_strong(sigma: float, hardness: float) -> None:
    clean = crossing_signal(GRADIENTS, *_crossings(200, 6))
    noise = np.random.default_rng(0).standard_normal((2, *clean.shape)) * sigma
    scan = scan_of(np.hypot(clean + noise[0], noise[1]), GRADIENTS)
    found = csd(scan, response(), order=8, **QUIET)
    assert found.provenance["parameters"]["hardness"] == hardness
    same = csd(scan, response(), order=8, hardness=hardness, **QUIET)
    np.testing.assert_array_equal(found.fod.coefficients, same.fod.coefficients)


def test_higher_orders_have_a_harder_constraint() -> None:
    costs = [choose_hardness(order) for order in (10, 12, 14, 16)]
    assert costs == sorted(costs) and np.isinf(costs[2:]).all()
    assert choose_hardness(8, 40.0) < choose_hardness(8, 10.0)
    scan = scan_of(crossing_signal(GRADIENTS, *_crossings(10, 5)), GRADIENTS)
    hard = csd(scan, response(16), **{**SHARPEST, "sigma": 0.5}, **QUIET)
    assert hard.provenance["parameters"]["hardness"] == "inf"
    assert any("hard constraint" in note for note in hard.notes)
    amplitudes = flat(hard.fod) @ design_matrix(half_sphere(2 * 153), 16).T
    assert (amplitudes.min(1) > -0.03 * amplitudes.max(1)).all()


@pytest.mark.parametrize(("count", "order"), [(64, 12), (50, 10), (32, 8)])
def test_the_order_follows_the_directions(count: int, order: int) -> None:
    some = GRADIENTS.select(np.r_[0:3, 35 : 35 + count])
    scan = scan_of(crossing_signal(some, *_crossings(4, 5)), some)
    found = csd(scan, response(), **QUIET)
    assert found.fod.order == order
    assert f"order {order}, chosen for {count} distinct directions" in found.notes
    super_resolution = [n for n in found.notes if n.startswith("super-resolution")]
    assert len(super_resolution) == (order * (order + 3) / 2 + 1 > count)
    if count == 32:
        assert "determine order 6; order 8 follows from non-negativity" in super_resolution[0]


def test_rician_noise_is_estimated_and_takes_the_floor_away() -> None:
    rng = np.random.default_rng(0)
    fibres, weights = _crossings(200, 6)
    clean = crossing_signal(GRADIENTS, fibres, weights)
    noise = rng.standard_normal((2, *clean.shape)) * 6
    scan = scan_of(np.hypot(clean + noise[0], noise[1]), GRADIENTS)
    plain = csd(scan, response(), shell="all", order=8, **QUIET)
    rician = csd(scan, response(), shell="all", order=8, noise="rician", **QUIET)
    assert rician.provenance["parameters"]["sigma"] == pytest.approx(6, rel=0.15)
    assert any("estimated" in note for note in rician.notes)
    density = [np.sqrt(4 * np.pi) * flat(d.fod)[:, 0].mean() for d in (plain, rician)]
    assert abs(density[1] - 1) < abs(density[0] - 1)


def test_broken_voxels_are_counted_and_left_at_zero() -> None:
    signal = crossing_signal(GRADIENTS, *_crossings(6, 7))
    signal[1, 40] = np.nan
    signal[2, 50] = np.inf
    signal[3, :3] = 0
    with pytest.warns(DmriWarning, match=r"2 voxels hold NaN or Inf and 1 voxels have b0 <= 0"):
        found = csd(scan_of(signal, GRADIENTS), response(), **QUIET)
    assert found.voxels == 3
    assert (flat(found.fod)[1:4] == 0).all()
    assert np.isfinite(found.maps["residual"].data).all()
    np.testing.assert_array_equal(found.fod.mask.ravel(), [1, 0, 0, 0, 1, 1])


def test_the_background_is_left_out_without_a_warning(recwarn: pytest.WarningsRecorder) -> None:
    signal = crossing_signal(GRADIENTS, *_crossings(4, 8))
    signal[2] = 0
    assert csd(scan_of(signal, GRADIENTS), response(), **QUIET).voxels == 3
    assert not [w for w in recwarn if issubclass(w.category, DmriWarning)]
    with pytest.warns(DmriWarning, match="1 voxels have b0 <= 0"):
        csd(scan_of(signal, GRADIENTS), response(), mask=np.ones((4, 1, 1)), **QUIET)


def test_a_scan_without_b0_is_deconvolved_and_said() -> None:
    table_ = GRADIENTS.select(np.arange(35, 99))
    signal = crossing_signal(table_, *_crossings(3, 9))
    found = csd(scan_of(signal, table_), response(), **QUIET)
    assert found.voxels == 3
    assert any("no b0" in note for note in found.notes)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"order": 9}, "even number"),
        ({"order": 18}, "even number"),
        ({"regulariser": 0}, "must be positive"),
        ({"shell": 2000}, "No shell at b=2000"),
        ({"directions": 20}, "constraint directions"),
        ({"noise": "poisson"}, "gaussian, rician"),
        ({"noise": "rician", "sigma": -1.0}, "must be positive"),
        ({"sigma": 2.0}, "leave sigma out"),
        ({"mask": np.zeros((3, 1, 1), bool)}, "holds no voxel"),
        ({"mask": np.ones((2, 1, 1), bool)}, "resample the mask"),
    ],
)
def test_bad_input_is_refused_in_words(change: dict, words: str) -> None:
    scan = scan_of(crossing_signal(GRADIENTS, *_crossings(3, 9)), GRADIENTS)
    with pytest.raises(InputError, match=words):
        csd(scan, response(), **change, **QUIET)


def test_a_scan_or_response_that_cannot_show_fibres_is_refused() -> None:
    scan = scan_of(crossing_signal(GRADIENTS, *_crossings(3, 9)), GRADIENTS)
    with pytest.raises(InputError, match="same in all directions"):
        csd(scan, Response([[100.0, 0, 0]] * 3, (0, 1000, 3000)), **QUIET)
    with pytest.raises(InputError, match="another set of shells"):
        csd(scan, response(8, (0.0, 2000.0)), **QUIET)
    with pytest.raises(InputError, match="no voxel can be deconvolved"):
        csd(scan_of(np.zeros((3, 99)), GRADIENTS), response(), **QUIET)
    start = csd(scan, response(), order=4, **QUIET).fod
    small = scan_of(crossing_signal(GRADIENTS, *_crossings(2, 9)), GRADIENTS)
    with pytest.raises(InputError, match="start from"):
        csd(small, response(), start=start, **QUIET)


def test_it_can_be_cancelled() -> None:
    scan = scan_of(crossing_signal(GRADIENTS, *_crossings(3, 9)), GRADIENTS)

    def stop(fraction: float, text: str) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        csd(scan, response(), progress=stop, **QUIET)


def test_it_agrees_with_dipy() -> None:
    from dipy.core.gradients import gradient_table
    from dipy.core.sphere import Sphere
    from dipy.reconst.csdeconv import AxSymShResponse, ConstrainedSphericalDeconvModel
    from dipy.reconst.shm import sh_to_sf

    fibres, weights = _crossings(60, 10)
    signal = crossing_signal(GRADIENTS, fibres, weights)
    keep = np.r_[0, 35:99]
    gtab = gradient_table(GRADIENTS.bvalues[keep], bvecs=GRADIENTS.directions[keep])
    zonal = response().zonal[2]
    model = ConstrainedSphericalDeconvModel(
        gtab, AxSymShResponse(100, zonal), sh_order_max=8, reg_sphere=Sphere(xyz=half_sphere(362))
    )
    grid = half_sphere(500)
    theirs = sh_to_sf(model.fit(signal[:, keep]).shm_coeff, Sphere(xyz=grid), sh_order_max=8)
    ours = csd(scan_of(signal, GRADIENTS), response(), order=8, directions=362, hardness=3, **QUIET)
    mine = flat(ours.fod) @ design_matrix(grid, 8).T
    assert np.median(cosine(mine, theirs)) > 0.99


@pytest.mark.skipif(shutil.which("dwi2fod") is None, reason="MRtrix3 is not installed")
def test_it_agrees_with_mrtrix(tmp_path: Path) -> None:
    import nibabel as nib

    signal = crossing_signal(GRADIENTS, *_crossings(60, 11))[:, 35:]
    table_ = GRADIENTS.select(np.arange(35, 99))
    data = signal.astype(np.float32).reshape(5, 4, 3, 64)
    nib.save(nib.Nifti1Image(data, np.eye(4)), tmp_path / "dwi.nii")
    np.savetxt(tmp_path / "grad.b", np.c_[table_.directions, table_.bvalues])
    np.savetxt(tmp_path / "response.txt", response().zonal[2:])
    subprocess.run(
        [
            "dwi2fod",
            "csd",
            "-quiet",
            "-lmax",
            "8",
            "-grad",
            "grad.b",
            "dwi.nii",
            "response.txt",
            "fod.nii",
        ],
        cwd=tmp_path,
        check=True,
    )
    theirs = np.asarray(nib.load(tmp_path / "fod.nii").dataobj).reshape(-1, 45)
    ours = csd(Scan(data, np.eye(4), table_), response(), order=8, hardness=0.4, **QUIET)
    assert np.median(cosine(flat(ours.fod), theirs)) > 0.99
