"""How far one training run is: what a resumed run must know beside weights, optimizer and schedule."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cosytune.errors import UserError
from cosytune.schema import ModuleTrainConfig
from cosytune.training.machine import Values

_FAILURES_IN_A_ROW = 5


@dataclass
class Mean:
    """Running means over targets: of the loss, and of how many were right where that is known."""

    total: float = 0.0
    targets: int = 0
    correct: int | None = None

    def add(self, values: Values) -> None:
        self.total += values.total
        self.targets += values.targets
        if values.correct is not None:
            self.correct = (self.correct or 0) + values.correct

    @property
    def loss(self) -> float:
        """NaN over nothing."""
        return self.total / self.targets if self.targets else math.nan

    @property
    def accuracy(self) -> float | None:
        return self.correct / self.targets if self.correct is not None and self.targets else None

    def take(self) -> Mean:
        """What was gathered; begins anew."""
        taken = Mean(self.total, self.targets, self.correct)
        self.total, self.targets, self.correct = 0.0, 0, None
        return taken


@dataclass
class Position:
    """`update`: updates done, the skipped ones included. Losses are means over target values.

    `failures`: the clips of the updates that were skipped in a row, up to now. `evaluated`: the update of the last
    evaluation, -1 before the first. `budget`: tokens of a micro-batch since memory ran short, None while it did not.
    """

    update: int = 0
    evaluated: int = -1
    best_update: int | None = None
    best_cv_loss: float = math.inf
    reference_cv_loss: float = math.inf
    """What an evaluation has to be better than by early_stopping_threshold."""
    evaluations_without_gain: int = 0
    is_at_floor: bool = False
    skipped: int = 0
    budget: int | None = None
    failures: list[list[str]] = field(default_factory=list)
    since_log: Mean = field(default_factory=Mean)
    since_evaluation: Mean = field(default_factory=Mean)

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> Position:
        """From what a checkpoint holds: `dataclasses.asdict` of one."""
        means = {name: Mean(**values[name]) for name in ("since_log", "since_evaluation")}
        return cls(**{**values, **means})

    def trained(self, values: Values) -> None:
        """One update was made."""
        self.update += 1
        self.failures = []
        self.since_log.add(values)
        self.since_evaluation.add(values)

    def failed(self, utts: list[str], key: str) -> None:
        """One update was skipped. Raises UserError with its clips when too many were, in a row."""
        self.update += 1
        self.skipped += 1
        self.failures = [*self.failures, utts]
        if len(self.failures) == _FAILURES_IN_A_ROW:
            clips = ", ".join(f"'{utt}'" for utt in sorted({utt for update in self.failures for utt in update}))
            raise UserError(
                f"{key}: the loss or its gradient was not finite in {_FAILURES_IN_A_ROW} updates in a row, with clips "
                f"{clips}; look at these recordings, or lower {key}.learning_rate"
            )

    def was_evaluated(self, cv_loss: float, train_loss: float, settings: ModuleTrainConfig) -> bool:
        """Take an evaluation after some updates in; whether it is the best one so far. NaN never is."""
        self.evaluated = self.update
        if cv_loss < self.reference_cv_loss - settings.early_stopping_threshold:
            self.reference_cv_loss, self.evaluations_without_gain = cv_loss, 0
        else:
            self.evaluations_without_gain += 1
        self.is_at_floor |= settings.loss_floor is not None and train_loss <= settings.loss_floor
        is_best = cv_loss < self.best_cv_loss
        if is_best:
            self.best_update, self.best_cv_loss = self.update, cv_loss
        return is_best
