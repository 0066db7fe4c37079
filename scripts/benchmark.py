"""Times and peak memory of the published algorithm and of ours, stage by stage: see docs/performance.md."""

from omegaconf import DictConfig

from eagle.config.command_line import run_command
from eagle_benchmarks.run import run
from eagle_benchmarks.settings import BenchmarkConfig


def benchmark(cfg: DictConfig) -> None:
    """Measure training step and evaluation beside the published algorithm; writes benchmark.json and benchmark.md."""
    print("\n" + run(cfg).text())


if __name__ == "__main__":
    run_command(BenchmarkConfig, benchmark)
