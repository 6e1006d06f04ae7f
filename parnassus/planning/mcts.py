"""Monte Carlo tree search with a policy and a value to guide it, through the package mctx (the extra `search`).

    the tree <- the root, with its actions, their prior and its value
    repeat num_simulations times, in each of B trees
        go down from the root, by the statistics of each node, until an action leads out of the tree
        ask the model: reward, discount, and the node that the action leads to; add that node to the tree
        go up: correct the values and count the visits of the nodes on the way
    act by the visits of the root's actions, or by the values found

`PUCT` is the search of AlphaZero and MuZero (Silver et al. 2018; Schrittwieser et al. 2020, appendix B), `Gumbel` that
of Gumbel MuZero (Danihelka et al. 2022). A node brings its own actions: all of them where they are discrete; where they
are real, some that its prior drew, which the search then takes for equally likely (Hubert et al. 2021, section 4).
Where chance plays a part, a tree knows one outcome of each action: the one that was drawn when it was first taken.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import gymnasium
import jax
import jax.numpy as jnp
from gymnasium import spaces
from jaxtyping import Array, Float, Int, Num

from parnassus.distributions import Categorical, Distribution
from parnassus.rollout import env_action
from parnassus.types import BadInput, Count, Env, Fraction, Key, NonNegative, Tree, pytree


class Node(NamedTuple):
    """What is known of a state when the search first comes to it; of a batch of roots, leaves [B, ...]."""

    state: Tree  # from which the model goes on
    actions: Num[Array, "..."]  # [*batch, A, *a]: what is chosen from, as a policy draws it
    logits: Float[Array, "*batch A"]  # of their prior
    value: Float[Array, "*batch"]  # what is to come, discounted


class Found(NamedTuple):
    """What a search found at its B roots."""

    action: Num[Array, "B *a"]  # to act by, as a policy draws it
    weights: Float[Array, "B A"]  # of the root's actions: what a policy should learn
    value: Float[Array, "B"]  # of the root: the mean of what all simulations found
    visits: Float[Array, "B A"]  # of the root's actions
    q: Float[Array, "B A"]  # of the root's actions, where there were visits

    @property
    def improved_value(self) -> Float[Array, "B"]:
        """Of the root, where one acts there by the weights: without what was only tried."""
        return (self.weights * jnp.where(self.visits > 0, self.q, self.value[:, None])).sum(-1)


# (state, action, key) -> (reward, discount, node): one step of one state. The discount is that of the node's value: 0
# where the episode is over.
Model = Callable[[Tree, Num[Array, "*a"], Key], tuple[Float[Array, ""], Float[Array, ""], Node]]
# (observation, key) -> (actions, logits, value): what a policy and a value function say of one observation.
Guide = Callable[[Tree, Key], tuple[Num[Array, "A *a"], Float[Array, "A"], Float[Array, ""]]]


@pytree
class PUCT:
    """Upper confidence bounds weighted by the prior; a root's prior is mixed with Dirichlet noise where it explores.

    score(a) = q(a) + P(a) sqrt(visits) / (1 + visits(a)) (c_1 + log((visits + c_2 + 1) / c_2)), with q scaled to [0, 1]
    among the actions of a node (Schrittwieser et al. 2020, equations 2 and 5).
    """

    num_simulations: Count = 50
    dirichlet_fraction: Fraction = 0.25  # of the noise in the root's prior
    dirichlet_alpha: NonNegative = 0.3  # the smaller, the fewer actions are favoured
    pb_c_init: NonNegative = 1.25  # c_1
    pb_c_base: NonNegative = 19_652.0  # c_2
    temperature: NonNegative = 1.0  # actions are drawn in proportion to visits^(1 / temperature)

    def __call__(self, root: Node, model: Model, key: Key, explore: bool) -> Found:
        """Where it does not explore: no noise, and the most visited action. Raises BadInput without mctx."""
        policy = partial(
            _mctx().muzero_policy,
            dirichlet_fraction=self.dirichlet_fraction if explore else 0.0,
            dirichlet_alpha=self.dirichlet_alpha,
            pb_c_init=self.pb_c_init,
            pb_c_base=self.pb_c_base,
            temperature=self.temperature if explore else 0.0,
        )
        return _search(policy, root, model, self.num_simulations, key)


@pytree
class Gumbel:
    """Draws actions without replacement, halves their number by what they turn out to be worth, and keeps the best.

    An improvement of the prior however few the simulations: weights = softmax(logits + sigma(q)), where q of an action
    without a visit is a mean of the values that are known, and sigma(q) = (c_visit + the most visits) c_scale q
    (Danihelka et al. 2022, sections 3 and 4, appendix D).
    """

    num_simulations: Count = 16
    num_considered: Count = 16  # actions that are drawn at the root
    value_scale: NonNegative = 0.1  # c_scale
    visit_offset: NonNegative = 50.0  # c_visit
    rescale: bool = True  # q to [0, 1] among the actions of a node
    mixed_value: bool = True  # for actions without a visit; else the value that the root came with

    def __call__(self, root: Node, model: Model, key: Key, explore: bool) -> Found:
        """Where it does not explore, the likeliest actions are considered. Raises BadInput without mctx."""
        mctx = _mctx()
        policy = partial(
            mctx.gumbel_muzero_policy,
            max_num_considered_actions=self.num_considered,
            gumbel_scale=1.0 if explore else 0.0,
            qtransform=partial(
                mctx.qtransform_completed_by_mix_value,
                value_scale=self.value_scale,
                maxvisit_init=self.visit_offset,
                rescale_values=self.rescale,
                use_mixed_value=self.mixed_value,
            ),
        )
        return _search(policy, root, model, self.num_simulations, key)


def environment_model(env: Env, guide: Guide, discount: float | Array) -> Model:
    """A JAX environment as the model of a search, the true one or a learned one. Its time limit is ignored."""

    def model(state: Tree, action: Num[Array, "*a"], key: Key) -> tuple[Array, Array, Node]:
        step_key, guide_key = jax.random.split(key)
        after = env.step(state, env_action(env.action_space, action), step_key)
        node = Node(after.state, *guide(after.observation, guide_key))
        return after.reward.astype(jnp.float32), discount * (1.0 - after.terminated), node

    return model


def candidates(
    distribution: Distribution, key: Key, num_samples: int
) -> tuple[Num[Array, "..."], Float[Array, "*batch A"]]:
    """The actions to choose from, [*batch, A, *a], and the logits of their prior, of a policy's distribution.

    All of a Categorical's; of another's `num_samples` draws, with repetition, each as likely as any other.
    """
    if isinstance(distribution, Categorical):
        logits = distribution.logits
        return jnp.broadcast_to(jnp.arange(logits.shape[-1], dtype=jnp.int32), logits.shape), logits
    draws = jax.vmap(distribution.sample)(jax.random.split(key, num_samples))
    batch = distribution.entropy().ndim
    return jnp.moveaxis(draws, 0, batch), jnp.zeros((*draws.shape[1 : 1 + batch], num_samples))


def log_probs(distribution: Distribution, actions: Num[Array, "B A *a"]) -> Float[Array, "B A"]:
    """log pi of each of a node's actions: what a policy that learns from a search's weights needs."""
    return jnp.moveaxis(jax.vmap(distribution.log_prob)(jnp.moveaxis(actions, 1, 0)), 0, 1)


def check(action_space: gymnasium.Space) -> None:
    """Raises BadInput for a space that no search here can plan in."""
    if not isinstance(action_space, spaces.Discrete | spaces.Box):
        raise BadInput(f"tree search needs Discrete or Box actions, not {action_space}")


def _search(policy: Callable, root: Node, model: Model, num_simulations: int, key: Key) -> Found:
    """What mctx finds, in our words: its embedding is a state with its actions, and its actions are their indices."""
    mctx = _mctx()
    num_roots = len(root.value)

    def step(_: Any, raw_key: Array, index: Int[Array, "B"], embedding: tuple[Tree, Array]) -> tuple:
        state, actions = embedding
        action = jax.vmap(lambda actions, i: actions[i])(actions, index)
        keys = jax.random.split(jax.random.wrap_key_data(raw_key), num_roots)
        reward, discount, node = jax.vmap(model)(state, action, keys)
        output = mctx.RecurrentFnOutput(reward=reward, discount=discount, prior_logits=node.logits, value=node.value)
        return output, (node.state, node.actions)

    embedding = root.state, root.actions
    output = policy(
        params=(),
        rng_key=jax.random.key_data(key),  # raw, as mctx has them
        root=mctx.RootFnOutput(prior_logits=root.logits, value=root.value, embedding=embedding),
        recurrent_fn=step,
        num_simulations=num_simulations,
    )
    summary = output.search_tree.summary()
    action = jax.vmap(lambda actions, i: actions[i])(root.actions, output.action)
    return Found(action, output.action_weights, summary.value, summary.visit_counts, summary.qvalues)


def _mctx() -> Any:
    """The package. Raises BadInput where it is not installed."""
    try:
        import mctx
    except ImportError as error:
        raise BadInput("tree search needs the package mctx: pip install 'parnassus[search]'") from error
    return mctx
