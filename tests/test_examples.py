"""The examples train, and what the documentation shows is what is run."""

import re
import runpy
from pathlib import Path

import pytest

import parnassus as pa

ROOT = Path(__file__).parent.parent
PAGE = "docs/writing-an-algorithm.md"


def python_blocks(path):
    return re.findall(r"^```python\n(.*?)^```", (ROOT / path).read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.slow
def test_my_algorithm_learns(tmp_path):
    example = runpy.run_path(str(ROOT / "examples/my_algorithm.py"))
    run = pa.train(
        example["ActorCritic"](), "jax:CartPole-v1", steps=60_000, num_envs=8, run=tmp_path / "run", quiet=True
    )
    assert run.evaluate(episodes=20).mean > 100  # a random policy reaches 22


def test_the_page_shows_the_example_as_it_is():
    _, code = (ROOT / "examples/my_algorithm.py").read_text().split('"""\n\n', 1)
    assert code == python_blocks(PAGE)[0]


@pytest.mark.parametrize("index", range(1, len(python_blocks(PAGE))))
def test_the_page_runs(index, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": f"block_{index}"}
    exec(compile(python_blocks(PAGE)[index], f"{PAGE}, block {index}", "exec"), names)
    assert names["run"].steps >= 2_048


@pytest.mark.slow
def test_the_page_on_training_runs_from_an_environment_to_a_policy(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "page"}
    for i, block in enumerate(python_blocks("docs/training.md")):
        exec(compile(block, f"docs/training.md, block {i}", "exec"), names)
    assert names["run"].steps == 4_000
    assert names["run"].evaluate(episodes=20).mean > -60.0  # random inflows: -162, none: -453 (50 episodes)
    assert "in use" in capsys.readouterr().out


def test_the_page_on_old_experience_measures_a_bias(tmp_path, monkeypatch):
    (code,) = python_blocks("docs/off-policy.md")
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "block"}
    exec(compile(code, "docs/off-policy.md", "exec"), names)
    assert names["bias"].returned.mean < -10.0  # untrained, it swings on


def test_the_readme_names_what_exists():
    for block in python_blocks("README.md"):
        compile(block, "README.md", "exec")
        for name in re.findall(r"\bpa\.(\w+)", block):
            assert hasattr(pa, name), name


@pytest.mark.parametrize("path", ["README.md", *sorted(f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md"))])
def test_links_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", (ROOT / path).read_text()):
        if "://" not in target:
            assert (ROOT / path).parent.joinpath(target).exists(), target


def test_the_page_of_tables_runs():
    (block,) = python_blocks("docs/tabular.md")
    names = {}
    exec(compile(block, "docs/tabular.md", "exec"), names)
    assert names["lake"].num_states == 16 and names["mine"].num_states == 3


def test_pictures_of_the_pages_are_there():
    for page in [*(ROOT / "docs").glob("*.md"), ROOT / "README.md"]:
        for picture in re.findall(r"!\[[^]]*\]\(([^)]*)\)", page.read_text()):
            assert (page.parent / picture).exists(), f"{page.name} shows {picture}"
