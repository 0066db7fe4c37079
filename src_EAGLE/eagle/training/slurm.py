"""Jobs that SLURM runs: whether one was started again, and how it asks to be."""

import os
import signal
import subprocess

from lightning_fabric.plugins.environments import SLURMEnvironment

# What `#SBATCH --signal=USR1@90` sends 90 seconds before a job's time is up.
REQUEUE_SIGNAL = signal.SIGUSR1


def in_slurm() -> bool:
    """Whether SLURM started this process as a task of a job."""
    return SLURMEnvironment.detect()


def was_requeued() -> bool:
    """Whether SLURM has started this job before."""
    return int(os.environ.get("SLURM_RESTART_COUNT", "0")) > 0


def job_id() -> str:
    """This job's number, or an array task's two; a requeued job keeps it."""
    if "SLURM_ARRAY_JOB_ID" in os.environ:
        return f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    return os.environ["SLURM_JOB_ID"]


def requeue_job() -> str:
    """Ask SLURM to start this job again; what became of it, for a message."""
    job = job_id()
    try:
        command = ["scontrol", "requeue", job]  # SLURM's own, on the job's PATH
        subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)  # noqa: S603  fixed words, no shell
    except (OSError, subprocess.SubprocessError) as error:
        return f"SLURM does not requeue job {job} ({error})"
    return f"SLURM starts job {job} again"
