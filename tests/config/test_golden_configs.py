"""The training configurations hold the released values."""

import json

import pytest

from eagle.config.command_line import parse_command_line
from eagle.config.schema import TrainConfig

# Places and machines are the user's own.
OWN = {"output_root", "pytorch_data_dir", "experiment_name", "num_workers", "dir_dataset_n_classes"}


def number_or_same(value):
    """Released rates are strings: YAML does not read 5e-4 as a number."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return value


@pytest.mark.parametrize("which", ["cocostuff", "cityscapes"])
def test_training_config__equals_the_released_one(golden, which):
    released = json.loads(golden.path(f"configs/train_config_{which}.json").read_text())
    config = parse_command_line(TrainConfig, ["--config-name", f"train_config_{which}"])
    shared = (released.keys() & config.keys()) - OWN
    assert len(shared) > 40
    assert {key: number_or_same(released[key]) for key in shared} == {
        key: number_or_same(config[key]) for key in shared
    }
