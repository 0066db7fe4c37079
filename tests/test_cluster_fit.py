"""fit_clusters.py: a tree from the codes of a trained model, and what the other commands do with it."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

import eagle
from conftest import run_values
from eagle.checkpoint_evaluation import evaluate_checkpoint
from eagle.checkpoints import convert, load_segmenter, read_stored
from eagle.cluster_fit import LEAST_PATCHES, code_regions, fit_checkpoint, fit_tree, leaf_affinity
from eagle.commands.runs import FitConfig
from eagle.config.schema import EvalConfig, TrainConfig
from eagle.config.validation import validated
from eagle.errors import CheckpointError, ConfigError, DataError
from eagle.inference.export import export_checkpoint
from eagle.training.run import train
from miniatures import picture, write_halves


def scenes(n_images=12, n_classes=4, size=16, dim=8, noise=0.05):
    """Codes of scenes of four quadrants, each quadrant one class; the last class has a strip of 16 patches only."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.eye(dim)[:n_classes]
    codes, labels = [], []
    for image in range(n_images):
        label = torch.zeros(size, size, dtype=torch.long)
        label[: size // 2, size // 2 :] = 1
        label[size // 2 :] = 2
        if image % 3 == 0:
            label[-1] = n_classes - 1
        labels.append(label)
        codes.append(centres[label].permute(2, 0, 1) + noise * torch.randn(dim, size, size, generator=generator))
    return torch.stack(codes), torch.stack(labels)


def test_fit_tree__finds_large_and_small_classes():
    codes, labels = scenes()
    tree = fit_tree(codes, 4)
    assert tree.n_leaves == 24
    assert len(tree.leaves) == 4 * 24, "of each over-clustering"
    found = tree.cut(4).probabilities(codes).argmax(dim=1)
    for label in range(4):
        _, counts = found[labels == label].unique(return_counts=True)
        assert counts.max() / counts.sum() > 0.99, f"class {label} is one cluster"
    assert len({int(found[labels == label].mode().values) for label in range(4)}) == 4


def test_fit_tree__a_class_whose_codes_drift_from_image_to_image_is_one_cluster():
    """Its ends are farther apart than two other classes; Ward's method on the codes themselves cuts it in two."""
    generator = torch.Generator().manual_seed(0)
    label = torch.arange(3).repeat_interleave(5)[:, None].expand(15, 9)
    codes = []
    for angle in torch.linspace(0, 2.2, 60):
        centres = torch.zeros(3, 8)
        centres[0, :2] = torch.stack([angle.cos(), angle.sin()])
        centres[1, 2] = 1
        centres[2, 2:4] = torch.tensor([0.62, 0.785])
        codes.append(centres[label].permute(2, 0, 1) + 0.02 * torch.randn(8, 15, 9, generator=generator))
    found = fit_tree(torch.stack(codes), 3).cut(3).probabilities(torch.stack(codes)).argmax(dim=1)
    for part in range(3):
        _, counts = found[:, label == part].unique(return_counts=True)
        assert counts.max() / counts.sum() > 0.99


def test_leaf_affinity__is_high_between_parts_that_share_patches_and_low_between_classes_that_share_images():
    leaves = F.normalize(torch.eye(3) + 1, dim=1)  # one cosine between all
    whole, between = leaves[2], F.normalize(leaves[0] + leaves[1], dim=0)
    codes = torch.stack([whole, between])[torch.arange(24) % 2].T.reshape(1, 3, 4, 6)
    affinity = leaf_affinity(leaves, codes)
    assert affinity.diagonal().tolist() == pytest.approx([1, 1, 1])
    assert affinity[0, 1] > 2 * affinity[0, 2]
    probs = (20 * codes[0].flatten(1).T @ leaves.T).softmax(dim=1)
    shared = probs.T @ probs / len(probs) / torch.outer(probs.mean(dim=0), probs.mean(dim=0))
    expected = ((leaves @ leaves.T) ** 8 * shared / (shared.diagonal()[:, None] * shared.diagonal()).sqrt()).sqrt()
    torch.testing.assert_close(affinity, expected.double(), rtol=1e-4, atol=1e-6)


def test_fit_tree__is_the_same_for_the_same_codes_and_seed():
    codes, _ = scenes(noise=0.4)
    first, again = fit_tree(codes, 4, seed=3).state_dict(), fit_tree(codes, 4, seed=3).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_fit_tree__of_one_region_has_one_leaf():
    tree = fit_tree(torch.ones(1, 4, 3, 4), 1)
    assert tree.n_leaves == 1
    assert tree.leaves.isfinite().all()


def test_regions__are_connected_and_large_enough():
    code = torch.zeros(1, 2, 9, 9)
    code[:, 0] = 1
    code[0, :, :2, :3] = torch.tensor([0.0, 1.0])[:, None, None]  # two corners of six patches
    code[0, :, -2:, -3:] = torch.tensor([0.01, 1.0])[:, None, None]
    code[0, :, 4, 4] = torch.tensor([0.0, 1.0])  # one patch
    [(means, areas)] = code_regions(code, 2, seeds=[0])
    assert sorted(areas)[:2] == [LEAST_PATCHES, LEAST_PATCHES]
    assert len(areas) == 3, "the two corners are two regions, and one patch is none"
    np.testing.assert_allclose(np.linalg.norm(means, axis=1), 1, atol=1e-6)


def test_regions__of_a_grid_too_large_to_refine_are_found_on_the_coarser_one(monkeypatch):
    monkeypatch.setattr("eagle.spectral.refinement.MOST_PATCHES", 36)
    code = torch.zeros(1, 2, 12, 12)
    code[0, 0, :, :4] = code[0, 1, :, 4:] = 1
    [(means, areas)] = code_regions(code, 2, seeds=[0])
    assert sorted(areas) == [12, 24]
    np.testing.assert_allclose(sorted(means.tolist()), [[0, 1], [1, 0]], atol=1e-6)


def test_regions__of_several_draws_are_those_of_each_alone():
    codes = scenes()[0]
    together = code_regions(codes, 8, seeds=[0, 1])
    for found, seed in zip(together, [0, 1], strict=True):
        [alone] = code_regions(codes, 8, seeds=[seed])
        for ours, expected in zip(found, alone, strict=True):
            np.testing.assert_array_equal(ours, expected)


def test_fit_tree__for_one_cluster_or_with_the_largest_seed():
    codes, labels = scenes()
    tree = fit_tree(codes, 1, seed=2**32 - 1)
    ids = torch.cat([tree.cut(4).probabilities(code[None]).argmax(dim=1) for code in codes])
    purity = sum(np.bincount(labels.ravel()[(ids == i).ravel()]).max() for i in ids.unique()) / labels.numel()
    assert purity > 0.75


def test_fit_tree__one_over_clustering_with_enough_regions_is_enough(monkeypatch):
    regions = [(np.eye(3, 4, dtype=np.float32)[:n], np.full(n, 8)) for n in (2, 0, 3, 1)]
    monkeypatch.setattr("eagle.cluster_fit.code_regions", lambda *_: regions)
    assert fit_tree(torch.rand(2, 4, 3, 3), 3).n_leaves == 3


def test_fit_tree__too_few_regions_is_one_line():
    with pytest.raises(DataError, match="2 regions of at least 6 patches in 2 training images are too few for 3"):
        fit_tree(torch.ones(2, 4, 2, 4), 3)


@pytest.fixture(scope="module")
def fitted_once(tmp_path_factory):
    """A checkpoint, and that with its tree."""
    folder = tmp_path_factory.mktemp("fitted")
    write_halves(folder / "data" / "halves")
    values = {"max_steps": 1, "res": 64, "val_res": 64, "extra_clusters": 0}
    path = train(validated(TrainConfig, run_values(folder) | values)) / "last.ckpt"
    return path, fit_checkpoint(path, validated(FitConfig, {"checkpoint": str(path), "num_workers": 0}))


@pytest.fixture
def fitted(fitted_once, tmp_path):
    """Copies to write beside."""
    run_dir = shutil.copytree(fitted_once[0].parent, tmp_path / "run")
    return [run_dir / path.name for path in fitted_once]


def test_fit_checkpoint__is_a_checkpoint_for_every_command(fitted):
    path, target = fitted
    assert target.name == "last_tree.ckpt"
    assert target.with_suffix(".png").stat().st_size > 0
    segmenter, trained = load_segmenter(target), load_segmenter(path)
    assert segmenter.cluster_tree is not None
    assert torch.equal(segmenter.cluster_probe.clusters, trained.cluster_probe.clusters)
    cfg = validated(EvalConfig, {"num_workers": 0, "n_images": 1, "refine": "spectral", "accelerator": "cpu"})
    content = evaluate_checkpoint(target, cfg)
    n_classes = segmenter.n_classes
    cuts = [n for n in (2 * n_classes, 3 * n_classes, 4 * n_classes) if n <= segmenter.cluster_tree.n_leaves]
    assert [content["scores"][f"cluster@{n}+spectral"]["clusters"] for n in cuts] == cuts
    accuracies = [
        content["scores"][name]["many_to_one"]["accuracy"]
        for name in ("cluster+spectral", f"cluster@{cuts[0]}+spectral")
    ]
    assert accuracies == sorted(accuracies), "named clusters of a finer cut are at least as pure"
    assert json.loads((target.parent / "last_tree_eval.json").read_text())["class_map"] == content["class_map"]
    assert read_stored(target).class_map is not None
    assert "cluster@" not in target.with_name("last_tree_report.html").read_text(), "the report is of the cut at C"
    convert(target, target.with_suffix(".safetensors"))
    slim = load_segmenter(target.with_suffix(".safetensors"))
    assert torch.equal(slim.cluster_tree.merges, segmenter.cluster_tree.merges)


def test_n_clusters__cuts_the_tree_and_needs_one(fitted):
    path, target = fitted
    cfg = {"num_workers": 0, "n_images": 1, "run_crf": False, "report": False, "accelerator": "cpu"}
    for n in (1, 3):
        content = evaluate_checkpoint(target, validated(EvalConfig, cfg | {"n_clusters": n}))
        assert content["scores"]["cluster"]["clusters"] == n
    with pytest.raises(ConfigError, match="n_clusters: 999 is not from 1 to"):
        evaluate_checkpoint(target, validated(EvalConfig, cfg | {"n_clusters": 999}))
    with pytest.raises(ConfigError, match=r"fit a tree .*fit_clusters.py"):
        evaluate_checkpoint(path, validated(EvalConfig, cfg | {"n_clusters": 3}))


def test_n_clusters__of_an_evaluation_names_that_cut_only(fitted):
    """An evaluation calls every cut that it is asked for "cluster"."""
    _, target = fitted
    cfg = {"num_workers": 0, "n_images": 0, "run_crf": False, "report": False, "accelerator": "cpu"}
    photograph = np.asarray(picture(3, (96, 64)))
    for n, other in ((3, 2), (2, 3)):
        evaluate_checkpoint(target, validated(EvalConfig, cfg | {"n_clusters": n}))
        segmenter = eagle.load_segmenter(target, device="cpu")
        assert segmenter.segment(photograph, n_clusters=n).names == ("class 0", "class 1")
        assert segmenter.segment(photograph, n_clusters=other).names == tuple(f"cluster {i}" for i in range(other))


def test_predictions__of_further_cuts_are_named_by_majority_as_in_the_json(fitted):
    _, target = fitted
    values = {"num_workers": 0, "n_images": 0, "run_crf": False, "accelerator": "cpu", "run_prediction": True}
    content = evaluate_checkpoint(target, validated(EvalConfig, values | {"report": False}))
    (cut, *_) = [name for name in content["scores"] if "@" in name]
    folder = target.with_name("last_tree_predictions") / cut / "ids"
    found = {int(i) for path in folder.iterdir() for i in np.unique(np.asarray(Image.open(path)))}
    assert found <= set(content["class_map"]["assignments"][cut])


def test_fit_checkpoint__what_cannot_be_written_is_refused_before_the_work(fitted, monkeypatch):
    path, _ = fitted
    cfg = validated(FitConfig, {"checkpoint": str(path), "num_workers": 0})
    with pytest.raises(CheckpointError, match=r"last\.pth: a checkpoint's name ends in"):
        fit_checkpoint(path.rename(path.with_suffix(".pth")), cfg)
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(CheckpointError, match="is not writable"):
        fit_checkpoint(path, cfg)


@pytest.mark.parametrize("suffix", [".pt2", ".onnx"])
def test_export__of_a_tree(fitted, suffix):
    if suffix == ".onnx":
        pytest.importorskip("onnxscript", reason="needs the extra [export]")
    assert export_checkpoint(fitted[1], fitted[1].with_suffix(suffix), 4.0) < 1e-3


def test_tree_of_one_centre_a_leaf__as_earlier_files_have_it__is_cut_as_before(fitted):
    _, target = fitted
    content = torch.load(target, weights_only=True)
    state = content["state_dict"]
    state["cluster_tree.leaves"] = state["cluster_tree.leaves"][: len(state["cluster_tree.areas"])]
    del state["cluster_tree.leaf_of_centre"]
    torch.save(content, target)
    tree = load_segmenter(target).cluster_tree
    assert tree.leaf_of_centre.tolist() == list(range(tree.n_leaves))
    assert tree.cut(2).probabilities(torch.rand(1, tree.leaves.shape[1], 2, 2)).shape == (1, 2, 2, 2)


def test_damaged_tree__is_refused(fitted):
    _, target = fitted
    content = torch.load(target, weights_only=True)
    content["state_dict"]["cluster_tree.merges"][0] = 0
    torch.save(content, target)
    with pytest.raises(CheckpointError, match="its tree of clusters is damaged"):
        load_segmenter(target)


@pytest.fixture
def photographs(fitted):
    return eagle.load_segmenter(fitted[1], device="cpu"), np.asarray(picture(3, (96, 64)))


def test_segment__a_finer_cut_splits_masks_and_codes_give_the_same(photographs):
    segmenter, photograph = photographs
    masks = {n: segmenter.segment(photograph, n_clusters=n, refine="spectral") for n in (2, 5)}
    assert [len(mask.names) for mask in masks.values()] == [2, 5]
    code = segmenter.codes(photograph)
    for n, mask in masks.items():
        again = segmenter.segment_codes(Image.fromarray(photograph), code, n_clusters=n, refine="spectral")
        np.testing.assert_array_equal(again.ids, mask.ids)
    np.testing.assert_array_equal(masks[5].palette[:2], masks[2].palette)


def test_segment__equal_names_are_one_class_whose_probabilities_add_up(photographs, tmp_path):
    segmenter, photograph = photographs
    names = tmp_path / "names.txt"
    names.write_text("one\nother\none\n\none\n")
    result = segmenter.segment(photograph, refine="none", cluster_names=names)
    assert result.names == ("one", "other")
    probs = segmenter.model.cluster_tree.cut(5).probabilities(segmenter.codes(photograph))
    joined = torch.stack([probs[:, [0, 2, 4]].sum(dim=1), probs[:, 1], probs[:, 3]], dim=1)
    expected = torch.nn.functional.interpolate(joined, photograph.shape[:2], mode="bilinear").argmax(dim=1)[0].numpy()
    agreement = (result.ids == np.where(expected == 2, -1, expected)).mean()
    assert agreement > 0.999, "up to rounding at borders"


def test_segment__more_clusters_than_leaves_or_none_to_cut_is_one_line(photographs):
    segmenter, photograph = photographs
    with pytest.raises(ConfigError, match="n_clusters: 999 is not from 1 to"):
        segmenter.segment(photograph, n_clusters=999)
    with pytest.raises(ConfigError, match="the linear probe has classes"):
        segmenter.segment(photograph, n_clusters=2, probe="linear")


def test_train__fits_at_its_end_the_tree_that_the_command_fits(make_run):
    keys = {"max_steps": 1, "res": 64, "val_res": 64, "seed": 3, "precision": "bf16-mixed", "batch_size": 3}
    run_dir = train(make_run(**keys, fit_clusters="tree"))
    trained = load_segmenter(run_dir / "last_tree.ckpt").cluster_tree
    assert load_segmenter(run_dir / "last.ckpt").cluster_tree is None
    path = str(run_dir / "last.ckpt")
    again = load_segmenter(fit_checkpoint(Path(path), validated(FitConfig, {"checkpoint": path, "num_workers": 0})))
    assert all(torch.equal(part, again.cluster_tree.state_dict()[name]) for name, part in trained.state_dict().items())
    tree = run_dir / "last_tree.ckpt"
    fitted = tree.stat().st_mtime_ns
    resumed = {**keys, "fit_clusters": "tree", "experiment_name": run_dir.name, "ckpt_path": "last"}
    train(make_run(**resumed))
    assert tree.stat().st_mtime_ns == fitted, "the command of a finished run does not fit again"
    os.utime(tree, (0, 0))
    train(make_run(**resumed))
    assert tree.stat().st_mtime_ns > 0, "an older one is not of this checkpoint"


def test_fit_checkpoint__killed_while_it_draws_leaves_no_tree(fitted, monkeypatch):
    """Where the tree is there, a resumed run takes it as finished."""
    checkpoint, tree = fitted
    tree.unlink()

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("eagle.cluster_fit._draw", killed)
    with pytest.raises(KeyboardInterrupt):
        fit_checkpoint(checkpoint, validated(FitConfig, {"checkpoint": str(checkpoint), "num_workers": 0}))
    assert not tree.exists()
