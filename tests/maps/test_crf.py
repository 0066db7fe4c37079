import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from skimage.data import astronaut
from skimage.transform import resize

from eagle.errors import ConfigError
from eagle.maps.crf import tensor_lattice
from eagle.maps.crf.dense_crf import bgr_bytes, by_lattices, dense_crf, dense_crf_maps, refine_images

MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


needs_pydensecrf = pytest.mark.skipif(find_spec("pydensecrf") is None, reason="needs pydensecrf: pip install -e .[crf]")


@pytest.fixture
def recorded(golden):
    return golden.tensors("h_dense_crf")


def normalised(rgb):
    """B×H×W×3 bytes → normalised B×3×H×W image, half a level higher so that truncation restores the bytes."""
    image = (torch.as_tensor(rgb).float() + 0.5) / 255
    return ((image - MEAN) / STD).permute(0, 3, 1, 2)


def noise_image(batch, height, width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return normalised(torch.randint(0, 256, (batch, height, width, 3), generator=generator))


def random_logits(*shape, seed=1):
    return 2 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def on_tensors(image, logits):
    """What a GPU runs, here on the CPU."""
    bgr = bgr_bytes(image)
    return refine_images(bgr, [logits], by_lattices(bgr, tensor_lattice))[0]


def by_pydensecrf(image, logits):
    return dense_crf(image, logits, "pydensecrf")


# Ours on a CPU, ours on a GPU, and the reference.
REFINE = [dense_crf, on_tensors, pytest.param(by_pydensecrf, marks=needs_pydensecrf)]


def photograph(height, width):
    return (resize(astronaut(), (height, width), anti_aliasing=True) * 255).astype(np.uint8)


def assert_same_refinement(ours, theirs):
    torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=0)
    assert (ours.argmax(1) == theirs.argmax(1)).float().mean() >= 0.999


@pytest.mark.parametrize("refine", REFINE)
def test_dense_crf__golden(recorded, refine):
    assert_same_refinement(refine(recorded["img"][None], recorded["logits"][None]), recorded["Q"][None])


def test_dense_crf__golden_image_bytes(recorded):
    assert torch.equal(bgr_bytes(recorded["img"][None])[0].flip(-1), recorded["image_rgb_u8"])


def test_dense_crf__out_of_range_image_is_clamped():
    bytes_ = bgr_bytes(torch.tensor([-9.0, 0.0, 9.0]).view(1, 3, 1, 1))
    assert bytes_.flatten().tolist() == [255, int(0.456 * 255), 0]


@needs_pydensecrf
@pytest.mark.parametrize("refine", [dense_crf, on_tensors])
def test_torch__agrees_with_pydensecrf_on_a_photograph(refine):
    """To rounding: a vertex more or less, even of no weight, changes what the blur passes on by up to 0.04."""
    height, width = 100, 128
    image, logits = normalised(photograph(height, width)[None]), random_logits(1, 6, 13, 16)
    ours, theirs = refine(image, logits), by_pydensecrf(image, logits)
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)
    # The comparison is meaningful only if the CRF changed the map.
    upsampled = torch.nn.functional.interpolate(logits, size=(height, width), mode="bilinear", align_corners=False)
    assert (ours.argmax(1) != upsampled.argmax(1)).float().mean() > 0.01


@pytest.mark.parametrize("threads", [1, 3])
def test_dense_crf__any_number_of_threads_gives_the_same(threads):
    image, maps = normalised(photograph(40, 50)[None]), [random_logits(1, 27, 5, 6), random_logits(1, 30, 5, 6, seed=2)]
    usual, before = dense_crf_maps(image, maps), torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for one, other in zip(dense_crf_maps(image, maps), usual, strict=True):
            torch.testing.assert_close(one, other)
    finally:
        torch.set_num_threads(before)


def test_dense_crf__several_callers_at_once():
    images = [normalised(photograph(30 + i, 40)[None]) for i in range(4)]
    logits = random_logits(1, 9, 4, 5)
    with ThreadPoolExecutor(4) as callers:
        together = list(callers.map(lambda image: dense_crf(image, logits), images))
    for image, refined in zip(images, together, strict=True):
        assert torch.equal(refined, dense_crf(image, logits))


def test_dense_crf__removes_a_speck_and_keeps_a_border():
    rgb = torch.full((1, 24, 24, 3), 40, dtype=torch.uint8)
    rgb[:, :, 12:] = 210
    truth = (rgb[..., 0] == 210).long()
    noisy = truth.clone()
    noisy[0, 5, 5], noisy[0, 15, 18] = 1, 0
    log_probs = torch.nn.functional.one_hot(noisy, 2).permute(0, 3, 1, 2).float().mul(0.6).add(0.2).log()
    assert torch.equal(dense_crf(normalised(rgb), log_probs).argmax(1), truth)


def test_dense_crf__log_of_a_one_hot_map():
    """Its −inf gives probabilities, and the classes that the map says."""
    labels = torch.zeros(1, 16, 16, dtype=torch.long)
    labels[..., 8:] = 2
    one_hot = torch.nn.functional.one_hot(labels, 3).permute(0, 3, 1, 2).float()
    rgb = (labels[..., None] * 100).expand(-1, -1, -1, 3)
    for refined in (dense_crf(normalised(rgb), one_hot.log()), on_tensors(normalised(rgb), one_hot.log())):
        assert torch.equal(refined.argmax(1), labels)
        assert torch.allclose(refined.sum(1), torch.ones(1, 16, 16))


@pytest.mark.parametrize("backend", ["torch", pytest.param("pydensecrf", marks=needs_pydensecrf)])
def test_dense_crf_maps__equals_each_map_of_each_image(backend):
    image, maps = noise_image(2, 16, 12), [random_logits(2, 3, 4, 3), random_logits(2, 7, 16, 12, seed=2)]
    for together, logits in zip(dense_crf_maps(image, maps, backend), maps, strict=True):
        assert together.shape == (2, logits.shape[1], 16, 12)
        for i in range(2):
            alone = dense_crf(image[i : i + 1], logits[i : i + 1], backend)
            torch.testing.assert_close(together[i : i + 1], alone)


@pytest.mark.parametrize("refine", REFINE)
@pytest.mark.parametrize(("height", "width", "classes"), [(1, 1, 3), (1, 9, 2), (7, 1, 1), (8, 8, 5)])
def test_dense_crf__small_shapes_give_probabilities(refine, height, width, classes):
    refined = refine(noise_image(1, height, width), random_logits(1, classes, 1, 1))
    assert refined.shape == (1, classes, height, width)
    torch.testing.assert_close(refined.sum(1), torch.ones(1, height, width))


@needs_pydensecrf
@pytest.mark.parametrize(("height", "width", "classes"), [(1, 1, 4), (1, 40, 4), (20, 24, 4), (20, 24, 1)])
def test_torch__agrees_with_pydensecrf_on_a_constant_image(height, width, classes):
    image, logits = normalised(torch.full((1, height, width, 3), 90)), random_logits(1, classes, 5, 6)
    assert_same_refinement(dense_crf(image, logits, "torch"), dense_crf(image, logits, "pydensecrf"))


@pytest.mark.parametrize("refine", REFINE)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_dense_crf__half_precision_is_computed_in_float32(refine, dtype):
    image, logits = noise_image(1, 9, 9).to(dtype), random_logits(1, 3, 3, 3).to(dtype)
    refined = refine(image, logits)
    assert refined.dtype == torch.float32
    torch.testing.assert_close(refined, refine(image.float(), logits.float()))


@pytest.mark.gpu
def test_torch__cuda_agrees_with_cpu():
    image, logits = normalised(photograph(60, 80)[None]), random_logits(1, 6, 8, 10)
    on_gpu = dense_crf(image.cuda(), logits.cuda())
    assert on_gpu.is_cuda
    assert_same_refinement(on_gpu.cpu(), dense_crf(image, logits))


def test_dense_crf__unknown_backend_names_the_nearest():
    with pytest.raises(ConfigError, match="unknown CRF backend 'pydensecrff': did you mean 'pydensecrf'"):
        dense_crf(noise_image(1, 4, 4), random_logits(1, 2, 4, 4), "pydensecrff")


def test_dense_crf__refuses_shapes_that_do_not_fit():
    with pytest.raises(ValueError, match="image must be"):
        dense_crf(torch.zeros(1, 1, 4, 4), torch.zeros(1, 2, 4, 4))
    with pytest.raises(ValueError, match="log_probs must be 2"):
        dense_crf(torch.zeros(2, 3, 4, 4), torch.zeros(1, 2, 4, 4))


def test_dense_crf__without_pydensecrf(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydensecrf.densecrf", None)
    image, logits = noise_image(1, 6, 6), random_logits(1, 3, 6, 6)
    torch.testing.assert_close(dense_crf(image, logits, "auto"), dense_crf(image, logits, "torch"))
    with pytest.raises(ConfigError, match=r"pip install -e \.\[crf\]` or use backend=torch") as caught:
        dense_crf(image, logits, "pydensecrf")
    assert "\n" not in str(caught.value)
