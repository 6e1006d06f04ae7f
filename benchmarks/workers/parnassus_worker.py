"""Times this library on one job; see clock.py."""

import os
from functools import partial
from typing import Any

from clock import Clock, read_job


def algorithm_for(job: dict) -> object:
    """The algorithm with the peer's hyper-parameters, translated from the peer's names to ours."""
    import parnassus as pa
    from parnassus.presets import algorithm_class

    h = job["hyperparameters"]
    if job["algorithm"] == "sac":
        return pa.SAC(
            learning_rate=h["learning_rate"],
            replay_size=h["buffer_size"],
            learning_starts=h["learning_starts"],
            minibatch_size=h["batch_size"],
            tau=h["tau"],
            discount=h["gamma"],
            num_steps=h["train_freq"],
            updates_per_step=h["gradient_steps"],
            hidden_sizes=tuple(job.get("net_arch", (256, 256))),
            activation="relu",
        )
    if job["algorithm"] in ("ddpg", "td3") and "buffer_size" in h:
        more = {"num_steps": h["train_freq"]}
        if job["algorithm"] == "td3":  # an iteration's updates are whole rounds of the policy's delay
            more = {
                "num_steps": h["train_freq"] * h["policy_delay"],
                "policy_delay": h["policy_delay"],
                "target_noise": h["target_policy_noise"],
                "target_noise_limit": h["target_noise_clip"],
            }
        return algorithm_class(job["algorithm"])(
            learning_rate=h["learning_rate"],
            critic_learning_rate=h["learning_rate"],
            replay_size=h["buffer_size"],
            learning_starts=h["learning_starts"],
            minibatch_size=h["batch_size"],
            tau=h["tau"],
            discount=h["gamma"],
            updates_per_step=h["gradient_steps"],
            hidden_sizes=(256, 256),
            activation="relu",
            **more,
        )
    if job["algorithm"] == "dqn" and "buffer_size" in h:
        return pa.DQN(
            learning_rate=h["learning_rate"],
            num_steps=h["train_freq"],
            num_updates=h["gradient_steps"],
            minibatch_size=h["batch_size"],
            replay_size=h["buffer_size"],
            learning_starts=h["learning_starts"],
            target_period=h["target_update_interval"] * h["gradient_steps"] // h["train_freq"],
            discount=h["gamma"],
            epsilon=pa.Linear(h["exploration_initial_eps"], h["exploration_final_eps"], h["exploration_fraction"]),
            loss="huber",
            hidden_sizes=(64, 64),
            activation="relu",
        )
    if job["algorithm"] == "a2c" and "n_steps" in h:
        return pa.A2C(
            learning_rate=h["learning_rate"],
            num_steps=h["n_steps"],
            discount=h["gamma"],
            gae_lambda=h["gae_lambda"],
            entropy_coefficient=h["ent_coef"],
            value_coefficient=h["vf_coef"],
            max_grad_norm=h["max_grad_norm"],
            normalize_advantages=h["normalize_advantage"],
            optimizer="rmsprop" if h["use_rms_prop"] else "adam",
            optimizer_epsilon=h["rms_prop_eps"],
        )
    if job["algorithm"] == "trpo" and "n_steps" in h:
        return pa.TRPO(
            max_kl=h["target_kl"],
            value_learning_rate=h["learning_rate"],
            num_steps=h["n_steps"],
            num_epochs=h["n_critic_updates"],
            minibatch_size=h["batch_size"],
            discount=h["gamma"],
            gae_lambda=h["gae_lambda"],
            cg_iterations=h["cg_max_steps"],
            cg_damping=h["cg_damping"],
            shrinking=h["line_search_shrinking_factor"],
            max_backtracks=h["line_search_max_iter"],
            normalize_advantages=h["normalize_advantage"],
        )
    if job["algorithm"] != "ppo":  # the hyper-parameters have our own names
        return algorithm_class(job["algorithm"])(**h)
    is_sb3 = "n_steps" in h  # else: rejax's names
    num_steps = h["n_steps"] if is_sb3 else h["num_steps"]
    no_clipping = 1e9  # rejax's infinity: the norm is computed all the same
    return pa.PPO(
        learning_rate=h["learning_rate"],
        num_steps=num_steps,
        minibatch_size=h["batch_size"] if is_sb3 else num_steps * job["num_envs"] // h["num_minibatches"],
        num_epochs=h["n_epochs"] if is_sb3 else h["num_epochs"],
        discount=h["gamma"],
        gae_lambda=h["gae_lambda"],
        objective=pa.Clip(h["clip_range"] if is_sb3 else h["clip_eps"]),
        entropy_coefficient=h["ent_coef"],
        value_coefficient=h["vf_coef"],
        max_grad_norm=h["max_grad_norm"] or no_clipping,
        normalize_advantages=h.get("normalize_advantage", True),
        hidden_sizes=(64, 64),
        activation="tanh" if is_sb3 else "swish",
    )


def learn_again_and_again(algorithm: Any, collector: Any, state: Any, updates: int, clock: Clock) -> None:
    """Update on one trajectory; the steps of a chunk are the transitions learned from, each time anew."""
    import jax

    behavior = algorithm.behavior(state.learner)
    _, trajectory = jax.jit(collector.collect)(algorithm, behavior, state.actor, state.key)

    @jax.jit
    def chunk(learner: Any, key: Any) -> Any:
        once = lambda i, learner: algorithm.learn(learner, trajectory, jax.random.fold_in(key, i))[0]  # noqa: E731
        return jax.lax.fori_loop(0, updates, once, learner)

    learner, count = state.learner, 0
    while not clock.is_done:
        learner = jax.block_until_ready(chunk(learner, state.key))
        count += updates
        clock.mark(count * algorithm.num_steps * collector.spec.num_envs)


def main() -> None:
    """Train for the job's chunks with the library's own `train`, reading the clock after each."""
    job = read_job()
    if "host_devices" in job:  # before JAX starts
        os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={job['host_devices']}"
    os.environ["JAX_PLATFORMS"] = job["device"]
    import jax

    from parnassus import envs, training
    from parnassus.collect import HostCollector, ScanCollector
    from parnassus.distributed import asynchronous
    from parnassus.distributed.crews import Workers

    jax.config.update("jax_cpu_enable_async_dispatch", False)
    env, num_envs, num_seeds = envs.make(job["prefix"] + job["env"], job["num_envs"]), job["num_envs"], job["seeds"]
    is_pure = job["prefix"] in ("jax:", "gymnax:")
    driver, collector = training, ScanCollector(env, num_envs) if is_pure else HostCollector(env)
    if job["algorithm"] == "a3c":
        driver = asynchronous
        collector = Workers(partial(envs.make, job["prefix"] + job["env"]), num_envs)
    algorithm = algorithm_for(job)
    chunk_iterations = job["chunk_steps"] // (algorithm.num_steps * collector.spec.num_envs)
    steps = (job["chunks"] + 1) * job["chunk_steps"]

    clock = Clock(job)
    key = jax.random.key(0)
    state = driver.init(algorithm, collector, key if num_seeds == 1 else jax.random.split(key, num_seeds), steps)
    clock.mark(0)
    if job.get("learn_only"):
        learn_again_and_again(algorithm, collector, state, chunk_iterations, clock)
    else:
        for chunk in driver.train(algorithm, collector, state, steps, chunk_iterations):
            clock.mark(chunk.steps * num_seeds)
    packages = ["parnassus", "jax", "jaxlib", "flax", "optax", "gymnasium", "mujoco", "envpool", "gymnax", "numpy"]
    more = {}
    if job["device"] != "cpu":
        more["device_memory_mb"] = round(jax.devices()[0].memory_stats()["peak_bytes_in_use"] / 2**20)
    clock.report(packages, device=jax.devices()[0].device_kind, **more)


if __name__ == "__main__":
    main()
