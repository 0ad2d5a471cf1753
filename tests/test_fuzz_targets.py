"""`make fuzz` finds what breaks a door, what hangs there too; each of its targets holds on a few inputs."""

import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fuzz


@pytest.mark.slow
@pytest.mark.parametrize("name", fuzz.target_names())
def test_a_target_holds_on_a_few_inputs(name):
    target = fuzz.load_target(name)

    @settings(max_examples=30, suppress_health_check=list(HealthCheck))
    @given(target.inputs)
    def holds(each):
        target.check(each)

    holds()


def test_the_smallest_input_that_breaks_a_target_is_found():
    def refuse(number: int) -> None:
        if number > 10:
            raise KeyError(number)

    tried, finding = fuzz.search(fuzz.Target("numbers", st.integers(), refuse), seconds=60)
    assert isinstance(finding, KeyError) and finding.args == (11,) and tried > 1


def test_an_input_that_hangs_is_a_finding(monkeypatch):
    monkeypatch.setattr(fuzz, "SECONDS_AN_INPUT", 0.01)
    tried, finding = fuzz.search(fuzz.Target("sleepy", st.just(1), time.sleep), seconds=60)
    assert isinstance(finding, fuzz.TakesTooLongError) and tried >= 1


def test_the_search_ends_when_its_time_is_over():
    tried, finding = fuzz.search(fuzz.Target("texts", st.text(), len), seconds=0.05)
    assert finding is None and tried >= 1
