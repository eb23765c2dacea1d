"""Findings: each fault of a gradient table or header is named with its numbers."""

from __future__ import annotations

import numpy as np
import pytest

from napari_dmri.scan import GradientTable, Scan
from napari_dmri.signal.directions import condition_numbers, duplicates, one_sidedness
from napari_dmri.signal.findings import check_scan


def spiral(count):
    """Directions spread evenly over a hemisphere, every second one turned round."""
    i = np.arange(count) + 0.5
    z = i / count
    phi = np.pi * (1 + 5**0.5) * i
    r = np.sqrt(1 - z**2)
    g = np.stack([r * np.cos(phi), r * np.sin(phi), z], 1)
    g[::2] *= -1
    return g


def scan_of(bvalues, directions, affine=None, shape=(10, 10, 10), **metadata):
    table = GradientTable(bvalues, directions)
    affine = np.diag([2.0, 2, 2, 1]) if affine is None else affine
    return Scan(np.zeros((*shape, len(table)), np.int16), affine, table, metadata=metadata)


def usual(count=30, b0=4, bvalue=1000.0):
    return np.r_[np.zeros(b0), np.full(count, bvalue)], np.r_[np.zeros((b0, 3)), spiral(count)]


def find(findings, words):
    hits = [f for f in findings if words in f.title]
    assert len(hits) == 1, [f.title for f in findings]
    return hits[0]


@pytest.mark.parametrize("count", [12, 20, 30, 45, 64, 90, 128])
def test_an_even_table_has_nothing_to_tell(count):
    findings = check_scan(scan_of(*usual(count, b0=max(2, count // 8))))
    assert {f.level for f in findings} == {"ok"}, [f.title for f in findings]
    assert find(findings, "1 shell").detail == f"{count} at b=1000 ({count} distinct)."


def test_the_worst_comes_first():
    levels = [f.level for f in check_scan(scan_of(*usual(5, b0=0)))]
    assert levels[0] == "error"
    assert levels == sorted(levels, key=["error", "warning", "note", "ok"].index)


def test_missing_and_few_b0():
    assert find(check_scan(scan_of(*usual(b0=0, bvalue=700.0))), "No b0").level == "error"
    few = find(check_scan(scan_of(*usual(b0=1))), "Few b0")
    assert few.level == "note"
    assert few.volumes == (0,)


def test_nothing_but_b0_is_an_error():
    table = scan_of(np.zeros(7), np.zeros((7, 3)))
    assert find(check_scan(table), "No diffusion weighting").level == "error"


def test_duplicates_are_named_by_volume_as_axes():
    bvalues, g = usual(30)
    g[10] = -g[20]
    found = find(check_scan(scan_of(bvalues, g)), "1 duplicate direction")
    assert found.level == "warning"
    assert found.volumes == (10, 20)
    assert "10 = 20" in found.detail
    assert "29 directions are distinct" in found.detail
    table = GradientTable(bvalues, g)
    assert duplicates(table, table.shell()) == ((10, 20),)


def test_a_table_measured_twice_is_fine():
    bvalues, g = usual(20, b0=2)
    findings = check_scan(scan_of(np.r_[bvalues, bvalues], np.r_[g, -g]))
    assert find(findings, "measured 2 times").level == "ok"
    assert {f.level for f in findings} == {"ok"}


def test_uneven_directions_come_with_condition_numbers():
    bvalues, g = usual(32)
    weighted = g[4:]
    weighted[:, 2] *= 0.25
    weighted /= np.linalg.norm(weighted, axis=1, keepdims=True)
    findings = check_scan(scan_of(bvalues, g))
    uneven = find(findings, "Uneven directions")
    assert uneven.level == "warning"
    assert "largest hole has a radius of 50 degrees" in uneven.detail
    orders = find(findings, "Ill-conditioned above order")
    numbers = condition_numbers(weighted)
    assert list(numbers) == [2, 4, 6, 8]
    assert np.isinf(numbers[8])
    assert f"6: {numbers[6]:.0f}" in orders.detail
    for order in (2, 4, 6):
        assert numbers[order] <= numbers[order + 2]


def test_few_directions():
    found = find(check_scan(scan_of(*usual(5, b0=2))), "Few directions")
    assert found.volumes == (2, 3, 4, 5, 6)
    few = find(check_scan(scan_of(*usual(3, b0=1))), "Only 4 volumes")
    assert few.level == "warning"
    assert find(check_scan(scan_of([0.0], [[0, 0, 0]])), "Only 1 volume")


def test_one_half_of_the_sphere_is_noted():
    bvalues, g = usual(30)
    assert one_sidedness(g[4:]) < 0.1
    half = np.where(g[:, [2]] < 0, -1, 1) * g
    found = find(check_scan(scan_of(bvalues, half)), "one half of the sphere")
    assert found.level == "note"
    assert f"{one_sidedness(half[4:]):.2f}" in found.detail


def test_b_values_that_vary_or_look_wrong():
    bvalues, g = usual(30)
    bvalues = bvalues.copy()
    bvalues[4:] += np.linspace(-60, 60, 30)
    assert "940 to 1060" in find(check_scan(scan_of(bvalues, g)), "b-values vary").detail
    milli = find(check_scan(scan_of(usual(30, bvalue=1.0)[0], g)), "ms/µm²")
    assert milli.level == "error"
    assert milli.fix == "scale b-values"
    assert "1000" in milli.detail
    high = find(check_scan(scan_of(*usual(30, bvalue=1e6))), "Very high")
    assert len(high.volumes) == 30
    light = usual(30)
    light[0][1] = 15
    assert find(check_scan(scan_of(*light)), "some weighting").volumes == (1,)


def test_voxels_and_thin_images():
    thick = find(check_scan(scan_of(*usual(), np.diag([1.0, 1, 3, 1]))), "Anisotropic voxels")
    assert "3.0 times" in thick.detail
    sheared = np.diag([2.0, 2, 2, 1])
    sheared[1, 2] = 0.3
    assert "not 90" in find(check_scan(scan_of(*usual(), sheared)), "Sheared").detail
    assert find(check_scan(scan_of(*usual(), shape=(20, 20, 3))), "Thin image").level == "note"


def test_what_the_reader_said_is_passed_on():
    given = ["3 b-vectors were normalised (lengths 0.95 to 1.05).", "12 voxels are NaN or Inf."]
    findings = check_scan(scan_of(*usual(), warnings=given, simulated=True))
    assert find(findings, "normalised").detail == given[0]
    assert find(findings, "not finite").level == "warning"
    assert find(findings, "Simulated scan").level == "note"


def test_shells_are_checked_apart():
    a, b = usual(20, b0=4), usual(30, b0=0, bvalue=3000.0)
    findings = check_scan(scan_of(np.r_[a[0], b[0]], np.r_[a[1], b[1]]))
    assert find(findings, "2 shells")
    assert find(findings, "at b=1000")
    assert find(findings, "at b=3000")


def test_the_philips_crop_is_uneven_with_a_safe_order_of_4(real_data):
    from napari_dmri.io import read_scan

    findings = check_scan(read_scan(real_data / "philips_achieva_crop" / "dwi.nii.gz"))
    assert find(findings, "Uneven directions at b=1000")
    assert "support SH order 4" in find(findings, "Ill-conditioned above order 4").detail
    assert find(findings, "duplicate directions").volumes
