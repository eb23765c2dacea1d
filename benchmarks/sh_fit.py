"""SH fit, order 8, lambda 0.006, 64 directions, against DIPY's sf_to_sh and the GEMM limit.

Run ``python benchmarks/sh_fit.py``; ``BENCH_THREADS`` sets the number of threads (2).
"""

from __future__ import annotations

import warnings

from _timing import best, row, start

GRID = (80, 80, 30)


def main() -> None:
    import numpy as np
    import torch
    from dipy.core.gradients import gradient_table
    from dipy.core.sphere import Sphere
    from dipy.reconst.shm import QballModel, sf_to_sh

    from napari_dmri import GradientTable, Scan, fit_sh
    from napari_dmri.signal.sh_fit import fit_sh_array, fitting_matrix

    warnings.simplefilter("ignore")
    start("SH fit, order 8, lambda 0.006, 64 directions, voxels a second")
    rng = np.random.default_rng(0)
    z = 1 - (np.arange(64) + 0.5) / 64
    phi = np.arange(64) * np.pi * (3 - np.sqrt(5))
    g = np.stack([np.sqrt(1 - z**2) * np.cos(phi), np.sqrt(1 - z**2) * np.sin(phi), z], axis=1)
    count = int(np.prod(GRID))
    matrix = fitting_matrix(g, 8, 0.006)
    sphere = Sphere(xyz=g)

    def dipy(signal: np.ndarray) -> np.ndarray:
        return sf_to_sh(
            signal, sphere, sh_order_max=8, basis_type="tournier07", smooth=0.006, legacy=False
        )

    signal = rng.random((*GRID, 64), dtype=np.float32)
    flat = torch.from_numpy(signal.reshape(-1, 64))
    factor, out = torch.from_numpy(matrix.T.astype(np.float32).copy()), torch.empty(count, 45)
    limit = best(lambda: torch.mm(flat, factor, out=out), 9)
    print(f"GEMM limit (torch.mm into memory at hand): {count / limit / 1e6:.1f} M/s\n")

    difference = np.abs(fit_sh_array(signal, matrix) - dipy(signal)).max()
    print(f"largest difference of coefficients: {difference:.1e}\n")
    ours = best(lambda: fit_sh_array(signal, matrix), 9)
    row("array (x, y, z, 64), C order", ours, best(lambda: dipy(signal)), count, "sf_to_sh", 5)
    fortran = np.asfortranarray(signal)
    ours = best(lambda: fit_sh_array(fortran, matrix), 9)
    peer = best(lambda: dipy(fortran), 3)
    row("array (x, y, z, 64), as NIfTI lies in memory", ours, peer, count, "sf_to_sh", 5)
    two = signal.reshape(-1, 64)
    ours = best(lambda: fit_sh_array(two, matrix), 9)
    row(
        "array (n, 64): DIPY's best case, a float64 GEMM",
        ours,
        best(lambda: dipy(two)),
        count,
        "sf_to_sh",
    )

    bvalues = np.r_[0, 0, np.full(64, 3000.0)]
    table = GradientTable(bvalues, np.concatenate([np.zeros((2, 3)), g]))
    model = QballModel(gradient_table(bvalues, bvecs=table.directions), 8, smooth=0.006)
    for name, order in (("C order", "C"), ("as NIfTI lies in memory", "F")):
        data = np.asarray(rng.random((*GRID, 66), dtype=np.float32) + 0.5, order=order)
        scan = Scan(data, np.eye(4), table)
        ours = best(lambda scan=scan: fit_sh(scan, 8, device="cpu"))
        peer = best(lambda data=data: model.fit(data), 2)
        row(f"whole fit of a scan (S/b0, clip), {name}", ours, peer, count, "QballModel")


if __name__ == "__main__":
    main()
