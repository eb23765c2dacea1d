"""Slices of maps side by side, in radiological orientation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_dmri.compare.style import Style, values_of
from napari_dmri.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_dmri.images import ScalarImage

__all__ = ["PLANES", "Panel", "centre_of", "draw_slice", "limits_of", "panel_figure"]

PLANES: tuple[str, ...] = ("axial", "coronal", "sagittal")
"""The planes that slices are cut along."""

_NORMAL = {"sagittal": 0, "coronal": 1, "axial": 2}
_EDGES = {"axial": ("R", "L", "A", "P"), "coronal": ("R", "L", "S", "I")}
_SIDES = {**_EDGES, "sagittal": ("A", "P", "S", "I")}


@dataclass(frozen=True)
class Panel:
    """One panel of a figure: a map and how to show it.

    A diverging panel uses a red-blue map with limits that are symmetric about its centre: 0 for
    differences and percent, 1 for a ratio.
    """

    image: ScalarImage
    title: str
    diverging: bool = False
    limits: tuple[float, float] | None = None
    centre: float = 0.0


def centre_of(mask: NDArray[Any] | None, shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Return the voxel in the middle of a mask's extent, or of the grid."""
    middle = [int(n) // 2 for n in shape[:3]]
    if mask is not None and np.asarray(mask).any():
        for axis, found in enumerate(np.nonzero(mask)):
            middle[axis] = (int(found.min()) + int(found.max())) // 2
    return middle[0], middle[1], middle[2]


def limits_of(
    image: ScalarImage,
    mask: NDArray[Any] | None = None,
    *,
    diverging: bool = False,
    centre: float = 0.0,
) -> tuple[float, float]:
    """Choose colour limits: the 1st to 99th percentile, or symmetric about a centre."""
    value = values_of(image, mask, image)
    if not value.size:
        return centre - 1.0, centre + 1.0
    if diverging:
        reach = float(np.percentile(np.abs(value - centre), 99)) or 1.0
        return centre - reach, centre + reach
    low, high = (float(v) for v in np.percentile(value, (1, 99)))
    low = min(low, 0.0) if low < 0 else 0.0
    return (low, high) if high > low else (low, low + 1.0)


def draw_slice(
    ax: Any,
    panel: Panel,
    plane: str,
    index: int,
    *,
    limits: tuple[float, float],
    style: Style | None = None,
    edges: bool = True,
) -> Any:
    """Draw one slice in radiological orientation: the subject's right on the left side.

    Axial slices are seen from the feet, anterior up; coronal from the front, superior up;
    sagittal from the subject's left, anterior on the left. Voxel proportions are true.

    Returns
    -------
    The matplotlib image, for a colour bar.
    """
    if plane not in _NORMAL:
        raise InputError(f"Unknown plane {plane!r}; choose one of {', '.join(PLANES)}.")
    look = style or Style()
    axis = _NORMAL[plane]
    data = np.asarray(panel.image.data)
    if not 0 <= index < data.shape[axis]:
        raise InputError(f"Slice {index} of {plane} is outside 0 to {data.shape[axis] - 1}.")
    cut = np.take(data, index, axis=axis)
    sizes = np.linalg.norm(np.asarray(panel.image.affine)[:3, :3], axis=0)
    across, up = (s for i, s in enumerate(sizes) if i != axis)
    # Canonical order is R+ (or A+ in a sagittal cut) across and A+ or S+ up. Both first axes run
    # to the right of the picture here, so flipping them puts right, or anterior, on the left.
    picture = np.flip(cut, 0).T
    drawn = ax.imshow(
        picture,
        origin="lower",
        cmap="RdBu_r" if panel.diverging else "gray",
        vmin=limits[0],
        vmax=limits[1],
        aspect=float(up / across),
        interpolation="nearest",
    )
    ax.set_axis_off()
    if edges:
        left, right, top, bottom = _SIDES[plane]
        for text, x, y, ha, va in (
            (left, 0.01, 0.5, "left", "center"),
            (right, 0.99, 0.5, "right", "center"),
            (top, 0.5, 0.99, "center", "top"),
            (bottom, 0.5, 0.01, "center", "bottom"),
        ):
            colour = "#222222" if panel.diverging else "#f2f2f2"
            ax.text(
                x, y, text, transform=ax.transAxes, ha=ha, va=va, color=colour, fontsize="small"
            )
    ax.set_facecolor(look.background)
    return drawn


def panel_figure(
    panels: list[Panel] | tuple[Panel, ...],
    *,
    mask: NDArray[Any] | None = None,
    position: tuple[int, int, int] | None = None,
    planes: tuple[str, ...] = PLANES,
    share_limits: bool = True,
    title: str = "",
    style: Style | None = None,
    figure: Any | None = None,
) -> Any:
    """Lay out maps side by side: a column for each panel, a row for each plane.

    Parameters
    ----------
    panels
        Maps on one grid, with titles.
    mask
        Voxels that set the colour limits and the middle (X, Y, Z).
    position
        Voxel (i, j, k) that the slices go through; None: the middle of the mask.
    planes
        Which of `PLANES` to show.
    share_limits
        Whether panels that are not diverging share their colour limits.
    title
        A line above all.
    style
        Colours.
    figure
        A matplotlib Figure to fill; None makes one.

    Returns
    -------
    The Figure; nothing is shown or written.
    """
    from matplotlib.figure import Figure

    if not panels:
        raise InputError("The figure needs at least one panel.")
    look = style or Style()
    shape = panels[0].image.shape[:3]
    for panel in panels:
        if panel.image.shape[:3] != shape:
            raise InputError(
                f"The panels have shapes {shape} and {panel.image.shape[:3]}; they must share one "
                "grid: resample first."
            )
    where = position or centre_of(mask, shape)
    heights = [_height(panels[0].image, plane) for plane in planes]
    size = (3.1 * len(panels) + 0.2, 2.5 * sum(heights) + 0.8)
    drawing = figure if figure is not None else Figure(figsize=size, layout="constrained")
    drawing.set_facecolor(look.background)
    axes = drawing.subplots(
        len(planes), len(panels), squeeze=False, gridspec_kw={"height_ratios": heights}
    )
    limits = _panel_limits(panels, mask, share_limits)
    for column, panel in enumerate(panels):
        for row, plane in enumerate(planes):
            drawn = draw_slice(
                axes[row, column],
                panel,
                plane,
                where[_NORMAL[plane]],
                limits=limits[column],
                style=look,
            )
        axes[0, column].set_title(panel.title, color=look.text, fontsize="medium")
        bar = drawing.colorbar(drawn, ax=list(axes[:, column]), shrink=0.7, pad=0.02)
        bar.set_label(panel.image.units, color=look.text)
        bar.ax.tick_params(colors=look.text, labelsize="small")
        bar.ax.yaxis.offsetText.set_color(look.text)
        bar.outline.set_edgecolor(look.grid)
        bar.ax.ticklabel_format(scilimits=(-3, 4))
    if title:
        drawing.suptitle(title, color=look.text)
    return drawing


def _height(image: ScalarImage, plane: str) -> float:
    """Return a slice's height over its width (mm / mm)."""
    sizes = np.linalg.norm(np.asarray(image.affine)[:3, :3], axis=0) * image.shape[:3]
    across, up = (s for i, s in enumerate(sizes) if i != _NORMAL[plane])
    return float(np.clip(up / across, 0.2, 3))


def _panel_limits(
    panels: list[Panel] | tuple[Panel, ...], mask: NDArray[Any] | None, share: bool
) -> list[tuple[float, float]]:
    limits = [
        p.limits or limits_of(p.image, mask, diverging=p.diverging, centre=p.centre) for p in panels
    ]
    groups: dict[tuple[bool, float, str], list[int]] = {}
    for i, p in enumerate(panels):
        if p.limits is None and (share or p.diverging):
            groups.setdefault((p.diverging, p.centre, p.image.units), []).append(i)
    for group in groups.values():
        both = min(limits[i][0] for i in group), max(limits[i][1] for i in group)
        for i in group:
            limits[i] = both
    return limits
