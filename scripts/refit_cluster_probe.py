"""Refit a cluster probe: ``python scripts/refit_cluster_probe.py checkpoint=RUN/best.ckpt output=refitted.ckpt``."""

from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from eagle.checkpoints.paths import require_checkpoint
from eagle.config.command_line import run_command
from eagle.config.schema import REQUIRED, BadImageConfig, key


@dataclass
class RefitConfig(BadImageConfig):
    """Every key of ``refit_cluster_probe.py``; model and dataset come from the checkpoint."""

    checkpoint: str = key(REQUIRED, "Checkpoint to read: .ckpt (released or ours), or .safetensors with its .yml")
    output: str = key(REQUIRED, "Checkpoint to write, another file: NAME.ckpt, or NAME.safetensors (with NAME.yml)")
    pytorch_data_dir: str | None = key(
        None,
        "Folder that holds all datasets; none = the checkpoint's, or the default folder if that does not exist",
        path=True,
    )
    seed: int = key(0, "Seed of the sample of codes and of k-means", minimum=0)
    batch_size: int = key(16, "Images per batch", minimum=1)
    num_workers: int = key(4, "Data loader processes; 0 loads images in the process that computes", minimum=0)
    accelerator: str = key("auto", "Lightning accelerator: auto, cpu, gpu, mps …")
    precision: str = key(
        "32-true", "Lightning precision of backbone and head", choices=("32-true", "16-mixed", "bf16-mixed")
    )


def refit_cluster_probe(cfg: DictConfig) -> None:
    """Replace the cluster probe by k-means of the training images' codes, without labels; nothing else changes."""
    require_checkpoint(Path(cfg.checkpoint), "checkpoint")
    from eagle.reports.cluster_probe_refit import refit

    refit(Path(cfg.checkpoint), Path(cfg.output), cfg)
    print(f"{cfg.output}: {cfg.checkpoint} with its cluster probe refitted; evaluate it to match clusters to classes")


if __name__ == "__main__":
    run_command(RefitConfig, refit_cluster_probe)
