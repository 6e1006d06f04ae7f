"""What happens while a run trains: checkpoints, targets, signals, and what goes wrong."""

import signal
import time

import pytest

import parnassus as pa
from parnassus import checkpoint
from parnassus.tracking import read_columns
from tests.tiny_runs import (
    assert_same,
    checkpoints,
    nan_at,
    numbers,
    raises_at,
    signals_at,
    tiny_ppo,
    tiny_run,
    well_behaved,
)


def test_stops_at_the_target(tmp_path):
    run = tiny_run(tmp_path / "run", "CartPole-v1", steps=10_000, target_return=1.0)
    assert run.steps < 10_000 and run.metrics["episode/return"][-1] >= 1.0
    with pytest.raises(pa.BadInput, match="nothing is left to do in .* it reached its target return 1 at step"):
        pa.resume(tmp_path / "run")


def test_saving_takes_a_small_share_of_the_time(tmp_path, monkeypatch):
    """Checkpoints that take as long as everything else: after the first, only the last is written."""
    save, saved = checkpoint.save, []

    def slow_save(directory, tree, steps):
        saved.append(steps)
        time.sleep(0.5)
        return save(directory, tree, steps)

    tiny_run(tmp_path / "warm", steps=32)
    monkeypatch.setattr(checkpoint, "save", slow_save)
    tiny_run(tmp_path / "run", steps=96)
    assert saved == [16, 96]


@pytest.mark.reuses_keys
def test_seeds_that_were_killed_between_two_checkpoints_go_on_together(tmp_path):
    runs = tiny_run(tmp_path / "runs", seeds=range(2))
    for path in (tmp_path / "runs" / "seed-1" / "checkpoints").glob("000000000064.*"):
        path.unlink()
    step = checkpoints(tmp_path / "runs" / "seed-1")[-1]
    assert step < 64 and step in checkpoints(tmp_path / "runs" / "seed-0")
    resumed = pa.resume(tmp_path / "runs", quiet=True)
    assert_same(resumed[0].state, runs[0].state)
    assert read_columns(tmp_path / "runs" / "seed-0" / "metrics.csv")["steps"].tolist() == [16, 32, 48, 64]


# What goes wrong.


@pytest.mark.parametrize("damage", ["truncated", "bit flipped", "manifest cut", "arrays missing"])
def test_a_broken_checkpoint_is_passed_over(damage, tmp_path, capfd):
    whole = tiny_run(tmp_path / "run")
    newest = tmp_path / "run" / "checkpoints" / "000000000064.safetensors"
    content = bytearray(newest.read_bytes())
    if damage == "truncated":
        newest.write_bytes(content[: len(content) // 2])
    elif damage == "bit flipped":
        content[-3] ^= 1
        newest.write_bytes(content)
    elif damage == "manifest cut":
        manifest = newest.with_suffix(".json")
        manifest.write_text(manifest.read_text()[:40])
    else:
        newest.unlink()
    before = checkpoints(tmp_path / "run")[0]
    resumed = pa.resume(tmp_path / "run", quiet=True)
    said = capfd.readouterr().err
    assert "checkpoint 000000000064 is broken" in said
    assert f"using the last good checkpoint instead, of step {before}" in said
    assert_same(whole.state, resumed.state)
    assert resumed.metrics["steps"].tolist() == [16, 32, 48, 64]


def test_a_killed_run_leaves_no_doubled_rows(tmp_path):
    """Rows are written at each chunk, checkpoints more rarely: those beyond the checkpoint are written again."""
    whole = tiny_run(tmp_path / "run")
    for path in (tmp_path / "run" / "checkpoints").glob("000000000064.*"):
        path.unlink()
    with open(tmp_path / "run" / "metrics.csv", "a") as file:
        file.write("80,0.1,")  # killed while it wrote
    assert_same(pa.resume(tmp_path / "run", quiet=True).state, whole.state)
    assert numbers(tmp_path / "run")["steps"] == [16, 32, 48, 64]


def test_an_environment_that_raises(tmp_path):
    """One environment, its step 1,000: what and where, and the checkpoint to go on from."""
    with pytest.raises(pa.TrainingFailed) as failure:
        tiny_run(tmp_path / "run", raises_at(1000), num_envs=1, steps=2000, algorithm=tiny_ppo(minibatch_size=8))
    kept = checkpoints(tmp_path / "run")[-1]
    assert 0 < kept < 1000
    assert str(failure.value) == (
        "the environment raised RuntimeError: the gripper is stuck (at environment step 1,000); "
        f"the last good checkpoint, of step {kept:,}, is kept: parnassus resume {tmp_path / 'run'}"
    )
    assert isinstance(failure.value.__cause__, RuntimeError)
    assert read_columns(tmp_path / "run" / "metrics.csv")["steps"][-1] == 992
    mended = pa.resume(tmp_path / "run", env=well_behaved, quiet=True)
    assert mended.steps == 2000


def test_a_reward_that_is_not_finite(tmp_path):
    with pytest.raises(pa.TrainingFailed) as failure:
        tiny_run(tmp_path / "run", nan_at(100), num_envs=1, steps=200, algorithm=tiny_ppo(minibatch_size=8))
    assert str(failure.value).startswith(
        "reward is not finite (NaN or infinite) in iteration 13, environment steps 97 to 104; "
        "the last good checkpoint, of step "
    )
    assert 0 < checkpoints(tmp_path / "run")[-1] <= 96
    assert pa.load(tmp_path / "run", env=well_behaved).evaluate(2).returns.tolist() == [5.0, 5.0]


def test_a_learning_rate_that_explodes(tmp_path):
    tiny_run(tmp_path / "run")
    with pytest.raises(pa.TrainingFailed, match=r"not finite .* the last good checkpoint, of step 64, is kept"):
        pa.resume(tmp_path / "run", 10_000, algorithm=tiny_ppo(learning_rate=1e30), quiet=True)
    assert checkpoints(tmp_path / "run")[-1] == 64
    with pytest.raises(pa.TrainingFailed, match="not finite .* that is before the first checkpoint in "):
        tiny_run(tmp_path / "new", algorithm=tiny_ppo(learning_rate=1e30), chunk_steps=160, steps=160)
    assert checkpoints(tmp_path / "new") == []


@pytest.mark.parametrize("number, error", [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_a_signal_finishes_the_chunk_and_saves(number, error, tmp_path, capfd):
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    algorithm = tiny_ppo(minibatch_size=8)
    with pytest.raises(error) as stopped:
        tiny_run(tmp_path / "run", signals_at(20, number), num_envs=1, steps=64, algorithm=algorithm)
    if error is SystemExit:
        assert stopped.value.code == 128 + number
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers
    assert checkpoints(tmp_path / "run")[-1] == 32  # chunks of 16, of which it was in the second
    assert f"stopped at step 32; go on with: parnassus resume {tmp_path / 'run'}" in capfd.readouterr().err
    resumed = pa.resume(tmp_path / "run", env=well_behaved, quiet=True)
    whole = tiny_run(tmp_path / "whole", well_behaved, num_envs=1, steps=64, algorithm=algorithm)
    assert_same(resumed.state, whole.state)


def test_a_second_signal_stops_at_once(tmp_path):
    env = signals_at(20, signal.SIGINT, signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        tiny_run(tmp_path / "run", env, num_envs=1, steps=64, algorithm=tiny_ppo(minibatch_size=8))
    assert checkpoints(tmp_path / "run") == [16]
