"""How near gradient steps come to the machine's matrix products: `python -m benchmarks.arithmetic`.

Each algorithm's gradient step, with the default networks and minibatches on HalfCheetah-v5's spaces, repeated in one
compiled program as training does it. Its floating-point operations are XLA's own count for one step (`cost_analysis`);
the limit is what a product of two 1024 x 1024 matrices in float32 reaches in the same process, the two taking turns.
Appends a line to benchmarks/results/arithmetic.jsonl and brings benchmarks/RESULTS.md up to date.
"""

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import numpy as np

from benchmarks import report
from benchmarks.speed import commit, machine

ROUNDS = 7
STEPS = 100  # gradient steps in one call
SIZE, PRODUCTS = 1024, 20  # of the matrices, and how many products in one call
LEAST_SHARE = 0.6  # of the limit, which we want
ALGORITHMS = ("sac", "td3", "ddpg")


def seconds(call: Callable[[], Any]) -> float:
    """How long a compiled call takes."""
    import jax

    began = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - began


def matrix_products() -> tuple[float, Callable[[], Any]]:
    """(floating-point operations, the call): products one after the other, none of which can be left out."""
    import jax

    a, b = jax.random.normal(jax.random.key(0), (2, SIZE, SIZE))
    program = jax.jit(lambda a, b: jax.lax.fori_loop(0, PRODUCTS, lambda _, x: (x @ b) / SIZE**0.5, a))
    return PRODUCTS * 2.0 * SIZE**3, lambda: program(a, b)


def gradient_steps(name: str) -> tuple[float, Callable[[], Any]]:
    """(floating-point operations, the call): so many gradient steps of an algorithm, per environment step of each."""
    import jax
    import jax.numpy as jnp

    from parnassus import envs, training
    from parnassus.collect import collector_for
    from parnassus.off_policy import improve, remember
    from parnassus.presets import algorithm_class
    from parnassus.types import Transition

    made = envs.make("HalfCheetah-v5", 1)
    algorithm = training.arrays(algorithm_class(name)(replay_size=10_000))
    spec = collector_for(made, 1).spec
    made.close()
    rng = np.random.default_rng(0)
    (width,), (actions,) = spec.observation_space.shape, spec.action_space.shape
    draw = lambda *shape: jnp.asarray(rng.normal(size=(5_000, 1, *shape)), jnp.float32)  # noqa: E731
    never = jnp.zeros((5_000, 1), bool)
    steps = Transition(draw(width), jnp.tanh(draw(actions)), draw(), draw(width), never, never, {})
    learner = remember(algorithm.init(jax.random.key(0), spec), steps, 0.99)
    several = getattr(algorithm, "policy_delay", 1)  # critics' steps in one gradient step of TD3
    keys = jax.random.split(jax.random.key(1), 2)

    def learn(learner: Any, key: Any) -> Any:
        return improve(learner, algorithm.gradient_step, key, STEPS // several, jnp.array(True))[0]._replace(
            replay=None
        )

    def count(call: Callable, *arguments: Any) -> float:
        return jax.jit(call).lower(*arguments).compile().cost_analysis()["flops"]

    slim, replay = learner._replace(replay=None), learner.replay
    operations = count(algorithm.gradient_step, slim, replay, keys[0])
    if several > 1:  # XLA counts the body of a loop once
        operations += (several - 1) * count(
            algorithm.update_critics, slim, replay.sample(keys[0], algorithm.minibatch_size), keys[0]
        )
    program = jax.jit(learn)
    return STEPS * operations / several, lambda: program(learner, keys[1])


def measure() -> list[dict]:
    """A row for each algorithm: its operations, and the shares of the limit that it reached, one for each round."""
    import jax

    jax.config.update("jax_cpu_enable_async_dispatch", False)
    limit_operations, products = matrix_products()
    jobs = {name: gradient_steps(name) for name in ALGORITHMS}
    for call in (products, *(call for _, call in jobs.values())):
        seconds(call)  # compile
    rows: dict[str, dict] = {
        name: {"algorithm": name, "mflop": operations / STEPS / 1e6, "ms": [], "gflops": [], "limit": []}
        for name, (operations, _) in jobs.items()
    }
    for _ in range(ROUNDS):
        for name, (operations, call) in jobs.items():
            before, taken, after = seconds(products), seconds(call), seconds(products)
            rows[name]["ms"].append(1e3 * taken / STEPS)
            rows[name]["gflops"].append(operations / taken / 1e9)
            rows[name]["limit"].append(2 * limit_operations / (before + after) / 1e9)
    return list(rows.values())


def main() -> None:
    """Measure, keep and show."""
    record = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "command": "python -m benchmarks.arithmetic",
        "machine": machine(),
        "least": LEAST_SHARE,
        "rows": measure(),
    }
    with report.ARITHMETIC.open("a") as file:
        file.write(json.dumps(record) + "\n")
    print(report.arithmetic_table([record]))
    report.write()


if __name__ == "__main__":
    main()
