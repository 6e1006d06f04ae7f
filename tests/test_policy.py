"""A trained policy as a function: what it takes, what it gives, what it refuses."""

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

from parnassus.algorithms.ppo import PPO
from parnassus.algorithms.q_learning import QLearning
from parnassus.algorithms.reinforce import REINFORCE
from parnassus.encoding import zeros
from parnassus.policy import Policy
from parnassus.types import BadInput, Spec

VECTOR = spaces.Box(-1.0, 1.0, (3,), np.float64)


def a_policy(observation_space, action_space, cls=PPO, **fields):
    fields = {"hidden_sizes": (4,), **fields} if cls is not QLearning else fields
    algorithm = cls(num_steps=8, **fields)
    spec = Spec(observation_space, action_space, 8)
    return Policy(algorithm, algorithm.behavior(algorithm.init(jax.random.key(0), spec)), spec)


@pytest.mark.parametrize(
    "action_space",
    [
        spaces.Discrete(3),
        spaces.Discrete(3, start=5),
        spaces.Box(-2.0, 2.0, (2,), np.float32),
        spaces.Box(np.float64([0, 10]), np.float64([1, 30]), dtype=np.float64),
        spaces.MultiDiscrete([2, 3]),
        spaces.MultiBinary(4),
    ],
    ids=str,
)
def test_actions_are_of_the_space(action_space):
    policy = a_policy(VECTOR, action_space)
    action = policy(np.array([0.1, -0.2, 0.3]))
    assert action_space.contains(action)
    batch = policy(np.tile([0.1, -0.2, 0.3], (4, 1)))
    assert batch.dtype == action_space.dtype
    for row in batch:
        np.testing.assert_allclose(row, action, rtol=1e-6)


def test_a_box_action_is_in_the_environments_units():
    """The untrained mean is near the middle of [-1, 1], so near the middle of [10, 30]."""
    action = a_policy(VECTOR, spaces.Box(10.0, 30.0, (1,), np.float32))(np.zeros(3))
    assert 19.0 < action[0] < 21.0


def test_the_encoder_is_part_of_it():
    """Observations are normalised by the statistics in the behavior: shifting both changes nothing."""
    algorithm = PPO(num_steps=8, hidden_sizes=(4,), normalize_observations=True)
    spec = Spec(VECTOR, spaces.Box(-1.0, 1.0, (1,), np.float32), 8)
    behavior = algorithm.behavior(algorithm.init(jax.random.key(0), spec))
    seen = np.random.default_rng(0).normal(size=(100, 3)).astype(np.float32)
    plain = Policy(algorithm, behavior._replace(encoder=behavior.encoder.update(jnp.array(seen))), spec)
    shifted = Policy(algorithm, behavior._replace(encoder=behavior.encoder.update(jnp.array(seen + 5))), spec)
    x = np.array([0.5, -1.0, 0.2])
    np.testing.assert_allclose(plain(x), shifted(x + 5), atol=1e-4)
    assert abs(plain(x)[0] - plain(x + 5)[0]) > 1e-4


def test_nested_observations():
    space = spaces.Dict({"pixels": spaces.Box(0, 255, (8, 8, 3), np.uint8), "level": spaces.Discrete(4)})
    policy = a_policy(space, spaces.Discrete(2))
    space.seed(0)
    assert policy(space.sample()) in (0, 1)
    assert policy(zeros(space, (5,))).shape == (5,)


def test_it_is_deterministic():
    policy = a_policy(spaces.Discrete(4), spaces.Discrete(3), QLearning)  # all values tie
    assert len({int(policy(2)) for _ in range(10)}) == 1


def test_memory_lives_from_call_to_call():
    policy = a_policy(VECTOR, spaces.Discrete(2), REINFORCE)  # its memory is the time
    for _ in range(3):
        policy(np.zeros(3))
    assert policy._memory[1].tolist() == [3]
    policy.reset()
    policy(np.zeros(3))
    assert policy._memory[1].tolist() == [1]
    policy(np.zeros((2, 3)))  # another batch, so other episodes
    assert policy._memory[1].tolist() == [1, 1]


@pytest.mark.parametrize(
    "observation, message",
    [
        (np.zeros(4), r"an observation of Box.* is expected, or a batch, not one of shape \[\(4,\)\]"),
        (np.zeros((2, 2, 3)), r"not one of shape \[\(2, 2, 3\)\]"),
        ({"x": np.zeros(3)}, "an observation of Box.* is expected, not dict"),
        (np.array([0.0, np.nan, 0.0]), "the observation is not finite"),
    ],
)
def test_what_is_no_observation(observation, message):
    with pytest.raises(BadInput, match=message):
        a_policy(VECTOR, spaces.Discrete(2))(observation)


def test_it_plays(tmp_path):
    env = gymnasium.make("CartPole-v1")
    policy = a_policy(env.observation_space, env.action_space)
    observation, _ = env.reset(seed=0)
    for _ in range(5):
        observation, *_ = env.step(policy(observation))
    env.close()
