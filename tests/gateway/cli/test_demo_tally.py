import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.cli.demo import infer_body, label_of
from gateway.cli.tally import Prediction, Said, nearest_rank, share, tally
from gateway.examples import digit_samples
from routing import parse_route

ROUTE = parse_route({"model": "digits", "split": {"1": 9000, "2": 1000}, "shadows": [{"version": "3", "sample": 5000}]})


def test_a_row_counts_shares_accuracy_times_and_agreement_of_its_version() -> None:
    predictions = [
        Prediction(4, Said("1", 4, 1.0), (Said("3", 4, 9.0),)),
        Prediction(4, Said("1", 7, 3.0), (Said("3", 4, 8.0),)),
        Prediction(4, Said("1", 4, 2.0)),
        Prediction(5, Said("2", 5, 4.0), (Said("3", 5, 7.0),)),
    ]
    rows = {row.version: row for row in tally(ROUTE, predictions)}
    one, two, three = rows["1"], rows["2"], rows["3"]
    assert (one.asked, one.seen, one.accuracy, one.p50, one.p99) == ("90 %", "75.0 % (3)", "66.7 %", "2.00", "3.00")
    assert (one.agreement, two.agreement, three.agreement) == ("50.0 % with 3", "100.0 % with 3", "–")
    assert (three.asked, three.seen, three.accuracy) == ("shadow 50 %", "75.0 % (3)", "100.0 %")


def test_a_row_has_dashes_when_nothing_is_known() -> None:
    rows = tally(ROUTE, [Prediction(4, Said("9", None, 1.0))])
    assert [row.version for row in rows] == ["1", "2", "9", "3"]
    assert (rows[0].seen, rows[0].accuracy, rows[0].p50) == ("0.0 % (0)", "–", "–")
    assert (rows[2].asked, rows[2].accuracy, rows[2].agreement) == ("–", "–", "–")
    assert share(0, 0) == "–"


@settings(deadline=None)
@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=300), st.floats(0.01, 1))
def test_a_percentile_is_a_value_with_enough_values_at_or_below_it(values: list[float], fraction: float) -> None:
    found = nearest_rank(values, fraction)
    assert found in values
    assert sum(value <= found for value in values) >= fraction * len(values)
    assert sum(value < found for value in values) < fraction * len(values)


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"{", b"[]", b"7", b"\xff", b'{"outputs":7}', b'{"outputs":[]}', b'{"outputs":[{"name":"x"}]}'),
        *(b'{"outputs":[{"name":"label","data":[]}]}', b'{"outputs":[{"name":"label","data":["x"]}]}'),
    ],
)
def test_an_answer_has_no_label_when_it_is_no_prediction(body: bytes) -> None:
    assert label_of(body) is None


def test_a_label_is_read_from_its_output_wherever_it_stands() -> None:
    outputs = [{"name": "probabilities", "data": [0.5]}, {"name": "label", "data": [7]}]
    assert label_of(json.dumps({"outputs": outputs})) == 7


def test_the_body_of_a_digit_is_one_line_of_open_inference_json() -> None:
    sample = digit_samples()[0]
    body = infer_body(sample)
    assert "\n" not in body
    assert "'" not in body  # it stands between single quotes in the printed curl line
    (pixels,) = json.loads(body)["inputs"]
    assert pixels == {"name": "pixels", "shape": [1, 64], "datatype": "FP32", "data": list(sample.pixels)}
