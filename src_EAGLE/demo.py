"""Serve a web page that segments photographs: ``python demo.py checkpoint=CHECKPOINT``."""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from omegaconf import DictConfig

from eagle.config.application import run_command
from eagle.config.schema import REQUIRED, key
from eagle.downloads.catalog import require_checkpoint
from eagle.errors import ConfigError


@dataclass
class DemoConfig:
    """Every key of ``demo.py``."""

    checkpoint: str = key(REQUIRED, "Trained segmenter: a .ckpt (released or ours) or a .safetensors with its .yml")
    cluster_names: str | None = key(
        None, "Text file with one cluster name per line: equal names form one class, an empty line means no class"
    )
    device: str = key("auto", "auto = a CUDA GPU, else Apple's GPU, else the CPU; or cpu, mps, cuda, cuda:1")
    precision: str = key(
        "32-true", "Lightning precision of backbone and head", choices=("32-true", "16-mixed", "bf16-mixed")
    )
    host: str = key("127.0.0.1", "Address to listen on: 127.0.0.1 = this computer only, 0.0.0.0 = your whole network")
    port: int = key(7860, "Port to listen on; 0 = any free one", minimum=0, maximum=65535)


def demo(cfg: DictConfig) -> None:
    """Serve a web page that segments photographs and shows eigenvectors and EiCue, until Ctrl-C.

    The page loads nothing from other addresses, and usage statistics are off.
    """
    require_checkpoint(Path(cfg.checkpoint), "checkpoint")
    if find_spec("gradio") is None:
        raise ConfigError("the page needs gradio: pip install -e .[demo]")
    from eagle.demo.server import serve

    serve(cfg)


def main() -> None:
    """Run the command."""
    run_command(DemoConfig, demo)


if __name__ == "__main__":
    main()
