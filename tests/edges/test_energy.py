"""Reading the kernel's energy counters, here from a folder of the same form."""

from pathlib import Path

import pytest

from looper.edges.energy import EnergyMeter


@pytest.fixture
def counters(tmp_path: Path) -> Path:
    for name in ("intel-rapl:0", "intel-rapl:1", "intel-rapl:0:0"):
        show(tmp_path, name, 1_000_000)
    return tmp_path


def show(counters: Path, name: str, microjoules: int) -> None:
    folder = counters / name
    folder.mkdir(exist_ok=True)
    (folder / "energy_uj").write_text(f"{microjoules}\n")
    (folder / "max_energy_range_uj").write_text("10000000\n")


def test_packages_add_up_and_their_parts_are_not_counted_again(counters: Path) -> None:
    meter = EnergyMeter(counters)
    show(counters, "intel-rapl:0", 3_000_000)
    show(counters, "intel-rapl:1", 1_500_000)
    show(counters, "intel-rapl:0:0", 9_000_000)
    assert meter.joules() == pytest.approx(2.5)


def test_a_counter_that_began_anew_lost_nothing(counters: Path) -> None:
    meter = EnergyMeter(counters)
    show(counters, "intel-rapl:0", 9_000_000)
    assert meter.joules() == pytest.approx(8)
    show(counters, "intel-rapl:0", 500_000)
    assert meter.joules() == pytest.approx(9.5)


def test_without_a_counter_nothing_is_measured(tmp_path: Path) -> None:
    assert EnergyMeter(tmp_path / "none").joules() is None


def test_a_counter_that_is_gone_in_between_leaves_no_half_a_figure(counters: Path) -> None:
    meter = EnergyMeter(counters)
    (counters / "intel-rapl:1" / "energy_uj").unlink()
    assert meter.joules() is None
    show(counters, "intel-rapl:1", 5_000_000)
    assert meter.joules() is None
