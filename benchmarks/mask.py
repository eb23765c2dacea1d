"""Brain mask of a synthetic head (64 x 64 x 40 x 100, SNR 20) against DIPY's median_otsu.

Run ``python benchmarks/mask.py``; ``BENCH_THREADS`` sets the number of threads (2).
"""

from __future__ import annotations

from _timing import best, row, start

GRID, SIZE = (64, 64, 40), 3.0


def main() -> None:
    import numpy as np
    from dipy.segment.mask import median_otsu
    from scipy import ndimage

    from napari_dmri import GradientTable, Scan, brain_mask

    start("Brain mask, 64 x 64 x 40 voxels, 6 b0 + 94 at b=1200, voxels a second")
    rng = np.random.default_rng(0)
    axes = (np.arange(n) * SIZE - (n - 1) * SIZE / 2 for n in GRID)
    x, y, z = np.meshgrid(*axes, indexing="ij")
    radius = np.sqrt((x / 62) ** 2 + (y / 76) ** 2 + (z / 50) ** 2)
    brain = radius < 1
    fluid = brain & (np.abs(np.abs(x) - 10) < 6) & (np.abs(y) < 25) & (np.abs(z) < 12)
    scalp = (radius > 1.13) & (radius < 1.2)
    bias = np.exp(0.3 * y / 80)
    data = np.empty((*GRID, 100), np.float32)
    for volume in range(100):
        mean = np.zeros(GRID)
        for region, b0, weighted in ((scalp, 40, 15), (brain, 100, 45), (fluid, 300, 30)):
            mean[region] = b0 if volume < 6 else weighted
        mean = ndimage.gaussian_filter(mean, 0.4) * bias
        noise = rng.normal(0, 5, (2, *GRID))
        data[..., volume] = np.hypot(mean + noise[0], noise[1])
    g = rng.normal(size=(94, 3))
    g /= np.linalg.norm(g, axis=1, keepdims=True)
    table = GradientTable(np.r_[np.zeros(6), np.full(94, 1200.0)], np.r_[np.zeros((6, 3)), g])
    scan = Scan(data, np.diag([SIZE, SIZE, SIZE, 1]), table)

    def peer() -> np.ndarray:
        return median_otsu(data, vol_idx=range(6), median_radius=4, numpass=4)[1]

    for name, mask in (("ours", brain_mask(scan)), ("median_otsu", peer())):
        dice = 2 * (mask & brain).sum() / (mask.sum() + brain.sum())
        print(f"Dice with the truth, {name}: {dice:.3f}")
    ours = best(lambda: brain_mask(scan))
    print(f"ours {ours:.2f} s")
    row("mask", ours, best(peer, 2, warm=0), int(np.prod(GRID)), "median_otsu(4, 4)")


if __name__ == "__main__":
    main()
