"""What an operator chooses about telemetry."""

from __future__ import annotations

from dataclasses import dataclass, field

from model_server.telemetry.drift import DriftSettings

__all__ = ["TelemetrySettings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TelemetrySettings:
    """``epsilon`` and ``delta`` cover everything that a device sends in a day. ``minimum_cohort`` is the number of
    device-days below which no number is shown or judged. A report of day D is taken until the end of day
    D + ``late_days``, then D closes. Devices send a day when it is over, so 1 takes what arrives on the next day and
    holds no exact sum for longer than that day. ``minimum_baseline_days`` judged days make a baseline at least.
    ``queue`` reports may wait to be stored before more are told to come later."""

    epsilon: float = 1.0
    delta: float = 1e-6
    minimum_cohort: int = 500
    late_days: int = 1
    minimum_baseline_days: int = 7
    queue: int = 4096
    drift: DriftSettings = field(default_factory=DriftSettings)

    def __post_init__(self) -> None:
        if self.minimum_cohort < 1 or self.late_days < 0 or self.minimum_baseline_days < 1 or self.queue < 1:
            raise ValueError("minimum_cohort, minimum_baseline_days and queue are at least 1, late_days at least 0")
        if not self.epsilon > 0 or not 0 < self.delta < 1:
            raise ValueError(f"no privacy is described by epsilon {self.epsilon} and delta {self.delta}")
