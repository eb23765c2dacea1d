r"""Fit the diffusion tensor by ordinary or weighted linear least squares.

With :math:`y = \ln S` and rows :math:`-b\,(g_x^2, 2 g_x g_y, g_y^2, 2 g_x g_z, 2 g_y g_z, g_z^2)`
and 1 of a design X, the unknowns :math:`\beta = (D_{xx}, \dots, D_{zz}, \ln S_0)` are

.. math::

    \beta_{OLS} = (X^T X)^{-1} X^T y, \qquad
    \beta_{WLS} = (X^T W^2 X)^{-1} X^T W^2 y, \quad W = \mathrm{diag}(e^{X \beta_{OLS}})

(Basser et al. 1994; weights from the predicted signal: Salvador et al. 2005; Chung et al. 2006,
Neuroimage 33:531). The weighted normal matrices of all voxels of a block are one matrix product,
and what is solved for is the small step from OLS to WLS, so float32 loses nothing that matters.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_dmri.device import choose_device, run_tiles
from napari_dmri.errors import DmriWarning, InputError
from napari_dmri.images import TensorImage
from napari_dmri.progress import Progress, silent
from napari_dmri.provenance import provenance
from napari_dmri.signal.blocks import blocks, empty_like_scan, fitting_mask
from napari_dmri.signal.symmetric import eigen_symmetric

if TYPE_CHECKING:
    import torch

    from napari_dmri.scan import Scan

__all__ = ["TensorSolver", "fit_tensor", "tensor_design"]

GAUSSIAN_BVALUE = 1500.0
"""Default fits use shells up to this (s/mm²): above it the signal leaves the tensor model."""

FLOOR = 1e-4
"""Signals below this part of the voxel's largest are raised to it before the logarithm."""

CHUNK = 32768
"""Voxels solved at a time on a CPU: their normal matrices fit the cache, and steps stay few, as
each waits for the slowest thread on a busy machine."""

SMALLEST_PIVOT = 1e-4
"""Weighted systems with smaller relative pivots are solved again in float64."""

MILLI = 1000.0
"""Inside, b is in ms/µm² and D in µm²/ms, so that all unknowns are near 1."""

CITATIONS = {
    "ols": "Basser PJ, Mattiello J, LeBihan D. Estimation of the effective self-diffusion tensor "
    "from the NMR spin echo. J Magn Reson B 103:247-254, 1994.",
    "wls": "Chung SW, Lu Y, Henry RG. Comparison of bootstrap approaches for estimation of "
    "uncertainties of DTI parameters. Neuroimage 33:531-541, 2006.",
}

Array = NDArray[Any]


def tensor_design(bvalues: Array, directions: Array) -> NDArray[np.float64]:
    """Return the design X (N, 7) of b-values (s/mm²) and unit vectors; ln S = X beta."""
    g = np.asarray(directions, dtype=np.float64)
    x, y, z = g.T
    b = np.asarray(bvalues, dtype=np.float64)[:, None]
    products = np.stack([x * x, 2 * x * y, y * y, 2 * x * z, 2 * y * z, z * z], axis=1)
    return np.concatenate([-b * products, np.ones((len(g), 1))], axis=1)


def fit_tensor(
    scan: Scan,
    method: str = "wls",
    *,
    max_bvalue: float | None = None,
    mask: Array | None = None,
    device: str = "auto",
    progress: Progress | None = None,
) -> TensorImage:
    r"""Fit a diffusion tensor in each voxel.

    .. math:: \ln S(b, g) = \ln S_0 - b\, g^T D g

    Parameters
    ----------
    scan
        The scan; its data are read block by block.
    method
        ``"wls"`` (weights from the OLS prediction) or ``"ols"``.
    max_bvalue
        Use volumes up to this b-value (s/mm²). None takes those up to 1500 where they hold at
        least 6 distinct directions, else all.
    mask
        Voxels to fit (X, Y, Z); None takes the scan's mask, else all voxels.
    device, progress
        Where it runs; who is told.

    Returns
    -------
    Tensor in mm²/s, eigenvalues (negative ones set to 0 and counted in the provenance) and
    principal directions, zero outside the mask.

    Raises
    ------
    InputError
        If the method is unknown, fewer than 6 distinct directions are there, a b0 is missing and
        there is one shell only, the mask does not fit, or no voxel has signal.

    Warns
    -----
    DmriWarning
        With the number of voxels left out because of NaN or Inf.
    """
    if method not in CITATIONS:
        raise InputError(f"Unknown tensor method {method!r}; choose 'wls' or 'ols'.")
    volumes, limit = _choose_volumes(scan, max_bvalue)
    inside = fitting_mask(scan, mask)
    where = choose_device(device)
    table = scan.gradients
    solver = TensorSolver(table.bvalues[volumes], table.directions[volumes], method, where.name)
    said = f"tensor {method.upper()}, {len(volumes)} volumes"
    report = progress or silent
    report(0.0, said)
    tensor, eigenvalues, principal = (empty_like_scan(scan, k) for k in (6, 3, 3))
    fitted = empty_like_scan(scan, 1, bool)[..., 0]
    for block in blocks(scan, volumes, inside, where.name):
        *results, good = solver(block.signal)
        for out, values in zip((tensor, eigenvalues, principal), results, strict=True):
            block.put(out, values)
        block.put(fitted, good)
        report(block.done, said)
    counts = solver.counts
    if not counts["fitted"]:
        raise InputError(
            f"{scan.name}: no voxel can be fitted ({counts['zero_in_all_volumes']} are zero in "
            f"every volume, {counts['not_finite']} hold NaN or Inf); check the image file."
        )
    if counts["not_finite"]:
        warnings.warn(
            f"{scan.name}: {counts['not_finite']} voxels hold NaN or Inf and were left out of "
            "the tensor fit.",
            DmriWarning,
            stacklevel=2,
        )
    return TensorImage(
        tensor,
        eigenvalues,
        principal,
        scan.affine,
        mask=fitted,
        name=f"{scan.name} tensor {method.upper()}",
        provenance=provenance(
            "tensor",
            {"method": method, "max_bvalue": limit, "signal_floor": FLOOR},
            inputs={"scan": scan.name, "path": str(scan.path or "")},
            citations=(CITATIONS[method],),
            simulated=scan.simulated,
            volumes=len(volumes),
            bvalues=table.select(volumes).summary(),
            voxels=dict(counts),
            device=where.name,
        ),
    )


def _choose_volumes(scan: Scan, max_bvalue: float | None) -> tuple[NDArray[np.intp], float]:
    """Return the indices of the volumes to use and the limit (s/mm²) that chose them."""
    table = scan.gradients
    weighted = [s for s in table.weighted_shells if max_bvalue is None or s.bvalue <= max_bvalue]
    if max_bvalue is None:
        low = [s for s in weighted if s.bvalue <= GAUSSIAN_BVALUE]
        if low and table.distinct_directions(np.concatenate([s.indices for s in low])) >= 6:
            weighted = low
    if not weighted:
        highest = "any b" if max_bvalue is None else f"b <= {max_bvalue:g}"
        raise InputError(
            f"{scan.name} has no diffusion-weighted shell at {highest} ({table.summary()}); "
            "a tensor needs at least 6 directions: check the bval file."
        )
    chosen = np.concatenate([s.indices for s in weighted])
    distinct = table.distinct_directions(chosen)
    if distinct < 6:
        raise InputError(
            f"{scan.name} has {distinct} distinct direction{'s' * (distinct != 1)} (weighted "
            f"volumes: {len(chosen)}); a tensor has 6 unknowns and needs at least 6 distinct "
            "directions: use a scan with more, or check the bvec file."
        )
    b0 = np.flatnonzero(table.b0_mask)
    if not b0.size and len(weighted) < 2:
        raise InputError(
            f"{scan.name} has no b0 volume and one shell (b={weighted[0].bvalue:g} s/mm²); "
            "a tensor needs a b0 volume or a second shell to tell S0 from diffusion: add a b0 "
            "volume."
        )
    volumes = np.sort(np.concatenate([b0, chosen]))
    design = tensor_design(table.bvalues[volumes] / MILLI, table.directions[volumes])
    if np.linalg.matrix_rank(design, tol=1e-4 * np.linalg.norm(design, 2)) < 7:
        raise InputError(
            f"{scan.name}: the {distinct} directions lie in a plane or on a cone, so the tensor's "
            "6 values cannot be told apart; use a scan with directions all over the sphere."
        )
    return volumes, max(s.bvalue for s in weighted)


class TensorSolver:
    """Fit tensors to signals of one gradient table, and count what was changed.

    Parameters
    ----------
    bvalues, directions
        b in s/mm² (N,) and unit vectors (N, 3), the zero vector for b0.
    method
        ``"wls"`` or ``"ols"``.
    device
        Name of the torch device.
    """

    def __init__(
        self, bvalues: Array, directions: Array, method: str = "wls", device: str = "cpu"
    ) -> None:
        import torch

        design = tensor_design(np.asarray(bvalues) / MILLI, directions)
        pairs = [(i, j) for i in range(7) for j in range(i + 1)]
        products = np.stack([design[:, i] * design[:, j] for i, j in pairs])
        self.method = method
        self.device = torch.device(device)
        self.design = self._constant(design)
        self.exact = torch.from_numpy(design)
        self.inverse = self._constant(np.linalg.pinv(design))
        self.products = self._constant(products)
        self.counts = {
            "fitted": 0,
            "not_finite": 0,
            "zero_in_all_volumes": 0,
            "floored_signals": 0,
            "negative_eigenvalues": 0,
        }

    def _constant(self, array: Array) -> torch.Tensor:
        import torch

        return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32)).to(self.device)

    def __call__(self, signal: Array) -> tuple[Array, Array, Array, Array]:
        """Fit signals (n, N).

        Returns
        -------
        Tensor (n, 6) in mm²/s as xx, xy, yy, xz, yz, zz; eigenvalues (n, 3), largest first;
        principal direction (n, 3); which voxels were fitted (n,). All are transposed views.
        """
        import torch

        n = len(signal)
        result = torch.empty((12, n), dtype=torch.float32)
        good = torch.empty(n, dtype=torch.bool)
        whole = torch.from_numpy(np.require(signal, np.float32, "W") if n else signal.copy())

        def solve(part: slice) -> None:
            values, good[part] = self._solve(whole[part].to(self.device).T)
            result[:, part] = values.to("cpu")

        # Signal, logarithm, residual, weights; the packed normal matrices; the closed form.
        each = 4 * (5 * signal.shape[1] + 4 * 28) + 8 * 64
        most = CHUNK if self.device.type == "cpu" else 2**20
        run_tiles(solve, n, each, str(self.device), most=most)
        out = result.numpy()
        return out[:6].T, out[6:9].T, out[9:].T, good.numpy()

    def _solve(self, signal: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        import torch

        finite = torch.isfinite(signal.sum(0))
        largest = signal.amax(0)
        good = finite & (largest > 0)
        floor = torch.where(good, largest * FLOOR, 1)
        low = signal < floor
        n_low = int(low[:, good].sum()) if bool(low.any()) else 0
        logs = torch.maximum(signal, floor).log_()
        if not bool(good.all()):
            logs = torch.where(good, logs, 0)
        beta = self.inverse @ logs
        if self.method == "wls":
            beta += self._weighted_step(beta, logs)
        wide = beta[:6].to(torch.float32 if self.device.type == "mps" else torch.float64)
        eigenvalues, principal = eigen_symmetric(wide)
        negative = int(((eigenvalues < 0) & good).sum())
        values = torch.cat([wide / MILLI, eigenvalues.clamp_min_(0) / MILLI, principal])
        if not bool(good.all()):
            values = torch.where(good, values, 0)
        n_good, n_finite = int(good.sum()), int(finite.sum())
        for key, more in (
            ("fitted", n_good),
            ("not_finite", len(good) - n_finite),
            ("zero_in_all_volumes", n_finite - n_good),
            ("floored_signals", n_low),
            ("negative_eigenvalues", negative),
        ):
            self.counts[key] += more
        return values.float(), good

    def _weighted_step(self, beta: torch.Tensor, logs: torch.Tensor) -> torch.Tensor:
        """Solve (X' W² X) step = X' W² (y - X beta) by Cholesky, all voxels at once."""
        import torch

        predicted = self.design @ beta
        residual = logs - predicted
        # Weights are free up to a factor: relative to the largest they cannot overflow.
        predicted = predicted.sub_(predicted.amax(0)).mul_(2)
        weights = predicted.exp()
        normal = self.products @ weights
        right = self.design.T @ weights.mul_(residual)
        step, pivot = _solve_packed(normal, right)
        weak = ~((pivot > SMALLEST_PIVOT) & torch.isfinite(step).all(0))
        for some in torch.split(weak.nonzero()[:, 0], CHUNK):
            step[:, some] = _solve_exactly(self.exact, predicted[:, some], residual[:, some])
        return step


def _solve_exactly(
    design: torch.Tensor, exponents: torch.Tensor, residual: torch.Tensor
) -> torch.Tensor:
    """Solve W X step = W (y - X beta) by singular values in float64, voxel by voxel.

    A voxel whose b0 is nearly zero gives its b0 nearly no weight, and then hardly anything tells
    S0 from the trace: float32 normal equations know nothing of it. X is (N, 7) float64, as small
    errors of its own would count; 2 ln W and the residuals are (N, n).
    """
    import torch

    root = (exponents.cpu().double() / 2).exp_()
    matrix = root.T[:, :, None] * design
    right = (root * residual.cpu().double()).T[:, :, None]
    found: torch.Tensor = torch.linalg.lstsq(matrix, right, driver="gelsd").solution[..., 0]
    return found.T.to(residual.dtype).to(residual.device)


def _solve_packed(normal: torch.Tensor, right: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Solve symmetric positive 7 x 7 systems by L D L', packed by rows: (28, n) and (7, n).

    Written out over voxels: torch's batched Cholesky calls LAPACK once a matrix. Also returns the
    smallest pivot relative to its diagonal (n,), which says how many digits are left.
    """
    import torch

    rows = [list(normal[i * (i + 1) // 2 : (i + 1) * (i + 2) // 2].unbind(0)) for i in range(7)]
    diagonal = [rows[j][j] for j in range(7)]
    smallest = torch.ones_like(diagonal[0])
    unknown = list(right.unbind(0))
    tiny = torch.finfo(normal.dtype).tiny
    inverse = []
    for j in range(7):
        smallest = torch.minimum(smallest, rows[j][j] / diagonal[j].clamp_min(tiny))
        inverse.append(1 / rows[j][j].clamp_min(tiny))
        for i in range(j + 1, 7):
            factor = rows[i][j] * inverse[j]
            unknown[i] = torch.addcmul(unknown[i], factor, unknown[j], value=-1)
            for k in range(j + 1, i + 1):
                rows[i][k] = torch.addcmul(rows[i][k], factor, rows[k][j], value=-1)
    for j in reversed(range(7)):
        unknown[j] = unknown[j] * inverse[j]
        for i in range(j):
            unknown[i] = torch.addcmul(unknown[i], rows[j][i], unknown[j], value=-1)
    return torch.stack(unknown), smallest
