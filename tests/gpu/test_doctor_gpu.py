"""The doctor on a machine with a GPU."""

from __future__ import annotations

import pytest

from cosytune import doctor
from cosytune.schema import Config


@pytest.mark.gpu
def test_the_card_its_driver_and_the_provider_that_a_session_gets() -> None:
    import torch

    findings = {finding.subject: finding for finding in doctor.examine(Config(base="random"), None)}
    assert torch.cuda.get_device_properties(0).name in findings["GPU"].text
    assert "driver unknown" not in findings["GPU"].text
    assert ("bf16" in findings["precision"].text) == (torch.cuda.get_device_capability() >= (8, 0))
    assert "CUDAExecutionProvider" in str(findings["ONNX"])
