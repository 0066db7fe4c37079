"""Every file in configs/ is a complete, valid configuration, and the published ones hold the published values."""

import pytest
import yaml
from omegaconf import OmegaConf

import crop_datasets
from eagle.commandline import parse_command_line
from eagle.config import EvalConfig, TrainConfig
from eagle.config_validation import CONFIG_DIR
from eagle.errors import ConfigError
from eagle.losses.object_nce import ObjectNCELoss
from fixtures.write_published_configs import PUBLISHED_KEYS

SCHEMAS = {"train_config": TrainConfig, "eval_config": EvalConfig, "crop_config": crop_datasets.CropConfig}
FILES = sorted(path.stem for path in CONFIG_DIR.glob("*.yml"))

# The published hyper-parameters, as the project's design notes list them.
COMMON = yaml.safe_load("""{
    res: 224, val_res: 320, crop_type: five, crop_ratio: 0.5, batch_size: 32, dino_patch_size: 8, dim: 512,
    dropout: true, projection_type: nonlinear, neg_samples: 5, contrastive_temp: 0.07, global_loss_weight: 0.7,
    local_pos_weight: 0.85, local_pos_aug_weight: 0.85, shift_value: 3.5, correspondence_weight: 1, pointwise: true,
    zero_clamp: true, stabalize: true, centroid_mode: prototype, eigen_cluster: 4, lr: 5.0e-4, val_freq: 100,
    checkpoint_freq: 100, scalar_log_freq: 10, fidelity: released, pretrained_weights: null}""")
COCOSTUFF = COMMON | yaml.safe_load("""{
    dataset_name: cocostuff27, model_type: vit_small, max_steps: 10000, step_schedulers: 200, momentum_limit: 0.9,
    lr_linear: 1.0e-3, lr_cluster: 5.0e-3, lr_cluster_eigen: 5.0e-5, eigen_cluster_out: 32, extra_clusters: 5,
    feature_samples: 11, neg_inter_weight: 0.63, pos_inter_weight: 0.25, shift_bias: 0}""")
CITYSCAPES = COMMON | yaml.safe_load("""{
    dataset_name: cityscapes, model_type: vit_base, max_steps: 6000, step_schedulers: 380, momentum_limit: 0.7,
    lr_linear: 5.0e-3, lr_cluster: 3.0e-3, lr_cluster_eigen: 5.0e-4, eigen_cluster_out: 28, extra_clusters: 1,
    feature_samples: 28, neg_inter_weight: 1.0, pos_inter_weight: 0.18, shift_bias: 0.11}""")
RECIPES = {
    "train_config_cocostuff": COCOSTUFF,
    "train_config_cityscapes": CITYSCAPES,
    "train_config_cocostuff_vitb8": COCOSTUFF | {"model_type": "vit_base"},
    "train_config_cityscapes_vits8": CITYSCAPES | {"model_type": "vit_small"},
}


def composed(name, *words):
    schema = next(schema for prefix, schema in SCHEMAS.items() if name.startswith(prefix))
    return parse_command_line(schema, ["--config-name", name, *words])


@pytest.mark.parametrize("name", FILES)
def test_file__composes_and_validates(name):
    config = composed(name)
    for key, value in OmegaConf.load(CONFIG_DIR / f"{name}.yml").items():
        assert config[key] == value


@pytest.mark.parametrize("name", RECIPES)
def test_recipe__has_the_published_values(name):
    config = composed(name)
    assert {key: config[key] for key in RECIPES[name]} == RECIPES[name]


def test_recipe__smoothing_is_cityscapes_alone():
    smoothing = {name: ObjectNCELoss(composed(name), 4).label_smoothing for name in FILES if name in RECIPES}
    assert {name: value for name, value in smoothing.items() if "cityscapes" in name} == {
        "train_config_cityscapes": 0.1,
        "train_config_cityscapes_vits8": 0.1,
    }
    assert {value for name, value in smoothing.items() if "cocostuff" in name} == {0}


def test_potsdam__differs_from_cocostuff_where_its_comments_say():
    name = "train_config_potsdam"
    config, base = composed(name), composed("train_config_cocostuff")
    differing = {key for key in config if config[key] != base[key]}
    assert differing == {"dataset_name", "crop_type", "model_type", "extra_clusters", "max_steps"}


def test_fidelity__both_files_compose():
    for fidelity in ("released", "paper"):
        assert composed("train_config_cocostuff", f"fidelity={fidelity}").photometric == fidelity


@pytest.mark.parametrize(
    ("schema", "word", "expected"),
    [
        (EvalConfig, "model_paths=x.ckpt", ["x.ckpt"]),
        (EvalConfig, "model_paths=[a.ckpt,b.ckpt]", ["a.ckpt", "b.ckpt"]),
        (crop_datasets.CropConfig, "dataset_name=potsdam", ["potsdam"]),
        (crop_datasets.CropConfig, "splits=val", ["val"]),
        (TrainConfig, "key_blocks=3", [3]),
        (TrainConfig, "key_blocks=null", None),
    ],
)
def test_list_key__lone_value_is_a_list_of_one(schema, word, expected):
    assert parse_command_line(schema, [word])[word.split("=")[0]] == expected


@pytest.mark.parametrize("word", ["key_blocks=last", "key_blocks=true", "key_blocks=2.5", "key_blocks={a: 1}"])
def test_list_key__wrong_type_is_still_an_error(word):
    with pytest.raises(ConfigError, match=r"^key_blocks: "):
        parse_command_line(TrainConfig, [word])


def test_lone_key__a_list_is_still_an_error():
    with pytest.raises(ConfigError, match=r"^model_type: "):
        parse_command_line(TrainConfig, ["model_type=[vit_small]"])


# STEGO's and EAGLE's evaluation settings, written down from their documentation.
PUBLISHED_EVALUATION = {
    "output_root": "../", "pytorch_data_dir": "/data", "experiment_name": "exp1", "log_dir": "coco", "num_workers": 10,
    "azureml_logging": False, "submitting_to_aml": False, "use_ddp": True, "batch_size": 16, "res": 320,
    "run_prediction": False, "run_crf": True, "dark_mode": False, "model_paths": ["x.ckpt"],
}  # fmt: skip


@pytest.mark.parametrize(
    ("schema", "published"),
    [
        (TrainConfig, PUBLISHED_KEYS),
        (EvalConfig, PUBLISHED_EVALUATION),
    ],
)
def test_published_yaml__loads_as_it_is_and_says_what_it_passes_over(tmp_path, caplog, schema, published):
    path = tmp_path / "people_have.yml"
    path.write_text(yaml.safe_dump(published | {"hydra": {"run": {"dir": "."}, "output_subdir": None}}))
    config = parse_command_line(schema, ["--config-name", str(path)])
    for key, value in published.items():
        if key in config:
            assert config[key] == value
        else:
            assert f"{key}: this published key steers nothing here" in caplog.text
    assert "res: " not in caplog.text
