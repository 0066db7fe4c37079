"""Exported graphs beside the checkpoint they come from."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from eagle.checkpoint_evaluation import evaluate_checkpoint
from eagle.checkpoints import convert, load_segmenter
from eagle.config.schema import EvalConfig
from eagle.config.validation import validated
from eagle.data.views import image_tensor, normalize, resize_and_crop
from eagle.inference.export import _export_program, export_checkpoint
from eagle.maps.probe_maps import MapSettings
from eagle.models.backbone import build_backbone
from eagle.models.position_embedding import PositionRule, _resampled_for_any_grid, resample_position_embedding
from eagle.training.run import train


class _Keys(torch.nn.Module):
    def __init__(self, backbone):
        super().__init__()
        self.backbone = backbone

    def forward(self, img):
        return self.backbone(img)


@pytest.mark.parametrize("grid", [(7, 14), (20, 33), (1, 1)])
def test_position_embedding__exported_form_is_the_eager_one(grid):
    stored = torch.randn(1, 14 * 14, 6, dtype=torch.float64)
    expected = resample_position_embedding(stored, (14, 14), grid, 0, PositionRule(scale_offset=0.1))
    image = stored.unflatten(1, (14, 14)).permute(0, 3, 1, 2).float()
    result = _resampled_for_any_grid(image, grid, 0.1).flatten(2).transpose(1, 2)
    assert torch.allclose(result, expected.float(), atol=2e-5)


@pytest.mark.parametrize(
    "name", ["eva02_small_patch14_224", pytest.param("vit_small_patch16_dinov3", marks=pytest.mark.slow)]
)
def test_rotary_backbone__exported_graph_takes_any_size(name):
    backbone = build_backbone(name, 16, "random", embed_dim=48, depth=4, num_heads=3)
    exported = _export_program(_Keys(backbone), backbone.patch_size).module()
    for batch, rows, columns in ((1, 2, 2), (3, 5, 9), (2, 14, 14)):
        img = torch.randn(batch, 3, rows * backbone.patch_size, columns * backbone.patch_size)
        assert torch.allclose(exported(img), backbone(img), atol=1e-5)


@pytest.mark.slow
def test_exports_and_conversions__predict_as_the_trained_run(make_run, tmp_path):
    """One run in every form: .ckpt, slim, back again, torch.export and ONNX give the same classes."""
    import onnxruntime

    run_dir = train(make_run())
    checkpoint = run_dir / "last.ckpt"
    options = validated(EvalConfig, {"run_crf": False, "num_workers": 0, "accelerator": "cpu"})
    evaluation = evaluate_checkpoint(checkpoint, options)
    class_map = evaluation["class_map"]
    forms = {name: run_dir / name for name in ("slim.safetensors", "back.ckpt", "graph.pt2", "graph.onnx")}
    convert(checkpoint, forms["slim.safetensors"])
    convert(forms["slim.safetensors"], forms["back.ckpt"])
    assert export_checkpoint(forms["slim.safetensors"], forms["graph.pt2"], 4.0) < 1e-4
    assert export_checkpoint(checkpoint, forms["graph.onnx"], 4.0) < 1e-4

    image = Image.open(tmp_path / "data/halves/imgs/val/0.png").convert("RGB")
    img = normalize(image_tensor(resize_and_crop(image, 40)))[None]
    expected = load_segmenter(checkpoint).probe_maps(MapSettings())(img)
    for name in ("slim.safetensors", "back.ckpt"):
        maps = load_segmenter(forms[name]).probe_maps(MapSettings())(img)
        assert all(torch.equal(maps[probe], expected[probe]) for probe in expected)
    extra = {"class_map.json": ""}
    exported = torch.export.load(forms["graph.pt2"], extra_files=extra).module()(img)
    session = onnxruntime.InferenceSession(forms["graph.onnx"], providers=["CPUExecutionProvider"])
    onnx_maps = session.run(["linear_log_probs", "cluster_log_probs"], {"img": img.numpy()})
    for probe, of_torch, of_onnx in zip(("linear", "cluster"), exported, onnx_maps, strict=True):
        clusters = expected[probe].argmax(1)
        assert torch.equal(of_torch.argmax(1), clusters)
        assert np.array_equal(of_onnx.argmax(1), clusters.numpy())
    assert json.loads(extra["class_map.json"]) == class_map
    assert json.loads(session.get_modelmeta().custom_metadata_map["class_map"]) == class_map
    card = (run_dir / "graph_card.md").read_text()
    assert f"cluster {evaluation['scores']['cluster']['published']['mIoU']:.1f} mIoU" in card
    assert "**Data**: halves." in card
