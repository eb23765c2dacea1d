"""Responses of simulated brains against their true ones, beside DIPY and MRtrix3; and speed.

An error is the difference of a coefficient from the truth in percent of the shell's own r_0, after
each response was divided by its b0 signal (the scale, which a receive field changes, is a column of
its own). The true response is that of straight fibres with the subject's mean microstructure, on
the shells that the table of gradients says.

Run ``python benchmarks/responses.py [FIRST LAST [ours]]`` (subjects, 2 4; ``ours`` leaves the peers
out); ``BENCH_THREADS`` sets the threads (2). Results are written to
``benchmarks/results/responses.tsv``. DIPY and MRtrix3 see the first subject at two sites only.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

from _timing import THREADS, start

SITES = ("research_hr", "prisma_st", "prisma_st+b3000", "ge_st", "clinical")
PEERS = SITES[:2]
OURS = ("auto", "dhollander", "fa", "tournier")
RESULTS = Path(__file__).resolve().parent / "results" / "responses.tsv"
COLUMNS = ("method", "site", "subject", "tissue", "bvalue", "scale", *"02468", "seconds")


def rows_of(method, site, subject, tissue, zonal, bvalues, true, seconds):
    """Yield a row per shell: errors in percent of the shell's true r_0."""
    import numpy as np

    shared = min(zonal.shape[1], true.shape[1])
    for shell, b in enumerate(bvalues):
        if b == 0 or not np.isfinite(zonal[shell]).all():
            continue
        wanted = true[shell] / true[0, 0]
        error = np.full(5, np.nan)
        count = min(5, shared)
        error[:count] = 100 * (zonal[shell] / zonal[0, 0])[:count]
        error[:count] = (error[:count] - 100 * wanted[:count]) / wanted[0]
        scale = zonal[0, 0] / true[0, 0]
        yield (method, site, subject, tissue, b, scale, *error, seconds)


def ours(scan, algorithm):
    from napari_dmri import DmriWarning, estimate_response

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DmriWarning)
        begin = time.perf_counter()
        found = estimate_response(scan, algorithm, device="cpu")
    return {t: r.zonal for t, r in found.items()}, time.perf_counter() - begin


def dipy(scan):
    """Return DIPY's responses: tensors of its own choice, as zonal coefficients."""
    import numpy as np
    from dipy.core.gradients import gradient_table, unique_bvals_tolerance
    from dipy.reconst.csdeconv import auto_response_ssst
    from dipy.reconst.mcsd import mask_for_response_msmt, response_from_mask_msmt

    from napari_dmri.deconvolve.response_kernel import kernel_zonal

    table = gradient_table(scan.gradients.bvalues, bvecs=scan.gradients.directions)
    data = np.ascontiguousarray(np.asarray(scan.data) * scan.mask[..., None])
    bvalues = [s.bvalue for s in scan.gradients.weighted_shells]
    root = np.sqrt(4 * np.pi)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        begin = time.perf_counter()
        masks = mask_for_response_msmt(table, data, roi_radii=30, wm_fa_thr=0.7)
        found = response_from_mask_msmt(table, data, *masks)
        several = time.perf_counter() - begin
        begin = time.perf_counter()
        (values, level), _ = auto_response_ssst(table, data, roi_radii=30, fa_thr=0.7)
        single = time.perf_counter() - begin
    assert len(unique_bvals_tolerance(table.bvals, tol=20)) == 1 + len(bvalues)

    def zonal(s0, fits):
        rows = np.zeros((1 + len(bvalues), 6))
        rows[0, 0] = root * s0
        for row, b, (a, c) in zip(rows[1:], bvalues, fits, strict=True):
            row[:] = s0 * kernel_zonal([b], 0, 1e3 * a, 1e3 * c, 10)[0]
        return rows

    msmt = {}
    for tissue, fit in zip(("wm", "gm", "csf"), found, strict=True):
        fit = np.atleast_2d(fit)
        pairs = [(f[0], f[1:3].mean()) for f in fit]
        rows = zonal(float(fit[0, 3]), pairs)
        msmt[tissue] = rows if tissue == "wm" else rows[:, :1]
    one = zonal(float(level), [(values[0], values[1])] * len(bvalues))
    return (msmt, several), ({"wm": one}, single)


def mrtrix(scan, algorithm, folder):
    import numpy as np

    from napari_dmri import ScalarImage, write_map, write_scan

    write_scan(scan, folder / "dwi.mif", overwrite=True)
    mask = ScalarImage(scan.mask.astype(np.uint8), scan.affine)
    write_map(mask, folder / "mask.nii.gz", overwrite=True)
    files = ["wm.txt", "gm.txt", "csf.txt"][: 3 if algorithm == "dhollander" else 1]
    command = ["dwi2response", algorithm, "dwi.mif", *files, "-mask", "mask.nii.gz", "-force"]
    command += ["-nthreads", str(THREADS), "-quiet", "-scratch", str(folder)]
    begin = time.perf_counter()
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    seconds = time.perf_counter() - begin
    if algorithm == "dhollander":
        found = {f[:-4]: np.atleast_2d(np.loadtxt(folder / f)) for f in files}
        return {t: z if t == "wm" else z.reshape(-1, 1) for t, z in found.items()}, seconds
    # One row, that of the highest shell, without b0: it is taken at the scale of its own voxels.
    row = np.loadtxt(folder / "wm.txt")
    rows = np.full((len(scan.gradients.shells), len(row)), np.nan)
    rows[0], rows[-1] = 0, row
    subprocess.run(
        "dwi2response tournier dwi.mif again.txt -mask mask.nii.gz -voxels sf.mif -quiet -force "
        "&& mrconvert sf.mif sf.nii -force -quiet",
        cwd=folder,
        shell=True,
        check=True,
        capture_output=True,
    )
    import nibabel as nib

    chosen = np.asarray(nib.load(folder / "sf.nii").dataobj) > 0
    rows[0, 0] = np.sqrt(4 * np.pi) * scan.mean_b0()[chosen].mean()
    return {"wm": rows}, seconds


def main() -> None:
    first, last = (int(a) for a in sys.argv[1:3]) if len(sys.argv) > 2 else (2, 4)
    peers = () if "ours" in sys.argv else PEERS
    start("Responses of simulated brains: error in percent of the shell's r_0")
    import numpy as np

    from napari_dmri.phantom.presets import get_scanner
    from napari_dmri.phantom.travelling import simulate_subject
    from napari_dmri.phantom.truth import responses

    table = []
    for index in range(first, last + 1):
        made = simulate_subject(index, sites=SITES, size="small", repeats=False)
        for site, scan in made.scans.items():
            true = responses(made.truth.subject, get_scanner(site))
            bvalues = [s.bvalue for s in scan.gradients.shells]
            print(f"  {made.subject} {site}", file=sys.stderr)
            some = OURS if index == first and site in peers else OURS[:2]
            runs = {f"ours {a}": ours(scan, a) for a in some}
            if index == first and site in peers:
                for name, run in zip(("DIPY msmt", "DIPY ssst"), dipy(scan), strict=True):
                    runs[name] = run
                if shutil.which("dwi2response"):
                    with tempfile.TemporaryDirectory() as folder:
                        for name in ("dhollander", "tournier"):
                            runs[f"MRtrix {name}"] = mrtrix(scan, name, Path(folder))
            for method, (found, seconds) in runs.items():
                for tissue, zonal in found.items():
                    table += rows_of(
                        method,
                        site,
                        made.subject,
                        tissue,
                        zonal,
                        bvalues,
                        true[tissue],
                        seconds,
                    )
    lines = ["\t".join(COLUMNS)]
    for row in table:
        cells = [f"{v:.4g}" if isinstance(v, float) else str(v) for v in row]
        lines.append("\t".join("" if c == "nan" else c for c in cells))
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(
        f"{'method':18s} {'site':16s} {'tissue':6s} {'b':>5s} {'scale':>6s} largest error by order"
    )
    for key in dict.fromkeys((r[0], r[1], r[3], r[4]) for r in table):
        some = [r for r in table if (r[0], r[1], r[3], r[4]) == key]
        errors = np.array([r[6:11] for r in some], float)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            worst = np.nanmax(np.abs(errors), 0)
        words = " ".join("   -  " if np.isnan(w) else f"{w:6.2f}" for w in worst)
        seconds = np.median([r[11] for r in some])
        scale = np.mean([r[5] for r in some])
        print(
            f"{key[0]:18s} {key[1]:16s} {key[2]:6s} {key[3]:5g} {scale:6.3f} {words}  "
            f"{seconds:6.2f} s"
        )


if __name__ == "__main__":
    main()
