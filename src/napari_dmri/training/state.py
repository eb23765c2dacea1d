"""A training's state on disk: enough to go on as if it had never stopped.

One safetensors file with a JSON card in it (see `checkpoint`): the weights, the best weights, the
optimizer's tensors, the state of torch's random numbers, and in the card the stage, epoch and step
(the sampler's position, as a sampler's order follows from seed, stage and epoch), the running sums
and the curves. It is replaced in one step, so a kill at any time leaves the last whole state.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_dmri.errors import InputError
from napari_dmri.training.checkpoint import SUFFIX, load_checkpoint, save_checkpoint

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    import numpy as np
    import torch
    from numpy.typing import NDArray

__all__ = [
    "KIND",
    "OtherTraining",
    "State",
    "all_finite",
    "change_settings",
    "drop_state",
    "read_state",
    "write_state",
]

KIND = "training-state"

BRIEF = 40
"""Letters of a setting that is shown where it differs; hashes have more."""

State = tuple[dict[str, "NDArray[np.generic]"], dict[str, Any]]


class OtherTraining(InputError):
    """Say that a state is of another training, and in which settings they differ."""


def drop_state(path: str | Path) -> None:
    """Delete a training's state and the card beside it, where they are."""
    for file in (Path(path), Path(path).with_suffix(".json")):
        file.unlink(missing_ok=True)


def write_state(
    path: str | Path,
    model: torch.nn.Module,
    best: Mapping[str, torch.Tensor],
    optimizer: torch.optim.Optimizer | None,
    card: Mapping[str, Any],
) -> Path:
    """Write a state, in place of an earlier one.

    Parameters
    ----------
    path
        The file.
    model, best, optimizer
        What is trained, its best weights so far, and what trains it (None between stages).
    card
        Position, curves and settings; what JSON can hold.
    """
    path = Path(path)
    tensors = {f"model/{k}": _array(v) for k, v in model.state_dict().items()}
    tensors |= {f"best/{k}": _array(v) for k, v in best.items()}
    scalars: dict[str, Any] = {}
    if optimizer is not None:
        held = optimizer.state_dict()
        for index, entries in held["state"].items():
            for name, value in entries.items():
                if hasattr(value, "shape"):
                    tensors[f"optimizer/{index}/{name}"] = _array(value)
                else:
                    scalars[f"{index}/{name}"] = value
    tensors |= {f"random/{name}": _array(value) for name, value in random_states().items()}
    return _put(path, tensors, {**card, "kind": KIND, "scalars": scalars})


def change_settings(path: str | Path, changed: Mapping[str, Any]) -> None:
    """Give a state settings to go on with, other than those that it was written with.

    Parameters
    ----------
    path
        The file; where there is none, nothing is done.
    changed
        The settings that differ, by name.
    """
    path = Path(path)
    if path.is_file():
        tensors, card = load_checkpoint(path, kind=KIND)
        _put(path, tensors, {**card, "settings": {**card["settings"], **changed}})


def _put(path: Path, tensors: Mapping[str, Any], card: Mapping[str, Any]) -> Path:
    """Write a state's file and the card beside it, each replaced in one step."""
    new = path.with_name(f".{path.name.removesuffix(SUFFIX)}.new{SUFFIX}")
    save_checkpoint(new, tensors, card, overwrite=True)
    # The card inside is the one that is believed, so the order of these does not matter.
    os.replace(new, path)
    os.replace(new.with_suffix(".json"), path.with_suffix(".json"))
    return path


def read_state(path: str | Path, settings: Mapping[str, Any]) -> State:
    """Read a state that was written with the same settings.

    Raises
    ------
    InputError
        If the file is not a whole state, or was written with other settings, with what differs
        (`OtherTraining`).
    """
    tensors, card = load_checkpoint(path, kind=KIND)
    said = list(_differences(_plain(card.get("settings", {})), _plain(dict(settings))))
    if said:
        raise OtherTraining(
            f"{path} is of a training with other settings ({'; '.join(said)}); go on with the "
            "same settings, scans and responses, or delete it to begin anew."
        )
    return tensors, card


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """Say what differs: short values both, long ones and hashes by their names alone."""
    for name in sorted({*before, *now}):
        old, new = before.get(name), now.get(name)
        if old == new:
            continue
        if isinstance(old, dict) and isinstance(new, dict):
            yield from (f"{name}'s {words}" for words in _differences(old, new))
        elif max(len(str(old)), len(str(new))) <= BRIEF:
            yield f"{name}: {old} then, {new} now"
        else:
            yield f"other {name}"


def restore_optimizer(
    optimizer: torch.optim.Optimizer,
    tensors: Mapping[str, Any],
    scalars: Mapping[str, Any],
    lr: float,
) -> None:
    """Give an optimizer the tensors it had."""
    import torch

    entries: dict[int, dict[str, Any]] = {}
    for name, value in tensors.items():
        if name.startswith("optimizer/"):
            _, index, key = name.split("/")
            # The file has no tensors without axes; Adam's step is one.
            shape = () if key == "step" else value.shape
            tensor = torch.from_numpy(value.copy()).reshape(shape)
            entries.setdefault(int(index), {})[key] = tensor
    for name, value in scalars.items():
        index, key = name.split("/")
        entries.setdefault(int(index), {})[key] = value
    held = optimizer.state_dict()
    optimizer.load_state_dict({"state": entries, "param_groups": held["param_groups"]})
    for group in optimizer.param_groups:
        group["lr"] = lr


def weights(tensors: Mapping[str, Any], prefix: str) -> dict[str, torch.Tensor]:
    """Return the tensors under a prefix as a state dict."""
    import torch

    return {
        name.removeprefix(prefix): torch.from_numpy(value.copy())
        for name, value in tensors.items()
        if name.startswith(prefix)
    }


def all_finite(tensors: Iterable[torch.Tensor]) -> bool:
    """Tell whether no value is infinite or NaN; waits once for the device, not for each tensor."""
    import torch

    found = [tensor.isfinite().all() for tensor in tensors]
    return bool(torch.stack(found).all()) if found else True


def random_states() -> dict[str, torch.Tensor]:
    """Return the states of torch's generators, of the CPU and of each GPU."""
    import torch

    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        for n, state in enumerate(torch.cuda.get_rng_state_all()):
            states[f"cuda-{n}"] = state
    return states


def restore_random(tensors: Mapping[str, Any]) -> None:
    """Set torch's generators to states that were kept."""
    import torch

    states = weights(tensors, "random/")
    torch.set_rng_state(states["cpu"])
    if torch.cuda.is_available():
        for n in range(torch.cuda.device_count()):
            if f"cuda-{n}" in states:
                torch.cuda.set_rng_state(states[f"cuda-{n}"], n)


def _array(value: torch.Tensor) -> Any:
    return value.detach().cpu().numpy()


def _plain(value: Any) -> Any:
    """Return a value as JSON gives it back."""
    import json

    from napari_dmri.io.atomic import to_json

    return json.loads(to_json(value))
