"""Convert a checkpoint: ``python scripts/convert_checkpoint.py source=RUN/best.ckpt target=best.safetensors``."""

from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from eagle.config.application import run_command
from eagle.config.schema import REQUIRED, option


@dataclass
class ConvertConfig:
    """Every key of ``convert_checkpoint.py``."""

    source: str = option(REQUIRED, "Checkpoint to read: .ckpt (released or ours), or .safetensors with its .yml")
    target: str = option(REQUIRED, "File to write: NAME.safetensors (with NAME.yml), or NAME.ckpt")


def convert_checkpoint(cfg: DictConfig) -> None:
    """Convert between .ckpt and slim .safetensors with a YAML configuration; optimiser state is dropped."""
    from eagle.checkpoints import convert

    source, target = Path(cfg.source), Path(cfg.target)
    convert(source, target)
    print(f"{source} ({source.stat().st_size / 1e6:.1f} MB) → {target} ({target.stat().st_size / 1e6:.1f} MB)")


if __name__ == "__main__":
    run_command(ConvertConfig, convert_checkpoint)
