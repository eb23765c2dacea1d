from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from napari_dmri.deconvolve.evaluation.plan import (
    CEILING,
    CLASSICAL,
    EVERY,
    NETWORKS,
    SHIPPED,
    TAUGHT,
    Settings,
    options,
    planned_cells,
    prepare_folder,
    shipped_for,
    undone_cells,
)
from napari_dmri.deconvolve.evaluation.protocols import PROTOCOLS
from napari_dmri.deconvolve.registry import METHODS
from napari_dmri.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path


def test_every_method_is_planned_on_every_protocol_and_some_with_three_seeds() -> None:
    cells = planned_cells()
    pairs = {(cell.protocol, cell.method) for cell in cells}
    expected = {(p, m) for p in PROTOCOLS for m in (*CLASSICAL, *NETWORKS)}
    # Random crossings have no true fODFs, and no network of the package is for them.
    assert pairs - expected == {(p, m) for p in PROTOCOLS if p != "random"
                                for m in (CEILING, SHIPPED)}  # fmt: skip
    # Random crossings have no true fODFs to learn from.
    assert expected - pairs == {("random", m) for m in TAUGHT}
    assert set(TAUGHT.values()) <= set(METHODS)
    seeds = {
        m: max(cell.seed for cell in cells if cell.method == m) + 1 for m in (*CLASSICAL, *NETWORKS)
    }
    assert {m for m, n in seeds.items() if n == 3} == {"shd", "shd-tv", "shd-s"}
    assert {n for m, n in seeds.items() if m not in ("shd", "shd-tv", "shd-s")} == {1}
    assert [cell.seed for cell in cells] == sorted(cell.seed for cell in cells)


def test_a_size_of_scans_that_there_is_not_is_refused_before_anything_is_kept() -> None:
    with pytest.raises(InputError, match="Unknown size 'smal'; choose of"):
        Settings(scans="smal")


def test_the_shipped_networks_come_last_and_fit_what_is_seen() -> None:
    assert EVERY[-1] == SHIPPED
    first = [cell for cell in planned_cells() if cell.seed == 0]
    assert [cell.method for cell in first][-3:] == [SHIPPED] * 3
    found = {name: shipped_for(protocol) for name, protocol in PROTOCOLS.items()}
    names = {name: model and model.name for name, model in found.items()}
    assert names == {
        "high": "shd-s-tv-two-shells",
        "low": "shd-s-tv-one-shell",
        "super": "shd-s-tv-one-shell",
        "random": None,
    }
    # The row is called taught.
    assert all(model is None or model.card["known_fods"] for model in found.values())
    assert options(SHIPPED, PROTOCOLS["high"]) == [{"model": "shd-s-tv-two-shells"}]
    with pytest.raises(InputError, match=r"shipped cannot be evaluated on random: .*; choose"):
        planned_cells(["random"], [SHIPPED])


def test_cells_without_scores_are_still_to_do(tmp_path: Path) -> None:
    cells = planned_cells(["low"], ["mlp", "csd"])
    (tmp_path / "low_csd_0").mkdir()
    assert undone_cells(tmp_path, cells) == cells
    (tmp_path / "low_csd_0" / "scores.json").write_text("{}")
    assert undone_cells(tmp_path, cells) == cells[1:]


def test_seeds_can_be_given() -> None:
    cells = planned_cells(["low"], ["mlp", "csd"], 2)
    assert [cell.name for cell in cells] == ["low_csd_0", "low_mlp_0", "low_mlp_1"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((["deep"], ()), "Unknown protocol deep; choose of high, low, super, random"),
        (((), ["csdx"]), "Unknown method csdx; choose of true-fod, csd"),
        (((), (), 0), "0 seeds; expected 1 or more"),
    ],
)
def test_unknown_names_are_refused(arguments: tuple[object, ...], said: str) -> None:
    with pytest.raises(InputError, match=said):
        planned_cells(*arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"size": "huge"}, "Unknown size 'huge'"),
        ({"train": 0}, "0 training and 2 test subjects"),
        ({"test": 3}, "4 training and 3 test subjects"),
        ({"steps": 0}, "0 steps"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        Settings(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=lambda p: p.name)
@pytest.mark.parametrize("method", CLASSICAL)
def test_options_are_settings_that_the_method_takes(method: str, protocol: object) -> None:
    found = options(method, protocol)  # type: ignore[arg-type]
    assert len(found) >= 2
    for option in found:
        METHODS[method].keywords(option)


def test_a_folder_goes_on_with_the_same_settings_only(tmp_path: Path) -> None:
    folder = prepare_folder(tmp_path / "e", Settings())
    assert prepare_folder(folder, Settings()) == folder
    with pytest.raises(InputError, match="steps: None then, 5 now"):
        prepare_folder(folder, Settings(steps=5))
    other = tmp_path / "other"
    other.mkdir()
    (other / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="holds no evaluation"):
        prepare_folder(other, Settings())
