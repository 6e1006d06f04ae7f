"""Times rejax on one job; see clock.py."""

import dataclasses

from clock import Clock, check_defaults, read_job


def main() -> None:
    """Train chunk by chunk with rejax's own `train`, evaluation left out, compiled once."""
    job = read_job()
    import jax
    import numpy as np
    import rejax

    hyperparameters = {k: np.inf if v is None else v for k, v in job["hyperparameters"].items()}
    defaults = {f.name: f.default for f in dataclasses.fields(rejax.PPO)}
    check_defaults("rejax", defaults, hyperparameters)

    # One call of `train` is one chunk: its steps are one "evaluation" period, and evaluating does nothing.
    algorithm = rejax.PPO.create(
        env=job["env"],
        num_envs=job["num_envs"],
        total_timesteps=job["chunk_steps"],
        eval_freq=job["chunk_steps"],
        skip_initial_evaluation=True,
        **hyperparameters,
    ).replace(eval_callback=lambda algorithm, state, key: ())
    train = jax.jit(lambda state: algorithm.train(train_state=state)[0])

    clock = Clock(job)
    state = jax.jit(algorithm.init_state)(jax.random.PRNGKey(0))
    clock.mark(0)
    while not clock.is_done:
        state = jax.block_until_ready(train(state))
        clock.mark(state.global_step)
    clock.report(["rejax", "gymnax", "jax", "jaxlib", "flax", "optax", "numpy"])


if __name__ == "__main__":
    main()
