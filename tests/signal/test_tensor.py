"""Tensor fits: known tensors, DIPY's numbers, closed-form eigenvalues, and every bad input."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from napari_dmri import DmriWarning, GradientTable, InputError, Scan, fit_tensor
from napari_dmri.errors import Cancelled
from napari_dmri.signal.symmetric import eigen_symmetric
from napari_dmri.signal.tensor import TensorSolver, tensor_design


def directions(n: int) -> np.ndarray:
    z = 1 - (np.arange(n) + 0.5) / n
    phi = np.arange(n) * np.pi * (3 - np.sqrt(5))
    r = np.sqrt(1 - z**2)
    return np.stack([r * np.cos(phi), r * np.sin(phi), z], axis=1)


def table(*shells: tuple[float, int], b0s: int = 3) -> GradientTable:
    bvalues = np.concatenate([np.zeros(b0s), *(np.full(n, b) for b, n in shells)])
    vectors = np.concatenate([np.zeros((b0s, 3)), *(directions(n) for _, n in shells)])
    return GradientTable(bvalues, vectors)


def random_tensors(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return tensors (n, 3, 3), eigenvalues largest first, and eigenvectors as columns."""
    rng = np.random.default_rng(seed)
    values = np.sort(rng.uniform(0.2e-3, 2e-3, (n, 3)), axis=1)[:, ::-1]
    vectors = np.linalg.qr(rng.normal(size=(n, 3, 3)))[0]
    return np.einsum("nij,nj,nkj->nik", vectors, values, vectors), values, vectors


def make_scan(
    gradients: GradientTable, grid: tuple[int, int, int] = (6, 5, 4), noise: float = 0.0
) -> tuple[Scan, np.ndarray, np.ndarray]:
    tensors, values, vectors = random_tensors(int(np.prod(grid)))
    g = gradients.directions
    signal = 1000 * np.exp(-gradients.bvalues * np.einsum("vi,nij,vj->nv", g, tensors, g))
    signal += noise * np.random.default_rng(1).normal(size=signal.shape)
    data = np.maximum(signal, 1).reshape(*grid, -1).astype(np.float32)
    return Scan(data, np.eye(4), gradients, name="test"), values, vectors[..., 0]


@pytest.mark.parametrize("layout", ["C", "F"])
@pytest.mark.parametrize("method", ["wls", "ols"])
def test_known_tensors_are_recovered(method: str, layout: str) -> None:
    scan, values, first = make_scan(table((1200, 30)))
    fit = fit_tensor(replace(scan, data=np.asarray(scan.data, order=layout)), method)
    assert fit.mask is not None and fit.mask.all()
    assert fit.tensor.dtype == fit.eigenvalues.dtype == fit.principal.dtype == np.float32
    np.testing.assert_allclose(fit.eigenvalues.reshape(-1, 3), values, rtol=1e-4)
    cosines = np.abs((fit.principal.reshape(-1, 3) * first).sum(1))
    apart = values[:, 0] - values[:, 1] > 1e-4
    assert cosines[apart].min() > 1 - 1e-6
    trace = fit.tensor[..., [0, 2, 5]].sum(-1)
    np.testing.assert_allclose(trace, fit.eigenvalues.sum(-1), rtol=1e-5)


@pytest.mark.parametrize("noise", [0.0, 30.0])
@pytest.mark.parametrize("method", ["wls", "ols"])
def test_agrees_with_dipy(method: str, noise: float) -> None:
    from dipy.core.gradients import gradient_table
    from dipy.reconst.dti import TensorModel

    scan, *_ = make_scan(table((1000, 32)), noise=noise)
    gtab = gradient_table(scan.gradients.bvalues, bvecs=scan.gradients.directions)
    theirs = TensorModel(gtab, fit_method=method.upper()).fit(np.asarray(scan.data))
    ours = fit_tensor(scan, method)
    lower = theirs.lower_triangular()
    assert np.abs(ours.tensor - lower).max() <= 1e-5 * np.abs(lower).max()
    np.testing.assert_allclose(ours.md, theirs.md, rtol=1e-5)
    np.testing.assert_allclose(ours.fa, theirs.fa, atol=1e-5)
    np.testing.assert_allclose(ours.ad, theirs.ad, rtol=1e-5)
    np.testing.assert_allclose(ours.rd, theirs.rd, rtol=2e-5)
    same = np.abs((ours.principal * theirs.evecs[..., 0]).sum(-1))
    gap = theirs.evals[..., 0] - theirs.evals[..., 1]
    assert same[gap > 5e-5].min() > 1 - 1e-5


def test_weights_matter_where_signals_differ() -> None:
    scan, *_ = make_scan(table((3000, 40)), grid=(12, 12, 12), noise=20.0)
    clean, *_ = make_scan(table((3000, 40)), grid=(12, 12, 12))
    truth = fit_tensor(clean).tensor
    errors = {
        m: np.sqrt(((fit_tensor(scan, m).tensor - truth) ** 2).mean()) for m in ("wls", "ols")
    }
    assert errors["wls"] < 0.95 * errors["ols"]


def test_eigenvalues_and_vectors_agree_with_lapack() -> None:
    tensors, *_ = random_tensors(2000, seed=3)
    signs = np.random.default_rng(4).normal(size=(500, 3, 3))
    a, b = np.array([1.0, 1, 0.2]), np.array([1.0, 0.2, 0.2])
    q = np.linalg.qr(np.random.default_rng(5).normal(size=(100, 3, 3)))[0]
    special = [
        np.zeros((3, 3)),
        np.eye(3) * 1e-3,
        np.diag([1.0, 2, 3]),
        np.diag([3.0, 1, 1]),
        np.diag([2.0, 2, 1]),
        np.diag([1.0, 1, 1 + 1e-9]),
        np.diag([-1.0, 0, 1e-8]),
        np.ones((3, 3)),
        np.array([[0.0, 1, 0], [1, 0, 0], [0, 0, 0]]),
    ]
    every = np.concatenate(
        [
            tensors * 1e3,
            signs + signs.transpose(0, 2, 1),
            np.einsum("nij,j,nkj->nik", q, a, q),
            np.einsum("nij,j,nkj->nik", q, b, q),
            np.array(special),
        ]
    )
    packed = np.stack([every[:, i, j] for i, j in ((0, 0), (0, 1), (1, 1), (0, 2), (1, 2), (2, 2))])
    values, vector = (x.numpy() for x in eigen_symmetric(torch.from_numpy(packed)))
    expected = np.linalg.eigvalsh(every)[:, ::-1].T
    np.testing.assert_allclose(values, expected, atol=5e-8)
    np.testing.assert_allclose((vector**2).sum(0), 1, atol=1e-9)
    # An eigenvector to the eigenvalue, whichever of equal ones was taken.
    residual = np.einsum("nij,jn->in", every, vector) - expected[0] * vector
    assert np.abs(residual).max() < 1e-6


def test_isotropic_and_planar_voxels_have_finite_directions() -> None:
    gradients = table((1000, 30))
    signal = np.stack([np.exp(-gradients.bvalues * 1e-3), np.full(33, 7.0)])
    g = gradients.directions
    planar = np.exp(-gradients.bvalues * ((g @ np.diag([1.5e-3, 1.5e-3, 1e-4])) * g).sum(1))
    data = np.concatenate([signal, planar[None]])[:, None, None].astype(np.float32)
    fit = fit_tensor(Scan(data, np.eye(4), gradients))
    assert np.isfinite(fit.principal).all()
    np.testing.assert_allclose(np.linalg.norm(fit.principal, axis=-1), 1, atol=1e-5)
    assert abs(fit.principal[2, 0, 0, 2]) < 1e-3
    assert fit.fa[0, 0, 0] < 1e-4 and fit.md[0, 0, 0] == pytest.approx(1e-3, rel=1e-5)


def test_default_shells_are_those_up_to_1500() -> None:
    both, *_ = make_scan(table((1000, 20), (3000, 30)))
    fit = fit_tensor(both)
    assert fit.provenance["parameters"]["max_bvalue"] == 1000
    assert fit.provenance["volumes"] == 23
    few, *_ = make_scan(table((1000, 5), (3000, 30)))
    assert fit_tensor(few).provenance["parameters"]["max_bvalue"] == 3000
    assert fit_tensor(both, max_bvalue=3000).provenance["volumes"] == 53
    with pytest.raises(InputError, match=r"no diffusion-weighted shell at b <= 500"):
        fit_tensor(both, max_bvalue=500)


def test_no_b0_needs_two_shells() -> None:
    scan, values, _ = make_scan(table((700, 20), (1400, 20), b0s=0))
    fit = fit_tensor(scan)
    np.testing.assert_allclose(fit.eigenvalues.reshape(-1, 3), values, rtol=1e-3)
    with pytest.raises(InputError, match=r"no b0 volume and one shell \(b=700"):
        fit_tensor(scan, max_bvalue=800)


def test_mask_not_finite_and_negative_values() -> None:
    scan, *_ = make_scan(table((1000, 30)))
    whole = fit_tensor(scan)
    data = np.array(scan.data)
    data[0, 0, 0, 4], data[0, 0, 1, 0] = np.nan, np.inf
    data[1, 0, 0] = 0
    data[2, 0, 0, 3:] *= 3
    data[3, 0, 0, 5] = -10
    with pytest.warns(DmriWarning, match="2 voxels hold NaN or Inf"):
        fit = fit_tensor(replace(scan, data=data))
    assert fit.mask is not None and (~fit.mask).sum() == 3
    for values in (fit.tensor, fit.eigenvalues, fit.principal):
        assert np.isfinite(values).all() and not values[~fit.mask].any()
    assert (fit.eigenvalues >= 0).all()
    counts = fit.provenance["voxels"]
    assert counts["negative_eigenvalues"] >= 1 and counts["floored_signals"] == 1
    assert counts["zero_in_all_volumes"] == 1 and counts["not_finite"] == 2
    mask = np.zeros(scan.grid, bool)
    mask[2:4, 1:3] = True
    part = fit_tensor(scan, mask=mask)
    np.testing.assert_allclose(part.tensor[mask], whole.tensor[mask], atol=1e-9)
    assert not part.tensor[~mask].any() and not part.principal[~mask].any()


def test_scale_of_the_signal_does_not_matter() -> None:
    gradients = table((1000, 30))
    scan, *_ = make_scan(gradients, noise=20.0)
    signal = np.asarray(scan.data).reshape(-1, len(gradients))
    args = (gradients.bvalues, gradients.directions)
    small, large = (TensorSolver(*args)(signal * np.float32(k))[0] for k in (1e-8, 1e8))
    np.testing.assert_allclose(small, large, atol=2e-8)


def test_what_cannot_be_fitted_is_refused() -> None:
    scan, *_ = make_scan(table((1000, 30)))
    with pytest.raises(InputError, match="'wls' or 'ols'"):
        fit_tensor(scan, "nlls")
    with pytest.raises(InputError, match=r"5 distinct directions \(weighted volumes: 10\)"):
        fit_tensor(scan.select([0, *range(3, 8), *range(3, 8)]))
    with pytest.raises(InputError, match="no diffusion-weighted shell"):
        fit_tensor(scan.select([0, 1, 2]))
    with pytest.raises(InputError, match="120 are zero in every volume"):
        fit_tensor(replace(scan, data=np.zeros_like(scan.data)))
    with pytest.raises(InputError, match="mask has shape"):
        fit_tensor(scan, mask=np.ones((2, 2, 2), bool))
    angles = np.linspace(0, np.pi, 12, endpoint=False)
    flat = np.stack([np.cos(angles), np.sin(angles), 0 * angles], 1)
    plane = GradientTable(np.r_[0, np.full(12, 1000.0)], np.r_[np.zeros((1, 3)), flat])
    with pytest.raises(InputError, match="plane"):
        fit_tensor(Scan(np.ones((2, 2, 2, 13), np.float32), np.eye(4), plane))

    def stop(fraction: float, text: str) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        fit_tensor(scan, progress=stop)


def test_a_voxel_without_b0_signal_is_solved_like_any_other() -> None:
    """Found in a real scan: b0 is 0, its weight 1e-8, and nothing else tells S0 from the trace."""
    gradients = table((2000, 20))
    rng = np.random.default_rng(0)
    chosen = np.r_[np.flatnonzero(gradients.b0_mask)[:1], np.flatnonzero(~gradients.b0_mask)]
    signal = rng.integers(50, 1100, (40, 21)).astype(np.float32)
    signal[:20, 0] = 0
    bvalues, directions = gradients.bvalues[chosen], gradients.directions[chosen]
    tensors, eigenvalues, principal, _ = TensorSolver(bvalues, directions)(signal)
    design = tensor_design(bvalues / 1000, directions)
    for found, values in zip(tensors, signal, strict=True):
        logs = np.log(np.maximum(values.astype(float), 1e-4 * values.max()))
        weights = np.exp(design @ np.linalg.lstsq(design, logs)[0])
        exact = np.linalg.lstsq(weights[:, None] * design, weights * logs)[0][:6] / 1000
        np.testing.assert_allclose(found, exact, atol=2e-3 * np.abs(exact).max())
    assert np.isfinite(eigenvalues).all() and np.isfinite(principal).all()
