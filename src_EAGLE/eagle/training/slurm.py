"""Detect and request SLURM requeues."""

import os
import signal
import subprocess

from lightning_fabric.plugins.environments import SLURMEnvironment

# `#SBATCH --signal=USR1@90` sends it 90 seconds before the job's time limit.
REQUEUE_SIGNAL = signal.SIGUSR1


def in_slurm() -> bool:
    """Whether SLURM started this process as a task of a job."""
    return SLURMEnvironment.detect()


def was_requeued() -> bool:
    """Whether SLURM restarted this job."""
    return int(os.environ.get("SLURM_RESTART_COUNT", "0")) > 0


def job_id() -> str:
    """Return the job's id (JOB, or ARRAY_TASK in an array), which a requeue keeps."""
    if "SLURM_ARRAY_JOB_ID" in os.environ:
        return f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    return os.environ["SLURM_JOB_ID"]


def requeue_job() -> str:
    """Ask SLURM to restart this job; return the outcome as a message."""
    job = job_id()
    try:
        command = ["scontrol", "requeue", job]  # found on the job's PATH
        subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)  # noqa: S603  fixed words, no shell
    except (OSError, subprocess.SubprocessError) as error:
        return f"SLURM could not requeue job {job} ({error})"
    return f"SLURM will restart job {job}"
