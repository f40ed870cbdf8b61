from xml.etree import ElementTree

import msgspec
import pytest

from loadtests.bench.measuring import Figures
from loadtests.bench.plot import svg
from loadtests.bench.results import Comparison, PeerRuns, paired, whole_us
from loadtests.bench.table import markdown
from loadtests.checks.against_peers import against_peers
from loadtests.checks.verdict import Verdict, at_least, at_most


def _figures(cpu: float, workers: float | None = None, foreign: float = 0.0) -> Figures:
    return Figures(1000, 5000.0, 1.5, 4.0, cpu, workers, foreign, 0.5)


def _peer(label: str, task: str, *runs: Figures | None, trouble: str = "") -> PeerRuns:
    return PeerRuns(label, label.title(), task, "as it comes", "1.2", list(runs), trouble)


def _comparison(*peers: PeerRuns) -> Comparison:
    return Comparison("a <machine> & more", 8.0, 32, list(peers))


OURS = _peer("pointsman", "forward", _figures(100, 60), _figures(90, 50), _figures(110, 70))
INSIDE = _peer("pointsman-in-process", "in process", _figures(100, 60), _figures(100, 60), _figures(100, 60))
ENVOY = _peer("envoy", "forward", _figures(80), None, _figures(100))
BROKEN = _peer("mlserver", "in process", None, None, None, trouble="does not install: no wheel | at all")


def test_every_program_has_a_row_when_one_did_not_install() -> None:
    table = markdown(_comparison(OURS, ENVOY, INSIDE, BROKEN))
    assert "| Pointsman 1.2 | 5000 | 1.50 | 4.00 | 100 (workers 60) | 1 |" in table
    assert "| Envoy 1.2 | 5000 | 1.50 | 4.00 | 90 | 0.855 |" in table
    assert "| Mlserver 1.2 | – | – | – | – | – | does not install: no wheel" in table


def test_ratios_are_formed_within_rounds_when_one_round_is_missing() -> None:
    assert paired(OURS, ENVOY, whole_us, whole_us) == [pytest.approx(1.25), pytest.approx(1.1)]


def test_the_table_says_so_when_others_took_the_core() -> None:
    disturbed = _peer("envoy", "forward", _figures(80, foreign=0.3))
    assert "other programs took up to 30% of the core in rounds of envoy" in markdown(_comparison(OURS, disturbed))


def test_the_plot_is_a_document_with_a_bar_for_each_program_measured() -> None:
    picture = svg(_comparison(OURS, ENVOY, INSIDE, BROKEN))
    ElementTree.fromstring(picture)
    texts = [element.text or "" for element in ElementTree.fromstring(picture).iter("{http://www.w3.org/2000/svg}text")]
    assert any("Envoy" in text for text in texts)
    assert not any("Mlserver" in text for text in texts)
    assert "a <machine> & more" in texts


def test_a_plot_of_nothing_is_a_document_too() -> None:
    ElementTree.fromstring(svg(_comparison(BROKEN)))


def test_a_comparison_is_read_as_it_was_written() -> None:
    whole = _comparison(OURS, ENVOY, BROKEN)
    assert msgspec.json.decode(msgspec.json.encode(whole), type=Comparison) == whole


@pytest.mark.parametrize(
    ("verdict", "passed"),
    [
        (at_most("cost", [0.9, 1.0, 3.0], 1.0), True),
        (at_most("cost", [0.9, 1.01, 1.1], 1.0), False),
        (at_least("gain", [99.0, 100.0, 101.0], 100), True),
        (at_least("gain", [98.0, 99.0, 101.0], 100), False),
        (at_least("gain", [], 100), None),
    ],
)
def test_a_verdict_goes_by_the_median(verdict: Verdict, passed: bool | None) -> None:
    assert verdict.passed is passed


def test_promises_about_programs_that_were_not_measured_are_not_judged() -> None:
    verdicts = against_peers(_comparison(OURS, ENVOY, INSIDE, BROKEN))
    words = {verdict.promise: (verdict.passed, verdict.found) for verdict in verdicts}
    assert words["as it is, forward, CPU of the workers ÷ Envoy's ≤ 1×"][0] is True
    assert words["as it is, forward, CPU of the whole product ÷ Envoy's ≤ 1.4×"][0] is True
    assert words["as it is, forward, CPU of LiteLLM ÷ the whole product's ≥ 100×"] == (
        None,
        "no pair of runs: litellm was not measured",
    )
    assert words["as it is, in process, CPU of MLServer ÷ the workers' ≥ 7×"][0] is None
    assert "no wheel" in words["as it is, in process, CPU of MLServer ÷ the workers' ≥ 7×"][1]
