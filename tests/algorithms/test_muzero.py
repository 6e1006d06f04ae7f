"""MuZero: numbers as distributions, what is known of steps in a row, the targets, the loss against a loop in Python."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

from parnassus.algorithms import muzero
from parnassus.algorithms.muzero import Moment, MuZero
from parnassus.planning.mcts import PUCT, Gumbel
from parnassus.returns import n_step_returns
from parnassus.types import BadInput, Spec, Transition

TINY = MuZero(
    search=PUCT(num_simulations=4),
    num_steps=6,
    num_updates=1,
    minibatch_size=8,
    replay_size=24,
    learning_starts=1_000,
    discount=0.9,
    n=3,
    num_unrolled=2,
    num_samples=3,
    support_size=4,
    value_coefficient=0.25,
    state_size=4,
    hidden_sizes=(8,),
)
SPEC = Spec(spaces.Box(-1, 1, (3,), np.float32), spaces.Discrete(2), 2)
REAL = Spec(SPEC.observation_space, spaces.Box(-2, 2, (1,), np.float32), 2)


def h(x: Any) -> Any:
    return np.sign(x) * (np.sqrt(np.abs(x) + 1) - 1) + 0.001 * x


def test_a_number_is_the_expectation_of_its_distribution() -> None:
    x = jnp.array([-30.0, -1.0, 0.0, 0.3, 5.0, 100.0])
    weights = muzero.two_hot(x, 41)
    np.testing.assert_allclose(weights.sum(-1), 1.0, rtol=1e-6)
    assert ((weights > 0).sum(-1) <= 2).all()
    np.testing.assert_allclose(weights @ np.arange(-20.0, 21.0), h(np.asarray(x)), atol=1e-5)
    np.testing.assert_allclose(muzero.expectation(jnp.log(weights + 1e-30)), x, rtol=1e-3, atol=1e-3)


def test_what_is_known_of_steps_in_a_row() -> None:
    """Four sequences of four steps: one that goes on, one that is over, one that is cut, one cut and then over."""
    terminated = jnp.array([[0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1]], bool).T
    ended = jnp.array([[0, 0, 0, 0], [0, 1, 0, 1], [0, 1, 0, 0], [1, 0, 0, 1]], bool).T
    happened, absorbing = muzero.what_is_known(terminated, ended)
    assert happened.T.astype(int).tolist() == [[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 0, 0], [1, 0, 0, 0]]
    assert absorbing.T.astype(int).tolist() == [[0, 0, 0, 0], [0, 0, 1, 1], [0, 0, 0, 0], [0, 0, 0, 0]]


def stirred(learner: Any) -> Any:
    """With values and rewards that are not 0 everywhere, as those of a fresh model are."""
    draw = np.random.default_rng(1)
    model = jax.tree.map(lambda x: x + 0.3 * jnp.float32(draw.normal(size=x.shape)), learner.model)
    return learner._replace(model=model, target=jax.tree.map(lambda x: 0.9 * x, model))


def trajectory() -> Transition:
    """Six steps of two environments, with what the searches would say."""
    draw = np.random.default_rng(0)
    numbers = lambda *shape: jnp.asarray(draw.normal(size=shape), jnp.float32)  # noqa: E731
    flags = lambda *rows: jnp.array(rows, bool).T  # noqa: E731
    weights = jax.nn.softmax(numbers(6, 2, 2))
    extras = {
        "actions": jnp.tile(jnp.arange(2, dtype=jnp.int32), (6, 2, 1)),
        "weights": weights,
        "value": numbers(6, 2),
    }
    action = jnp.asarray(draw.integers(0, 2, (6, 2)), jnp.int32)
    terminated, truncated = flags([0, 0, 1, 0, 0, 0], [0] * 6), flags([0] * 6, [0, 1, 0, 0, 0, 0])
    return Transition(numbers(6, 2, 3), action, numbers(6, 2), numbers(6, 2, 3), terminated, truncated, extras)


def test_targets_are_bootstrapped_at_cuts_from_the_true_successor() -> None:
    """By the target model, at a time limit and at the trajectory's end; a terminal state is worth nothing."""
    learner, steps = stirred(TINY.init(jax.random.key(0), SPEC)), trajectory()
    after, _ = jax.jit(TINY.learn)(learner, steps, jax.random.key(1))
    stored = jax.tree.map(lambda x: x[:12].reshape(6, 2, *x.shape[1:]), after.replay.storage)
    z = stored.rewards + stored.discount * TINY.value(learner.target, learner.encoder, stored.successor)
    next_value = TINY.value(learner.target, learner.encoder, steps.next_observation)
    assert float(jnp.abs(next_value).max()) > 0.1
    wanted = n_step_returns(steps.reward, next_value, steps.terminated, steps.truncated, 0.9, 3)
    np.testing.assert_allclose(z, wanted, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(stored.ended, np.array([[0, 0, 1, 0, 0, 1], [0, 1, 0, 0, 0, 1]], bool).T)
    np.testing.assert_array_equal(stored.observation, steps.observation)


def loss_by_hand(learner: Any, rows: Moment, z: jax.Array, starts: list[int]) -> float:
    """Equation 1, one sequence and one step at a time; `rows` are [T, N, ...]."""
    representation, dynamics, prediction = learner.model
    total = 0.0
    for start in starts:
        t, i = divmod(start, 2)
        state = representation(learner.encoder(rows.observation[t, i][None]))
        over = cut = False
        for k in range(TINY.num_unrolled + 1):
            policy, value = prediction(state)
            here = (t + k, i)
            row = jax.tree.map(lambda x, here=here: x[here], rows) if not (over or cut) else None
            action = row.action if row else jnp.int32(0)
            state, reward = dynamics(state, jax.nn.one_hot(action, 2)[None])
            if cut:
                continue
            told = lambda x, logits: -float((muzero.two_hot(x[None], 9) * jax.nn.log_softmax(logits)).sum())  # noqa: E731
            if row:
                total -= float((row.weights * jax.nn.log_softmax(policy.logits)[0]).sum())
            total += 0.25 * told(z[here] if row else jnp.zeros(()), value)
            total += told(row.reward if row else jnp.zeros(()), reward)
            if row:
                over, cut = bool(row.terminated), bool(row.ended and not row.terminated)
    return total / (len(starts) * (TINY.num_unrolled + 1))


def test_the_loss_against_a_loop() -> None:
    """Actions after the end are whatever the replay holds there: nothing that is learned may depend on them, but
    what the absorbing state's rewards are predicted from. Here both are action 0."""
    learner = stirred(TINY.init(jax.random.key(0), SPEC))
    steps = trajectory()
    steps = steps._replace(action=steps.action.at[3:, 0].set(0))
    filled, _ = jax.jit(TINY.learn)(learner, steps, jax.random.key(1))
    rows = jax.tree.map(lambda x: x[:12].reshape(6, 2, *x.shape[1:]), filled.replay.storage)
    starts = [0, 1, 2, 3, 4, 5, 6, 7]
    window = jnp.array(starts)[None] + 2 * jnp.arange(3)[:, None]
    sequences = jax.tree.map(lambda x: x[window], filled.replay.storage)
    z = jnp.asarray(np.random.default_rng(2).normal(size=24), jnp.float32)
    loss, metrics = jax.jit(TINY.loss)(learner.model, learner.encoder, sequences, z[window])
    assert float(loss) == pytest.approx(loss_by_hand(learner, rows, z[:12].reshape(6, 2), starts), rel=1e-4)
    assert {"loss/policy", "loss/value", "loss/reward"} == metrics.keys()


def test_reanalyzing_learns_from_the_model_of_now() -> None:
    """A model that is sure of action 1, and a replay in which action 0 was found: what is learned is what it says."""
    algorithm = MuZero(**{**vars(TINY), "search": Gumbel(num_simulations=4), "reanalyze": True})
    learner = TINY.init(jax.random.key(0), SPEC)
    sure = jax.tree.map(lambda x: jnp.array([0.0, 9.0]) if x.shape == (2,) else x, learner.model)
    moments = jax.jit(TINY.learn)(learner, trajectory(), jax.random.key(1))[0].replay.storage
    sequences = jax.tree.map(lambda x: x[:12].reshape(3, 4, *x.shape[1:]), moments)
    sequences = sequences._replace(weights=jnp.zeros((3, 4, 2)).at[..., 0].set(1.0))
    anew = jax.jit(algorithm.reanalyzed)(learner._replace(model=sure), sequences, jax.random.key(2))
    assert float(anew.weights[..., 1].min()) > 0.9
    np.testing.assert_array_equal(anew.reward, sequences.reward)
    np.testing.assert_array_equal(anew.actions, sequences.actions)


@pytest.mark.parametrize("search", [PUCT(num_simulations=4), Gumbel(num_simulations=4)], ids=["puct", "gumbel"])
def test_real_actions(search: Any) -> None:
    """Chosen among those that the policy drew at the root, which are kept with their weights."""
    algorithm = MuZero(**{**vars(TINY), "search": search})
    learner = algorithm.init(jax.random.key(0), REAL)
    act = jax.jit(lambda key: algorithm.act(algorithm.behavior(learner), (), jnp.ones((2, 3)), key, True))
    action, memory, extras = act(jax.random.key(1))
    assert action.shape == (2, 1) and extras["actions"].shape == (2, 3, 1) and memory == ()
    assert (action[:, None] == extras["actions"]).any(1).all() and float(jnp.abs(action).max()) <= 1.0
    assert learner.replay.storage.actions.shape == (24, 3, 1)


def test_what_it_cannot_act_in() -> None:
    with pytest.raises(BadInput, match="tree search needs Discrete or Box actions, not MultiDiscrete"):
        TINY.init(jax.random.key(0), Spec(SPEC.observation_space, spaces.MultiDiscrete([2, 2]), 2))
