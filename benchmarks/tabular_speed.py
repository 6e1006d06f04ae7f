"""How fast tables are: `python -m benchmarks.tabular_speed`.

Value iteration on a random MDP of 10,000 states, 8 actions and 16 successors, beside the same sweeps in NumPy and
beside what reading the tables once takes; Q-learning on CliffWalking, 256 seeds in one program, beside a Python loop
over Gymnasium's; a million states. Appends a line to benchmarks/results/tabular_speed.jsonl and brings
benchmarks/RESULTS.md up to date. Each part runs in a process of its own.
"""

import resource
import time

import numpy as np

from benchmarks.measurements import REPEATS, best_of, main, row

STATES, ACTIONS, SUCCESSORS = 10_000, 8, 16
DISCOUNT, TOLERANCE = 0.99, 1e-2
SEEDS, STEPS = 256, 40_000  # of Q-learning; steps of each seed


def random_tables(states: int, actions: int, successors: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """next_state, probability and reward, [S, A, K]."""
    rng = np.random.default_rng(0)
    shape = (states, actions, successors)
    weight = rng.exponential(size=shape)
    return rng.integers(0, states, shape), weight / weight.sum(-1, keepdims=True), rng.normal(size=shape)


def value_iteration() -> list[dict]:
    """Until the values are within the tolerance."""
    import jax

    from parnassus import dynamic_programming as dp
    from parnassus.envs.mdp import FiniteMDP

    tables = random_tables(STATES, ACTIONS, SUCCESSORS)
    next_state, probability, reward = tables
    mdp = FiniteMDP.create(*tables, np.zeros(reward.shape, bool), np.ones(STATES) / STATES)
    solve = lambda: jax.block_until_ready(dp.value_iteration(mdp, DISCOUNT, tolerance=TOLERANCE))  # noqa: E731
    sweeps = solve().iterations
    ours = best_of(solve)

    successor, weight = next_state.astype(np.int32), (DISCOUNT * probability).astype(np.float32)
    expected = (probability * reward).sum(-1).astype(np.float32)

    def in_numpy() -> np.ndarray:
        v = np.zeros(STATES, np.float32)
        for _ in range(sweeps):
            v = (expected + np.einsum("sak,sak->sa", weight, v[successor])).max(-1)
        return v

    theirs = best_of(in_numpy, 2)
    assert np.abs(in_numpy() - np.asarray(solve().v)).max() < 1e-3
    table_bytes = weight.nbytes + successor.nbytes + expected.nbytes
    large = np.ones(2**25, np.float32)  # larger than any cache
    reading = sweeps * table_bytes * best_of(large.sum) / large.nbytes  # seconds
    return [
        row(f"value iteration, {STATES:,} states: {sweeps} sweeps", ours, "s"),
        row("the same in NumPy", theirs, "s"),
        row("NumPy's time / ours", theirs / ours, "", least=20.0),
        row("ours / the time NumPy needs to read as much memory", ours / reading, "", 2.0),
    ]


def control() -> list[dict]:
    """Steps per second of Q-learning, its table updated after each."""
    import gymnasium
    import jax

    from parnassus import configuration, training
    from parnassus.algorithms.q_learning import QLearning
    from parnassus.collect import ScanCollector
    from parnassus.envs.mdp import FiniteMDP

    configuration.configure(several_seeds=True)
    collector = ScanCollector(FiniteMDP.from_gymnasium("CliffWalking-v1"), 1)
    algorithm = QLearning(0.5, discount=1.0, epsilon=0.1)
    state = training.init(algorithm, collector, jax.random.split(jax.random.key(0), SEEDS), STEPS * (REPEATS + 1))
    times = [time.perf_counter()]
    for _ in training.train(algorithm, collector, state, STEPS * (REPEATS + 1), chunk_iterations=STEPS):
        times.append(time.perf_counter())
    ours = SEEDS * STEPS / float(np.diff(times)[1:].min())  # the first chunk is compiled

    def loop(steps: int = 20_000) -> None:
        env, rng, q = gymnasium.make("CliffWalking-v1"), np.random.default_rng(0), np.zeros((48, 4))
        s, _ = env.reset(seed=0)
        for _ in range(steps):
            best = np.flatnonzero(q[s] == q[s].max())
            a = int(rng.integers(4)) if rng.random() < 0.1 else int(best[rng.integers(len(best))])
            after, r, terminated, truncated, _ = env.step(a)
            q[s, a] += 0.5 * (float(r) + (not terminated) * q[after].max() - q[s, a])
            s = env.reset()[0] if terminated or truncated else after

    theirs = 20_000 / best_of(loop, 2)
    return [
        row(f"Q-learning on CliffWalking, {SEEDS} seeds in one program", ours, "steps/s", least=2e6),
        row("a Python loop over Gymnasium's", theirs, "steps/s"),
        row("ours / the loop's", ours / theirs, "", least=50.0),
    ]


def a_million_states() -> list[dict]:
    """Four actions with four successors each."""
    from parnassus import dynamic_programming as dp
    from parnassus.envs.mdp import FiniteMDP

    states = 1_000_000
    next_state, probability, reward = random_tables(states, 4, 4)
    never = np.zeros(reward.shape, bool)
    mdp = FiniteMDP.create(next_state, probability, reward, never, np.full(states, 1 / states))
    began = time.perf_counter()
    solution = dp.generalized_policy_iteration(mdp, DISCOUNT, 10, tolerance=TOLERANCE)
    seconds = time.perf_counter() - began
    assert solution.converged and solution.bound < 1.0
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return [
        row("a million states, 16 million outcomes: policy iteration, ten sweeps each", seconds, "s"),
        row("a million states: peak memory, the tables' making included", memory, "GiB", 4.0),
    ]


PARTS = {"value-iteration": value_iteration, "control": control, "a-million-states": a_million_states}

if __name__ == "__main__":
    main("tabular_speed", __doc__, PARTS)
