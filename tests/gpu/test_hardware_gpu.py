"""The card at hand, as torch knows it."""

from __future__ import annotations

import pytest

from cosytune.schema import LlmTrainConfig, TrainConfig
from cosytune.training import hardware


@pytest.mark.gpu
def test_the_card_that_is_there() -> None:
    import torch

    card = hardware.card("auto")
    assert card is not None
    assert card.name == torch.cuda.get_device_name()
    assert card.capability == torch.cuda.get_device_capability()
    assert card.memory_gb == pytest.approx(torch.cuda.mem_get_info()[1] / 1e9, rel=0.05)
    assert hardware.card("cpu") is None
    setup = hardware.settle("llm", LlmTrainConfig(), TrainConfig(), False, card, 500_000_000)
    assert setup.precision == ("bf16" if torch.cuda.get_device_capability() >= (8, 0) else "fp16")
