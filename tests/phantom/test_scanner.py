from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from napari_dmri.errors import InputError
from napari_dmri.phantom.anatomy import make_subject
from napari_dmri.phantom.composition import Grid, sample
from napari_dmri.phantom.presets import SITES, get_scanner
from napari_dmri.phantom.scanner import EFFECTS, SIGNAL_SCALE, Scanner
from napari_dmri.phantom.tissue_signal import TISSUE

if TYPE_CHECKING:
    from napari_dmri.phantom.travelling import TravellingSubject


def _cube() -> Grid:
    affine = np.diag([3.0, 3.0, 3.0, 1.0])
    affine[:3, 3] = -3.0 * 15.5
    return Grid((32, 32, 32), affine)


def test_turning_subject_and_table_by_90_degrees_changes_nothing() -> None:
    machine = replace(get_scanner("prisma_st").ideal(), shells=((1200.0, 8), (3000.0, 6)), b0=1)
    turn = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    subject, grid = make_subject(3), _cube()
    table = machine.gradients
    before = machine.noise_free(subject, sample(subject, grid), gradients=table)
    turned = subject.rotated(turn)
    after = machine.noise_free(turned, sample(turned, grid), gradients=table.rotate(turn))
    difference = np.abs(np.rot90(before, 1, (0, 1)) - after)
    assert before.max() > 100
    assert np.quantile(difference, 0.999) < 0.05
    assert difference.max() < 0.01 * before.max()


def test_noise_has_the_stated_sd_and_floor(traveller: TravellingSubject) -> None:
    machine = get_scanner("prisma_st")
    truth = traveller.truths["prisma_st"]
    scan, repeat = traveller.scans["prisma_st"], traveller.repeats["prisma_st"]
    b0 = np.flatnonzero(scan.gradients.b0_mask)
    sigma = machine.sigma * machine.noise_map(truth.composition.grid)
    water = truth.tissue[..., 2] > 0.95
    difference = scan.volumes(b0)[water] - repeat.volumes(b0)[water]
    spread = (difference / sigma[water][:, None]).std() / np.sqrt(2)
    assert spread == pytest.approx(1, rel=0.05)
    air = truth.composition.image("tissue").sum(-1) == 0
    air &= ~_near(truth.mask)
    floor = (scan.volumes()[air] / sigma[air][:, None]).mean()
    assert floor == pytest.approx(np.sqrt(np.pi / 2), rel=0.02)


def _near(mask: np.ndarray) -> np.ndarray:
    from scipy.ndimage import binary_dilation

    return binary_dilation(mask, iterations=4)


def test_snr_is_that_of_white_matter() -> None:
    machine = Scanner("x", snr=20.0, gain=2.0)
    assert machine.sigma * 20 == pytest.approx(2 * SIGNAL_SCALE * TISSUE[0].weight(89, 8000))


def test_gain_and_bias_cancel_in_the_ratio(traveller: TravellingSubject) -> None:
    composition, subject = traveller.truth.composition, traveller.truth.subject
    plain = Scanner("x", shells=((1200.0, 6),), b0=1)
    marked = replace(plain, gain=2.5, bias=0.5)
    a, b = plain.noise_free(subject, composition), marked.noise_free(subject, composition)
    inside = composition.mask
    ratio = a[inside][:, 1:] / a[inside][:, :1] - b[inside][:, 1:] / b[inside][:, :1]
    assert np.abs(ratio).max() < 1e-5
    assert b[inside].mean() > 2 * a[inside].mean()


def test_scale_error_is_a_change_of_b(traveller: TravellingSubject) -> None:
    composition, subject = traveller.truth.composition, traveller.truth.subject
    off = Scanner("x", shells=((1000.0, 6),), b0=1, bvalue_scale=1.2)
    other = Scanner("x", shells=((1200.0, 6),), b0=1)
    a, b = off.noise_free(subject, composition), other.noise_free(subject, composition)
    assert np.abs(a - b).max() < 0.02


def test_non_linearity_is_none_at_the_isocentre() -> None:
    machine = Scanner("x", nonlinearity=0.1)
    field = machine.gradient_field(np.array([[0.0, 0, 0], [0, 0, 80]]))
    assert np.allclose(field[0], np.eye(3))
    assert field[1, 2, 2] > 1.05


def test_point_spread_keeps_the_sum(traveller: TravellingSubject) -> None:
    composition, subject = traveller.truth.composition, traveller.truth.subject
    plain = Scanner("x", shells=((1200.0, 1),), b0=1)
    a = plain.noise_free(subject, composition)[..., 0]
    b = replace(plain, psf=(3.0, 3.0, 0.0)).noise_free(subject, composition)[..., 0]
    assert b.sum() == pytest.approx(a.sum(), rel=1e-3)
    assert b.std() < a.std()


def test_effects_are_borrowed_alone() -> None:
    a, b = get_scanner("prisma_st"), get_scanner("ge_st")
    mixed = a.with_effects_of(b, "point spread")
    assert mixed.psf == b.psf and mixed.snr == a.snr and mixed.tr == a.tr
    assert a.with_effects_of(b, *EFFECTS, name="ge_st") == b
    with pytest.raises(InputError, match="Unknown effect 'ghost'"):
        a.with_effects_of(b, "ghost")


def test_presets_are_the_protocols() -> None:
    assert get_scanner("ge_st").gradients.summary() == "4 b0 + 30 at b=1200"
    assert get_scanner("connectom_sa").voxel_size == 1.2
    assert get_scanner("connectom_sa").te == 68
    both = get_scanner("connectom_st+b3000").gradients.summary()
    assert both == "4 b0 + 30 at b=1200 + 30 at b=3000"
    research = get_scanner("research_hr").gradients.summary()
    assert research == "6 b0 + 30 at b=1000 + 64 at b=3000"
    assert all(site.name == name for name, site in SITES.items())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"te": -5}, "te=-5"),
        ({"snr": 0}, "snr=0"),
        ({"coils": 0}, "coils=0"),
        ({"bvalue_scale": 3}, "bvalue_scale=3"),
        ({"shells": ()}, "shells"),
        ({"shells": ((1000.0, 0),)}, "at least 1 direction"),
        ({"psf": (-1, 0, 0)}, "point spread"),
        ({"voxel_size": 0}, "voxel_size=0"),
    ],
)
def test_impossible_scanners_are_refused(change: dict, words: str) -> None:
    with pytest.raises(InputError, match=words):
        Scanner("bad", **change)


def test_unknown_presets_are_refused() -> None:
    with pytest.raises(InputError, match="Unknown site 'mars'"):
        get_scanner("mars")
    with pytest.raises(InputError, match="b=3000 already"):
        get_scanner("research_hr+b3000")
