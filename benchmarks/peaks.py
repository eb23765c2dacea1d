"""Peaks of 24,000 fODFs against MRtrix3's sh2peaks and DIPY's peak_directions, and CSD + peaks.

Run ``python benchmarks/peaks.py [ORDER ...]`` (8 and 12); ``BENCH_THREADS`` sets the number of
threads (2). The fODFs are those of simulated crossings (SNR 30, our csd, b = 3000). sh2peaks is
timed as a program, reading and writing included; both are continuous. DIPY's peaks are on the
362 axes of its sphere, on one thread, and on a subset of the voxels. Last, all of it from signal
to peaks, where MRtrix3's csd and DIPY's follow their own peaks.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

from _timing import THREADS, best, row, start

SUBSET = 3000


def main() -> None:
    import numpy as np
    from dipy.data import get_sphere
    from dipy.direction import peak_directions

    from napari_dmri import csd, find_peaks, read_peaks, write_scan, write_sh
    from napari_dmri.io import write_response
    from napari_dmri.phantom.crossings import crossing_response, simulate_crossings
    from napari_dmri.signal.sh_fit import evaluate_sh

    warnings.simplefilter("ignore")
    orders = [int(word) for word in sys.argv[1:]] or [8, 12]
    start("Peaks of fODFs (simulated crossings, SNR 30), voxels a second")
    data = simulate_crossings(seed=20261121, snr=(30,))
    scan, response = data.scans[30], crossing_response()
    count = int(np.prod(scan.grid))
    half = get_sphere(name="repulsion724")
    programs = shutil.which("sh2peaks") is not None
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        write_scan(scan, here / "dwi.mif")
        wm = type(response)(response.zonal[-1:], response.bvalues[-1:])
        write_response(wm, here / "wm.txt")
        for order in orders:
            fod = csd(scan, response, order=order).fod
            found = find_peaks(fod)
            ours = best(lambda fod=fod: find_peaks(fod), 7)
            print(f"\norder {order}: {found.count.mean():.2f} peaks a voxel")
            write_sh(fod, here / f"fod{order}.mif")
            for name, extra in (("sh2peaks", []), ("sh2peaks -fast", ["-fast"])):
                if not programs:
                    print(f"{name} is not installed")
                    continue
                call = ["sh2peaks", "-quiet", "-force", "-num", "10", "-nthreads", str(THREADS)]
                call += [*extra, f"fod{order}.mif", "peaks.mif"]
                peer = best(lambda call=call: subprocess.run(call, cwd=here, check=True), 2, 0)
                row("continuous, all maxima, at most 10", ours, peer, count, name)
            if programs:
                theirs = read_peaks(here / "peaks.mif")
                cosine = np.abs(
                    (theirs.directions[..., 0, :] * found.directions[..., 0, :]).sum(-1)
                )
                angle = np.rad2deg(np.arccos(cosine.clip(0, 1)))
                share = (angle < 0.1).mean()
                print(f"share of first peaks within 0.1 degrees of sh2peaks: {share:.4f}")
            odf = evaluate_sh(fod, half.vertices).reshape(count, -1)[:SUBSET].astype(float)

            def grid(odf: np.ndarray = odf) -> None:
                for values in odf:
                    peak_directions(values, half, relative_peak_threshold=0.05)

            peer = best(grid, 1, 0) * count / SUBSET
            row("continuous; the peer's on 362 axes", ours, peer, count, "DIPY")

            whole = best(lambda order=order: find_peaks(csd(scan, response, order=order).fod), 3)
            peers = []
            if programs:
                fods = ["dwi2fod", "-quiet", "-force", "-nthreads", str(THREADS), "-lmax"]
                fods += [str(order), "-shells", "3000", "csd", "dwi.mif", "wm.txt", "wm.mif"]
                call = ["sh2peaks", "-quiet", "-force", "-fast", "-nthreads", str(THREADS)]
                call += ["-num", "10", "wm.mif", "peaks.mif"]

                def both(fods: list[str] = fods, call: list[str] = call) -> None:
                    subprocess.run(fods, cwd=here, check=True)
                    subprocess.run(call, cwd=here, check=True)

                peers.append(("MRtrix3", best(both, 1, 0)))
            if order == 8:
                peers.append(("DIPY", dipy_whole(scan, half) * count / SUBSET))
            for name, peer in peers:
                row("csd + peaks, from signal to peaks", whole, peer, count, name)


def dipy_whole(scan: object, sphere: object) -> float:
    """Return the seconds of DIPY's CSD and peaks on a subset, in one process."""
    import numpy as np
    from dipy.core.gradients import gradient_table
    from dipy.direction import peaks_from_model
    from dipy.reconst.csdeconv import ConstrainedSphericalDeconvModel

    b = scan.gradients.bvalues
    own = (b < 50) | (b > 2000)
    table = gradient_table(b[own], bvecs=scan.gradients.directions[own], b0_threshold=50)
    response = (np.array([1.7e-3, 0.3e-3, 0.3e-3]), 100.0)
    model = ConstrainedSphericalDeconvModel(table, response, sh_order_max=8)
    signal = np.asarray(scan.data).reshape(-1, len(b))[:SUBSET, own].astype(float)
    return best(
        lambda: peaks_from_model(
            model, signal, sphere, relative_peak_threshold=0.2, min_separation_angle=15
        ),
        1,
        0,
    )


if __name__ == "__main__":
    main()
