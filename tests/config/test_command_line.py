import re

import pytest
from omegaconf import OmegaConf

from eagle.config.command_line import help_text
from eagle.config.parsing import parse_command_line, split_arguments
from eagle.config.schema import EvalConfig, TrainConfig
from eagle.config.validation import complete_config, validated
from eagle.errors import ConfigError


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ress=3"], "unknown key 'ress': did you mean 'res'?"),
        (["res=abc"], "res: Value 'abc'"),
        (["res=[1,2]"], "res: "),
        (["wandb=maybe"], "wandb: "),
        (["centroid_mode=medoi"], "did you mean 'medoid'"),
        (["fidelity=papr"], "did you mean 'paper'"),
        (["batch_size=0"], "batch_size: 0 is too small; the least is 1"),
        (["momentum_limit=1.5"], "momentum_limit: 1.5 is too large"),
        (["contrastive_temp=0"], "contrastive_temp: 0.0 must be larger than 0"),
        (["nonsense"], "cannot read 'nonsense'"),
        (["~wandb=true"], "cannot read '~wandb=true': keys cannot be deleted; set wandb=VALUE"),
        (["~wandb"], "cannot read '~wandb'"),
        (["--config-name", "train_config_cocostuf"], "no such file; configs/ has"),
    ],
)
def test_command_line__errors_name_the_key(arguments, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        parse_command_line(TrainConfig, arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        ["res=448", "wandb=true", "experiment_name=a b"],
        ["--res", "448", "--wandb", "--experiment_name", "a b"],
        ["--res=448", "--wandb", "--experiment-name=a b"],
    ],
)
def test_command_line__both_spellings(arguments):
    cfg = parse_command_line(TrainConfig, arguments)
    assert (cfg.res, cfg.wandb, cfg.experiment_name) == (448, True, "a b")


@pytest.mark.parametrize(
    "value", ["/data/my set (1)/ü.ckpt", "it's", "it\\'s", "end\\", "50%", "x,y", "C:\\data", "$HOME", "{a"]
)
def test_command_line__odd_values_arrive_as_typed(value):
    assert parse_command_line(TrainConfig, ["--output_root", value]).output_root == value
    assert parse_command_line(TrainConfig, [f"output_root={value}=x"]).output_root == f"{value}=x"


def test_command_line__lists_and_mappings():
    cfg = parse_command_line(TrainConfig, ["key_blocks=[8,9,10]", "backbone_kwargs={img_size: 112}"])
    assert list(cfg.key_blocks) == [8, 9, 10]
    assert dict(cfg.backbone_kwargs) == {"img_size": 112}
    assert parse_command_line(TrainConfig, ["backbone_kwargs.depth=4"]).backbone_kwargs.depth == 4


def test_command_line__config_by_name_with_and_without_suffix_and_by_path(tmp_path):
    own = tmp_path / "mine.yaml"
    own.write_text("dim: 70\n")
    assert parse_command_line(TrainConfig, ["--config-name", str(own)]).dim == 70
    for name in ("train_config_directory", "train_config_directory.yml"):
        assert parse_command_line(TrainConfig, ["--config-name", name]).dataset_name == "directory"


def test_command_line__retired_keys_are_ignored_with_a_warning(tmp_path, caplog):
    own = tmp_path / "published.yml"
    own.write_text("azureml_logging: true\nsubmitting_to_aml: false\ndim: 70\n")
    assert parse_command_line(TrainConfig, ["--config-name", str(own)]).dim == 70
    assert "azureml_logging" in caplog.text


def test_command_line__broken_yaml_is_named(tmp_path):
    own = tmp_path / "broken.yml"
    own.write_text("dim: [1\n")
    with pytest.raises(ConfigError, match=r"broken\.yml"):
        parse_command_line(TrainConfig, ["--config-name", str(own)])


def test_fidelity__sets_defaults_that_keys_override():
    paper = validated(TrainConfig, {"fidelity": "paper", "photometric": "released"})
    assert (paper.color_affinity, paper.lambda_schedule, paper.photometric) == ("paper", "paper", "released")


def test_complete_config__takes_attributes_and_ignores_unknown_ones():
    class Published:
        dim = 70
        some_future_key = 1

    assert complete_config(Published()).dim == 70
    assert complete_config(OmegaConf.create({"dim": 70, "hist_freq": 5})).dim == 70


def test_split_arguments__a_flag_does_not_swallow_the_next_override():
    assert split_arguments(["--wandb", "res=8"])[1] == ["wandb=true", "res=8"]


@pytest.mark.parametrize("schema", [TrainConfig, EvalConfig])
def test_help__explains_every_key(schema):
    text = help_text(schema, test_help__explains_every_key, None)
    defaults = OmegaConf.structured(schema)
    for name in defaults:
        assert f"  {name}=" in text
