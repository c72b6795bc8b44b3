"""How far one training run is: what a resumed run must know beside weights, optimizer and schedule."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from cosytune.errors import UserError
from cosytune.schema import ModuleTrainConfig

_FAILURES_IN_A_ROW = 5


@dataclass
class Mean:
    """A running mean over target values."""

    total: float = 0.0
    targets: int = 0

    def add(self, total: float, targets: int) -> None:
        self.total += total
        self.targets += targets

    def take(self) -> float:
        """The mean, NaN over nothing; begins anew."""
        mean = self.total / self.targets if self.targets else math.nan
        self.total, self.targets = 0.0, 0
        return mean


@dataclass
class Position:
    """`update`: updates done, the skipped ones included. Losses are means over target values.

    `failures`: the clips of the updates that were skipped in a row, up to now.
    """

    update: int = 0
    best_update: int | None = None
    best_cv_loss: float = math.inf
    reference_cv_loss: float = math.inf
    """What an epoch has to be better than by early_stopping_threshold."""
    epochs_without_gain: int = 0
    skipped: int = 0
    failures: list[list[str]] = field(default_factory=list)
    since_log: Mean = field(default_factory=Mean)
    in_epoch: Mean = field(default_factory=Mean)

    def trained(self, total: float, targets: int) -> None:
        """One update was made; `total`: the sum of its losses."""
        self.update += 1
        self.failures = []
        self.since_log.add(total, targets)
        self.in_epoch.add(total, targets)

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

    def ended_epoch(self, cv_loss: float, settings: ModuleTrainConfig) -> bool:
        """Take the cv loss of an epoch in; whether it is the best one so far. NaN never is."""
        if cv_loss < self.reference_cv_loss - settings.early_stopping_threshold:
            self.reference_cv_loss, self.epochs_without_gain = cv_loss, 0
        else:
            self.epochs_without_gain += 1
        is_best = cv_loss < self.best_cv_loss
        if is_best:
            self.best_update, self.best_cv_loss = self.update, cv_loss
        return is_best
