"""Distributions over actions: what a policy returns.

Each is a pytree of the numbers that a network produced, over any leading batch dimensions; its methods reduce the event
(one action) and keep the batch. `parameterize` maps a Gymnasium action space to the distribution that suits it.

    head = parameterize(space)
    outputs = nn.Dense(head.num_outputs)(features)
    log_std = self.param("log_std", zeros, (head.num_outputs,)) if head.needs_log_std else None
    distribution = head.build(outputs, log_std)
    action, log_prob = distribution.sample_and_log_prob(key)
"""

import dataclasses
import math
from typing import Any, NamedTuple, Protocol, runtime_checkable

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Num

from parnassus.types import BadInput, Key, pytree

Action = Num[Array, "..."]  # [*batch, *event]: the batch, then the shape of one action

_HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)


@runtime_checkable
class Distribution(Protocol):
    """A batch of distributions over actions; `*batch` are the leading dimensions."""

    def sample(self, key: Key) -> Action:
        """One draw for each element of the batch. The key is consumed."""

    def sample_and_log_prob(self, key: Key) -> tuple[Action, Float[Array, "*batch"]]:
        """A draw and its log-probability, at least as accurate as `log_prob(sample(key))`. The key is consumed."""

    def mode(self) -> Action:
        """The action to take when not exploring."""

    def log_prob(self, action: Action) -> Float[Array, "*batch"]:
        """Natural logarithm of the probability (discrete) or the density (continuous) of `action`."""

    def entropy(self) -> Float[Array, "*batch"]:
        """-E[log p(a)], in nats."""

    def kl(self, other: Any) -> Float[Array, "*batch"]:
        """KL(self || other) = E_self[log self(a) - log other(a)], in nats, for a distribution of the same kind."""


@pytree
class Categorical:
    """One of n actions, with probabilities softmax(logits). A logit of -inf forbids its action; one must be finite."""

    logits: Float[Array, "*batch n"]

    def sample(self, key: Key) -> Int[Array, "*batch"]:
        return jax.random.categorical(key, self.logits).astype(jnp.int32)

    def sample_and_log_prob(self, key: Key) -> tuple[Int[Array, "*batch"], Float[Array, "*batch"]]:
        action = self.sample(key)
        return action, self.log_prob(action)

    def mode(self) -> Int[Array, "*batch"]:
        return jnp.argmax(self.logits, axis=-1).astype(jnp.int32)

    def log_prob(self, action: Int[Array, "*batch"]) -> Float[Array, "*batch"]:
        # A one-hot sum and its gradient are one fused kernel each; a gather's gradient is a slow scatter.
        # `where` and not a product, because 0 * -inf is NaN.
        taken = jax.nn.one_hot(action, self.logits.shape[-1], dtype=bool)
        return jnp.where(taken, jax.nn.log_softmax(self.logits), 0.0).sum(-1)

    def entropy(self) -> Float[Array, "*batch"]:
        log_p = jax.nn.log_softmax(self.logits)
        p = jnp.exp(log_p)
        return -(p * jnp.where(p > 0, log_p, 0.0)).sum(-1)  # 0 log 0 = 0

    def kl(self, other: "Categorical") -> Float[Array, "*batch"]:
        log_p, log_q = jax.nn.log_softmax(self.logits), jax.nn.log_softmax(other.logits)
        p = jnp.exp(log_p)
        return (p * jnp.where(p > 0, log_p - log_q, 0.0)).sum(-1)  # infinite if `other` forbids what self may do


@pytree
class MultiCategorical:
    """m independent choices, the i-th among sizes[i] actions; the logits of all choices lie side by side."""

    logits: Float[Array, "*batch total"]  # total = sum(sizes)
    sizes: tuple[int, ...]

    @property
    def choices(self) -> Categorical:
        """The choices as one batch [*batch, m] of Categoricals, the shorter ones padded with forbidden actions.

        So the number of kernels does not grow with m.
        """
        longest, batch = max(self.sizes), self.logits.shape[:-1]
        if min(self.sizes) == longest:
            return Categorical(self.logits.reshape(*batch, len(self.sizes), longest))
        pieces = jnp.split(self.logits, np.cumsum(self.sizes)[:-1].tolist(), axis=-1)
        unpadded = [(0, 0)] * len(batch)
        padded = [jnp.pad(x, [*unpadded, (0, longest - x.shape[-1])], constant_values=-jnp.inf) for x in pieces]
        return Categorical(jnp.stack(padded, axis=-2))

    def sample(self, key: Key) -> Int[Array, "*batch m"]:
        return self.choices.sample(key)

    def sample_and_log_prob(self, key: Key) -> tuple[Int[Array, "*batch m"], Float[Array, "*batch"]]:
        action = self.sample(key)
        return action, self.log_prob(action)

    def mode(self) -> Int[Array, "*batch m"]:
        return self.choices.mode()

    def log_prob(self, action: Int[Array, "*batch m"]) -> Float[Array, "*batch"]:
        return self.choices.log_prob(action).sum(-1)

    def entropy(self) -> Float[Array, "*batch"]:
        return self.choices.entropy().sum(-1)

    def kl(self, other: "MultiCategorical") -> Float[Array, "*batch"]:
        return self.choices.kl(other.choices).sum(-1)


@pytree
class Bernoulli:
    """n independent bits (int32, 0 or 1); bit i is 1 with probability sigmoid(logits[i]). Logits are finite."""

    logits: Float[Array, "*batch n"]

    def sample(self, key: Key) -> Int[Array, "*batch n"]:
        return jax.random.bernoulli(key, jax.nn.sigmoid(self.logits)).astype(jnp.int32)

    def sample_and_log_prob(self, key: Key) -> tuple[Int[Array, "*batch n"], Float[Array, "*batch"]]:
        action = self.sample(key)
        return action, self.log_prob(action)

    def mode(self) -> Int[Array, "*batch n"]:
        return (self.logits > 0).astype(jnp.int32)

    def log_prob(self, action: Int[Array, "*batch n"]) -> Float[Array, "*batch"]:
        # P(0) = 1 - sigmoid(l) = sigmoid(-l)
        return jax.nn.log_sigmoid(jnp.where(action == 1, self.logits, -self.logits)).sum(-1)

    def entropy(self) -> Float[Array, "*batch"]:
        # H = softplus(l) - l sigmoid(l) is even in l; written for -|l| nothing cancels.
        rarer = -jnp.abs(self.logits)
        return (jax.nn.softplus(rarer) - rarer * jax.nn.sigmoid(rarer)).sum(-1)

    def kl(self, other: "Bernoulli") -> Float[Array, "*batch"]:
        # With log p = l - softplus(l) and log(1 - p) = -softplus(l).
        p = jax.nn.sigmoid(self.logits)
        return (p * (self.logits - other.logits) + jax.nn.softplus(other.logits) - jax.nn.softplus(self.logits)).sum(-1)


@pytree
class DiagonalGaussian:
    """n independent normal variables. `log_std` may be [n], one for all states, or depend on the state like `mean`."""

    mean: Float[Array, "*batch n"]
    log_std: Float[Array, "*#batch n"]

    @property
    def _full_log_std(self) -> Float[Array, "*batch n"]:
        return jnp.broadcast_to(self.log_std, self.mean.shape)

    def sample(self, key: Key) -> Float[Array, "*batch n"]:
        noise = jax.random.normal(key, self.mean.shape, self.mean.dtype)
        return self.mean + jnp.exp(self._full_log_std) * noise

    def sample_and_log_prob(self, key: Key) -> tuple[Float[Array, "*batch n"], Float[Array, "*batch"]]:
        action = self.sample(key)
        return action, self.log_prob(action)

    def mode(self) -> Float[Array, "*batch n"]:
        return self.mean

    def log_prob(self, action: Float[Array, "*batch n"]) -> Float[Array, "*batch"]:
        z = (action - self.mean) * jnp.exp(-self._full_log_std)
        return -(0.5 * z**2 + self._full_log_std + _HALF_LOG_TWO_PI).sum(-1)

    def entropy(self) -> Float[Array, "*batch"]:
        return (self._full_log_std + (_HALF_LOG_TWO_PI + 0.5)).sum(-1)

    def kl(self, other: "DiagonalGaussian") -> Float[Array, "*batch"]:
        log_ratio = self._full_log_std - other._full_log_std
        z = (self.mean - other.mean) * jnp.exp(-other._full_log_std)
        return (0.5 * (jnp.exp(2 * log_ratio) + z**2 - 1) - log_ratio).sum(-1)


@pytree
class SquashedGaussian:
    """a = tanh(x), x ~ N(mean, exp(log_std)^2): n independent actions in [-1, 1] (Haarnoja et al. 2018, appendix C).

    log p(a) = log N(x) - sum_i log(1 - tanh(x_i)^2) by the change of variables.
    """

    mean: Float[Array, "*batch n"]  # of x
    log_std: Float[Array, "*#batch n"]  # of x; [n] or like mean

    @property
    def base(self) -> DiagonalGaussian:
        """The distribution of x."""
        return DiagonalGaussian(self.mean, self.log_std)

    def sample(self, key: Key) -> Float[Array, "*batch n"]:
        return jnp.tanh(self.base.sample(key))

    def sample_and_log_prob(self, key: Key) -> tuple[Float[Array, "*batch n"], Float[Array, "*batch"]]:
        """Exact and with exact gradients however far the tanh saturates, because x is known."""
        x, log_prob = self.base.sample_and_log_prob(key)
        return jnp.tanh(x), log_prob + 2 * _log_cosh(x).sum(-1)

    def mode(self) -> Float[Array, "*batch n"]:
        """tanh(mean): the median, where the density itself may peak at the border."""
        return jnp.tanh(self.mean)

    def log_prob(self, action: Float[Array, "*batch n"]) -> Float[Array, "*batch"]:
        """Finite for every action, with finite gradients.

        tanh rounds to exactly 1 beyond x = 9.01 (float32), so x = arctanh(a) is lost there: the action is clipped to
        the largest number below 1, which stands for x = 8.66. `sample_and_log_prob` does not need this.
        """
        limit = 1.0 - float(jnp.finfo(action.dtype).epsneg)
        x = jnp.arctanh(jnp.clip(action, -limit, limit))
        return self.base.log_prob(x) + 2 * _log_cosh(x).sum(-1)

    def entropy(self) -> Float[Array, "*batch"]:
        """H(a) = H(x) + E[sum_i log(1 - tanh(x_i)^2)], the expectation to 1e-5 (`_expected_log_cosh`)."""
        std = jnp.exp(self.base._full_log_std)
        return self.base.entropy() - 2 * _expected_log_cosh(self.mean, std).sum(-1)

    def kl(self, other: "SquashedGaussian") -> Float[Array, "*batch"]:
        """That of the Gaussians: a bijection leaves the divergence unchanged."""
        return self.base.kl(other.base)


def _log_cosh(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """log cosh(x) = -1/2 log(1 - tanh(x)^2), without overflow or cancellation at large |x|."""
    return x + jax.nn.softplus(-2 * x) - math.log(2)


def _expected_abs(mean: Float[Array, "*shape"], std: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """E|x| for x ~ N(mean, std^2): the mean of the folded normal distribution."""
    z = mean / std
    return std * math.sqrt(2 / math.pi) * jnp.exp(-0.5 * z**2) + mean * jax.lax.erf(z / math.sqrt(2))


# (weight, standard deviation) of normal variables whose mixture is close to the density sech(e)^2 / 2.
_SECH_SQUARED = ((0.146200, 0.509163), (0.500467, 0.756872), (0.316130, 1.120486), (0.037203, 1.647373))


def _expected_log_cosh(mean: Float[Array, "*shape"], std: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """E[log cosh(x)] for x ~ N(mean, std^2), within 4e-6 (plus rounding) for every mean and std.

    log cosh(x) = E|x + e| - log 2 exactly, where e has the density sech(e)^2 / 2 (a logistic): both sides have the
    second derivative sech(x)^2 and the limit |x| - log 2. That density is a scale mixture of normals, and four of them
    nearly make it (Monahan and Stefanski 1992; here fitted to the largest error of log cosh). So x + e is a mixture of
    normals too, whose E|x + e| is known. Gauss-Hermite quadrature with 32 nodes errs by 0.04 at std = 4.5.
    """
    variance = std**2
    expectation = jnp.full_like(mean, -math.log(2))
    for weight, scale in _SECH_SQUARED:
        expectation += weight * _expected_abs(mean, jnp.sqrt(variance + scale**2))
    return expectation


@pytree
class Reshaped:
    """Actions of shape `event_shape` from a distribution over their flat form [*batch, n]."""

    flat: Distribution
    event_shape: tuple[int, ...]

    def _shaped(self, action: Num[Array, "*batch n"]) -> Action:
        return action.reshape(*action.shape[:-1], *self.event_shape)

    def sample(self, key: Key) -> Action:
        return self._shaped(self.flat.sample(key))

    def sample_and_log_prob(self, key: Key) -> tuple[Action, Float[Array, "*batch"]]:
        action, log_prob = self.flat.sample_and_log_prob(key)
        return self._shaped(action), log_prob

    def mode(self) -> Action:
        return self._shaped(self.flat.mode())

    def log_prob(self, action: Action) -> Float[Array, "*batch"]:
        batch = action.shape[: action.ndim - len(self.event_shape)]
        return self.flat.log_prob(action.reshape(*batch, math.prod(self.event_shape)))

    def entropy(self) -> Float[Array, "*batch"]:
        return self.flat.entropy()

    def kl(self, other: "Reshaped") -> Float[Array, "*batch"]:
        return self.flat.kl(other.flat)


def spread(distribution: Distribution, *batch: int) -> Distribution:
    """The same distributions with every leaf [*batch, n], a shared `log_std` too: to be shuffled, cut and stacked."""
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (*batch, x.shape[-1])), distribution)


class Parameterization(NamedTuple):
    """How a network's outputs become a distribution over the actions of one space; a value with `==` and a hash, so
    that a network holding it is the same network in the next run."""

    num_outputs: int  # k: logits, or the means of a Box's n numbers
    kind: type  # of the distribution
    sizes: tuple[int, ...] = ()  # of a MultiCategorical's choices
    event_shape: tuple[int, ...] | None = None  # of an action, if it is not what `kind` draws

    @property
    def needs_log_std(self) -> bool:
        """The space is a Box: `build` also takes log standard deviations, [k] or [*batch, k]."""
        return self.kind in (DiagonalGaussian, SquashedGaussian)

    def build(
        self, outputs: Float[Array, "*batch k"], log_std: Float[Array, "*#batch k"] | None = None
    ) -> Distribution:
        """The distributions that a network's outputs stand for."""
        arguments = [x for x in (log_std, self.sizes or None) if x is not None]
        distribution = self.kind(outputs, *arguments)
        return distribution if self.event_shape is None else Reshaped(distribution, self.event_shape)


def parameterize(space: gymnasium.Space, squash: bool = False) -> Parameterization:
    """What a policy network must put out for `space`, and the distribution made of it.

    Discrete, MultiDiscrete and MultiBinary take logits, a Box takes means and log standard deviations; `squash` keeps a
    Box's actions in [-1, 1]. Actions have the space's shape (counted from 0 in a Discrete space, whatever its `start`).
    Raises BadInput for any other space, and for `squash` where the space is not a Box.
    """
    shape = tuple(space.shape or ())
    event_shape = None if len(shape) == 1 else shape
    match space:
        case gymnasium.spaces.Box():
            kind = SquashedGaussian if squash else DiagonalGaussian
            return Parameterization(math.prod(shape), kind, event_shape=event_shape)
        case _ if squash:
            raise BadInput(f"only the actions of a Box can be squashed, not those of {space}")
        case gymnasium.spaces.Discrete():
            return Parameterization(int(space.n), Categorical)
        case gymnasium.spaces.MultiDiscrete():
            sizes = tuple(space.nvec.flatten().tolist())
            return Parameterization(sum(sizes), MultiCategorical, sizes, event_shape)
        case gymnasium.spaces.MultiBinary():
            return Parameterization(math.prod(shape), Bernoulli, event_shape=event_shape)
    raise BadInput(f"actions must be Discrete, MultiDiscrete, MultiBinary or Box, not {space}")


def temper(distribution: Distribution, temperature: float | Array) -> Distribution:
    """p^(1 / temperature), normalised: above 1 it explores more, below 1 less; the mode stays where it is.

    Logits are divided by the temperature, a normal variable's variance is multiplied by it. Raises BadInput for a
    SquashedGaussian, whose power has no such form.
    """
    match distribution:
        case Reshaped():
            return dataclasses.replace(distribution, flat=temper(distribution.flat, temperature))
        case DiagonalGaussian():
            return dataclasses.replace(distribution, log_std=distribution.log_std + 0.5 * jnp.log(temperature))
        case Categorical() | MultiCategorical() | Bernoulli():
            return dataclasses.replace(distribution, logits=distribution.logits / temperature)
    raise BadInput(f"a {type(distribution).__name__} has no temperature")
