"""Plans of training: stages, short plans, and what a look after every epoch costs."""

from __future__ import annotations

import pytest

from napari_dmri.deconvolve.shd.plan import EPOCH, LOOK, Plan
from napari_dmri.errors import InputError


def test_stages_follow_the_drops() -> None:
    stages = Plan().stages()
    assert [s.epochs for s in stages] == [30, 10, 5, 5]
    assert [s.lr for s in stages] == pytest.approx([1.7e-3, 1.7e-4, 1.7e-5, 1.7e-6])
    assert {s.optimizer for s in stages} == {"adam"} and {s.batch for s in stages} == {16}
    assert [s.epochs for s in Plan(drops=()).stages()] == [50]


@pytest.mark.parametrize("steps", [1, 2, 7, 40, 70, 74, 130, 3000, 3001, 100_000])
def test_a_shortened_plan_keeps_its_proportions(steps: int) -> None:
    plan = Plan().shortened(steps)
    # Epochs are of as many steps each.
    assert 0 <= steps - plan.total_steps < plan.steps
    if steps >= 10:
        drops = [d / plan.epochs for d in plan.drops]
        assert drops == pytest.approx([0.6, 0.8, 0.9], abs=0.1)
    if steps % 50 == 0:
        assert plan.drops == (30, 40, 45)
    assert sum(s.epochs for s in plan.stages()) == plan.epochs


@pytest.mark.parametrize(
    "given", [{"lr": 0}, {"batch": 0}, {"drops": (40, 30)}, {"drops": (50,)}, {"factor": 2}]
)
def test_plans_out_of_range_are_refused(given: dict[str, object]) -> None:
    with pytest.raises(InputError, match="A plan of"):
        Plan(**given)


def test_no_steps_are_refused() -> None:
    with pytest.raises(InputError, match="0 steps"):
        Plan().shortened(0)


@pytest.mark.parametrize("cost", [30, 270, 700, 1050, 1060, 3000, 20_000])
def test_the_longest_plan_of_a_cost_counts_the_looks(cost: int) -> None:
    plan = Plan().within(cost)
    assert plan.cost == plan.total_steps + LOOK * plan.epochs
    # Steps are whole epochs alike.
    assert 0.85 * cost <= plan.cost <= 1.05 * cost
    # A look follows each epoch, so that they are not of a step or two.
    assert plan.steps >= EPOCH


def test_a_plan_within_a_cost_is_no_longer_than_the_whole() -> None:
    assert Plan().within(1e9) == Plan()
    assert Plan().within(0.1).total_steps == 1
