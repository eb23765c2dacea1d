"""Compiling is tried on a GPU alone, and a network that cannot be compiled runs as it is."""

from __future__ import annotations

import pytest
import torch

from napari_dmri.deconvolve.shd.compiled import CompiledLoss, compiled_loss
from napari_dmri.errors import InputError


def loss(network, tensors):
    return network(tensors[0]).square().mean()


def test_a_cpu_compiles_nothing(monkeypatch):
    network = torch.nn.Linear(2, 1)
    monkeypatch.setattr(network, "compile", lambda: pytest.fail("compiled on a CPU"))
    made = compiled_loss(loss, network, "cpu")
    x = torch.ones(3, 2)
    assert torch.equal(made(network, (x,)), loss(network, (x,))) and made.notes == []


def test_what_cannot_be_compiled_runs_as_it_is_and_says_so(monkeypatch):
    for when in ("at once", "at the first call"):
        network = torch.nn.Linear(2, 1)

        def fails(*args, **more):
            raise RuntimeError("no compiler here\nmore")

        def compile_it(network=network, when=when, fails=fails):
            if when == "at once":
                fails()
            network._compiled_call_impl = fails

        monkeypatch.setattr(network, "compile", compile_it)
        made = CompiledLoss(loss, network, compile=True)
        x = torch.ones(3, 2)
        expected = (network.forward(x)).square().mean()
        assert torch.equal(made(network, (x,)), expected)
        assert torch.equal(made(network, (x,)), expected) and not made.compiled
        assert made.notes == [
            "The network could not be compiled (no compiler here); it ran as it is."
        ]


def test_errors_that_are_not_the_compilers_are_let_through(monkeypatch):
    network = torch.nn.Linear(2, 1)
    monkeypatch.setattr(network, "compile", lambda: None)
    for error in (InputError("no truth"), RuntimeError("CUDA out of memory")):

        def broken(network, tensors, error=error):
            raise error

        made = CompiledLoss(broken, network, compile=True)
        with pytest.raises(type(error)):
            made(network, (torch.ones(1, 2),))
        assert made.compiled
