"""CSD order 8, 12 and 16 and MSMT-CSD on simulated crossings, against DIPY and MRtrix3.

Run ``python benchmarks/csd.py``; ``BENCH_THREADS`` sets the number of threads (2), and
``python benchmarks/csd.py --memory`` measures a whole brain of 145 x 174 x 145 x 288 instead.
DIPY runs serially (its joblib engine does not gain at this size) on a part of the voxels; MRtrix3's
times are whole processes, reading and writing included.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

from _timing import THREADS, best, row, start

COUNT = 24000
BVALUES = (0.0, 1200.0, 3000.0)


def responses() -> Any:
    """Return the responses of a tensor (1.7, 0.3, 0.3)e-3 mm²/s and of two isotropic tissues."""
    import numpy as np
    from scipy.special import eval_legendre

    from napari_dmri.deconvolve import ResponseSet
    from napari_dmri.images import Response

    t, w = np.polynomial.legendre.leggauss(100)
    b = np.array(BVALUES)
    signal = 100 * np.exp(-b[:, None] * (0.3e-3 + 1.4e-3 * t**2))
    zonal = [
        2 * np.pi * np.sqrt((2 * el + 1) / (4 * np.pi)) * (w * signal * eval_legendre(el, t)).sum(1)
        for el in range(0, 15, 2)
    ]
    wm = Response(np.stack(zonal, 1), BVALUES)
    others = {
        name: Response((100 * np.sqrt(4 * np.pi) * np.exp(-b * d))[:, None], BVALUES, name)
        for name, d in (("gm", 0.8e-3), ("csf", 3e-3))
    }
    return ResponseSet({"wm": wm, **others})


def crossings() -> Any:
    """Return a scan of two fibres a voxel, SNR 30: 6 b0, 30 at b=1200, 64 at b=3000."""
    import numpy as np

    from napari_dmri import GradientTable, Scan
    from napari_dmri.sphere.sampling import half_sphere

    rng = np.random.default_rng(0)
    b = np.repeat(BVALUES, (6, 30, 64))
    table = GradientTable(b, np.concatenate([np.zeros((6, 3)), half_sphere(30), half_sphere(64)]))
    fibres = rng.standard_normal((COUNT, 2, 3))
    fibres /= np.linalg.norm(fibres, axis=2, keepdims=True)
    share = rng.uniform(0.3, 0.7, (COUNT, 1))
    cosine = np.einsum("nkd,gd->nkg", fibres, table.directions)
    signal = 100 * np.exp(-b * (0.3e-3 + 1.4e-3 * cosine**2))
    clean = share * signal[:, 0] + (1 - share) * signal[:, 1]
    noise = rng.standard_normal((2, *clean.shape)) * 100 / 30
    data = np.hypot(clean + noise[0], noise[1]).astype(np.float32)
    return Scan(data.reshape(40, 40, 15, -1), np.diag([2.0, 2.0, 2.0, 1.0]), table)


def dipy_seconds(scan: Any, wm: Any, order: int, count: int) -> float:
    """Return DIPY's time for all voxels, measured on some."""
    import numpy as np
    from dipy.core.gradients import gradient_table
    from dipy.reconst.csdeconv import AxSymShResponse, ConstrainedSphericalDeconvModel

    keep = np.r_[0:6, 36:100]
    gtab = gradient_table(
        scan.gradients.bvalues[keep], bvecs=scan.gradients.directions[keep], b0_threshold=50
    )
    zonal = wm.zonal[2, : order // 2 + 1]
    model = ConstrainedSphericalDeconvModel(gtab, AxSymShResponse(100, zonal), sh_order_max=order)
    data = scan.data.reshape(-1, 100)[:count, keep].astype(float)
    begin = time.perf_counter()
    model.fit(data)
    return (time.perf_counter() - begin) * COUNT / count


def mrtrix_seconds(scan: Any, tissues: Any, what: str, count: int) -> float:
    """Return MRtrix3's time for all voxels, measured on some, as a whole process."""
    import nibabel as nib
    import numpy as np

    table = scan.gradients
    data = scan.data.reshape(-1, 100)[:count]
    with tempfile.TemporaryDirectory() as folder:
        keep = np.arange(36, 100) if what.startswith("csd") else np.arange(100)
        image = data[:, keep].reshape(-1, 1, 1, len(keep))
        nib.save(nib.Nifti1Image(image, scan.affine), Path(folder) / "dwi.nii")
        np.savetxt(Path(folder) / "grad.b", np.c_[table.directions, table.bvalues][keep])
        np.savetxt(Path(folder) / "one.txt", tissues.wm.zonal[2:])
        for name in tissues:
            np.savetxt(Path(folder) / f"{name}.txt", tissues[name].zonal)
        usual = ["-quiet", "-grad", "grad.b", "-nthreads", str(THREADS)]
        if what.startswith("csd"):
            words = ["dwi2fod", "csd", *usual, "-lmax", what.split()[1], "dwi.nii", "one.txt"]
            words += ["fod.nii"]
        else:
            words = ["dwi2fod", "msmt_csd", *usual, "-lmax", "8,0,0", "-shells", "0,1200,3000"]
            words += ["dwi.nii", "wm.txt", "wm.nii", "gm.txt", "gm.nii", "csf.txt", "csf.nii"]
        begin = time.perf_counter()
        subprocess.run(words, cwd=folder, check=True)
        return (time.perf_counter() - begin) * COUNT / count


def speed() -> None:
    """Print rates of ours and the peers."""
    from napari_dmri import csd, msmt_csd
    from napari_dmri.deconvolve.csd import SHARPEST

    start(f"deconvolution, {COUNT} voxels, two fibres, SNR 30, voxels a second")
    scan, tissues = crossings(), responses()
    mrtrix = shutil.which("dwi2fod") is not None
    if not mrtrix:
        print("MRtrix3 is not installed: its rows are left out\n")

    def ours(what: str, call: Any, target: float) -> float:
        seconds = best(call, 3)
        found = call()
        met = "met" if COUNT / seconds >= target else "MISSED"
        share = 100 * found.converged / found.voxels
        print(
            f"{what}: {COUNT / seconds / 1e3:.1f} k/s (target {target / 1e3:g} k/s: {met}), "
            f"{share:.0f} % converged"
        )
        return seconds

    for order, target, part in ((8, 80e3, 3000), (12, 12e3, 1000)):
        seconds = ours(
            f"CSD order {order}, b=3000",
            lambda order=order: csd(scan, tissues, order=order, device="cpu"),
            target,
        )
        row("", seconds, dipy_seconds(scan, tissues.wm, order, part), COUNT, "DIPY")
        if mrtrix:
            peer = mrtrix_seconds(scan, tissues, f"csd {order}", 4 * part)
            row("", seconds, peer, COUNT, "MRtrix3")
    ours(
        "CSD order 16, all shells, Rician, hard (sharpest)",
        lambda: csd(scan, tissues, device="cpu", **SHARPEST),
        12e3,
    )
    seconds = ours(
        "MSMT-CSD order 8, WM + GM + CSF",
        lambda: msmt_csd(scan, tissues, order=8, device="cpu"),
        15e3,
    )
    if mrtrix:
        row("", seconds, mrtrix_seconds(scan, tissues, "msmt", 1500), COUNT, "MRtrix3")


def memory() -> None:
    """Print the memory that deconvolving a whole brain adds, read from a file."""
    import resource

    import numpy as np

    from napari_dmri import GradientTable, Scan, csd
    from napari_dmri.sphere.sampling import half_sphere

    start("memory of CSD order 8 of a brain of 145 x 174 x 145 voxels, 288 volumes")
    shape = (145, 174, 145, 288)
    b = np.repeat((0.0, 1000.0, 2000.0, 3000.0), (18, 90, 90, 90))
    shells = [half_sphere(90)] * 3
    table = GradientTable(b, np.concatenate([np.zeros((18, 3)), *shells]))
    x, y, z = np.ogrid[-1:1:145j, -1:1:174j, -1:1:145j]
    mask = x**2 + y**2 + z**2 < 0.55
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "brain.dat"
        data = np.memmap(path, np.int16, "w+", shape=shape, order="F")
        rng = np.random.default_rng(0)
        for volume in range(288):
            data[..., volume] = rng.integers(100, 200, shape[:3], dtype=np.int16)
        data.flush()
        del data
        scan = Scan(np.memmap(path, np.int16, "r", shape=shape, order="F"), np.eye(4), table)
        wm = responses().wm
        row_ = type(wm)(wm.zonal[2:], (3000.0,))
        csd(crossings(), responses(), order=8, device="cpu")
        before = _anonymous()
        begin = time.perf_counter()
        csd(scan, row_, order=8, mask=mask, iterations=20, tolerance=0, device="cpu")
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(
            f"{int(mask.sum())} voxels in {time.perf_counter() - begin:.1f} s (20 iterations); "
            f"peak of the process, file pages included, {peak:.2f} GB, of which {before:.2f} GB "
            f"before the start"
        )


def _anonymous() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 2**20
    return 0.0


def main() -> None:
    warnings.simplefilter("ignore")
    if "--memory" in sys.argv:
        memory()
    else:
        speed()


if __name__ == "__main__":
    main()
