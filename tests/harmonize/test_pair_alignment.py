"""Pairs on one grid that do not lie on each other are found, said in numbers, and aligned."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from napari_dmri import DmriWarning, InputError
from napari_dmri.harmonize import GolkovHarmonizer, LinearRish, Pair, features
from napari_dmri.harmonize.pair_alignment import LOW, as_it_lies, farthest, look_alike, moved_by
from napari_dmri.harmonize.training_pairs import Recipe, add_pair, moved_source, onto_target
from napari_dmri.phantom.travelling import simulate_subject
from napari_dmri.training import Stage, Store

from .conftest import AFFINE, QUICK, base_brain, make_scan, scaled, subject_pair

VOXEL = 2.4


def channels(scan):
    return features.measure(scan, {1200.0: 4}, 0.006).channels


def motion_of(shift=(0, 0, 0), turn=0.0, scan=None):
    """Return target points to source ones: a shift in voxels, a turn in degrees about z."""
    motion = np.eye(4)
    if scan is not None:
        centre = (scan.affine @ [*np.argwhere(scan.mask).mean(0), 1])[:3]
        motion[:3, :3] = Rotation.from_euler("z", turn, degrees=True).as_matrix()
        motion[:3, 3] = centre - motion[:3, :3] @ centre
    motion[:3, 3] += VOXEL * np.array(shift)
    return motion


def displaced(pair, shift=(0, 0, 0), turn=0.0):
    """Move a pair's source on its own grid; what comes in at the edge is outside the mask."""
    motion = motion_of(shift, turn, pair.target)
    return replace(pair, source=moved_source(pair.source, pair.target, motion))


@pytest.fixture(scope="module")
def pair():
    """One simulated person at two simulated sites."""
    made = simulate_subject(0, size=(36, 42, 8), repeats=False)
    return Pair(made.scans["ge_st"], made.scans["prisma_st"], "sub-01")


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_true_pair_is_not_doubted(number):
    made = simulate_subject(number, size=(24, 28, 4), repeats=False)
    source, target = (channels(made.scans[site]) for site in ("ge_st", "prisma_st"))
    assert as_it_lies(target, source, "sub") == []


@pytest.mark.parametrize(
    ("shift", "turn", "words"),
    [
        ((1, 0, 0), 0, "moved by about 2.4 mm (R +2.4, A +0.0, S +0.0) by 0.9"),
        ((0, -1, 0), 0, "moved by about 2.4 mm (R +0.0, A -2.4, S +0.0) by 0.9"),
        ((0, 0, 1), 0, "moved by about 2.4 mm (R +0.0, A +0.0, S +2.4) by 0.9"),
        ((2, 1, 0), 0, "moved by about 5.4 mm (R +4.8, A +2.4, S +0.0) by 0.9"),
        ((0, 0, 0), 4, "turned by about 4.0 degrees by 0.9"),
    ],
)
def test_a_source_that_is_off_is_told_with_its_millimetres(pair, shift, turn, words):
    off = displaced(pair, shift, turn)
    said = as_it_lies(channels(off.target), channels(off.source), "sub-01")
    assert len(said) == 1 and words in said[0]
    assert said[0].startswith("sub-01: source and target are on one grid and look misaligned")
    assert 'train with registration="always" (--registration always)' in said[0]


def test_noise_alone_is_no_misalignment(pair):
    rng = np.random.default_rng(0)

    def noisy(scan):
        data = np.asarray(scan.data)
        level = 0.3 * data[scan.mask].mean()
        more = data + level * rng.standard_normal(data.shape)
        return replace(scan, data=np.abs(more).astype(np.float32))

    said = as_it_lies(channels(noisy(pair.target)), channels(noisy(pair.source)), "sub-01")
    assert len(said) == 1 and "no more than 0." in said[0] and "moved" not in said[0]


def test_two_people_are_told_apart(pair):
    other = simulate_subject(1, size=(36, 42, 8), repeats=False).scans["ge_st"]
    said = as_it_lies(channels(pair.target), channels(other), "sub-01")
    assert len(said) == 1 and "may be of two people" in said[0]
    assert f"one person's by {LOW:.2f} or more" in said[0]
    assert look_alike(LOW, "sub-01") == []


def test_a_look_can_be_cancelled(pair):
    def stop(fraction, text):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        as_it_lies(channels(pair.target), channels(pair.source), "sub-01", stop)


def test_motions_in_words_and_millimetres(pair):
    look = channels(pair.target)
    assert moved_by(np.eye(4), look) == "left where it is"
    assert farthest(np.eye(4), look) == 0
    assert farthest(motion_of((1, 0, 0)), look) == pytest.approx(VOXEL)
    turned = motion_of(turn=3, scan=pair.target)
    assert moved_by(turned, look) == "turned by about 3.0 degrees"
    assert 1 < farthest(turned, look) < 5
    assert " and turned by about 3.0" in moved_by(motion_of((0, 0, 1)) @ turned, look)


def test_always_aligns_pairs_on_one_grid(pair, tmp_path):
    recipe = Recipe(1200.0, 4, registration="always")
    with Store(15, 30, tmp_path / "a") as store:
        said = add_pair(store, displaced(pair, (1, 0, 0)), "sub-01", recipe).notes
    assert len(said) == 1 and "the source was moved by about 2." in said[0]
    assert "onto the target by a rigid alignment, and its gradients turned with it" in said[0]


def test_what_lies_right_is_not_interpolated(tmp_path):
    pair = subject_pair(1)
    found = []
    for registration in ("rigid", "always"):
        recipe = Recipe(1200.0, 4, registration=registration)
        with Store(15, 30, tmp_path / registration) as store:
            added = add_pair(store, pair, "sub-1", recipe)
            found.append((added.tissues, np.array(store.volume(0))))
    assert "mm and was left where it is" in added.notes[0] and len(added.notes) == 1
    assert found[0][0] == found[1][0]
    np.testing.assert_array_equal(found[0][1], found[1][1])


def test_evaluation_aligns_where_always_is_asked_for(pair):
    off = displaced(pair, (1, 0, 0)).source
    always = Recipe(1200.0, 4, registration="always")
    moved, said = onto_target(off, pair.target, "sub-01", always, role="repeat")
    assert "the repeat was moved by about 2." in said and moved is not off
    assert onto_target(pair.source, pair.target, "sub-01", always) == (pair.source, "")
    assert onto_target(off, pair.target, "sub-01", Recipe(1200.0, 4)) == (off, "")


def test_a_misaligned_pair_is_warned_about_and_on_the_card(pair):
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        model = GolkovHarmonizer(stages=[Stage("adam", 1e-3, 2048, 1)]).fit(
            [displaced(pair, (1, 0, 0))]
        )
    said = [str(w.message) for w in seen if issubclass(w.category, DmriWarning)]
    assert any("look misaligned" in words for words in said)
    assert any("look misaligned" in words for words in model.card["notes"])


@pytest.mark.filterwarnings("ignore:Trained on one travelling subject")
def test_linear_rish_says_so_where_two_scans_are_unlike():
    coefficients, mask = base_brain(0)
    other, _ = base_brain(5)
    source = make_scan(coefficients, mask, subject="sub-1", site="a")
    target = make_scan(scaled(0.7 * coefficients + 0.3 * other), mask, subject="sub-1", site="b")
    with pytest.warns(DmriWarning, match="may be of two people"):
        model = LinearRish(**QUICK).fit([Pair(source, target, "sub-1")])
    assert any("may be of two people" in note for note in model.card["notes"])


def test_unknown_registrations_are_refused():
    with pytest.raises(InputError, match="choose 'rigid', 'affine' or 'always'"):
        Recipe(1200.0, 4, registration="never")
    assert np.allclose(AFFINE[:3, :3], VOXEL * np.eye(3))
