"""Typed schema of every configuration key: its type, default, allowed values and meaning, in one place.

The YAML files in ``configs/`` set only what differs from these defaults; ``python COMMAND --help`` prints the same
text. Published EAGLE and STEGO key names are kept.
"""

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING as REQUIRED  # noqa: F401  the default of a key that must be given

from eagle.default_folders import default_folder

# The value of pretrained_weights that is no file.
RANDOM_WEIGHTS = "random"


def key(
    default: Any,
    meaning: str,
    *,
    choices: tuple[str, ...] = (),
    minimum: float | None = None,
    above: float | None = None,
    maximum: float | None = None,
    path: bool = False,
) -> Any:
    """One configuration key of a schema dataclass.

    Args:
        default: value where the YAML and the command line are silent; lists and dicts are copied per instance.
        meaning: one sentence for ``--help`` and the README.
        choices: the strings allowed; empty for any.
        minimum: smallest value allowed.
        above: the value must be larger than this.
        maximum: largest value allowed.
        path: the value is a file or folder, or a list of them.
    """
    limits = {"minimum": minimum, "above": above, "maximum": maximum}
    metadata = {"meaning": meaning, "choices": choices, **limits, "path": path}
    if isinstance(default, (list, dict)):
        return field(default_factory=lambda: default.copy(), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass
class MachineConfig:
    """Where a command computes; the values are handed to Lightning's Trainer as they are."""

    accelerator: str = key("auto", "Lightning accelerator: auto, cpu, gpu, mps …")
    devices: Any = key("auto", "Number of devices, a list of their ids, or auto for all")
    num_nodes: int = key(1, "Number of machines", minimum=1)
    strategy: str = key("auto", "Lightning strategy, e.g. auto, ddp")
    precision: str = key(
        "32-true",
        "Lightning precision of backbone and head; the spectral part and the losses stay in float32",
        choices=("32-true", "16-mixed", "bf16-mixed"),
    )
    rank_timeout: float = key(
        600, "Seconds that the processes of a run wait for one another; then a dead one ends the run", above=0
    )
    num_workers: int = key(4, "Loader processes per device; 0 loads in the training process", minimum=0)


@dataclass
class DatasetConfig:
    """Which images are read."""

    dataset_name: str = key("directory", "Dataset: a name of eagle.data.datasets.catalog, e.g. cocostuff27, directory")
    pytorch_data_dir: str = key(default_folder("datasets"), "Folder that holds the datasets", path=True)
    dir_dataset_name: str | None = key(None, "Sub-folder of pytorch_data_dir, for dataset_name=directory")
    dir_dataset_n_classes: int | None = key(
        None, "Number of classes of a directory dataset; none: the lines of its classes.txt", minimum=1
    )
    crop_type: str | None = key(
        None,
        "Train on the crops that crop_datasets.py made: five or random for each image; none = on whole images",
        choices=("five", "random"),
    )
    crop_ratio: float = key(0.5, "Side of those crops by side of their image", above=0, maximum=1)
    potsdam_unlabelled: bool = key(
        False, "Potsdam: also train on the tiles of unlabelled_train.txt; false = labelled_train.txt alone, as released"
    )


@dataclass
class BackboneConfig:
    """Which frozen backbone gives the keys K."""

    model_type: str = key(
        "vit_small", "vit_small or vit_base for DINO with dino_patch_size, or any timm ViT name, e.g. a DINOv2 one"
    )
    dino_patch_size: int = key(8, "Patch size of a DINO backbone; a timm name brings its own", minimum=1)
    pretrained_weights: str | None = key(
        None, "Backbone weights: none = by the model's name, a .pth or .safetensors file, or the word random", path=True
    )
    backbone_kwargs: dict[str, Any] = key({}, "Further arguments of timm.create_model, e.g. {img_size: 112}")
    key_blocks: list[int] | None = key(
        None, "Blocks whose attention keys form K, ascending, negative from the end; none = the last three"
    )


@dataclass
class BadImageConfig:
    """What happens to images that cannot be read."""

    on_bad_image: str = key(
        "error",
        "An image or label that cannot be read: error = stop and name it; skip = leave it out (training draws another "
        "image in its place) and list it at the end",
        choices=("error", "skip"),
    )


@dataclass
class TrainConfig(MachineConfig, DatasetConfig, BackboneConfig, BadImageConfig):
    """Every key of ``train_segmentation_eigen.py``; the defaults are the published COCO-Stuff ViT-S/8 run's."""

    res: int = key(224, "Training images: short side and centre crop, pixels; a multiple of the patch size", minimum=1)
    val_res: int = key(320, "The same for validation during training", minimum=1)
    batch_size: int = key(32, "Images per batch and device", minimum=1)

    gather_batch: bool = key(
        False,
        "Prototypes, negatives and correlations over the images of all devices; false = each its own, as published",
    )

    dim: int = key(512, "Channels of a code", minimum=1)
    projection_type: str = key(
        "nonlinear", "Segmentation head: linear, or linear plus a two-layer branch", choices=("nonlinear", "linear")
    )
    dropout: bool = key(True, "Channel dropout (0.1) on the keys before the head and before the losses")

    cache_features: str = key(
        "off",
        "Keep the clean training images' keys (fp16), so that they pass the backbone once: in memory, or in files of "
        "cache_dir that later runs with the same backbone and images use too",
        choices=("off", "ram", "disk"),
    )
    cache_dir: str = key(default_folder("cache"), "Folder of cache_features=disk", path=True)
    compile: bool = key(
        False, "Compile backbone and head with torch.compile: pays on GPUs in runs of more than some minutes"
    )

    fidelity: str = key(
        "released",
        "Where published code and paper differ: sets the defaults of the next four keys (configs/fidelity/)",
        choices=("released", "paper"),
    )
    color_affinity: str = key(
        "released",
        "Pixels of the colour affinity: released = normalised image / 255, paper = RGB in [0, 1]",
        choices=("released", "paper"),
    )
    aug_color_image: str = key(
        "released",
        "Image whose colours enter the augmented branch's affinity: released = x, paper = the augmented view",
        choices=("released", "paper"),
    )
    photometric: str = key(
        "released",
        "Augmented view: released = blur, paper = blur, colour jitter and grayscale",
        choices=("released", "paper"),
    )
    lambda_schedule: str = key(
        "released",
        "lambda: released = 0, then momentum_limit after step_schedulers batches; paper = a linear ramp up to there",
        choices=("released", "paper"),
    )

    eigen_cluster: int = key(4, "Eigenvectors taken from the Laplacian, the trivial first one included", minimum=2)
    eigen_cluster_out: int = key(
        32, "Centres of the EiCue codebooks, i.e. the most labels that a cue can have", minimum=1
    )
    eigen_signs: str = key(
        "fixed",
        "Signs of eigenvectors, which solvers leave open: fixed = each so that at most half of its entries are "
        "positive; released = all of an image negated together where more than half of all entries are positive, which "
        "leaves the cue to the solver",
        choices=("fixed", "released"),
    )
    eigensolver: str = key(
        "subspace",
        "Solver of the smallest eigenpairs: block iteration, or a full decomposition",
        choices=("subspace", "eigh"),
    )

    correspondence_weight: float = key(1.0, "Weight of the correspondence distillation loss")
    pos_inter_weight: float = key(0.25, "Weight of its positive pairs")
    neg_inter_weight: float = key(0.63, "Weight of its negative pairs")
    feature_samples: int = key(11, "Points sampled per image are feature_samples squared", minimum=1)
    neg_samples: int = key(5, "Negative permutations of the batch", minimum=1)
    shift_value: float = key(3.5, "Factor of the negative pairs' shift")
    shift_bias: float = key(0.0, "Bias of both shifts")
    pointwise: bool = key(True, "Centre feature correlations over the second image's points")
    zero_clamp: bool = key(True, "Clamp code correlations from below at 0")
    stabalize: bool = key(True, "Clamp code correlations from above at 0.8 (the published spelling)")

    local_pos_weight: float = key(0.85, "Weight of ObjNCE from x to its augmented view")
    local_pos_aug_weight: float = key(0.85, "Weight of ObjNCE from the augmented view to x")
    global_loss_weight: float = key(0.7, "Share of the other view's patches in ObjNCE", minimum=0, maximum=1)
    contrastive_temp: float = key(0.07, "Temperature of ObjNCE", above=0)
    centroid_mode: str = key(
        "prototype",
        "Prototype of a cue label: its medoid (prototype and medoid are the same), mean, or a learned vector",
        choices=("prototype", "medoid", "mean", "learned"),
    )
    label_smoothing: float | None = key(
        None,
        "ObjNCE label smoothing, averaged before the patch weights apply; 0 weighs every patch by itself; "
        "none = 0.1 for cityscapes and 0 elsewhere, as published",
        minimum=0,
        maximum=0.999,
    )

    max_steps: int = key(
        10000,
        "Length of the run in optimiser steps, one batch each. If the released runs counted every optimiser's step "
        "(Lightning 1.6 and later would), they had a seventh of the batches: divide max_steps and step_schedulers by 7",
        minimum=1,
    )
    step_schedulers: int = key(200, "Batches before the object-centric loss sets in", minimum=0)
    momentum_limit: float = key(0.9, "lambda after that: share of the object-centric loss", minimum=0, maximum=1)
    lr: float = key(5e-4, "Learning rate of head and projection (Adam, constant)", minimum=0)
    lr_linear: float = key(1e-3, "Learning rate of the linear probe", minimum=0)
    lr_cluster: float = key(5e-3, "Learning rate of the cluster probe", minimum=0)
    lr_cluster_eigen: float = key(5e-5, "Learning rate of the two EiCue codebooks", minimum=0)
    extra_clusters: int = key(5, "Clusters of the cluster probe beyond the number of classes", minimum=0)

    output_root: str = key(default_folder("outputs"), "Folder that run folders are made in", path=True)
    experiment_name: str | None = key(None, "Run folder's name; none = dataset, model and time")
    ckpt_path: str | None = key(
        None,
        "last = go on with the run that experiment_name names, or begin it; a checkpoint's path = go on with its run; "
        "none = a new run",
    )
    seed: int = key(0, "Seed of every random number generator", minimum=0)
    deterministic: bool = key(
        False, "Only deterministic GPU kernels, so that a run repeats bit by bit on a GPU too; slower by some percent"
    )
    scalar_log_freq: int = key(
        10, "Batches between logged losses, and between the progress bar's looks at the loss", minimum=1
    )
    val_freq: int = key(100, "Batches between validations", minimum=1)
    n_images: int = key(
        4,
        "Validation images in the picture grid that each validation draws, beside confusion matrix and class "
        "frequencies; 0 draws nothing",
        minimum=0,
    )
    pictures_kept: int = key(
        10,
        "Validations whose pictures stay in the run folder: the first, the latest, and others evenly over the run",
        minimum=1,
    )
    checkpoint_freq: int = key(100, "Batches between writes of last.ckpt", minimum=1)
    wandb: bool = key(False, "Also log to Weights & Biases; offline where nobody is logged in")
    project_name: str = key("EAGLE", "Weights & Biases project")
    entity: str | None = key(None, "Weights & Biases user or team; none = the account's default")
    tensorboard: bool = key(False, "Also log to TensorBoard")


@dataclass
class EvalConfig(MachineConfig, BadImageConfig):
    """Every key of ``eval_segmentation.py``; the model and its dataset come from the checkpoint."""

    model_paths: list[str] = key([], "Checkpoints to evaluate", path=True)
    pytorch_data_dir: str | None = key(
        None,
        "Folder that holds the datasets; none = as in training, or the default one where that folder is not here",
        path=True,
    )
    res: int | None = key(None, "Short side in pixels, and centre crop; none = the run's val_res", minimum=1)
    crop: bool = key(True, "Score the central square, as published; false scores whole images of any aspect")
    window: int | None = key(
        None,
        "Side of the overlapping windows that larger images are taken in, blended; none = every image at once",
        minimum=1,
    )
    batch_size: int = key(16, "Images per batch", minimum=1)
    cluster_alpha: float = key(4.0, "Sharpness of the cluster probe's probabilities before the CRF", above=0)
    run_crf: bool = key(True, "Refine both probes' maps with a dense CRF")
    crf_backend: str = key(
        "auto",
        "Dense CRF by our torch lattice or by pydensecrf (pip install -e .[crf]); auto takes the faster: torch",
        choices=("auto", "torch", "pydensecrf"),
    )
    crf_processes: int | None = key(None, "Processes of pydensecrf; none = one for each core, 0 = none", minimum=0)
    run_prediction: bool = key(
        False,
        "Also write every image's predicted classes as PNG, as ids and in colour (the released code ignores this key)",
    )
    n_images: int = key(6, "Images in the grid picture", minimum=0)
    report: bool = key(True, "Also write the evaluation as one HTML page, beside the checkpoint")
