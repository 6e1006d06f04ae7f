"""PETS: probabilistic ensembles with trajectory sampling (Chua et al. 2018, arXiv 1805.12114, Algorithm 1).

    fill a replay D with a trial of random actions
    repeat, for each trial of T steps in each of N environments
        M_1, ..., M_E <- probabilistic networks, each fitted to a bootstrap of D         (`world_models/ensemble.py`)
        for each step
            repeat, for K sequences of H actions at a time                               (`planning/cem.py`)
                for each sequence, send particles through the models, each through one of them to the end (TS-infinity)
                draw the next sequences near those whose mean return was highest
            act by the first action of the plan; the rest is where the next plan begins  (the planner's memory)
        store the trial in D                                                             (the collector, `replay.add`)

The paper is told the reward and when an episode is over; here the models learn both.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from parnassus.off_policy import create_replay, experience
from parnassus.planning.cem import CEM, MPPI
from parnassus.planning.random_shooting import RandomShooting
from parnassus.planning.sequences import draw
from parnassus.replay import Replay
from parnassus.schedules import Progress
from parnassus.types import Count, Key, Memory, Metrics, Spec, Transition, WholeNumber, pytree
from parnassus.world_models.calibration import exploitation
from parnassus.world_models.deterministic import Deterministic
from parnassus.world_models.ensemble import Ensemble, EnsembleModel, Member


class Learner(NamedTuple):
    model: EnsembleModel  # M_1, ..., M_E
    replay: Replay  # D
    progress: Progress


class Behavior(NamedTuple):
    members: Member  # leaves [E, ...]
    progress: Progress


@pytree
class PETS:
    """Plans in a learned model; Box observations of one dimension, the actions that the planner can choose among."""

    planner: CEM | MPPI | RandomShooting = CEM(horizon=25, candidates=400, iterations=5, elites=40, particles=4)
    model: Ensemble | Deterministic = Ensemble()  # what it plans in
    num_steps: Count = 200  # T: steps in each environment between two fits
    learning_starts: WholeNumber = 200  # environment steps with random actions
    replay_size: Count = 100_000  # transitions that are kept

    def init(self, key: Key, spec: Spec) -> Learner:
        """Raises BadInput for spaces that the model cannot learn, and actions that the planner cannot choose among."""
        self.planner.check(spec.action_space)
        return Learner(self.model.create(key, spec), create_replay(spec, self.replay_size), Progress.start())

    def behavior(self, learner: Learner) -> Behavior:
        """The models, and how far training is: the first actions are random."""
        return Behavior(learner.model.members, learner.progress)

    def initial_memory(self, spec: Spec) -> Memory:
        """The planner's."""
        return self.planner.initial_memory(spec.action_space, spec.num_envs)

    def act(
        self, behavior: Behavior, memory: Memory, observation: Float[Array, "N S"], key: Key, explore: bool
    ) -> tuple:
        """The first action of the plan, drawn evenly at first; extras tell what the planner says of the plan."""
        plan_key, random_key = jax.random.split(key)
        num_envs, members = len(observation), behavior.members

        def plan() -> tuple:
            one = lambda o, memory, key: self.planner(members, o, memory, key)  # noqa: E731
            state = observation.astype(jnp.float32)  # what the models call a state
            return jax.vmap(one)(state, memory, jax.random.split(plan_key, num_envs))

        def guess() -> tuple:
            action, _, extras = jax.eval_shape(plan)
            nothing = jax.tree.map(lambda x: jnp.full(x.shape, jnp.nan), extras)
            drawn = draw(members.action_space, random_key, (num_envs,))
            return drawn.astype(action.dtype), memory, nothing

        return jax.lax.cond(behavior.progress.steps < self.learning_starts, guess, plan) if explore else plan()

    def learn(self, learner: Learner, trajectory: Transition, key: Key) -> tuple[Learner, Metrics]:
        """Store the trial; fit the models to all that is stored."""
        replay = learner.replay.add(experience(trajectory, 1.0))
        model, metrics = self.model.fit(learner.model, replay, key)
        promised = trajectory.extras["plan/value"]
        metrics |= {name: _mean_of_known(x) for name, x in trajectory.extras.items()}
        metrics["model/exploitation"] = exploitation(promised, trajectory, self.planner.horizon, self.planner.discount)
        return Learner(model, replay, learner.progress.advance(trajectory.reward)), metrics


def _mean_of_known(x: Float[Array, "T N"]) -> Float[Array, ""]:
    """NaN where nothing is known, as of steps without a plan."""
    known = ~jnp.isnan(x)
    return jnp.where(known, x, 0.0).sum() / known.sum()
