"""Files that are wrong, through the command line: one sentence, the exit code, nothing written."""

from __future__ import annotations

import gzip
import json
from pathlib import Path  # noqa: TC003

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

from napari_dmri.cli import app

SHAPE = (9, 8, 7)
AFFINE = np.array([[-2.0, 0, 0, 8], [0, 2, 0, -7], [0, 0, 2.5, -9], [0, 0, 0, 1]])
BVALUES = np.r_[0, 0, np.full(12, 1000.0)]
VERBS = (("info",), ("fit-sh", "-o", "sh.nii.gz"), ("tensor", "-o", "dti"), ("mask", "-o", "m.nii"))


def vectors() -> np.ndarray:
    k = np.arange(12) + 0.5
    z, phi = 1 - k / 12, np.pi * (1 + 5**0.5) * k
    r = np.sqrt(1 - z**2)
    return np.r_[np.zeros((2, 3)), np.stack([r * np.cos(phi), r * np.sin(phi), z], axis=1)]


def signal() -> np.ndarray:
    """Return a block of tissue in a dim surrounding (X, Y, Z, 14), whole numbers."""
    decay = np.exp(-BVALUES * (3e-4 + 1.2e-3 * vectors()[:, 0] ** 2))
    inside = np.zeros(SHAPE)
    inside[1:8, 1:7, 1:6] = 1
    grain = np.random.default_rng(3).integers(1, 9, (*SHAPE, 14))
    return (np.round(900 * inside[..., None] * decay) + grain).astype(np.int16)


def write(folder: Path, *, data=None, bval=BVALUES, bvec=None, affine=AFFINE, name="dwi.nii.gz"):
    """Write a scan with FSL's files; what is None is as it should be."""
    folder.mkdir(parents=True, exist_ok=True)
    bvec = vectors().T if bvec is None else bvec
    stem = name.split(".")[0]
    nib.save(nib.Nifti1Image(signal() if data is None else data, affine), folder / name)
    for ending, content in (("bval", np.atleast_2d(bval)), ("bvec", bvec)):
        np.savetxt(folder / f"{stem}.{ending}", content, fmt="%.6f")
    return folder / name


def call(*args):
    result = CliRunner().invoke(app, [str(a) for a in args])
    assert result.exit_code in (0, 1, 2), result.output + repr(result.exception)
    assert "Traceback" not in result.output
    return result


def run(verb, scan: Path):
    """Call a verb on a scan; its output goes into a folder of its own."""
    name, *rest = verb
    out = scan.parent / "results"
    return call(name, scan, *(out / r if "." in r or r == "dti" else r for r in rest))


def refused(scan: Path, words: str, verbs=VERBS) -> None:
    before = {p: p.read_bytes() for p in scan.parent.rglob("*") if p.is_file()}
    for verb in verbs:
        result = run(verb, scan)
        assert result.exit_code == 2, (verb, result.output)
        (line,) = result.stderr.splitlines()
        assert line.startswith("Error: ")
        assert words in line, line
        assert result.stdout == ""
    assert {p: p.read_bytes() for p in scan.parent.rglob("*") if p.is_file()} == before


def edit(path: Path, name: str, ending: str, change) -> None:
    other = path.with_name(f"{name}.{ending}")
    other.write_text(change(other.read_text()))


def header(path: Path, change) -> None:
    """Change the header of a packed file as it stands on disk, unknown to nibabel."""
    content = bytearray(gzip.decompress(path.read_bytes()))
    change(np.frombuffer(content, nib.Nifti1Header.template_dtype, count=1)[0])
    path.write_bytes(gzip.compress(bytes(content), 1, mtime=0))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("bval.unlink", "dwi.bvec is there but its bval file is not; put it beside"),
        ("bvec.unlink", "dwi.bval is there but its bvec file is not; put it beside"),
        ("both.unlink", "dwi.nii.gz has 14 volumes and no gradient table: dwi.bval and dwi.bvec"),
        ("bval.empty", "dwi.bval is empty; expected numbers"),
        ("bvec.empty", "dwi.bvec is empty; expected numbers"),
        ("bval.short", "14 volumes, 13 b-values (dwi.bval), 14 b-vectors (dwi.bvec)"),
        ("bvec.short", "14 volumes, 14 b-values (dwi.bval), 13 b-vectors (dwi.bvec)"),
        ("bvec.ragged", "dwi.bvec has rows of 13 to 14 numbers"),
        ("bval.words", "dwi.bval, line 1: 'lots' is not a number"),
    ],
)
def test_gradient_files(tmp_path, change, words):
    scan = write(tmp_path)
    which, how = change.split(".")
    for ending in ("bval", "bvec") if which == "both" else (which,):
        path = scan.with_name(f"dwi.{ending}")
        text = path.read_text()
        if how == "unlink":
            path.unlink()
        elif how == "empty":
            path.write_text("\n")
        elif how == "short":
            path.write_text("\n".join(r.rsplit(" ", 1)[0] for r in text.splitlines()))
        elif how == "ragged":
            path.write_text(text.rstrip().rsplit(" ", 1)[0])
        else:
            path.write_text(text.replace("1000.000000", "lots", 1))
    refused(scan, words)


@pytest.mark.parametrize("value", [0, np.nan])
def test_zero_and_nan_vectors(tmp_path, value):
    bvec = vectors().T
    bvec[:, 5] = value
    refused(write(tmp_path, bvec=bvec), "1 of 12 volumes with b > 50 have a zero or non-finite")


def test_negative_b_and_other_units(tmp_path):
    bval = BVALUES.copy()
    bval[4] = -1000
    refused(write(tmp_path, bval=bval), "1 of 14 b-values are negative (lowest -1000 s/mm²")
    refused(write(tmp_path, bval=BVALUES / 1000), "looks like ms/µm²; s/mm² are expected: multiply")
    refused(write(tmp_path, bval=BVALUES * 1e6), "looks like s/m²")


def test_vectors_five_percent_off_are_normalised_and_said(tmp_path):
    scan = write(tmp_path / "off", bvec=vectors().T * 1.05)
    exact = write(tmp_path / "exact")
    for verb in VERBS:
        result = run(verb, scan)
        assert result.exit_code == 0
        assert "12 of 12 b-vectors are not of unit length (1.050 to 1.050)" in result.stderr
    run(VERBS[2], exact)
    fa = [nib.load(s.parent / "results/dti/FA.nii.gz").get_fdata() for s in (scan, exact)]
    np.testing.assert_allclose(*fa, atol=1e-4)


def test_too_few_directions(tmp_path):
    def some(chosen):
        return write(
            tmp_path / f"{len(chosen)}{chosen[0]}",
            data=signal()[..., chosen],
            bval=BVALUES[chosen],
            bvec=vectors()[chosen].T,
        )

    no_b0 = some(list(range(2, 14)))
    assert "No b0 volume. The lowest b-value is 1000" in run(VERBS[0], no_b0).stdout
    refused(no_b0, "has no b0 volume", VERBS[1:3])
    one = some([0, 1, 2])
    assert "1 distinct directions" in run(VERBS[0], one).stdout
    refused(one, "1 distinct direction", VERBS[1:3])
    single = some([0])
    assert "1 volumes" in run(VERBS[0], single).stdout
    refused(single, "b <= 50", VERBS[1:2])
    refused(single, "no diffusion-weighted shell", VERBS[2:3])


def test_order_above_what_the_directions_carry(tmp_path):
    scan = write(tmp_path)
    result = call("fit-sh", scan, "-o", tmp_path / "sh.nii.gz", "--order", 8)
    assert result.exit_code == 2
    assert "order 8 has 45 coefficients" in result.stderr and "choose order 2" in result.stderr
    assert not (tmp_path / "sh.nii.gz").exists()


def test_3d_where_4d_is_needed(tmp_path):
    refused(write(tmp_path, data=signal()[..., 0]), "dwi.nii.gz is 3D (9, 8, 7); a scan is 4D")


def test_truncated_and_foreign_files(tmp_path):
    scan = write(tmp_path)
    whole = scan.read_bytes()
    needed = 352 + signal().nbytes
    scan.write_bytes(whole[: len(whole) // 2])
    refused(scan, f"is truncated or damaged: its header promises {needed} unpacked bytes")
    scan.write_bytes(whole[:100])
    refused(scan, "truncated or damaged within its header")
    scan.write_bytes(b"no image at all" * 99)
    refused(scan, "is not gzip-compressed, against its name; it is no NIfTI file either")
    scan.write_bytes(gzip.decompress(whole))
    refused(scan, "is not gzip-compressed, against its name; rename it to dwi.nii.")
    scan.write_bytes(gzip.compress(gzip.decompress(whole).replace(b"n+1\0", b"XXXX", 1)))
    refused(scan, r"its magic bytes are b'XXXX' and not b'n+1\x00'")
    scan.write_bytes(b"")
    refused(scan, "is empty (0 bytes)")


def test_voxels_that_are_not_finite_are_counted_and_left_out(tmp_path):
    data = signal().astype(np.float32)
    data[3, 3, 3, 3], data[4, 3, 3, 4], data[5, 3, 3, 0] = np.nan, np.inf, -np.inf
    scan = write(tmp_path, data=data)
    assert "3 of 504 voxels hold NaN or Inf, in volumes 0, 3, 4" in run(VERBS[0], scan).stdout
    for verb in VERBS[1:]:
        result = run(verb, scan)
        assert result.exit_code == 0
        assert "3 voxels hold NaN or Inf" in result.stderr, verb
    for name in ("sh.nii.gz", "dti/FA.nii.gz", "dti/tensor.nii.gz"):
        made = nib.load(tmp_path / "results" / name).get_fdata()
        assert np.isfinite(made).all()
        assert not made[3:6, 3, 3].any()
    data[...] = np.nan
    scan = write(tmp_path / "all", data=data)
    assert "error: No signal. All 504 voxels" in run(VERBS[0], scan).stdout
    refused(scan, "504 hold NaN or Inf", VERBS[1:3])


def test_all_zero(tmp_path):
    scan = write(tmp_path, data=signal() * 0)
    assert "error: No signal. All 504 voxels" in run(VERBS[0], scan).stdout
    assert "No signal" not in call("info", scan, "--header").stdout
    refused(scan, "504 are zero in every volume", VERBS[1:3])
    refused(scan, "all 504 voxels are zero, NaN or Inf", VERBS[3:])


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([[-2, -2, 0], [1, 1, 0], [0, 0, 2]], "the affine is singular (determinant 0)"),
        ([[-2, 0, 0], [0, np.nan, 0], [0, 0, 2]], "1 of 16 numbers of the affine are not finite"),
        ([[-2, 0, 0], [0, 2, 0], [0, 0, 0]], "the voxel size is 2 x 2 x 0 mm"),
    ],
)
def test_affines(tmp_path, rows, words):
    scan = write(tmp_path)

    def change(fields):
        for name, row in zip("xyz", rows, strict=True):
            fields[f"srow_{name}"][:3] = row

    header(scan, change)
    refused(scan, words)


def test_zero_voxel_size(tmp_path, capfd):
    scan = write(tmp_path)
    header(scan, lambda fields: fields["pixdim"].__setitem__(3, 0))
    said = run(VERBS[0], scan)
    assert said.exit_code == 0 and "is 2 x 2 x 0 mm; the sform" in said.stdout
    header(scan, lambda fields: fields.__setitem__("sform_code", 0))
    refused(scan, "the voxel size in the header is 2 x 2 x 0 mm; each edge must be above zero")
    assert capfd.readouterr() == ("", "")  # nor does nibabel remark on it


def test_mask_on_another_grid_and_empty(tmp_path):
    scan = write(tmp_path)
    shifted = AFFINE.copy()
    shifted[0, 3] += 1
    for data, affine, words in (
        (np.ones((3, 3, 3)), AFFINE, "is on another grid: 3 x 3 x 3 voxels"),
        (np.ones(SHAPE), shifted, "is on another grid: 9 x 8 x 7 voxels"),
        (np.ones((*SHAPE, 2)), AFFINE, "is 4D (2 volumes); a mask is 3D"),
        (np.zeros(SHAPE), AFFINE, "is empty (504 voxels, none above 0); make or draw"),
    ):
        nib.save(nib.Nifti1Image(data.astype(np.uint8), affine), tmp_path / "mask.nii")
        for verb in VERBS[:3]:
            result = call(
                *verb[:1],
                scan,
                *verb[1:2],
                *([tmp_path / "x.nii"] * (len(verb) > 1)),
                "--mask",
                tmp_path / "mask.nii",
            )
            assert result.exit_code == 2 and words in result.stderr
            assert not (tmp_path / "x.nii").exists()


def test_scaled_and_big_endian_numbers_mean_the_same(tmp_path):
    write(tmp_path / "plain")
    stored = ((signal() - 3) * 2).astype(np.int16)
    scaled = write(tmp_path / "scaled", data=stored)
    header(scaled, lambda f: (f.__setitem__("scl_slope", 0.5), f.__setitem__("scl_inter", 3)))
    image = nib.Nifti1Image(signal().astype(">i2"), AFFINE, nib.Nifti1Header(endianness=">"))
    write(tmp_path / "big")
    nib.save(image, tmp_path / "big" / "dwi.nii.gz")
    assert gzip.decompress((tmp_path / "big" / "dwi.nii.gz").read_bytes())[:4] == b"\0\0\x01\x5c"
    made = []
    for kind in ("plain", "scaled", "big"):
        assert run(VERBS[2], tmp_path / kind / "dwi.nii.gz").exit_code == 0
        made.append(nib.load(tmp_path / kind / "results/dti/tensor.nii.gz").get_fdata())
    np.testing.assert_array_equal(made[0], made[1])
    np.testing.assert_array_equal(made[0], made[2])


def test_paths_with_spaces_and_other_alphabets(tmp_path):
    scan = write(tmp_path / "Ünï cödé 扩散", name="köpf scan.nii.gz")
    for verb in VERBS:
        assert run(verb, scan).exit_code == 0
    made = {p.name for p in (scan.parent / "results").iterdir()}
    assert {"sh.nii.gz", "sh.json", "dti", "m.nii"} <= made
    about = json.loads(call("info", scan, "--json").stdout)
    assert about["path"] == str(scan)


def test_a_file_larger_than_free_memory(tmp_path):
    """A header that promises 43 TB, and a gzip trailer that confirms it (modulo 4 GB)."""
    scan = write(tmp_path)
    huge = (8000, 8000, 8000, 14)

    def change(fields):
        fields["dim"][1:5] = huge

    header(scan, change)
    content = bytearray(scan.read_bytes())
    promised = 352 + 2 * 8000**3 * 14
    content[-4:] = (promised % 2**32).to_bytes(4, "little")
    scan.write_bytes(content)
    for verb in VERBS:
        result = run(verb, scan)
        assert result.exit_code == 2
        assert "GB of memory and" in result.stderr and "GB are free" in result.stderr
    assert not (tmp_path / "results").exists()
    assert call("info", scan, "--header").exit_code == 0


def test_gradient_files_of_other_names(tmp_path):
    scan = write(tmp_path)
    for ending in ("bval", "bvec"):
        scan.with_name(f"dwi.{ending}").rename(tmp_path / f"other.{ending}")
    refused(scan, "or name them (--bval, --bvec)")
    both = ("--bval", tmp_path / "other.bval", "--bvec", tmp_path / "other.bvec")
    for verb in VERBS:
        out = [tmp_path / "out" / v if v != "-o" else v for v in verb[1:]]
        assert call(verb[0], scan, *out, *both).exit_code == 0
    result = call("info", scan, *both[:2])
    assert result.exit_code == 2 and "without its bvec; give both" in result.stderr


def test_results_never_take_the_place_of_their_scan(tmp_path):
    scan = write(tmp_path)
    before = {p: p.read_bytes() for p in tmp_path.iterdir()}
    for verb in ("mask", "fit-sh"):
        for name in ("dwi.nii.gz", "dwi.mif"):
            result = call(verb, scan, "-o", tmp_path / name, "--overwrite")
            assert result.exit_code == 2
            assert "would take the place of files of the scan it is made from" in result.stderr
    assert {p: p.read_bytes() for p in tmp_path.iterdir()} == before
