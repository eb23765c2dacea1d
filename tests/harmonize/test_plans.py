"""What trainings agree on before they begin: one source site and one target site."""

from dataclasses import replace

import pytest

from napari_dmri import InputError
from napari_dmri.harmonize import GolkovHarmonizer, LinearRish, Pair, SHResNetHarmonizer
from napari_dmri.harmonize.plans import mixed_sites, require_one_site

from .conftest import subject_pair


def at(pair, **sites):
    """Let a pair's scans name other sites."""
    named = {
        role: replace(scan, metadata={**scan.metadata, "site": sites[role]})
        for role, scan in (("source", pair.source), ("target", pair.target))
        if role in sites
    }
    return replace(pair, **named)


@pytest.fixture(scope="module")
def pairs():
    return [subject_pair(n) for n in (1, 2, 3)]


@pytest.mark.parametrize(
    ("named", "words"),
    [
        ([], ""),
        ([("s1", "a", "b"), ("s2", "a", "b")], ""),
        # What is not known is no other site.
        ([("s1", "a", "b"), ("s2", "", "")], ""),
        (
            [("s1", "a", "b"), ("s2", "a", "c"), ("s3", "a", "b")],
            "The pairs are of 2 target sites (b: s1, s3; c: s2), and a model maps one site to one",
        ),
        ([("s1", "a", "b"), ("s2", "c", "b")], "of 2 source sites (a: s1; c: s2)"),
        (
            [("s1", "a", "b"), ("s2", "c", "d")],
            "of 2 source sites (a: s1; c: s2) and of 2 target sites (b: s1; d: s2)",
        ),
        (
            [*((f"s{n}", "a", "b") for n in range(6)), ("x", "a", "c")],
            "(b: s0, s1, s2, s3 and 2 more; c: x)",
        ),
    ],
)
def test_sites_and_their_subjects_are_named(named, words):
    said = mixed_sites(named)
    assert bool(said) == bool(words) and words in said
    assert not said or "keep the pairs of one, and train a model for each of the others" in said


@pytest.mark.parametrize("model", [GolkovHarmonizer, SHResNetHarmonizer, LinearRish])
@pytest.mark.parametrize(
    ("sites", "words"),
    [
        ({"target": "c"}, r"2 target sites \(b: sub-\d, sub-\d; c: sub-2\)|c: sub-2"),
        ({"source": "c"}, r"2 source sites .*--source-site SITE"),
    ],
)
def test_pairs_of_several_sites_are_refused(pairs, model, sites, words):
    mixed = [pairs[0], at(pairs[1], **sites), pairs[2]]
    untrained = model()
    with pytest.raises(InputError, match=words):
        untrained.fit(mixed)
    with pytest.raises(InputError, match="not trained"):
        _ = untrained.card


def test_pairs_for_validation_are_of_the_same_sites(pairs):
    other = [at(pairs[2], target="c")]
    with pytest.raises(InputError, match=r"2 target sites \(c: sub-3; b: sub-1, sub-2\)"):
        GolkovHarmonizer().fit(pairs[:2], validation=other)


def test_pairs_may_be_tuples_and_name_no_site(pairs):
    silent = at(pairs[1], source="", target="")
    require_one_site(["x", "y"], [(pairs[0].source, pairs[0].target), silent])
    assert isinstance(silent, Pair)
