"""What everything that holds a run offers: the trainer's own values, alerts, the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Self

from ._client import Alert, Client


class OpenRun:
    """Base of Run and of the watches of the frameworks. `_client` is None before the first step of those that open
    late, and closed after the end."""

    def __init__(self, on_alert: Callable[[Alert], None] | None = None):
        self._client: Client | None = None
        self._step = 0  # the last one, submitted or left out
        self._on_alert = on_alert
        self._wait_for_steps: Callable[[], None] | None = None  # those that a framework has still to hand over

    def log(self, values: Mapping[str, float] | None = None, *, step: int | None = None, **named: float) -> bool:
        """Writes values of the trainer's own, such as log(loss=0.3) or log({"valid/loss": 0.4}), at `step` (None: the
        last one). Tags have 1 to 255 bytes, at most 1,024 of them a run; per tag the steps rise. Returns whether they
        are taken; what is wrong with them is logged."""
        if self._client is None:
            return False
        return self._client.scalars(self._step if step is None else step, {**(values or {}), **named})

    def alerts(self) -> Iterator[Alert]:
        """The alerts that have come since the last call, without waiting; the last 16 are kept."""
        if self._client is not None:
            yield from self._client.alerts()

    def _tell_alerts(self) -> None:
        if self._on_alert is not None:
            for alert in self.alerts():
                self._on_alert(alert)

    @property
    def step(self) -> int:
        """Number of the last step, submitted or left out; that before the first one until then."""
        return self._step

    @property
    def skipped(self) -> int:
        """Steps that were dropped because no slot was free."""
        return self._client.skipped if self._client is not None else 0

    @property
    def event_path(self) -> str | None:
        """The run's event file; None before it is opened."""
        return self._client.event_path if self._client is not None else None

    def close(self, failed: bool | None = None) -> bool:
        """Ends the run, as failed if so said (None: if an exception ends this process), and waits, at most
        close_timeout, until its event file is complete. Returns whether it is. Without it the run is closed when it is
        collected or when the process exits."""
        if self._wait_for_steps is not None:
            self._wait_for_steps()
        return self._client.close(failed) if self._client is not None else False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exception: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(failed=exception is not None)
