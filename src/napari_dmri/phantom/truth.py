r"""Ground truth of a simulated subject on one grid: tissue, fibres, fODFs, bundles, responses.

The fODF of a voxel is :math:`f_{lm} = v_{WM} \sum_i f_i w_l(\kappa_i) Y_{lm}(n_i)`, in MRtrix's
convention: convolved with the response, :math:`s_{lm} = \sqrt{4\pi/(2l+1)}\, r_l f_{lm}`, it gives
white matter's signal.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_dmri.images import ScalarImage, ShImage, n_coefficients
from napari_dmri.phantom.bundles import all_bundles, bundle_names
from napari_dmri.phantom.scanner import SIGNAL_SCALE, Scanner
from napari_dmri.phantom.tissue_signal import TISSUE, zonal_response
from napari_dmri.phantom.watson import kernel_coefficients, watson_coefficients
from napari_dmri.progress import Progress, silent
from napari_dmri.sphere.harmonics import degrees, design_matrix

if TYPE_CHECKING:
    from napari_dmri.phantom.anatomy import Subject
    from napari_dmri.phantom.composition import Composition

__all__ = ["Truth", "responses"]

Array = NDArray[Any]

BLOCK = 8000


@dataclass(frozen=True, eq=False)
class Truth:
    """Hold the truth of a subject on a grid; images are made when asked for."""

    subject: Subject
    composition: Composition

    @property
    def affine(self) -> NDArray[np.float64]:
        """Voxel indices to scanner RAS millimetres (4, 4)."""
        return self.composition.grid.affine

    @property
    def mask(self) -> NDArray[np.bool_]:
        """Voxels more than half inside the head (X, Y, Z)."""
        return self.composition.mask

    @property
    def tissue(self) -> NDArray[np.float32]:
        """Fractions of WM, GM and CSF (X, Y, Z, 3)."""
        return np.asarray(self.composition.image("tissue"), np.float32)

    @property
    def directions(self) -> NDArray[np.float32]:
        """Unit directions of up to five populations (X, Y, Z, 5, 3), largest first, or zero."""
        return np.asarray(self.composition.image("directions"), np.float32)

    @property
    def fractions(self) -> NDArray[np.float32]:
        """Their fractions of the white matter (X, Y, Z, 5)."""
        return np.asarray(self.composition.image("fractions"), np.float32)

    @property
    def concentrations(self) -> NDArray[np.float32]:
        """Their Watson concentrations (X, Y, Z, 5)."""
        return np.asarray(self.composition.image("concentrations"), np.float32)

    @property
    def labels(self) -> NDArray[np.int16]:
        """The tissue that fills more than half of a voxel: 1 WM, 2 GM, 3 CSF, 0 else."""
        tissue = self.tissue
        best = tissue.argmax(-1) + 1
        return np.where(tissue.max(-1) > 0.5, best, 0).astype(np.int16)

    def fod(self, order: int = 8, progress: Progress | None = None) -> ShImage:
        """Return the true fODF in SH up to an order."""
        report = progress or silent
        held = self.composition
        count = len(held.index)
        coefficients = np.zeros((count, n_coefficients(order)), np.float32)
        degree = degrees(order) // 2
        for start in range(0, count, BLOCK):
            report(start / max(count, 1), "true fODFs")
            rows = slice(start, start + BLOCK)
            fractions = held.fractions[rows]
            voxel, population = np.nonzero(fractions)
            if not voxel.size:
                continue
            basis = design_matrix(held.directions[rows][voxel, population], order)
            spread = watson_coefficients(held.concentrations[rows][voxel, population], order)
            basis *= spread[:, degree]
            basis *= (fractions[voxel, population] * held.tissue[rows][voxel, 0])[:, None]
            block = coefficients[rows]
            np.add.at(block, voxel, basis.astype(np.float32))
        report(1.0, "true fODFs")
        return ShImage(
            held.grid.fill(held.index, coefficients),
            held.grid.affine,
            mask=held.mask,
            normalised=False,
            name=f"{self.subject.label} true fODF",
            provenance={"method": "phantom", "simulated": True, "order": order},
        )

    def bundle_masks(self, threshold: float = 0.05) -> dict[str, NDArray[np.bool_]]:
        """Return where each bundle holds more than a part of the voxel's white matter."""
        held = self.composition
        enough = held.bundles > 255 * threshold
        enough &= held.tissue[:, :1] > 0.1
        return {
            name: held.grid.fill(held.index, enough[:, k]) for k, name in enumerate(bundle_names())
        }

    def endpoint_labels(self, margin: float = 2.0) -> ScalarImage:
        """Return, per bundle, voxels near its first (1) and second (2) end (X, Y, Z, K), uint8."""
        from scipy.spatial import cKDTree

        held = self.composition
        where = self.subject.deformation.to_template(held.grid.centres(held.index))
        solid = held.tissue[:, :2].sum(1) > 0.3
        labels = np.zeros((len(held.index), len(all_bundles())), np.uint8)
        for k, bundle in enumerate(all_bundles()):
            for value, end in ((1, 0), (2, -1)):
                ends = np.stack([c.points[end] for c in bundle.curves])
                radius = max(float(c.radii[end]) for c in bundle.curves) + margin
                distance, _ = cKDTree(ends).query(where, distance_upper_bound=radius)
                labels[np.isfinite(distance) & solid, k] = value
        return ScalarImage(
            held.grid.fill(held.index, labels),
            held.grid.affine,
            name=f"{self.subject.label} bundle ends",
        )


def responses(subject: Subject, scanner: Scanner, order: int = 10) -> dict[str, Array]:
    r"""Return the response of each tissue: rows are b-values (rising, b = 0 first), columns r_l.

    White matter's is the undispersed single fibre of the subject's mean microstructure; the
    isotropic ones hold :math:`r_0 = \sqrt{4\pi} \bar S`. Units are those of the magnitudes.
    """
    shells = np.array([0.0, *sorted(b for b, _ in scanner.shells)])
    scale = np.array([t.weight(scanner.te, scanner.tr) for t in TISSUE])
    scale *= SIGNAL_SCALE * scanner.gain
    white = zonal_response(shells, subject.intra, subject.diffusivity, order) * scale[0]
    along, across = subject.grey_diffusivity
    mean = kernel_coefficients(shells * (along - across), 0)[:, 0] * np.exp(-shells * across)
    grey = scale[1] * (subject.dot + (1 - subject.dot) * mean)
    free = scale[2] * np.exp(-shells * subject.free_diffusivity)
    root = np.sqrt(4 * np.pi)
    return {"wm": white, "gm": root * grey[:, None], "csf": root * free[:, None]}
