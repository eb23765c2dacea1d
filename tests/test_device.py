from __future__ import annotations

import numpy as np
import pytest

from napari_dmri import device
from napari_dmri.errors import Cancelled, InputError
from napari_dmri.progress import part, throttled


@pytest.mark.parametrize("free", [64, 1000, 10**9])
def test_tiles_cover_every_item_once(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    monkeypatch.setattr(device, "free_memory", lambda name="cpu": free)
    seen = np.zeros(103, int)

    def work(tile: slice) -> None:
        seen[tile] += 1

    device.run_tiles(work, len(seen), bytes_each=4)
    assert (seen == 1).all()


def test_running_out_of_memory_halves_the_tile_and_goes_on() -> None:
    sizes: list[int] = []

    def work(tile: slice) -> None:
        size = tile.stop - tile.start
        if size > 20:
            raise MemoryError
        sizes.append(size)

    device.run_tiles(work, 100, bytes_each=4)
    assert sum(sizes) == 100 and max(sizes) <= 20


def test_tiles_have_at_most_the_size_that_was_asked_for() -> None:
    sizes: list[int] = []
    device.run_tiles(lambda tile: sizes.append(tile.stop - tile.start), 10, 4, most=4)
    assert sizes == [4, 4, 2]


def test_when_nothing_fits_the_message_names_the_memory() -> None:
    def work(tile: slice) -> None:
        raise RuntimeError("CUDA out of memory")

    with pytest.raises(InputError, match=r"one voxel needs 2\.0 MB and .* MB are free"):
        device.run_tiles(work, 8, bytes_each=2 * 2**20)


def test_other_errors_are_not_mistaken_for_memory() -> None:
    def work(tile: slice) -> None:
        raise RuntimeError("shapes disagree")

    with pytest.raises(RuntimeError, match="shapes disagree"):
        device.run_tiles(work, 8, bytes_each=4)


def test_work_stops_between_tiles_when_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "free_memory", lambda name="cpu": 160)
    done: list[int] = []

    def progress(fraction: float, text: str) -> None:
        if len(done) == 2:
            raise Cancelled

    with pytest.raises(Cancelled):
        device.run_tiles(lambda tile: done.append(tile.start), 100, 4, progress=progress)
    assert done == [0, 10]


def test_memory_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "free_memory", lambda name="cpu": 2**30)
    with pytest.raises(InputError, match=r"The scan needs 3\.0 GB of memory and 1\.0 GB are free"):
        device.require_memory(3 * 2**30, "The scan", "crop it.")


def test_devices_are_chosen_and_refused_in_words() -> None:
    chosen = device.choose_device("auto")
    assert chosen.name in ("cuda", "mps", "cpu") and chosen.reason
    with pytest.raises(InputError, match="Device 'tpu' is not available here; choose one of: auto"):
        device.choose_device("tpu")


def test_a_part_of_the_work_reports_on_its_share() -> None:
    told: list[tuple[float, str]] = []
    part(lambda f, t: told.append((f, t)), 0.5, 1.0, "fit: ")(0.5, "tile 1")
    assert told == [(0.75, "fit: tile 1")]


def test_throttled_reports_pass_the_first_and_the_last() -> None:
    told: list[float] = []
    report = throttled(lambda f, t: told.append(f), interval=60)
    for step in range(11):
        report(step / 10, "")
    assert told == [0.0, 1.0]


def test_overlapping_jobs_give_the_threads_back() -> None:
    import torch

    before = torch.get_num_threads()
    first, second = device.spare_core(), device.spare_core()
    with first:
        second.__enter__()
    second.__exit__(None, None, None)
    assert torch.get_num_threads() == before
