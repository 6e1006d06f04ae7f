"""Planners: what they reach, what a policy keeps of it, and how fast they are: `python -m benchmarks.planning`.

The cross-entropy method in true models, where nothing is learned; a policy that it is distilled into, in return and in
the cost of acting; planning in a learned ensemble beside the machine's matrix products; and sixteen environments in
one program beside one after the other. Appends a line to benchmarks/results/planning.jsonl and brings
benchmarks/RESULTS.md up to date.
"""

from collections.abc import Callable
from typing import Any

from benchmarks.arithmetic import matrix_products, seconds
from benchmarks.measurements import best_of, main, row

ENVS = 16  # side by side
ROUNDS = 7


def true_models() -> list[dict]:
    """Returns of MPC, with PlaNet's search on the swing-up (Hafner et al. 2019: 850) and our preset on Pendulum."""
    rows = []
    for env, episodes, least in (("jax:CartPoleSwingUp", 10, 800.0), ("jax:Pendulum-v1", 256, -150.0)):
        algorithm, simulator = planning_in(env, "mpc")
        mean = evaluation(algorithm, (), simulator, episodes).mean
        rows.append(row(f"MPC in {env}: return, {episodes} episodes", mean, "", least=least))
    return rows


def distillation() -> list[dict]:
    """The student's return and cost beside its teacher's, from the same first states."""
    import jax

    from parnassus import training
    from parnassus.collect import ScanCollector
    from parnassus.types import Spec

    rows = []
    for env, episodes in (("jax:Pendulum-v1", 256),):
        algorithm, simulator = planning_in(env, "distillation")
        steps = 50_000
        state = training.init(algorithm, ScanCollector(simulator, ENVS), jax.random.key(0), steps)
        for chunk in training.train(algorithm, ScanCollector(simulator, ENVS), state, steps):  # noqa: B007
            pass
        behavior = algorithm.behavior(chunk.state.learner)
        student = evaluation(algorithm, behavior, simulator, episodes).mean
        teacher = evaluation(algorithm.teacher, (), simulator, episodes).mean

        spec = Spec(simulator.observation_space, simulator.action_space, ENVS)
        observation = jax.vmap(simulator.reset)(jax.random.split(jax.random.key(1), ENVS))[1]
        cost = {}
        for name, actor, acts_by in (("student", algorithm, behavior), ("teacher", algorithm.teacher, ())):
            act = jax.jit(actor.act, static_argnums=4)
            arguments = acts_by, actor.initial_memory(spec), observation, jax.random.key(2), False
            seconds(lambda: act(*arguments))  # noqa: B023 (compile)
            cost[name] = best_of(lambda: jax.block_until_ready(act(*arguments)), 20)  # noqa: B023
        rows += [
            row(f"{env}: the teacher's return (MPC)", teacher, ""),
            row(f"{env}: the student's, after {steps:,} steps", student, "", least=teacher - 0.05 * abs(teacher)),
            row(
                f"the teacher's time to act / the student's, {ENVS} environments",
                cost["teacher"] / cost["student"],
                "",
                least=100.0,
            ),
        ]
    return rows


def ensemble() -> list[dict]:
    """Plans of 1,000 sequences of 25 actions, five iterations, in five networks of three layers of 200.

    Counted are the products of the networks alone: activations, noise and the search itself come on top.
    """
    import jax

    from parnassus import envs
    from parnassus.planning.cem import CEM
    from parnassus.types import Spec
    from parnassus.world_models.ensemble import Ensemble

    jax.config.update("jax_cpu_enable_async_dispatch", False)
    env = envs.make("jax:ContinuousCartPole")
    spec = Spec(env.observation_space, env.action_space, 1)
    model = Ensemble(num_members=5, hidden_sizes=(200, 200, 200)).create(jax.random.key(0), spec)
    planner = CEM(horizon=25, candidates=1_000, iterations=5, elites=100)
    state, memory = env.reset(jax.random.key(1))[1], planner.initial_memory(env.action_space, 1)[0]
    program = jax.jit(planner)
    plan = lambda: program(model.members, state, memory, jax.random.key(2))  # noqa: E731
    kernels = [x for x in jax.tree.leaves(model.members.network) if x.ndim == 3]  # [E, in, out]
    operations = 2.0 * sum(x.size for x in kernels) * 1_000 * 25 * 5
    limit_operations, products = matrix_products()
    for call in (plan, products):
        seconds(call)  # compile
    shares, times = [], []
    for _ in range(ROUNDS):
        before, taken, after = seconds(products), seconds(plan), seconds(products)
        times.append(taken)
        shares.append(operations / taken / (2 * limit_operations / (before + after)))
    return [
        row("CEM in an ensemble, 1,000 x 25 x 5 on five networks of 3 x 200: a plan", median(times), "s"),
        row("the same: its products", operations / median(times) / 1e9, "GFLOP/s"),
        row("the same: share of a 1024 x 1024 product's rate", median(shares), "", least=0.6),
    ]


def side_by_side() -> list[dict]:
    """Plans for sixteen environments: in one call, and in sixteen."""
    import jax

    from parnassus import envs
    from parnassus.planning.cem import CEM
    from parnassus.planning.sequences import alone

    jax.config.update("jax_cpu_enable_async_dispatch", False)
    rows = []
    for candidates in (16, 64, 256):
        planner, env = CEM(horizon=15, candidates=candidates, iterations=3, elites=8), envs.make("jax:Pendulum-v1")
        state, _ = jax.vmap(env.reset)(jax.random.split(jax.random.key(0), ENVS))
        memory = planner.initial_memory(env.action_space, ENVS)
        keys, models = jax.random.split(jax.random.key(1), ENVS), alone(env)
        one = jax.jit(lambda state, memory, key: planner(models, state, memory, key))  # noqa: B023
        all_at_once = jax.jit(jax.vmap(lambda state, memory, key: planner(models, state, memory, key)))  # noqa: B023
        each = [jax.tree.map(lambda x: x[i], (state, memory, keys)) for i in range(ENVS)]  # noqa: B023
        ratio = one_by_one_over_together(one, each, all_at_once, (state, memory, keys))
        what = f"plans for {ENVS} Pendulums, {candidates} sequences: one by one / in one program"
        rows.append(row(what, ratio, "", least=5.0))
    act, each, arguments = searches("muzero", "jax:CartPole-v1")
    ratio = one_by_one_over_together(act, each, act, arguments)
    what = f"MuZero's searches for {ENVS} CartPoles, 16 simulations: one by one / in one program"
    return [*rows, row(what, ratio, "", least=5.0)]


def searches(name: str, env: str) -> tuple[Callable, list[tuple], tuple]:
    """An algorithm's `act`, its arguments for each of sixteen environments alone, and those for all of them."""
    import jax

    from parnassus.types import Spec

    algorithm, simulator = planning_in(env, name)
    spec = Spec(simulator.observation_space, simulator.action_space, ENVS)
    behavior = algorithm.behavior(algorithm.init(jax.random.key(0), spec))
    observation = jax.vmap(simulator.reset)(jax.random.split(jax.random.key(1), ENVS))[1]
    memory, key = algorithm.initial_memory(spec), jax.random.key(2)
    act = jax.jit(lambda memory, observation, key: algorithm.act(behavior, memory, observation, key, True))
    each = [(*jax.tree.map(lambda x: x[i : i + 1], (memory, observation)), key) for i in range(ENVS)]  # noqa: B023
    return act, each, (memory, observation, key)


def one_by_one_over_together(one: Callable, each: list[tuple], together: Callable, all_of_them: tuple) -> float:
    """How many times longer the calls for each take than the one for all: the median of rounds."""
    import jax

    def one_by_one() -> None:
        for arguments in each:
            jax.block_until_ready(one(*arguments))

    all_at_once = lambda: jax.block_until_ready(together(*all_of_them))  # noqa: E731
    one_by_one(), all_at_once()  # compile
    return median([best_of(one_by_one, 3) / best_of(all_at_once, 3) for _ in range(ROUNDS)])


def planning_in(env: str, name: str) -> tuple[Any, Any]:
    """The preset of an algorithm that plans in that environment, as training would fill it in; and the simulator."""
    from parnassus import envs, training
    from parnassus.presets import preset
    from parnassus.simulator import Simulator, informed

    simulator = Simulator(envs.make(env))
    return training.arrays(informed(preset(name, env)[0], simulator)), simulator


def evaluation(algorithm: Any, behavior: Any, env: Any, episodes: int) -> Any:
    """Full episodes without exploration."""
    from parnassus.evaluation import evaluate

    return evaluate(algorithm, behavior, env, episodes, seed=10_000)


def median(values: list[float]) -> float:
    """The middle one of an odd number."""
    return sorted(values)[len(values) // 2]


PARTS = {
    "true-models": true_models,
    "distillation": distillation,
    "ensemble": ensemble,
    "side-by-side": side_by_side,
}

if __name__ == "__main__":
    main("planning", __doc__, PARTS)
