"""Deep Q-network: Q-learning with a network, a replay and a target that stands still (Mnih et al. 2015, Algorithm 1).

    initialise Q_theta, the target theta^- = theta, a replay D
    repeat
        act epsilon-greedily on Q_theta for T steps in each of N environments, epsilon falling linearly,
        at random until D holds N_min transitions; store them in D                       (the collector, `remember`)
        for each gradient step, with a minibatch (o, a, r, o') from D:
            y     <- r + gamma (1 - terminated) max_a' Q_theta^-(o', a')
            delta <- y - Q_theta(o, a)
            descend  E[delta^2]
            every C gradient steps: theta^- <- theta

Options, each off by default, each one line of the paper's box:
    double         y <- r + gamma Q_theta^-(o', argmax_a' Q_theta(o', a'))        (van Hasselt et al. 2016, equation 4)
    loss="huber"   |delta| - 1/2 in place of delta^2 / 2 beyond 1: the errors clipped to [-1, 1] of Mnih et al.
    n              y <- r_1 + gamma r_2 + ... + gamma^n max_a' Q_theta^-(o_n, a')  (Sutton and Barto 2018, equation 7.1)
    dueling        Q(o, a) = V(o) + A(o, a) - mean_a' A(o, a')                      (Wang et al. 2016, equation 9)
    sampling       Prioritized(): large errors are seen more often, and weigh less (Schaul et al. 2016, Algorithm 1)
"""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from gymnasium import spaces
from jaxtyping import Array, Float, Int

from parnassus.encoding import Encoder
from parnassus.exploration import epsilon_greedy
from parnassus.frame_replay import FrameReplay, create_frame_replay
from parnassus.networks import ActionValues, Network, Torso, pick
from parnassus.off_policy import Experience, create_replay, example, improve, remember
from parnassus.replay import Priorities, Prioritized, Replay, Uniform
from parnassus.schedules import Linear, Progress, at
from parnassus.types import (
    BadInput,
    Count,
    Fraction,
    Key,
    Metrics,
    NonNegative,
    Spec,
    Transition,
    Tree,
    WholeNumber,
    pytree,
)


class Learner(NamedTuple):
    q: Network  # theta
    target: Network  # theta^-
    optimizer: optax.OptState
    replay: Replay | FrameReplay  # D
    priorities: Priorities | None  # of the replay's rows, if sampling is prioritised
    updates: Int[Array, ""]  # gradient steps since the target was copied
    encoder: Encoder
    progress: Progress


class Behavior(NamedTuple):
    q: Network
    encoder: Encoder
    progress: Progress


@pytree
class DQN:
    """DQN with an epsilon-greedy behaviour; Discrete actions."""

    learning_rate: NonNegative | Linear = 1e-4  # Adam's step size
    num_steps: Count = 4  # T: steps in each environment per iteration
    num_updates: Count = 1  # gradient steps per iteration
    minibatch_size: Count = 32  # transitions per gradient step
    replay_size: Count = 100_000  # transitions that are kept
    learning_starts: WholeNumber = 1_000  # N_min: environment steps with random actions, before the first update
    target_period: Count = 1_000  # C: gradient steps between two copies to the target
    discount: Fraction = 0.99  # gamma, of future rewards
    epsilon: Fraction | Linear = Linear(1.0, 0.05, 0.1)  # the probability of a random action
    double: bool = False  # the online network chooses the action that the target values
    loss: Literal["squared", "huber"] = "squared"  # of the temporal-difference error
    n: Count = 1  # rewards per target
    dueling: bool = False  # the network adds a value and advantages
    frame_stack: Count = 1  # frames that an image is a stack of: the replay keeps each frame once
    sampling: Uniform | Prioritized = Uniform()  # which transitions of the replay are learned from
    max_grad_norm: NonNegative = 10.0  # the global norm that gradients are clipped to
    overlap: bool = False  # on host environments: learn in a thread while the next steps are taken, an update late
    normalize_observations: bool = False  # by running statistics
    hidden_sizes: tuple[int, ...] = (64, 64)  # of the network
    activation: Literal["tanh", "relu", "elu", "gelu", "swish"] = "relu"  # after each hidden layer
    network: nn.Module | None = None  # encoded observation -> features, in place of the default network

    def init(self, key: Key, spec: Spec) -> Learner:
        """Raises BadInput if the action space is not Discrete."""
        if not isinstance(spec.action_space, spaces.Discrete):
            raise BadInput(f"DQN needs a Discrete action space, not {spec.action_space}")
        encoder = Encoder.create(spec.observation_space, self.normalize_observations)
        torso = self.network or Torso(encoder.are_images, self.hidden_sizes, self.activation, initial_weights="normal")
        observation = encoder(example(spec).observation)
        q = Network.create(ActionValues(torso, int(spec.action_space.n), self.dueling), key, observation)
        progress = Progress.start()
        return Learner(
            q,
            jax.tree.map(jnp.copy, q),  # a copy: donated buffers must not be shared
            self.optimizer(progress).init(q),
            create_frame_replay(spec, self.replay_size, self.frame_stack)
            if any(encoder.are_images)
            else create_replay(spec, self.replay_size),
            self.sampling.start(self.replay_size),
            jnp.zeros((), jnp.int32),
            encoder,
            progress,
        )

    def behavior(self, learner: Learner) -> Behavior:
        """Q, and how far epsilon has come."""
        return Behavior(learner.q, learner.encoder, learner.progress)

    def initial_memory(self, spec: Spec) -> tuple[()]:
        """None."""
        return ()

    def act(self, behavior: Behavior, memory: tuple, observation: Tree, key: Key, explore: bool) -> tuple:
        """Epsilon-greedy, all random at first; greedy where not exploring."""
        values = behavior.q(behavior.encoder(observation))
        starting = behavior.progress.steps < self.learning_starts
        epsilon = jnp.where(starting, 1.0, at(self.epsilon, behavior.progress)) if explore else 0.0
        return epsilon_greedy(key, values, epsilon), memory, {}

    def learn(self, learner: Learner, trajectory: Transition, key: Key) -> tuple[Learner, Metrics]:
        """Store the trajectory, then `num_updates` gradient steps."""
        rows = learner.replay.next_rows(trajectory.reward.size)
        learner = learner._replace(priorities=self.sampling.added(learner.priorities, rows))
        learner = remember(learner, trajectory, self.discount, self.n)
        ready = learner.progress.steps >= jnp.maximum(self.learning_starts, 1)
        learner, metrics = improve(learner, self.gradient_step, key, self.num_updates, ready)
        epsilon = jnp.asarray(at(self.epsilon, learner.progress))
        return learner, {**metrics, "policy/epsilon": jnp.where(ready, epsilon, 1.0)}

    def gradient_step(self, learner: Learner, replay: Replay | FrameReplay, key: Key) -> tuple[Learner, Metrics]:
        """One gradient step on a fresh minibatch."""
        rows, weight = self.sampling.draw(learner.priorities, replay, key, self.minibatch_size, learner.progress)
        usable = jnp.ones(len(rows), bool) if isinstance(replay, Replay) else replay.usable(rows)
        learner, error, metrics = self.update(learner, replay[rows], weight * usable)
        error = jnp.where(usable, error, 0.0)
        return learner._replace(priorities=self.sampling.learned(learner.priorities, rows, error)), metrics

    def update(
        self, learner: Learner, batch: Experience, weight: Float[Array, "B"]
    ) -> tuple[Learner, Float[Array, "B"], Metrics]:
        """One gradient step; delta for each transition."""
        observation, next_observation = learner.encoder(batch.observation), learner.encoder(batch.next_observation)
        next_values = learner.target(next_observation)
        choice = learner.q(next_observation) if self.double else next_values
        target = batch.reward + batch.discount * pick(next_values, choice.argmax(-1))

        def loss(q: Network) -> tuple[Array, tuple[Array, Array]]:
            value = pick(q(observation), batch.action)
            error = target - value
            each = error**2 if self.loss == "squared" else optax.huber_loss(error)
            return (weight * each).mean(), (error, value.mean())

        (value_loss, (error, mean)), grads = jax.value_and_grad(loss, has_aux=True)(learner.q)
        updates, optimizer_state = self.optimizer(learner.progress).update(grads, learner.optimizer)
        q = optax.apply_updates(learner.q, updates)
        count = learner.updates + 1
        copy = count >= self.target_period
        learner = learner._replace(
            q=q,
            target=jax.tree.map(lambda online, target: jnp.where(copy, online, target), q, learner.target),
            optimizer=optimizer_state,
            updates=jnp.where(copy, 0, count),
        )
        return learner, error, {"loss/value": value_loss, "value/mean": mean}

    def greedy_value(self, learner: Learner, observation: Tree) -> Float[Array, "B"]:
        """max_a Q(o, a), of encoded observations."""
        return learner.q(observation).max(-1)

    def optimizer(self, progress: Progress) -> optax.GradientTransformation:
        """Adam on globally clipped gradients, all parameters in one vector."""
        learning_rate = at(self.learning_rate, progress)
        return optax.flatten(optax.chain(optax.clip_by_global_norm(self.max_grad_norm), optax.adam(learning_rate)))
