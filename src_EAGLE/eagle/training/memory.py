"""How much memory this machine has left for a process."""

from pathlib import Path

import psutil

OWN_GROUP = Path("/proc/self/cgroup")
GROUPS = Path("/sys/fs/cgroup")


def available_memory() -> int:
    """Bytes that are free, or the limit of this process's control group (a SLURM job, a container) where it is lower.

    Control groups are those of version 2; elsewhere the free memory alone counts.
    """
    return min([psutil.virtual_memory().available, *_group_limits()])


def _group_limits() -> list[int]:
    """The limits of the process's group and of the groups around it."""
    try:
        own = next(line[3:] for line in OWN_GROUP.read_text().splitlines() if line.startswith("0::"))
    except (OSError, StopIteration):
        return []
    group = GROUPS / own.lstrip("/")
    limits = [folder / "memory.max" for folder in (group, *group.parents)]
    texts = [limit.read_text().strip() for limit in limits if limit.is_file()]
    return [int(text) for text in texts if text != "max"]
