"""MuZero (Schrittwieser et al. 2020, arXiv 1911.08265): tree search in a model that learns what the search needs of it.

    initialise the representation h, the dynamics g, the prediction f (all theta), a replay D of sequences
    repeat
        for T steps in each of N environments, with observation o:                        (`act`, by the collector)
            weights, a <- tree search from s = h(o), where (s', r) = g(s, a) and (pi, v) = f(s)
            act by a
        store (o, a, r, weights) in D
        for each gradient step, with a minibatch of K + 1 steps in a row from D:
            z_t <- r_{t+1} + ... + gamma^{n-1} r_{t+n} + gamma^n v_target(o_{t+n})        (equation 4)
            s_0 <- h(o_t)
            for each k of 0, ..., K:
                pi_k, v_k <- f(s_k);  s_{k+1}, r_k <- g(s_k, a_{t+k})
            descend  sum_k E[(z_{t+k}, v_k) + (r_{t+k+1}, r_k) - sum_a weights_{t+k}(a) log pi_k(a)]     (equation 1)
            theta_target <- theta_target + tau (theta - theta_target)

(x, y) is a cross-entropy: values and rewards are distributions over the numbers from -S to S, by which x is told as
h(x) = sign(x) (sqrt(|x| + 1) - 1) + 0.001 x (appendix F). What follows a terminal state is absorbing: it pays nothing
and is worth nothing; what follows a cut (a time limit, the trajectory's end) is not learned from, and the rewards of a
target go no further: it bootstraps there, in the true successor. The value that is bootstrapped is that of a slow copy
of the model, of now (as in appendix H): what a search found back then is as old as the replay.
"""

from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from gymnasium import spaces
from jaxtyping import Array, Bool, Float, Num

from parnassus.distributions import Distribution, Parameterization, parameterize
from parnassus.encoding import Encoder, zeros
from parnassus.networks import MLP, Network, Policy, Torso, polyak
from parnassus.off_policy import experience, improve
from parnassus.planning.mcts import PUCT, Gumbel, Node, candidates, check, log_probs
from parnassus.replay import Replay
from parnassus.schedules import Linear, Progress, at
from parnassus.types import Count, Fraction, Key, Metrics, NonNegative, Spec, Transition, Tree, WholeNumber, pytree


class Model(NamedTuple):
    """theta."""

    representation: Network  # h: encoded observation -> s
    dynamics: Network  # g: (s, a) -> s', logits of the reward
    prediction: Network  # f: s -> the policy's distribution, logits of the value


class Moment(NamedTuple):
    """What the replay keeps of a step."""

    observation: Tree  # o_t
    action: Num[Array, "..."]  # a_t, [*batch, *a]
    reward: Float[Array, "*batch"]  # r_{t+1}
    actions: Num[Array, "..."]  # [*batch, A, *a], of the root
    weights: Float[Array, "*batch A"]
    rewards: Float[Array, "*batch"]  # r_{t+1} + gamma r_{t+2} + ... + gamma^{m-1} r_{t+m}; m is n, or less at an end
    successor: Tree  # o_{t+m}
    discount: Float[Array, "*batch"]  # of its value: gamma^m, or 0 where it is terminal
    terminated: Bool[Array, "*batch"]
    ended: Bool[Array, "*batch"]  # what comes next in the replay is not what followed


class Behavior(NamedTuple):
    model: Model
    encoder: Encoder


class Learner(NamedTuple):
    model: Model
    target: Model  # the slow copy
    optimizer: optax.OptState
    replay: Replay  # D; the step after row i of N environments is row i + N
    encoder: Encoder
    progress: Progress


class Representation(nn.Module):
    """h. States lie in [0, 1] (appendix G)."""

    torso: nn.Module
    size: int

    @nn.compact
    def __call__(self, observation: Tree) -> Float[Array, "*batch s"]:
        return _to_unit_interval(nn.Dense(self.size)(self.torso(observation)))


class Dynamics(nn.Module):
    """g."""

    torso: nn.Module
    size: int
    num_outputs: int

    @nn.compact
    def __call__(
        self, state: Float[Array, "*batch s"], action: Float[Array, "*batch a"]
    ) -> tuple[Float[Array, "*batch s"], Float[Array, "*batch o"]]:
        features = self.torso(jnp.concatenate([state, action], axis=-1))
        reward = nn.Dense(self.num_outputs, kernel_init=nn.initializers.zeros)(features)
        return _to_unit_interval(nn.Dense(self.size)(features)), reward


class Prediction(nn.Module):
    """f."""

    torso: nn.Module
    head: Parameterization
    num_outputs: int

    @nn.compact
    def __call__(self, state: Float[Array, "*batch s"]) -> tuple[Distribution, Float[Array, "*batch o"]]:
        features = self.torso(state)
        value = nn.Dense(self.num_outputs, kernel_init=nn.initializers.zeros)(features)
        return Policy(MLP(()), self.head, std="state")(features), value


@pytree
class MuZero:
    """Learns of any environment with vector or image observations, Discrete or Box actions."""

    search: PUCT | Gumbel = PUCT()  # how the tree grows, and what of it is learned
    learning_rate: NonNegative | Linear = 1e-3  # AdamW's step size
    num_steps: Count = 64  # T: steps in each environment per iteration
    num_updates: Count = 32  # gradient steps per iteration
    minibatch_size: Count = 128  # sequences per gradient step
    replay_size: Count = 50_000  # steps that are kept
    learning_starts: WholeNumber = 1_000  # environment steps before the first gradient step
    discount: Fraction = 0.99  # gamma, of future rewards
    n: Count = 10  # rewards in a value's target
    tau: Fraction = 0.01  # the target model's step towards the model
    num_unrolled: Count = 5  # K: steps that the model takes on its own in the loss
    num_samples: Count = 16  # where actions are real, how many of them a node has
    support_size: Count = 20  # S: values and rewards up to about S^2
    value_coefficient: NonNegative = 1.0  # of the value's loss; 0.25 where much is reanalyzed (appendix H)
    reanalyze: bool = False  # learn the weights of a search with the model of now, not of then (appendix H)
    weight_decay: NonNegative = 1e-4
    max_grad_norm: NonNegative = 5.0  # of the global norm
    normalize_observations: bool = False  # by running statistics
    state_size: Count = 32  # numbers in the model's state
    hidden_sizes: tuple[int, ...] = (64,)  # of each of the three networks
    activation: Literal["tanh", "relu", "elu", "gelu", "swish"] = "relu"  # after each hidden layer
    network: nn.Module | None = None  # encoded observation -> features of h, in place of the default network

    def init(self, key: Key, spec: Spec) -> Learner:
        """Raises BadInput where actions are neither Discrete nor of a Box."""
        check(spec.action_space)
        representation_key, dynamics_key, prediction_key = jax.random.split(key, 3)
        encoder = Encoder.create(spec.observation_space, self.normalize_observations)
        observation, action = zeros(spec.observation_space, (1,)), jnp.asarray(zeros(spec.action_space, (1,)))
        head = parameterize(spec.action_space, squash=isinstance(spec.action_space, spaces.Box))
        torso = self.network or Torso(encoder.are_images, self.hidden_sizes, self.activation, initial_weights="normal")
        mlp, num_outputs = MLP(self.hidden_sizes, self.activation, initial_weights="normal"), 2 * self.support_size + 1
        state = jnp.zeros((1, self.state_size))
        model = Model(
            Network.create(Representation(torso, self.state_size), representation_key, encoder(observation)),
            Network.create(Dynamics(mlp, self.state_size, num_outputs), dynamics_key, state, features(action, head)),
            Network.create(Prediction(mlp.clone(), head, num_outputs), prediction_key, state),
        )
        num_actions = head.num_outputs if isinstance(spec.action_space, spaces.Discrete) else self.num_samples
        number, flag = jnp.zeros(1), jnp.zeros(1, bool)
        actions = jnp.repeat(action[None], num_actions, axis=1)
        one = Moment(
            observation, action, number, actions, jnp.zeros((1, num_actions)), number, observation, number, flag, flag
        )
        replay = Replay.create(jax.tree.map(lambda x: x[0], one), self.replay_size)
        target = jax.tree.map(jnp.copy, model)  # a copy: donated buffers must not be shared
        progress = Progress.start()
        optimizer = self.optimizer(progress).init(model)
        return Learner(model, target, optimizer, replay, encoder, progress)

    def behavior(self, learner: Learner) -> Behavior:
        """The model: acting is searching in it."""
        return Behavior(learner.model, learner.encoder)

    def initial_memory(self, spec: Spec) -> tuple[()]:
        """None."""
        return ()

    def act(self, behavior: Behavior, memory: tuple, observation: Tree, key: Key, explore: bool) -> tuple:
        """What the search finds; extras tell `learn` what to learn of it."""
        root_key, search_key = jax.random.split(key)
        root = self.node(behavior.model, behavior.model.representation(behavior.encoder(observation)), root_key)
        found = self.search(root, partial(self.imagine, behavior.model), search_key, explore)
        extras = {"actions": root.actions, "weights": found.weights, "value": found.improved_value}
        return found.action, memory, extras

    def imagine(self, model: Model, state: Float[Array, "s"], action: Num[Array, "*a"], key: Key) -> tuple:
        """One step in the model, for the search."""
        head = model.prediction.module.head
        state, reward = model.dynamics(state, features(action, head))
        return expectation(reward), self.discount, self.node(model, state, key)

    def node(self, model: Model, state: Float[Array, "*batch s"], key: Key) -> Node:
        """What the prediction says of one state or of a batch."""
        policy, value = model.prediction(state)
        return Node(state, *candidates(policy, key, self.num_samples), expectation(value))

    def value(self, model: Model, encoder: Encoder, observation: Tree) -> Float[Array, "*batch"]:
        """What the prediction says that an observation is worth."""
        return expectation(model.prediction(model.representation(encoder(observation)))[1])

    def learn(self, learner: Learner, trajectory: Transition, key: Key) -> tuple[Learner, Metrics]:
        """Store what the searches found and what came of it, then `num_updates` gradient steps."""
        observation, action, reward, _, terminated, truncated, extras = trajectory
        ended = (terminated | truncated).at[-1].set(True)
        ahead = experience(trajectory, self.discount, self.n)
        found = extras["actions"], extras["weights"]
        seen = ahead.reward, ahead.next_observation, ahead.discount
        moments = Moment(observation, action, reward, *found, *seen, terminated, ended)
        learner = learner._replace(
            replay=learner.replay.add(moments),
            encoder=learner.encoder.update(observation),
            progress=learner.progress.advance(reward),
        )
        ready = learner.progress.steps >= jnp.maximum(self.learning_starts, 1)
        step = partial(self.gradient_step, num_envs=reward.shape[1])
        learner, metrics = improve(learner, step, key, self.num_updates, ready)
        return learner, {**metrics, "search/value": extras["value"].mean()}

    def gradient_step(self, learner: Learner, replay: Replay, key: Key, num_envs: int) -> tuple[Learner, Metrics]:
        """One gradient step of the whole model on fresh sequences."""
        draw_key, search_key = jax.random.split(key)
        start, steps = replay.draw(draw_key, self.minibatch_size), jnp.arange(self.num_unrolled + 1)
        rows = (start[None] + num_envs * steps[:, None]) % replay.capacity
        sequences = jax.tree.map(lambda x: x[rows], replay.storage)
        if self.reanalyze:
            sequences = self.reanalyzed(learner, sequences, search_key)
        z = sequences.rewards + sequences.discount * self.value(learner.target, learner.encoder, sequences.successor)
        gradients, metrics = jax.grad(self.loss, has_aux=True)(learner.model, learner.encoder, sequences, z)
        updates, optimizer = self.optimizer(learner.progress).update(gradients, learner.optimizer, learner.model)
        model = optax.apply_updates(learner.model, updates)
        target = polyak(learner.target, model, self.tau)
        return learner._replace(model=model, target=target, optimizer=optimizer), metrics

    def reanalyzed(self, learner: Learner, sequences: Moment, key: Key) -> Moment:
        """The same sequences, with what a search finds at their observations now."""
        flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), sequences.observation)
        _, _, found = self.act(self.behavior(learner), (), flat, key, explore=True)
        anew = {name: found[name].reshape(getattr(sequences, name).shape) for name in ("actions", "weights")}
        return sequences._replace(**anew)

    def loss(
        self, model: Model, encoder: Encoder, sequences: Moment, z: Float[Array, "K B"]
    ) -> tuple[Float[Array, ""], Metrics]:
        """Equation 1, of sequences and their values with leaves [K + 1, B, ...]."""
        happened, absorbing = what_is_known(sequences.terminated, sequences.ended)
        known = happened | absorbing
        reward, z = (jnp.where(absorbing, 0.0, x) for x in (sequences.reward, z))
        head = model.prediction.module.head

        def unroll(state: Float[Array, "B s"], step: tuple) -> tuple[Array, tuple[Array, Array, Array]]:
            action, actions, weights, reward, z = step
            policy, value_logits = model.prediction(state)
            state, reward_logits = model.dynamics(state, features(action, head))
            losses = (
                -(weights * log_probs(policy, actions)).sum(-1),
                cross_entropy(z, value_logits),
                cross_entropy(reward, reward_logits),
            )
            return 0.5 * state + 0.5 * jax.lax.stop_gradient(state), losses  # half the gradient (appendix G)

        state = model.representation(encoder(jax.tree.map(lambda x: x[0], sequences.observation)))
        steps = sequences.action, sequences.actions, sequences.weights, reward, z
        _, (policy_losses, value_losses, reward_losses) = jax.lax.scan(unroll, state, steps)
        policy_loss = (happened * policy_losses).mean()
        value_loss, reward_loss = ((known * losses).mean() for losses in (value_losses, reward_losses))
        metrics = {"loss/policy": policy_loss, "loss/value": value_loss, "loss/reward": reward_loss}
        return policy_loss + self.value_coefficient * value_loss + reward_loss, metrics

    def optimizer(self, progress: Progress) -> optax.GradientTransformation:
        """Adam with weight decay, the gradient clipped."""
        adam = optax.adamw(at(self.learning_rate, progress), weight_decay=self.weight_decay)
        return optax.chain(optax.clip_by_global_norm(self.max_grad_norm), adam)


def what_is_known(
    terminated: Bool[Array, "K B"], ended: Bool[Array, "K B"]
) -> tuple[Bool[Array, "K B"], Bool[Array, "K B"]]:
    """Of K steps in a row: which of them happened, and which are of an absorbing state; nothing is known of others."""
    earlier = lambda x: (jnp.cumsum(x, axis=0) - x) > 0  # noqa: E731  # was it so in any step before
    happened = ~earlier(ended)
    return happened, earlier(terminated & happened)


def features(action: Num[Array, "..."], head: Parameterization) -> Float[Array, "..."]:
    """Actions as g reads them: one-hot, or as vectors."""
    if not head.needs_log_std:
        return jax.nn.one_hot(action, head.num_outputs)
    event = 1 if head.event_shape is None else len(head.event_shape)
    return action.reshape(*action.shape[: action.ndim - event], -1)


def expectation(logits: Float[Array, "*batch o"]) -> Float[Array, "*batch"]:
    """The number that a distribution over -S, ..., S stands for: the inverse of h at its mean."""
    limit = logits.shape[-1] // 2
    y = jax.nn.softmax(logits) @ jnp.arange(-limit, limit + 1, dtype=jnp.float32)
    root = (jnp.sqrt(1 + 4 * 0.001 * (jnp.abs(y) + 1 + 0.001)) - 1) / (2 * 0.001)
    return jnp.sign(y) * (root**2 - 1)


def two_hot(x: Float[Array, "*batch"], num_outputs: int) -> Float[Array, "*batch o"]:
    """A number as a distribution over -S, ..., S: over the two that h(x) lies between, with h(x) as its mean."""
    limit = num_outputs // 2
    y = jnp.clip(jnp.sign(x) * (jnp.sqrt(jnp.abs(x) + 1) - 1) + 0.001 * x, -limit, limit)
    numbers = jnp.arange(-limit, limit + 1, dtype=jnp.float32)
    return jnp.maximum(1 - jnp.abs(y[..., None] - jnp.broadcast_to(numbers, (*y.shape, num_outputs))), 0.0)


def cross_entropy(x: Float[Array, "B"], logits: Float[Array, "B o"]) -> Float[Array, "B"]:
    """Of a number, as `two_hot`, and the logits of a distribution over the same numbers."""
    return -(two_hot(x, logits.shape[-1]) * jax.nn.log_softmax(logits)).sum(-1)


def _to_unit_interval(state: Float[Array, "*batch s"]) -> Float[Array, "*batch s"]:
    low, high = state.min(-1, keepdims=True), state.max(-1, keepdims=True)
    return (state - low) / (high - low + 1e-5)
