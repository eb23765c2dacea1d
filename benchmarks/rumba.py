"""RUMBA-SD, 600 iterations: plain, accelerated and RUMBA-TV, against DIPY.

Run ``python benchmarks/rumba.py``; ``BENCH_THREADS`` sets the number of threads (2). DIPY runs on a
few hundred voxels with the same axes, response and iterations; F1 is of the same voxels, by the
matching within 25 degrees of `napari_dmri.compare.fibres`, at the best threshold of each.
"""

from __future__ import annotations

import sys
import warnings

from _timing import best, row, start

VOXELS = int(sys.argv[1]) if len(sys.argv) > 1 else 24000
PEER_VOXELS = 300
BLOCK = (10, 10, 10)
THRESHOLDS = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3)


def main() -> None:
    import numpy as np
    import torch
    from dipy.core.gradients import gradient_table
    from dipy.core.sphere import HemiSphere
    from dipy.direction import peak_directions
    from dipy.reconst.rumba import RumbaSDModel

    from napari_dmri import GradientTable, Scan
    from napari_dmri.deconvolve import find_peaks, rumba
    from napari_dmri.deconvolve.rumba_kernel import make_dictionary
    from napari_dmri.images import Response
    from napari_dmri.sphere.graph import geodesic_axes
    from napari_dmri.sphere.sampling import half_sphere

    warnings.simplefilter("ignore")
    start(f"RUMBA-SD, {VOXELS} voxels, 6 b0 + 30 at b=1200 + 64 at b=3000, SNR 30")
    rng = np.random.default_rng(1)
    bvalues = np.r_[np.zeros(6), np.full(30, 1200.0), np.full(64, 3000.0)]
    vectors = np.concatenate([np.zeros((6, 3)), half_sphere(30), half_sphere(64)])
    table = GradientTable(bvalues, vectors)

    def attenuation(bvalue: np.ndarray, cosine: np.ndarray) -> np.ndarray:
        return np.exp(-bvalue * (0.3e-3 + 1.4e-3 * cosine**2))

    def simulate(count: int) -> tuple[np.ndarray, np.ndarray]:
        """Return two fibres (count, 2, 3) at 30 to 90 degrees and their signal."""
        first = rng.standard_normal((count, 3))
        first /= np.linalg.norm(first, axis=1, keepdims=True)
        side = np.cross(first, rng.standard_normal((count, 3)))
        side /= np.linalg.norm(side, axis=1, keepdims=True)
        angle = np.deg2rad(rng.uniform(30, 90, (count, 1)))
        fibres = np.stack([first, np.cos(angle) * first + np.sin(angle) * side], 1)
        share = rng.uniform(0.3, 0.7, count)
        parts = attenuation(bvalues, fibres @ vectors.T)
        return fibres, share[:, None] * parts[:, 0] + (1 - share[:, None]) * parts[:, 1]

    def noisy(signal: np.ndarray) -> np.ndarray:
        real, other = rng.standard_normal((2, *signal.shape)) * 100 / 30
        return np.hypot(100 * signal + real, other).astype(np.float32)

    nodes, weights = np.polynomial.legendre.leggauss(64)
    shells = (0.0, 1200.0, 3000.0)
    zonal = [
        [
            100
            * np.sqrt(np.pi * (2 * el + 1))
            * (weights * attenuation(np.array(b), nodes))
            @ np.polynomial.legendre.Legendre.basis(el)(nodes)
            for el in range(0, 15, 2)
        ]
        for b in shells
    ]
    response = Response(np.array(zonal), shells)
    fibres, clean = simulate(VOXELS)
    data = noisy(clean)
    scan = Scan(data.reshape(-1, 1, 1, 100), np.eye(4), table)
    few = Scan(scan.data[:PEER_VOXELS], np.eye(4), table)

    limit, rank = bare_products(make_dictionary(scan, response, geodesic_axes(8), "all").matrix)
    print(f"bare products, 3 a step, 95 x 321:  {limit[0]:7.0f} voxels/s at 600 steps")
    print(f"bare products, factorised, rank {rank}: {limit[1]:6.0f} voxels/s at 600 steps\n")

    hemisphere = HemiSphere(xyz=geodesic_axes(8))
    model = RumbaSDModel(
        gradient_table(bvalues, bvecs=vectors, b0_threshold=50),
        wm_response=np.array([1.7e-3, 0.3e-3, 0.3e-3]),
        gm_response=None,
        csf_response=None,
        sphere=hemisphere,
    )
    fitted = []
    peer = best(lambda: fitted.append(model.fit(few.data[:, 0, 0].astype(float))), 1, 0)
    per_voxel = peer / PEER_VOXELS
    odfs = fitted[-1].odf(sphere=hemisphere)

    def f1(peaks: list[np.ndarray]) -> float:
        """Return the F1 of peaks (n, 3) sorted with amplitudes as lengths, at its best."""
        scores = []
        for threshold in THRESHOLDS:
            found = extra = 0
            for true, given in zip(fibres, peaks, strict=False):
                size = np.linalg.norm(given, axis=1)
                kept = given[size >= threshold * size.max()][:5] if len(given) else given
                unit = kept / np.linalg.norm(kept, axis=1, keepdims=True)
                cosine = np.abs(true @ unit.T)
                straight = [(cosine[0, i], cosine[1, j]) for i, j in pairs(len(kept))]
                limit = np.cos(np.deg2rad(25))
                matched = max((sum(c >= limit for c in pair) for pair in straight), default=0)
                if len(kept) == 1:
                    matched = int(cosine.max() >= limit)
                found += matched
                extra += len(kept) - matched
            missed = 2 * len(peaks) - found
            scores.append(2 * found / (2 * found + extra + missed))
        return max(scores)

    grid = []
    for odf in odfs:
        directions, values, _ = peak_directions(
            odf, hemisphere, relative_peak_threshold=0.05, min_separation_angle=15
        )
        grid.append(directions * values[:, None])
    print(f"{'DIPY, 600 iterations, peaks on its axes':46s} F1 {f1(grid):.3f}\n")

    for name, settings in (
        ("plain, 600 iterations", {}),
        ("accelerated, for 600 iterations", {"accelerate": True}),
        ("accelerated, for 1200 iterations", {"accelerate": True, "iterations": 1200}),
    ):
        ours = best(lambda s=settings: rumba(scan, response, device="cpu", **s), 1, 0)
        row(name, ours, per_voxel * VOXELS, VOXELS, "DIPY")
        result = rumba(few, response, device="cpu", **settings)
        peaks = find_peaks(result.fod, most=5, device="cpu")
        scaled = (peaks.directions * peaks.amplitudes[..., None])[:, 0, 0]
        print(f"{'':46s} F1 {f1([p[np.linalg.norm(p, axis=1) > 0] for p in scaled]):.3f}")

    count = int(np.prod(BLOCK))
    _, corners = simulate(8)
    where = np.indices(BLOCK) // 5
    volume = noisy(corners[(where[0] * 4 + where[1] * 2 + where[2]).ravel()])
    together = Scan(volume.reshape(*BLOCK, 100), np.eye(4), table)
    model.voxelwise, model.use_tv, model.n_iter = False, True, 100
    peer = 6 * best(lambda: model.fit(together.data.astype(float)), 1, 0)
    print()
    for name, settings in (("plain", {}), ("accelerated", {"accelerate": True})):
        ours = best(
            lambda s=settings: rumba(together, response, total_variation=True, device="cpu", **s),
            1,
            0,
        )
        row(f"total variation, {name}, {count} voxels", ours, peer, count, "DIPY")
    print(f"torch used {torch.get_num_threads()} threads")


def pairs(count: int) -> list[tuple[int, int]]:
    return [(i, j) for i in range(count) for j in range(count) if i != j]


def bare_products(matrix: object) -> tuple[tuple[float, float], int]:
    """Return voxels a second of the products alone, with H and with its factors, and the rank."""
    import numpy as np
    import torch

    from napari_dmri.deconvolve.rumba_kernel import factorise
    from napari_dmri.deconvolve.workers import workers

    h = torch.tensor(np.asarray(matrix), dtype=torch.float32)
    left, right = (torch.tensor(a, dtype=torch.float32) for a in factorise(np.asarray(matrix)))
    f, s = torch.rand(512, h.shape[1]), torch.rand(512, h.shape[0])
    ht, at, bt = h.T.contiguous(), left.T.contiguous(), right.T.contiguous()

    def whole(k: int, beat: object) -> None:
        for _ in range(20):
            s @ h, (f @ ht) @ h

    def parts(k: int, beat: object) -> None:
        both = torch.empty(1024, left.shape[1])
        for _ in range(20):
            short = f @ bt
            short @ at, s @ left, short @ short[: left.shape[1]], both @ right

    rates = []
    with workers("cpu") as threads:
        for work in (whole, parts):
            seconds = best(lambda w=work: threads.run(w, lambda: None), 5)
            rates.append(512 * 20 * threads.count / seconds / 600)
    return (rates[0], rates[1]), left.shape[1]


if __name__ == "__main__":
    main()
