"""precision=auto, and bfloat16 where it is slow."""

import logging
from types import SimpleNamespace

import pytest
import torch

from eagle import distributed
from eagle.distributed import chosen_precision


@pytest.mark.parametrize(("native", "chosen"), [(True, "bf16-mixed"), (False, "32-true")])
def test_auto__is_bfloat16_where_the_device_computes_it(monkeypatch, caplog, native, chosen):
    monkeypatch.setattr(distributed, "computes_bfloat16", lambda _: native)
    assert chosen_precision(SimpleNamespace(precision="auto", accelerator="cpu")) == chosen
    assert chosen_precision(SimpleNamespace(precision="16-mixed", accelerator="cpu")) == "16-mixed"
    with caplog.at_level(logging.WARNING):
        assert chosen_precision(SimpleNamespace(precision="bf16-mixed", accelerator="cpu")) == "bf16-mixed"
    assert ("slower" in caplog.text) != native


def test_computes_bfloat16__answers_on_this_machine():
    assert distributed.computes_bfloat16("cpu") in (True, False)
    if torch.backends.cpu.get_cpu_capability() == "AVX2":
        assert not distributed.computes_bfloat16("cpu")
