"""What a network of the SHD family is made of: a value that its card can hold."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import Any

from napari_dmri.errors import InputError
from napari_dmri.sphere.harmonics import n_coefficients

__all__ = ["BORDERS", "LAYERS", "Architecture"]

LAYERS = ("chebyshev", "spectral", "concat-so3", "e3-sh", "convolution")
"""Kinds of layer; ``convolution`` knows no sphere (CNN, and with ``patch=1`` MLP)."""

BORDERS = ("zeros", "repeat")


@dataclass(frozen=True)
class Architecture:
    r"""Describe a U-Net over directions and voxels.

    Level i has vertices of HEALPix at :math:`N / 2^i` (1 at least). Its voxels follow from the
    edge P of the patches of training: an even edge is halved, an odd one loses one voxel (means of
    :math:`2^3` one apart), and from edge 1 on space is neither pooled nor filtered.

    Parameters
    ----------
    layer
        One of `LAYERS`.
    n_side
        N of the finest HEALPix sampling, a power of two.
    hemisphere
        Whether one vertex of each antipodal pair stands for both; the results are the same.
    degree
        SH order of the fODF.
    input_order
        SH order of the shells that go in.
    depth
        Number of levels.
    filters
        Features of the finest level; doubled a level.
    block
        Layers of a block, each with batch norm and ReLU.
    terms
        Chebyshev polynomials of a filter on the sphere.
    isotropic
        Whether spatial kernels depend on the distance alone.
    patch
        Edge P of the patches of training.
    full_head
        Whether the last layer filters as all others do, and every level filters space (RT-ESD).
    bands
        SH order of each level's spectral filters, () for those of the layer.
    border
        What spatial kernels find beyond a tile: ``"zeros"``, the paper's, or ``"repeat"``, the
        nearest voxel. A network that repeats sees much the same in tiles of all sizes; one that
        does not has learned to expect zeros around the few voxels of its inner levels.
    gains
        What every shell and even order is multiplied by before anything else (see `gains`); ()
        for nothing.

    Raises
    ------
    InputError
        If the parts do not fit together.

    References
    ----------
    Elaldi, Gerig, Dey, NeurIPS 2024.

    Examples
    --------
    >>> Architecture(patch=3).patches
    (3, 2, 1, 1)
    >>> Architecture().vertices
    (384, 96, 24, 6)
    """

    layer: str = "chebyshev"
    n_side: int = 8
    hemisphere: bool = True
    degree: int = 18
    input_order: int = 8
    depth: int = 4
    filters: int = 32
    block: int = 2
    terms: int = 5
    isotropic: bool = True
    patch: int = 3
    full_head: bool = False
    bands: tuple[int, ...] = ()
    border: str = "zeros"
    gains: tuple[tuple[float, ...], ...] = ()

    def __post_init__(self) -> None:
        if self.layer not in LAYERS:
            raise InputError(f"Unknown layer {self.layer!r}; choose one of {', '.join(LAYERS)}.")
        for name in ("n_side", "depth", "filters", "block", "terms", "patch"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InputError(f"The setting {name} is {value!r}; give a whole number from 1.")
        if self.n_side & (self.n_side - 1):
            raise InputError(f"HEALPix has no N_side {self.n_side}; choose a power of two.")
        n_coefficients(self.input_order)
        count = n_coefficients(self.degree)
        if self.layer != "convolution" and 6 * self.n_side**2 < count:
            raise InputError(
                f"{6 * self.n_side**2} directions of N_side {self.n_side} do not determine "
                f"{count} coefficients of degree {self.degree}; raise N_side or lower the degree."
            )
        if self.bands and (
            len(self.bands) != self.depth or any(b < 0 or b % 2 for b in self.bands)
        ):
            raise InputError(
                f"The bands {self.bands} are not {self.depth} even SH orders, one a level."
            )
        if any(not 0 < gain < math.inf for row in self.gains for gain in row):
            raise InputError(f"The gains {self.gains} are not all positive numbers.")
        if self.border not in BORDERS:
            raise InputError(f"Unknown border {self.border!r}; choose one of {', '.join(BORDERS)}.")
        if self.border == "repeat" and not self.repeats:
            raise InputError(
                "Voxels beyond a tile can be repeated only where a kernel weights all neighbours "
                "at a distance alike, and in convolutions of channels; choose the border zeros."
            )

    @property
    def repeats(self) -> bool:
        """Whether the layer can repeat voxels beyond a tile."""
        alike = self.layer in ("chebyshev", "spectral") and self.isotropic
        return alike or self.layer in ("convolution", "e3-sh")

    @property
    def sides(self) -> tuple[int, ...]:
        """N_side of every level."""
        return tuple(max(1, self.n_side >> level) for level in range(self.depth))

    @property
    def vertices(self) -> tuple[int, ...]:
        """Number of vertices of every level."""
        return tuple((6 if self.hemisphere else 12) * side**2 for side in self.sides)

    @property
    def patches(self) -> tuple[int, ...]:
        """Edge of a patch of training at every level."""
        edges = [self.patch]
        for _ in range(1, self.depth):
            edge = edges[-1]
            edges.append(edge if edge == 1 else edge - 1 if edge % 2 else edge // 2)
        return tuple(edges)

    @property
    def strides(self) -> tuple[int, ...]:
        """Stride of the pooling of space below every level but the last; 0 where there is none."""
        return tuple(0 if edge == 1 else 2 - edge % 2 for edge in self.patches[:-1])

    @property
    def spatial(self) -> tuple[bool, ...]:
        """Whether the layers of every level filter space."""
        return tuple(edge > 1 or self.full_head for edge in self.patches)

    @property
    def features(self) -> tuple[int, ...]:
        """Features of every level."""
        return tuple(self.filters << level for level in range(self.depth))

    @property
    def tiled(self) -> bool:
        """Whether volumes other than the patch of training can go in whole."""
        return 1 not in self.strides

    @property
    def multiple(self) -> int:
        """What the edges of a tile must be a multiple of (the patch itself if not `tiled`)."""
        return 2 ** self.strides.count(2) if self.tiled else self.patch

    @property
    def coefficients_in(self) -> int:
        """SH coefficients of a shell that goes in."""
        return n_coefficients(self.input_order)

    @property
    def coefficients_out(self) -> int:
        """SH coefficients of the fODF that comes out."""
        return n_coefficients(self.degree)

    def check_tile(self, shape: tuple[int, ...]) -> None:
        """Refuse a tile (X, Y, Z) that the levels cannot halve.

        Raises
        ------
        InputError
            If an edge is not a multiple of `multiple`, or not the patch where not `tiled`.
        """
        if self.tiled:
            if any(edge < 1 or edge % self.multiple for edge in shape):
                raise InputError(
                    f"A tile of {'x'.join(map(str, shape))} voxels does not fit a network for "
                    f"patches of {self.patch}; its edges must be multiples of {self.multiple}."
                )
        elif any(edge != self.patch for edge in shape):
            raise InputError(
                f"A network for patches of {self.patch} takes {self.patch} voxels an edge, not "
                f"{'x'.join(map(str, shape))}; predict patch by patch."
            )

    def as_dict(self) -> dict[str, Any]:
        """Return the settings as JSON can hold them."""
        gains = [list(row) for row in self.gains]
        return {**asdict(self), "bands": list(self.bands), "gains": gains}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Architecture:
        """Make an architecture of the settings on a card.

        Raises
        ------
        InputError
            If a setting is unknown or does not fit.
        """
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(values) - known):
            raise InputError(
                f"Unknown settings of a network: {', '.join(unknown)}; known are "
                f"{', '.join(sorted(known))}."
            )
        listed = {
            "bands": tuple(values.get("bands", ())),
            "gains": tuple(tuple(row) for row in values.get("gains", ())),
        }
        return cls(**{**values, **listed})
