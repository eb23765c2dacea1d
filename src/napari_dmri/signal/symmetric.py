r"""Eigenvalues and principal eigenvectors of many symmetric 3 x 3 matrices, in closed form.

With :math:`q = \mathrm{tr}(A) / 3`, :math:`p = \sqrt{\mathrm{tr}((A - qI)^2) / 6}` and
:math:`r = \det((A - qI) / p) / 2`, the eigenvalues are

.. math:: \lambda_k = q + 2p \cos\bigl(\tfrac{1}{3} \arccos r + \tfrac{2\pi}{3} k\bigr)

(Smith 1961, Commun ACM 4:168). The eigenvector of the eigenvalue that stands apart most is a cross
product of rows of :math:`A - \lambda I`; where that is the smallest one, the principal direction
is found in the plane across it, so that two equal eigenvalues never divide zero by zero.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

__all__ = ["eigen_symmetric"]


def eigen_symmetric(tensor: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    r"""Return eigenvalues and the eigenvector of the largest.

    Parameters
    ----------
    tensor
        Axx, Axy, Ayy, Axz, Ayz, Azz (6, n); float64 where the device has it, as the closed form
        halves the digits where eigenvalues meet.

    Returns
    -------
    :math:`\lambda_1 \ge \lambda_2 \ge \lambda_3` (3, n), and the unit eigenvector of
    :math:`\lambda_1` (3, n), its sign free; any unit vector where all three are equal.
    """
    import torch

    xx, xy, yy, xz, yz, zz = tensor
    q = (xx + yy + zz) / 3
    a, b, c = xx - q, yy - q, zz - q
    off = xy * xy + xz * xz + yz * yz
    p = ((a * a + b * b + c * c + 2 * off) / 6).sqrt_()
    determinant = a * (b * c - yz * yz) - xy * (xy * c - yz * xz) + xz * (xy * yz - b * xz)
    tiny = torch.finfo(tensor.dtype).tiny
    r = (determinant / (2 * p**3).clamp_min_(tiny)).clamp_(-1, 1)
    angle = r.acos_().div_(3)
    first = q + 2 * p * angle.cos()
    last = q + 2 * p * (angle + 2 * math.pi / 3).cos_()
    middle = 3 * q - first - last
    values = torch.stack([first, middle, last])

    # The eigenvector of the eigenvalue that stands apart: the longest of three cross products.
    apart = first - middle >= middle - last
    shift = torch.where(apart, first, last)
    a, b, c = xx - shift, yy - shift, zz - shift
    crosses = (
        (xy * yz - xz * b, xz * xy - a * yz, a * b - xy * xy),
        (xy * c - xz * yz, xz * xz - a * c, a * yz - xy * xz),
        (b * c - yz * yz, yz * xz - xy * c, xy * yz - b * xz),
    )
    x, y, z = crosses[0]
    best = x * x + y * y + z * z
    for u, v, w in crosses[1:]:
        size = u * u + v * v + w * w
        better = size > best
        x, y, z = torch.where(better, u, x), torch.where(better, v, y), torch.where(better, w, z)
        best = torch.where(better, size, best)
    zero = best <= tiny
    length = torch.where(zero, 1, best).sqrt_()
    x, y, z = torch.where(zero, 1, x / length), y / length, z / length
    y, z = torch.where(zero, 0, y), torch.where(zero, 0, z)
    principal = torch.stack([x, y, z])
    if bool(apart.all()):
        return values, principal

    # Two axes across it (Duff et al. 2017, JCGT 6:1), and the 2 x 2 problem between them.
    sign = torch.where(z >= 0, 1, -1).to(z.dtype)
    s = -1 / (sign + z)
    t = x * y * s
    ux, uy, uz = 1 + sign * x * x * s, sign * t, -sign * x
    wx, wy, wz = t, sign + y * y * s, -y
    aux, auy = xx * ux + xy * uy + xz * uz, xy * ux + yy * uy + yz * uz
    auz = xz * ux + yz * uy + zz * uz
    awx, awy = xx * wx + xy * wy + xz * wz, xy * wx + yy * wy + yz * wz
    awz = xz * wx + yz * wy + zz * wz
    uu, uw = ux * aux + uy * auy + uz * auz, wx * aux + wy * auy + wz * auz
    ww = wx * awx + wy * awy + wz * awz
    turn = torch.atan2(2 * uw, uu - ww).div_(2)
    cos, sin = turn.cos(), turn.sin()
    across = torch.stack([cos * ux + sin * wx, cos * uy + sin * wy, cos * uz + sin * wz])
    return values, torch.where(apart, principal, across)
