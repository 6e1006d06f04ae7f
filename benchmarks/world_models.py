"""How good learned models are: `python -m benchmarks.world_models`.

An ensemble is fitted to random steps of Pendulum, of one whose speed is shaken by noise, and of CartPole. It is asked
about others: what share of what came lies in its central intervals of 10% to 90%, as they are and as they are after
recalibration on steps that neither saw, and how far its imagination is from the truth after 1 to 20 steps, beside
somebody who always says the mean. Inverse models are asked which action was taken. Appends a line to
benchmarks/results/world_models.jsonl, brings benchmarks/RESULTS.md up to date and draws docs/images/world-model.png.
"""

from typing import Any

import numpy as np

from benchmarks.measurements import main, row
from benchmarks.speed import ROOT

STEPS = 20_000  # to learn from
HELD_OUT = 4_000  # steps
HORIZON = 20
PICTURE = ROOT / "docs" / "images" / "world-model.png"


def worlds() -> dict[str, Any]:
    """What is learned, by name. The noise is what a torque of 1.3 N m does in a step."""
    import jax

    from parnassus import envs
    from parnassus.envs.classic import Pendulum, PendulumState
    from parnassus.types import Key, Step, pytree

    @pytree
    class ShakenPendulum(Pendulum):
        noise: float = 0.2  # rad/s in a step

        def step(self, state: PendulumState, action: Any, key: Key) -> Step:
            """Pendulum's, and then the speed changes by chance."""
            after = Pendulum.step(self, state, action, key)
            shaken = after.state._replace(theta_dot=after.state.theta_dot + self.noise * jax.random.normal(key))
            return after._replace(state=shaken, observation=after.observation.at[2].set(shaken.theta_dot))

    return {
        "jax:Pendulum-v1": envs.make("jax:Pendulum-v1"),
        "Pendulum, shaken": ShakenPendulum(),
        "jax:ContinuousCartPole": envs.make("jax:ContinuousCartPole"),
    }


def trajectories(env: Any, steps: int, seed: int) -> Any:
    """Random actions in ten environments, leaves [T, 10, ...]."""
    import jax

    from parnassus.planning.sequences import draw
    from parnassus.rollout import reset, rollout

    reset_key, key = jax.random.split(jax.random.key(seed))
    act = lambda memory, observation, key: (draw(env.action_space, key, (10,)), memory, {})  # noqa: E731
    return jax.jit(lambda: rollout(env, act, reset(env, reset_key, (), 10), (), key, steps // 10)[1])()


def replay_of(trajectory: Any, spec: Any) -> Any:
    """Its steps in a replay."""
    from parnassus.off_policy import create_replay, experience

    return create_replay(spec, trajectory.reward.size).add(experience(trajectory, 0.99))


def ensembles() -> list[dict]:
    """Calibration and k-step errors, as numbers and as a picture."""
    import jax

    from parnassus.types import Spec
    from parnassus.world_models import calibration
    from parnassus.world_models.ensemble import Ensemble

    rows, curves = [], {}
    for name, env in worlds().items():
        spec = Spec(env.observation_space, env.action_space, 10)
        ensemble = Ensemble()
        model = ensemble.create(jax.random.key(0), spec)
        model, metrics = jax.jit(ensemble.fit)(model, replay_of(trajectories(env, STEPS, 1), spec), jax.random.key(2))
        held_out = trajectories(env, HELD_OUT, 3)
        batch, apart = (replay_of(steps, spec).storage for steps in (held_out, trajectories(env, HELD_OUT, 4)))
        transform, calibrating = (calibration.held_out_transform(model.members, x) for x in (batch, apart))
        # Rewards that are always the same have no distribution to be covered.
        varies = np.append(np.ones(env.observation_space.shape, bool), float(np.std(batch.reward)) > 1e-6)
        asked_for = {"the ensemble's": calibration.LEVELS, "recalibrated": calibration.raw_levels(calibrating)}
        covered = {}
        for which, levels in asked_for.items():
            shares = np.asarray(calibration.coverage(transform, levels))[:, varies]
            gap = np.abs(shares.mean(1) - calibration.LEVELS).max()
            each = np.abs(shares - calibration.LEVELS[:, None]).mean()
            rows += [
                row(f"{name}: {which} intervals, the largest gap to their level", 100 * gap, "points", limit=5.0),
                row(f"{name}: {which}, expected calibration error", 100 * each, "points"),
            ]
            covered[which] = shares.mean(1)
        error = np.asarray(calibration.k_step_error(model.members, held_out, HORIZON))
        curves[name] = covered, error
        rows += [
            row(f"{name}: error after 1 step, in standard deviations", error[0], ""),
            row(f"{name}: error after {HORIZON} steps", error[-1], ""),
            row(f"{name}: members' disagreement, in standard deviations", float(metrics["model/disagreement"]), ""),
        ]
    draw_curves(curves)
    return rows


def inverse_models() -> list[dict]:
    """Which action led from one observation to the next: how often, or by how much, the model is wrong."""
    import jax

    from parnassus import envs
    from parnassus.types import Spec
    from parnassus.world_models.inverse import InverseAction

    rows = []
    for name in ("jax:Pendulum-v1", "jax:CartPole-v1"):
        env = envs.make(name)
        spec = Spec(env.observation_space, env.action_space, 10)
        model = InverseAction().create(jax.random.key(0), spec)
        replay = replay_of(trajectories(env, STEPS, 1), spec)
        model, _ = jax.jit(InverseAction().fit)(model, replay, jax.random.key(2))
        batch = replay_of(trajectories(env, HELD_OUT, 3), spec).storage
        said = np.asarray(model(batch.observation, batch.next_observation))
        if said.dtype.kind == "f":  # the range of actions is 2
            error, what = np.abs(said - np.asarray(batch.action)).mean() / 2, "mean error, of the range"
        else:
            error, what = (said != np.asarray(batch.action)).mean(), "wrong"
        rows.append(row(f"{name}: the action between two observations, {what}", 100 * error, "%", limit=5.0))
    return rows


def draw_curves(curves: dict) -> None:
    """Coverage over level, and error over steps of imagination."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from parnassus.world_models.calibration import LEVELS

    figure = Figure(figsize=(8.0, 3.2), dpi=160, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    left.plot([0, 1], [0, 1], color="0.7", linewidth=1, label="calibrated")
    for (name, (covered, error)), color in zip(curves.items(), ("#0072B2", "#009E73", "#D55E00"), strict=True):
        left.plot(LEVELS, covered["the ensemble's"], "o-", color=color, markersize=3, label=name)
        left.plot(LEVELS, covered["recalibrated"], "--", color=color, linewidth=1)
        right.plot(1 + np.arange(len(error)), error, "o-", color=color, markersize=3, label=name)
    left.plot([], [], "--", color="0.3", linewidth=1, label="recalibrated")
    left.set_xlabel("probability of a central interval")
    left.set_ylabel("share of the truth that lies in it")
    right.set_xlabel("steps imagined")
    right.set_ylabel("error, in standard deviations")
    right.set_yscale("log")
    right.axhline(1.0, color="0.7", linewidth=1, label="always the mean")
    for axes in (left, right):
        axes.legend(frameon=False, fontsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(PICTURE)


PARTS = {"ensembles": ensembles, "inverse-models": inverse_models}

if __name__ == "__main__":
    main("world_models", __doc__, PARTS)
