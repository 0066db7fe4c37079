import numpy as np
import pytest
import torch

from eagle.data.views import normalize
from eagle.spectral.affinity import color_affinity, feature_affinity
from eagle.spectral.laplacian import normalized_laplacian


def relative_error(actual, expected):
    return float((actual - expected).norm() / expected.norm())


def test_affinities_and_laplacian__released_14x14(golden):
    data = golden.tensors("c_eigen_14x14_b2")
    color = color_affinity(data["img"], (14, 14))
    assert relative_error(color, data["color_affinity"]) < 1e-4
    laplacian, _ = normalized_laplacian(color + feature_affinity(data["code"]))
    assert relative_error(laplacian, data["laplacian"]) < 1e-4


def test_affinities_and_laplacian__released_28x28(golden):
    data = golden.tensors("c_eigen_28x28_b1")
    rows = data["rows"]
    color, feature = color_affinity(data["img"], (28, 28)), feature_affinity(data["code"])
    laplacian, _ = normalized_laplacian(color + feature)
    assert relative_error(color[:, rows], data["color_affinity_rows"]) < 1e-4
    largest = (data["code"] @ data["code"].transpose(1, 2)).max()
    assert relative_error(feature[:, rows] * largest, data["adj_code_rows"].clamp(min=0)) < 1e-4
    assert relative_error(laplacian[:, rows], data["laplacian_rows"]) < 1e-4


def test_color_affinity__paper_mode_equals_numpy_loop():
    rgb = torch.rand(1, 3, 6, 4, generator=torch.Generator().manual_seed(0))
    affinity = color_affinity(normalize(rgb), (6, 4), mode="paper")[0]
    pixels = rgb[0].permute(1, 2, 0).reshape(24, 3).double().numpy()
    expected = np.array([[np.exp(-np.sum((p - q) ** 2) / 0.02) for q in pixels] for p in pixels])
    assert np.allclose(affinity.numpy(), expected / expected.max(), atol=1e-5)


def test_normalized_laplacian__is_scipys():
    from scipy.sparse.csgraph import laplacian as scipy_laplacian

    generator = torch.Generator().manual_seed(0)
    affinity = torch.rand(1, 9, 9, generator=generator, dtype=torch.float64)
    affinity = affinity + affinity.transpose(1, 2)
    affinity.diagonal(dim1=1, dim2=2).zero_()
    ours, _ = normalized_laplacian(affinity)
    assert np.allclose(ours[0].numpy(), scipy_laplacian(affinity[0].numpy(), normed=True))


def test_affinity__constant_image_and_zero_code_are_finite():
    color = color_affinity(torch.full((1, 3, 8, 8), 0.3), (4, 4))
    feature = feature_affinity(torch.zeros(1, 16, 5))
    assert torch.equal(color, torch.ones(1, 16, 16))
    assert torch.equal(feature, torch.zeros(1, 16, 16))
    laplacian, degree = normalized_laplacian(feature)
    assert torch.equal(degree, torch.ones(1, 16)), "patches without neighbours count degree 1"
    assert torch.isfinite(laplacian).all()


def test_feature_affinity__bfloat16_codes_are_multiplied_in_float32():
    code = torch.randn(1, 6, 64).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(feature_affinity(code), feature_affinity(code.float()))
        assert feature_affinity(code).dtype == torch.float32


@pytest.mark.parametrize("mode", ["released", "paper"])
def test_color_affinity__is_in_float32_under_autocast(mode):
    img = torch.randn(1, 3, 32, 32)
    expected = color_affinity(img, (4, 4), mode)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(color_affinity(img, (4, 4), mode), expected)
