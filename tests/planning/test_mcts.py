"""Tree search: the numbers of mctx's own trees by our wrapper, policy improvement, dynamic programming, samples."""

import builtins
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

from parnassus.distributions import Categorical, parameterize
from parnassus.dynamic_programming import value_iteration
from parnassus.envs.mdp import MDPState
from parnassus.envs.textbook import grid_world_4x4
from parnassus.planning import mcts
from parnassus.planning.mcts import PUCT, Gumbel, Node
from parnassus.types import BadInput, Key

# Of the trees that mctx keeps to test itself (`tests/test_data`): how they are searched, the root's value and the
# visits of its actions.
GOLDEN = {
    "muzero_qtransform": (
        PUCT(num_simulations=50, dirichlet_fraction=0.0),
        (18, 0.997, 1.0),
        2.9902523,
        {7: 2, 14: 48},
    ),
    "gumbel_muzero_reward": (
        Gumbel(num_simulations=50, num_considered=8, visit_offset=20.0, rescale=False),
        (18, 0.997, 1.0),
        0.6375123,
        {1: 15, 5: 6, 7: 2, 8: 2, 10: 15, 12: 2, 14: 2, 17: 6},
    ),
    "gumbel_muzero": (
        Gumbel(num_simulations=200, num_considered=16, value_scale=0.5, rescale=False),
        (82, -1.0, 0.0),
        0.0535755,
        {
            2: 21,
            5: 49,
            11: 3,
            14: 49,
            15: 3,
            17: 9,
            19: 3,
            27: 3,
            33: 9,
            37: 3,
            38: 3,
            56: 3,
            59: 9,
            63: 3,
            65: 9,
            75: 21,
        },
    ),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_trees(name: str) -> None:
    """A state is a raw key, from which its prior, its value and the reward for coming there are drawn."""
    search, (num_actions, discount, reward_scale), value, visits = GOLDEN[name]

    def say(state: jax.Array) -> tuple[Node, jax.Array]:
        keys = jax.random.split(jax.random.wrap_key_data(state), 3)
        worth, reward = (jax.random.uniform(key, (), minval=-1.0, maxval=1.0) for key in keys[1:])
        logits = jax.random.normal(keys[0], (num_actions,))
        return Node(state, jnp.arange(num_actions), logits, worth), reward_scale * reward

    def model(state: jax.Array, action: jax.Array, key: Key) -> tuple[jax.Array, jax.Array, Node]:
        after = jax.random.key_data(jax.random.split(jax.random.wrap_key_data(state), num_actions))[action]
        node, reward = say(after)
        return reward, jnp.float32(discount), node

    with jax.threefry_partitionable(False):
        root, _ = say(jax.random.key_data(jax.random.key(0)))
        roots = jax.tree.map(lambda x: x[None], root)
        found = jax.jit(lambda key: search(roots, model, key, isinstance(search, PUCT)))(jax.random.key(1))
    assert found.value[0] == pytest.approx(value, abs=1e-3)
    assert {int(a): int(found.visits[0, a]) for a in np.flatnonzero(found.visits[0])} == visits
    assert found.weights.sum() == pytest.approx(1.0, abs=1e-5)


def test_four_simulations_improve_on_82_actions() -> None:
    """256 bandits, as in mctx's demonstration: neither the action nor the weights may be worse than the prior."""
    logits_key, q_key, search_key = jax.random.split(jax.random.key(42), 3)
    logits, q = jax.random.normal(logits_key, (256, 82)), jax.random.uniform(q_key, (256, 82))
    prior_value = (jax.nn.softmax(logits) * q).sum(-1)
    state = (jnp.arange(256), jnp.zeros(256, bool))

    def model(state: tuple, action: jax.Array, key: Key) -> tuple[jax.Array, jax.Array, Node]:
        number, pulled = state
        node = Node((number, jnp.array(True)), jnp.arange(82), jnp.zeros(82), jnp.zeros(()))
        return jnp.where(pulled, 0.0, q[number, action]), jnp.ones(()), node

    root = Node(state, jnp.broadcast_to(jnp.arange(82), (256, 82)), logits, prior_value)
    search = Gumbel(num_simulations=4, mixed_value=False)
    found = jax.jit(lambda key: search(root, model, key, True))(search_key)
    chosen = q[jnp.arange(256), found.action]
    assert ((found.weights * q).sum(-1) - prior_value).min() >= -1e-6
    assert chosen.mean() > prior_value.mean() + 0.1


GAMMA = 0.9


def search_everywhere(search: Any, num_simulations: int) -> tuple:
    """At the 14 states of example 4.1 that are no ends, knowing nothing: a uniform prior, and values of 0."""
    mdp = grid_world_4x4()
    best = value_iteration(mdp, GAMMA)
    guide = lambda observation, key: (jnp.arange(4), jnp.zeros(4), jnp.zeros(()))  # noqa: E731
    model = mcts.environment_model(dataclasses.replace(mdp, max_steps=1), guide, GAMMA)  # a time limit is no end
    inside = jnp.arange(1, 15, dtype=jnp.int32)
    root = Node(
        MDPState(inside, jnp.zeros(14, jnp.int32)), jnp.tile(jnp.arange(4), (14, 1)), jnp.zeros((14, 4)), jnp.zeros(14)
    )
    search = dataclasses.replace(search, num_simulations=num_simulations)
    found = jax.jit(lambda key: search(root, model, key, False))(jax.random.key(0))
    value = found.value if isinstance(search, PUCT) else found.improved_value
    error = np.abs(value - best.v[inside]).max()
    regret = (best.v - best.q[jnp.arange(16), best.actions.at[inside].set(found.action)]).max()
    return error, regret


def test_it_comes_to_dynamic_programming() -> None:
    """Value and action, by simulations alone."""
    (early, _), (late, regret) = (search_everywhere(PUCT(), n) for n in (30, 500))
    assert late < 0.06 and late < 0.25 * early  # of values down to -2.7
    assert regret < 1e-5


def test_gumbel_comes_to_dynamic_programming() -> None:
    """By the values of its improved policy: the mean over all that it considered stays below the best."""
    error, regret = search_everywhere(Gumbel(), 500)
    assert error < 0.05 and regret < 1e-5


def test_real_actions_are_drawn_by_the_prior_of_each_node() -> None:
    """One step that pays for being near a place: the best of the draws is found, at each root of its own."""
    head = parameterize(spaces.Box(-1, 1, (2,), np.float32))

    def guide(state: jax.Array, key: Key) -> tuple:
        distribution = head.build(jnp.zeros(2), jnp.full(2, -0.5))
        return *mcts.candidates(distribution, key, 12), jnp.zeros(())

    def model(state: jax.Array, action: jax.Array, key: Key) -> tuple:
        return -((action - 0.5) ** 2).sum(), jnp.zeros(()), Node(state + 1, *guide(state, key))

    keys = jax.random.split(jax.random.key(0), 5)
    state = jnp.zeros(5)
    root = Node(state, *jax.jit(jax.vmap(guide))(state, keys))
    found = jax.jit(lambda key: Gumbel(num_simulations=48)(root, model, key, False))(jax.random.key(1))
    nearest = ((root.actions - 0.5) ** 2).sum(-1)
    chosen = ((found.action - 0.5) ** 2).sum(-1)
    assert root.actions.shape == (5, 12, 2) and len(np.unique(root.actions)) == 5 * 12 * 2
    np.testing.assert_allclose(chosen, nearest.min(-1), atol=1e-6)


def test_candidates_and_their_log_probabilities() -> None:
    logits = jax.random.normal(jax.random.key(0), (4, 3))
    actions, prior = mcts.candidates(Categorical(logits), jax.random.key(1), 7)
    np.testing.assert_array_equal(prior, logits)
    np.testing.assert_allclose(mcts.log_probs(Categorical(logits), actions), jax.nn.log_softmax(logits), rtol=1e-5)
    gaussian = parameterize(spaces.Box(-1, 1, (2,), np.float32)).build(jnp.zeros((4, 2)), jnp.zeros(2))
    actions, prior = jax.jit(lambda key: mcts.candidates(gaussian, key, 7))(jax.random.key(1))
    assert actions.shape == (4, 7, 2) and not prior.any()
    log_prob = jax.jit(mcts.log_probs)(gaussian, actions)
    np.testing.assert_allclose(log_prob, -(actions**2).sum(-1) / 2 - np.log(2 * np.pi), rtol=1e-4)


def test_what_it_cannot_plan_in() -> None:
    with pytest.raises(BadInput, match="tree search needs Discrete or Box actions, not MultiDiscrete"):
        mcts.check(spaces.MultiDiscrete([2, 2]))


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def importing(name: str, *rest: Any, **more: Any) -> Any:
        if name == "mctx":
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", importing)
    root = Node(jnp.zeros(1), jnp.zeros((1, 2), int), jnp.zeros((1, 2)), jnp.zeros(1))
    with pytest.raises(BadInput, match=r"pip install 'parnassus\[search\]'"):
        PUCT()(root, lambda *_: None, jax.random.key(0), False)
