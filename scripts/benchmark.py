"""Measure time and peak memory of the released algorithm and of ours, part by part: see docs/performance.md."""

from omegaconf import DictConfig

from eagle.config.application import run_command
from eagle_benchmarks import BenchmarkConfig


def benchmark(cfg: DictConfig) -> None:
    """Compare training step and evaluation with the released algorithm; write benchmark.json and benchmark.md."""
    from eagle_benchmarks.run import run

    print("\n" + run(cfg).text())


if __name__ == "__main__":
    run_command(BenchmarkConfig, benchmark)
