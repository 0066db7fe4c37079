import pytest
import torch

from eagle.models.head import SegmentationHead


@pytest.mark.parametrize("size", ["112x112", "96x128", "56x224"])
def test_head__released_codes(golden, size):
    head = SegmentationHead(144, 32).eval()
    head.load_state_dict(golden.tensors("b_heads_state"))
    expected = golden.tensors(f"b_code_{size}")["code_kk"]
    code = head(golden.tensors(f"a_dino_{size}")["kk"])
    assert (code - expected).norm() / expected.norm() < 1e-4


def test_head__branches_drop_channels_independently():
    head = SegmentationHead(64, 4)
    inputs = []
    head.cluster1.register_forward_pre_hook(lambda _m, args: inputs.append(args[0]))
    head.cluster2.register_forward_pre_hook(lambda _m, args: inputs.append(args[0]))
    head(torch.ones(2, 64, 3, 3))
    first, second = (tensor[:, :, 0, 0] for tensor in inputs)
    assert ((first == 0) | torch.isclose(first, torch.tensor(1 / 0.9))).all()
    assert not torch.equal(first, second)
    assert torch.equal(inputs[0], first[:, :, None, None].expand(-1, -1, 3, 3)), "whole channels are dropped"
