"""Random draws: functions of seed, epoch and clip, distributed as upstream's are."""

from __future__ import annotations

import numpy as np
import pytest

from cosytune.training import draws
from cosytune.training.draws import Epoch

EPOCH = Epoch(seed=1986, number=3)
UTTS = [f"話者-{number:04d}" for number in range(4000)]


def test_a_draw_depends_on_seed_epoch_and_clip_alone() -> None:
    draw = draws.flow(EPOCH, "a", 200, 80, 0.2)
    draws.flow(EPOCH, "b", 100, 80, 0.2)  # another clip in between changes nothing
    again = draws.flow(Epoch(1986, 3), "a", 200, 80, 0.2)
    assert np.array_equal(draw.noise, again.noise)
    assert (draw.time, draw.prompt_frames, draw.guided) == (again.time, again.prompt_frames, again.guided)
    for other in (draws.flow(EPOCH, "b", 200, 80, 0.2), draws.flow(Epoch(1986, 4), "a", 200, 80, 0.2)):
        assert not np.array_equal(draw.noise, other.noise)
        assert draw.time != other.time
    assert draw.time != draws.flow(Epoch(7, 3), "a", 200, 80, 0.2).time


def test_purposes_are_independent() -> None:
    pairs = np.array(
        [[draws.streaming(EPOCH, utt, 0.5), draws.interleaved(EPOCH, utt, 0.5)] for utt in UTTS], dtype=float
    )
    assert abs(np.corrcoef(pairs.T)[0, 1]) < 0.06


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_coins_come_up_as_often_as_they_should(probability: float) -> None:
    for coin in (draws.streaming, draws.interleaved):
        share = np.mean([coin(EPOCH, utt, probability) for utt in UTTS])
        assert share == pytest.approx(probability, abs=0.03 if 0 < probability < 1 else 0)


def test_the_flows_draws_are_distributed_as_upstreams() -> None:
    made = [draws.flow(EPOCH, utt, 100, 80, 0.2) for utt in UTTS[:2000]]
    times = np.array([draw.time for draw in made])
    assert times.min() >= 0
    assert times.max() < 1
    assert np.histogram(times, 10, (0, 1))[0] == pytest.approx(200, abs=60)
    assert np.mean([draw.guided for draw in made]) == pytest.approx(0.8, abs=0.03)
    prompts = np.array([draw.prompt_frames for draw in made])
    assert np.mean(prompts == 0) == pytest.approx(0.5 + 0.5 / 31, abs=0.03)
    assert prompts.max() == 30, "random.randint includes its upper end"
    noise = np.concatenate([draw.noise for draw in made[:50]])
    assert noise.shape == (5000, 80)
    assert noise.mean() == pytest.approx(0, abs=0.01)
    assert noise.std() == pytest.approx(1, abs=0.01)


def test_the_parts_of_cross_validation_share_the_time_axis_out() -> None:
    parts = draws.cv_epochs(4)
    times = [draws.flow(part, "a", 50, 80, 0.2).time for part in parts]
    assert [int(time * 4) for time in times] == [0, 1, 2, 3]
    assert times == [draws.flow(part, "a", 50, 80, 0.2).time for part in draws.cv_epochs(4)]


def test_dropout_seeds_differ_by_epoch_and_update() -> None:
    seeds = {draws.torch_seed(Epoch(1986, number), update) for number in range(20) for update in range(20)}
    assert len(seeds) == 400
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_shuffling_is_a_permutation_of_its_own_for_each_epoch() -> None:
    orders = [draws.shuffled(Epoch(1, number), 50) for number in range(3)]
    assert all(sorted(order) == list(range(50)) for order in orders)
    assert orders[0] != orders[1] != orders[2]
    assert orders[0] == draws.shuffled(Epoch(1, 0), 50)
