"""What `looper evolve calibrate` does."""

from collections.abc import Sequence
from pathlib import Path

from looper.evolution.calibrate import calibrated
from looper.journal import replace_file
from looper.records.gate import BenchmarkRule, Drawn
from looper.untrusted import named_text
from looper.views.blocks import with_block
from looper.views.calibration import calibration_lines

GAINS = (0.0, -0.1, 0.1, 0.2)


def calibration(campaigns: int, challengers: int, tasks: int, alpha: float, discordance: float) -> list[str]:
    """A table over every gain that so many differing pairs can hold."""
    rule = BenchmarkRule(alpha=alpha, challengers=challengers)
    drawn = Drawn(tasks=tasks, discordance=discordance)
    found = {
        gain: list(calibrated(drawn.model_copy(update={"gain": gain}), rule, campaigns))
        for gain in GAINS
        if abs(gain) <= discordance
    }
    return list(calibration_lines(rule, found, drawn))


def write_calibration(file: Path, lines: Sequence[str]) -> str:
    """Raises BadInput for a file without marks."""
    text = named_text(file) if file.is_file() else ""
    replace_file(file, with_block(text, "looper evolve calibrate", lines, str(file)).encode())
    return f"{file}: written"
