from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from napari_dmri.errors import InputError
from napari_dmri.scan import GradientTable, Scan, same_grid


def unit(count: int, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(count, 3))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def table(b0: int = 2, shells: tuple[tuple[int, float], ...] = ((6, 1000),)) -> GradientTable:
    bvalues = np.concatenate([np.zeros(b0), *(np.full(n, b) for n, b in shells)])
    return GradientTable(bvalues, np.concatenate([np.zeros((b0, 3)), unit(len(bvalues) - b0)]))


def scan(**changes: object) -> Scan:
    gradients = table()
    data = np.ones((4, 5, 6, len(gradients)), np.float32)
    return Scan(**{"data": data, "affine": np.eye(4), "gradients": gradients, **changes})


def test_shells_cluster_jittered_b_values_and_put_b0_first() -> None:
    bvalues = np.array([0, 5, 995, 1000, 1010, 2990, 3005, 1005])
    directions = np.concatenate([np.zeros((2, 3)), unit(6)])
    shells = GradientTable(bvalues, directions).shells
    assert [s.bvalue for s in shells] == [2, 1002, 2998]
    assert [s.indices.tolist() for s in shells] == [[0, 1], [2, 3, 4, 7], [5, 6]]
    assert shells[0].is_b0 and not shells[1].is_b0


@given(st.permutations(range(12)), st.floats(-20, 20))
def test_shells_do_not_depend_on_the_order_of_volumes(order: list[int], jitter: float) -> None:
    bvalues = np.repeat([0.0, 700.0, 2000.0], [2, 4, 6])
    bvalues[3] += jitter
    directions = np.concatenate([np.zeros((2, 3)), unit(10)])
    shuffled = GradientTable(bvalues[order], directions[order])
    assert [s.count for s in shuffled.shells] == [2, 4, 6]
    for shell in shuffled.shells:
        assert np.ptp(shuffled.bvalues[shell.indices]) < 100


def test_the_default_shell_has_most_directions_and_the_highest_b_on_a_tie() -> None:
    assert table(1, ((6, 1000), (12, 2000), (12, 3000))).shell().bvalue == 3000
    assert table(1, ((20, 1000), (12, 2000))).shell().bvalue == 1000
    with pytest.raises(InputError, match=r"No shell at b=1500 s/mm²; the scan has b=1000, 2000"):
        table(1, ((6, 1000), (6, 2000))).shell(1500)
    with pytest.raises(InputError, match="All 2 volumes have b <= 50"):
        GradientTable([0, 10], np.zeros((2, 3))).shell()


def test_rotation_turns_directions_and_keeps_b_values() -> None:
    turn = Rotation.from_euler("xyz", [10, 20, 30], degrees=True).as_matrix()
    gradients = table()
    turned = gradients.rotate(turn)
    np.testing.assert_allclose(turned.directions[2:], gradients.directions[2:] @ turn.T, atol=1e-12)
    assert (turned.directions[:2] == 0).all()
    np.testing.assert_array_equal(turned.bvalues, gradients.bvalues)


def test_distinct_directions_count_antipodes_once() -> None:
    vectors = unit(5)
    directions = np.concatenate([vectors, -vectors[:2], vectors[:1]])
    assert GradientTable(np.full(8, 1000.0), directions).distinct_directions() == 5


@pytest.mark.parametrize(
    ("bvalues", "directions", "message"),
    [
        ([0, 1000], np.zeros((3, 3)), r"2 b-values and b-vectors of shape \(3, 3\)"),
        ([0, -5], np.zeros((2, 3)), "Negative b-values at volumes 1"),
        ([0, np.nan], np.zeros((2, 3)), "not finite at volumes 1"),
        ([0, 1000], np.zeros((2, 3)), "volumes 1 have lengths 0.000"),
        ([0, 1000], [[0, 0, 0], [0, 0, 1.05]], "lengths 1.050"),
    ],
)
def test_bad_gradient_tables_are_refused(bvalues: list, directions: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        GradientTable(bvalues, directions)


def test_values_are_frozen() -> None:
    gradients = table()
    with pytest.raises(ValueError, match="read-only"):
        gradients.bvalues[0] = 5
    with pytest.raises(AttributeError):
        scan().name = "other"
    with pytest.raises(TypeError):
        scan().metadata["simulated"] = True


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": np.ones((4, 5, 6))}, "shape .4, 5, 6.; a scan is 4D"),
        ({"data": np.ones((4, 5, 6, 3))}, "3 volumes but 8 rows"),
        ({"affine": np.diag([2.0, 2, 0, 1])}, "affine is singular"),
        ({"affine": np.full((4, 4), np.nan)}, "not a finite 4 x 4"),
        ({"mask": np.ones((4, 5, 5), bool)}, r"mask has shape \(4, 5, 5\)"),
    ],
)
def test_bad_scans_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        scan(**changes)


def test_mean_b0_ignores_what_is_not_finite_and_needs_a_b0() -> None:
    data = np.ones((2, 2, 2, 8), np.float32)
    data[..., 1] = 3
    data[0, 0, 0, 0], data[0, 0, 1, 1], data[0, 1, 1, :2] = np.nan, np.inf, np.nan
    mean = scan(data=data).mean_b0()
    assert mean[1, 1, 1] == 2 and mean.dtype == np.float32
    assert mean[0, 0, 0] == 3 and mean[0, 0, 1] == 1 and mean[0, 1, 1] == 0
    weighted = scan(data=data).select(np.arange(2, 8))
    with pytest.raises(InputError, match=r"no b0 volume \(lowest b-value 1000"):
        weighted.mean_b0()


def test_same_grid_compares_voxels_and_millimetres() -> None:
    assert same_grid(scan(), scan())
    assert not same_grid(scan(), scan(affine=np.diag([2.0, 2, 2, 1])))
    assert scan().gradients.summary() == "2 b0 + 6 at b=1000"
    np.testing.assert_array_equal(scan(affine=np.diag([2.0, 3, 4, 1])).voxel_size, [2, 3, 4])
