"""The store and its samplers: borders, coverage, determinism, losses with unequal directions."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from napari_dmri import InputError
from napari_dmri.sphere.harmonics import design_matrix
from napari_dmri.training import Patches, Store, Tiles
from napari_dmri.training.losses import SignalEnergyLoss, loss_with_energy, signal_loss

GRIDS = ((9, 7, 5), (6, 8, 5))


@pytest.fixture
def filled(tmp_path):
    """A store of two subjects with different grids and numbers of directions, and its parts."""
    rng = np.random.default_rng(0)
    store = Store(6, 9, tmp_path / "cache")
    parts = []
    for n, grid in enumerate(GRIDS):
        values = rng.standard_normal((*grid, 6)).astype(np.float32)
        where = rng.random(grid) < 0.6
        directions = (7, 9)[n]
        targets = rng.random((int(where.sum()), directions)).astype(np.float32)
        design = rng.standard_normal((directions, 6)).astype(np.float32)
        store.add(f"sub-{n}", values, where, targets, design)
        parts.append((values, where, targets, design))
    return store, parts


def core(inputs, halo):
    inner = slice(halo, -halo)
    return inputs[:, :, inner, inner, inner]


def identity(model_input):
    return model_input if model_input.ndim == 2 else model_input[..., 1, 1, 1]


def test_patches_hold_neighbours_and_repeat_the_border(filled):
    store, parts = filled
    batch = next(Patches(store).batches(store.samples))
    inputs, _, targets, subject, designs, shares = batch.tensors
    assert batch.weight == store.samples == len(inputs)
    wanted, measured = [], []
    for values, where, target, _ in parts:
        wide = np.pad(values, [(1, 1)] * 3 + [(0, 0)], mode="edge")
        for x, y, z in np.argwhere(where):
            wanted.append(np.moveaxis(wide[x : x + 3, y : y + 3, z : z + 3], -1, 0))
        measured += list(np.pad(target, [(0, 0), (0, 9 - target.shape[1])]))
    assert np.array_equal(inputs.numpy(), np.stack(wanted))
    assert np.array_equal(targets.numpy(), np.stack(measured))
    assert shares.tolist() == pytest.approx([1 / 7, 1 / 9])
    counts = [int(w.sum()) for _, w, _, _ in parts]
    assert np.array_equal(subject.numpy(), np.repeat([0, 1], counts))
    alone = next(Patches(store, 1).batches(store.samples)).tensors[0]
    assert torch.equal(alone, inputs[:, :, 1, 1, 1])
    assert designs.shape == (2, 9, 6)


def test_each_epoch_draws_every_sample_once_shuffled_over_subjects(filled):
    store, _ = filled
    patches = Patches(store)

    def epoch(key, start=0):
        return list(patches.batches(16, key, start))

    first, again, other = epoch((1, 0, 0)), epoch((1, 0, 0)), epoch((1, 0, 1))
    assert len(first) == patches.count(16)
    for a, b in zip(first, again, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a.tensors, b.tensors, strict=True))
    assert not torch.equal(first[0].tensors[0], other[0].tensors[0])
    late = epoch((1, 0, 0), start=3)
    assert torch.equal(late[0].tensors[0], first[3].tensors[0])
    for batches in (first, other, list(patches.batches(16))):
        targets = torch.cat([b.tensors[2] for b in batches]).numpy()
        assert np.array_equal(np.unique(targets, axis=0), np.unique(store.targets(), axis=0))
        assert len(targets) == store.samples
    assert len(first[0].tensors[3].unique()) == 2


def test_tiles_cover_every_sample_once_with_the_values_around(filled):
    store, parts = filled
    tiles = Tiles(store, edge=4, halo=2)
    assert tiles.edges.tolist() == [4, 4, 4]
    for key in (None, (1, 0, 0), (2, 0, 3)):
        batches = list(tiles.batches(1, key))
        assert len(batches) == tiles.count(1)
        seen = torch.cat([b.tensors[2] for b in batches]).numpy()
        assert sum(b.weight for b in batches) == len(seen) == store.samples
        assert np.array_equal(np.unique(seen, axis=0), np.unique(store.targets(), axis=0))
    for batch in tiles.batches(1, (2, 0, 3)):
        inputs, where, targets, subject, *_ = batch.tensors
        centres = core(inputs, 2).movedim(1, -1).reshape(-1, 6)[where].numpy()
        for centre, target, n in zip(centres, targets.numpy(), subject.numpy(), strict=True):
            values, mask, measured, _ = parts[n]
            row = np.flatnonzero((measured == target[: measured.shape[1]]).all(1))[0]
            assert np.array_equal(values[mask][row], centre)
    late = next(tiles.batches(1, (2, 0, 3), start=2))
    assert torch.equal(late.tensors[0], list(tiles.batches(1, (2, 0, 3)))[2].tensors[0])


def test_volumes_are_read_as_they_were_added(filled):
    store, parts = filled
    for n, (values, *_) in enumerate(parts):
        assert np.array_equal(store.volume(n), values)


def test_a_halo_beyond_the_image_repeats_its_border(filled):
    store, parts = filled
    tiles = Tiles(store, edge=40, halo=3)
    assert tiles.edges.tolist() == [9, 8, 5]
    batch = tiles.draw(np.array([[0, 0, 0, 0]]))
    wide = np.pad(parts[0][0], [(3, 3), (3, 4), (3, 3), (0, 0)], mode="edge")
    assert np.array_equal(batch.tensors[0][0].numpy(), np.moveaxis(wide, -1, 0))
    assert batch.weight == parts[0][1].sum()


def test_the_loss_weighs_every_voxel_alike(filled):
    store, parts = filled
    expected = []
    for values, where, targets, design in parts:
        expected += list(((values[where] @ design.T - targets) ** 2).mean(1))
    for sampler in (Patches(store), Patches(store, 1), Tiles(store, 4, 1)):
        total = weight = 0.0
        for batch in sampler.batches(32, (0,)):
            model = identity if not isinstance(sampler, Tiles) else lambda x: core(x, 1)
            total += float(signal_loss(model, batch.tensors)) * batch.weight
            weight += batch.weight
        assert total / weight == pytest.approx(np.mean(expected), rel=1e-5)


def test_the_energy_of_order_2_is_compared_with_an_unsmoothed_fit(tmp_path):
    rng = np.random.default_rng(3)
    where = np.ones((4, 3, 2), bool)
    values, targets, roots = [], [], []
    with Store(15, 30, tmp_path / "two") as store:
        for n, label in ((30, "a"), (24, "b")):
            directions = rng.standard_normal((n, 3))
            directions /= np.linalg.norm(directions, axis=1, keepdims=True)
            design = design_matrix(directions, 4)
            values.append(rng.standard_normal((24, 15)))
            targets.append(rng.random((24, n)))
            store.add(label, values[-1].reshape(4, 3, 2, 15), where, targets[-1], design)
            fit = np.linalg.lstsq(design, targets[-1].T, rcond=None)[0].T
            both = (np.linalg.norm(c[:, 1:6], axis=1) for c in (values[-1], fit))
            roots.append(np.subtract(*both))
        batch = Patches(store, 1).draw(np.arange(48))
        plain, loss = signal_loss(identity, batch.tensors), SignalEnergyLoss(0.5)
        apart = 0.5 / (4 * np.pi) * float((np.concatenate(roots) ** 2).mean())
        for _ in range(2):  # the second call uses the fits that the first one kept
            added = float(loss(identity, batch.tensors) - plain)
            assert added == pytest.approx(apart, rel=1e-4)
        tiled = Tiles(store, 4, 0).draw(np.array([[0, 0, 0, 0], [1, 0, 0, 0]]))
        other = loss(lambda x: x, tiled.tensors)
        assert float(other) == pytest.approx(float(plain) + apart, rel=1e-4)
        network = torch.nn.Linear(15, 15)
        loss(network, batch.tensors).backward()
        assert torch.isfinite(network.weight.grad).all()
        torch.nn.init.zeros_(network.weight)
        torch.nn.init.zeros_(network.bias)
        network.zero_grad()
        loss(network, batch.tensors).backward()  # no energy at all: the root has a slope still
        assert torch.isfinite(network.weight.grad).all()
    assert loss_with_energy(0) is signal_loss and loss_with_energy(2).weight == 2


@pytest.mark.parametrize("make", [lambda s, d: Patches(s, 3, d), lambda s, d: Tiles(s, 4, 1, d)])
def test_all_batches_have_one_design_on_the_device_though_the_store_is_not_there(filled, make):
    store, _ = filled
    # A device without memory: what lies there can be told from what stays on the host.
    where = torch.device("meta")
    sampler, seen, kept = make(store, "meta"), [], []
    for batch in sampler.batches(16, (0,)):
        assert all(t.device.type == "cpu" for t in batch.tensors[:4])
        moved = batch.to(where).tensors
        assert all(t.device == where for t in moved)
        seen.append(moved[4])
        kept.append(moved[5])
    assert len(seen) > 3
    assert all(t is sampler.designs for t in seen) and all(t is sampler.shares for t in kept)


@pytest.mark.parametrize("fits", [True, False])
def test_a_store_that_fits_the_gpu_twice_lies_there(filled, monkeypatch, fits):
    store, _ = filled
    from napari_dmri import device
    from napari_dmri.training import patches

    moved = {}

    def note(name):
        def to(where):
            moved[name] = where.type
            return getattr(Store, name)(store)

        return lambda: SimpleNamespace(to=to)

    for name in ("inputs", "targets", "designs", "shares"):
        monkeypatch.setattr(store, name, note(name))
    monkeypatch.setattr(device, "free_memory", lambda name: 10**9 if fits else store.nbytes)
    patches.Patches(store, device="cuda")
    large = "cuda" if fits else "cpu"
    assert moved == {"inputs": large, "targets": large, "designs": "cuda", "shares": "cuda"}


def test_the_loss_keeps_its_fits_over_an_epoch(filled, monkeypatch):
    store, _ = filled
    calls = []
    real = torch.linalg.pinv

    def counted(matrix):
        calls.append(matrix.shape)
        return real(matrix)

    monkeypatch.setattr(torch.linalg, "pinv", counted)
    loss = SignalEnergyLoss(1.0)
    for batch in Patches(store).batches(16, (0,)):
        loss(identity, batch.to(torch.device("cpu")).tensors)
    assert len(calls) == 1


def test_without_order_2_there_is_no_energy_to_compare(tmp_path):
    with Store(1, 4, tmp_path / "flat") as store:
        where = np.ones((2, 2, 2), bool)
        store.add("a", np.ones((2, 2, 2, 1)), where, np.zeros((8, 4)), np.full((4, 1), 0.28))
        batch = Patches(store, 1).draw(np.arange(8)).tensors
        assert float(SignalEnergyLoss(1.0)(identity, batch)) == float(signal_loss(identity, batch))


def test_the_store_goes_away_and_refuses_what_does_not_fit():
    with Store(6, 5) as store:
        where = np.ones((2, 2, 2), bool)
        good = (np.zeros((2, 2, 2, 6)), where, np.zeros((8, 5)), np.ones((5, 6)))
        store.add("a", *good)
        assert store.nbytes == 4 * 8 * (6 + 5)
        with pytest.raises(InputError, match=r"b: the input has shape \(2, 2, 2, 5\)"):
            store.add("b", good[0][..., :5], *good[1:])
        with pytest.raises(InputError, match="b: the design"):
            store.add("b", *good[:3], np.ones((4, 6)))
        with pytest.raises(InputError, match="b: the target has shape"):
            store.add("b", good[0], where, np.zeros((8, 7)), np.ones((7, 6)))
        with pytest.raises(InputError, match="b: the target holds NaN"):
            store.add("b", good[0], where, np.full((8, 5), np.nan), good[3])
        folder = store.folder
        assert folder.is_dir() and store.samples == 8
    assert not folder.exists()
