"""A part of ``make fuzz``, with the same cases every time: every damaged input gives a result or a one-line error."""

from __future__ import annotations

import pytest

import fuzz

CASES = {"pictures": 3000, "readers": 3000, "checkpoints": 150, "requests": 400}
SEED = 20261125
COUNTS: dict[str, int] = {}


@pytest.fixture(scope="module")
def targets():
    with fuzz.targets() as all_targets:
        yield all_targets


@pytest.fixture(scope="module", autouse=True)
def counted(request):
    yield
    reporter = request.config.pluginmanager.get_plugin("terminalreporter")
    said = ", ".join(f"{count} damaged {name}" for name, count in COUNTS.items())
    reporter.write_line(f"\n{said}: {sum(COUNTS.values())} in all, 0 tracebacks")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", CASES)
def test_damaged_input_ends_in_a_result_or_one_line(name, targets, tmp_path):
    outcome = fuzz.attack(targets[name], SEED, cases=CASES[name], keep=tmp_path)
    assert outcome.findings == 0, sorted(tmp_path.iterdir())
    assert outcome.cases == CASES[name] and 0 < outcome.refused < outcome.cases
    COUNTS[name] = outcome.cases
