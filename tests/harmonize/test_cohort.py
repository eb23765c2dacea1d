import numpy as np
import pytest

from napari_dmri import InputError, write_scan
from napari_dmri.harmonize import read_groups, read_pairs
from napari_dmri.harmonize.cohort import source_sites

from .conftest import subject_pair


def table(folder, *rows, name="list.tsv"):
    path = folder / name
    path.write_text("\n".join("\t".join(r) for r in rows) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def files(tmp_path):
    (tmp_path / "scans").mkdir()
    for name in ("a.nii.gz", "b.nii.gz", "c.nii.gz", "m.nii.gz"):
        (tmp_path / "scans" / name).touch()
    return tmp_path


PAIRS = ("subject", "source", "target", "source_mask")


def test_pairs_are_relative_to_the_list(files):
    path = table(files, PAIRS, ("s1", "scans/a.nii.gz", "scans/b.nii.gz", "scans/m.nii.gz"))
    (pair,) = read_pairs(path)
    assert pair.subject == "s1"
    assert pair.source_scan.path == (files / "scans/a.nii.gz").resolve()
    assert pair.source_scan.mask.name == "m.nii.gz" and pair.target_scan.mask is None


def test_pairs_open_when_asked(tmp_path):
    pair = subject_pair(1)
    for role in ("source", "target"):
        write_scan(getattr(pair, role), tmp_path / f"{role} ä.nii.gz")
    path = table(tmp_path, PAIRS[:3], ("sub-X", "source ä.nii.gz", "target ä.nii.gz"))
    (lazy,) = read_pairs(path)
    scan = lazy.source
    assert scan.metadata["subject"] == "sub-X" and scan.simulated
    np.testing.assert_allclose(scan.volumes(), pair.source.data, atol=0.5)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([("subject", "source")], "lacks the column.* target"),
        ([PAIRS], "no rows"),
        ([PAIRS, ("s1", "scans/a.nii.gz", "gone.nii.gz", "")], "row 2: no file at gone.nii.gz"),
        ([PAIRS, ("s1", "scans/a.nii.gz", "", "")], "row 2: target is empty"),
        ([PAIRS, ("s1", "scans/a.nii.gz", "scans/a.nii.gz", "")], "row 2: .* same file"),
        (
            [PAIRS, ("s1", "scans/a.nii.gz", "scans/b.nii.gz", "no_mask.nii.gz")],
            r"row 2: no file at no_mask.nii.gz \(source_mask\)",
        ),
        (
            [
                PAIRS,
                ("s1", "scans/a.nii.gz", "scans/b.nii.gz", ""),
                ("s1", "scans/a.nii.gz", "scans/c.nii.gz", ""),
            ],
            "row 3: subject s1 stands in row 2",
        ),
    ],
)
def test_bad_pairs(files, rows, words):
    with pytest.raises(InputError, match=words):
        read_pairs(table(files, *rows))


def test_one_source_site_of_several(files):
    head = (*PAIRS[:3], "source_site", "target_site")
    rows = [
        (s, f"scans/{a}.nii.gz", "scans/c.nii.gz", site, "T")
        for site, a in (("A", "a"), ("B", "b"))
        for s in ("s1", "s2")
    ]
    path = table(files, head, *rows)
    with pytest.raises(
        InputError, match=r"2 source sites \(A, B\) and a model maps one; choose .*"
    ):
        read_pairs(path)
    assert source_sites(path) == ("A", "B")
    chosen = read_pairs(path, "B")
    assert [p.subject for p in chosen] == ["s1", "s2"]
    assert {p.source_scan.path.name for p in chosen} == {"b.nii.gz"}
    assert {p.source_scan.site for p in chosen} == {"B"}
    with pytest.raises(InputError, match="has the source sites A, B, not 'C'"):
        read_pairs(path, "C")
    plain = table(files, PAIRS[:3], rows[0][:3], name="plain.tsv")
    assert len(read_pairs(plain)) == 1
    with pytest.raises(InputError, match="names no source sites, so 'A' cannot be chosen"):
        read_pairs(plain, "A")


def test_lists_that_are_no_lists(tmp_path):
    with pytest.raises(InputError, match="No list at"):
        read_pairs(tmp_path / "none.tsv")
    (tmp_path / "x.tsv").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(InputError, match="UTF-8"):
        read_groups(tmp_path / "x.tsv")


GROUPS = ("site", "scan", "role")


def test_groups_by_role_and_by_order(files):
    rows = [("x", "scans/a.nii.gz", "target"), ("y", "scans/b.nii.gz", "")]
    groups = read_groups(table(files, GROUPS, *rows))
    assert (groups.source_site, groups.target_site) == ("y", "x")
    assert groups.target[0].site == "x" and len(groups.source) == 1
    plain = [row[:2] for row in rows]
    path = table(files, GROUPS[:2], *plain)
    assert read_groups(path).source_site == "x"
    assert read_groups(path, source="y").source_site == "y"
    with pytest.raises(InputError, match="not 'z'"):
        read_groups(path, source="z")


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([("x", "scans/a.nii.gz", "")], "lists 1 sites"),
        (
            [("x", "scans/a.nii.gz", ""), ("y", "scans/b.nii.gz", ""), ("z", "scans/c.nii.gz", "")],
            r"lists 3 sites \(x, y, z\)",
        ),
        ([("x", "scans/a.nii.gz", "reference")], "row 2: the role is 'reference'"),
        (
            [("x", "scans/a.nii.gz", "source"), ("x", "scans/b.nii.gz", "target")],
            "row 3: x is target here and source above",
        ),
        (
            [("x", "scans/a.nii.gz", "source"), ("y", "scans/b.nii.gz", "source")],
            "both sites have the role 'source'",
        ),
        ([("x", "scans/a.nii.gz", ""), ("y", "scans/a.nii.gz", "")], "row 3: .* row 2 already"),
    ],
)
def test_bad_groups(files, rows, words):
    with pytest.raises(InputError, match=words):
        read_groups(table(files, GROUPS, *rows))
