from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from napari_dmri.deconvolve.evaluation.lesion import lesion_scans, lesion_table, probe_lesion
from napari_dmri.deconvolve.evaluation.protocols import PROTOCOLS
from napari_dmri.errors import InputError

SCANS = (40, 40, 5)


@pytest.mark.parametrize("kind", ["csf", "oedema"])
def test_the_true_fodf_invents_nothing_and_the_healthy_one_does(kind: str) -> None:
    subject, inside = lesion_scans(PROTOCOLS["low"], kind, SCANS)
    assert inside.sum() > 20
    fod = subject.truth.fod(8)
    true = probe_lesion(fod, subject, inside, 0.1)
    assert true.density == pytest.approx(true.true_density, abs=0.05)
    healthy = fod.coefficients.copy()
    normal = (subject.truth.tissue[..., 0] >= 0.9) & ~inside
    healthy[inside] = healthy[normal].mean(0)
    sick = probe_lesion(replace(fod, coefficients=healthy), subject, inside, 0.5)
    assert sick.density > 0.9 > true.density
    if kind == "csf":
        assert true.invented == 0
        assert sick.invented == 1
    else:
        assert true.true_density == pytest.approx(0.55, abs=0.1)
        assert true.error < 12
        assert np.isnan(true.invented)
    assert lesion_table({(kind, "truth"): true}).rows[0]["lesion"] == kind


def test_lesions_need_subjects_and_a_scan_around_them() -> None:
    with pytest.raises(InputError, match="no subjects"):
        lesion_scans(PROTOCOLS["random"], "csf")
    with pytest.raises(InputError, match="outside a scan"):
        lesion_scans(PROTOCOLS["low"], "csf", (8, 8, 3))
