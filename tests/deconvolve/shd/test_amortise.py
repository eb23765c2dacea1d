"""Train on several subjects and schemes: card, exact resume, supervision, lists, refusals."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.deconvolve.shd.conftest import AFFINE, make_responses, make_scan

from napari_dmri.deconvolve.base import ResponseSet
from napari_dmri.deconvolve.shd.amortise import Subject, read_subjects, train_model
from napari_dmri.deconvolve.shd.running import read_settings
from napari_dmri.errors import Cancelled, DmriWarning, InputError
from napari_dmri.images import ShImage

pytestmark = pytest.mark.usefixtures("tiny")


@pytest.fixture(scope="module")
def subjects():
    made = []
    for n, counts in enumerate([(3, 16, 16), (2, 20, 24), (4, 16, 30)]):
        scan = make_scan((5 + n, 6, 4), seed=n, counts=counts, name=f"sub-{n}")
        made.append(Subject(f"sub-{n}", scan, make_responses()))
    return made


def run(subjects, **more):
    return train_model(subjects, "shd-s-tv", device="cpu", **more)


def same(a, b) -> bool:
    pairs = zip(a.network.state_dict().values(), b.network.state_dict().values(), strict=True)
    return all(torch.equal(x, y) for x, y in pairs)


def test_subjects_of_several_schemes_train_one_network(tmp_path, subjects, responses):
    model = run(subjects)
    card = model.card
    assert card["trained_from"] == "subjects" and card["bvalues"] == [0, 1000, 3000]
    assert [e["subject"] for e in card["training"]] == ["sub-0", "sub-1", "sub-2"]
    assert [e["shells"] for e in card["training"]][1] == {"0": 2, "1000": 20, "3000": 24}
    assert card["tissues"] == ["wm", "gm", "csf"] and not card["simulated"]
    assert all(e["use"] == "training" and len(e["sha256"]) == 64 for e in card["training"])
    path = model.save(tmp_path / "model")
    again = type(model).load(path)
    assert same(model, again) and "warning" not in {
        c.level for c in again.check(make_scan(), responses)
    }
    assert same(model, run(subjects))


def test_a_subject_is_kept_to_choose_the_epoch(subjects):
    model = run([*subjects, Subject("sub-3", make_scan(seed=9), make_responses())])
    uses = {e["subject"]: e["use"] for e in model.card["training"]}
    assert uses["sub-3"] == "validation" and uses["sub-0"] == "training"
    assert model.card["curves"][0]["epoch"] == 0  # a validation before the first step
    every = run(subjects, validation=[subjects[0]])
    assert [e["use"] for e in every.card["training"]].count("validation") == 1


def test_a_training_that_was_stopped_goes_on_to_the_same_bits(tmp_path, subjects):
    state = tmp_path / "state.safetensors"
    left = [6]

    def stop(fraction, text):
        left[0] -= text.startswith("epoch")
        if left[0] < 0:
            raise Cancelled

    with pytest.raises(Cancelled):
        run(subjects, state=state, progress=stop)
    assert read_settings(state)["method"] == "shd-s-tv"
    assert same(run(subjects, state=state), run(subjects))
    with pytest.raises(InputError, match="other settings"):
        run(subjects[:2], state=state)


def test_known_fods_are_learned_from(subjects):
    rng = np.random.default_rng(0)
    known = []
    for one in subjects:
        fod = np.zeros((*one.scan.grid, 28), np.float32)
        fod[..., 0], fod[..., 3] = 0.28, 0.1 * rng.random(one.scan.grid)
        target = ShImage(fod, AFFINE, normalised=False)
        known.append(Subject(one.subject, one.scan, one.responses, target))
    model = run(known)
    assert model.card["losses"]["supervised"] == 1
    assert run(known, supervised=0).card["losses"]["supervised"] == 0
    assert not same(model, run(known, supervised=0))
    with pytest.raises(InputError, match="1 of 2 subjects have known fODFs"):
        run([known[0], subjects[1]], supervised=0.5)


def test_subjects_that_do_not_go_together_are_refused(subjects):
    scan = make_scan()
    low = scan.select(np.flatnonzero(scan.gradients.bvalues < 2000))
    with pytest.raises(InputError, match=r"different shells .*sub-9: 0, 1000.*--bvalues"):
        run([subjects[0], Subject("sub-9", low, make_responses())])
    with pytest.warns(DmriWarning, match="sub-0: volumes 16 at b=3000"):
        model = run([subjects[0], Subject("sub-9", low, make_responses())], bvalues=(0, 1000))
    assert model.bvalues == (0, 1000) and model.others == ("gm", "csf")
    with pytest.raises(InputError, match="no response for gm"):
        only = ResponseSet({"wm": make_responses()["wm"]})
        run([subjects[0], Subject("sub-9", scan, only)], others=("gm",))
    with pytest.raises(InputError, match="no subjects"):
        run([])
    with pytest.raises(InputError, match="mask"):
        run([Subject("sub-9", make_scan(mask=np.zeros((7, 6, 5), bool)), make_responses())])


def test_few_directions_go_in_and_all_are_explained():
    from napari_dmri.deconvolve.shd.inputs import choose_subset

    scan = make_scan()
    some = choose_subset(scan.gradients, 10, 1000)
    model = run([Subject("sub-1", scan, make_responses(), inputs=some)], others=())
    assert model.bvalues == (0, 1000)
    assert model.card["training"][0]["inputs"] == 13


def test_a_list_of_subjects(tmp_path, responses):
    from napari_dmri.images import ScalarImage
    from napari_dmri.io import write_scan
    from napari_dmri.io.maps import write_map
    from napari_dmri.io.responses import write_responses

    scan = make_scan()
    write_scan(scan, tmp_path / "a_dwi.nii.gz")
    write_map(ScalarImage(scan.mask.astype(np.uint8), AFFINE), tmp_path / "a_mask.nii.gz")
    write_responses(responses, tmp_path / "wm.txt")
    tsv = tmp_path / "subjects.tsv"

    def table(*rows):
        tsv.write_text("\n".join("\t".join(r) for r in rows) + "\n")
        return read_subjects(tsv)

    header = ("subject", "scan", "mask", "wm", "csf", "fod")
    row = ("sub-1", "a_dwi.nii.gz", "a_mask.nii.gz", "wm.txt", "wm_csf.txt", "n/a")
    if not (tmp_path / "wm_csf.txt").is_file():
        row = (*row[:4], "csf.txt", "n/a")
    (lazy,) = table(header, row)
    found = lazy.load()
    assert found.scan.grid == scan.grid and np.array_equal(found.scan.mask, scan.mask)
    assert set(found.responses) == {"wm", "csf"} and found.target is None
    assert np.allclose(found.responses["wm"].zonal, responses["wm"].zonal, rtol=1e-4)
    model = train_model([lazy], "shd-s", device="cpu")
    assert model.others == ("csf",) and model.card["training"][0]["subject"] == "sub-1"
    with pytest.raises(InputError, match=r"row 3: a_dwi.nii.gz stands in row 2 already"):
        table(header, row, row)
    with pytest.raises(InputError, match="row 2: a response of csf and none of wm"):
        table(header, (*row[:3], "", row[4], ""))
    with pytest.raises(InputError, match=r"row 2: no file at b_dwi.nii.gz"):
        table(header, ("sub-1", "b_dwi.nii.gz", *row[2:]))
    with pytest.raises(InputError, match="lacks the column"):
        table(("subject", "mask"), ("sub-1", "a_mask.nii.gz"))
