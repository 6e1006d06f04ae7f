"""How every test runs: on the CPU, with the package's annotations checked at run time and JAX's checks on."""

import os
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"
# Compiled programs are kept between tests, processes and runs: most of the suite's time would go to XLA.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parent.parent / ".pytest_cache" / "xla"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")

# And compiled in haste, for most of them run for a moment only: without LLVM's optimisations, and each operation as XLA
# itself writes it, compiling takes a quarter of the time. What users run is compiled as JAX does by itself: where bits
# must be theirs, a test starts a process without these flags; `XLA_FLAGS= make test` does so for all.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false")

import jax
import jaxtyping
import pytest

import tests.runtime_types  # the hook wants its module imported

# Before anything imports the package: jaxtyping checks shapes and dtypes, beartype everything else.
jaxtyping.install_import_hook("parnassus", f"{tests.runtime_types.__name__}.check")

jax.config.update("jax_numpy_rank_promotion", "raise")  # a [T] meeting a [T, N] is a mistake


@pytest.fixture(autouse=True)
def _keys_are_consumed(request):
    """Using a key twice raises, unless the test says that it means to, or that the checker is wrong about it.

    It is wrong about several seeds in one program: keys that `vmap` batches and `scan` then slices count as consumed.
    """
    with jax.debug_key_reuse(not request.node.get_closest_marker("reuses_keys")):
        yield


@pytest.fixture(autouse=True)
def _types_are_checked(request, monkeypatch):
    """Unless the test says that it passes what the annotations forbid, to see what a user would be told."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", bool(request.node.get_closest_marker("wrong_types")))


@pytest.fixture(autouse=True, scope="module")
def _programs_are_let_go():
    """A compiled program is some tens of memory mappings, and the system gives a process 65,530 of them."""
    yield
    jax.clear_caches()
