"""Model-predictive control in the environment itself (Mayne & Michalska 1990; with CEM, Hafner et al. 2019, table 1).

    repeat, in each of N environments
        s <- the state that the environment is in
        a_0, ..., a_{H-1} <- plan(s): the actions that are worth most in the model, which is the environment
        act by a_0; the other actions are where the next plan begins                     (the planner's memory)

Reactive planning: nothing is learned, so the first episode is as good as the last. What a learned model changes is in
PETS; what a policy can learn from the planner, in Distillation.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from parnassus.planning.cem import CEM, MPPI
from parnassus.planning.random_shooting import RandomShooting
from parnassus.planning.sequences import alone
from parnassus.schedules import Progress
from parnassus.simulator import Simulator, needed
from parnassus.types import Count, Key, Memory, Metrics, Spec, Transition, Tree, pytree


class Learner(NamedTuple):
    progress: Progress


@pytree
class MPC:
    """Plans anew at each step; JAX environments only."""

    planner: CEM | MPPI | RandomShooting = CEM()  # how the sequences of actions are searched
    num_steps: Count = 1  # T: steps in each environment between two rows of metrics
    simulator: Simulator | None = None  # the environment to plan in; `train` fills it in

    def init(self, key: Key, spec: Spec) -> Learner:
        """Raises BadInput outside JAX environments, and for actions that the planner cannot choose among."""
        needed(self.simulator, "MPC")
        self.planner.check(spec.action_space)
        return Learner(Progress.start())

    def behavior(self, learner: Learner) -> tuple[()]:
        """Nothing that was learned."""
        return ()

    def initial_memory(self, spec: Spec) -> Memory:
        """The planner's."""
        return self.planner.initial_memory(spec.action_space, spec.num_envs)

    def act(self, behavior: tuple[()], memory: Memory, observation: Tree, key: Key, explore: bool) -> tuple:
        """The first action of the plan, exploring or not; extras tell what the planner says of the plan."""
        simulator = needed(self.simulator, "MPC")
        models = alone(simulator.env)
        state = simulator.state(observation)
        keys = jax.random.split(key, len(jax.tree.leaves(observation)[0]))
        return jax.vmap(lambda state, memory, key: self.planner(models, state, memory, key))(state, memory, keys)

    def learn(self, learner: Learner, trajectory: Transition, key: Key) -> tuple[Learner, Metrics]:
        """Nothing but the count of steps."""
        metrics = {name: jnp.mean(x) for name, x in trajectory.extras.items()}
        return Learner(learner.progress.advance(trajectory.reward)), metrics
