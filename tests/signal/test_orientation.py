"""Orientation: every flip and swap of the axes is found, none is invented."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from napari_dmri.errors import Cancelled, InputError
from napari_dmri.images import TensorImage
from napari_dmri.scan import GradientTable
from napari_dmri.signal.orientation import (
    check_orientation,
    fix_gradients,
    fixes,
    voxel_rotation,
)

OBLIQUE = np.array(
    [[1.8, -0.35, 0.5, -20.0], [0.4, 1.9, -0.7, 11.0], [-0.35, 0.6, 2.3, 5.0], [0, 0, 0, 1]]
)


def rings(affine, shape=(40, 40, 30)):
    """Circular bundles in five oblique planes: each voxel's fibre is the tangent (mm)."""
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    places = grid @ affine[:3, :3].T + affine[:3, 3]
    centre = (np.array(shape) - 1) / 2 @ affine[:3, :3].T + affine[:3, 3]
    principal = np.zeros((*shape, 3), np.float32)
    inside = np.zeros(shape, bool)
    normals = np.array([[1, 0.3, 0.2], [0.2, 1, -0.4], [0.5, -0.3, 1], [1, 1, 0.6], [-1, 0.7, 1]])
    shifts = np.array([[0, 9, 4], [-9, 3, 0], [6, -8, 5], [8, 8, -9], [-6, -9, -6]])
    for normal, shift, radius in zip(normals, shifts, (16, 20, 18, 14, 17), strict=True):
        n = normal / np.linalg.norm(normal)
        away = places - centre - shift
        height = away @ n
        flat = away - height[..., None] * n
        far = np.linalg.norm(flat, axis=-1)
        tube = np.hypot(height, far - radius) < 4.0
        tangent = np.cross(n, flat / np.maximum(far, 1e-6)[..., None])
        principal[tube] = tangent[tube]
        inside |= tube
    return principal, inside


def tensor_of(principal, inside, affine):
    values = np.zeros((*inside.shape, 3), np.float32)
    values[inside] = (1.7e-3, 3e-4, 3e-4)
    values[~inside] = 8e-4
    return TensorImage(
        np.zeros((*inside.shape, 6), np.float32), values, principal, affine, np.ones_like(inside)
    )


@pytest.fixture(scope="module", params=[np.diag([2.0, 2, 2, 1]), OBLIQUE], ids=["plain", "oblique"])
def bundle(request):
    principal, inside = rings(request.param)
    return principal, inside, request.param


def test_the_24_candidates_differ_as_axes():
    table = fixes()
    assert len(table) == 24
    assert next(iter(table)) == "none"
    probe = np.array([0.2, 0.5, 0.8])
    axes = {tuple(np.outer(q @ probe, q @ probe).round(6).ravel()) for q in table.values()}
    assert len(axes) == 24


def test_right_vectors_are_left_alone(bundle):
    principal, inside, affine = bundle
    check = check_orientation(tensor_of(principal, inside, affine))
    assert check.best == "none"
    assert not check.suspicious
    assert "look right" in check.sentence
    ranked = sorted(check.scores.values())
    assert ranked[-1] == check.scores["none"] > 1.2 * ranked[-2]


@pytest.mark.parametrize("wrong", [name for name in fixes() if name != "none"])
def test_a_wrong_axis_is_found_and_its_fix_undoes_it(bundle, wrong):
    principal, inside, affine = bundle
    rotation = voxel_rotation(affine)
    error = rotation @ fixes()[wrong] @ rotation.T
    turned = (principal @ error.T).astype(np.float32)
    check = check_orientation(tensor_of(turned, inside, affine))
    assert check.suspicious
    assert f"{check.scores[check.best]:.2%}" in check.sentence
    repair = fixes()[check.best] @ fixes()[wrong]
    np.testing.assert_allclose(np.abs(np.trace(repair)), 3)


def test_noise_is_not_suspicious():
    rng = np.random.default_rng(0)
    principal = rng.normal(size=(24, 24, 24, 3)).astype(np.float32)
    principal /= np.linalg.norm(principal, axis=-1, keepdims=True)
    check = check_orientation(tensor_of(principal, np.ones((24, 24, 24), bool), np.eye(4)))
    assert not check.suspicious


def test_too_few_fibres_leave_the_question_open():
    inside = np.zeros((8, 8, 8), bool)
    inside[2:4, 2:4, 2:4] = True
    principal = np.zeros((8, 8, 8, 3), np.float32)
    principal[inside] = (1, 0, 0)
    check = check_orientation(tensor_of(principal, inside, np.eye(4)))
    assert not check.suspicious
    assert "could not be checked" in check.sentence


def test_voxels_outside_the_mask_do_not_vote(bundle):
    principal, inside, affine = bundle
    tensor = tensor_of(principal, inside, affine)
    outside = TensorImage(
        tensor.tensor, tensor.eigenvalues, principal, affine, np.zeros_like(inside)
    )
    assert check_orientation(outside).pairs == 0


def test_thinning_keeps_the_answer(bundle, monkeypatch):
    principal, inside, affine = bundle
    full = check_orientation(tensor_of(principal, inside, affine))
    monkeypatch.setattr("napari_dmri.signal.orientation.MOST_VOXELS", int(inside.sum()) // 2 + 1)
    thinned = check_orientation(tensor_of(principal, inside, affine))
    assert thinned.best == full.best == "none"
    assert 0.3 * full.pairs < thinned.pairs < 0.8 * full.pairs


def test_fixing_twice_restores_and_acts_along_the_voxel_axes():
    rng = np.random.default_rng(3)
    g = rng.normal(size=(12, 3))
    g /= np.linalg.norm(g, axis=1, keepdims=True)
    table = GradientTable(np.r_[0, np.full(11, 1000)], g)
    fixed = fix_gradients(table, "flip y", OBLIQUE)
    rotation = voxel_rotation(OBLIQUE)
    np.testing.assert_allclose(
        fixed.directions @ rotation, table.directions @ rotation * (1, -1, 1), atol=1e-12
    )
    again = fix_gradients(fixed, "flip y", OBLIQUE)
    np.testing.assert_allclose(again.directions, table.directions, atol=1e-12)
    assert (fixed.directions[0] == 0).all()


def test_an_unknown_fix_is_refused():
    table = GradientTable([0, 1000], [[0, 0, 0], [1, 0, 0]])
    with pytest.raises(InputError, match=r"'flip w'.*flip x"):
        fix_gradients(table, "flip w", np.eye(4))


def test_cancel_passes_through_and_progress_rises(bundle):
    tensor = tensor_of(*bundle)
    seen = []
    check_orientation(tensor, progress=lambda f, _: seen.append(f))
    assert seen[-1] == 1
    assert all(a <= b for a, b in pairwise(seen))

    def stop(_fraction, _text):
        raise Cancelled

    with pytest.raises(Cancelled):
        check_orientation(tensor, progress=stop)


SETS = {
    "siemens_trio": "dwi.nii.gz",
    "philips_achieva_crop": "dwi.nii.gz",
    "siemens_sagittal": "dwi.nii.gz",
    "vanderbilt_nrrd": "WIP_dti_ax_601.nii.gz",
}


@pytest.mark.parametrize("name", SETS)
def test_real_scans_are_right_and_a_flip_of_their_vectors_is_found(real_data, name):
    from napari_dmri.io import read_scan
    from napari_dmri.signal.tensor import fit_tensor

    scan = read_scan(real_data / name / SETS[name])
    b0 = scan.mean_b0()
    scan = scan.with_mask(b0 > 0.25 * np.percentile(b0, 98))
    given = check_orientation(fit_tensor(scan, "ols", device="cpu"))
    assert given.best == "none"
    ranked = sorted(given.scores.values())
    assert ranked[-1] > 1.15 * ranked[-2]
    for wrong in ("flip x", "flip z"):
        turned = replace(scan, gradients=fix_gradients(scan.gradients, wrong, scan.affine))
        found = check_orientation(fit_tensor(turned, "ols", device="cpu"))
        assert found.best == wrong
        assert found.suspicious
        repaired = fix_gradients(turned.gradients, found.best, scan.affine)
        np.testing.assert_allclose(repaired.directions, scan.gradients.directions, atol=1e-9)
