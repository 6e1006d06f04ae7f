"""Whether it fits: what a learner needs of memory, and what there is."""

import jax

from parnassus.types import BadInput, Learner


def refuse_what_does_not_fit(learner: Learner) -> None:
    """Raise BadInput if arrays of these shapes need more memory than is free."""
    sizes = {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf.size * leaf.dtype.itemsize
        for path, leaf in jax.tree.leaves_with_path(learner)
    }
    needed, free = sum(sizes.values()), free_memory()
    if free is not None and needed > free:
        largest = max(sizes, key=lambda name: sizes[name])
        smaller = "; a smaller replay_size needs less" if largest.startswith("replay") else ""
        raise BadInput(
            f"the learner needs {needed / 2**30:.1f} GiB of memory ({largest} alone {sizes[largest] / 2**30:.1f}), "
            f"but {free / 2**30:.1f} GiB are free{smaller}"
        )


def free_memory() -> int | None:
    """Bytes that the default device can still give; None where nobody tells."""
    if stats := jax.devices()[0].memory_stats():
        return stats["bytes_limit"] - stats["bytes_in_use"] if "bytes_limit" in stats else None
    try:
        with open("/proc/meminfo") as file:
            return next(1024 * int(line.split()[1]) for line in file if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return None
