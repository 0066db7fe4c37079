"""Export for deployment: ``python scripts/export_checkpoint.py source=RUN/best.ckpt target=best.onnx``."""

from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from eagle.config.application import run_command
from eagle.config.schema import REQUIRED, option


@dataclass
class ExportConfig:
    """Every key of ``export_checkpoint.py``."""

    source: str = option(REQUIRED, "Checkpoint to read: .ckpt (released or ours), or .safetensors with its .yml")
    target: str = option(REQUIRED, "File to write: NAME.pt2 (torch.export) or NAME.onnx")
    cluster_alpha: float = option(
        4.0, "Alpha of the cluster probe: its probabilities are softmax(alpha · cosine similarity)", above=0
    )


def export(cfg: DictConfig) -> None:
    """Export backbone, head and both probes as one graph with dynamic batch and image size, checked against eager."""
    from eagle.inference.export import export_checkpoint

    target = Path(cfg.target)
    difference = export_checkpoint(Path(cfg.source), target, cfg.cluster_alpha)
    print(f"{target}: {target.stat().st_size / 1e6:.1f} MB, log-probabilities within {difference:.1e} of eager mode")


if __name__ == "__main__":
    run_command(ExportConfig, export)
