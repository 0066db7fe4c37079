"""Every file in configs/ is a complete, valid configuration; the published ones have the published values."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf

from conftest import ROOT, TINY_VIT
from eagle.commands import provisions
from eagle.config.application import parse_command_line
from eagle.config.refinement import refinement
from eagle.config.schema import EvalConfig, TrainConfig
from eagle.config.validation import CONFIG_DIR
from eagle.losses.object_nce import ObjectNCELoss
from miniatures import write_cocostuff

SCHEMAS = {"train_config": TrainConfig, "eval_config": EvalConfig, "crop_config": provisions.CropConfig}
FILES = sorted(path.stem for path in CONFIG_DIR.glob("*.yml"))

# Keys of a recipe that set paths, names and loader processes.
MACHINE_KEYS = {"pytorch_data_dir", "output_root", "experiment_name", "num_workers", "project_name", "entity"}
# The published files set it for another dataset_name.
UNUSED_KEYS = {"dir_dataset_n_classes"}
RECIPES = {
    "train_config_cocostuff": ("train_config_cocostuff", {}),
    "train_config_cityscapes": ("train_config_cityscapes", {}),
    "train_config_cocostuff_vitb8": ("train_config_cocostuff", {"model_type": "vit_base"}),
    "train_config_cityscapes_vits8": ("train_config_cityscapes", {"model_type": "vit_small"}),
}


def composed(name, *words):
    schema = next(schema for prefix, schema in SCHEMAS.items() if name.startswith(prefix))
    return parse_command_line(schema, ["--config-name", name, *words])


def test_refine__goes_before_the_published_run_crf():
    assert refinement(composed("eval_config")).steps == ("crf",)
    assert refinement(composed("eval_config", "run_crf=false")).steps == ()
    assert refinement(composed("eval_config", "run_crf=false", "refine=both")).steps == ("spectral", "crf")


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


@pytest.mark.parametrize("place", ["src_EAGLE", None])
def test_default_folders__are_the_repositorys_wherever_a_command_runs(monkeypatch, tmp_path, place):
    monkeypatch.chdir(ROOT / place if place else tmp_path)
    for config in (parse_command_line(TrainConfig, []), composed("train_config_cocostuff")):
        assert (config.pytorch_data_dir, config.output_root) == (str(ROOT / "datasets"), str(ROOT / "outputs"))
    assert composed("train_config_cocostuff", "output_root=mine").output_root == "mine"
    assert list(composed("eval_config").model_paths) == [str(ROOT / "models/EAGLE_COCO_ViTS8.ckpt")]


@pytest.fixture
def published(golden):
    """Reads the keys and values of a published YAML file."""
    return lambda name: json.loads(golden.path(f"configs/{name}.json").read_text())


def as_published_yaml(path, content):
    """Write it as the authors did: learning rates as 5e-4, which YAML reads as text."""
    path.write_text(yaml.safe_dump(content))
    assert "lr: 5e-4\n" in path.read_text() or "lr" not in content
    return path


@pytest.mark.parametrize("name", RECIPES)
def test_recipe__has_every_published_hyper_parameter(name, published):
    source, ours = RECIPES[name]
    config = composed(name)
    expected = {key: value for key, value in published(source).items() if key in config} | ours
    expected |= {key: float(value) for key, value in expected.items() if key.startswith("lr")}
    compared = expected.keys() - MACHINE_KEYS - UNUSED_KEYS
    assert len(compared) == 41
    assert {key: config[key] for key in compared} == {key: expected[key] for key in compared}


def test_recipe__smoothing_is_cityscapes_alone():
    smoothing = {name: ObjectNCELoss(composed(name), 4).label_smoothing for name in FILES if name in RECIPES}
    assert {name: value for name, value in smoothing.items() if "cityscapes" in name} == {
        "train_config_cityscapes": 0.1,
        "train_config_cityscapes_vits8": 0.1,
    }
    assert {value for name, value in smoothing.items() if "cocostuff" in name} == {0}


def test_fidelity__strict_is_released_with_the_released_signs():
    strict, released = (composed("train_config_cocostuff", f"fidelity={name}") for name in ("strict", "released"))
    differing = {name: (strict[name], released[name]) for name in strict if strict[name] != released[name]}
    assert differing == {
        "fidelity": ("strict", "released"),
        "eigen_signs": ("released", "fixed"),
        "matmul_precision": ("high", "highest"),
    }


@pytest.mark.parametrize("name", ["train_config_cocostuff", "train_config_cityscapes", "eval_config"])
def test_published_yaml__loads_as_it_is_and_says_what_has_no_effect(tmp_path, caplog, name, published):
    path = as_published_yaml(tmp_path / "people_have.yml", published(name))
    schema = EvalConfig if name == "eval_config" else TrainConfig
    config = parse_command_line(schema, ["--config-name", str(path)])
    for key, value in published(name).items():
        if key in config:
            assert config[key] == (float(value) if key.startswith("lr") else value)
        elif key != "hydra":
            assert f" {key} " in f"{caplog.messages[0]} "
    assert " res " not in caplog.messages[0]


def run_command(script, folder, *words):
    """A command as typed in ``folder``; its output."""
    command = [sys.executable, ROOT / "src_EAGLE" / f"{script}.py", *map(str, words)]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    assert not re.search("GPU available|Tip:", result.stdout + result.stderr), "Lightning's hints are hidden"
    return result.stdout + result.stderr


@pytest.mark.slow
def test_published_yaml__trains_and_evaluates_by_the_real_commands(tmp_path, published):
    """One step on a miniature dataset; overrides only shrink the run."""
    write_cocostuff(tmp_path / "data")
    crop = ["dataset_name=cocostuff27", f"pytorch_data_dir={tmp_path / 'data'}", "splits=train", "num_processes=1"]
    provisions.crop_datasets(parse_command_line(provisions.CropConfig, crop))
    (tmp_path / "src").mkdir()
    train = as_published_yaml(tmp_path / "train.yml", published("train_config_cocostuff"))
    small = f"backbone_kwargs={TINY_VIT}".replace("'", ""), "dim=32", "res=32", "val_res=32"
    short = "batch_size=2", "max_steps=1", "num_workers=0", "accelerator=cpu", "pretrained_weights=random"
    here = f"pytorch_data_dir={tmp_path / 'data'}", "output_root=../outputs", "experiment_name=run"
    said = run_command("train_segmentation_eigen", tmp_path / "src", "--config-name", train, *small, *short, *here)
    assert re.search(r"train.yml: published keys without effect here \(docs/differences.md\): .*\buse_head\b", said)
    checkpoints = tmp_path / "checkpoints"
    checkpoints.mkdir()
    (tmp_path / "outputs/run/last.ckpt").rename(checkpoints / "EAGLE_COCO_ViTS8.ckpt")
    evaluation = as_published_yaml(tmp_path / "eval.yml", published("eval_config"))
    quick = here[0], "res=32", "num_workers=0", "accelerator=cpu"
    said = run_command("eval_segmentation", tmp_path / "src", "--config-name", evaluation, *quick)
    assert re.search(r"eval.yml: published keys without effect here .*\bmodel_type\b", said)
    assert re.search(r"pytorch-lightning_version \d+\.\d+\S*, global_step 1, epoch ", said)
    assert json.loads((checkpoints / "EAGLE_COCO_ViTS8_eval.json").read_text())["training"]["global_step"] == 1
    assert list((checkpoints / "EAGLE_COCO_ViTS8_predictions").iterdir()), "run_prediction: true writes class maps"
