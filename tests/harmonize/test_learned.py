"""Harmonizers by network: training on pairs, refusals, files, and what applying says."""

import json
import subprocess
import sys
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from napari_dmri import Cancelled, DmriWarning, GradientTable, InputError, Scan, harmonize
from napari_dmri.compare.methods_text import methods_text
from napari_dmri.harmonize import METHODS, Pair, networks
from napari_dmri.harmonize.learned import PAPER_STAGES, GolkovHarmonizer, SHResNetHarmonizer
from napari_dmri.harmonize.training_pairs import Recipe, add_pair, moved_source
from napari_dmri.images import ScalarImage
from napari_dmri.provenance import provenance
from napari_dmri.signal.sh_fit import fit_sh
from napari_dmri.sphere.harmonics import design_matrix
from napari_dmri.sphere.sampling import half_sphere
from napari_dmri.training import Patches, Stage, Store, train
from napari_dmri.training.losses import signal_loss

from .conftest import AFFINE, DIRECTIONS, FACTORS, base_brain, make_scan, subject_pair

QUICK = {"stages": [Stage("adam", 3e-3, 256, 6), Stage("sgd", 1e-3, 128, 2, momentum=0.9)]}
RECIPE = Recipe(1200.0, 4)


def tissue_of(pair):
    """Label a pair's mask by halves, so that both tissues are there."""
    labels = np.asarray(pair.source.mask).astype(np.int16)
    labels[: labels.shape[0] // 2] *= 2
    return replace(pair, tissue=labels)


def pairs_of(*numbers):
    return [tissue_of(subject_pair(n)) for n in numbers]


@pytest.fixture(scope="module")
def golkov():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DmriWarning)
        return GolkovHarmonizer(residual=True, **QUICK).fit(pairs_of(1, 2, 3))


def error(scan, target, mask):
    weighted = ~target.gradients.b0_mask
    a, b = (np.asarray(s.data[..., weighted])[mask] for s in (scan, target))
    return float(((a - b) ** 2).sum() / (b**2).sum())


def test_the_methods_are_listed_with_the_stages_of_the_paper():
    assert [METHODS[n].label for n in ("shresnet", "golkov")] == ["SHResNet", "Golkov"]
    model = METHODS["shresnet"].make(order=4)
    assert model.network_settings == {
        "blocks": 2,
        "hidden": 15,
        "mode": "paper",
        "final_layers": 1,
    }
    first, second = PAPER_STAGES
    assert (first.optimizer, first.lr, first.batch, first.epochs) == ("adam", 1e-3, 256, 5)
    assert (second.optimizer, second.batch, second.factor) == ("sgd", 128, 0.9)
    assert (second.patience, second.stop) == (5, 10)
    assert model.projection and not METHODS["golkov"].make().projection
    assert (model.energy, METHODS["golkov"].make().energy) == (1, 0)
    assert METHODS["golkov"].make(energy=0.5).parameters["energy"] == 0.5
    said = methods_text([provenance("shresnet", model.parameters)])
    assert "with weight 1, of the root of the energy of order 2" in said
    plain = METHODS["shresnet"].make(energy=0).parameters
    assert "energy of order 2" not in methods_text([provenance("shresnet", plain)])
    for weight in (-1, float("nan"), float("inf")):
        with pytest.raises(InputError, match="weight of the energy"):
            METHODS["shresnet"].make(energy=weight)


def test_a_known_scaling_is_learned_and_said_on_the_card(golkov):
    card = golkov.card
    assert card["subjects"] == ["sub-3", "sub-1", "sub-2"]
    assert card["validation_subjects"] == ["sub-3"]
    assert {(e["subject"], e["use"]) for e in card["inputs"]} == {
        ("sub-1", "training"),
        ("sub-2", "training"),
        ("sub-3", "validation"),
    }
    assert card["mode"] == "voxel" and card["order"] == 4 and card["shell"] == 1200
    assert card["simulated"] and card["purpose"] == "simulated, demo only"
    assert (card["source_site"], card["target_site"]) == ("a", "b")
    assert card["samples"]["training"]["subjects"] == 2
    assert card["samples"]["both"]["grey matter"] > 100
    assert len(card["curves"]) == 1 + 8 and card["curves"] == golkov.curves
    json.dumps(card)
    pair = subject_pair(9)
    result = golkov.apply_detailed(pair.source)
    before = error(harmonize.refit(pair.source, 4), pair.target, pair.source.mask)
    after = error(result.scan, pair.target, pair.source.mask)
    assert after < 0.2 * before
    inside = pair.source.mask
    medians = [
        float(np.median(result.maps[f"scale l={el} b=1200"].data[inside])) for el in (0, 2, 4)
    ]
    assert medians[0] == pytest.approx(FACTORS[0], abs=0.02)
    assert medians[1] == pytest.approx(FACTORS[1], abs=0.1)
    record = result.scan.metadata["provenance"]
    assert record["method"] == "golkov" and record["parameters"]["projection"] is False
    assert record["simulated"] and result.scan.metadata["harmonized_to"] == "b"
    assert "by the voxel-wise network of Golkov from a to b" in methods_text([record])
    novelty = result.maps["novelty"].data
    assert (novelty[inside] > 0).all() and not novelty[~inside].any()
    assert (novelty[inside] > 1).mean() < 0.1
    kept = result.maps["source kept"].data
    assert (kept[inside] > 0).mean() < 0.02 and not kept[~inside].any()
    projected = golkov.apply_detailed(pair.source, projection=True)
    name = "scale l=2 b=1200"
    assert np.allclose(projected.maps[name].data, result.maps[name].data, rtol=1e-4)
    a, b = (fit_sh(s, 4, 0.0, mask=inside).coefficients for s in (pair.source, projected.scan))
    cosine = (a[..., 1:6] * b[..., 1:6]).sum(-1)[inside]
    cosine /= (
        np.linalg.norm(a[..., 1:6], axis=-1)[inside] * np.linalg.norm(b[..., 1:6], axis=-1)[inside]
    )
    assert np.percentile(cosine, 5) > 0.999
    b0 = np.flatnonzero(pair.source.gradients.b0_mask)
    assert np.array_equal(result.scan.volumes(b0), pair.source.volumes(b0))


def test_a_model_is_applied_with_or_without_projection_as_one_likes(golkov, world):
    source = subject_pair(9).source
    assert harmonize.choose_projection(golkov, None) is golkov
    other = harmonize.choose_projection(golkov, True)
    result = other.apply(source)
    assert np.array_equal(result.data, golkov.apply(source, projection=True).data)
    assert result.metadata["provenance"]["parameters"]["projection"] is True
    assert golkov.projection is False and other.card == golkov.card
    with pytest.raises(InputError, match="LinearRISH has no projection to turn off"):
        harmonize.choose_projection(world.model, False)


def test_where_nothing_like_it_was_trained_on_the_source_stays(golkov):
    scan = subject_pair(9).source
    data = np.array(scan.data)
    hole = np.zeros(scan.grid, bool)
    hole[10:12, 12:14, 5:7] = True
    hole &= scan.mask
    weighted = ~scan.gradients.b0_mask
    data[np.ix_(*(np.arange(n) for n in scan.grid), np.flatnonzero(weighted))] *= np.where(
        hole, 0.05, 1
    )[..., None]
    pierced = replace(scan, data=data)
    result = golkov.apply_detailed(pierced, projection=False)
    assert (result.maps["source kept"].data[hole] == 1).all()
    assert any("fades to the source's own fit" in note for note in result.notes)
    refitted = harmonize.refit(pierced, 4)
    assert np.allclose(result.scan.data[hole], refitted.data[hole], rtol=1e-4, atol=1e-2)
    other = scan.mask & ~hole
    assert np.abs(result.scan.data[other] - refitted.data[other])[:, weighted].mean() > 5


def test_a_saved_model_gives_the_same_scan(golkov, tmp_path):
    path = golkov.save(tmp_path / "model")
    again = harmonize.load(path)
    source = subject_pair(9).source
    assert np.array_equal(golkov.apply(source).data, again.apply(source).data)
    assert again.card["sha256"] and again.parameters == golkov.parameters
    assert repr(again) == "GolkovHarmonizer(a -> b, voxel)"


def test_damaged_and_foreign_files_are_refused(golkov, tmp_path):
    from napari_dmri.training import load_checkpoint, save_checkpoint

    path = golkov.save(tmp_path / "model")
    tensors, card = load_checkpoint(path)
    less = {k: v for k, v in tensors.items() if not k.startswith("network/last")}
    with pytest.raises(InputError, match="not a whole Golkov model"):
        harmonize.load(save_checkpoint(tmp_path / "less", less, card))
    for name in ("network", "parameters", "shell"):
        lost = {k: v for k, v in card.items() if k != name}
        with pytest.raises(InputError, match="not a whole Golkov model"):
            harmonize.load(save_checkpoint(tmp_path / f"no_{name}", tensors, lost))
    other = {**card, "mode": "paper"}
    with pytest.raises(InputError, match="only in its own mode"):
        harmonize.load(save_checkpoint(tmp_path / "other", tensors, other))
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(InputError, match="not a whole safetensors file"):
        harmonize.load(path)


def test_scans_that_the_card_does_not_fit_are_refused(golkov):
    source = subject_pair(9).source
    with pytest.raises(InputError, match="simulated, demo only"):
        golkov.apply(replace(source, metadata={"site": "a"}))
    few = source.select([0, 1, *range(2, 14)])
    with pytest.raises(InputError, match="support order 2"):
        golkov.apply(few)
    shifted = GradientTable(source.gradients.bvalues * 2, source.gradients.directions)
    with pytest.raises(InputError, match="trained at b=1200"):
        golkov.apply(replace(source, gradients=shifted))
    with pytest.warns(DmriWarning, match="trained on sub-1"):
        result = golkov.apply_detailed(subject_pair(1).source)
    assert any("says nothing about others" in note for note in result.notes)
    levels = {c.level for c in golkov.check(source)}
    assert levels == {"ok"}
    rng = np.random.default_rng(0)
    foreign = np.array(source.data)
    foreign[..., 2:] *= rng.uniform(0.1, 1, foreign[..., 2:].shape)
    with pytest.raises(InputError, match="the scan is of another kind"):
        golkov.apply(replace(source, data=foreign))
    with pytest.raises(InputError, match="not trained"):
        _ = GolkovHarmonizer().card


@pytest.mark.parametrize("mode", ["paper", "tiled"])
def test_shresnet_trains_in_both_modes_and_starts_as_the_identity(mode):
    model = SHResNetHarmonizer(
        blocks=1, hidden=4, mode=mode, tile=8, stages=[Stage("adam", 1e-3, 2048, 1)]
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DmriWarning)
        model.fit(pairs_of(1, 2, 3))
    curves = model.curves
    assert curves[-1]["train"] > 0 and len(curves) == 2
    assert model.card["training"]["best_loss"] <= curves[0]["validation"] * 1.001
    assert model.card["mode"] == mode
    model.network.load_state_dict(
        networks.build("shresnet", 4, blocks=1, hidden=4, mode=mode).state_dict()
    )
    source = subject_pair(9).source
    result = model.apply(source, projection=False)
    assert np.allclose(result.data, harmonize.refit(source, 4).data, atol=0.05)


def test_a_cancelled_training_changes_nothing_and_goes_on_bit_for_bit(tmp_path):
    pairs = pairs_of(1, 2, 3)
    quick = {"stages": [Stage("adam", 1e-3, 512, 2)], "seed": 4}
    state = tmp_path / "state.safetensors"

    def stop(fraction, text):
        if "epoch 2, step 3" in text:
            raise Cancelled

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DmriWarning)
        whole = GolkovHarmonizer(**quick).fit(pairs)
        cut = GolkovHarmonizer(**quick)
        with pytest.raises(Cancelled):
            cut.fit(pairs, state=state, progress=stop)
        assert repr(cut) == "GolkovHarmonizer(not trained)"
        cut.fit(pairs, state=state)
        with pytest.raises(InputError, match="other settings"):
            GolkovHarmonizer(**{**quick, "seed": 5}).fit(pairs, state=state)
        with pytest.raises(InputError, match="other settings"):
            GolkovHarmonizer(**quick).fit(pairs_of(1, 2, 4), state=state)
    a, b = (networks.to_tensors(m.network) for m in (whole, cut))
    assert all(np.array_equal(a[k], b[k]) for k in a)
    assert whole.curves == cut.curves


@pytest.mark.parametrize("noise", [0.0, 0.03])
def test_a_network_overfits_a_tiny_set_down_to_what_order_4_cannot_say(tmp_path, noise):
    rng = np.random.default_rng(0)
    coefficients, mask = base_brain()
    chosen = np.zeros(mask.shape, bool)
    chosen[tuple(rng.permutation(np.argwhere(mask))[:8].T)] = True
    design = design_matrix(DIRECTIONS, 4)
    wanted = coefficients[chosen] * 1.1 + 0.02 * rng.standard_normal((8, 15))
    targets = wanted @ design.T
    targets += noise * rng.standard_normal(targets.shape)
    left = targets - targets @ np.linalg.pinv(design).T @ design.T
    floor = float((left**2).mean())
    with Store(15, 30, tmp_path / "store") as store:
        store.add("a", coefficients, chosen, targets, design)
        for name, settings, plan in (
            ("shresnet", {"blocks": 1, "hidden": 6}, (100, 60, 40)),
            ("golkov", {"dropout": 0.0, "residual": True}, (300, 200, 200)),
        ):
            network = networks.build(name, 4, **settings)
            samples = Patches(store, networks.patch_size(network))
            rates = (3e-3, 1e-3, 3e-4)
            stages = [Stage("adam", lr, 8, n) for lr, n in zip(rates, plan, strict=True)]
            fit = train(network, signal_loss, samples, None, stages, device="cpu")
            start = fit.curves[0]["train"]
            if noise:
                assert floor * 0.999 < fit.best_loss < floor * 1.05, name
            else:
                assert floor < 1e-12 and fit.best_loss < 5e-3 * start, name


def test_a_pair_on_another_grid_is_moved_and_its_gradients_turn():
    coefficients, mask = base_brain()
    source = make_scan(coefficients, mask, subject="s", site="a")
    turn = Rotation.from_euler("z", 12, degrees=True).as_matrix()
    motion = np.eye(4)
    motion[:3, :3] = turn  # target points to source points
    moved = moved_source(source, source, motion)
    # A direction g of the source is R^T g in the target's frame.
    assert np.allclose(moved.gradients.directions[2:], source.gradients.directions[2:] @ turn)
    centre = tuple(n // 2 for n in mask.shape)
    a, b = (fit_sh(s, 4) for s in (source, moved))
    probe = half_sphere(60)
    world = (AFFINE @ [*centre, 1])[:3]
    there = np.linalg.inv(AFFINE) @ (motion @ [*world, 1])
    nearest = tuple(np.round(there[:3]).astype(int))
    before = design_matrix(probe @ turn.T, 4) @ a.coefficients[nearest]
    after = design_matrix(probe, 4) @ b.coefficients[centre]
    assert np.corrcoef(before, after)[0, 1] > 0.97


def test_a_shifted_grid_is_registered_and_said(tmp_path):
    pair = subject_pair(1)
    affine = AFFINE.copy()
    affine[:3, 3] += (1.2, -2.4, 0)
    shifted = replace(pair.source, affine=affine)
    with Store(15, 30, tmp_path) as store:
        added = add_pair(store, Pair(shifted, pair.target, "sub-1"), "sub-1", RECIPE)
    assert "moved to the target's grid" in added.notes[0]
    assert sum(added.tissues.values()) > 500


def test_bad_pairs_are_refused_in_words(tmp_path):
    pair = subject_pair(1)
    half = np.zeros_like(pair.source.mask)
    half[: half.shape[0] // 2 - 4] = True
    other = pair.source.mask & ~half
    apart = Pair(
        pair.source.with_mask(pair.source.mask & half), pair.target.with_mask(other), "sub-1"
    )
    elsewhere = AFFINE + np.outer([0, 0, 5, 0], [0, 0, 0, 1])
    misplaced = ScalarImage(tissue_of(pair).tissue, elsewhere, "l1")
    with Store(15, 30, tmp_path) as store:
        with pytest.raises(InputError, match=r"\(l1\) and sub-1 b .* up to 5 mm apart; resample"):
            add_pair(store, replace(pair, tissue=misplaced), "sub-1", RECIPE)
        with pytest.raises(InputError, match=r"sub-1: the masks .* do not overlap"):
            add_pair(store, apart, "sub-1", RECIPE)
        with pytest.raises(InputError, match="tissue labels have shape"):
            labels = np.ones((2, 2, 2), np.int16)
            add_pair(store, replace(pair, tissue=labels), "sub-1", RECIPE)
        with pytest.raises(InputError, match="no voxel of white or grey matter"):
            nothing = np.full(pair.source.grid, 3)
            add_pair(store, replace(pair, tissue=nothing), "sub-1", RECIPE)
        rng = np.random.default_rng(3)
        strange = replace(
            pair.target,
            data=rng.permutation(np.asarray(pair.target.data).reshape(-1, 32)).reshape(
                pair.target.shape
            ),
        )
        with (
            warnings.catch_warnings(),
            pytest.raises(InputError, match=r"do not lie on each other.*--registration always"),
        ):
            warnings.simplefilter("ignore", DmriWarning)
            add_pair(store, Pair(pair.source, strange, "sub-1"), "sub-1", RECIPE)
        assert store.samples == 0
    with pytest.raises(InputError, match="Unknown registration 'syn'"):
        Recipe(1200.0, 4, registration="syn")
    for bad in ({"order": 3}, {"order": 10}, {"cap": 0.5}, {"smooth": -1}, {"stages": []}):
        with pytest.raises(InputError):
            GolkovHarmonizer(**bad)
    with pytest.raises(InputError, match="do not fit Golkov"):
        GolkovHarmonizer(blocks=2)
    with pytest.raises(InputError, match="No pairs"):
        GolkovHarmonizer().fit([])
    with pytest.raises(InputError, match="comes twice"):
        GolkovHarmonizer().fit([pair, pair, pair])
    with pytest.raises(InputError, match="takes one shell"):
        two = replace(
            pair.target,
            gradients=GradientTable(
                np.r_[0, 0, np.full(15, 1200), np.full(15, 2400)], pair.target.gradients.directions
            ),
        )
        GolkovHarmonizer(shell=[1200.0, 2400.0], order=0).fit([Pair(two, two, "a")])


def test_what_has_to_be_said_of_the_pairs_is_warned_about():
    pair = subject_pair(1)
    data = np.array(pair.target.data)
    hole = tuple(np.argwhere(pair.target.mask)[40:60].T)
    data[hole] = 0
    holed = replace(pair, target=replace(pair.target, data=data))
    one_tissue = replace(holed, tissue=np.asarray(pair.source.mask, np.int16))
    directions = half_sphere(60)
    coefficients, mask = base_brain()
    rich = make_scan(coefficients, mask, subject="sub-1", site="b", directions=directions)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        model = GolkovHarmonizer(stages=[Stage("adam", 1e-3, 512, 1)]).fit([one_tissue])
    words = " ".join(str(w.message) for w in seen if issubclass(w.category, DmriWarning))
    assert "one travelling subject" in words
    assert "hold no grey matter" in words
    assert "20 voxels of the target's mask have no signal at b0" in words
    assert model.card["notes"] and model.card["samples"]["validation"]["voxels"] > 0
    source = make_scan(coefficients, mask, subject="sub-1", site="a")
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        GolkovHarmonizer(stages=[Stage("adam", 1e-3, 2048, 1)]).fit(
            [tissue_of(Pair(source, rich, "sub-1"))]
        )
    assert any(
        "SH order 4 at b=1200: the common order is the poorer" in str(w.message) for w in seen
    )
    with pytest.raises(InputError, match="SH order 6 is above what"):
        GolkovHarmonizer(order=6).fit([Pair(source, rich, "sub-1")])


def test_a_missing_mask_is_made_and_said():
    pair = subject_pair(1)
    bare = tissue_of(pair)
    bare = replace(bare, source=pair.source.with_mask(None))
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        GolkovHarmonizer(stages=[Stage("adam", 1e-3, 2048, 1)]).fit([bare])
    assert any("had no mask; one was made" in str(w.message) for w in seen)


def test_tissue_is_estimated_where_it_is_not_given():
    pair = subject_pair(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DmriWarning)
        model = GolkovHarmonizer(stages=[Stage("adam", 1e-3, 2048, 1)]).fit([pair])
    samples = model.card["samples"]
    total = samples["training"]["voxels"] + samples["validation"]["voxels"]
    assert sum(samples["both"].values()) == total > 500
    assert isinstance(pair.source, Scan) and torch.is_grad_enabled()


BARE = """
import importlib.abc, sys, warnings

ABSENT = {"dipy", "matplotlib", "nrrd", "rich", "typer", "napari", "qtpy"}

class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ABSENT:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Absent())
warnings.simplefilter("ignore")
import numpy as np
from napari_dmri import GradientTable, Scan
from napari_dmri.harmonize import GolkovHarmonizer, Pair, load
from napari_dmri.training import Stage

rng = np.random.default_rng(0)
g = rng.standard_normal((20, 3))
g /= np.linalg.norm(g, axis=1, keepdims=True)
table = GradientTable(np.r_[0, np.full(20, 1000.0)], np.r_[np.zeros((1, 3)), g])
signal = 900 * np.exp(-rng.uniform(0.4, 1.2, (8, 8, 4, 1)) * (1 + g[:, 0] ** 2))
data = np.concatenate([np.full((8, 8, 4, 1), 900.0), signal], -1).astype("f4")
mask = np.ones((8, 8, 4), bool)
source = Scan(data, np.eye(4), table, mask=mask, name="s")
target = Scan(data * np.r_[1, np.full(20, 0.9)].astype("f4"), np.eye(4), table, mask=mask)
model = GolkovHarmonizer(stages=[Stage(batch=64, epochs=1)])
model.fit([Pair(source, target, "a", np.ones((8, 8, 4), int))])
again = load(model.save(sys.argv[1]))
new = Scan(data[::-1], np.eye(4), table, mask=mask, name="new")
assert np.isfinite(again.apply(new).data).all()
print("done")
"""


def test_a_bare_node_trains_and_applies(tmp_path):
    answer = subprocess.run(
        [sys.executable, "-c", BARE, str(tmp_path / "model")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.stdout.strip() == "done", answer.stderr
