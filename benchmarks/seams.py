"""How far fODFs from tiles are from those of one piece: python benchmarks/seams.py [MODEL ...].

A network of the package, or a file, deconvolves a simulated subject once in one piece and once in
tiles, and the error of a voxel is |tiles - piece| / |piece| over the orders above 0 (order 0 is
nearly the same everywhere, and would hide the rest). All voxels of the brain are counted, and those
within two voxels of a cut by themselves. The piece needs about 5 GB.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "2")

import numpy as np

from napari_dmri.deconvolve.evaluation.protocols import PROTOCOLS, make_case
from napari_dmri.deconvolve.shd.inputs import prepare
from napari_dmri.deconvolve.shd.model import ShdModel
from napari_dmri.deconvolve.shd.predict import predict_network
from napari_dmri.deconvolve.shd.shipped import TOLERANCE, find_model, shipped_models
from napari_dmri.deconvolve.shd.tiles import HALO, Box, around, divide, whole

NEAR = 2
SCANS = {2: "low", 3: "high"}
"""Protocols of the evaluation by the number of a network's b-values."""


def near_cuts(shape: tuple[int, ...], tiles: list[Box]) -> np.ndarray:
    """Return the voxels within `NEAR` voxels of where tiles meet."""
    near = np.zeros(shape, bool)
    for axis in range(3):
        for cut in {tile[axis].start for tile in tiles} - {min(t[axis].start for t in tiles)}:
            at = [slice(None)] * 3
            at[axis] = slice(max(0, cut - NEAR), cut + NEAR)
            near[tuple(at)] = True
    return near


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", type=Path, help="files, or names in the package")
    parser.add_argument("--tile", type=int, default=24, help="voxels of a tile along an edge")
    options = parser.parse_args()
    for given in options.models or [Path(model.name) for model in shipped_models()]:
        model = ShdModel.load(find_model(given))
        case = make_case(PROTOCOLS[SCANS[len(model.bvalues)]], "validation", 0)
        made = model.architecture
        prepared = prepare(
            case.scan,
            case.responses,
            others=model.others,
            bvalues=model.bvalues,
            input_order=made.input_order,
            degree=made.degree,
            rule=str(model.card["rule"]),
            tolerance=TOLERANCE,
        )

        def fods(tile: int, halo: int, given=model, seen=prepared) -> np.ndarray:
            found = predict_network(
                given.network, given.architecture, seen, given.others,
                mode="tiled", device="cpu", tile=tile, halo=halo,
            )  # fmt: skip
            return found.coefficients[..., 1:]

        mask = prepared.mask
        box = around(mask, 0)
        piece = fods(512, HALO)
        grid = whole(None, mask.shape)
        near = near_cuts(mask.shape, divide(grid, options.tile, made.multiple)) & mask
        sizes = "x".join(str(s.stop - s.start) for s in box)
        print(f"{given}: {int(mask.sum())} voxels in {sizes}, tiles of {options.tile} voxels")
        for halo in (4, HALO, 16):
            wrong = np.linalg.norm(fods(options.tile, halo) - piece, axis=-1)
            size = np.linalg.norm(piece, axis=-1)
            error = 100 * wrong / np.maximum(size, 1e-9)
            usual = " (usual)" if halo == HALO else ""
            print(
                f"  {halo:2d} more seen{usual}: median {np.median(error[mask]):.2f} %, 95 % of "
                f"voxels below {np.percentile(error[mask], 95):.1f} %; at cuts median "
                f"{np.median(error[near]):.2f} %, 95 % below {np.percentile(error[near], 95):.1f} %"
            )


if __name__ == "__main__":
    main()
