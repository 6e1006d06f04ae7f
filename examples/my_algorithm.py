"""An algorithm of one's own: an advantage actor-critic with lambda-returns, trained on the built-in CartPole.

    python examples/my_algorithm.py

docs/writing-an-algorithm.md goes through it.
"""

from typing import NamedTuple

import jax
import optax

import parnassus as pa
from parnassus.distributions import parameterize
from parnassus.networks import MLP, Network, Policy, Value
from parnassus.returns import lambda_returns


class Learner(NamedTuple):
    """Every array that training changes."""

    policy: Network  # theta
    value: Network  # w
    optimizer: optax.OptState


@pa.pytree
class ActorCritic:
    """Hyper-parameters. Floats are data: another learning rate is the same compiled program."""

    learning_rate: float = 2e-3
    discount: float = 0.99  # gamma
    trace: float = 0.95  # lambda
    num_steps: int = 16  # T: steps in each environment between two calls of `learn`
    hidden_sizes: tuple[int, ...] = (64, 64)

    def init(self, key, spec):
        policy_key, value_key = jax.random.split(key)
        example = jax.numpy.zeros((1, *spec.observation_space.shape))
        torso = MLP(self.hidden_sizes)
        policy = Network.create(Policy(torso, parameterize(spec.action_space)), policy_key, example)
        value = Network.create(Value(torso), value_key, example)
        return Learner(policy, value, self.optimizer().init((policy, value)))

    def behavior(self, learner):
        return learner.policy

    def initial_memory(self, spec):
        return ()

    def act(self, behavior, memory, observation, key, explore):
        distribution = behavior(observation)
        return distribution.sample(key) if explore else distribution.mode(), memory, {}

    def learn(self, learner, trajectory, key):
        observation, action, reward, next_observation, terminated, truncated, _ = trajectory
        next_value = learner.value(next_observation)  # bootstraps time limits too: the successor is the true one
        target = lambda_returns(reward, next_value, terminated, truncated, self.discount, self.trace)

        def loss(networks):
            policy, value = networks
            advantage = target - value(observation)
            policy_loss = -(jax.lax.stop_gradient(advantage) * policy(observation).log_prob(action)).mean()
            value_loss = (advantage**2).mean()
            return policy_loss + 0.5 * value_loss, {"loss/policy": policy_loss, "loss/value": value_loss}

        networks = (learner.policy, learner.value)
        gradients, metrics = jax.grad(loss, has_aux=True)(networks)
        updates, optimizer = self.optimizer().update(gradients, learner.optimizer)
        policy, value = optax.apply_updates(networks, updates)
        return Learner(policy, value, optimizer), metrics

    def optimizer(self):
        return optax.chain(optax.clip_by_global_norm(0.5), optax.adam(self.learning_rate))


if __name__ == "__main__":
    run = pa.train(ActorCritic(), "jax:CartPole-v1", steps=200_000, seed=0, num_envs=8)
    print(run.evaluate(episodes=100))
