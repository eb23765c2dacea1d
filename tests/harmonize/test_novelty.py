"""What is unlike the training data stands out, and what is like it does not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from napari_dmri import InputError, fit_sh
from napari_dmri.errors import Cancelled
from napari_dmri.harmonize.novelty import Novelty, fit_novelty, judge, novelty_map
from napari_dmri.phantom.anatomy import Lesion
from napari_dmri.phantom.travelling import simulate_subject
from napari_dmri.training import load_checkpoint, save_checkpoint

if TYPE_CHECKING:
    from pathlib import Path

    from napari_dmri import Scan

SIZE = (64, 76, 5)
Volume = tuple[np.ndarray, np.ndarray]


def fitted(scan: Scan) -> Volume:
    image = fit_sh(scan, 4, device="cpu")
    return image.coefficients, np.asarray(image.mask & scan.mask)


def subject(index: int, lesion: Lesion | None = None) -> dict[str, Volume]:
    made = simulate_subject(index, size=SIZE, repeats=False, lesion=lesion)
    return {site: fitted(scan) for site, scan in made.scans.items()}


@pytest.fixture(scope="module")
def unseen() -> dict[str, Volume]:
    return subject(3)


@pytest.fixture(scope="module")
def model() -> Novelty:
    return fit_novelty([subject(n)["ge_st"] for n in range(3)], seed=1)


def levels(model: Novelty, volume: Volume) -> list[str]:
    return [check.level for check in judge(model, novelty_map(model, *volume), volume[1])]


def test_another_subject_of_the_same_site_is_like_the_training_data(
    model: Novelty, unseen: dict[str, Volume]
) -> None:
    values, mask = unseen["ge_st"]
    found = novelty_map(model, values, mask)
    assert found.dtype == np.float32 and not found[~mask].any()
    assert (found[mask] > 1).mean() < 0.03
    assert levels(model, unseen["ge_st"]) == ["ok"]


def test_another_site_stands_out(model: Novelty, unseen: dict[str, Volume]) -> None:
    share = {site: (novelty_map(model, *v)[v[1]] > 1).mean() for site, v in unseen.items()}
    assert share["prisma_st"] > 2 * share["ge_st"]
    assert "warning" in levels(model, unseen["prisma_st"])


def test_a_lesion_stands_out(model: Novelty, unseen: dict[str, Volume]) -> None:
    healthy, mask = unseen["ge_st"]
    # The centre's height is that of the slab that these small volumes show.
    lesion = Lesion("oedema", centre=(27.0, 12.0, 27.0))
    ill, _ = subject(3, lesion)["ge_st"]
    inside = mask & (np.abs(ill - healthy)[..., 0] > 0.25)
    assert inside.sum() > 50
    found = novelty_map(model, ill, mask)
    before = novelty_map(model, healthy, mask)
    assert (found[inside] > 1).mean() > 0.5 > 0.05 > (before[inside] > 1).mean()
    checks = judge(model, found, mask)
    assert checks[-1].level == "warning" and "region of" in checks[-1].sentence
    place = checks[-1].sentence.split("(")[1].split(")")[0].split(",")
    assert inside[tuple(int(i) for i in place)]


def test_turning_functions_changes_nothing(model: Novelty, unseen: dict[str, Volume]) -> None:
    values, mask = unseen["ge_st"]
    turned = values.copy()
    turned[..., 1:6] = values[..., 5:0:-1]
    np.testing.assert_allclose(
        novelty_map(model, turned, mask), novelty_map(model, values, mask), atol=1e-3
    )


def test_data_of_another_kind_are_refused(model: Novelty, unseen: dict[str, Volume]) -> None:
    values, mask = unseen["ge_st"]
    checks = judge(model, novelty_map(model, 5 * values, mask), mask)
    assert [c.level for c in checks] == ["error"] and "another kind" in checks[0].sentence


def test_saved_with_a_model_it_is_the_same(
    model: Novelty, unseen: dict[str, Volume], tmp_path: Path
) -> None:
    path = save_checkpoint(tmp_path / "m", model.tensors(), {"kind": "harmonizer"})
    again = Novelty.from_tensors(load_checkpoint(path)[0])
    assert again.region == model.region
    np.testing.assert_array_equal(
        novelty_map(again, *unseen["ge_st"]), novelty_map(model, *unseen["ge_st"])
    )


def test_a_seed_gives_the_same_statistics(unseen: dict[str, Volume]) -> None:
    first, second = (fit_novelty([unseen["ge_st"]], seed=2).tensors() for _ in range(2))
    for name, values in first.items():
        np.testing.assert_array_equal(values, second[name])


def test_bad_input_is_refused_in_words(model: Novelty, unseen: dict[str, Volume]) -> None:
    values, mask = unseen["ge_st"]
    with pytest.raises(InputError, match="8 training voxels; at least 100"):
        fit_novelty([(np.ones((2, 2, 2, 6)), np.ones((2, 2, 2)))])
    with pytest.raises(InputError, match="SH order 2 and the model's novelty statistics order 4"):
        novelty_map(model, values[..., :6], mask)
    tensors = model.tensors()
    with pytest.raises(InputError, match="lack weights"):
        Novelty.from_tensors({n: v for n, v in tensors.items() if n != "weights"})
    with pytest.raises(InputError, match="disagree in shape"):
        Novelty.from_tensors({**tensors, "centre": np.zeros(2)})

    def stop(fraction: float, text: str) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        fit_novelty([(values, mask)], progress=stop)
