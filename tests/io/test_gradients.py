from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from napari_dmri.errors import DmriWarning, InputError
from napari_dmri.io.gradients import (
    check_table,
    format_fsl,
    fsl_to_scanner,
    read_fsl,
    read_numbers,
    scanner_to_fsl,
)
from napari_dmri.scan import GradientTable

B = np.array([0.0, 1000, 1000, 1000])
G = np.array([[0.0, 0, 0], [1, 0, 0], [0, 0.6, 0.8], [0, 0, 1]])


@st.composite
def affines(draw):
    rotation = Rotation.random(random_state=draw(st.integers(0, 10**6))).as_matrix()
    signs = np.diag(draw(st.tuples(*[st.sampled_from([-1.0, 1.0])] * 3)))
    sizes = draw(st.tuples(*[st.floats(0.5, 5)] * 3))
    affine = np.eye(4)
    affine[:3, :3] = rotation @ signs * np.array(sizes)
    affine[:3, 3] = draw(st.tuples(*[st.floats(-200, 200)] * 3))
    return affine


@settings(max_examples=60, deadline=None)
@given(affine=affines(), seed=st.integers(0, 10**6))
def test_fsl_text_round_trip_for_any_affine(tmp_path_factory, affine, seed):
    vectors = np.random.default_rng(seed).normal(size=(8, 3))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    table = GradientTable(np.array([0.0] + [1234.5] * 7), vectors)
    folder = tmp_path_factory.mktemp("fsl")
    bval, bvec = format_fsl(table, affine)
    (folder / "a.bval").write_text(bval)
    (folder / "a.bvec").write_text(bvec)
    values, read = read_fsl(folder / "a.bval", folder / "a.bvec", 8)
    again = check_table(values, fsl_to_scanner(read, affine), "a")
    np.testing.assert_allclose(again.directions, table.directions, atol=1e-8)
    np.testing.assert_allclose(again.bvalues, table.bvalues)


@settings(max_examples=60, deadline=None)
@given(affine=affines())
def test_mirrored_storage_does_not_change_the_anatomy(affine):
    """Storing the first axis backwards flips det; FSL's vectors then stay as they are."""
    mirrored = affine @ np.diag([-1.0, 1, 1, 1])
    expected = scanner_to_fsl(G, affine)
    np.testing.assert_allclose(scanner_to_fsl(G, mirrored), expected, atol=1e-12)


def test_fsl_frame_known_answers():
    las, ras = np.diag([-2.0, 2, 2, 1]), np.diag([2.0, 2, 2, 1])
    right = np.array([[1.0, 0, 0]])
    np.testing.assert_array_equal(fsl_to_scanner(right, las), [[-1, 0, 0]])
    np.testing.assert_array_equal(fsl_to_scanner(right, ras), [[-1, 0, 0]])
    anterior = np.array([[0.0, 1, 0]])
    np.testing.assert_array_equal(fsl_to_scanner(anterior, ras), anterior)


def write(folder, bval, bvec):
    (folder / "a.bval").write_text(bval)
    (folder / "a.bvec").write_text(bvec)
    return folder / "a.bval", folder / "a.bvec"


def test_rows_columns_commas_and_line_ends(tmp_path):
    rows = "\n".join(" ".join(map(str, r)) for r in G.T)
    columns = "\r\n".join(", ".join(map(str, r)) for r in G)
    for text in (rows, columns):
        values, vectors = read_fsl(*write(tmp_path, "0\n1000\n1000\n1000\n", text), 4)
        np.testing.assert_array_equal(values, B)
        np.testing.assert_array_equal(vectors, G)


def test_three_volumes_are_ambiguous_and_settled_by_lengths(tmp_path):
    vectors = np.array([[1, 0, 0], [0.6, 0.8, 0], [0, 0.6, 0.8]])
    for matrix in (vectors, vectors.T):
        text = "\n".join(" ".join(map(str, r)) for r in matrix)
        _, read = read_fsl(*write(tmp_path, "0 1000 1000", text), 3)
        np.testing.assert_array_equal(read, vectors)


@pytest.mark.parametrize(
    ("bval", "bvec", "words"),
    [
        ("", "0 1\n0 0\n0 0", "is empty"),
        ("0 1000", "", "is empty"),
        ("0 abc", "0 1\n0 0\n0 0", "line 1: 'abc' is not a number"),
        ("0 1000", "0 1\n0 x\n0 0", "line 2: 'x' is not a number"),
        ("0 1000", "0 1\n0 0 0\n0 0", "rows of 2 to 3 numbers"),
        ("0 1000\n5 5", "0 1\n0 0\n0 0", "2 rows of 2 numbers; expected one row"),
        ("0 1000", "0 1\n0 0", "2 rows of 2 numbers; expected 3 rows of 2"),
        ("0 1000 2000", "0 1\n0 0\n0 0", "2 volumes, 3 b-values .* 2 b-vectors"),
        ("0 1000", "0 1 1\n0 0 0\n0 0 1", "2 volumes, 2 b-values .* 3 b-vectors"),
        ("0 1000 1 1", "0 1 1 0\n0 0 0 1\n0 0 1 0", "2 volumes, 4 b-values .* 4 b-vectors"),
    ],
)
def test_bad_text_is_refused(tmp_path, bval, bvec, words):
    with pytest.raises(InputError, match=words):
        read_fsl(*write(tmp_path, bval, bvec), 2)


def test_missing_and_binary_files(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        read_numbers(tmp_path / "none.bval")
    (tmp_path / "b.bval").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(InputError, match="not a readable text"):
        read_numbers(tmp_path / "b.bval")


@pytest.mark.parametrize(
    ("bvalues", "change", "words"),
    [
        (B, {2: [0, 0, 0]}, r"1 of 3 volumes with b > 50 .*zero.*volumes 2"),
        (B, {1: [np.nan, 0, 1]}, r"1 of 3 volumes with b > 50 .*non-finite.*volumes 1"),
        ([0, 1000, -5, 1000], {}, r"1 of 4 b-values are negative \(lowest -5"),
        ([0, 1000, np.nan, 1000], {}, r"1 of 4 b-values are not finite"),
        ([0, 1, 1, 2], {}, r"highest b-value is 2, which looks like ms/µm².*multiply .* 1000"),
        ([0, 1e9, 1e9, 1e9], {}, r"looks like s/m².*divide"),
    ],
)
def test_unusable_tables_are_refused(bvalues, change, words):
    vectors = G.copy()
    for row, value in change.items():
        vectors[row] = value
    with pytest.raises(InputError, match=words):
        check_table(bvalues, vectors, "a.bval")


def test_vectors_off_unit_are_normalised_and_counted():
    notes: list[str] = []
    vectors = G * np.array([1, 1.05, 1, 0.95])[:, None]
    with pytest.warns(DmriWarning, match=r"2 of 3 b-vectors .*0\.950 to 1\.050.*normalised"):
        table = check_table(B, vectors, "a", notes)
    np.testing.assert_allclose(table.directions, G, atol=1e-12)
    assert len(notes) == 1


def test_rounding_is_normalised_in_silence(recwarn):
    table = check_table(B, G * 1.0005, "a")
    np.testing.assert_allclose(np.linalg.norm(table.directions[1:], axis=1), 1, atol=1e-12)
    assert not recwarn.list


def test_nan_vector_of_a_b0_is_harmless():
    vectors = G.copy()
    vectors[0] = np.nan
    assert not check_table(B, vectors, "a").directions[0].any()


def test_no_b0_and_only_b0_are_noted():
    notes: list[str] = []
    check_table(B[1:], G[1:], "a", notes)
    assert "No b0 volume: the lowest b-value is 1000" in notes[0]
    check_table([5, 5, 5, 5], G, "a", notes)
    assert "no diffusion-weighted volume" in notes[1]
