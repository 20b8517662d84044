"""Energy that the processors took, from the counters of the kernel (Intel and AMD: RAPL, below /sys/class/powercap)."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

COUNTERS = Path("/sys/class/powercap")
PERIOD_S = 60.0
"""Counters begin anew after some hundred kilojoules, which a busy server takes within the hour."""


class EnergyMeter:
    """What the whole machine took since it was made, other programs' work included."""

    def __init__(self, counters: Path = COUNTERS) -> None:
        # Packages are `intel-rapl:N`; their parts (cores, memory) stand below and are in them already.
        self._packages = sorted(counters.glob("intel-rapl:[0-9]*")) if counters.is_dir() else []
        self._packages = [path for path in self._packages if path.name.count(":") == 1]
        self._last = self._read()
        self._spent = 0.0
        self._lock = threading.Lock()

    def _read(self) -> list[tuple[int, int]] | None:
        """Microjoules and where they begin anew, for each package; None where that cannot be read."""
        try:
            return [
                (int((path / "energy_uj").read_text()), int((path / "max_energy_range_uj").read_text()))
                for path in self._packages
            ] or None
        except (OSError, ValueError):
            return None  # Since 2020 kernels let only root read them.

    def joules(self) -> float | None:
        """None where there is no counter that may be read. To be asked at least once a minute."""
        with self._lock:
            now = self._read()
            if now is None or self._last is None:
                self._last = None
                return None
            for (before, most), (after, _) in zip(self._last, now, strict=True):
                self._spent += (after - before if after >= before else after - before + most) / 1e6
            self._last = now
            return self._spent


@contextmanager
def metered() -> Iterator[EnergyMeter]:
    """A meter that is read often enough inside."""
    meter, over = EnergyMeter(), threading.Event()

    def keep() -> None:
        while meter.joules() is not None and not over.wait(PERIOD_S):
            pass

    thread = threading.Thread(target=keep, daemon=True)
    thread.start()
    try:
        yield meter
    finally:
        over.set()
        thread.join()
