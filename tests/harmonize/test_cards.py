from dataclasses import replace

import numpy as np
import pytest

from napari_dmri import GradientTable, InputError
from napari_dmri.harmonize.cards import check_card, scan_hash

from .conftest import DIRECTIONS, base_brain, make_scan

CARD = {
    "source_site": "a",
    "target_site": "b",
    "simulated": False,
    "subjects": ["sub-1"],
    "inputs": [],
    "voxel_size": [2.4, 2.4, 2.4],
    "shells": [{"bvalue": 1200.0, "order": 4}],
}


@pytest.fixture(scope="module")
def scan():
    made = make_scan(*base_brain(), subject="sub-7", site="a")
    return replace(made, metadata={"subject": "sub-7", "site": "a"})


def levels(card, scan):
    return [c.level for c in check_card(card, scan)]


def said(card, scan, level):
    return " ".join(c.sentence for c in check_card(card, scan) if c.level == level)


def test_a_scan_that_fits(scan):
    assert levels(CARD, scan) == ["ok", "ok", "ok"]


def test_simulated_model_on_a_real_scan(scan):
    words = said({**CARD, "simulated": True}, scan, "error")
    assert "simulated, demo only" in words and "train your own" in words


def test_real_model_on_a_simulated_scan(scan):
    assert "is simulated" in said(CARD, replace(scan, metadata={"simulated": True}), "warning")


def test_apply_refuses_what_the_card_refuses(world, real):
    with pytest.raises(InputError, match="train your own"):
        world.model.apply(real)


def test_other_shell(scan):
    card = {**CARD, "shells": [{"bvalue": 3000.0, "order": 4}]}
    assert "trained at b=3000 s/mm² and the scan has b=1200" in said(card, scan, "error")


def test_other_order(scan):
    card = {**CARD, "shells": [{"bvalue": 1200.0, "order": 8}]}
    assert "order 8 and the scan's 30 directions" in said(card, scan, "error")
    assert "support order 4" in said(card, scan, "error")


def test_richer_scan_is_told(scan):
    card = {**CARD, "shells": [{"bvalue": 1200.0, "order": 2}]}
    assert "detail above order 2 is not kept" in said(card, scan, "ok")


def test_b_value_a_little_off(scan):
    card = {**CARD, "shells": [{"bvalue": 1150.0, "order": 4}]}
    assert "+4.3%" in said(card, scan, "warning")
    card = {**CARD, "shells": [{"bvalue": 1195.0, "order": 4}]}
    assert said(card, scan, "warning") == ""


def test_extra_shell_passes_through(scan):
    bvalues = np.r_[0, 0, np.full(60, 1200.0)]
    bvalues[-30:] = 3000
    table = GradientTable(bvalues, np.concatenate([np.zeros((2, 3)), DIRECTIONS, DIRECTIONS]))
    data = np.concatenate([scan.data, scan.data[..., 2:]], axis=-1)
    wide = replace(scan, data=data, gradients=table)
    assert "not trained at b=3000" in said(CARD, wide, "warning")


def test_other_voxels(scan):
    affine = np.diag([1.2, 1.2, 1.2, 1])
    assert "1.2 x 1.2 x 1.2 mm" in said(CARD, replace(scan, affine=affine), "warning")


def test_other_site_and_training_subject(scan):
    assert "says it is from a" in said({**CARD, "source_site": "c"}, scan, "warning")
    assert "trained on sub-7" in said({**CARD, "subjects": ["7"]}, scan, "warning").replace(
        "trained on 7", "trained on sub-7"
    )


def test_no_b0(scan):
    assert "no b0 volume" in said(CARD, scan.select(np.arange(2, 32)), "error")


def test_content_tells_scans_apart(scan):
    assert scan_hash(scan) == scan_hash(replace(scan, name="other name"))
    data = scan.data.copy()
    data[5, 5, 5, 0] += 9
    assert scan_hash(scan) != scan_hash(replace(scan, data=data))
