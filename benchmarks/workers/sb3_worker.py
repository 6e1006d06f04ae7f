"""Times Stable-Baselines3, its contrib package or SBX (the same interface) on one job; see clock.py."""

import inspect

from clock import Clock, check_defaults, read_job


def main() -> None:
    """Train for the job's chunks with the library's own `learn`, reading the clock in a callback."""
    job = read_job()
    import torch
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv

    if job["side"].startswith("sbx"):
        import sbx as library
    elif job["algorithm"] == "trpo":
        import sb3_contrib as library
    else:
        import stable_baselines3 as library

    if "threads" in job:
        torch.set_num_threads(job["threads"])
    algorithm = getattr(library, job["algorithm"].upper())
    parameters = inspect.signature(algorithm.__init__).parameters
    check_defaults(job["side"], {name: p.default for name, p in parameters.items()}, job["hyperparameters"])

    class Reader(BaseCallback):
        """Marks the ends of chunks: a rollout starts when all work for the steps before it is done."""

        def _on_rollout_start(self) -> None:
            last_steps = clock.marks[-1][0] if clock.marks else -job["chunk_steps"]
            if self.num_timesteps - last_steps >= job["chunk_steps"]:
                clock.mark(self.num_timesteps)

        def _on_step(self) -> bool:
            return not clock.is_done

    clock = Clock(job)
    vec_env = SubprocVecEnv if job.get("vec_env") == "subproc" else DummyVecEnv
    env = make_vec_env(job["env"], n_envs=job["num_envs"], seed=0, vec_env_cls=vec_env)
    networks = {"policy_kwargs": {"net_arch": job["net_arch"]}} if "net_arch" in job else {}
    model = algorithm("MlpPolicy", env, seed=0, device="cpu", **networks, **job["hyperparameters"])
    model.learn(total_timesteps=(job["chunks"] + 2) * job["chunk_steps"], callback=Reader())
    env.close()
    packages = ["stable-baselines3", "sb3-contrib", "sbx-rl", "torch", "jax", "jaxlib", "gymnasium", "mujoco", "numpy"]
    clock.report(packages, torch_threads=torch.get_num_threads())


if __name__ == "__main__":
    main()
