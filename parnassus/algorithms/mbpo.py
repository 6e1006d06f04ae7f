"""MBPO: model-based policy optimisation (Janner et al. 2019, arXiv 1906.08253, Algorithm 2).

    initialise a policy pi and its critics, a model M_1, ..., M_E, replays D_env and D_model
    repeat
        run pi for T steps in each of N environments and store them in D_env             (the collector, `replay.add`)
        fit the model to D_env                                                           (`world_models/ensemble.py`)
        from observations of D_env, drawn evenly, imagine k steps of pi in the model     (`rollout` in a `LearnedEnv`)
        store them in D_model
        for each gradient step, with a minibatch from D_model, a few of it from D_env:
            update pi and its critics as SAC does                                        (`SAC.update`)

Dyna with networks: pro-active planning, a branch of k imagined steps from each of many real observations. k is fixed
here, where the paper lets it grow in some tasks, and all members imagine, where the paper leaves out the two worst.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from parnassus import rollout
from parnassus.algorithms.sac import SAC, Behavior
from parnassus.algorithms.sac import Learner as Agent
from parnassus.off_policy import Experience, create_replay, experience, improve, remember
from parnassus.replay import Replay
from parnassus.types import Count, Fraction, Key, Metrics, Spec, Transition, Tree, pytree
from parnassus.world_models.calibration import exploitation, promised_return
from parnassus.world_models.deterministic import Deterministic
from parnassus.world_models.ensemble import Ensemble, EnsembleModel
from parnassus.world_models.learned_env import LearnedEnv


class Learner(NamedTuple):
    agent: Agent  # pi, its critics, and D_env
    model: EnsembleModel  # M_1, ..., M_E
    imagined: Replay  # D_model


@pytree
class MBPO:
    """SAC on imagined steps; Box observations of one dimension and Box actions.

    The fields of `sac` mean what they mean there: T is its num_steps, D_env has its replay_size, and its
    updates_per_step are gradient steps for each real step. With T as the paper's 250 the policy that acts is at most
    so many steps older than in the paper, where it changes between two fits.
    """

    sac: SAC = SAC(num_steps=250, updates_per_step=20)
    model: Ensemble | Deterministic = Ensemble()
    horizon: Count = 1  # k: imagined steps in a row
    rollouts: Count = 10_000  # imagined after each fit
    imagined_size: Count = 100_000  # imagined steps that are kept, of the newest models and policies
    real_fraction: Fraction = 0.05  # of a minibatch

    @property
    def num_steps(self) -> int:
        """T, SAC's."""
        return self.sac.num_steps

    @property
    def overlap(self) -> bool:
        """SAC's."""
        return self.sac.overlap

    def init(self, key: Key, spec: Spec) -> Learner:
        """Raises BadInput for actions that are no Box, and for observations that the model cannot learn."""
        agent_key, model_key = jax.random.split(key)
        agent = self.sac.init(agent_key, spec)
        model = self.model.create(model_key, spec)
        return Learner(agent, model, create_replay(spec, max(self.imagined_size, self.rollouts * self.horizon)))

    def behavior(self, learner: Learner) -> Behavior:
        """SAC's: the model is not asked to act."""
        return self.sac.behavior(learner.agent)

    def initial_memory(self, spec: Spec) -> tuple[()]:
        """None."""
        return ()

    def act(self, behavior: Behavior, memory: tuple, observation: Tree, key: Key, explore: bool) -> tuple:
        """SAC's."""
        return self.sac.act(behavior, memory, observation, key, explore)

    def learn(self, learner: Learner, trajectory: Transition, key: Key) -> tuple[Learner, Metrics]:
        """Store the trajectory, fit the model, imagine, then `updates_per_step` gradient steps for each real step."""
        dream_key, improve_key = jax.random.split(key)
        agent = remember(learner.agent, trajectory, self.sac.discount)
        ready = agent.progress.steps >= jnp.maximum(self.sac.learning_starts, 1)

        def dream(model: EnsembleModel, imagined: Replay) -> tuple[EnsembleModel, Replay, Metrics]:
            fit_key, imagine_key = jax.random.split(dream_key)
            metrics = {"model/exploitation": self.exploitation(model, trajectory)}
            model, fit_metrics = self.model.fit(model, agent.replay, fit_key)
            return model, imagined.add(self.imagine(agent, model, imagine_key)), metrics | fit_metrics

        def sleep(model: EnsembleModel, imagined: Replay) -> tuple[EnsembleModel, Replay, Metrics]:
            metrics = jax.eval_shape(dream, model, imagined)[2]
            return model, imagined, {name: jnp.full(x.shape, jnp.nan) for name, x in metrics.items()}

        model, imagined, metrics = jax.lax.cond(ready, dream, sleep, learner.model, learner.imagined)

        def gradient_step(agent: Agent, real: Replay, key: Key) -> tuple[Agent, Metrics]:
            batch_key, update_key = jax.random.split(key)
            return self.sac.update(agent, self.minibatch(real, imagined, batch_key), update_key)

        num_updates = trajectory.reward.size * self.sac.updates_per_step
        agent, agent_metrics = improve(agent, gradient_step, improve_key, num_updates, ready)
        return Learner(agent, model, imagined), metrics | agent_metrics

    def imagine(self, agent: Agent, model: EnsembleModel, key: Key) -> Experience:
        """`rollouts` branches of `horizon` steps of the policy in the model, leaves [k, R, ...]."""
        reset_key, rollout_key = jax.random.split(key)
        env, behavior = LearnedEnv(model, agent.replay), self.sac.behavior(agent)
        act = lambda memory, observation, key: self.sac.act(behavior, memory, observation, key, True)  # noqa: E731
        actor = rollout.reset(env, reset_key, (), self.rollouts)
        _, trajectory = rollout.rollout(env, act, actor, (), rollout_key, self.horizon)
        return experience(trajectory, self.sac.discount)

    def minibatch(self, real: Replay, imagined: Replay, key: Key) -> Experience:
        """Each transition is a real one with probability `real_fraction`."""
        real_key, imagined_key, choice_key = jax.random.split(key, 3)
        size = self.sac.minibatch_size
        is_real = jax.random.bernoulli(choice_key, self.real_fraction, (size,))
        return rollout.where(is_real, real.sample(real_key, size), imagined.sample(imagined_key, size))

    def exploitation(self, model: EnsembleModel, trajectory: Transition) -> Array:
        """What the model would have promised for k of the policy's new steps beyond what came in."""
        num_steps = min(self.horizon, self.num_steps)
        promised = promised_return(model.members, trajectory, num_steps, self.sac.discount)
        return exploitation(promised, trajectory, num_steps, self.sac.discount)
