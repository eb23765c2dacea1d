from __future__ import annotations

import csv
from typing import TYPE_CHECKING

import numpy as np
import pytest

from napari_dmri.errors import Cancelled, InputError
from napari_dmri.io import read_mask, read_scan, read_sh
from napari_dmri.phantom import make_travelling
from napari_dmri.phantom.travelling import TravellingSubject, simulate_subject

if TYPE_CHECKING:
    from pathlib import Path

TINY = (64, 76, 1)


def _bytes(folder: Path) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()
    }


def test_scans_are_marked_and_complete(traveller: TravellingSubject) -> None:
    assert traveller.subject == "sub-01"
    for site in ("ge_st", "prisma_st"):
        scan = traveller.scans[site]
        assert scan.simulated and scan.metadata["subject"] == "sub-01"
        assert scan.metadata["site"] == site and scan.name == f"sub-01 {site}"
        assert scan.shape == (64, 76, 12, 34) and scan.mask.sum() > 20000
        assert scan.data.max() < 2**15 and (scan.data == np.rint(scan.data)).all()
        assert not np.array_equal(scan.data, traveller.repeats[site].data)


def test_same_seed_same_bytes_and_another_differs() -> None:
    a, b = simulate_subject(1, size=TINY), simulate_subject(1, size=TINY)
    c = simulate_subject(1, size=TINY, seed=8)
    assert a.scans["ge_st"].data.tobytes() == b.scans["ge_st"].data.tobytes()
    assert a.repeats["prisma_st"].data.tobytes() == b.repeats["prisma_st"].data.tobytes()
    assert a.scans["ge_st"].data.tobytes() != c.scans["ge_st"].data.tobytes()


def test_sites_of_other_resolution_share_the_anatomy() -> None:
    made = simulate_subject(0, sites=("prisma_st", "research_hr"), size=TINY, repeats=False)
    fine, coarse = made.truths["research_hr"], made.truths["prisma_st"]
    assert made.scans["research_hr"].voxel_size == pytest.approx(2.0)
    volume = np.abs(np.linalg.det(fine.affine)), np.abs(np.linalg.det(coarse.affine))
    # One slice each: amounts per slice thickness agree.
    a = fine.tissue.sum((0, 1, 2)) * volume[0] / 2.0
    b = coarse.tissue.sum((0, 1, 2)) * volume[1] / 2.4
    assert np.allclose(a, b, rtol=0.05)


def test_folder_reads_back(tmp_path: Path) -> None:
    seen: list[float] = []
    pairs = make_travelling(
        tmp_path / "out",
        subjects=2,
        size=TINY,
        workers=1,
        progress=lambda f, _: seen.append(f),
    )
    assert seen == sorted(seen) and seen[-1] == 1
    with pairs.open() as lines:
        rows = list(csv.DictReader(lines, delimiter="\t"))
    assert [r["subject"] for r in rows] == ["sub-01", "sub-02"]
    source = read_scan(pairs.parent / rows[0]["source"])
    assert source.simulated and source.metadata["site"] == "ge_st"
    mask = read_mask(pairs.parent / rows[0]["source_mask"], source)
    memory = simulate_subject(0, size=TINY)
    assert np.array_equal(source.volumes(), memory.scans["ge_st"].data)
    assert np.allclose(source.gradients.directions, memory.scans["ge_st"].gradients.directions)
    assert np.array_equal(mask, memory.truth.mask)
    truth = pairs.parent / "derivatives" / "truth" / "sub-01"
    assert read_sh(truth / "res-2p4" / "fod_order-18.nii.gz").order == 18
    response = np.loadtxt(truth / "ses-gest" / "response_wm.txt")
    assert response.shape == (2, 6)


def test_resume_gives_the_same_bytes(tmp_path: Path) -> None:
    def stop(fraction: float, text: str) -> None:
        if fraction > 0.55:
            raise Cancelled

    arguments = {"subjects": 2, "size": TINY, "truth": False, "workers": 1}
    make_travelling(tmp_path / "whole", **arguments)
    with pytest.raises(Cancelled):
        make_travelling(tmp_path / "parts", progress=stop, **arguments)
    assert not (tmp_path / "parts" / "pairs.tsv").exists()
    make_travelling(tmp_path / "parts", resume=True, **arguments)
    assert _bytes(tmp_path / "whole") == _bytes(tmp_path / "parts")
    make_travelling(tmp_path / "two", **{**arguments, "workers": 2})
    assert _bytes(tmp_path / "whole") == _bytes(tmp_path / "two")


def test_bad_input_is_refused(tmp_path: Path) -> None:
    full = tmp_path / "full"
    full.mkdir()
    (full / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="not empty"):
        make_travelling(full, subjects=1)
    with pytest.raises(InputError, match="nothing to resume"):
        make_travelling(full, subjects=1, resume=True)
    with pytest.raises(InputError, match="is a file"):
        make_travelling(full / "notes.txt", subjects=1)
    new = tmp_path / "new"
    with pytest.raises(InputError, match="0 subjects"):
        make_travelling(new, subjects=0)
    with pytest.raises(InputError, match="Unknown site"):
        make_travelling(new, sites=("mars",))
    with pytest.raises(InputError, match="only once"):
        make_travelling(new, sites=("ge_st", "ge_st"))
    with pytest.raises(InputError, match="at least one"):
        make_travelling(new, sites=())
    with pytest.raises(InputError, match="Unknown size"):
        make_travelling(new, size="huge")
    with pytest.raises(InputError, match="three counts of at least 1"):
        make_travelling(new, size=(0, 4, 4))
    with pytest.raises(InputError, match="seed is -1"):
        make_travelling(new, seed=-1)
    with pytest.raises(InputError, match="0 workers"):
        make_travelling(new, workers=0)
    assert not new.exists()


def test_resuming_with_other_settings_is_refused(tmp_path: Path) -> None:
    arguments = {"subjects": 1, "size": TINY, "truth": False, "sites": ("ge_st",)}
    make_travelling(tmp_path / "out", **arguments)
    with pytest.raises(InputError, match="seed: 7 then, 9 now"):
        make_travelling(tmp_path / "out", resume=True, seed=9, **arguments)
