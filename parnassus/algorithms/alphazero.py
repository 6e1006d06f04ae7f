"""AlphaZero (Silver et al. 2018, Science 362): tree search in the environment itself, and a policy that learns of it.

    initialise the policy pi_theta, the value function v_w, a replay D
    repeat
        for T steps in each of N environments, in state s with observation o:            (`act`, by the collector)
            weights, a <- tree search from s, guided by pi_theta and v_w
            act by a
        z <- rewards to go, discounted; v_w(o') follows where an episode is cut short
        store (o, weights, z) in D
        for each gradient step, with a minibatch (o, weights, z) from D:
            descend  E[(z - v_w(o))^2 - sum_a weights(a) log pi_theta(a | o)]             (equation 1)

For one player. The search's weights are its visit counts (PUCT, the paper's) or, of Gumbel, an improved policy. Real
actions are chosen among some that the policy draws (Hubert et al. 2021). An episode that is longer than T is cut at the
trajectory's end, as by a time limit; weight decay is AdamW's.
"""

from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from gymnasium import spaces
from jaxtyping import Array, Float, Num

from parnassus.distributions import parameterize
from parnassus.encoding import Encoder, zeros
from parnassus.networks import Network, Policy, Torso, Value
from parnassus.off_policy import improve
from parnassus.planning.mcts import PUCT, Gumbel, Node, candidates, check, environment_model, log_probs
from parnassus.replay import Replay
from parnassus.returns import lambda_returns
from parnassus.schedules import Linear, Progress, at
from parnassus.simulator import Simulator, needed, visible, visible_space
from parnassus.types import Count, Fraction, Key, Metrics, NonNegative, Spec, Transition, Tree, WholeNumber, pytree


class Example(NamedTuple):
    """What is learned from one search."""

    observation: Tree
    actions: Num[Array, "..."]  # [*batch, A, *a], of the root
    weights: Float[Array, "*batch A"]
    value: Float[Array, "*batch"]  # z


class Behavior(NamedTuple):
    policy: Network
    value: Network
    encoder: Encoder


class Learner(NamedTuple):
    policy: Network  # theta
    value: Network  # w
    optimizer: optax.OptState
    replay: Replay  # D
    encoder: Encoder
    progress: Progress


@pytree
class AlphaZero:
    """Searches anew at each step; JAX environments only, Discrete or Box actions."""

    search: PUCT | Gumbel = PUCT()  # how the tree grows, and what of it is learned
    learning_rate: NonNegative | Linear = 1e-3  # AdamW's step size
    num_steps: Count = 64  # T: steps in each environment per iteration
    num_updates: Count = 32  # gradient steps per iteration
    minibatch_size: Count = 256  # searches per gradient step
    replay_size: Count = 16_384  # searches that are kept
    learning_starts: WholeNumber = 0  # environment steps before the first gradient step
    discount: Fraction = 0.99  # gamma, of future rewards
    num_samples: Count = 16  # K: where actions are real, how many of them a node has
    weight_decay: NonNegative = 1e-4  # c of equation 1
    normalize_observations: bool = False  # by running statistics
    hidden_sizes: tuple[int, ...] = (64, 64)  # of the policy and of the value function
    activation: Literal["tanh", "relu", "elu", "gelu", "swish"] = "relu"  # after each hidden layer
    network: nn.Module | None = None  # encoded observation -> features, in place of the default network
    simulator: Simulator | None = None  # the environment to plan in; `train` fills it in

    def init(self, key: Key, spec: Spec) -> Learner:
        """Raises BadInput outside JAX environments, and where actions are neither Discrete nor of a Box."""
        needed(self.simulator, "AlphaZero")
        check(spec.action_space)
        policy_key, value_key = jax.random.split(key)
        space = visible_space(spec.observation_space)
        encoder = Encoder.create(space, self.normalize_observations)
        torso = self.network or Torso(encoder.are_images, self.hidden_sizes, self.activation, initial_weights="normal")
        observation, action = zeros(space, (1,)), zeros(spec.action_space, (1,))
        head = parameterize(spec.action_space, squash=isinstance(spec.action_space, spaces.Box))
        policy = Network.create(Policy(torso, head, std="state"), policy_key, encoder(observation))
        value = Network.create(Value(torso.clone()), value_key, encoder(observation))
        num_actions = head.num_outputs if isinstance(spec.action_space, spaces.Discrete) else self.num_samples
        actions = jnp.zeros((num_actions, *action.shape[1:]), action.dtype)
        one = Example(jax.tree.map(lambda x: x[0], observation), actions, jnp.zeros(num_actions), jnp.zeros(()))
        progress = Progress.start()
        optimizer = self.optimizer(progress).init((policy, value))
        return Learner(policy, value, optimizer, Replay.create(one, self.replay_size), encoder, progress)

    def behavior(self, learner: Learner) -> Behavior:
        """What guides the search."""
        return Behavior(learner.policy, learner.value, learner.encoder)

    def initial_memory(self, spec: Spec) -> tuple[()]:
        """None."""
        return ()

    def act(self, behavior: Behavior, memory: tuple, observation: Tree, key: Key, explore: bool) -> tuple:
        """What the search finds; extras tell `learn` what to learn of it."""
        guide_key, search_key = jax.random.split(key)
        simulator = needed(self.simulator, "AlphaZero")
        guide = partial(self.guide, behavior)
        root = Node(simulator.state(observation), *guide(visible(observation), guide_key))
        model = environment_model(simulator.env, guide, self.discount)
        found = self.search(root, model, search_key, explore)
        return found.action, memory, {"actions": root.actions, "weights": found.weights, "value": found.value}

    def guide(self, behavior: Behavior, observation: Tree, key: Key) -> tuple[Array, Array, Array]:
        """Actions, the logits of their prior, and the value, of one observation or of a batch."""
        encoded = behavior.encoder(observation)
        return *candidates(behavior.policy(encoded), key, self.num_samples), behavior.value(encoded)

    def learn(self, learner: Learner, trajectory: Transition, key: Key) -> tuple[Learner, Metrics]:
        """Store what the searches found and what came of it, then `num_updates` gradient steps."""
        observation, _, reward, next_observation, terminated, truncated, extras = trajectory
        next_value = learner.value(learner.encoder(visible(next_observation)))
        rewards_to_go = lambda_returns(reward, next_value, terminated, truncated, self.discount, 1.0)
        examples = Example(visible(observation), extras["actions"], extras["weights"], rewards_to_go)
        learner = learner._replace(
            replay=learner.replay.add(examples),
            encoder=learner.encoder.update(visible(observation)),
            progress=learner.progress.advance(reward),
        )
        ready = learner.progress.steps >= jnp.maximum(self.learning_starts, 1)
        learner, metrics = improve(learner, self.gradient_step, key, self.num_updates, ready)
        return learner, {**metrics, "search/value": extras["value"].mean()}

    def gradient_step(self, learner: Learner, replay: Replay, key: Key) -> tuple[Learner, Metrics]:
        """One gradient step of both networks on a fresh minibatch."""
        batch = replay.sample(key, self.minibatch_size)
        observation = learner.encoder(batch.observation)

        def loss(networks: tuple[Network, Network]) -> tuple[Array, Metrics]:
            policy, value = networks
            log_prob = log_probs(policy(observation), batch.actions)
            policy_loss = -(batch.weights * log_prob).sum(-1).mean()
            value_loss = ((batch.value - value(observation)) ** 2).mean()
            return policy_loss + value_loss, {"loss/policy": policy_loss, "loss/value": value_loss}

        networks = learner.policy, learner.value
        gradients, metrics = jax.grad(loss, has_aux=True)(networks)
        updates, optimizer = self.optimizer(learner.progress).update(gradients, learner.optimizer, networks)
        policy, value = optax.apply_updates(networks, updates)
        return learner._replace(policy=policy, value=value, optimizer=optimizer), metrics

    def optimizer(self, progress: Progress) -> optax.GradientTransformation:
        """Adam, with weight decay."""
        return optax.adamw(at(self.learning_rate, progress), weight_decay=self.weight_decay)
