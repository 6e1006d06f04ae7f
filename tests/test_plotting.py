"""Learning curves: the numbers behind the picture, and that there is a picture."""

import struct

import numpy as np
import pytest

from parnassus import configuration
from parnassus.plotting import _steps_text, plot, read_curves
from parnassus.tracking import CSVSink
from parnassus.types import BadInput


def a_run(directory, points, algorithm="ppo", env="CartPole-v1", **more):
    directory.mkdir(parents=True)
    config = {
        "format": configuration.FORMAT,
        "algorithm": algorithm,
        "hyperparameters": {},
        "env": env,
        "env_options": {},
        "num_envs": 1,
        "asynchronous": False,
        "steps": 10,
        "chunk_iterations": 1,
        "exact_resume": True,
        "target_return": None,
        **more,
    }
    configuration.write(directory, config)
    sink = CSVSink(directory / "metrics.csv")
    for steps, value in points:
        sink.log(steps, {"episode/return": value})
    return directory


def picture_size(path):
    """(width, height) from the PNG's header."""
    content = path.read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", content[16:24])


def test_runs_of_one_algorithm_and_environment_are_seeds(tmp_path):
    runs = [a_run(tmp_path / str(i), [(10, 1.0 + i), (20, 5.0 + i)]) for i in range(4)]
    (curve,) = read_curves(runs)
    assert (curve.algorithm, curve.env, curve.steps.tolist()) == ("ppo", "CartPole-v1", [10, 20])
    assert curve.center.tolist() == [2.5, 6.5]  # of 1 2 3 4, the mean of 2 and 3
    low, high = curve.band
    assert (1.0 <= low[0] < 2.5) and (2.5 < high[0] <= 4.0)


def test_other_algorithms_and_environments_are_other_curves(tmp_path):
    runs = [
        a_run(tmp_path / "a", [(10, 1.0)]),
        a_run(tmp_path / "b", [(10, 1.0)], algorithm="reinforce"),
        a_run(tmp_path / "c", [(10, 1.0)], env="Acrobot-v1"),
        a_run(tmp_path / "d", [(10, 1.0)], env={"object": "<function my_env>"}),
    ]
    curves = read_curves(runs)
    assert [(curve.algorithm, curve.env) for curve in curves] == [
        ("ppo", "CartPole-v1"),
        ("reinforce", "CartPole-v1"),
        ("ppo", "Acrobot-v1"),
        ("ppo", "<function my_env>"),
    ]
    assert all(curve.band is None for curve in curves)


def test_a_directory_of_seeds_stands_for_all(tmp_path):
    a_run(tmp_path / "runs", [], seeds=[0, 1])
    for i in range(2):
        a_run(tmp_path / "runs" / f"seed-{i}", [(10, float(i))])
    (curve,) = read_curves([tmp_path / "runs", tmp_path / "runs" / "seed-1"])  # each once
    assert curve.returns.tolist() == [[0.0], [1.0]]


def test_runs_with_other_rows_meet_where_both_have_steps(tmp_path):
    a = a_run(tmp_path / "a", [(10, 0.0), (20, 10.0), (30, 20.0)])
    b = a_run(tmp_path / "b", [(5, 0.0), (15, float("nan")), (25, 20.0)])
    (curve,) = read_curves([a, b])
    assert curve.steps.tolist() == [10, 20, 25]
    np.testing.assert_allclose(curve.returns, [[0, 10, 15], [5, 15, 20]])


@pytest.mark.parametrize("count", [1, 3])
def test_there_is_a_picture(count, tmp_path):
    runs = [a_run(tmp_path / str(i), [(10, 1.0 + i), (20, 5.0)]) for i in range(count)]
    runs.append(a_run(tmp_path / "other", [(1000, 2.0)], algorithm="sac"))
    path = plot(runs, tmp_path / "pictures" / "curve.png")
    assert path == tmp_path / "pictures" / "curve.png" and picture_size(path) == (1200, 760)


def test_by_default_it_is_in_the_first_directory(tmp_path):
    run = a_run(tmp_path / "run", [(10, 1.0), (20, 5.0)])
    assert plot([str(run)]) == run / "curve.png" and picture_size(run / "curve.png")


def test_what_cannot_be_drawn(tmp_path):
    with pytest.raises(BadInput, match="there is no run directory"):
        plot([tmp_path / "nothing"])
    with pytest.raises(BadInput, match="run has no finished episode to plot"):
        plot([a_run(tmp_path / "run", [(10, float("nan"))])])
    with pytest.raises(BadInput, match="empty has no finished episode to plot"):
        plot([a_run(tmp_path / "empty", [])])
    early, late = a_run(tmp_path / "early", [(10, 1.0)]), a_run(tmp_path / "late", [(20, 1.0)])
    with pytest.raises(BadInput, match="the runs of ppo on CartPole-v1 have no steps in common"):
        plot([early, late])
    with pytest.raises(BadInput, match=r"its name must end in .png, not 'curve.pdf'"):
        plot([early], tmp_path / "curve.pdf")


def test_steps_are_short():
    assert [_steps_text(x) for x in (0, 500, 50_000, 1_500_000, 2e9)] == ["0", "500", "50k", "1.5M", "2G"]
