r"""How subjects differ in shape: a pose, an affine scaling and a smooth invertible deformation.

Subject points p go to template points :math:`q = \varphi(A R^T (p - t))`, with

.. math:: \varphi_i(p) = p_i + \sum_j a_{ij} \sin(k_j \cdot p + \phi_{ij}), \qquad
          \sum_j \lVert a_j \rVert \lVert k_j \rVert < 1,

so that the displacement's gradient stays below one everywhere and the map is invertible.
Template directions go back by the inverse Jacobian.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_dmri.errors import InputError

__all__ = ["Deformation"]

Array = NDArray[Any]

WAVES = 8


@dataclass(frozen=True, eq=False)
class Deformation:
    r"""Map subject space to template space.

    Parameters
    ----------
    rotation
        Head pose R (3, 3): a template direction d appears along R d.
    translation
        Position t of the template origin in scanner space (3,), mm.
    scales
        Diagonal of A: template size over subject size (3,).
    amplitudes
        Displacement of each wave (J, 3), mm.
    wavevectors
        :math:`k_j` (J, 3), rad/mm.
    phases
        :math:`\phi_{ij}` (J, 3), rad.

    Raises
    ------
    InputError
        If the waves could fold space.
    """

    rotation: Array
    translation: Array
    scales: Array
    amplitudes: Array
    wavevectors: Array
    phases: Array

    def __post_init__(self) -> None:
        if self.gradient_bound >= 1:
            raise InputError(
                f"The deformation's gradient may reach {self.gradient_bound:.2f}; it must stay "
                "below 1 to be invertible: lower its amplitude."
            )

    @property
    def gradient_bound(self) -> float:
        """Upper bound of the displacement gradient's norm."""
        sizes = np.linalg.norm(self.amplitudes, axis=1)
        return float((sizes * np.linalg.norm(self.wavevectors, axis=1)).sum())

    @classmethod
    def identity(cls) -> Deformation:
        """Return the map that leaves everything in place."""
        still = np.zeros((1, 3))
        return cls(np.eye(3), np.zeros(3), np.ones(3), still, still, still)

    @classmethod
    def random(cls, rng: np.random.Generator, strength: float = 1.0) -> Deformation:
        """Draw a subject's shape: size (SD 2.5 %), pose (SD 2 degrees, 2 mm), waves of 60-140 mm.

        Parameters
        ----------
        rng
            Source of randomness.
        strength
            Factor on size and waves; 1 bounds the displacement gradient by 0.3.
        """
        from scipy.spatial.transform import Rotation

        rotation = Rotation.from_rotvec(np.deg2rad(rng.normal(0, 2.0, 3)).clip(-0.09, 0.09))
        wavelengths = rng.uniform(60, 140, (WAVES, 1))
        waves = rng.normal(size=(WAVES, 3))
        waves *= 2 * np.pi / wavelengths / np.linalg.norm(waves, axis=1, keepdims=True)
        push = rng.normal(size=(WAVES, 3))
        bound = (np.linalg.norm(push, axis=1) * np.linalg.norm(waves, axis=1)).sum()
        return cls(
            rotation.as_matrix(),
            rng.normal(0, 2.0, 3).clip(-4, 4),
            1 + strength * rng.normal(0, 0.025, 3).clip(-0.05, 0.05),
            push * (0.3 * strength / bound),
            waves,
            rng.uniform(0, 2 * np.pi, (WAVES, 3)),
        )

    def rotated(self, rotation: Array) -> Deformation:
        """Return the same subject, turned about the scanner's origin by a rotation (3, 3)."""
        turn = np.asarray(rotation, np.float64)
        return Deformation(
            turn @ self.rotation,
            turn @ self.translation,
            self.scales,
            self.amplitudes,
            self.wavevectors,
            self.phases,
        )

    def _affine(self) -> Array:
        result: Array = np.diag(self.scales) @ self.rotation.T
        return result

    def to_template(self, points: Array) -> NDArray[np.float32]:
        """Return template positions (P, 3) of scanner positions (P, 3), mm."""
        base = (points - self.translation.astype(np.float32)) @ self._affine().T.astype(np.float32)
        moved: Array = base.copy()
        along = base @ self.wavevectors.T.astype(np.float32)
        for j in range(len(self.amplitudes)):
            for i in range(3):
                if self.amplitudes[j, i]:
                    shift = np.sin(along[:, j] + np.float32(self.phases[j, i]))
                    moved[:, i] += np.float32(self.amplitudes[j, i]) * shift
        return moved

    def inverse_jacobian(self, points: Array) -> NDArray[np.float64]:
        """Return the matrices (P, 3, 3) that turn template vectors into scanner vectors."""
        affine = self._affine()
        base = (np.asarray(points, np.float64) - self.translation) @ affine.T
        jacobian: NDArray[np.float64] = np.tile(np.eye(3), (len(base), 1, 1))
        for j in range(len(self.amplitudes)):
            slope = self.amplitudes[j] * np.cos(
                (base @ self.wavevectors[j])[:, None] + self.phases[j]
            )
            jacobian += slope[:, :, None] * self.wavevectors[j]
        return np.asarray(np.linalg.inv(jacobian @ affine), np.float64)

    def to_scanner(self, points: Array, steps: int = 40) -> NDArray[np.float64]:
        """Return scanner positions (P, 3) of template positions, by fixed-point iteration."""
        goal = np.asarray(points, np.float64)
        base: NDArray[np.float64] = goal.copy()
        for _ in range(steps):
            along = base @ self.wavevectors.T
            shift = np.einsum(
                "pji,ji->pi", np.sin(along[:, :, None] + self.phases), self.amplitudes
            )
            base = np.asarray(goal - shift, np.float64)
        result: NDArray[np.float64] = base @ np.linalg.inv(self._affine()).T + self.translation
        return result
