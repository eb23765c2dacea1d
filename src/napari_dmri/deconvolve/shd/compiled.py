"""Compile a network for training on a GPU, and go on without where that fails."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from napari_dmri.training.parts import Loss

__all__ = ["CompiledLoss", "compiled_loss"]


class CompiledLoss:
    """Call a loss with a compiled network; where compiling fails, with the network as it is.

    Parameters
    ----------
    loss
        The loss.
    network
        What is trained; it is compiled in place, which leaves its weights' names alone.
    compile
        Whether to compile it.
    """

    def __init__(self, loss: Loss, network: torch.nn.Module, compile: bool) -> None:
        self.loss, self.network = loss, network
        self.notes: list[str] = []
        self.compiled = False
        if compile:
            try:
                network.compile()
                self.compiled = True
            except Exception as error:  # whatever the compiler raises
                self._give_up(error)

    def __call__(self, network: torch.nn.Module, tensors: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """Return the loss of a batch."""
        if not self.compiled:
            return self.loss(network, tensors)
        from napari_dmri.device import out_of_memory
        from napari_dmri.errors import Cancelled, InputError

        try:
            return self.loss(network, tensors)
        except (Cancelled, InputError):
            raise
        except Exception as error:
            if out_of_memory(error):
                raise
            self._give_up(error)
            return self.loss(network, tensors)

    def _give_up(self, error: Exception) -> None:
        # What `Module.compile` sets, and all that it sets.
        self.network._compiled_call_impl = None
        self.compiled = False
        first = str(error).strip().splitlines() or [type(error).__name__]
        self.notes.append(f"The network could not be compiled ({first[0][:120]}); it ran as it is.")


def compiled_loss(loss: Loss, network: torch.nn.Module, device: str) -> CompiledLoss:
    """Return a loss that compiles the network on a CUDA device, and leaves it alone elsewhere."""
    return CompiledLoss(loss, network, device.startswith("cuda"))
