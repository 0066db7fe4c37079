"""Every file in configs/ is a complete, valid configuration, and the published ones hold the published values."""

import dataclasses
import importlib.util
from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf

import crop_datasets
from conftest import ROOT
from eagle import commandline
from eagle.commandline import parse_command_line
from eagle.config import EvalConfig, TrainConfig
from eagle.config_validation import CONFIG_DIR
from eagle.errors import ConfigError
from eagle.losses.object_nce import ObjectNCELoss
from fixtures.write_published_configs import PUBLISHED_KEYS

# The commands that have keys of their own, or take a configuration's.
COMMANDS = sorted([*(ROOT / "src_EAGLE").glob("*.py"), *(ROOT / "scripts").glob("*.py")])
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
        if key in ("pytorch_data_dir", "output_root") and value:
            assert Path(config[key]) == ROOT / Path(value).relative_to("..")
        elif key == "model_paths":
            assert list(config[key]) == [str(ROOT / "models/EAGLE_COCO_ViTS8.ckpt")]
        else:
            assert config[key] == value


@pytest.mark.parametrize("place", [".", "src_EAGLE", "src_EAGLE/configs", None])
def test_default_folders__are_the_repositorys_wherever_a_command_runs(monkeypatch, tmp_path, place):
    monkeypatch.chdir(ROOT / place if place else tmp_path)
    for config in (parse_command_line(TrainConfig, []), composed("train_config_cocostuff")):
        assert (config.pytorch_data_dir, config.output_root) == (str(ROOT / "datasets"), str(ROOT / "outputs"))
    assert list(composed("eval_config").model_paths) == [str(ROOT / "models/EAGLE_COCO_ViTS8.ckpt")]


def test_given_paths__are_relative_to_where_the_command_runs(monkeypatch, tmp_path):
    """On the command line and in the user's own YAML, as the published ones have them."""
    (tmp_path / "own.yml").write_text("output_root: ../\npretrained_weights: weights.pth\n")
    monkeypatch.chdir(tmp_path)
    config = parse_command_line(TrainConfig, ["--config-name", "own", "pytorch_data_dir=data"])
    assert (config.output_root, config.pytorch_data_dir, config.pretrained_weights) == ("../", "data", "weights.pth")
    assert composed("train_config_cocostuff", "output_root=mine").output_root == "mine"


def test_files_of_configs__edited_in_place_count_from_their_folder(monkeypatch, tmp_path):
    """`output_root: outputs` there never becomes src_EAGLE/outputs, and words are no paths."""
    monkeypatch.setattr(commandline, "CONFIG_DIR", tmp_path)
    values = {
        "output_root": "outputs",
        "pytorch_data_dir": "/data",
        "pretrained_weights": "random",
        "crop_type": "five",
    }
    (tmp_path / "train_config_edited.yml").write_text(yaml.safe_dump(values))
    monkeypatch.chdir(ROOT / "src_EAGLE")
    assert values | {"output_root": str(tmp_path / "outputs")} == {
        name: value for name, value in composed("train_config_edited").items() if name in values
    }


@pytest.mark.parametrize("command", COMMANDS, ids=lambda path: path.stem)
def test_commands__every_default_folder_is_in_the_repository(command):
    spec = importlib.util.spec_from_file_location(command.stem, command)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    schemas = [item for item in vars(module).values() if dataclasses.is_dataclass(item)]
    defaults = [field.default for schema in schemas for field in dataclasses.fields(schema)]
    paths = [default for default in defaults if isinstance(default, str) and "/" in default and "://" not in default]
    assert all(Path(path).is_relative_to(ROOT) and not Path(path).is_relative_to(ROOT / "src_EAGLE") for path in paths)


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
    lines = (CONFIG_DIR / f"{name}.yml").read_text().splitlines()
    assert all("#" in line for line in lines if line.split(":")[0] in differing)


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
