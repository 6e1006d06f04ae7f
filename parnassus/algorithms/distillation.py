"""Distillation of a planner into a policy (Ross, Gordon & Bagnell 2011, arXiv 1011.0686, Algorithm 3.1, DAgger).

    initialise the policy pi_theta, a replay D
    repeat
        for T steps in each of N environments:
            the teacher plans: a* in o
            act by a* with probability beta, else by the policy; store (o, a*) in D       (the collector, `replay.add`)
        the teacher learns from the same steps, if it is one that learns
        for each gradient step, with a minibatch (o, a*) from D:
            descend  E[|mu_theta(o) - a*|^2]                for real actions, or
            descend  E[-sum_a p*(a) log pi_theta(a | o)]    for discrete ones: p* is the teacher's own policy
                                                            or, where it has none, 1 for a*

The policy learns what the teacher would do where the policy itself comes to: after the first steps beta falls, and
states are more and more its own. Trained, it acts at a small part of the teacher's cost.
"""

from typing import Any, ClassVar, Literal, NamedTuple

import jax
import numpy as np
import optax
from flax import linen as nn
from gymnasium import spaces
from jaxtyping import Array, Float

from parnassus.algorithms.alphazero import AlphaZero
from parnassus.algorithms.mpc import MPC
from parnassus.algorithms.muzero import MuZero
from parnassus.algorithms.pets import PETS
from parnassus.algorithms.planet import PlaNet
from parnassus.distributions import Categorical, Distribution, parameterize
from parnassus.encoding import Encoder, zeros
from parnassus.networks import DeterministicPolicy, Network, Policy, Torso
from parnassus.replay import Replay
from parnassus.rollout import where
from parnassus.schedules import Linear, Progress, at
from parnassus.simulator import visible, visible_space
from parnassus.types import Count, Fraction, Key, Memory, Metrics, NonNegative, Spec, Transition, Tree, pytree


class Lesson(NamedTuple):
    """What a replay keeps of a step."""

    observation: Tree
    target: Tree  # the teacher's action, or the probabilities that it gives to each


class Learner(NamedTuple):
    policy: Network  # theta
    optimizer: optax.OptState
    replay: Replay  # D
    encoder: Encoder
    teacher: Any  # its own learner
    progress: Progress


class Behavior(NamedTuple):
    policy: Network
    encoder: Encoder
    teacher: Any  # its own behavior
    progress: Progress


@pytree
class Distillation:
    """Any algorithm as the teacher, above all one that plans; the policy alone acts where it does not explore."""

    teacher: MPC | PETS | PlaNet | AlphaZero | MuZero = MPC()  # what is imitated
    learning_rate: NonNegative | Linear = 1e-3  # Adam's step size
    teacher_share: Fraction | Linear = Linear(1.0, 0.0, 0.5)  # beta: how often the teacher's action is taken
    num_steps: Count = 16  # T: steps in each environment per iteration
    num_updates: Count = 16  # gradient steps per iteration
    minibatch_size: Count = 256  # steps per gradient step
    replay_size: Count = 100_000  # steps that are kept
    normalize_observations: bool = False  # by running statistics
    hidden_sizes: tuple[int, ...] = (64, 64)  # of the policy
    activation: Literal["tanh", "relu", "elu", "gelu", "swish"] = "tanh"  # after each hidden layer
    network: nn.Module | None = None  # encoded observation -> features

    acts_without_simulator: ClassVar[bool] = True  # the policy needs no more than the environment shows

    def init(self, key: Key, spec: Spec) -> Learner:
        """Raises BadInput where the teacher does, and for actions that no policy here can choose."""
        policy_key, teacher_key = jax.random.split(key)
        shown, actions = visible_space(spec.observation_space), spec.action_space
        encoder = Encoder.create(shown, self.normalize_observations)
        torso = self.network or Torso(encoder.are_images, self.hidden_sizes, self.activation)
        module: nn.Module
        if isinstance(actions, spaces.Box):
            module = DeterministicPolicy(torso, actions.shape)
        else:
            module = Policy(torso, parameterize(actions))
        policy = Network.create(module, policy_key, encoder(zeros(shown, (1,))))
        target = np.zeros(int(actions.n), np.float32) if isinstance(actions, spaces.Discrete) else zeros(actions)
        replay = Replay.create(Lesson(zeros(shown), target), self.replay_size)
        progress = Progress.start()
        optimizer = self.optimizer(progress).init(policy)
        return Learner(policy, optimizer, replay, encoder, self.teacher.init(teacher_key, spec), progress)

    def behavior(self, learner: Learner) -> Behavior:
        """The policy, and the teacher's behavior."""
        teacher = self.teacher.behavior(learner.teacher)
        return Behavior(learner.policy, learner.encoder, teacher, learner.progress)

    def initial_memory(self, spec: Spec) -> Memory:
        """The teacher's."""
        return self.teacher.initial_memory(spec)

    def act(self, behavior: Behavior, memory: Memory, observation: Tree, key: Key, explore: bool) -> tuple:
        """The policy's action; where exploring, in some environments the teacher's, with its lesson as an extra."""
        own = behavior.policy(behavior.encoder(visible(observation)))
        if not explore:
            return best(own), memory, {}
        teacher_key, choice_key = jax.random.split(key)
        planned, memory, extras = self.teacher.act(behavior.teacher, memory, observation, teacher_key, True)
        lesson = planned
        if isinstance(own, Categorical):
            lesson = extras.get("weights", jax.nn.one_hot(planned, own.logits.shape[-1]))
        follow = jax.random.bernoulli(choice_key, at(self.teacher_share, behavior.progress), planned.shape[:1])
        return where(follow, planned, best(own)), memory, {**extras, "lesson": lesson}

    def learn(self, learner: Learner, trajectory: Transition, key: Key) -> tuple[Learner, Metrics]:
        """The teacher's own learning, then `num_updates` gradient steps of the policy."""
        teacher_key, update_key = jax.random.split(key)
        teacher, metrics = self.teacher.learn(learner.teacher, trajectory, teacher_key)
        observation = visible(trajectory.observation)
        encoder = learner.encoder.update(observation)
        replay = learner.replay.add(Lesson(observation, trajectory.extras["lesson"]))
        progress = learner.progress.advance(trajectory.reward)
        optimizer = self.optimizer(progress)

        def gradient_step(carry: tuple[Network, optax.OptState], key: Key) -> tuple[tuple, Float[Array, ""]]:
            policy, state = carry
            lesson = replay.sample(key, self.minibatch_size)
            encoded = encoder(lesson.observation)
            loss, gradient = jax.value_and_grad(lambda policy: imitation_loss(policy(encoded), lesson.target))(policy)
            updates, state = optimizer.update(gradient, state)
            return (optax.apply_updates(policy, updates), state), loss

        start = learner.policy, learner.optimizer
        (policy, state), losses = jax.lax.scan(gradient_step, start, jax.random.split(update_key, self.num_updates))
        metrics = {**{f"teacher/{name}": x for name, x in metrics.items()}, "loss/policy": losses.mean()}
        return Learner(policy, state, replay, encoder, teacher, progress), metrics

    def optimizer(self, progress: Progress) -> optax.GradientTransformation:
        """Adam."""
        return optax.adam(at(self.learning_rate, progress))


def best(output: Distribution | Float[Array, "B *a"]) -> Tree:
    """The action that the policy's output stands for."""
    return output if isinstance(output, jax.Array) else output.mode()


def imitation_loss(output: Distribution | Float[Array, "B *a"], target: Tree) -> Float[Array, ""]:
    """The mean squared error of real actions; the cross-entropy of discrete ones."""
    if isinstance(output, jax.Array):
        return ((output - target) ** 2).mean()
    if isinstance(output, Categorical):
        return -(target * jax.nn.log_softmax(output.logits)).sum(-1).mean()
    return -output.log_prob(target).mean()
