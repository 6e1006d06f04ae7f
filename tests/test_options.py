"""Dataclasses as options: every field can be said, and what cannot is refused in one sentence."""

import pytest

from parnassus.algorithms.distillation import Distillation
from parnassus.algorithms.mpc import MPC
from parnassus.algorithms.muzero import MuZero
from parnassus.algorithms.ppo import PPO
from parnassus.algorithms.q_learning import QLearning
from parnassus.algorithms.reinforce import REINFORCE
from parnassus.algorithms.sac import SAC
from parnassus.objectives import AdaptiveKL, Clip, FixedKL, Unclipped
from parnassus.options import choices, choose, flatten, parse, rebuild
from parnassus.planning.cem import CEM, MPPI
from parnassus.planning.mcts import Gumbel
from parnassus.presets import preset
from parnassus.schedules import Linear
from parnassus.types import BadInput, pytree
from parnassus.world_models.fitting import Fitting
from parnassus.world_models.inverse import InverseAction


def read(text, algorithm=None, positional=0):
    algorithm = algorithm or preset("ppo", "", **choices(PPO, text.split()))[0]
    options = flatten(algorithm)
    rest, values = parse("parnassus train ppo", options, text.split(), positional)
    algorithm = rebuild(algorithm, {option.path: values[option.name] for option in options})
    return (rest, algorithm) if positional else algorithm


@pytest.mark.parametrize(
    "algorithm",
    [
        PPO(),
        PPO(learning_rate=Linear(1e-3, 0.0, 0.5), objective=Clip(Linear(0.2)), hidden_sizes=()),
        PPO(objective=AdaptiveKL(0.003, 2.0), target_kl=0.01, value_clip_range=Linear(0.2)),
        PPO(objective=Unclipped()),
        SAC(target_entropy=-3.0),
        REINFORCE(),
        QLearning(),
    ],
)
def test_no_options_change_nothing(algorithm):
    assert read("", algorithm) == algorithm


@pytest.mark.parametrize(
    "text, expected",
    [
        ("--num-steps 2_048", PPO(num_steps=2048)),
        ("--num_steps=1e3", PPO(num_steps=1000)),
        ("--learning-rate 1e-4", PPO(learning_rate=1e-4)),
        ("--learning-rate 1", PPO(learning_rate=1.0)),
        ("--learning-rate linear:3e-4:0", PPO(learning_rate=Linear(3e-4, 0.0))),
        ("--learning-rate Linear:3e-4:1e-5:0.5", PPO(learning_rate=Linear(3e-4, 1e-5, 0.5))),
        ("--clip-range 0.1", PPO(objective=Clip(0.1))),
        ("--clip-range linear:0.2:0", PPO(objective=Clip(Linear(0.2, 0.0)))),
        ("--objective clip --clip-range 0.1", PPO(objective=Clip(0.1))),
        ("--objective adaptive-kl", PPO(objective=AdaptiveKL())),
        (
            "--adaptive-kl-target 0.003 --adaptive_kl_initial=2 --objective adaptive-kl",
            PPO(objective=AdaptiveKL(0.003, 2.0)),
        ),
        ("--objective=fixed-kl --fixed-kl-beta linear:3:0", PPO(objective=FixedKL(Linear(3.0, 0.0)))),
        ("--objective clip --objective unclipped", PPO(objective=Unclipped())),
        ("--target-kl 0.02 --value-clip-range 0.2", PPO(target_kl=0.02, value_clip_range=0.2)),
        ("--hidden-sizes 64", PPO(hidden_sizes=(64,))),
        ("--hidden-sizes 256,128", PPO(hidden_sizes=(256, 128))),
        ("--activation relu --no-normalize-advantages", PPO(activation="relu", normalize_advantages=False)),
        ("--normalize-observations", PPO(normalize_observations=True)),
        ("--initial-log-std -1.5", PPO(initial_log_std=-1.5)),
        ("--initial-log-std=-1", PPO(initial_log_std=-1.0)),
    ],
)
def test_values(text, expected):
    assert read(text) == expected


@pytree
class Ensembles:
    part: InverseAction = InverseAction()
    minibatch_size: int = 2


@pytest.mark.parametrize(
    "text, expected",
    [
        ("--mpc-planner mppi", Distillation(MPC(MPPI()))),
        ("--teacher muzero --muzero-search gumbel", Distillation(MuZero(Gumbel()))),
        ("--mpc-cem-horizon 3 --teacher mpc", Distillation(MPC(CEM(horizon=3)))),
        ("--mpc-planner=mppi --mpc-mppi-horizon 3", Distillation(MPC(MPPI(horizon=3)))),
        ("--num-steps 2 --mpc-num-steps 3", Distillation(MPC(num_steps=3), num_steps=2)),
        ("--part-minibatch-size 4", Ensembles(InverseAction(fitting=Fitting(minibatch_size=4, tolerance=1e-4)))),
    ],
)
def test_parts_of_parts(text, expected):
    """The kind of a part's part can be chosen; an option whose name another has bears the part's name."""
    assert read(text, choose(type(expected)(), text.split())) == expected


def test_none_and_back():
    assert read("--target-entropy -2", SAC()) == SAC(target_entropy=-2.0)
    assert read("--target-entropy none", SAC(target_entropy=-2.0)) == SAC()


def test_arguments_without_a_name_may_stand_anywhere():
    rest, algorithm = read("one --num-steps 8 two", positional=2)
    assert rest == ["one", "two"] and algorithm == PPO(num_steps=8)


@pytest.mark.parametrize(
    "text, message",
    [
        ("--clip-rnage 0.1", r"unknown option --clip-rnage; did you mean --clip-range"),
        ("--clip-rnage=0.1", r"unknown option --clip-rnage; did you mean --clip-range"),
        ("--objective adaptive-kl --adaptive-kl-tagret 1", r"did you mean --adaptive-kl-target"),
        ("--adaptive-kl-target 0.1", "--adaptive-kl-target needs --objective adaptive-kl"),
        ("--objective unclipped --clip-range 0.1", "--clip-range needs --objective clip"),
        ("--objective trpo", "--objective must be one of clip, adaptive-kl, fixed-kl, unclipped, not 'trpo'"),
        ("--objective", "--objective needs a value: one of clip, adaptive-kl, fixed-kl, unclipped"),
        ("--zzz 0.1", "unknown option --zzz; see parnassus train ppo --help"),
        ("--network MLP", "unknown option --network"),
        ("--num-steps many", "--num-steps must be a whole number, not 'many'"),
        ("--num-steps 2.5", "--num-steps must be a whole number, not '2.5'"),
        ("--discount high", "--discount must be a number, not 'high'"),
        ("--learning-rate linear:1", None),
        ("--learning-rate linear", "--learning-rate must be a number or linear:START:END:FRACTION, not 'linear'"),
        ("--learning-rate linear:a:b", "not 'linear:a:b'"),
        ("--learning-rate linear:1:2:3:4", "not 'linear:1:2:3:4'"),
        ("--hidden-sizes 64,big", "--hidden-sizes must be whole numbers such as 64,64, not '64,big'"),
        ("--activation sigmoid", "--activation must be one of tanh, relu, elu, gelu, swish, not 'sigmoid'"),
        ("--num-steps", "--num-steps needs a value: a whole number"),
        ("--num-steps --discount 0.9", "--num-steps needs a value: a whole number"),
        ("--normalize-rewards=yes", "--normalize-rewards takes no value"),
        ("--discount 0.9 extra", "unexpected argument 'extra'"),
    ],
)
def test_what_is_refused(text, message, capfd):
    if message is None:
        assert read(text) == PPO(learning_rate=Linear(1.0))
        return
    with pytest.raises(BadInput, match=message):
        read(text)
    assert capfd.readouterr() == ("", "")


def test_help_says_names_defaults_and_comments(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as leaving:
        read("--help", PPO(num_steps=77))
    assert leaving.value.code == 0
    said = capsys.readouterr().out
    for words in (
        "--num-steps INT",
        "T: steps in each environment per iteration (default: 77)",
        "--clip-range",
        "epsilon",
    ):
        assert words in said
    assert "FLOAT|linear:START:END:FRACTION" in said and "--network" not in said
    assert "--objective clip|adaptive-kl|fixed-kl|unclipped" in said and "--adaptive-kl-target" not in said


def test_help_of_a_chosen_kind_has_its_options(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit):
        read("--objective adaptive-kl --help")
    said = capsys.readouterr().out
    assert "--adaptive-kl-target FLOAT" in said and "(default: 0.01)" in said and "--clip-range" not in said
