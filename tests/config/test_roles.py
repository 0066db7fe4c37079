"""What a key's role decides: resuming and loading a checkpoint."""

from dataclasses import replace

import pytest
import torch

from eagle.checkpoints import StoredSegmenter, build_segmenter
from eagle.config.schema import TrainConfig, keys_with
from eagle.config.validation import plain, with_overrides
from eagle.errors import CheckpointError, ConfigError
from eagle.segmenter import LitUnsupervisedSegmenter
from eagle.training.resume import RUN_STATE, find_resumption


@pytest.mark.parametrize(
    ("role", "change"),
    [
        ("method", {"momentum_limit": 0.5}),
        ("model", {"dim": 16}),
        ("backbone", {"key_blocks": [0]}),
        ("data", {"crop_type": "five"}),
        ("seed", {"seed": 7}),
        ("adjustable", {"max_steps": 7}),
        ("numerics", {"precision": "bf16-mixed"}),
        ("machine", {"num_workers": 7}),
    ],
)
def test_role__decides_what_a_resumed_run_may_change(make_run, tmp_path, role, change):
    cfg = make_run()
    (name,) = change
    assert name in keys_with(TrainConfig, role)
    path = tmp_path / "last.ckpt"
    hyper_parameters = {"hyper_parameters": {"n_classes": 2, "cfg": plain(cfg)}}
    torch.save(dict.fromkeys(RUN_STATE) | hyper_parameters | {"global_step": 2}, path)
    changed = with_overrides(cfg, **change, ckpt_path=str(path))
    if role in ("adjustable", "numerics", "machine"):
        assert find_resumption(changed, tmp_path)[1] == 2
    else:
        with pytest.raises(ConfigError, match=f"a resumed run cannot change {name} from "):
            find_resumption(changed, tmp_path)


def test_role__decides_which_invalid_value_a_checkpoint_may_have(make_config, caplog):
    segmenter = LitUnsupervisedSegmenter(2, make_config())
    architecture = {name: plain(segmenter.cfg)[name] for name in keys_with(TrainConfig, "model", "backbone")}
    stored = StoredSegmenter(2, architecture, segmenter.state_dict(), None)
    for change in ({"dim": 0}, {"dino_patch_size": 0}):
        with pytest.raises(CheckpointError, match="does not describe a model"):
            build_segmenter(replace(stored, cfg=stored.cfg | change), "x.ckpt")
    invalid = {"momentum_limit": 7, "crop_type": "six", "precision": 16, "num_workers": -1, "val_res": 0}
    build_segmenter(replace(stored, cfg=stored.cfg | invalid), "x.ckpt")
    assert [name for name in invalid if name not in caplog.text] == []
