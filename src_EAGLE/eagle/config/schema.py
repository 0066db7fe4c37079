"""Schema of every configuration key: its type, default, allowed values, meaning and role.

The YAML files in ``configs/`` set only what differs from these defaults; ``python COMMAND --help`` prints the
meanings. Published EAGLE and STEGO key names are kept.
"""

from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any, Literal

from omegaconf import MISSING as REQUIRED  # noqa: F401  default of a required key

from eagle.config.refinement import REFINEMENTS
from eagle.files import default_folder

# Value of pretrained_weights for random initialisation.
RANDOM_WEIGHTS = "random"
# NumPy takes no larger one.
MOST_SEED = 2**32 - 1
# Lightning's others would leave the weights in float32, or the spectral part in half precision.
PRECISIONS = ("32-true", "16-mixed", "bf16-mixed")
CRF_BACKENDS = ("auto", "torch", "pydensecrf")

# Role of a key: used to resume, compare, load and cache runs.
#
# role        changes the result  may change on resume
# method      yes                 no
# model       yes                 no                    architecture: a checkpoint with an invalid value does not load
# backbone    yes                 no                    as model, and the keys K of an image depend on it
# data        yes                 no                    the images that are trained on
# seed        yes                 no                    no setting: runs that differ in it alone are repetitions
# adjustable  yes                 yes                   length, validation and the file of the backbone's weights
# numerics    yes                 yes                   precision; K depends on it
# machine     no                  yes                   where and how fast a run computes, and what it writes
Role = Literal["method", "model", "backbone", "data", "seed", "adjustable", "numerics", "machine"]


def key(
    default: Any,
    meaning: str,
    *,
    role: Role,
    choices: tuple[str, ...] = (),
    minimum: float | None = None,
    above: float | None = None,
    maximum: float | None = None,
    path: bool = False,
) -> Any:
    """Declare one configuration key of a schema dataclass.

    Args:
        default: value if neither YAML nor command line sets the key; lists and dicts are copied per instance.
        meaning: one sentence for ``--help``.
        role: what the key decides (see ``Role``).
        choices: allowed strings; empty allows any.
        minimum: smallest allowed value.
        above: exclusive lower bound.
        maximum: largest allowed value.
        path: the value is a file or folder, or a list of them.
    """
    limits = {"minimum": minimum, "above": above, "maximum": maximum}
    metadata = {"meaning": meaning, "role": role, "choices": choices, **limits, "path": path}
    if isinstance(default, (list, dict)):
        return field(default_factory=lambda: default.copy(), metadata=metadata)
    return field(default=default, metadata=metadata)


# Shorthands by role; option is for keys that no training run records.
method, model, backbone, data, adjustable, numerics, machine = (
    partial(key, role=role) for role in ("method", "model", "backbone", "data", "adjustable", "numerics", "machine")
)
option = machine


def keys_with(schema: type, *roles: Role) -> list[str]:
    """Names of a schema's keys that have one of ``roles``, in the schema's order."""
    return [item.name for item in fields(schema) if item.metadata["role"] in roles]


@dataclass
class DeviceConfig:
    """The device of a command, and the precision of its network."""

    accelerator: str = machine("auto", "Lightning accelerator: auto, cpu, gpu, mps …")
    precision: str = numerics(
        "32-true",
        "Lightning precision of backbone and head; the spectral part and the losses stay in float32. auto = "
        "bf16-mixed on devices that compute bfloat16 natively, else 32-true",
        choices=("auto", *PRECISIONS),
    )


@dataclass
class MachineConfig(DeviceConfig):
    """Devices, processes and precision of a command, as arguments of Lightning's Trainer."""

    devices: Any = machine("auto", "Number of devices, list of device ids, or auto for all devices")
    num_nodes: int = machine(1, "Number of machines", minimum=1)
    strategy: str = machine("auto", "Lightning strategy, e.g. auto or ddp")
    matmul_precision: str = numerics(
        "highest",
        "Float32 precision of backbone, head and losses (torch.set_float32_matmul_precision; TF32 convolutions unless "
        "highest). high and medium are faster on recent GPUs; the spectral part always uses highest",
        choices=("highest", "high", "medium"),
    )
    num_workers: int = machine(4, "Data loader processes per device; 0 = load images in the main process", minimum=0)


@dataclass
class DatasetFolderConfig:
    """Where a dataset lies, and which part of it is used."""

    pytorch_data_dir: str = machine(default_folder("datasets"), "Folder that holds all datasets", path=True)
    dir_dataset_name: str | None = data(None, "Folder of a directory dataset in pytorch_data_dir")
    dir_dataset_n_classes: int | None = data(
        None, "Number of classes of a directory dataset; none = number of lines of its classes.txt", minimum=1
    )
    crop_ratio: float = data(0.5, "Side length of a crop as a fraction of its image's", above=0, maximum=1)
    potsdam_unlabelled: bool = data(
        False,
        "Potsdam: train on the tiles of labelled_train.txt and unlabelled_train.txt; false = labelled_train.txt only, "
        "as released",
    )


@dataclass
class DatasetConfig(DatasetFolderConfig):
    """Dataset, and the crops made of it."""

    dataset_name: str = data(
        "directory",
        "Dataset: cocostuff27, cityscapes, potsdam …; directory = your own images (eagle.data.datasets.catalog)",
    )
    crop_type: str | None = data(
        None,
        "Train on crops of crop_datasets.py: five = corners and centre; random = five positions; none = whole images",
        choices=("five", "random"),
    )


@dataclass
class BackboneConfig:
    """Frozen backbone that computes the keys K."""

    model_type: str = backbone(
        "vit_small",
        "Backbone: vit_small or vit_base = DINO with dino_patch_size; or the name of a timm ViT (docs/backbones.md)",
    )
    dino_patch_size: int = backbone(
        8, "Patch size of vit_small or vit_base: 8 or 16; timm models have their own", minimum=1
    )
    pretrained_weights: str | None = adjustable(
        None,
        "Backbone weights: a .pth or .safetensors file; random = random initialisation; none = pretrained weights of "
        "model_type",
        path=True,
    )
    backbone_kwargs: dict[str, Any] = backbone({}, "Further arguments of timm.create_model, e.g. {num_heads: 3}")
    key_blocks: list[int] | None = backbone(
        None,
        "Indices of the ViT blocks whose attention keys are concatenated to K, ascending; negative indices count from "
        "the end; none = the last three blocks",
    )


@dataclass
class BadImageConfig:
    """Handling of images that cannot be read."""

    on_bad_image: str = machine(
        "error",
        "If an image or label cannot be read: error = stop and name the file; skip = check all images before the "
        "start, leave out bad ones and list them",
        choices=("error", "skip"),
    )


@dataclass
class TrainConfig(MachineConfig, DatasetConfig, BackboneConfig, BadImageConfig):
    """Every key of ``train_segmentation_eigen.py``; defaults are those of the released COCO-Stuff ViT-S/8 run."""

    res: int = method(
        224, "Training image size in pixels (short side, then centre crop); a multiple of the patch size", minimum=1
    )
    val_res: int = adjustable(
        320, "Validation image size in pixels (short side, then centre crop); a multiple of the patch size", minimum=1
    )
    batch_size: int = method(32, "Images per step on each device", minimum=1)

    gather_batch: bool = method(
        False,
        "Compute prototypes, negatives and correlations over the images of all devices; false = on each device "
        "separately, as released",
    )

    dim: int = model(512, "Channels of a code", minimum=1)
    projection_type: str = model(
        "nonlinear",
        "Segmentation head: linear, or nonlinear = linear plus a two-layer branch",
        choices=("nonlinear", "linear"),
    )
    dropout: bool = method(True, "Channel dropout (p = 0.1) on the losses' keys; in training the head always has it")

    cache_features: str = machine(
        "off",
        "Compute the keys of validation images and unaugmented training images once and keep them in fp16: ram = in "
        "memory; disk = in files below cache_dir, which later runs with the same backbone and images reuse",
        choices=("off", "ram", "disk"),
    )
    cached_views: int = method(
        0,
        "Number of fixed augmentations per training image, of which each step draws one. With cache_features their "
        "keys are cached too, so that later epochs need no backbone. 0 = a new augmentation in each step, as released",
        minimum=0,
    )
    cache_dir: str = machine(default_folder("cache"), "Folder for cache_features=disk", path=True)
    compile: bool = machine(
        False, "Compile backbone and head with torch.compile; worthwhile for GPU runs longer than a few minutes"
    )

    fidelity: str = method(
        "released",
        "Default of color_affinity, aug_color_image, photometric and lambda_schedule, in which released code and paper "
        "differ; typed, it counts more than these keys in a YAML file. strict = released, and eigen_signs and "
        "matmul_precision as released too, which makes the result depend on the machine",
        choices=("released", "paper", "strict"),
    )
    color_affinity: str = method(
        "released",
        "Pixel values in the colour affinity: released = normalised image / 255; paper = RGB in [0, 1]",
        choices=("released", "paper"),
    )
    eicue_affinity: str = method(
        "both",
        "Affinity of EiCue's graph: both = colour + code, as released since 30 August 2024; colour = colour alone, as "
        "released until then (docs/differences.md)",
        choices=("both", "colour"),
    )
    aug_color_image: str = method(
        "released",
        "Colours in the affinity of the augmented view: released = those of x; paper = its own",
        choices=("released", "paper"),
    )
    photometric: str = method(
        "released",
        "Photometric augmentation: released = blur; paper = blur, colour jitter and grayscale",
        choices=("released", "paper"),
    )
    lambda_schedule: str = method(
        "released",
        "Weight λ of the object-centric loss: released = 0 up to and including step step_schedulers, then "
        "momentum_limit; paper = linear ramp from 0 to momentum_limit over step_schedulers steps",
        choices=("released", "paper"),
    )

    eigen_cluster: int = model(
        4, "Number of Laplacian eigenvectors (smallest eigenvalues), including the trivial first one", minimum=2
    )
    eigen_cluster_out: int = model(
        32, "Number of centres in each EiCue codebook, i.e. of possible EiCue labels", minimum=1
    )
    eigen_signs: str = method(
        "fixed",
        "Signs of eigenvectors: fixed = at most half of each eigenvector's entries are positive, on every machine; "
        "released = those of a full decomposition (whatever eigensolver says), negated for all eigenvectors of an "
        "image if most of their entries are positive",
        choices=("fixed", "released"),
    )
    eigensolver: str = method(
        "subspace",
        "Solver for the smallest eigenpairs: subspace = block iteration; eigh = full decomposition",
        choices=("subspace", "eigh"),
    )

    correspondence_weight: float = method(1.0, "Weight of the correspondence distillation loss")
    pos_inter_weight: float = method(0.25, "Weight of positive pairs in the correspondence loss")
    neg_inter_weight: float = method(0.63, "Weight of negative pairs in the correspondence loss")
    feature_samples: int = method(
        11,
        "Side of the grid of sampled points in the correspondence loss: feature_samples² points per image",
        minimum=1,
    )
    neg_samples: int = method(
        5, "Number of random permutations of the batch that form negative pairs in the correspondence loss", minimum=1
    )
    shift_value: float = method(3.5, "Factor of the shift of negative pairs in the correspondence loss")
    shift_bias: float = method(0.0, "Constant subtracted in the shifts of positive and negative pairs")
    pointwise: bool = method(
        True,
        "Subtract from each point's feature correlations their mean over the other image's points, and add the mean of "
        "all",
    )
    zero_clamp: bool = method(True, "Clamp code correlations to at least 0")
    stabalize: bool = method(True, "Clamp code correlations to at most 0.8 (published spelling of the key)")

    local_pos_weight: float = method(0.85, "Weight of the ObjNCE loss from x to its augmented view")
    local_pos_aug_weight: float = method(0.85, "Weight of the ObjNCE loss from the augmented view to x")
    global_loss_weight: float = method(
        0.7, "Weight of the other view's patches in ObjNCE; the same view's get 1 minus this", minimum=0, maximum=1
    )
    contrastive_temp: float = method(0.07, "Temperature of ObjNCE", above=0)
    centroid_mode: str = model(
        "prototype",
        "Prototype of an EiCue label: prototype or medoid = medoid of its patches; mean = their mean; learned = a "
        "trained vector",
        choices=("prototype", "medoid", "mean", "learned"),
    )
    prototype_scope: str = method(
        "batch",
        "Patches that share prototypes and negatives in ObjNCE: batch = those of all images in the batch, as "
        "released; image = those of one image, since eigenvectors of different images are not comparable",
        choices=("batch", "image"),
    )
    label_smoothing: float | None = method(
        None,
        "Label smoothing of ObjNCE; none = 0.1 for cityscapes and 0 otherwise, as released. At 0 each patch's loss is "
        "multiplied by its patch weight; above 0 the mean loss is multiplied by the mean patch weight",
        minimum=0,
        maximum=0.999,
    )

    max_steps: int = adjustable(
        10000,
        "Length of the run in optimiser steps, one batch each. If the released runs counted the steps of all seven "
        "optimisers (docs/differences.md), divide max_steps and step_schedulers by 7 to train as long",
        minimum=1,
    )
    step_schedulers: int = method(
        200,
        "Last step with λ = 0 (released) or end of the ramp of λ to momentum_limit (paper); steps count from 0",
        minimum=0,
    )
    momentum_limit: float = method(
        0.9, "Weight λ of the object-centric loss after step_schedulers steps", minimum=0, maximum=1
    )
    lr: float = method(5e-4, "Learning rate of head and projection (Adam, constant)", minimum=0)
    lr_linear: float = method(1e-3, "Learning rate of the linear probe", minimum=0)
    lr_cluster: float = method(5e-3, "Learning rate of the cluster probe", minimum=0)
    lr_cluster_eigen: float = method(5e-5, "Learning rate of the two EiCue codebooks", minimum=0)
    extra_clusters: int = model(5, "Clusters of the cluster probe in addition to one per class", minimum=0)

    fit_clusters: str = machine(
        "off",
        "Clusters after training: tree = also fit a tree of clusters to the codes, without labels, and write "
        "last_tree.ckpt (see fit_clusters.py); off = the trained cluster probe alone, as released",
        choices=("off", "tree"),
    )
    output_root: str = machine(default_folder("outputs"), "Folder in which run folders are created", path=True)
    experiment_name: str | None = machine(None, "Name of the run folder; none = dataset, model and time")
    ckpt_path: str | None = machine(
        None,
        "Checkpoint to resume from: last = the newest of the run experiment_name, or start it if there is none; a "
        "path = that checkpoint; none = start a new run",
    )
    seed: int = key(0, "Seed of all random number generators", minimum=0, maximum=MOST_SEED, role="seed")
    deterministic: bool = machine(
        False, "Use deterministic GPU kernels only, so a GPU run repeats bit by bit; a few percent slower"
    )
    scalar_log_freq: int = machine(10, "Steps between logged losses and between progress bar updates", minimum=1)
    val_freq: int = adjustable(100, "Steps between validations", minimum=1)
    n_images: int = machine(
        4,
        "Validation images in the figure drawn after each validation, next to confusion matrix and class frequencies; "
        "0 = draw no figures",
        minimum=0,
    )
    pictures_kept: int = machine(
        10,
        "Number of validations, evenly spaced, whose figures stay in the run folder; the latest one's always do",
        minimum=1,
    )
    checkpoint_freq: int = machine(100, "Steps between saves of last.ckpt", minimum=1)
    wandb: bool = machine(False, "Also log to Weights & Biases; offline if nobody is logged in")
    project_name: str = machine("EAGLE", "Weights & Biases project")
    entity: str | None = machine(None, "Weights & Biases user or team; none = the account's default")
    tensorboard: bool = machine(False, "Also log to TensorBoard")


@dataclass
class EvalConfig(MachineConfig, BadImageConfig):
    """Every key of ``eval_segmentation.py``; model and dataset come from the checkpoint."""

    model_paths: list[str] = machine([], "Checkpoints to evaluate", path=True)
    output_dir: str | None = machine(
        None,
        "Folder for scores, pictures and report, e.g. if the checkpoint's is read-only; none = beside the checkpoint",
        path=True,
    )
    pytorch_data_dir: str | None = data(
        None,
        "Folder that holds all datasets; none = the checkpoint's, or the default folder if that does not exist",
        path=True,
    )
    res: int | None = method(
        None,
        "Image size in pixels (short side; and centre crop if crop=true); none = the checkpoint's val_res",
        minimum=1,
    )
    crop: bool = method(True, "Score the central square of each image, as published; false = score whole images")
    flip: bool = method(True, "Average the codes of each image and of its mirror image, as released")
    window: int | None = method(
        None,
        "Side in pixels of overlapping windows into which larger images are split, with blended predictions; none = "
        "no windows",
        minimum=1,
    )
    batch_size: int = machine(16, "Images per batch", minimum=1)
    cluster_alpha: float = method(
        4.0, "Inverse temperature of the cluster probe's softmax, whose probabilities enter the CRF", above=0
    )
    n_clusters: int | None = method(
        None,
        "Number of clusters at which the tree of fit_clusters.py is cut; none = as many as the trained probe has, and "
        "also two, three and four times the number of classes",
        minimum=1,
    )
    kmeans: bool = method(
        False, "Also score k-means on the backbone's keys K, with the checkpoint's seed and number of clusters"
    )
    run_crf: bool = method(True, "Also score both probes after a dense CRF (published key; see refine)")
    refine: str = method(
        "auto",
        "Also score refined maps: crf = dense CRF; spectral = class probabilities smoothed on the image's own patch "
        "graph; both = spectral, and then the CRF; none = neither; auto = crf if run_crf, else none",
        choices=REFINEMENTS,
    )
    crf_backend: str = method(
        "auto",
        "Dense CRF implementation: torch = ours, compiled by numba on the CPU; pydensecrf (pip install -e .[crf]) on "
        "one core; auto = torch",
        choices=CRF_BACKENDS,
    )
    run_prediction: bool = machine(
        False,
        "Also write every image's predicted classes as PNG, as class ids and in colour (the released code ignores "
        "this key)",
    )
    n_images: int = machine(6, "Images in the picture grid", minimum=0)
    report: bool = machine(True, "Also write the evaluation as one HTML page next to the checkpoint")
