"""Tensor fit with FA, MD and principal direction, WLS and OLS, against DIPY's TensorModel.

Run ``python benchmarks/tensor.py``; ``BENCH_THREADS`` sets the number of threads (2).
"""

from __future__ import annotations

from _timing import best, row, start

GRID = (40, 40, 15)


def main() -> None:
    import numpy as np
    from dipy.core.gradients import gradient_table
    from dipy.reconst.dti import TensorModel

    from napari_dmri import GradientTable, Scan, fit_tensor

    start("Tensor with FA, MD and principal direction, 6 b0 + 30 at b=1200, voxels a second")
    rng = np.random.default_rng(0)
    z = 1 - (np.arange(30) + 0.5) / 30
    phi = np.arange(30) * np.pi * (3 - np.sqrt(5))
    g = np.stack([np.sqrt(1 - z**2) * np.cos(phi), np.sqrt(1 - z**2) * np.sin(phi), z], axis=1)
    bvalues = np.r_[np.zeros(6), np.full(30, 1200.0)]
    table = GradientTable(bvalues, np.concatenate([np.zeros((6, 3)), g]))
    count = int(np.prod(GRID))
    vectors = np.linalg.qr(rng.normal(size=(count, 3, 3)))[0]
    tensors = np.einsum("nij,nj,nkj->nik", vectors, rng.uniform(2e-4, 2e-3, (count, 3)), vectors)
    g = table.directions
    clean = 100 * np.exp(-bvalues * np.einsum("vi,nij,vj->nv", g, tensors, g))
    noise = rng.normal(0, 100 / 30, (2, *clean.shape))
    data = np.hypot(clean + noise[0], noise[1]).reshape(*GRID, 36).astype(np.float32)
    scan = Scan(data, np.eye(4), table)
    gtab = gradient_table(bvalues, bvecs=g)
    for method, target in (("wls", 5.0), ("ols", 1.0)):

        def ours(method: str = method) -> tuple[np.ndarray, np.ndarray]:
            fit = fit_tensor(scan, method, device="cpu")
            return fit.fa, fit.md

        def peer(method: str = method) -> tuple[np.ndarray, np.ndarray]:
            fit = TensorModel(gtab, fit_method=method.upper()).fit(data)
            return fit.fa, fit.md

        a, b = ours(), peer()
        print(
            f"largest difference {method.upper()}: FA {np.abs(a[0] - b[0]).max():.1e}, "
            f"MD {np.abs(a[1] / b[1] - 1).max():.1e} relative"
        )
        row(method.upper(), best(ours, 9), best(peer, 3, warm=0), count, "DIPY", target)


if __name__ == "__main__":
    main()
