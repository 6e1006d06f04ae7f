"""A learned model as an environment: imagination is an ordinary `rollout` in it."""

import gymnasium
import jax
from jaxtyping import Array, Float, Num

from parnassus.replay import Replay
from parnassus.types import Key, Step, pytree
from parnassus.world_models.ensemble import EnsembleModel, Member


@pytree
class LearnedEnv:
    """Episodes start where experience did, and follow one member of the ensemble, drawn anew in each step.

    The state is the observation; actions are the policy's own. It knows no time limits: `rollout`'s length is one.
    """

    model: EnsembleModel
    starts: Replay  # of transitions with an `observation`

    @property
    def observation_space(self) -> gymnasium.Space:
        """What is imagined has no bounds."""
        return self.members.interface.observation_space

    @property
    def action_space(self) -> gymnasium.Space:
        """[-1, 1] where a Box is bounded, Discrete from 0."""
        return self.members.interface.action_space

    @property
    def members(self) -> Member:
        """The models side by side, leaves [E, ...]: what planners plan in."""
        return self.model.members

    def reset(self, key: Key) -> tuple[Float[Array, "S"], Float[Array, "S"]]:
        """An observation of the replay, drawn evenly."""
        start = self.starts.sample(key, 1).observation[0]
        return start, start

    def step(self, state: Float[Array, "S"], action: Num[Array, "*a"], key: Key) -> Step:
        """What one member says; all are asked, so that products stay batched over members, not over their weights."""
        member_key, step_key = jax.random.split(key)
        each: Step = jax.vmap(lambda member: member.step(state, action, step_key))(self.members)
        chosen = jax.random.randint(member_key, (), 0, self.model.num_members)
        return jax.tree.map(lambda x: x[chosen], each)
