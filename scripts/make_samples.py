"""Make the sample files of File > Open Sample again: python scripts/make_samples.py.

One simulated subject at two sites, as int16, zero outside the brain mask so that it packs small.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

import napari_dmri
from napari_dmri import ScalarImage, write_map, write_scan
from napari_dmri.phantom.travelling import simulate_subject

SITES = ("ge_st", "prisma_st")


def main() -> None:
    """Simulate, mask and write."""
    folder = Path(napari_dmri.__file__).parent / "sample_data"
    subject = simulate_subject(0, sites=SITES, size="small", seed=7, repeats=False)
    for site, scan in subject.scans.items():
        inside = np.asarray(scan.data) * scan.mask[..., None]
        kept = replace(scan, data=np.rint(inside).astype(np.int16))
        stem = f"{subject.subject}_ses-{site.replace('_', '')}"
        write_scan(kept, folder / f"{stem}_dwi.nii.gz", overwrite=True)
        mask = ScalarImage(scan.mask, scan.affine, f"{scan.name} mask (simulated)")
        write_map(mask, folder / f"{stem}_mask.nii.gz", overwrite=True)
    for path in sorted(folder.iterdir()):
        print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
