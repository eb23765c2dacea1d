"""Accuracy of fibre directions on simulated crossings: ours, DIPY's and MRtrix3's, in one run.

    python benchmarks/fibres.py run [--table response|true] [--seed N] [--snr 30 20] [--only WORDS]
    python benchmarks/fibres.py table [--table ...] [--seed N]

``run`` adds one line to results/fibres.tsv for each method and SNR that has none yet (``--again``
repeats them), ``table`` prints them as Markdown. Configurations were chosen on seed 20261120 and
are scored on 20261121. Methods see the first voxels only where they are slow: the table says how
many. ``true`` is the table with the generator's own response; ``response`` the one with estimated
responses, 0-30 % grey matter and CSF in each voxel and Watson dispersion of 15 degrees.
"""

from __future__ import annotations

import argparse
import csv
import shutil
import subprocess
import tempfile
import time
import warnings
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from _timing import THREADS

if TYPE_CHECKING:
    from collections.abc import Callable

RESULTS = Path(__file__).parent / "results" / "fibres.tsv"
COLUMNS = (
    "table", "seed", "snr", "method", "volumes", "voxels", "threshold", "F1", "error", "error1",
    "extra", "missed", "success", "30-40", "40-50", "AUC", "seconds",
)  # fmt: skip
SHAPE = (40, 40, 15)
SHAPES = {"true": SHAPE, "response": SHAPE}
SHELL, EVERY = "b = 3000", "b = 0, 1200, 3000"
QUICK = {"accelerate": True, "iterations": 1200}


@dataclass(frozen=True)
class Case:
    """One scan with its truth and what methods are told about the signal."""

    table: str
    seed: int
    snr: int
    scan: object
    truth: object
    responses: object
    pure: object

    def first(self, voxels: int) -> Case:
        """Return the case with the first planes, of so many voxels at least."""
        from dataclasses import replace as change

        from napari_dmri.compare.fibres import FibreTruth

        x, y, z, _ = self.scan.shape
        planes = min(x, -(-voxels // (y * z)))
        n = planes * y * z
        t = self.truth
        scan = change(self.scan, data=self.scan.data[:planes])
        return replace(
            self, scan=scan, truth=FibreTruth(t.directions[:n], t.count[:n], t.angle[:n])
        )


@dataclass(frozen=True)
class Method:
    """A row of the table: what runs, which volumes it sees, how many voxels of which data."""

    name: str
    run: Callable[[Case], object]
    volumes: str
    voxels: int = 24000
    blocks: bool = False


def ours_csd(**settings: object) -> Callable[[Case], object]:
    def run(case: Case) -> object:
        from napari_dmri import csd

        return peaks_of(csd(case.scan, case.responses, **settings).fod)

    return run


def ours_sharpest(case: Case) -> object:
    from napari_dmri import csd
    from napari_dmri.deconvolve.csd import SHARPEST

    return peaks_of(csd(case.scan, case.responses, **SHARPEST).fod)


def ours_msmt(**settings: object) -> Callable[[Case], object]:
    def run(case: Case) -> object:
        from napari_dmri import msmt_csd

        return peaks_of(msmt_csd(case.scan, case.responses, **settings).fod)

    return run


def ours_rumba(**settings: object) -> Callable[[Case], object]:
    def run(case: Case) -> object:
        from napari_dmri import rumba

        return peaks_of(rumba(case.scan, case.responses, **settings).fod)

    return run


def peaks_of(fod: object) -> object:
    from napari_dmri import find_peaks

    return find_peaks(fod, most=10)


def mrtrix(algorithm: str, order: int) -> Callable[[Case], object]:
    """Run dwi2fod and sh2peaks as programs."""

    def run(case: Case) -> object:
        from napari_dmri import write_scan
        from napari_dmri.io import read_peaks, write_response

        with tempfile.TemporaryDirectory() as folder:
            here = Path(folder)
            write_scan(case.scan, here / "dwi.mif")
            wm = case.responses["wm"]
            if algorithm == "csd":
                wm = replace(wm, zonal=wm.zonal[-1:], bvalues=wm.bvalues[-1:])
            write_response(wm, here / "wm.txt")
            call = ["dwi2fod", "-quiet", "-nthreads", str(THREADS), "-lmax", str(order)]
            pairs = ["wm.txt", "wm.mif"]
            if algorithm == "csd":
                call += ["-shells", "3000"]
            else:
                for tissue in [t for t in ("gm", "csf") if t in case.responses]:
                    write_response(case.responses[tissue], here / f"{tissue}.txt")
                    pairs += [f"{tissue}.txt", f"{tissue}.mif"]
                call[call.index("-lmax") + 1] = ",".join(
                    [str(order), *["0"] * (len(pairs) // 2 - 1)]
                )
            subprocess.run([*call, algorithm, "dwi.mif", *pairs], cwd=here, check=True)
            subprocess.run(
                ["sh2peaks", "-quiet", "-nthreads", str(THREADS), "-num", "10", "-fast",
                 "wm.mif", "peaks.mif"], cwd=here, check=True,
            )  # fmt: skip
            return read_peaks(here / "peaks.mif")

    return run


def dipy_table(case: Case) -> object:
    from dipy.core.gradients import gradient_table

    return gradient_table(
        case.scan.gradients.bvalues, bvecs=case.scan.gradients.directions, b0_threshold=50
    )


def dipy_csd(case: Case) -> object:
    """Run DIPY's CSD on the highest shell, and its peaks on the 724 sphere."""
    import numpy as np
    from dipy.core.gradients import gradient_table
    from dipy.data import get_sphere
    from dipy.reconst.csdeconv import ConstrainedSphericalDeconvModel

    b = case.scan.gradients.bvalues
    own = (b < 50) | (b > 2000)
    table = gradient_table(b[own], bvecs=case.scan.gradients.directions[own], b0_threshold=50)
    if case.table == "true":
        response = (np.array([1.7e-3, 0.3e-3, 0.3e-3]), 100.0)
    else:
        response = dipy_response(case, table, own)
    model = ConstrainedSphericalDeconvModel(table, response, sh_order_max=8)
    fit = model.fit(case.scan.data[..., own])
    sphere = get_sphere(name="repulsion724")
    return dipy_peaks(fit.odf(sphere), sphere)


def dipy_response(case: Case, table: object, own: object) -> object:
    from dipy.reconst.csdeconv import mask_for_response_ssst, response_from_mask_ssst

    data = case.pure.data[..., own]
    for anisotropy in (0.7, 0.6, 0.5, 0.4, 0.3):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            mask = mask_for_response_ssst(
                table, data, roi_radii=tuple(s // 2 for s in data.shape[:3]), fa_thr=anisotropy
            )
        if mask.sum() >= 50:
            return response_from_mask_ssst(table, data, mask)[0]
    raise SystemExit("DIPY found no single-fibre voxels")


def dipy_rumba(total_variation: bool) -> Callable[[Case], object]:
    def run(case: Case) -> object:
        import numpy as np
        from dipy.data import get_sphere
        from dipy.reconst.rumba import RumbaSDModel

        sphere = get_sphere(name="repulsion724")
        model = RumbaSDModel(
            dipy_table(case),
            wm_response=np.array([1.7e-3, 0.3e-3, 0.3e-3]),
            gm_response=0.8e-3 if "gm" in case.responses else None,
            csf_response=3.0e-3 if "csf" in case.responses else None,
            n_iter=600,
            voxelwise=not total_variation,
            use_tv=total_variation,
            sphere=sphere,
        )
        fit = model.fit(case.scan.data.astype(float))
        return dipy_peaks(fit.odf(sphere), sphere)

    return run


def dipy_peaks(odf: object, sphere: object) -> object:
    """Return vectors (N, 5, 3) of DIPY's peaks."""
    import numpy as np
    from dipy.direction import peak_directions

    flat = odf.reshape(-1, odf.shape[-1])
    vectors = np.zeros((len(flat), 5, 3))
    for i, values in enumerate(flat):
        u, height, _ = peak_directions(
            values, sphere, relative_peak_threshold=0.05, min_separation_angle=15
        )
        u, height = u[:5], height[:5]
        vectors[i, : len(u)] = u * height[:, None]
    return vectors


METHODS = (
    Method("ours csd, order 8", ours_csd(order=8), SHELL),
    Method("ours csd, order 10", ours_csd(order=10), SHELL),
    Method("ours csd, order 12 (default)", ours_csd(), SHELL),
    Method("ours csd, order 12, all shells", ours_csd(shell="all"), EVERY),
    Method("ours csd, sharpest", ours_sharpest, EVERY),
    Method("ours msmt-csd, order 8", ours_msmt(order=8), EVERY),
    Method("ours msmt-csd, order 10 (default)", ours_msmt(), EVERY),
    Method("ours msmt-csd, order 12", ours_msmt(order=12), EVERY),
    Method("ours rumba", ours_rumba(), EVERY, 600),
    Method("ours rumba, accelerated 1200", ours_rumba(**QUICK), EVERY, 600),
    Method("ours rumba, 3000 voxels", ours_rumba(), EVERY, 3000),
    Method("ours rumba, accelerated 1200, 3000 voxels", ours_rumba(**QUICK), EVERY, 3000),
    Method("ours rumba-tv, blocks", ours_rumba(total_variation=True), EVERY, 4000, True),
    Method("DIPY csd, order 8", dipy_csd, SHELL),
    Method("DIPY rumba", dipy_rumba(False), EVERY, 600),
    Method("DIPY rumba-tv, blocks", dipy_rumba(True), EVERY, 1000, True),
    Method("MRtrix csd, order 8", mrtrix("csd", 8), SHELL),
    Method("MRtrix csd, order 10", mrtrix("csd", 10), SHELL),
    Method("MRtrix csd, order 12", mrtrix("csd", 12), SHELL),
    Method("MRtrix msmt_csd, order 8", mrtrix("msmt_csd", 8), EVERY, 3000),
)


@cache
def simulated(table: str, seed: int, blocks: bool) -> object:
    from napari_dmri.phantom.crossings import simulate_crossings

    extra = {"dispersion": 15.0, "isotropic": 0.3} if table == "response" else {}
    shape = (20, 20, 10) if blocks else SHAPE
    return simulate_crossings(shape, seed=seed, blocks=5 if blocks else 1, **extra)


@cache
def pure_scan(table: str, seed: int, snr: int) -> object:
    """Return a scan to estimate responses from: the crossings, and pure tissue beside them."""
    import numpy as np

    from napari_dmri import Scan
    from napari_dmri.phantom.crossings import BASELINE, CSF, GREY

    scan = simulated(table, seed, False).scans[snr]
    rng = np.random.default_rng([seed, 2, snr])
    b = scan.gradients.bvalues
    sides = []
    for rate in (GREY, CSF):
        clean = np.broadcast_to(BASELINE * np.exp(-b * rate), (5, *scan.shape[1:]))
        real, imaginary = BASELINE / snr * rng.standard_normal((2, *clean.shape))
        sides.append(np.hypot(clean + real, imaginary).astype(np.float32))
    return Scan(np.concatenate([scan.data, *sides]), scan.affine, scan.gradients, name="pure")


@cache
def responses(table: str, seed: int, snr: int) -> object:
    from napari_dmri import estimate_response
    from napari_dmri.deconvolve import ResponseSet
    from napari_dmri.phantom.crossings import crossing_response

    if table == "true":
        return ResponseSet({"wm": crossing_response()})
    return estimate_response(pure_scan(table, seed, snr), order=16)


def case_of(table: str, seed: int, snr: int, method: Method) -> Case:
    data = simulated(table, seed, method.blocks)
    pure = pure_scan(table, seed, snr) if table == "response" else None
    case = Case(table, seed, snr, data.scans[snr], data.truth, responses(table, seed, snr), pure)
    return case.first(method.voxels)


def score(peaks: object, case: Case) -> dict[str, object]:
    from napari_dmri.compare.fibres import best_score, score_curve, score_peaks

    best = best_score(score_peaks(peaks, case.truth))
    curve = score_curve(peaks, case.truth)
    return {
        "voxels": len(case.truth),
        "threshold": best.threshold,
        "F1": f"{best.f1:.4f}",
        "error": f"{best.error:.3f}",
        "error1": f"{best.errors[1]:.3f}",
        "extra": f"{best.extra:.3f}",
        "missed": f"{best.missed:.3f}",
        "success": f"{100 * best.success:.1f}",
        "30-40": f"{100 * best.by_angle[30, 40]:.1f}",
        "40-50": f"{100 * best.by_angle[40, 50]:.1f}",
        "AUC": f"{curve.auc:.4f}",
    }


def read_results() -> list[dict[str, str]]:
    if not RESULTS.exists():
        return []
    with RESULTS.open(newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def write_results(rows: list[dict[str, str]]) -> None:
    RESULTS.parent.mkdir(exist_ok=True)
    names = [m.name for m in METHODS]

    def place(row: dict[str, str]) -> tuple[str, str, int, int]:
        return row["table"], row["seed"], -int(row["snr"]), names.index(row["method"])

    rows = [row for row in rows if row["method"] in names]
    with RESULTS.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, delimiter="\t", lineterminator="\n")
        writer.writeheader()
        writer.writerows(sorted(rows, key=place))


def run(args: argparse.Namespace) -> None:
    for snr in args.snr:
        for method in METHODS:
            chosen = not args.only or any(word in method.name for word in args.only)
            key = (args.table, str(args.seed), str(snr), method.name)
            rows = read_results()
            old = [r for r in rows if tuple(r[c] for c in COLUMNS[:4]) == key]
            if not chosen or (old and not args.again):
                continue
            if method.name.startswith("MRtrix") and shutil.which("dwi2fod") is None:
                print(f"{method.name}: MRtrix3 is not installed")
                continue
            case = case_of(args.table, args.seed, snr, method)
            begin = time.perf_counter()
            peaks = method.run(case)
            seconds = time.perf_counter() - begin
            row = dict(zip(COLUMNS, key, strict=False))
            row |= {"volumes": method.volumes, "seconds": f"{seconds:.1f}", **score(peaks, case)}
            write_results([r for r in read_results() if r not in old] + [row])
            print(*(f"{k}={row[k]}" for k in COLUMNS[2:]), flush=True)


def table(args: argparse.Namespace) -> None:
    """Print F1 at each SNR, and the other scores at the first."""
    first = str(args.snr[0])
    shown = {"error1": "single-fibre error (°)", "30-40": "30-40° (%)", "40-50": "40-50° (%)"}
    heads = ["method", "volumes", "voxels", *(f"F1, SNR {snr}" for snr in args.snr)]
    heads += [f"{words}, SNR {first}" for words in shown.values()]
    print("| " + " | ".join(heads) + " |\n" + "|---" * len(heads) + "|")
    rows = [r for r in read_results() if (r["table"], r["seed"]) == (args.table, str(args.seed))]
    for method in METHODS:
        mine = {r["snr"]: r for r in rows if r["method"] == method.name}
        if first in mine:
            row = mine[first]
            f1 = [mine[str(snr)]["F1"] if str(snr) in mine else "" for snr in args.snr]
            cells = [method.name, row["volumes"], row["voxels"], *f1, *(row[c] for c in shown)]
            print("| " + " | ".join(cells) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("run", "table"))
    parser.add_argument("--table", choices=("true", "response"), default="true")
    parser.add_argument("--seed", type=int, default=20261121)
    parser.add_argument("--snr", type=int, nargs="+", default=[30, 20])
    parser.add_argument("--only", nargs="+", help="words of the methods' names", default=[])
    parser.add_argument("--again", action="store_true", help="repeat what has a result")
    args = parser.parse_args()
    import torch

    torch.set_num_threads(THREADS)
    warnings.simplefilter("ignore")
    (run if args.what == "run" else table)(args)


if __name__ == "__main__":
    main()
