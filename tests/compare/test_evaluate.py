"""Evaluation against the target: perfect, refitted, harmonized and repeated scans."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from napari_dmri.compare import evaluate
from napari_dmri.errors import InputError
from napari_dmri.harmonize.reconstruct import refit
from napari_dmri.images import ScalarImage
from napari_dmri.signal.sh_fit import fit_sh

SLOWER = np.array(0.8)


@pytest.fixture
def site(make_scan):
    """A source with faster diffusion and other directions, a target, and its repeat."""
    return {
        "source": make_scan(1, noise=15.0, name="source"),
        "target": make_scan(2, noise=15.0, scale=SLOWER, name="target"),
        "repeat": replace_noise(make_scan, 2, 77),
        "perfect": make_scan(1, scale=SLOWER, name="harmonized"),
        "labels": make_scan().metadata["truth"],
    }


def replace_noise(make_scan, directions_seed, noise_seed):
    clean = make_scan(directions_seed, scale=SLOWER, name="repeat")
    noise = np.random.default_rng(noise_seed).normal(0, 15, clean.data.shape)
    data = np.where(clean.mask[..., None], np.maximum(clean.data + noise, 0), 0)
    return replace(clean, data=data.astype(np.float32))


def table_of(site, **kwargs):
    return evaluate.evaluate_harmonization(
        site["source"],
        kwargs.pop("refitted", None),
        site["perfect"],
        site["target"],
        site["repeat"],
        kwargs.pop("labels", site["labels"]),
        **kwargs,
    )


def test_a_right_harmonization_beats_the_source_and_nears_the_floor(site):
    table = table_of(site)
    assert tuple(r.name for r in table.rows) == evaluate.ROWS
    assert table.columns == ("signal WM", "signal GM", "FA WM", "FA GM", "MD WM", "MD GM")
    raw, refit, ours, _, floor = table.rows
    for column in ("signal WM", "signal GM", "MD WM", "MD GM"):
        assert ours[column] < 0.6 * refit[column]
        assert ours[column] < 1.2 * floor[column]
    assert refit["signal GM"] < raw["signal GM"]
    assert "order 4" in table.notes[0]


def test_the_target_itself_has_no_error(site):
    site["perfect"] = site["target"]
    row = table_of(site)["harmonized"]
    assert max(row.values.values()) < 1e-10


def test_an_sh_fit_passes_to_other_directions_unchanged(make_scan):
    scan, other = make_scan(1), make_scan(2)
    fitted = refit(scan, 4)
    image = fit_sh(scan, 4, mask=scan.mask)
    from napari_dmri.signal.sh_fit import evaluate_sh

    directions = other.gradients.directions[2:]
    carried = evaluate.signal_at(fitted, directions, mask=scan.mask)
    np.testing.assert_allclose(carried, np.clip(evaluate_sh(image, directions), 0, 1), atol=2e-5)


def test_measured_directions_are_taken_as_they_are_in_any_order(scan):
    turned = -scan.gradients.directions[2:][::-1]
    carried = evaluate.signal_at(scan, turned)
    np.testing.assert_array_equal(carried, evaluate.normalised_shell(scan)[..., ::-1])


def test_refitted_may_be_given_as_scan_or_sh(site):
    inside = np.isin(site["labels"], (1, 2))
    scan = refit(site["source"].with_mask(inside), 4)
    image = fit_sh(site["source"], 4, mask=inside)
    tables = [table_of(site), table_of(site, refitted=scan), table_of(site, refitted=image)]
    values = [list(t["source, refitted"].values.values()) for t in tables]
    np.testing.assert_allclose(values[1], values[0], rtol=1e-6)
    np.testing.assert_allclose(values[2], values[0], rtol=1e-6)


def test_without_a_repeat_its_rows_are_left_out(site):
    site["repeat"] = None
    assert len(table_of(site).rows) == 3


def test_labels_come_from_the_target_by_default_and_may_be_an_image(site):
    image = ScalarImage(site["labels"], site["target"].affine)
    assert table_of(site, labels=image) == table_of(site)
    assert len(table_of(site, labels=None).rows) == 5


def test_bad_input_is_refused_in_words(site):
    with pytest.raises(InputError, match="labels have shape"):
        table_of(site, labels=np.ones((2, 2, 2)))
    with pytest.raises(InputError, match="no grey matter"):
        table_of(site, labels=np.where(site["labels"] == 2, 0, site["labels"]))
    with pytest.raises(InputError, match="No shell at b=3000"):
        table_of(site, shell=3000.0)
    site["source"] = replace(site["source"], affine=np.diag([3.0, 2, 2.5, 1]))
    with pytest.raises(InputError, match=r"evaluation needs both on one grid.*target"):
        table_of(site)
