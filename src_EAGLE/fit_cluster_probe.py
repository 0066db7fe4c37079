"""Fit a checkpoint's cluster probe to image regions: ``python fit_cluster_probe.py checkpoint=RUN/best.ckpt``."""

from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from eagle.checkpoints.paths import require_checkpoint
from eagle.config.command_line import run_command
from eagle.config.schema import REQUIRED, BadImageConfig, key


@dataclass
class FitConfig(BadImageConfig):
    """Every key of ``fit_cluster_probe.py``; model and dataset come from the checkpoint."""

    checkpoint: str = key(REQUIRED, "Checkpoint to read: .ckpt (released or ours), or .safetensors with its .yml")
    output: str | None = key(
        None,
        "Checkpoint to write: NAME.ckpt, or NAME.safetensors (with NAME.yml); none = NAME_regions beside the one read",
    )
    pytorch_data_dir: str | None = key(
        None,
        "Folder that holds all datasets; none = the checkpoint's, or the default folder if that does not exist",
        path=True,
    )
    seed: int = key(0, "Seed of the sample of training images and of k-means", minimum=0)
    batch_size: int = key(16, "Images per batch", minimum=1)
    num_workers: int = key(4, "Data loader processes; 0 loads images in the process that computes", minimum=0)
    accelerator: str = key("auto", "Lightning accelerator: auto, cpu, gpu, mps …")
    precision: str = key(
        "32-true", "Lightning precision of backbone and head", choices=("32-true", "16-mixed", "bf16-mixed")
    )


def fit(cfg: DictConfig) -> None:
    """Replace the cluster probe by k-means of region means of the training images, without labels.

    Nothing else in the checkpoint changes.
    """
    source = Path(cfg.checkpoint)
    require_checkpoint(source, "checkpoint")
    target = Path(cfg.output) if cfg.output else source.with_stem(f"{source.stem}_regions")
    from eagle.reports.cluster_probe_fit import fit_cluster_probe

    fit_cluster_probe(source, target, cfg)
    print(f"{target}: {source} with its cluster probe fitted to regions; evaluate it to match clusters to classes")


def main() -> None:
    """Run the command."""
    run_command(FitConfig, fit)


if __name__ == "__main__":
    main()
