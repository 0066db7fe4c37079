"""Memory available to this process."""

from pathlib import Path

import psutil

OWN_GROUP = Path("/proc/self/cgroup")
GROUPS = Path("/sys/fs/cgroup")


def available_memory() -> int:
    """Return the machine's free memory in bytes, or the limit of this process's control group if that is lower.

    SLURM jobs and containers set such limits. Only control groups of version 2 are read.
    """
    return min([psutil.virtual_memory().available, *_group_limits()])


def _group_limits() -> list[int]:
    """Return the memory limits of this process's control group and its parents."""
    try:
        own = next(line[3:] for line in OWN_GROUP.read_text().splitlines() if line.startswith("0::"))
    except (OSError, StopIteration):
        return []
    group = GROUPS / own.lstrip("/")
    limits = [folder / "memory.max" for folder in (group, *group.parents)]
    texts = [limit.read_text().strip() for limit in limits if limit.is_file()]
    return [int(text) for text in texts if text != "max"]
