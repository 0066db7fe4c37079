"""Measure time and peak memory of the released algorithm and of ours, part by part: see docs/performance.md."""

from dataclasses import dataclass

from omegaconf import DictConfig

from eagle.config.application import run_command
from eagle.config.schema import option
from eagle.files import default_folder


@dataclass
class BenchmarkConfig:
    """Every key of ``benchmark.py``."""

    device: str = option("auto", "Device of both sides; auto uses cuda if available", choices=("auto", "cpu", "cuda"))
    model_type: str = option("vit_small", "Backbone, as in training; its weights are random")
    res: int = option(224, "Side of the training images, pixels", minimum=1)
    eval_res: int = option(320, "Side of the evaluated images, pixels", minimum=1)
    batch_size: int | None = option(None, "Images per batch; none = 8 on the CPU, 32 on a GPU", minimum=2)
    repeats: int = option(5, "Timed runs of each side, in turn; the median is reported", minimum=1)
    sections: list[str] = option(
        ["all"], "What to measure: all, or some of backbone, eigen, step, cached, views, bf16, crf, evaluation"
    )
    out: str = option(default_folder("outputs/benchmark"), "Folder of benchmark.jsonl and benchmark.md", path=True)


def benchmark(cfg: DictConfig) -> None:
    """Compare training step and evaluation with the released algorithm; write benchmark.jsonl and benchmark.md."""
    from eagle_benchmarks.run import run

    run(cfg)


if __name__ == "__main__":
    run_command(BenchmarkConfig, benchmark)
