"""Schedules are pytrees called with the fraction done; `plan` finds every Progress."""

import jax.numpy as jnp
import pytest

from parnassus.schedules import Linear, Progress, at, plan


@pytest.mark.parametrize(("done", "value"), [(0.0, 1.0), (0.25, 0.55), (0.5, 0.1), (0.9, 0.1), (1.0, 0.1)])
def test_linear(done: float, value: float) -> None:
    assert Linear(1.0, 0.1, 0.5)(jnp.asarray(done)) == pytest.approx(value)


def test_progress_counts_environment_steps_of_the_plan() -> None:
    learner = {"progress": Progress.start(), "other": jnp.zeros(3)}
    learner = plan(learner, 200)
    progress = learner["progress"].advance(jnp.zeros((5, 4)))
    assert progress.steps == 20
    assert progress.done == pytest.approx(0.1)
    assert at(Linear(1.0, 0.0), progress) == pytest.approx(0.9)
    assert at(0.3, progress) == 0.3
    assert plan({"progress": progress}, 400)["progress"].done == pytest.approx(0.05)
    assert plan(progress, 10).done == 1.0
