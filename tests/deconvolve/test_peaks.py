"""Peaks: known maxima, rotations, merging, odd voxels, and MRtrix3's sh2peaks."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path  # noqa: TC003

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from napari_dmri import ShImage, find_peaks, read_peaks, write_sh
from napari_dmri.deconvolve.peak_grid import powers, search_grid
from napari_dmri.errors import Cancelled, DmriWarning, InputError
from napari_dmri.sphere.harmonics import degrees, design_matrix, n_coefficients, orders_and_phases


def unit(v: np.ndarray) -> np.ndarray:
    return v / np.linalg.norm(v, axis=-1, keepdims=True)


def angles(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Return degrees between axes, accurate near zero; 90 where one of them is zero."""
    u, v = u.astype(float), v.astype(float)
    across, along = np.linalg.norm(np.cross(u, v), axis=-1), np.abs((u * v).sum(-1))
    return np.where(across + along > 0, np.rad2deg(np.arctan2(across, along)), 90.0)


def lobe(u: np.ndarray, order: int) -> np.ndarray:
    """Return coefficients of a smooth lobe of area 1 about each axis, without ringing."""
    kernel = np.exp(-3.0 / (order * (order + 1)) * degrees(order) * (degrees(order) + 1))
    return design_matrix(u, order) * kernel


def image(coefficients: np.ndarray, mask: np.ndarray | None = None) -> ShImage:
    flat = np.asarray(coefficients, np.float32)
    return ShImage(flat.reshape(-1, 1, 1, flat.shape[-1]), np.eye(4), mask=mask, name="fod")


def exact(coefficients: np.ndarray, u: np.ndarray, order: int) -> np.ndarray:
    """Refine a maximum in float64 by steps along finite differences of the exact function."""
    for _ in range(20):
        frame = np.linalg.svd(u[None])[2][1:]
        h = 1e-4
        grid = [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1)]
        points = unit(np.array([u + h * np.array(g) @ frame for g in grid]))
        f = (design_matrix(points, order) @ coefficients).reshape(3, 3)
        g = np.array([f[2, 1] - f[0, 1], f[1, 2] - f[1, 0]]) / (2 * h)
        xy = (f[2, 2] - f[2, 0] - f[0, 2] + f[0, 0]) / (4 * h * h)
        xx = (f[2, 1] - 2 * f[1, 1] + f[0, 1]) / h**2
        yy = (f[1, 2] - 2 * f[1, 1] + f[1, 0]) / h**2
        u = unit(u - np.linalg.solve([[xx, xy], [xy, yy]], g) @ frame)
    return u


@pytest.mark.parametrize("order", [2, 4, 8, 12, 16])
def test_single_fibres_are_recovered_without_a_grid(order: int) -> None:
    u = unit(np.random.default_rng(order).standard_normal((400, 3)))
    found = find_peaks(image(lobe(u, order)), threshold=0.5)
    assert (found.count == 1).all()
    assert angles(found.directions[:, 0, 0, 0], u).max() < 0.005
    top = design_matrix(u[:1], order)[0] @ lobe(u[:1], order)[0]
    assert np.allclose(found.amplitudes[:, 0, 0, 0], top, rtol=1e-5)
    assert (found.directions[..., 2] >= 0).all()


@pytest.mark.parametrize("order", [8, 12])
def test_random_functions_have_their_exact_maxima(order: int) -> None:
    rng = np.random.default_rng(7)
    c = rng.standard_normal((12, n_coefficients(order))) * np.exp(-0.05 * degrees(order) ** 1.5)
    found = find_peaks(image(c))
    c = c.astype(np.float32).astype(float)
    for i, row in enumerate(c):
        for k in range(found.count[i, 0, 0]):
            u = found.directions[i, 0, 0, k].astype(float)
            assert angles(exact(row, u, order), u) < 0.01
            height = design_matrix(u[None], order)[0] @ row
            assert found.amplitudes[i, 0, 0, k] == pytest.approx(height, rel=2e-5, abs=2e-5)
        heights = found.amplitudes[i, 0, 0]
        assert (np.diff(heights) <= 0).all()
    best = (design_matrix(search_grid(order).directions, order) @ c.T).max(0)
    assert (found.amplitudes[:, 0, 0, 0] >= best * (1 - 1e-5)).all()


def test_crossings_are_found_by_falling_amplitude() -> None:
    rng = np.random.default_rng(1)
    u = unit(rng.standard_normal((200, 3)))
    v = unit(np.cross(u, rng.standard_normal((200, 3))))
    found = find_peaks(image(0.6 * lobe(u, 8) + 0.4 * lobe(v, 8)), threshold=0.3)
    assert (found.count == 2).all()
    # At right angles each lobe is even about the other's axis: the maxima stay where they are.
    assert angles(found.directions[:, 0, 0, 0], u).max() < 0.05
    assert angles(found.directions[:, 0, 0, 1], v).max() < 0.05


def test_peaks_turn_with_the_function() -> None:
    rng = np.random.default_rng(2)
    u = unit(rng.standard_normal((100, 3, 3)))
    weights = rng.dirichlet([3, 3, 3], 100)
    turn = Rotation.random(random_state=3).as_matrix()

    def peaks(axes: np.ndarray) -> np.ndarray:
        c = sum(weights[:, k, None] * lobe(axes[:, k], 8) for k in range(3))
        return find_peaks(image(c), threshold=0.2).directions[:, 0, 0]

    before, after = peaks(u), peaks(u @ turn.T)
    there = (np.linalg.norm(before, axis=-1) > 0) & (np.linalg.norm(after, axis=-1) > 0)
    assert there.sum() > 200
    difference = angles(before @ turn.T, after)[there]
    assert np.quantile(difference, 0.98) < 0.01  # equal heights may change places


def test_directions_and_their_opposites_are_the_same_peaks() -> None:
    u = unit(np.random.default_rng(4).standard_normal((20, 3)))
    a, b = find_peaks(image(lobe(u, 8))), find_peaks(image(lobe(-u, 8)))
    assert np.allclose(a.directions, b.directions, atol=1e-6)
    rim = unit(np.array([[1.0, 0.2, 1e-7], [1.0, 0.2, -1e-7], [0, 1, 0], [-1, 0, 0]]))
    found = find_peaks(image(lobe(rim, 8)), threshold=0.1)
    assert (found.count == 1).all()


def test_close_lobes_are_one_and_separate_ones_two() -> None:
    u = np.array([[0.0, 0, 1]])

    def two(degree: float, **settings: float) -> int:
        a = np.deg2rad(degree)
        v = np.array([[np.sin(a), 0, np.cos(a)]])
        c = lobe(u, 12) + 0.9 * lobe(v, 12)
        return int(find_peaks(image(c), threshold=0.3, **settings).count[0, 0, 0])

    assert two(10) == 1
    assert two(50) == 2
    assert two(50, separation=45.0) == 2
    assert two(50, separation=55.0) == 1


def test_threshold_minimum_and_most() -> None:
    axes = np.eye(3)
    c = (np.array([[1.0, 0.5, 0.25]]) @ lobe(axes, 8)).astype(np.float32)
    every = find_peaks(image(c))
    assert every.shape == (1, 1, 1, 10)
    top = every.amplitudes[0, 0, 0]
    assert find_peaks(image(c), threshold=0.4).count.item() == 2
    assert find_peaks(image(c), minimum=float(top[1]) * 0.99).count.item() == 2
    assert find_peaks(image(c), minimum=float(top[0]) * 1.01).count.item() == 0
    one = find_peaks(image(c), most=1)
    assert one.shape == (1, 1, 1, 1) and angles(one.directions[0, 0, 0, 0], axes[0]) < 0.01
    many = find_peaks(image(np.random.default_rng(0).standard_normal((50, 91))), most=3)
    assert (many.count == 3).all()


def test_functions_without_a_peak_have_none() -> None:
    constant = np.zeros((3, 45))
    constant[:, 0] = (1, 0, -1)
    ring = np.zeros((1, 45))
    ring[0, 3] = -1  # largest on a whole great circle
    negative = -lobe(np.array([[0.0, 0, 1]]), 8)
    negative[:, 0] -= 5
    found = find_peaks(image(np.concatenate([constant, ring, negative])))
    assert (found.count == 0).all()
    assert not found.directions.any()
    assert (find_peaks(image(np.ones((4, 1)))).count == 0).all()


def test_broken_voxels_are_counted_and_left_out() -> None:
    c = lobe(unit(np.random.default_rng(5).standard_normal((5, 3))), 8)
    c[1, 3], c[2, 0], c[3] = np.nan, np.inf, 0
    with pytest.warns(DmriWarning, match="2 of 5 voxels"):
        found = find_peaks(image(c), threshold=0.5)
    assert found.count.ravel().tolist() == [1, 0, 0, 0, 1]


def test_the_mask_chooses_voxels() -> None:
    c = lobe(unit(np.random.default_rng(6).standard_normal((4, 3))), 8)
    mask = np.array([1, 0, 1, 0], bool).reshape(4, 1, 1)
    own = find_peaks(image(c, mask), threshold=0.5)
    given = find_peaks(image(c), threshold=0.5, mask=mask)
    assert own.count.ravel().tolist() == given.count.ravel().tolist() == [1, 0, 1, 0]


def test_tiles_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    c = np.random.default_rng(8).standard_normal((300, 45))
    whole = find_peaks(image(c))
    monkeypatch.setattr("napari_dmri.deconvolve.peaks.TILE", 70)
    tiled = find_peaks(image(c))
    assert (whole.count == tiled.count).all()
    assert np.allclose(whole.directions, tiled.directions, atol=1e-5)


def test_it_can_be_stopped() -> None:
    def stop(fraction: float, text: str) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        find_peaks(image(np.ones((3, 45))[:, :] * np.arange(45)), progress=stop)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"threshold": 1.5}, "share of the voxel"),
        ({"threshold": float("nan")}, "share of the voxel"),
        ({"minimum": -1.0}, "smallest amplitude"),
        ({"separation": 100.0}, "separation"),
        ({"most": 0}, "peaks a voxel"),
        ({"most": 100_000}, "choose 1 to 200"),
        ({"mask": np.ones((2, 2, 2), bool)}, "mask has shape"),
        ({"mask": np.zeros((3, 1, 1), bool)}, "no voxel"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        find_peaks(image(np.ones((3, 45))), **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("order", [4, 8, 14])
def test_charts_are_the_function(order: int) -> None:
    grid, rng = search_grid(order), np.random.default_rng(0)
    u = unit(rng.standard_normal((5, 3)))
    c = lobe(u, order)
    top = (design_matrix(u, order) * c).sum(1)
    for d in rng.integers(len(grid.directions), size=10):
        r, phi = np.sqrt(rng.random(50)), 2 * np.pi * rng.random(50)
        x, y = r * np.cos(phi), r * np.sin(phi)
        points = grid.directions[d] + grid.radius * np.stack([x, y], 1) @ grid.tangents[d]
        monomials = np.stack([x**i * y**j for i, j in powers()], 1)
        error = monomials @ grid.charts[d].T @ c.T - design_matrix(points, order) @ c.T
        assert (np.abs(error) / top).max() < 2e-5


def test_lobes_are_integrated() -> None:
    u = np.array([[0.0, 0, 1], [1, 0, 0]])
    c = np.stack([2 * lobe(u, 8)[0], 0.75 * lobe(u, 8)[0] + 0.25 * lobe(u, 8)[1]])
    found = find_peaks(image(c), threshold=0.1, lobes=True)
    assert found.afd is not None and found.dispersion is not None
    assert found.afd[0, 0, 0, 0] == pytest.approx(2, rel=0.03)
    assert found.afd[1, 0, 0, :2] == pytest.approx([0.75, 0.25], rel=0.08)
    assert not found.afd[1, 0, 0, 2:].any()
    _, m = orders_and_phases(8)
    t = np.linspace(0, np.pi / 2, 4000)
    ring = np.stack([np.sin(t), 0 * t, np.cos(t)], 1)
    profile = (design_matrix(ring, 8)[:, m == 0] @ c[0, m == 0]).clip(0)
    zero = np.argmax(profile <= 1e-6 * profile[0])
    weight = profile[:zero] * np.sin(t[:zero])
    spread = np.rad2deg(np.sqrt((weight * t[:zero] ** 2).sum() / weight.sum()))
    assert found.dispersion[0, 0, 0, 0] == pytest.approx(spread, rel=0.08)


@pytest.fixture
def crossing_fods(tmp_path: Path) -> tuple[ShImage, Path]:
    rng = np.random.default_rng(11)
    u = unit(rng.standard_normal((300, 3, 3)))
    w = rng.dirichlet([1, 1, 1], 300)
    c = sum(w[:, k, None] * lobe(u[:, k], 8) for k in range(3))
    fods = image(c + 0.02 * rng.standard_normal(c.shape))
    path = tmp_path / "fod.mif"
    write_sh(fods, path)
    return fods, path


def test_sh2peaks_agrees(crossing_fods: tuple[ShImage, Path]) -> None:
    if shutil.which("sh2peaks") is None:
        pytest.skip("MRtrix3's sh2peaks is not installed")
    fods, path = crossing_fods
    out = path.parent / "peaks.mif"
    subprocess.run(
        ["sh2peaks", "-quiet", "-num", "3", "-nthreads", "1", str(path), str(out)], check=True
    )
    theirs, ours = read_peaks(out), find_peaks(fods, most=10)
    axes = theirs.directions.reshape(-1, 3)
    axes = np.where(axes.any(1, keepdims=True), axes, np.eye(3)[2])
    basis = design_matrix(axes, 8).reshape(300, -1, 45)
    values = np.einsum("nkc,nc->nk", basis, fods.coefficients[:, 0, 0])[:, None, None]
    # MRtrix3 also gives maxima below zero, turned around.
    large = (theirs.amplitudes > 0.1 * theirs.amplitudes[..., :1]) & (values > 0)
    angle = angles(theirs.directions[..., None, :], ours.directions[..., None, :, :]).min(-1)
    assert large.sum() > 500
    assert (angle[large] < 0.05).mean() > 0.97  # shallow tops may be passed over
    first = angles(theirs.directions[..., 0, :], ours.directions[..., 0, :])
    assert np.median(first) < 0.01
    height = ours.amplitudes[..., 0] / theirs.amplitudes[..., 0]
    assert np.allclose(height[first < 1], 1, atol=1e-4)


def test_fod2fixel_agrees(crossing_fods: tuple[ShImage, Path]) -> None:
    if shutil.which("fod2fixel") is None:
        pytest.skip("MRtrix3's fod2fixel is not installed")
    fods, path = crossing_fods
    folder = path.parent / "fixels"
    subprocess.run(
        ["fod2fixel", "-quiet", "-nii", "-nthreads", "1", str(path), str(folder), "-afd",
         "afd.nii", "-fmls_peak_value", "0", "-fmls_integral", "0"], check=True,
    )  # fmt: skip
    import nibabel as nib

    index = np.asarray(nib.load(folder / "index.nii").dataobj).astype(int).reshape(-1, 2)
    axes = np.asarray(nib.load(folder / "directions.nii").dataobj)[..., 0]
    afd = np.asarray(nib.load(folder / "afd.nii").dataobj).ravel()
    ours = find_peaks(fods, lobes=True)
    assert ours.afd is not None
    ratios = []
    for i, (count, start) in enumerate(index):
        fixels = slice(start, start + count)
        k = np.argmax(afd[fixels])
        near = angles(ours.directions[i, 0, 0], axes[fixels][k][None])
        if near.min() < 10:  # MRtrix3 gives the mean direction of a lobe
            ratios.append(ours.afd[i, 0, 0, near.argmin()] / afd[fixels][k])
    assert len(ratios) > 200
    assert np.median(ratios) == pytest.approx(1, abs=0.01)
    assert np.median(np.abs(np.array(ratios) - 1)) < 0.02
