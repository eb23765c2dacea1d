r"""What a scanner does to a subject: every effect that makes sites differ, each with a switch.

In order: sampling on the site's grid, effective gradients (scale error and non-linearity),
TE/TR weighting, point spread, receive bias and gain, then noise on each coil and the magnitude.
An effect is off when its field has the neutral value; `Scanner.with_effects_of` borrows some of
another scanner's, which is how a gap is taken apart by cause.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from napari_dmri.errors import InputError
from napari_dmri.phantom.gradients import make_table
from napari_dmri.phantom.noise import add_noise
from napari_dmri.phantom.tissue_signal import TISSUE, mixture_signal
from napari_dmri.progress import Progress, part
from napari_dmri.scan import GradientTable, Scan

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_dmri.phantom.anatomy import Subject
    from napari_dmri.phantom.composition import Composition, Grid

__all__ = ["EFFECTS", "SIGNAL_SCALE", "Scanner"]

Array = NDArray[Any]

SIGNAL_SCALE = 1000.0
"""Signal of pure water without relaxation at gain 1: magnitudes fit int16 with room to spare."""

EFFECTS: dict[str, tuple[str, ...]] = {
    "b-value scale": ("bvalue_scale",),
    "gradient non-linearity": ("nonlinearity",),
    "point spread": ("psf",),
    "TE and TR": ("te", "tr"),
    "noise": ("snr", "noise_variation", "coils"),
    "directions": ("directions",),
    "receive bias": ("bias",),
    "gain": ("gain",),
}
"""Names of the switches and the fields that each one is."""


@dataclass(frozen=True)
class Scanner:
    """Describe one site's scanner and protocol.

    Parameters
    ----------
    name
        The site.
    voxel_size
        Isotropic (mm).
    shells, b0, directions
        b-value and count of each shell, number of b0 volumes, seed of the directions.
    te, tr
        Echo and repetition time (ms).
    bvalue_scale
        Effective over nominal b-value.
    nonlinearity
        Change of the gradient 100 mm from the isocentre, as a fraction; 0 is none.
    psf
        Full width at half maximum along x, y, z of the point spread (mm), beyond the voxel.
    bias
        Amplitude of the receive field's variation; 0 is flat.
    gain
        Factor on all magnitudes.
    snr
        b0 signal of white matter over the noise SD in the middle of the head; infinite for none.
    noise_variation
        Relative increase of the noise SD from the rim to the middle (parallel imaging).
    coils
        Channels whose squares are summed: 1 is Rician, n is non-central chi.

    Raises
    ------
    InputError
        If a value is impossible, saying which.
    """

    name: str
    voxel_size: float = 2.4
    shells: tuple[tuple[float, int], ...] = ((1200.0, 30),)
    b0: int = 4
    directions: int = 0
    te: float = 89.0
    tr: float = 8000.0
    bvalue_scale: float = 1.0
    nonlinearity: float = 0.0
    psf: tuple[float, float, float] = (0.0, 0.0, 0.0)
    bias: float = 0.0
    gain: float = 1.0
    snr: float = np.inf
    noise_variation: float = 0.0
    coils: int = 1

    def __post_init__(self) -> None:
        limits: dict[str, tuple[float, float]] = {
            "voxel_size": (0.5, 10),
            "te": (1, 500),
            "tr": (100, 60000),
            "bvalue_scale": (0.5, 1.5),
            "nonlinearity": (-0.5, 0.5),
            "bias": (0, 0.9),
            "gain": (1e-3, 30),
            "snr": (0.5, np.inf),
            "noise_variation": (0, 5),
            "coils": (1, 128),
            "b0": (1, 1000),
        }
        for field, (low, high) in limits.items():
            value = getattr(self, field)
            if not low <= value <= high:
                raise InputError(
                    f"Scanner {self.name!r} has {field}={value:g}; possible are {low:g} to "
                    f"{high:g}."
                )
        if not self.shells or any(b <= 50 or b > 12000 or n < 1 for b, n in self.shells):
            raise InputError(
                f"Scanner {self.name!r} has the shells {self.shells}; each needs a b-value in "
                "(50, 12000] s/mm² and at least 1 direction."
            )
        if any(not 0 <= width <= 20 for width in self.psf):
            raise InputError(
                f"Scanner {self.name!r} has a point spread of {self.psf} mm; possible are 0 to 20."
            )

    @property
    def gradients(self) -> GradientTable:
        """The nominal gradient table, as the scan's files say it."""
        return make_table(self.shells, self.b0, self.directions)

    @property
    def sigma(self) -> float:
        """Noise SD in the middle of the head, in the units of the magnitudes."""
        white = TISSUE[0].weight(self.te, self.tr)
        return 0.0 if np.isinf(self.snr) else SIGNAL_SCALE * self.gain * white / self.snr

    def with_effects_of(self, other: Scanner, *effects: str, name: str | None = None) -> Scanner:
        """Return this scanner with some of another's effects.

        Raises
        ------
        InputError
            If an effect is not in `EFFECTS`.
        """
        changes: dict[str, Any] = {}
        for effect in effects:
            if effect not in EFFECTS:
                raise InputError(f"Unknown effect {effect!r}; choose of {', '.join(EFFECTS)}.")
            changes |= {field: getattr(other, field) for field in EFFECTS[effect]}
        return replace(self, name=name or self.name, **changes)

    def ideal(self) -> Scanner:
        """Return the scanner without noise, bias, non-linearity, scale error and point spread."""
        neutral = Scanner("neutral")
        chosen = ("b-value scale", "gradient non-linearity", "point spread", "noise")
        return self.with_effects_of(neutral, *chosen, "receive bias", "gain")

    def noise_free(
        self,
        subject: Subject,
        composition: Composition,
        *,
        gradients: GradientTable | None = None,
        progress: Progress | None = None,
    ) -> NDArray[np.float32]:
        """Return the magnitudes (X, Y, Z, N) before noise, on the composition's grid."""
        table = self.gradients if gradients is None else gradients
        field = None
        if self.nonlinearity or self.bvalue_scale != 1:
            field = self.gradient_field(composition.grid.centres(composition.index))
        signal = mixture_signal(
            composition, subject, table, self.te, self.tr, field=field, progress=progress
        )
        signal *= np.float32(SIGNAL_SCALE * self.gain)
        image: NDArray[np.float32] = composition.grid.fill(composition.index, signal)
        if any(self.psf):
            image = _blur(image, self.psf, composition.grid.voxel_size)
        if self.bias:
            image *= self.receive_field(composition.grid)[..., None]
        return image

    def scan(
        self,
        subject: Subject,
        composition: Composition,
        *,
        seed: int | Sequence[int] = 0,
        gradients: GradientTable | None = None,
        clean: Array | None = None,
        progress: Progress | None = None,
    ) -> Scan:
        """Scan a subject whose composition was sampled on this scanner's grid.

        Parameters
        ----------
        subject, composition
            Who, and what each voxel holds.
        seed
            Of the noise.
        gradients
            A table instead of the protocol's own.
        clean
            Noise-free magnitudes, where they are known already.
        progress
            Told between blocks of voxels.
        """
        table = self.gradients if gradients is None else gradients
        if clean is None:
            clean = self.noise_free(
                subject, composition, gradients=table, progress=part(progress, 0, 0.8)
            )
        data = clean
        if self.sigma:
            rng = np.random.default_rng([*np.atleast_1d(seed).tolist(), crc32(self.name.encode())])
            spread = self.sigma * self.noise_map(composition.grid)
            data = np.rint(add_noise(clean, spread, self.coils, rng))
        return Scan(
            data,
            composition.grid.affine,
            table,
            mask=composition.mask,
            name=f"{subject.label} {self.name}",
            metadata={
                "simulated": True,
                "subject": subject.label,
                "site": self.name,
                "orientation": "RAS",
                "warnings": [],
            },
        )

    def gradient_field(self, points: Array) -> NDArray[np.float64]:
        r"""Return L (P, 3, 3): scale error and non-linearity at scanner positions (mm).

        .. math:: L = \sqrt{s} \left[I + \eta \left(r^2 D + r r^T / 2\right)\right]

        with r in units of 100 mm, D = diag(0.7, 0.9, 1.3), scale error s and non-linearity
        :math:`\eta`.
        """
        r = np.asarray(points, np.float64) / 100.0
        square = (r**2).sum(1)
        field: NDArray[np.float64] = np.tile(np.eye(3), (len(r), 1, 1))
        shape = square[:, None, None] * np.diag([0.7, 0.9, 1.3])
        shape = shape + 0.5 * r[:, :, None] * r[:, None, :]
        field += self.nonlinearity * shape
        field *= np.sqrt(self.bvalue_scale)
        return field

    def receive_field(self, grid: Grid) -> NDArray[np.float32]:
        """Return the receive sensitivity (X, Y, Z): higher near the coil, tilted by the site."""
        r = _positions(grid)
        tilt = np.random.default_rng(crc32(self.name.partition("+")[0].encode())).normal(0, 0.5, 3)
        shape = 0.9 * (r**2).sum(-1) + r @ tilt - 0.3
        field: NDArray[np.float32] = np.exp(self.bias * shape).astype(np.float32)
        return field

    def noise_map(self, grid: Grid) -> NDArray[np.float32]:
        """Return the noise SD over that in the middle (X, Y, Z), 1 at the centre of the head."""
        r = _positions(grid)
        bump = np.exp(-2 * (r**2).sum(-1))
        field = (1 + self.noise_variation * bump) / (1 + self.noise_variation)
        return np.asarray(field, np.float32)


def _positions(grid: Grid) -> Array:
    """Return positions (X, Y, Z, 3) from the head's centre, in units of 80 mm."""
    points = grid.centres(np.arange(int(np.prod(grid.shape))))
    shifted: Array = points.reshape(*grid.shape, 3) - np.array([0, -16, 15], np.float32)
    return shifted / np.float32(80)


def _blur(image: Array, widths: tuple[float, float, float], voxel: Array) -> Array:
    from scipy.ndimage import gaussian_filter

    deviations = [w / 2.3548 / v for w, v in zip(widths, voxel, strict=True)]
    result: Array = gaussian_filter(image, [*deviations, 0.0], mode="nearest", truncate=3.0)
    return result
