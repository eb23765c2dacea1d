"""The mathematics below the glyphs: bases, spheres, radii, peaks, detail, without a window."""

from __future__ import annotations

import numpy as np
import pytest

from napari_dmri.errors import InputError
from napari_dmri.images import ShImage
from napari_dmri.sphere.harmonics import BASES, convert_basis, design_matrix, n_coefficients
from napari_dmri.viewer._napari_compat import version_problem
from napari_dmri.viewer.glyphs.basis import ShSpace, reading_change, values_and_gradients
from napari_dmri.viewer.glyphs.detail import HARDWARE, SOFTWARE, choose_frequency
from napari_dmri.viewer.glyphs.field import GlyphField, largest_amplitudes
from napari_dmri.viewer.glyphs.peaks import first_peak_angles, sampled_peaks
from napari_dmri.viewer.glyphs.sphere import FREQUENCIES, evaluation_matrix, template
from napari_dmri.viewer.glyphs.style import GlyphStyle, gains_of
from napari_dmri.viewer.glyphs.voxel import describe

from .conftest import field_of, fodf


def directions(count=40, seed=0):
    u = np.random.default_rng(seed).normal(size=(count, 3))
    u[:2] = (0, 0, 1), (0, 0, -1)
    return u / np.linalg.norm(u, axis=1, keepdims=True)


@pytest.mark.parametrize("order", range(0, 19, 2))
def test_even_values_are_those_of_the_core(order):
    values, _ = values_and_gradients(directions(), ShSpace(order))
    np.testing.assert_allclose(values, design_matrix(directions(), order), atol=1e-12)


@pytest.mark.parametrize(
    ("order", "full"),
    [(0, False), (2, False), (8, False), (18, False), (1, True), (5, True), (18, True)],
)
def test_gradients_are_those_of_differences_also_at_the_poles(order, full):
    space, u, h = ShSpace(order, full), directions(), 1e-5
    _, gradients = values_and_gradients(u, space)
    for axis in range(3):
        step = np.eye(3)[axis] * h
        ahead, behind = (p / np.linalg.norm(p, axis=1, keepdims=True) for p in (u + step, u - step))
        difference = values_and_gradients(ahead, space)[0] - values_and_gradients(behind, space)[0]
        np.testing.assert_allclose(gradients[..., axis], difference / (2 * h), atol=2e-6)
    np.testing.assert_allclose(np.einsum("vjk,vk->vj", gradients, u), 0, atol=1e-9)


def test_the_full_basis_is_orthonormal_and_odd_degrees_are_odd():
    space, sphere = ShSpace(5, full=True), template(24)
    values, _ = values_and_gradients(sphere.vertices, space)
    a, b, c = sphere.vertices[sphere.faces].transpose(1, 0, 2)
    area = np.zeros(len(values))
    for corner in range(3):
        np.add.at(area, sphere.faces[:, corner], np.linalg.norm(np.cross(b - a, c - a), axis=1) / 6)
    np.testing.assert_allclose(values.T @ (values * area[:, None]), np.eye(36), atol=0.02)
    np.testing.assert_allclose(values[sphere.half :, 1:4], -values[: sphere.half, 1:4], atol=1e-12)


def test_spaces_are_told_apart_by_their_number_of_coefficients():
    for order in range(0, 19, 2):
        assert ShSpace.of(n_coefficients(order)) == ShSpace(order)
    for order in range(1, 19):
        assert ShSpace.of((order + 1) ** 2) == ShSpace(order, full=True)
    with pytest.raises(InputError, match="46 coefficients"):
        ShSpace.of(46)
    assert ShSpace(8).cut(5) == ShSpace(4)
    assert ShSpace(8, full=True).cut(5) == ShSpace(5, full=True)


@pytest.mark.parametrize("basis", BASES)
def test_a_basis_is_corrected_for_even_and_full_sets(basis):
    internal = np.random.default_rng(0).normal(size=45)
    stored = convert_basis(internal, "tournier07", basis)
    again = stored @ reading_change(("tournier07", basis), ShSpace(8))
    np.testing.assert_allclose(again, internal, atol=1e-12)
    misread = convert_basis(stored, "descoteaux07_legacy")
    again = misread @ reading_change(("descoteaux07_legacy", basis), ShSpace(8))
    np.testing.assert_allclose(again, internal, atol=1e-12)
    full = reading_change(("tournier07", basis), ShSpace(4, full=True))
    even = reading_change(("tournier07", basis), ShSpace(4))
    np.testing.assert_allclose(full[16:, 16:], even[6:, 6:])
    np.testing.assert_allclose(np.abs(full).sum(0)[:4] > 0, True)


@pytest.mark.parametrize("frequency", FREQUENCIES[:8])
def test_spheres_are_closed_outward_and_antipodal(frequency):
    sphere = template(frequency)
    n = frequency
    assert len(sphere.vertices) == 10 * n * n + 2 and len(sphere.faces) == 20 * n * n
    np.testing.assert_array_equal(sphere.vertices[sphere.half :], -sphere.vertices[: sphere.half])
    a, b, c = sphere.vertices[sphere.faces].transpose(1, 0, 2)
    assert (np.einsum("ij,ij->i", np.cross(b - a, c - a), a + b + c) > 0).all()
    edges = {(i, j) for f in sphere.faces.tolist() for i, j in zip(f, f[1:] + f[:1], strict=True)}
    assert len(edges) == 60 * n * n and {(j, i) for i, j in edges} == edges


def test_radii_and_gradients_by_one_product():
    coefficients = np.random.default_rng(0).normal(size=(5, 45)).astype(np.float32)
    matrix = evaluation_matrix(4, ShSpace(8))
    u = template(4).vertices[: template(4).half]
    values, slopes = values_and_gradients(u, ShSpace(8))
    found = np.einsum("nc,cvk->nvk", coefficients, matrix)
    np.testing.assert_allclose(found[..., 0], coefficients @ values.T, atol=1e-4)
    expected = np.einsum("nc,vck->nvk", coefficients, slopes)
    np.testing.assert_allclose(found[..., 1:], expected, atol=1e-3)


def test_largest_amplitudes_with_and_without_negative_lobes():
    coefficients = np.concatenate([fodf((1, 0, 0)), -fodf((1, 0, 0))]).astype(np.float32)
    top = design_matrix(np.eye(3)[:1], 8) @ coefficients[0]
    both = largest_amplitudes(coefficients, ShSpace(8))
    np.testing.assert_allclose(both, top[0], rtol=0.03)
    hidden = largest_amplitudes(coefficients, ShSpace(8), negative=False)
    assert hidden[1] < 0.2 * hidden[0]


def test_sizes():
    largest = np.array([1.0, 2, 8], np.float32)
    np.testing.assert_allclose(gains_of(GlyphStyle(), largest, 2, 3.0), 0.75)
    clipped = gains_of(GlyphStyle(clip=True, size=2), largest, 2, 3.0) * largest
    np.testing.assert_allclose(clipped, [1.5, 1.5, 1.5])
    same = gains_of(GlyphStyle(normalise=True), largest, 2, 3.0) * largest
    np.testing.assert_allclose(same, 1.5)


def test_peaks_are_exact_and_sorted():
    a, b = np.array([1, 2, 3]) / np.sqrt(14), np.array([3, 0, -1]) / np.sqrt(10)
    facts = describe((fodf(a)[0] + 0.6 * fodf(b)[0]).astype(np.float32), ShSpace(8))
    large = facts.amplitudes > 0.3 * facts.amplitudes[0]
    assert large.sum() == 2 and (np.diff(facts.amplitudes) <= 0).all()
    for peak, truth in zip(facts.peaks, (a, b), strict=False):
        assert np.rad2deg(np.arccos(min(1, abs(peak @ truth)))) < 1.5
    one = describe(fodf(a)[0].astype(np.float32), ShSpace(8))
    assert np.rad2deg(np.arccos(min(1, abs(one.peaks[0] @ a)))) < 0.01
    assert one.afd == pytest.approx(1, abs=1e-6)
    ball = describe(np.r_[2, np.zeros(44)].astype(np.float32), ShSpace(8))
    assert ball.gfa == 0 and ball.afd == pytest.approx(2 * np.sqrt(4 * np.pi))
    assert describe(np.zeros(45, np.float32), ShSpace(8)).gfa == 0


def test_sampled_peaks_and_the_angle_between_two_images():
    angle = np.deg2rad(20)
    first = field_of((1, 0, 0), (4, 3, 2))
    second = field_of((np.cos(angle), np.sin(angle), 0), (4, 3, 2))
    np.testing.assert_allclose(first_peak_angles(first, second), 20, atol=1.0)
    empty = ShImage(np.zeros((4, 3, 2, 45), np.float32), np.eye(4))
    assert np.isnan(first_peak_angles(first, empty)).all()
    with pytest.raises(InputError, match="one grid"):
        first_peak_angles(first, field_of((1, 0, 0), (2, 2, 2)))
    peaks, amplitudes = sampled_peaks(fodf([(1, 0, 0), (0, 0.6, 0.8)]).astype("f4"), ShSpace(8))
    assert amplitudes[0, 0] > 0 and amplitudes[0, 1] == 0
    assert abs(peaks[1, 0] @ (0, 0.6, 0.8)) > 0.99


def test_the_detail_follows_size_count_and_machine_with_hysteresis():
    sizes = [choose_frequency(d, 100, SOFTWARE) for d in (3, 10, 30, 100, 300, 1000)]
    assert sizes == sorted(sizes) and sizes[0] <= 4 and sizes[-1] >= 16
    assert choose_frequency(3, 10_000, SOFTWARE) == 3 and choose_frequency(3, 40_000, SOFTWARE) == 2
    assert choose_frequency(30, 1000, SOFTWARE) == 4
    assert choose_frequency(1000, 40_000, SOFTWARE) == 2
    assert choose_frequency(1000, 10_000, HARDWARE) >= 8
    assert choose_frequency(10, 10_000, SOFTWARE, moving=True) == 2
    changes, current = 0, None
    for step in range(40):
        now = choose_frequency(28 * 1.03 ** (step % 2), 500, SOFTWARE, current)
        changes += now != current
        current = now
    assert changes == 1


def test_fields_read_planes_slabs_and_volumes():
    data = np.zeros((4, 5, 6, 6), np.float32)
    data[1:, :, :, 0] = 1
    mask = np.ones((4, 5, 6), bool)
    mask[:, 0] = False
    field = GlyphField(data, mask)
    assert len(field.plane(0, 0)) == 0 and len(field.plane(0, 1)) == 24
    assert len(field.plane(0, 9)) == 0 and len(field.plane(2, 0)) == 12
    assert field.plane(1, 2) is field.plane(1, 2)
    assert len(field.slab(0, 2, 2)) == 48
    voxels = field.planes((2, 2, 2)).voxels
    assert len(np.unique(voxels, axis=0)) == len(voxels) == 24 + 18 + 12 - 6 - 4 - 3 + 1
    assert len(field.volume(1000)) == 72 and field.volume(30).step > 1
    assert field.voxel((1, 1, 1)) is not None
    assert field.voxel((1, 0, 1)) is None and field.voxel((0, 1, 1)) is None
    assert field.voxel((9, 1, 1)) is None
    with pytest.raises(InputError, match="shape"):
        GlyphField(np.zeros((2, 2, 6)))


@pytest.mark.parametrize(
    ("version", "fine"), [("0.9.0", True), ("0.9.2", True), ("0.8.1", False), ("0.10.0", False)]
)
def test_only_tried_versions_of_napari_are_used(version, fine):
    problem = version_problem(version)
    assert (problem == "") == fine
    assert fine or version in problem
