"""Benchmark EAGLE's training step and evaluation against a naive version of the released algorithm."""

from dataclasses import dataclass

from eagle.config.schema import key
from eagle.files import default_folder


@dataclass
class BenchmarkConfig:
    """Every key of ``scripts/benchmark.py``."""

    device: str = key("auto", "Device of both sides; auto uses cuda if available", choices=("auto", "cpu", "cuda"))
    model_type: str = key("vit_small", "Backbone, as in training")
    dino_patch_size: int = key(8, "Patch size of a DINO backbone", minimum=1)
    pretrained_weights: str | None = key("random", "Backbone weights, as in training; their values do not affect times")
    res: int = key(224, "Side of the training images, pixels", minimum=1)
    eval_res: int = key(320, "Side of the evaluated images, pixels", minimum=1)
    batch_size: int | None = key(None, "Images per batch; none = 8 on the CPU, 32 on a GPU", minimum=2)
    n_classes: int = key(27, "Classes of the probes", minimum=1)
    repeats: int = key(5, "Timed runs of each side, in turn; the median is reported", minimum=1)
    num_workers: int = key(2, "Loader processes", minimum=0)
    published: bool = key(True, "Also measure the released algorithm; false leaves its columns empty")
    sections: list[str] = key(
        ["all"],
        "What to measure: all, or some of data, backbone, eigen, eicue, correspondence, object_nce, step, cached, "
        "views, bf16, crf, evaluation, scaling, floor",
    )
    seed: int = key(0, "Seed of images and weights", minimum=0)
    out: str = key(default_folder("outputs/benchmark"), "Folder of benchmark.json and benchmark.md", path=True)
