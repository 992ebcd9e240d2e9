"""Records, batches and answers: what is written reads back, and bad values are refused one by one."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.contract import batch as batch_format
from edge_runtime.contract import result
from edge_runtime.contract.batch import Refusal, ResultsAnswer, decode_batch, encode_batch
from edge_runtime.contract.result import Anomaly, Event, Gap
from edge_runtime.errors import ContractError

from .goldens import STREAM, records

TEXT = st.text(st.characters(min_codepoint=32, exclude_characters="\x7f", exclude_categories=["Cs"]), max_size=20)


@st.composite
def anomalies(draw: st.DrawFn, sequence: int) -> Anomaly:
    observed = draw(st.integers(0, 10**13))
    return Anomaly(
        sequence=sequence,
        bundle=draw(st.sampled_from(["0" * 64, "af" * 32])),
        observed_at_ms=observed,
        incident_started_at_ms=draw(st.integers(0, observed)),
        anomaly_score=draw(st.floats(0, 1)),
        raw_score=draw(st.floats(allow_nan=False, allow_infinity=False)),
        windows=draw(st.integers(1, 1000)),
        contributions=tuple(draw(st.lists(st.tuples(TEXT, st.floats(-1, 1)), max_size=8))),
        stale=draw(st.booleans()),
    )


@st.composite
def batches(draw: st.DrawFn) -> list[result.AnyRecord]:
    made: list[result.AnyRecord] = []
    for sequence in sorted(draw(st.sets(st.integers(2, 10**6), max_size=6))):
        if draw(st.booleans()):
            made.append(draw(anomalies(sequence)))
        elif draw(st.booleans()):
            made.append(Event(sequence, None, 5, draw(TEXT), {draw(TEXT): draw(st.integers(-9, 9))}))
        else:
            made.append(Gap(sequence, sequence - 1, sequence - 1, 1, draw(TEXT)))
    return made


@given(batches())
def test_a_batch_reads_back(made: list[result.AnyRecord]) -> None:
    batch = decode_batch(encode_batch(STREAM, 17, made))
    assert list(batch.records) == made
    assert not batch.refused
    assert [result.record_digest(r) for r in batch.records] == [result.record_digest(r) for r in made]


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=5), lambda x: st.lists(x, max_size=3)))
def test_no_value_of_any_field_ends_in_another_error(junk: Any) -> None:
    body = json.loads(encode_batch(STREAM, 17, records()))
    for table, columns in [(t, c) for t, c in body.items() if isinstance(c, dict)]:
        for field in columns:
            broken = {**body, table: {**columns, field: [junk]}}
            try:
                decode_batch(json.dumps(broken).encode())
            except ContractError:
                continue


@pytest.mark.parametrize(
    "change",
    [
        {"anomaly_score": 1.5}, {"anomaly_score": float("nan")}, {"windows": 0}, {"bundle": "AB" * 32},
        {"incident_started_at_ms": 2 * 10**12}, {"observed_at_ms": -1}, {"contributions": (("x" * 200, 0.1),)},
        {"stale": 1},
    ],
)  # fmt: skip
def test_a_bad_record_is_refused_and_the_others_go_on(change: dict[str, Any]) -> None:
    good, *others = records()
    bad = replace(good, **change)
    body = json.dumps(
        json.loads(encode_batch(STREAM, 1, others)) | {"anomalies": {f: [bad.to_dict()[f]] for f in bad.fields}},
    ).encode()
    if b"NaN" in body:
        with pytest.raises(ContractError):
            decode_batch(body)
        return
    batch = decode_batch(body)
    assert [refusal.sequence for refusal in batch.refused] == [1]
    assert [refusal.reason for refusal in batch.refused] == ["bad_record"]
    assert list(batch.records) == others


@pytest.mark.parametrize(
    "body",
    [
        b"", b"[]", b"{}", b"\xff", b"<html>", b'{"format":2,"stream":"x","sent_at_ms":0}',
        b'{"format":1,"stream":"x","sent_at_ms":0}', b'{"format":1,"format":1}', b"[" * 100_000,
        b'{"format":1,"stream":"%s","sent_at_ms":0,"gaps":{"sequence":[1]}}' % STREAM.encode(),
        b'{"format":1,"stream":"%s","sent_at_ms":0,"gaps":{"sequence":[1],"first_sequence":[],"last_sequence":[],'
        b'"count":[],"reason":[]}}' % STREAM.encode(),
    ],
)  # fmt: skip
def test_a_batch_without_shape_is_refused_whole(body: bytes) -> None:
    with pytest.raises(ContractError):
        decode_batch(body)


def test_a_sequence_twice_is_refused_whole() -> None:
    first = records()[0]
    with pytest.raises(ContractError, match="twice"):
        decode_batch(encode_batch(STREAM, 1, [first, first]))


def test_too_many_records_are_refused_on_both_sides() -> None:
    many = [Event(i, None, 5, "x", {}) for i in range(1, batch_format.MAX_BATCH_RECORDS + 2)]
    with pytest.raises(ContractError, match="at most 5000"):
        encode_batch(STREAM, 1, many)
    body = json.loads(encode_batch(STREAM, 1, many[:-1]))
    body["gaps"] = {"sequence": [9999], "first_sequence": [1], "last_sequence": [1], "count": [1], "reason": ["x"]}
    with pytest.raises(ContractError, match="too many"):
        decode_batch(json.dumps(body).encode())


def test_records_differ_in_digest_when_anything_differs() -> None:
    first = records()[0]
    assert isinstance(first, Anomaly)
    assert result.record_digest(first) != result.record_digest(replace(first, stale=True))
    assert result.record_digest(Event(1, None, 0, "a", {})) != result.record_digest(Event(1, None, 0, "b", {}))


@given(st.sets(st.integers(1, 60)))
def test_ranges_cover_exactly_their_numbers(numbers: set[int]) -> None:
    runs = batch_format.ranges(numbers)
    assert {n for first, last in runs for n in range(first, last + 1)} == numbers
    assert all(b[0] > a[1] + 1 for a, b in itertools.pairwise(runs))


def test_an_answer_reads_back_and_is_read_strictly() -> None:
    answer = ResultsAnswer(2, ((1, 2), (4, 4)), (Refusal(3, "bad_record", "no"),))
    assert ResultsAnswer.from_dict(answer.to_dict()) == answer
    for broken in ({}, {"stored": 1, "held": [[2, 1]], "refused": []}, {"stored": 1, "held": [[1]], "refused": []}):
        with pytest.raises(ContractError):
            ResultsAnswer.from_dict(broken)


def test_the_time_that_scoring_took_does_not_make_another_record() -> None:
    summary = records()[1]
    assert isinstance(summary, result.Summary)
    assert result.record_digest(replace(summary, latency_sum_us=9, latency_max_us=9)) == result.record_digest(summary)
    assert result.record_digest(replace(summary, late=9)) != result.record_digest(summary)
