import pytest
import torch

from eagle.maps.crf import compiled, tensor_lattice
from eagle.maps.crf.lattice_kernels import LANES, softmax


class Compiled(compiled.Lattice):
    """The compiled lattice with the other lattice's tensors."""

    def filter(self, values):
        if not torch.is_tensor(values):
            return super().filter(values)
        padded = torch.nn.functional.pad(values, (0, -values.shape[1] % LANES))
        blocks = [super(Compiled, self).filter(part.contiguous().numpy()) for part in padded.split(LANES, dim=1)]
        return torch.cat([torch.from_numpy(block) for block in blocks], dim=1)[:, : values.shape[1]]


@pytest.fixture(params=[tensor_lattice.Lattice, Compiled])
def lattice_of(request):
    return request.param


def random_features(n_points, d, spread, seed=0):
    return torch.randn(n_points, d, generator=torch.Generator().manual_seed(seed)) * spread


def random_values(n_points, channels, seed=1):
    return torch.rand(n_points, channels, generator=torch.Generator().manual_seed(seed))


def direct_gaussian(features, values):
    kernel = torch.exp(-0.5 * torch.cdist(features.double(), features.double()).square())
    return kernel @ values.double() / kernel.sum(1, keepdim=True)


def averaged(lattice, values):
    return lattice.filter(values) / lattice.filter(torch.ones(len(values), 1))


@pytest.mark.parametrize(("d", "spread"), [(1, 2.0), (2, 2.0), (3, 1.5), (5, 1.0)])
def test_filter__close_to_direct_gaussian(lattice_of, d, spread):
    features = random_features(1500, d, spread)
    values = torch.stack([features[:, 0].sin(), features[:, -1].cos()], dim=1)
    direct = direct_gaussian(features, values)
    error = (averaged(lattice_of(features), values) - direct).square().mean().sqrt()
    # The lattice approximates the Gaussian; the identity and the global mean are both several times worse.
    assert error < 0.06
    assert error < 0.4 * (values - direct).square().mean().sqrt()
    assert error < 0.4 * (values.mean(0) - direct).square().mean().sqrt()


def test_filter__regular_grid_has_gaussian_impulse_response(lattice_of):
    axis = torch.arange(41.0)
    points = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), dim=-1).flatten(0, 1)
    impulse = torch.zeros(len(points), 1)
    impulse[20 * 41 + 20] = 1
    response = lattice_of(points / 3).filter(impulse).flatten()
    offsets = points - 20
    variance = (response[:, None] * offsets.square()).sum(0) / response.sum()
    torch.testing.assert_close((response[:, None] * offsets).sum(0) / response.sum(), torch.zeros(2), atol=0.2, rtol=0)
    torch.testing.assert_close(variance, torch.full((2,), 9.0), atol=1.5, rtol=0)
    # The kernel's integral is 2 π σ²; splat and slice flatten the peak by an eighth.
    assert response.sum().item() == pytest.approx(2 * torch.pi * 9, rel=0.15)


def test_filter__one_point_sees_only_itself(lattice_of):
    # The origin is a vertex, and its simplex holds the return path, half a weight per axis, in one direction only.
    filtered = lattice_of(torch.zeros(1, 2)).filter(torch.tensor([[3.0]]))
    torch.testing.assert_close(filtered, torch.tensor([[3.0 * (1 + 0.5**3) / (1 + 0.5**2)]]))


def test_filter__far_points_do_not_touch(lattice_of):
    features = torch.tensor([[0.0, 0.0], [1000.0, -700.0]])
    alone = lattice_of(features[:1]).filter(torch.tensor([[1.0]]))
    both = lattice_of(features).filter(torch.tensor([[1.0], [5.0]]))
    torch.testing.assert_close(both[:1], alone)


def test_normalise__divides_by_roots_of_row_sums(lattice_of):
    features, values = random_features(250, 3, 1.0), random_values(250, 2)
    plain = lattice_of(features)
    roots = plain.filter(torch.ones(250, 1)).sqrt()
    expected = plain.filter(values / roots) / roots
    torch.testing.assert_close(lattice_of(features, normalise=True).filter(values), expected)


def test_lattice__refuses_more_cells_than_int64_numbers(lattice_of):
    with pytest.raises(ValueError, match="too many lattice cells"):
        lattice_of(torch.stack([torch.zeros(8), torch.full((8,), 1e6)]))


@pytest.mark.parametrize(("d", "spread"), [(1, 2.0), (2, 9.0), (5, 1.0), (5, 6.0)])
@pytest.mark.parametrize("normalise", [False, True])
def test_compiled__equals_the_lattice_of_tensors(d, spread, normalise):
    features, values = random_features(3000, d, spread), random_values(3000, 11)
    expected = tensor_lattice.Lattice(features, normalise).filter(values)
    torch.testing.assert_close(Compiled(features, normalise).filter(values), expected, rtol=1e-4, atol=1e-5)


def test_softmax__of_padded_and_extreme_energies():
    energies = torch.randn(2, 50, LANES, generator=torch.Generator().manual_seed(0)) * 30
    energies[1, :, 3:] = -torch.inf  # padding
    energies[:, 0, 0] = torch.tensor([-1e4, 1e4])
    expected = energies.double().transpose(0, 1).flatten(1).softmax(1).unflatten(1, (2, -1)).transpose(0, 1).float()
    softmax(energies.numpy())
    torch.testing.assert_close(energies, expected, rtol=1e-5, atol=1e-30)
