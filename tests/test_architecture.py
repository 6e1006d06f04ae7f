"""The house rules, read from the source: which part may import which, and what each file must have."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "parnassus"
TESTS = Path(__file__).parent

# From the ground up: a module imports only what stands before it. What stands on one line does not know its neighbours,
# unless they are named with it in ALLOWED.
FLOORS = [
    {"types", "statistics"},
    {"memory", "compilation"},
    {"distributions", "returns", "schedules", "normalization", "replay", "exploration"},
    {"encoding", "networks"},
    {"actor_critic", "off_policy", "frame_replay", "advantages", "second_order", "kfac", "importance", "objectives"},
    {"tabular"},
    {"rollout", "simulator"},
    {"planning", "world_models"},
    {"algorithms"},
    {"envs"},
    {"collect", "bellman"},
    {"training", "evaluation", "analysis", "dynamic_programming"},
    {"checkpoint", "tracking", "interrupts", "presets", "configuration", "policy"},
    {"options", "plotting", "distributed"},
    {"source"},
    {"job"},
    {"run", "solving"},
    {"cli", "__main__"},
]
ALLOWED = {
    ("networks", "encoding"),
    ("replay", "schedules"),
    ("exploration", "schedules"),
    ("frame_replay", "off_policy"),
    ("configuration", "presets"),
    ("__main__", "cli"),
}

SOURCES = sorted(path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py" or path.parent != PACKAGE)
ALGORITHMS = sorted(path for path in (PACKAGE / "algorithms").glob("*.py") if path.name != "__init__.py")


def name_of(path):
    return str(path.relative_to(PACKAGE))


def part_of(path):
    """The module, or the sub-package, that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_parts(path):
    """The parts of the package that a file imports, anywhere in it but under `if TYPE_CHECKING`."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"{name_of(path)}:{node.lineno} imports relatively"
            modules = [f"{node.module}.{alias.name}" for alias in node.names] if node.module else []
        elif isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        else:
            continue
        yield from (module.split(".")[1] for module in modules if module.startswith("parnassus."))


def floor_of(part):
    return next((i for i, floor in enumerate(FLOORS) if part in floor), None)


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_imports_point_one_way(path):
    part = part_of(path)
    assert floor_of(part) is not None, f"say in FLOORS where {part} stands"
    for imported in set(imported_parts(path)) - {part, "__version__"}:
        below = floor_of(imported) is not None and floor_of(imported) < floor_of(part)
        assert below or (part, imported) in ALLOWED, f"{name_of(path)} imports {imported}"


@pytest.mark.parametrize("path", ALGORITHMS, ids=name_of)
def test_algorithms_do_not_know_where_experience_comes_from(path):
    outside = {"envs", "collect", "distributed", "tracking", "cli", "run", "training", "evaluation", "checkpoint"}
    assert not outside & set(imported_parts(path))


@pytest.mark.parametrize("path", ALGORITHMS, ids=name_of)
def test_algorithms_open_with_their_paper_and_pseudo_code(path):
    """A first line that names the paper with its year, and the steps, indented, with an arrow or a repetition."""
    docstring = ast.get_docstring(ast.parse(path.read_text()))
    assert docstring
    assert any(str(year) in docstring.split("\n\n")[0] for year in range(1950, 2030)), "the first line names no paper"
    steps = [line for line in docstring.splitlines() if line.startswith("    ")]
    assert len(steps) >= 4, "there is no pseudo-code"
    assert any(word in line for line in steps for word in ("<-", "ascend", "descend", "repeat", "for each"))


def test_importing_the_package_does_not_import_jax():
    code = (
        "import sys, parnassus; dir(parnassus); print(sorted({'jax', 'flax', 'gymnasium', 'numpy'} & set(sys.modules)))"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "[]"


def test_importing_every_module_does_not_start_jax():
    """No module holds an array: that would choose a device before a user can, and keep its memory."""
    modules = [".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts) for path in SOURCES]
    modules = [name.removesuffix(".__init__") for name in modules if not name.endswith("__main__")]
    code = (
        f"import importlib; [importlib.import_module(name) for name in {modules}];"
        "from jax._src import xla_bridge; print(xla_bridge.backends_are_initialized())"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "False"


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_every_file_has_its_tests(path):
    """parnassus/a/b.py is tested by tests/a/test_b.py; parnassus/a/__init__.py by tests/a/test_init.py."""
    if not path.read_text().strip():
        pytest.skip("the file is empty")
    name = {"__main__": "cli"}.get(path.stem, path.stem.strip("_"))
    assert (TESTS / path.relative_to(PACKAGE).parent / f"test_{name}.py").exists()


def test_the_public_names_exist():
    import parnassus

    for name in parnassus.__all__:
        assert getattr(parnassus, name) is not None
