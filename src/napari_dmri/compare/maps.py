"""Maps of a scan by name, and how two maps differ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, cast
from weakref import WeakKeyDictionary

import numpy as np

from napari_dmri.compare.tissue import TISSUES, tissue_labels
from napari_dmri.errors import InputError
from napari_dmri.images import ScalarImage, ShImage, TensorImage
from napari_dmri.progress import Progress, part, silent
from napari_dmri.provenance import provenance
from napari_dmri.scan import Scan, same_grid

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, MutableMapping, Sequence

    from numpy.typing import NDArray

__all__ = [
    "DIFFERENCES",
    "MAPS",
    "MAP_INFO",
    "TISSUES",
    "MapCache",
    "MapInfo",
    "common_order",
    "compute_map",
    "difference",
    "require_same_grid",
    "tissue_labels",
]

T = TypeVar("T")


@dataclass(frozen=True)
class MapInfo:
    """What a map is: words for a menu, units for a colour bar, and what it is computed from."""

    label: str
    units: str
    needs: str


MAP_INFO: dict[str, MapInfo] = {
    "b0": MapInfo("mean b0", "a.u.", "signal"),
    "volume": MapInfo("one volume", "a.u.", "signal"),
    "FA": MapInfo("fractional anisotropy", "", "tensor"),
    "MD": MapInfo("mean diffusivity", "mm²/s", "tensor"),
    "RISH0": MapInfo("SH energy of order 0", "", "sh"),
    "RISH2": MapInfo("SH energy of order 2", "", "sh"),
    "RISH4": MapInfo("SH energy of order 4", "", "sh"),
    "GFA": MapInfo("generalised fractional anisotropy", "", "sh"),
    "residual": MapInfo("SH fit residual (RMS of S/b0)", "", "sh"),
    "AD": MapInfo("axial diffusivity", "mm²/s", "tensor"),
    "RD": MapInfo("radial diffusivity", "mm²/s", "tensor"),
}
"""Every map by name."""

MAPS: tuple[str, ...] = tuple(MAP_INFO)
"""Names of the maps, in menu order."""

DIFFERENCES: dict[str, str] = {
    "difference": "A − B",
    "percent": "100 (A − B) / B",
    "ratio": "A / B",
}
"""How two maps are set against each other; B is the baseline."""

NEAR_ZERO = 1e-3
"""A baseline below this fraction of its own 99th percentile makes percent and ratio undefined."""


class MapCache:
    """Keep what was computed for a scan, for as long as the scan lives.

    Several maps share one tensor fit or one SH fit; a dock holds one cache and passes it along.
    """

    def __init__(self) -> None:
        self._kept: MutableMapping[Scan, dict[Hashable, Any]] = WeakKeyDictionary()

    def get(self, scan: Scan, key: Hashable, make: Callable[[], T]) -> T:
        """Return what is kept under a key, making it the first time."""
        kept = self._kept.setdefault(scan, {})
        if key not in kept:
            kept[key] = make()
        return cast("T", kept[key])

    def forget(self, scan: Scan | None = None) -> None:
        """Drop what is kept for one scan, or everything."""
        if scan is None:
            self._kept.clear()
        else:
            self._kept.pop(scan, None)


def compute_map(
    scan: Scan,
    name: str,
    *,
    volume: int | None = None,
    order: int | None = None,
    smooth: float = 0.006,
    shell: float | None = None,
    device: str = "auto",
    progress: Progress | None = None,
    cache: MapCache | None = None,
) -> ScalarImage:
    """Compute one map of a scan by its name.

    Parameters
    ----------
    scan
        The scan; with a mask, tensor and SH maps are zero outside it.
    name
        One of `MAPS`.
    volume
        Index of the volume, for ``"volume"``.
    order, smooth, shell
        SH fit, for RISH, GFA and residual: as in `fit_sh` (None chooses); scans that are compared
        should be fitted with one order, see `common_order`.
    device, progress
        Where it runs, who is told.
    cache
        Keeps fits for the next map of the same scan.

    Returns
    -------
    Map (X, Y, Z), float32, with units and provenance.

    Raises
    ------
    InputError
        If the name is unknown, the volume does not exist, or the SH order lacks the RISH degree.
    """
    if name not in MAP_INFO:
        raise InputError(f"Unknown map {name!r}; choose one of {', '.join(MAPS)}.")
    info = MAP_INFO[name]
    kept = cache if cache is not None else MapCache()
    report = progress or silent
    parameters: dict[str, Any] = {"map": name}
    if info.needs == "signal":
        report(0.0, f"reading {info.label} of {scan.name}")
        if name == "b0":
            data = kept.get(scan, "b0", scan.mean_b0)
        else:
            data = _one_volume(scan, volume)
            parameters["volume"] = volume
        report(1.0, f"{info.label} of {scan.name}")
        title = name if name == "b0" else f"volume {volume}"
        made = provenance("map", parameters, {"scan": scan.name}, simulated=scan.simulated)
    elif info.needs == "tensor":
        tensor = _tensor(scan, device, part(progress, 0, 1), kept)
        data = np.asarray(getattr(tensor, name.lower()), dtype=np.float32)
        title, made = name, {**tensor.provenance, "map": name}
    else:
        fit = _sh(scan, order, smooth, shell, device, part(progress, 0, 0.8), kept)
        data = _sh_map(scan, fit, name, device, part(progress, 0.8, 1))
        title, made = name, {**fit.provenance, "map": name}
    return ScalarImage(data, scan.affine, f"{scan.name} {title}", info.units, made)


def common_order(scans: Sequence[Scan], shell: float | None = None) -> int:
    """Return the largest SH order that every scan's directions support.

    SH energies of fits with different orders are not comparable; the poorer scan decides.
    """
    from napari_dmri.signal.sh_fit import choose_order

    orders = []
    for scan in scans:
        table = scan.gradients
        orders.append(choose_order(table.directions[table.shell(shell).indices]))
    return min(orders)


def difference(a: ScalarImage, b: ScalarImage, mode: str = "difference") -> ScalarImage:
    r"""Set a map against a baseline.

    .. math:: a - b, \qquad 100\,\frac{a - b}{b}, \qquad \frac{a}{b}

    Percent and ratio are undefined, and NaN, where :math:`|b|` is below 0.1 % of its own 99th
    percentile; the provenance counts these voxels under ``"undefined"``.

    Parameters
    ----------
    a, b
        Maps on one grid; b is the baseline.
    mode
        ``"difference"``, ``"percent"`` or ``"ratio"``.

    Raises
    ------
    InputError
        If the grids differ or the mode is unknown.
    """
    if mode not in DIFFERENCES:
        raise InputError(f"Unknown comparison {mode!r}; choose one of {', '.join(DIFFERENCES)}.")
    require_same_grid(a, b, "difference")
    x, y = np.asarray(a.data, dtype=np.float32), np.asarray(b.data, dtype=np.float32)
    if x.shape != y.shape:
        raise InputError(f"The maps have shapes {x.shape} and {y.shape}; they must agree.")
    undefined = 0
    if mode == "difference":
        data = x - y
    else:
        low = _near_zero(y)
        inside = low & ((x != 0) | (y != 0))
        undefined = int(inside.sum())
        below = np.where(low, np.float32(1), y)
        data = x / below if mode == "ratio" else 100 * (x - y) / below
        data = np.where(low, np.float32(np.nan), data)
    units = {"difference": a.units, "percent": "%", "ratio": ""}[mode]
    sign = {"difference": f"{a.name} − {b.name}", "ratio": f"{a.name} / {b.name}"}
    name = sign.get(mode, f"{a.name} − {b.name} (%)")
    made = provenance(
        "difference",
        {"mode": mode},
        {"a": a.name, "b": b.name},
        simulated=bool(a.provenance.get("simulated") or b.provenance.get("simulated")),
        undefined=undefined,
    )
    return ScalarImage(data, a.affine, name, units, made)


def require_same_grid(a: Any, b: Any, what: str, names: tuple[str, str] | None = None) -> None:
    """Refuse two things that do not share voxels.

    Raises
    ------
    InputError
        If shapes or affines differ, with both and the remedy.
    """
    if same_grid(a, b):
        return
    first, second = names or (getattr(a, "name", "A"), getattr(b, "name", "B"))
    if tuple(a.shape[:3]) != tuple(b.shape[:3]):
        how = f"{first} has {_by(a)} voxels and {second} {_by(b)}"
    else:
        gap = float(np.abs(np.asarray(a.affine) - np.asarray(b.affine)).max())
        how = f"{first} and {second} have the same shape but affines that differ by {gap:.3g}"
    raise InputError(
        f"The {what} needs both on one grid: {how}; resample one to the other's grid first."
    )


def _by(image: Any) -> str:
    return " x ".join(str(int(n)) for n in image.shape[:3])


def _near_zero(baseline: NDArray[np.float32]) -> NDArray[np.bool_]:
    finite = np.abs(baseline[np.isfinite(baseline) & (baseline != 0)])
    limit = NEAR_ZERO * float(np.percentile(finite, 99)) if finite.size else 0.0
    return ~(np.abs(baseline) > limit)


def _one_volume(scan: Scan, volume: int | None) -> NDArray[np.float32]:
    count = scan.shape[3]
    if volume is None or not 0 <= volume < count:
        given = "no volume was given" if volume is None else f"volume {volume} was asked for"
        raise InputError(
            f"{scan.name} has volumes 0 to {count - 1} and {given}; choose one of them."
        )
    return np.asarray(scan.data[..., volume], dtype=np.float32)


def _tensor(scan: Scan, device: str, progress: Progress, cache: MapCache) -> TensorImage:
    from napari_dmri.signal.tensor import fit_tensor

    return cache.get(
        scan,
        "tensor",
        lambda: fit_tensor(scan, mask=scan.mask, device=device, progress=progress),
    )


def _sh(
    scan: Scan,
    order: int | None,
    smooth: float,
    shell: float | None,
    device: str,
    progress: Progress,
    cache: MapCache,
) -> ShImage:
    from napari_dmri.signal.sh_fit import fit_sh

    return cache.get(
        scan,
        ("sh", order, smooth, shell),
        lambda: fit_sh(
            scan, order, smooth, shell, mask=scan.mask, device=device, progress=progress
        ),
    )


def _sh_map(
    scan: Scan, fit: ShImage, name: str, device: str, progress: Progress
) -> NDArray[np.float32]:
    from napari_dmri.signal.rish import gfa, rish
    from napari_dmri.signal.sh_fit import residual_map

    if name == "GFA":
        return np.asarray(gfa(fit))
    if name == "residual":
        return np.asarray(residual_map(scan, fit, device=device, progress=progress))
    degree = int(name.removeprefix("RISH"))
    if degree > fit.order:
        raise InputError(
            f"{name} needs an SH fit of order {degree} and {scan.name} was fitted with order "
            f"{fit.order}; choose a lower degree, or a higher order if the directions support it."
        )
    return np.ascontiguousarray(rish(fit)[..., degree // 2])
