"""The sink for OpenTelemetry: what a receiver of OTLP/HTTP is sent, and what its answers do."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from journals import line_of, run, set_up
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsPartialSuccess,
    ExportLogsServiceResponse,
)
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsPartialSuccess,
    ExportMetricsServiceResponse,
)
from receivers import Collector, attributes, serving

from cmdrdata_transport import lanes as lanes_module
from cmdrdata_transport.errors import Rejected, TrackingSetupError, Unavailable
from cmdrdata_transport.event import decode
from cmdrdata_transport.sinks import Outlet, Unauthorized, open_sink

HEADERS = {"OTEL_EXPORTER_OTLP_HEADERS": "api-key=secret%20one, x-tenant=zoo"}


@pytest.fixture
def collector() -> Iterator[Collector]:
    """A receiver that is up."""
    with serving(Collector()) as server:
        yield server


def opened(spec: str, home: Path, **environ: str) -> Outlet:
    """An outlet with an environment of its own."""
    return open_sink(spec, home=home, environ=environ)


# --- opening ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "identity"),
    [
        ("otlp+https://collector:4318", "otlp+https://collector:4318"),
        ("otlp+https://zoo:secret@collector/otlp/", "otlp+https://collector/otlp"),
        ("otlp+http://localhost:4318?timeout=5", "otlp+http://localhost:4318"),
        ("otlp+http://collector:4318?insecure=1", "otlp+http://collector:4318?insecure=1"),
        ("otlp+https://c?signals=logs&customer=0", "otlp+https://c?signals=logs&customer=0"),
    ],
)
def test_a_receiver_has_an_identity_without_secrets(tmp_path: Path, spec: str, identity: str) -> None:
    """It opens the receiver again, and shows neither password nor headers."""
    outlet: Any = opened(spec, tmp_path, **HEADERS)
    assert outlet.identity == identity
    assert opened(identity, tmp_path).identity == identity
    assert "secret" not in repr(outlet) + repr(outlet._target)
    assert not outlet.keyed


@pytest.mark.parametrize(
    ("spec", "environ", "says"),
    [
        ("otlp+https:///v1", {}, r"otlp\+https://collector:4318"),
        ("otlp+http://collector:4318", {}, "insecure=1"),
        ("otlp+https://collector/in/v1/logs", {}, "without /v1/logs"),
        ("otlp+https://collector?retries=3", {}, r"no \?retries="),
        ("otlp+https://collector?compression=zstd", {}, "gzip or none"),
        ("otlp+https://collector", {"OTEL_EXPORTER_OTLP_LOGS_COMPRESSION": "zstd"}, "gzip or none"),
        ("otlp+https://collector?signals=traces", {}, "signals=logs"),
        ("otlp+https://collector?timeout=soon", {}, "timeout=5"),
        ("otlp+https://zoo:1/secret@collector", {}, "%2F for /"),
        ("otlp+https://zoo:sec/secret@collector", {}, "a host or a port"),
        ("otlp+https://collector", {"OTEL_EXPORTER_OTLP_HEADERS": "secret"}, "name=value"),
        ("otlp+https://collector", {"OTEL_EXPORTER_OTLP_LOGS_HEADERS": "a=secret%0A"}, "name=value"),
        ("otlp://collector", {}, "otlp"),
    ],
)
def test_a_receiver_that_cannot_be_says_what_to_write(
    tmp_path: Path, spec: str, environ: dict[str, str], says: str
) -> None:
    """The error is raised where the sink is configured, and shows no secret."""
    with pytest.raises(TrackingSetupError, match=says) as raised:
        opened(spec, tmp_path, **environ)
    assert "secret" not in str(raised.value)


def test_messages_that_are_not_there_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the sink is configured, with what to type."""
    monkeypatch.setitem(sys.modules, "opentelemetry.proto", None)
    with pytest.raises(TrackingSetupError, match=r"pip install 'cmdrdata-transport\[otel\]'"):
        opened("otlp+https://collector", tmp_path)


# --- what a receiver is sent ------------------------------------------------------------------------


def test_an_event_is_a_log_record(tmp_path: Path, collector: Collector) -> None:
    """Its body is the event to the byte; its attributes are what one looks for, its time the call's."""
    line = line_of(
        1, service="zoo", request_model="gpt-5-mini", host="api.openai.com", response_id="resp_1", part=0
    )
    outlet = opened(collector.url, tmp_path)
    outlet.send([line])
    (request,) = collector.logs
    assert attributes(request.resource_logs[0].resource)["service.name"] == "zoo"
    (record,) = collector.records()
    assert record.body.string_value.encode() == line
    assert record.event_name == "cmdrdata.usage"
    assert record.time_unix_nano == 1_795_262_400_250_000_000
    assert attributes(record) == {
        "cmdrdata.event_id": "event-1",
        "cmdrdata.customer_id": "acme",
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-5-mini",
        "gen_ai.response.model": "gpt-5",
        "gen_ai.response.id": "resp_1",
        "gen_ai.usage.input_tokens": 10,
        "gen_ai.usage.output_tokens": 2,
        "server.address": "api.openai.com",
    }
    outlet.close()


def test_a_batch_is_histograms_of_what_it_brought(tmp_path: Path, collector: Collector) -> None:
    """Delta temporality: tokens by kind, seconds, and the wait of streams, one point for each series."""
    outlet = opened(collector.url, tmp_path)
    took = {"request_duration_ms": 1500.0, "time_to_first_byte_ms": 30.0}
    outlet.send(
        [
            line_of(1, streaming=True, **took),
            line_of(2, input_tokens=1000, **took),
            line_of(
                3, customer_id="zoo", input_tokens=None, output_tokens=None, outcome="error", status_code=500
            ),
        ]
    )
    tokens = {
        (each["cmdrdata.customer_id"], each["gen_ai.token.type"]): at
        for each, at in collector.points("gen_ai.client.token.usage")
    }
    assert {each: (point.count, point.sum, point.min, point.max) for each, point in tokens.items()} == {
        ("acme", "input"): (2, 1010, 10, 1000),
        ("acme", "output"): (2, 4, 2, 2),
    }
    point = tokens["acme", "input"]
    assert sum(point.bucket_counts) == 2
    assert point.bucket_counts[2] == 1  # 4 < 10 <= 16
    assert point.bucket_counts[5] == 1  # 256 < 1000 <= 1024
    tokens_bounds = (
        1,
        4,
        16,
        64,
        256,
        1024,
        4096,
        16384,
        65536,
        262144,
        1048576,
        4194304,
        16777216,
        67108864,
    )
    assert tuple(point.explicit_bounds) == tokens_bounds
    ((labels, duration),) = collector.points("gen_ai.client.operation.duration")
    assert (duration.count, duration.sum) == (2, 3.0)
    assert labels["gen_ai.provider.name"] == "openai"
    ((_, first),) = collector.points("gen_ai.client.operation.time_to_first_chunk")
    assert (first.count, first.sum) == (1, 0.03)
    seconds = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
    assert tuple(duration.explicit_bounds) == seconds
    firsts = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
    assert tuple(first.explicit_bounds) == firsts
    (metrics,) = [request.resource_metrics[0].scope_metrics[0].metrics for request in collector.metrics]
    assert {each.histogram.aggregation_temporality for each in metrics} == {1}
    assert [each.unit for each in metrics] == ["{token}", "s", "s"]
    outlet.send([line_of(4)])
    later = collector.points("gen_ai.client.token.usage")[-1][1]
    assert later.start_time_unix_nano == point.time_unix_nano
    outlet.close()


def test_an_error_has_its_kind(tmp_path: Path, collector: Collector) -> None:
    """`error.type` is on the duration and on the record: the provider's, or the status."""
    outlet = opened(collector.url, tmp_path)
    failed = {"outcome": "error", "request_duration_ms": 5.0, "input_tokens": None, "output_tokens": None}
    outlet.send(
        [
            line_of(1, status_code=500, **failed),
            line_of(2, error_type="rate_limit_error", status_code=429, **failed),
        ]
    )
    durations = collector.points("gen_ai.client.operation.duration")
    assert {labels["error.type"] for labels, _ in durations} == {"500", "rate_limit_error"}
    assert {attributes(record)["error.type"] for record in collector.records()} == {"500", "rate_limit_error"}
    outlet.close()


@pytest.mark.parametrize(
    ("fields", "provider", "operation"),
    [
        ({"provider": "aws"}, "aws.bedrock", "chat"),
        ({"provider": "x-ai"}, "x_ai", "chat"),
        ({"provider": "mistral", "operation": "embeddings"}, "mistral_ai", "embeddings"),
        ({"provider": "openai", "operation": "completion"}, "openai", "text_completion"),
        (
            {
                "provider": "google",
                "host": "us-central1-aiplatform.googleapis.com",
                "api": "google.generate_content",
            },
            "gcp.vertex_ai",
            "generate_content",
        ),
        ({"provider": "google", "host": "generativelanguage.googleapis.com"}, "gcp.gemini", "chat"),
        ({"provider": "openai-compatible", "operation": "rerank"}, "openai-compatible", "rerank"),
    ],
)
def test_names_are_those_of_the_conventions(
    tmp_path: Path, collector: Collector, fields: dict[str, Any], provider: str, operation: str
) -> None:
    """Where they have one; else ours."""
    outlet = opened(collector.url, tmp_path)
    outlet.send([line_of(1, **fields)])
    (record,) = collector.records()
    assert attributes(record)["gen_ai.provider.name"] == provider
    assert attributes(record)["gen_ai.operation.name"] == operation
    outlet.close()


def test_the_customer_may_be_left_out_of_metrics(tmp_path: Path, collector: Collector) -> None:
    """One series then, however many customers; the logs name them."""
    outlet = opened(f"{collector.url}?customer=0", tmp_path)
    outlet.send([line_of(number, customer_id=f"customer-{number}") for number in range(20)])
    points = collector.points("gen_ai.client.token.usage")
    assert [(labels["gen_ai.token.type"], point.count) for labels, point in points] == [
        ("input", 20),
        ("output", 20),
    ]
    assert len({attributes(record)["cmdrdata.customer_id"] for record in collector.records()}) == 20
    outlet.close()


def test_one_signal_may_be_all(tmp_path: Path, collector: Collector) -> None:
    """For a receiver that takes logs only."""
    outlet = opened(f"{collector.url}/otlp?signals=logs", tmp_path)
    outlet.send([line_of(1)])
    assert [each["path"] for each in collector.headers] == ["/otlp/v1/logs"]
    outlet.close()


def test_headers_are_those_of_the_environment(tmp_path: Path, collector: Collector) -> None:
    """As every exporter takes them: of all signals, and of one; a password in the URL is one as well."""
    outlet = opened(
        collector.url.replace("//", "//zoo:se%2Fcret@"),
        tmp_path,
        **HEADERS,
        OTEL_EXPORTER_OTLP_METRICS_HEADERS="x-tenant=metrics",
    )
    outlet.send([line_of(1)])
    logs, metrics = collector.headers
    assert (logs["api-key"], logs["x-tenant"]) == ("secret one", "zoo")
    assert metrics["x-tenant"] == "metrics"
    assert logs["authorization"] == "Basic em9vOnNlL2NyZXQ="
    assert logs["content-type"] == "application/x-protobuf"
    outlet.close()


@pytest.mark.parametrize(
    ("query", "environ", "compressed"),
    [
        ("", {}, []),
        ("?compression=gzip", {}, ["/v1/logs", "/v1/metrics"]),
        ("", {"OTEL_EXPORTER_OTLP_COMPRESSION": "gzip"}, ["/v1/logs", "/v1/metrics"]),
        ("", {"OTEL_EXPORTER_OTLP_LOGS_COMPRESSION": "gzip"}, ["/v1/logs"]),
        (
            "",
            {"OTEL_EXPORTER_OTLP_COMPRESSION": "gzip", "OTEL_EXPORTER_OTLP_LOGS_COMPRESSION": "none"},
            ["/v1/metrics"],
        ),
        ("?compression=none", {"OTEL_EXPORTER_OTLP_COMPRESSION": "gzip"}, []),
    ],
)
def test_what_is_sent_may_be_compressed(
    tmp_path: Path, collector: Collector, query: str, environ: dict[str, str], compressed: list[str]
) -> None:
    """By the URL, or as every exporter is told it: for all signals, or for one."""
    outlet = opened(collector.url + query, tmp_path, **environ)
    outlet.send([line_of(1)])
    assert collector.ids() == ["event-1"]
    assert [each["path"] for each in collector.headers if "content-encoding" in each] == compressed
    outlet.close()


def test_headers_never_travel_in_the_open(tmp_path: Path) -> None:
    """Over plain HTTP to another machine there are none, even if there are some."""
    outlet: Any = opened("otlp+http://zoo:secret@collector?insecure=1", tmp_path, **HEADERS)
    assert outlet._target.headers == {"logs": {}, "metrics": {}}


# --- what its answers do ----------------------------------------------------------------------------


@pytest.mark.parametrize("signal", ["logs", "metrics"])
@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, Rejected),
        (413, Rejected),
        (404, Unavailable),
        (429, Unavailable),
        (503, Unavailable),
        (401, Unauthorized),
    ],
)
def test_a_failure_is_told_by_its_status(
    tmp_path: Path, collector: Collector, signal: str, status: int, error: type[Exception]
) -> None:
    """What speaks of the events is final; what speaks of time, key or address is not."""
    collector.answers[signal].append((status, {"Retry-After": "7"}, b"secret"))
    outlet = opened(collector.url, tmp_path)
    with pytest.raises(error, match=str(status)) as raised:
        outlet.send([line_of(1)])
    if status in (429, 503):
        assert isinstance(raised.value, Unavailable)
        assert raised.value.retry_after == 7
    assert "secret" not in str(raised.value)
    outlet.send([line_of(1)])
    assert collector.ids() == ["event-1"]
    assert len(collector.metrics) == 1
    outlet.close()


def test_one_refused_event_stops_no_other(tmp_path: Path, collector: Collector) -> None:
    """It goes to the dead letters; the others are there, each once."""
    collector.refused.add("event-2")
    setup = set_up(tmp_path, collector.url, mode="flush")
    setup.append(5)
    assert setup.delivery.flush(60)
    assert collector.ids() == ["event-0", "event-1", "event-3", "event-4"]
    assert setup.counters.snapshot() == {"delivered": 4, "rejected": 1}
    assert sum(point.count for _, point in collector.points("gen_ai.client.token.usage")) == 8
    setup.delivery.close(1)


def test_logs_that_are_refused_in_part_are_asked_about_one_by_one(
    tmp_path: Path, collector: Collector
) -> None:
    """A receiver says how many it left out, not which: nothing is lost, and what comes twice has one id."""
    partly = ExportLogsServiceResponse(
        partial_success=ExportLogsPartialSuccess(rejected_log_records=1, error_message="too\nmany labels")
    )
    alone = ExportLogsServiceResponse()
    collector.answers["logs"].extend(
        (200, {}, each.SerializeToString()) for each in (partly, alone, partly, alone)
    )
    setup = set_up(tmp_path, collector.url, mode="flush")
    setup.append(3)
    assert setup.delivery.flush(60)
    assert setup.counters.snapshot() == {"delivered": 2, "rejected": 1}
    assert collector.ids() == sorted(["event-0", "event-1", "event-2"] * 2)
    (letters,) = (tmp_path / "dead").iterdir()
    letter = decode(letters.read_bytes())
    assert letter["event"]["event_id"] == "event-1"
    assert letter["reason"] == "logs: 1 of 1 were refused: too many labels"
    setup.delivery.close(1)


def test_logs_that_are_refused_in_part_in_json_are_refused(tmp_path: Path, collector: Collector) -> None:
    """Some receivers answer in JSON whatever they are asked in, where a count of 64 bits is a text."""
    partly = b'{"partialSuccess": {"rejectedLogRecords": "1", "errorMessage": "too old"}}'
    collector.answers["logs"].append((200, {}, partly))
    outlet = opened(collector.url, tmp_path)
    with pytest.raises(Rejected, match=r"^logs: 1 of 1 were refused: too old$"):
        outlet.send([line_of(1)])
    outlet.close()


def test_an_answer_is_asked_for_as_it_is(tmp_path: Path, collector: Collector) -> None:
    """Who says nothing of codings takes any of them, and what was refused would be read in none."""
    outlet = opened(collector.url, tmp_path)
    outlet.send([line_of(1)])
    assert {each["accept-encoding"] for each in collector.headers} == {"identity"}
    outlet.close()


def test_metrics_that_are_refused_in_part_are_not_sent_again(
    tmp_path: Path, collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    """They would be counted twice, and the logs have the events: one line a minute says so."""
    partly = ExportMetricsServiceResponse(
        partial_success=ExportMetricsPartialSuccess(rejected_data_points=2, error_message="no delta")
    )
    collector.answers["metrics"].extend((200, {}, partly.SerializeToString()) for _ in range(2))
    outlet = opened(collector.url, tmp_path)
    with caplog.at_level(logging.WARNING, "cmdrdata_transport"):
        outlet.send([line_of(1)])
        outlet.send([line_of(2)])
    assert [record.getMessage() for record in caplog.records] == [
        f"{collector.url} refused 2 points of metrics: no delta; the events are in the logs"
    ]
    assert len(collector.metrics) == 2
    outlet.close()


@pytest.mark.parametrize("words", ["your key secret one is old", "\x1b[2J"])
def test_words_that_quote_a_secret_are_not_passed_on(
    tmp_path: Path, collector: Collector, words: str
) -> None:
    """Nor those that no terminal should show."""
    partly = ExportLogsServiceResponse(
        partial_success=ExportLogsPartialSuccess(rejected_log_records=1, error_message=words)
    )
    collector.answers["logs"].append((200, {}, partly.SerializeToString()))
    outlet = opened(collector.url, tmp_path, **HEADERS)
    with pytest.raises(Rejected, match=r"^logs: 1 of 1 were refused$"):
        outlet.send([line_of(1)])
    outlet.close()


def test_a_batch_that_is_too_large_is_taken_event_by_event(tmp_path: Path, collector: Collector) -> None:
    """413 speaks of all that came together: alone, each does, and each is there once."""
    collector.answers["logs"].append((413, {}, b""))
    setup = set_up(tmp_path, collector.url, mode="flush")
    setup.append(5)
    assert setup.delivery.flush(60)
    assert collector.ids() == [f"event-{number}" for number in range(5)]
    assert setup.counters.snapshot() == {"delivered": 5}
    setup.delivery.close(1)


def test_an_answer_in_other_words_is_a_success(tmp_path: Path, collector: Collector) -> None:
    """The status says so; some receivers answer in JSON, or at length."""
    collector.answers["logs"].extend([(200, {}, b"{}"), (200, {}, b"x" * 1_000_000)])
    outlet = opened(collector.url, tmp_path)
    outlet.send([line_of(1)])
    outlet.send([line_of(2)])
    assert collector.ids() == ["event-1", "event-2"]
    outlet.close()


def test_an_outage_delays_and_loses_nothing(
    tmp_path: Path, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Errors of either signal, a wrong key put right: every event is logged once, and counted once."""
    monkeypatch.setattr(lanes_module, "FIRST_PAUSE_SECONDS", 0.01)
    collector.answers["logs"].extend([(500, {}, b""), (401, {}, b"")])
    collector.answers["metrics"].extend([(503, {}, b""), (502, {}, b"")])
    setup = set_up(tmp_path, collector.url)
    setup.delivery.ensure_running()
    setup.append(10)
    assert setup.delivery.flush(60)
    assert collector.ids() == sorted(f"event-{number}" for number in range(10))
    assert sum(point.count for _, point in collector.points("gen_ai.client.token.usage")) == 20
    assert setup.delivery.close(50)


def test_a_receiver_that_hangs_is_given_up(tmp_path: Path, collector: Collector) -> None:
    """In the URL's time, and in the caller's; one that is down at once."""
    collector.hang.clear()
    for spec, timeout, says in (
        (f"{collector.url}?timeout=0.1", None, "ReadTimeout"),
        (collector.url, 0.1, "ReadTimeout"),
        ("otlp+http://127.0.0.1:1", None, "ConnectError"),
    ):
        outlet = opened(spec, tmp_path)
        with pytest.raises(Unavailable, match=f"^{says}$"):
            outlet.send([line_of(1)], timeout)
        outlet.close()


@pytest.mark.parametrize(
    "line", [b"nonsense", b"[]", b"{}", line_of(1, timestamp="soon"), line_of(1, timestamp=None)], ids=repr
)
def test_what_is_no_event_is_not_posted(tmp_path: Path, collector: Collector, line: bytes) -> None:
    """The receiver is not asked about it."""
    outlet = opened(collector.url, tmp_path)
    with pytest.raises(Rejected):
        outlet.send([line])
    assert collector.headers == []
    outlet.close()


@pytest.mark.parametrize(
    "odd",
    [
        {"timestamp": "1969-12-31T23:59:59Z"},
        {"timestamp": "2600-01-01T00:00:00Z"},
        {"input_tokens": 10**400},
        {"request_duration_ms": 10**400, "streaming": True, "time_to_first_byte_ms": 10**400},
        {"model": {"name": "gpt-5"}, "operation": ["chat"], "service": 7},
    ],
    ids=",".join,
)
def test_an_odd_event_holds_up_no_other(tmp_path: Path, collector: Collector, odd: dict[str, Any]) -> None:
    """What a message has no room for is left out of it: the body is the event as it was."""
    lines = [line_of(1), line_of(2, **odd), line_of(3)]
    outlet = opened(collector.url, tmp_path)
    outlet.send(lines)
    assert sorted(record.body.string_value.encode() for record in collector.records()) == sorted(lines)
    assert all(record.time_unix_nano or "timestamp" in odd for record in collector.records())
    outlet.close()


def test_a_count_beyond_64_bits_is_a_fraction(tmp_path: Path, collector: Collector) -> None:
    """As an attribute; in the body it is what it was."""
    outlet = opened(collector.url, tmp_path)
    outlet.send([line_of(1, input_tokens=10**30)])
    (record,) = collector.records()
    assert attributes(record)["gen_ai.usage.input_tokens"] == 1e30
    assert f'"input_tokens":{10**30},' in record.body.string_value
    outlet.close()


def test_parent_and_child_are_two_instances(tmp_path: Path, collector: Collector) -> None:
    """A forked child has connections and series of its own, and the parent's go on."""
    run(
        """
        setup = set_up(home, sys.argv[2])
        setup.delivery.ensure_running()
        setup.append(5)
        assert setup.delivery.flush(60)
        pid = os.fork()
        setup.append(5, 10 if pid else 5)
        setup.delivery.ensure_running()
        assert setup.delivery.close(60)
        if pid:
            assert os.waitpid(pid, 0)[1] == 0
        """,
        tmp_path,
        collector.url,
    )
    assert collector.ids() == sorted(f"event-{number}" for number in range(15))
    instances = {
        attributes(each.resource_metrics[0].resource)["service.instance.id"] for each in collector.metrics
    }
    assert len(instances) == 2
