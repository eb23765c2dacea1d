"""The networks that harmonize: their names, how they are built, and how they are run.

A network maps SH coefficients of S/b0 at the source site to those at the target site. What it takes
depends on its mode, which is part of its settings and stands on its card:

============ ========= ============================== =======================
network      mode      takes                          gives
============ ========= ============================== =======================
``shresnet`` ``paper`` (B, C, 3, 3, 3)                (B, C), the centre voxel
``shresnet`` ``tiled`` (B, C, d + 2h, d' + 2h, ...)   (B, C, d, d', ...)
``golkov``   ``voxel`` (B, C)                         (B, C)
============ ========= ============================== =======================

with the halo h of `halo`. Nothing else differs for who trains or applies them.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_dmri.device import exact_float32
from napari_dmri.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from napari_dmri.progress import Progress

__all__ = [
    "NETWORKS",
    "Network",
    "build",
    "from_tensors",
    "halo",
    "mode",
    "patch_size",
    "predict",
    "replicate_outside",
    "settings",
    "to_tensors",
]

Array = NDArray[Any]


@dataclass(frozen=True)
class Network:
    """Describe a kind of network without importing torch."""

    name: str
    label: str
    reference: str
    target: str
    modes: tuple[str, ...]


NETWORKS: dict[str, Network] = {
    network.name: network
    for network in (
        Network(
            "shresnet",
            "SHResNet",
            "Koppers et al., CDMRI 2018",
            "napari_dmri.harmonize.shresnet:SHResNet",
            ("paper", "tiled"),
        ),
        Network(
            "golkov",
            "Golkov",
            "Golkov et al., IEEE Trans Med Imaging 35:1344-1351, 2016",
            "napari_dmri.harmonize.golkov:GolkovNet",
            ("voxel",),
        ),
    )
}
"""All networks that harmonize."""


def build(method: str, order: int, *, seed: int = 0, **settings: Any) -> torch.nn.Module:
    """Make an untrained network.

    Parameters
    ----------
    method
        A name of `NETWORKS`.
    order
        SH order of coefficients in and out.
    seed
        Of the initial weights.
    settings
        Of `ShResNetConfig` or `GolkovConfig`: mode, blocks, hidden, dropout ...

    Raises
    ------
    InputError
        If the method or a setting is unknown or out of range.
    """
    if method not in NETWORKS:
        raise InputError(f"Unknown network {method!r}; choose one of {', '.join(NETWORKS)}.")
    module, name = NETWORKS[method].target.split(":")
    kind = getattr(importlib.import_module(module), name)
    try:
        config = kind.Config(order=order, **settings)
    except TypeError as error:
        known = ", ".join(kind.Config.__dataclass_fields__)
        given = ", ".join(settings)
        raise InputError(
            f"The settings {given} do not fit {NETWORKS[method].label}, which takes {known}."
        ) from error
    network: torch.nn.Module = kind(config, seed=seed)
    return network


def settings(network: Any) -> dict[str, Any]:
    """Return a network's settings as JSON can hold them: what `build` takes beside the method."""
    from dataclasses import asdict

    return asdict(network.config)


def mode(network: Any) -> str:
    """Return the mode that a network was made for: ``"paper"``, ``"tiled"`` or ``"voxel"``."""
    return str(network.config.mode)


def halo(network: Any) -> int:
    """Return how many voxels on each side a prediction needs beyond its own."""
    return int(network.halo)


def patch_size(network: Any, output: int = 16) -> int:
    """Return the edge of the patches that training cuts, for ``output`` voxels a tile's edge.

    3 in paper mode, ``output + 2 * halo`` in tiled mode, 1 for voxel-wise networks.
    """
    return output + 2 * halo(network) if mode(network) == "tiled" else 1 + 2 * halo(network)


def to_tensors(network: torch.nn.Module) -> dict[str, Array]:
    """Return a network's weights as named arrays (copies), as checkpoints hold them."""
    state = network.state_dict()
    return {name: value.detach().cpu().numpy().copy() for name, value in state.items()}


def from_tensors(
    method: str, given: Mapping[str, Any], tensors: Mapping[str, Array]
) -> torch.nn.Module:
    """Build a network with settings and weights that were saved.

    Parameters
    ----------
    method
        A name of `NETWORKS`.
    given
        What `settings` returned.
    tensors
        What `to_tensors` returned; others beside them are left alone.

    Raises
    ------
    InputError
        If a tensor is missing, has another shape, or holds values that are not finite.
    """
    import torch

    network = build(method, **dict(given))
    state = {}
    for name, value in network.state_dict().items():
        shape = tuple(value.shape)
        if name not in tensors or tuple(tensors[name].shape) != shape:
            found = tuple(tensors[name].shape) if name in tensors else "nothing"
            raise InputError(
                f"The model's weights {name!r} should have shape {shape} and the file holds "
                f"{found}; it is not a whole {NETWORKS[method].label} model of these settings."
            )
        array = np.ascontiguousarray(tensors[name], dtype=np.float32)
        if not np.isfinite(array).all():
            raise InputError(
                f"The model's weights {name!r} hold {int((~np.isfinite(array)).sum())} values that "
                "are not finite: its training diverged; train it anew with a lower learning rate."
            )
        state[name] = torch.from_numpy(array.copy())
    network.load_state_dict(state)
    return network.eval()


def predict(
    network: Any,
    coefficients: Array,
    mask: Array | None = None,
    *,
    device: str = "auto",
    progress: Progress | None = None,
) -> NDArray[np.float32]:
    """Run a network on a whole volume, in its own mode.

    Parameters
    ----------
    network
        What `build` or `from_tensors` made.
    coefficients
        SH coefficients of S/b0 (X, Y, Z, C) at the source site.
    mask
        Where to predict (X, Y, Z); None means everywhere. Voxels beyond it do not count as
        neighbours: they are given the nearest inner voxel's coefficients.
    device, progress
        Where it runs; who is told between tiles (and may raise `Cancelled`).

    Returns
    -------
    (X, Y, Z, C) float32; the input outside the mask.

    Raises
    ------
    InputError
        If the shapes do not fit each other or the network, the mask is empty, or a coefficient
        inside the mask is not finite.
    """
    array = np.asarray(coefficients)
    channels = network.config.channels
    if array.ndim != 4 or array.shape[3] != channels:
        raise InputError(
            f"The coefficients have shape {array.shape}; this network of SH order "
            f"{network.config.order} takes (x, y, z, {channels})."
        )
    inside = np.ones(array.shape[:3], bool) if mask is None else np.asarray(mask).astype(bool)
    if inside.shape != array.shape[:3]:
        raise InputError(
            f"The mask has shape {inside.shape} and the coefficients {array.shape[:3]}; "
            "they must be on one grid."
        )
    if not inside.any():
        raise InputError("The mask holds no voxel; make a new brain mask.")
    array = array.astype(np.float32, copy=False)
    broken = ~np.isfinite(array.sum(-1)) & inside
    if broken.any():
        raise InputError(
            f"{int(broken.sum())} of {int(inside.sum())} voxels in the mask hold coefficients that "
            "are not finite; leave them out of the mask."
        )
    with exact_float32():
        result: NDArray[np.float32] = network.predict(
            array, inside, device=device, progress=progress
        )
    return result


def replicate_outside(coefficients: Array, mask: Array, reach: int | None = None) -> Array:
    """Give voxels outside a mask the coefficients of the nearest voxel inside.

    A network must not learn from, nor be shown, the zeros around a brain: training cuts its
    patches from what this returns, and `predict` does the same.

    Parameters
    ----------
    coefficients
        (X, Y, Z, C).
    mask
        (X, Y, Z), with at least one voxel.
    reach
        Largest distance (voxels along an axis) that matters; farther voxels may stay as they are.

    Returns
    -------
    (X, Y, Z, C) float32, the input itself where nothing is outside.
    """
    from scipy import ndimage

    inside = np.asarray(mask).astype(bool, copy=False)
    if inside.all():
        return np.asarray(coefficients, np.float32)
    outside = ~inside
    if reach is not None:
        near = ndimage.maximum_filter(inside.view(np.uint8), 2 * reach + 1).astype(bool)
        outside &= near
    nearest = ndimage.distance_transform_edt(~inside, return_distances=False, return_indices=True)
    filled = np.array(coefficients, np.float32, order="C")
    filled[outside] = filled[tuple(axis[outside] for axis in nearest)]
    return filled
