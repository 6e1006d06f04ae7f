"""The recurrent state-space model: its loss by the definition, where episodes start, and what it remembers of a world
that it sees in part."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from gymnasium import spaces

from parnassus.types import BadInput, Spec, Transition
from parnassus.world_models.recurrent import RecurrentModel, State

SPEC = Spec(spaces.Box(-2.0, 2.0, (2,), np.float32), spaces.Box(-3.0, 3.0, (1,), np.float32), 1)
STDS = 0.5, 0.25  # of observations and of rewards


def tiny(spec=SPEC, **options):
    return RecurrentModel.create(jax.random.key(0), spec, 6, 3, (5,), **options)


def segment(key, length, batch=2, ends=()):
    """Random numbers; terminations after the steps `ends`."""
    keys = jax.random.split(key, 4)
    terminated = jnp.zeros((length, batch), bool).at[jnp.array(ends, jnp.int32)].set(True)
    return Transition(
        jax.random.normal(keys[0], (length, batch, 2)),
        jax.random.uniform(keys[1], (length, batch, 1), minval=-1.0),
        jax.random.normal(keys[2], (length, batch)),
        jax.random.normal(keys[3], (length, batch, 2)),
        terminated,
        jnp.zeros((length, batch), bool),
        {},
    )


def by_hand(model, data, noise, free_nats):
    """One environment's losses, step after step, as the definition has them; summed over the steps."""
    networks, totals = model.networks, {"observation": 0.0, "reward": 0.0, "ending": 0.0, "kl": 0.0}

    def see(h, seen, noise):
        prior, posterior = networks.prior(h), networks.posterior(h, networks.embedding(model.encoder(seen)))
        s, t = np.exp(posterior.log_std), np.exp(prior.log_std)
        kl = (np.log(t / s) + (s**2 + (posterior.mean - prior.mean) ** 2) / (2 * t**2) - 0.5).sum()
        state = State(h, posterior.mean + s * noise)
        totals["observation"] += ((model.decode(state) - model.encoder(seen)) ** 2).sum() / (2 * STDS[0] ** 2)
        totals["kl"] += max(kl, free_nats)
        return state

    is_start = True
    for t in range(len(data.reward)):
        if is_start:
            h = networks.recurrence(State(jnp.zeros(6), jnp.zeros(3)), jnp.zeros(1))
            state = see(h, data.observation[t, 0], noise[t, 0])
        h = networks.recurrence(state, data.action[t, 0])
        state = see(h, data.next_observation[t, 0], noise[t + 1, 0])
        totals["reward"] += (networks.reward(state.features)[0] - data.reward[t, 0]) ** 2 / (2 * STDS[1] ** 2)
        over = jax.nn.sigmoid(networks.ending(state.features)[0])
        totals["ending"] -= np.log(over if data.terminated[t, 0] else 1 - over)
        is_start = data.terminated[t, 0]
    return totals


@pytest.mark.parametrize("free_nats", [0.0, 3.0, 1e3])
def test_the_loss_is_the_definition(free_nats):
    """Also where an episode ends inside the segment; between these limits some divergences count, and some do not."""
    model, data = tiny(normalize=False), segment(jax.random.key(1), 4, 1, ends=[1])
    noise = jax.random.normal(jax.random.key(2), (5, 1, 3))
    total, metrics = jax.jit(RecurrentModel.loss)(model, data, noise, *STDS, free_nats)
    wanted = by_hand(model, data, noise, free_nats)
    for name, x in wanted.items():
        assert metrics[f"loss/{name}"] == pytest.approx(float(x) / 4, rel=1e-4), name
    assert total == pytest.approx(float(sum(wanted.values())) / 4, rel=1e-4)
    if free_nats == 1e3:
        assert metrics["loss/kl"] == 1e3 * (4 + 2) / 4  # four steps and two starts


def test_free_nats_are_free():
    """No gradient where the divergence is below; above, it is the divergence's own."""
    model, data = tiny(), segment(jax.random.key(1), 3)
    noise = jax.random.normal(jax.random.key(2), (4, 2, 3))

    @jax.jit
    def prior_gradient(free_nats):
        loss = lambda networks: dataclasses.replace(model, networks=networks).loss(data, noise, *STDS, free_nats)[0]  # noqa: E731
        return optax.tree.norm(jax.grad(loss)(model.networks).prior)

    assert prior_gradient(1e3) == 0.0
    assert prior_gradient(0.0) > 0.1


def test_two_episodes_in_a_segment_are_two_segments():
    """The second knows nothing of the first, however that one ended."""
    model, noise = tiny(), jax.random.normal(jax.random.key(2), (6, 2, 3))
    loss = jax.jit(lambda data, noise: model.loss(data, noise, *STDS, 0.1)[1])
    first, second = segment(jax.random.key(3), 3, ends=[2]), segment(jax.random.key(4), 2)
    for cut_short in (False, True):
        if cut_short:
            first = first._replace(terminated=first.truncated, truncated=first.terminated)
        together = loss(jax.tree.map(lambda *x: jnp.concatenate(x), first, second), noise)
        apart = loss(first, noise[:4]), loss(second, noise[3:])
        for name, x in together.items():
            assert 5 * x == pytest.approx(float(3 * apart[0][name] + 2 * apart[1][name]), rel=1e-4), name
    unbroken = loss(
        jax.tree.map(lambda *x: jnp.concatenate(x), first._replace(truncated=first.terminated), second), noise
    )
    assert abs(unbroken["loss/model"] - together["loss/model"]) > 0.1  # so that the test could fail


def test_as_a_simulator():
    """Actions are the policy's own; the reward is in the world's units; the end is where it is likelier than not."""
    data = segment(jax.random.key(5), 50)
    model = tiny().update_statistics(data._replace(reward=100.0 + 10.0 * data.reward))
    state = State(*(0.1 * jnp.ones(x.shape) for x in model.nowhere()))
    step = jax.jit(RecurrentModel.step)
    after = step(model, state, jnp.array([0.5]), jax.random.key(6))
    assert model.action_space == spaces.Box(-1.0, 1.0, (1,), np.float32)
    np.testing.assert_array_equal(after.observation, np.concatenate(after.state))
    by_network = model.networks.reward(after.observation)[0] * jnp.std(10.0 * data.reward) + 100.0
    assert after.reward == pytest.approx(float(by_network), abs=3.0)  # the mean of 100 rewards is not quite 100
    assert bool(after.terminated) == bool(model.networks.ending(after.observation)[0] > 0.0) and not after.truncated
    beyond = [step(model, state, jnp.array([x]), jax.random.key(6)).observation for x in (1.0, 7.0)]
    np.testing.assert_array_equal(*beyond)
    draws = jax.vmap(lambda key: model.step(state, jnp.array([0.5]), key).state)(
        jax.random.split(jax.random.key(7), 4000)
    )
    prior = model.networks.prior(draws.deterministic[0])
    np.testing.assert_allclose(draws.stochastic.mean(0), prior.mean, atol=0.06)
    np.testing.assert_allclose(draws.stochastic.std(0), np.exp(prior.log_std), rtol=0.06)


def oscillator(key, length, batch):
    """A mass on a spring, pushed at random; its position alone is shown. Also the velocities at each t, [T, B]."""
    start_key, push_key = jax.random.split(key)
    x, v = jax.random.normal(start_key, (2, batch))
    pushes = jax.random.uniform(push_key, (length, batch), minval=-1.0)

    def step(state, push):
        x, v = state
        v_after = v + 0.3 * (3.0 * push - x)
        x_after = x + 0.3 * v_after
        return (x_after, v_after), (x, v, x_after)

    _, (x, v, x_after) = jax.lax.scan(step, (x, v), pushes)
    never = jnp.zeros((length, batch), bool)
    return Transition(x[..., None], pushes[..., None], -(x_after**2), x_after[..., None], never, never, {}), v


@pytest.fixture(scope="module")
def learned():
    """A model of the oscillator, from segments of 12 steps."""
    spec = Spec(spaces.Box(-9.0, 9.0, (1,), np.float32), SPEC.action_space, 1)
    model = RecurrentModel.create(jax.random.key(0), spec, 32, 4, (32,))
    data, _ = oscillator(jax.random.key(1), 12, 512)
    model = model.update_statistics(data)
    optimizer = optax.adam(4e-3)

    @jax.jit
    def fit(model, key):
        def gradient_step(carry, key):
            networks, state = carry
            row_key, noise_key = jax.random.split(key)
            rows = jax.random.randint(row_key, (32,), 0, 512)
            batch = jax.tree.map(lambda x: x[:, rows], data)
            noise = jax.random.normal(noise_key, (13, 32, 4))
            loss = lambda networks: dataclasses.replace(model, networks=networks).loss(batch, noise, 0.1, 0.1, 1.0)[0]  # noqa: E731
            updates, state = optimizer.update(jax.grad(loss)(networks), state)
            return (optax.apply_updates(networks, updates), state), None

        start = model.networks, optimizer.init(model.networks)
        (networks, _), _ = jax.lax.scan(gradient_step, start, jax.random.split(key, 500))
        return dataclasses.replace(model, networks=networks)

    return fit(model, jax.random.key(2))


def filtered(model, data, key):
    """The states after each observation, [T, B]."""

    def step(carry, inputs):
        state, action = carry
        observation, following, key = inputs
        state = model.observe(state, action, observation, key)
        return (state, model.encode(following)), state

    start = model.nowhere(data.reward.shape[1]), jnp.zeros_like(data.action[0])
    return jax.lax.scan(step, start, (data.observation, data.action, jax.random.split(key, len(data.reward))))[1]


@pytest.mark.reuses_keys
def test_it_carries_what_is_not_shown(learned):
    """The velocity is a linear function of the filter's state, once two positions were seen; not of the position."""
    data, velocity = oscillator(jax.random.key(3), 12, 256)
    states = jax.jit(filtered)(learned, data, jax.random.key(4))

    def explained(features):
        x = np.concatenate([features, np.ones_like(features[:, :1])], axis=-1)
        y = np.asarray(velocity[-1])
        fit, _, _, _ = np.linalg.lstsq(x[:128], y[:128])
        return 1.0 - ((x[128:] @ fit - y[128:]) ** 2).mean() / y[128:].var()

    assert explained(np.asarray(data.observation[-1])) < 0.5
    assert explained(np.asarray(states.features[-1])) > 0.9


@pytest.mark.reuses_keys
def test_it_foretells_without_seeing(learned):
    """Five steps on, from what six observations left in the state: positions and rewards."""
    data, _ = oscillator(jax.random.key(5), 11, 256)
    states = jax.jit(filtered)(learned, data, jax.random.key(6))

    @jax.jit
    def imagine(model, state, actions):
        def step(state, inputs):
            action, key = inputs
            after = jax.vmap(model.step)(state, action, jax.random.split(key, 256))
            return after.state, (model.decode(after.state), after.reward)

        keys = jax.random.split(jax.random.key(7), len(actions))
        return jax.lax.scan(step, state, (actions, keys))[1]

    positions, rewards = imagine(learned, jax.tree.map(lambda x: x[5], states), data.action[5:10])
    wanted = learned.encoder(data.next_observation[5:10])  # of standard deviation 1
    assert ((positions - wanted) ** 2).mean() < 0.1
    assert ((rewards - data.reward[5:10]) ** 2).mean() / data.reward.var() < 0.25
    shuffled = jnp.roll(data.action[5:10], 1, axis=1)  # so that the test could fail: what is done matters
    assert ((imagine(learned, jax.tree.map(lambda x: x[5], states), shuffled)[0] - wanted) ** 2).mean() > 0.3


def test_images_and_vectors_together():
    """Images as uint8; a batch of [T, B] through the convolution, and drawn again."""
    space = spaces.Dict(
        {"camera": spaces.Box(0, 255, (10, 10, 4), np.uint8), "speed": spaces.Box(-1.0, 1.0, (2,), np.float32)}
    )
    model = tiny(Spec(space, spaces.Discrete(3), 1))
    keys = jax.random.split(jax.random.key(1), 2)
    seen = {
        "camera": jax.random.randint(keys[0], (4, 2, 10, 10, 4), 0, 256).astype(jnp.uint8),
        "speed": jax.random.normal(keys[1], (4, 2, 2)),
    }
    never = jnp.zeros((3, 2), bool)
    before, after = (jax.tree.map(lambda x, s=s: x[s], seen) for s in (slice(3), slice(1, 4)))
    data = Transition(before, jnp.ones((3, 2), jnp.int32), jnp.zeros((3, 2)), after, never, never, {})
    total, metrics = jax.jit(RecurrentModel.loss)(model, data, jnp.zeros((4, 2, 3)), 1.0, 1.0, 0.0)
    assert jnp.isfinite(total)
    # Nothing is drawn yet: the mean squared brightness of 400 even numbers in [0, 1], and of two normal ones.
    assert metrics["loss/observation"] == pytest.approx((1 + 1 / 3) * (400 / 3 + 2) / 2, rel=0.25)
    state = model.observe(model.nowhere(2), jnp.zeros((2, 3)), jax.tree.map(lambda x: x[0], seen), jax.random.key(2))
    assert model.decode(state).shape == (2, 10 * 10 * 4 + 2)
    other = {**jax.tree.map(lambda x: x[0], seen), "camera": seen["camera"][1]}
    elsewhere = model.observe(model.nowhere(2), jnp.zeros((2, 3)), other, jax.random.key(2))
    assert not np.allclose(state.stochastic, elsewhere.stochastic)


@pytest.mark.parametrize(
    ("observations", "actions", "message"),
    [
        (spaces.Text(3), SPEC.action_space, "no network here can read observations"),
        (SPEC.observation_space, spaces.MultiDiscrete([2, 2]), "knows Discrete and Box actions, not MultiDiscrete"),
    ],
)
def test_what_it_cannot_learn(observations, actions, message):
    with pytest.raises(BadInput, match=message):
        tiny(Spec(observations, actions, 1))
