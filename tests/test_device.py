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


def settings() -> tuple[str, str]:
    import torch

    return torch.backends.cuda.matmul.fp32_precision, torch.backends.cudnn.conv.fp32_precision


def test_tf32_is_off_only_while_float32_is_to_be_exact() -> None:
    import torch

    before = settings()
    assert before[1] == "tf32"  # or the test tells nothing
    with device.exact_float32():
        assert "tf32" not in settings()
        with device.exact_float32():
            assert "tf32" not in settings()
        assert "tf32" not in settings()
    assert settings() == before
    with pytest.raises(ValueError, match="stop"), device.exact_float32():
        raise ValueError("stop")
    assert settings() == before
    # Nothing of torch's that reads the older settings is upset afterwards.
    assert torch.backends.cudnn.allow_tf32 and not torch.backends.cuda.matmul.allow_tf32
    assert torch.get_float32_matmul_precision() == "highest"


@pytest.mark.parametrize("first_to_leave", [0, 1])
def test_the_last_of_overlapping_jobs_puts_tf32_back(first_to_leave: int) -> None:
    before = settings()
    jobs = [device.exact_float32(), device.exact_float32()]
    for job in jobs:
        job.__enter__()
    jobs.pop(first_to_leave).__exit__(None, None, None)
    assert "tf32" not in settings()
    jobs.pop().__exit__(None, None, None)
    assert settings() == before


@pytest.mark.parametrize("matmul", ["high", "highest"])
@pytest.mark.parametrize("conv", [True, False])
def test_what_a_program_chose_by_torchs_older_settings_stays(matmul: str, conv: bool) -> None:
    import torch

    try:
        torch.set_float32_matmul_precision(matmul)
        torch.backends.cudnn.allow_tf32 = conv
        with device.exact_float32():
            assert "tf32" not in settings()
        assert torch.get_float32_matmul_precision() == matmul
        assert torch.backends.cudnn.allow_tf32 is conv
    finally:
        torch.set_float32_matmul_precision("highest")
        torch.backends.cudnn.allow_tf32 = True


def test_older_torch_has_older_switches(monkeypatch: pytest.MonkeyPatch) -> None:
    from types import SimpleNamespace

    import torch

    matmul, cudnn = SimpleNamespace(allow_tf32=False), SimpleNamespace(allow_tf32=True)
    monkeypatch.setattr(torch.backends.cuda, "matmul", matmul)
    monkeypatch.setattr(torch.backends, "cudnn", cudnn)
    with device.exact_float32():
        assert not cudnn.allow_tf32 and not matmul.allow_tf32
    assert cudnn.allow_tf32 and not matmul.allow_tf32
