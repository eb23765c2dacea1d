"""Labels of tissue: known slabs, noise, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from napari_dmri.compare.tissue import TISSUES, fa_threshold, labels_on, tissue_labels
from napari_dmri.errors import InputError
from napari_dmri.images import ScalarImage
from napari_dmri.signal.tensor import fit_tensor


def test_known_slabs_are_labelled(scan):
    labels = tissue_labels(scan)
    assert labels.dtype == np.int16
    np.testing.assert_array_equal(labels, scan.metadata["truth"])
    assert list(TISSUES) == [1, 2, 3]


def test_noise_at_snr_15_moves_few_voxels(make_scan):
    noisy = make_scan(3, noise=50.0)
    truth = noisy.metadata["truth"]
    labels = tissue_labels(noisy)
    assert (labels == truth)[truth > 0].mean() > 0.95


def test_a_tensor_gives_the_same_labels_as_its_scan(scan):
    tensor = fit_tensor(scan, mask=scan.mask)
    np.testing.assert_array_equal(tissue_labels(tensor), tissue_labels(scan))


def test_dark_voxels_stay_unlabelled(scan):
    b0 = scan.mean_b0()
    b0[1:4] = 1
    assert not tissue_labels(scan, b0=b0)[1:4].any()


def test_one_tissue_alone_is_not_cut_in_two():
    rng = np.random.default_rng(0)
    assert fa_threshold(rng.uniform(0.05, 0.15, 1000)) == 0.2
    assert fa_threshold(rng.uniform(0.5, 0.9, 1000)) == 0.28
    both = np.r_[rng.normal(0.12, 0.02, 1000), rng.normal(0.45, 0.05, 1000)]
    assert 0.2 <= fa_threshold(both) <= 0.28


def test_bad_masks_are_refused(scan):
    with pytest.raises(InputError, match="mask has shape"):
        tissue_labels(scan, mask=np.ones((2, 2, 2), bool))
    with pytest.raises(InputError, match="mask holds"):
        tissue_labels(scan, mask=np.zeros(scan.grid, bool))
    tensor = fit_tensor(scan, mask=scan.mask)
    with pytest.raises(InputError, match="No voxel to label: the mask holds 0"):
        tissue_labels(tensor, mask=np.zeros(scan.grid, bool))


def test_labels_on_the_scan_are_taken(scan):
    labels = np.ones(scan.grid, np.int16)
    assert labels_on(labels, scan) is labels
    assert labels_on(ScalarImage(labels, scan.affine + 1e-5), scan) is labels


@pytest.mark.parametrize(
    ("shift", "words"),
    [
        ((5, 0, 0), r"up to 5 mm apart; resample the labels to the target's grid"),
        ((0, 3, 4), r"up to 5 mm apart"),
        ((0.0, 0.0, 0.25), r"up to 0\.25 mm apart"),
    ],
)
def test_labels_that_lie_elsewhere_are_refused_in_millimetres(scan, shift, words):
    affine = scan.affine.copy()
    affine[:3, 3] += shift
    image = ScalarImage(np.ones(scan.grid, np.int16), affine, "segmentation")
    with pytest.raises(InputError, match=r"\(segmentation\).*" + words):
        labels_on(image, scan)


def test_labels_of_other_voxels_are_refused(scan):
    larger = scan.affine.copy()
    larger[:3, :3] *= 1.5
    with pytest.raises(InputError, match=r"\(map\) and A have 9 x 8 x 6 voxels each, which"):
        labels_on(ScalarImage(np.ones(scan.grid, np.int16), larger), scan)
    for given in (np.ones((2, 2, 2)), ScalarImage(np.ones((2, 2, 2)), scan.affine)):
        with pytest.raises(InputError, match=r"labels have shape \(2, 2, 2\)"):
            labels_on(given, scan)
