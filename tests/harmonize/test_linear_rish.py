from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from scipy import ndimage

from napari_dmri import Cancelled, DmriWarning, GradientTable, InputError, Scan, harmonize
from napari_dmri.harmonize import LinearRish, Pair, refit
from napari_dmri.harmonize.linear_rish import ITERATIONS
from napari_dmri.signal.rish import rish
from napari_dmri.signal.sh_fit import fit_sh

from .conftest import FACTORS, QUICK, base_brain, make_scan, scaled, subject_pair, warped


def interior(mask):
    return ndimage.binary_erosion(mask, iterations=2, border_value=1)


def test_known_scaling_is_recovered_in_the_template(world):
    maps = world.model.maps
    cover = interior(next(iter(world.model._maps.values())).mask)
    assert cover.sum() > 1000
    for k, factor in enumerate(FACTORS):
        error = np.abs(maps[f"scale l={2 * k} b=1200"].data[cover] / factor - 1)
        assert np.median(error) < 0.02
        assert np.percentile(error, 90) < 0.02


def test_known_scaling_reaches_a_new_subject(world):
    source, target = world.held_out.source, world.held_out.target
    result = world.model.apply_detailed(source)
    inside = interior(source.mask)
    # The SH fit shrinks high orders, so the fair target is one that went through the fit as well.
    wanted = refit(target, 4)
    got, energy = (rish(fit_sh(s, 4, 0.006))[inside] for s in (result.scan, wanted))
    error = np.abs(np.sqrt(got / energy) - 1)
    assert np.percentile(error, 90, axis=0).max() < 0.02
    before, after = (
        np.square(np.asarray(s.data) - wanted.data)[inside].sum()
        for s in (refit(source, 4), result.scan)
    )
    assert after < 0.05 * before
    assert set(result.maps) == {
        *(f"scale l={k} b=1200" for k in (0, 2, 4)),
        *(f"{a} {b}" for a in ("template", "scan") for b in ("FA", "L0")),
    }
    a, b = (result.maps[f"{w} FA"].data[inside] for w in ("template", "scan"))
    assert np.corrcoef(a, b)[0, 1] > 0.9


def test_smooth_field_of_scales_is_recovered():
    ramp = np.linspace(-1, 1, 22)[:, None, None] * np.ones((22, 26, 12))
    field = np.stack([1 + 0.03 * ramp, 1.1 + 0.08 * ramp, 1.2 - 0.1 * ramp], -1)
    pairs = []
    coefficients, mask = base_brain()
    both = np.concatenate([coefficients, field], -1)
    for n in (1, 2):
        moved, inside = warped(both, mask, seed=n)
        source, factors = moved[..., :15], moved[..., 15:]
        target = source * factors[..., np.repeat([0, 1, 2], [1, 5, 9])]
        pairs.append(
            (
                make_scan(source, inside, subject=f"s{n}", site="a"),
                make_scan(target, inside, subject=f"s{n}", site="b"),
            )
        )
    model = LinearRish(**QUICK).fit(pairs)
    moved, inside = warped(both, mask, seed=9)
    result = model.apply_detailed(make_scan(moved[..., :15], inside, subject="new", site="a"))
    core = interior(inside)
    for k in range(3):
        scale = result.maps[f"scale l={2 * k} b=1200"].data
        error = np.abs(scale / moved[..., 15 + k] - 1)[core]
        assert np.median(error) < 0.02
        assert np.percentile(error, 90) < 0.02


def test_identical_sites_give_scales_of_one(world):
    pair = world.pairs[0]
    with pytest.warns(DmriWarning, match="one travelling subject"):
        model = LinearRish(**QUICK).fit([(pair.source, pair.source)])
    for image in model.maps.values():
        np.testing.assert_allclose(image.data, 1, atol=1e-5)


def test_source_is_untouched_and_only_its_shell_changes(world):
    source = world.held_out.source
    before = source.data.copy()
    result = world.model.apply(source)
    np.testing.assert_array_equal(source.data, before)
    np.testing.assert_array_equal(result.data[..., :2], before[..., :2])
    np.testing.assert_array_equal(result.data[~source.mask], before[~source.mask])
    np.testing.assert_array_equal(result.gradients.bvalues, source.gradients.bvalues)
    assert result.shape == source.shape
    assert result.name == "sub-9 a -> b (LinearRISH)"
    assert result.metadata["provenance"]["method"] == "linear-rish"
    assert result.metadata["simulated"]
    weighted, b0 = result.data[..., 2:], before[..., :1]
    assert (weighted >= 0).all() and (weighted <= b0 + 1e-3).all()


def test_save_load_apply_give_the_same(world, tmp_path):
    path = world.model.save(tmp_path / "ä model")
    loaded = harmonize.load(path)
    assert isinstance(loaded, harmonize.Harmonizer)
    assert loaded.parameters == world.model.parameters
    assert {k: v for k, v in loaded.card.items() if k != "sha256"} == world.model.card
    source = world.held_out.source
    np.testing.assert_array_equal(loaded.apply(source).data, world.model.apply(source).data)
    with pytest.raises(InputError, match="exists"):
        world.model.save(path)


def test_card_says_what_the_model_is(world):
    card = world.model.card
    assert card["kind"] == "harmonizer" and card["method"] == "linear-rish"
    assert card["subjects"] == ["sub-1", "sub-2", "sub-3"]
    assert (card["source_site"], card["target_site"]) == ("a", "b")
    assert card["order"] == 4 and card["shell"] == 1200
    assert card["voxel_size"] == [2.4] * 3 and card["smooth"] == 0.006
    assert card["simulated"] and card["purpose"] == "simulated, demo only"
    assert len({entry["sha256"] for entry in card["inputs"]}) == 6
    assert card["template"]["rounds"] >= 1


@pytest.mark.parametrize("stop", [0.02, 0.3, 0.6])
def test_cancelled_training_changes_nothing(world, stop):
    def progress(fraction, text):
        if fraction >= stop:
            raise Cancelled

    model = LinearRish(**QUICK)
    with pytest.raises(Cancelled):
        model.fit(world.pairs, progress=progress)
    with pytest.raises(InputError, match="not trained"):
        _ = model.card


def test_cancelled_apply(world):
    def progress(fraction, text):
        if "nonlinear" in text:
            raise Cancelled

    with pytest.raises(Cancelled):
        world.model.apply(world.held_out.source, progress=progress)


def test_progress_rises_to_one(world):
    seen = []
    world.model.apply(world.held_out.source, progress=lambda f, t: seen.append(f))
    assert seen[0] == 0 and seen[-1] == 1
    assert max(a - b for a, b in pairwise(seen)) < 1e-9


def test_b_values_that_differ_are_mapped(world):
    coefficients, mask = warped(*base_brain(), seed=9)
    other = make_scan(coefficients, mask, subject="x", site="a", bvalue=1250.0)
    checks = world.model.check(other)
    assert any("b_new/b" in c.sentence for c in checks if c.level == "warning")
    result = world.model.apply_detailed(other)
    assert result.scan.gradients.shell().bvalue == 1200
    assert any("b_new/b" in note for note in result.notes)
    # Outside the mask too: one b-value holds for a whole volume.
    small = mask & ndimage.binary_erosion(mask)
    outside = mask & ~small
    edge = world.model.apply(other.with_mask(small))
    raised = 800 * (np.asarray(other.data)[outside][:, 2:] / 800) ** (1200 / 1250)
    np.testing.assert_allclose(edge.data[outside][:, 2:], raised, rtol=1e-5)
    np.testing.assert_array_equal(edge.data[outside][:, :2], other.data[outside][:, :2])
    # Mono-exponential: less weighting, more signal.
    plain = world.model.apply(world.held_out.source)
    assert result.scan.data[mask][:, 2:].mean() > plain.data[mask][:, 2:].mean()


def two_shells(scan, factor):
    """Add a shell at b=3000 whose signal is a power of the other's, times a factor."""
    inner = scan.volumes(np.arange(2, scan.shape[3]))
    outer = 800 * (np.clip(inner / 800, 0, 1) ** 1.5) * factor
    bvalues = np.r_[scan.gradients.bvalues, np.full(inner.shape[3], 3000.0)]
    directions = np.concatenate([scan.gradients.directions, scan.gradients.directions[2:]])
    data = np.concatenate([scan.volumes(), outer], axis=-1)
    return replace(scan, data=data, gradients=GradientTable(bvalues, directions))


def test_maps_per_shell(world):
    pair = world.pairs[0]
    source, target = two_shells(pair.source, 1), two_shells(pair.source, 0.8)
    with pytest.warns(DmriWarning, match="one travelling"):
        model = LinearRish(shell=[1200, 3000], **QUICK).fit([(source, target)])
    core = interior(next(iter(model._maps.values())).mask)
    for k in range(3):
        np.testing.assert_allclose(model.maps[f"scale l={2 * k} b=1200"].data[core], 1, rtol=1e-3)
        np.testing.assert_allclose(model.maps[f"scale l={2 * k} b=3000"].data[core], 0.8, rtol=1e-3)
    assert [entry["bvalue"] for entry in model.card["shells"]] == [1200, 3000]
    held = two_shells(world.held_out.source, 1)
    result = model.apply(held)
    plain = refit(refit(held, 4, shell=1200), 4, shell=3000)
    inside = interior(held.mask)
    ratio = result.data[inside].mean(0) / plain.data[inside].mean(0)
    np.testing.assert_allclose(ratio, np.r_[np.ones(32), np.full(30, 0.8)], rtol=0.01)


def test_other_shells_pass_through(world):
    held = two_shells(world.held_out.source, 1)
    result = world.model.apply_detailed(held)
    np.testing.assert_array_equal(result.scan.data[..., 32:], held.data[..., 32:])
    assert any("not trained at b=3000" in note for note in result.notes)


def test_training_subject_is_named_and_not_evaluated(world):
    with pytest.warns(DmriWarning, match="trained on sub-1"):
        result = world.model.apply_detailed(world.pairs[0].source)
    assert sum("trained on sub-1" in note for note in result.notes) == 1
    nameless = replace(world.pairs[0].source, metadata={"simulated": True, "site": "a"})
    with pytest.raises(InputError, match="sub-1 is one of"):
        harmonize.refuse_training_subject(world.model, nameless)
    with pytest.raises(InputError, match="sub-2 is one of the 3 subjects"):
        harmonize.refuse_training_subject(world.model, "2")
    with pytest.raises(InputError, match="sub-1 is one of"):
        harmonize.refuse_training_subject(world.model, world.pairs[0].target)
    harmonize.refuse_training_subject(world.model, "sub-9")
    harmonize.refuse_training_subject(world.model, world.held_out.source)


def test_pairs_that_cannot_be_aligned(world):
    coefficients, mask = base_brain(seed=5)
    other = make_scan(scaled(coefficients), mask, subject="other", site="b")
    with pytest.raises(InputError, match=r"sub-1 cannot be aligned rigidly.*correlate by"):
        LinearRish(**QUICK).fit([Pair(world.pairs[0].source, other, "sub-1")])


def test_pairs_without_overlap(world):
    source, target = world.pairs[0].source, world.pairs[0].target
    small = np.zeros_like(target.mask)
    small[8:10, 8:10, 4:6] = target.mask[8:10, 8:10, 4:6]
    with pytest.raises(InputError, match="masks overlap by"):
        LinearRish(**QUICK).fit([Pair(source, target.with_mask(small), "sub-1")])


def test_order_above_the_poorer_site(world):
    pair = world.pairs[0]
    poor = pair.target.select(np.r_[0, 1, 2:14])
    with pytest.raises(InputError, match="order 4 is above what sub-1 target supports: 12"):
        LinearRish(4, **QUICK).fit([Pair(pair.source, poor, "sub-1")])


@pytest.mark.filterwarnings("ignore:Trained on one travelling subject")
@pytest.mark.filterwarnings("ignore:sub-1. FA and L0")  # the first twelve directions are a cap
def test_common_order_is_the_poorer_sites():
    pair = subject_pair(1)
    poor = pair.target.select(np.r_[0, 1, 2:14])
    with pytest.warns(DmriWarning, match="poorer site"):
        model = LinearRish(**QUICK).fit([Pair(pair.source, poor, "sub-1")])
    assert model.card["order"] == 2


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"order": 3}, "even number"),
        ({"smooth": -1}, "lambda"),
        ({"cap": (1.2, 2)}, "enclose 1"),
        ({"fwhm": -1}, "0 or more"),
        ({"rounds": 0}, "at least 1"),
    ],
)
def test_settings_that_make_no_sense(settings, words):
    with pytest.raises(InputError, match=words):
        LinearRish(**settings)


def test_pairs_that_make_no_sense(world):
    pair = world.pairs[0]
    with pytest.raises(InputError, match="No pairs"):
        LinearRish().fit([])
    with pytest.raises(InputError, match="comes twice"):
        LinearRish().fit([pair, pair])
    with pytest.raises(InputError, match="takes scans"):
        LinearRish().fit([(pair.source.data, pair.target)])
    with pytest.raises(InputError, match="No shell at b=3000"):
        LinearRish(shell=3000).fit([pair])
    with pytest.raises(InputError, match="no b0 volume"):
        LinearRish().fit([(pair.source.select(np.arange(2, 32)), pair.target)])
    with pytest.raises(InputError, match="mask is empty"):
        LinearRish().fit([(pair.source.with_mask(pair.source.mask & False), pair.target)])


def test_untrained_model_refuses(world, tmp_path):
    for action in (
        lambda m: m.apply(world.held_out.source),
        lambda m: m.check(world.held_out.source),
        lambda m: m.save(tmp_path / "m"),
    ):
        with pytest.raises(InputError, match="not trained"):
            action(LinearRish())
    assert not list(tmp_path.iterdir())
    assert len(ITERATIONS) == 3


def test_groups_recover_the_scaling():
    def group(first, site, factors):
        scans = []
        for n in range(first, first + 10):
            coefficients, mask = warped(*base_brain(), seed=n, amplitude=(0.8, 0.8, 0.2))
            chosen = scaled(coefficients, factors)
            scans.append(make_scan(chosen, mask, subject=f"{site}{n}", site=site))
        return scans

    sources, targets = group(100, "a", (1, 1, 1)), group(200, "b", FACTORS)
    model = LinearRish(**{**QUICK, "rounds": 1, "iterations": (8, 4)})
    with pytest.warns(DmriWarning, match="10 and 10 scans; 16 or more"):
        model.fit_groups(sources, targets)
    cover = interior(next(iter(model._maps.values())).mask)
    for k, factor in enumerate(FACTORS):
        error = np.abs(model.maps[f"scale l={2 * k} b=1200"].data[cover] / factor - 1)
        assert np.median(error) < 0.02
    assert model.card["trained_from"] == "groups" and len(model.card["subjects"]) == 20


def test_small_groups_are_refused(world):
    scans: list[Scan] = [world.pairs[0].source] * 9
    with pytest.raises(InputError, match="9 source and 12 target scans; at least 10"):
        LinearRish().fit_groups(scans, [world.pairs[0].target] * 12)


def test_a_group_of_several_sites_is_refused(world):
    source, target = world.pairs[0].source, world.pairs[0].target
    other = replace(target, metadata={**target.metadata, "site": "c"})
    words = r"The scans are of 2 target sites \(b: .* and 6 more; c: target scan 11\)"
    with pytest.raises(InputError, match=words):
        LinearRish().fit_groups([source] * 10, [target] * 10 + [other])
