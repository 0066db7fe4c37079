"""The keys of ``scripts/benchmark.py``."""

from dataclasses import dataclass

from eagle.config.schema import key
from eagle.default_folders import default_folder


@dataclass
class BenchmarkConfig:
    """Every key of ``scripts/benchmark.py``."""

    device: str = key("auto", "Where to compute; auto is cuda where there is one", choices=("auto", "cpu", "cuda"))
    model_type: str = key("vit_small", "Backbone, as in training")
    dino_patch_size: int = key(8, "Patch size of a DINO backbone", minimum=1)
    pretrained_weights: str | None = key("random", "Backbone weights, as in training; their values change no times")
    res: int = key(224, "Side of the training images, pixels", minimum=1)
    eval_res: int = key(320, "Side of the evaluated images, pixels", minimum=1)
    batch_size: int | None = key(None, "Images per batch; none = 8 on the CPU, 32 on a GPU", minimum=2)
    n_classes: int = key(27, "Classes of the probes", minimum=1)
    repeats: int = key(5, "Alternating runs of each side; medians are reported", minimum=1)
    num_workers: int = key(2, "Loader processes", minimum=0)
    published: bool = key(True, "Measure the published algorithm too; false leaves its columns empty")
    sections: list[str] = key(["all"], "What to measure; all, or some of the names that a wrong one is answered with")
    seed: int = key(0, "Seed of images and weights", minimum=0)
    out: str = key(default_folder("outputs/benchmark"), "Folder of benchmark.json and benchmark.md", path=True)
