"""What is started by one call and told by others: once, whoever asks, for the customer who started it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from exchange import WAYS, Way
from journals import line_of
from stories import Ask, Host, hosted, make, told

from cmdrdata_transport import Tracker, TrackingSetupError, UsageEvent
from cmdrdata_transport.identity import derived_event_id, new_event_id
from cmdrdata_transport.jobs import HELD_AT_MOST, TIDIED_FIRST, Jobs
from cmdrdata_transport.providers.openai import OPENAI as OPENAI_TABLE
from cmdrdata_transport.seen import Seen

OPENAI = "https://api.openai.com/v1"
USAGE = {"input_tokens": 11, "output_tokens": 7, "total_tokens": 18}

every_way = pytest.mark.parametrize("way", WAYS, ids=str)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    """A host with a home of its own."""
    with hosted(tmp_path) as it:
        yield it


def response(status: str, **more: Any) -> dict[str, Any]:
    """A response of OpenAI's that runs in the background."""
    return {
        "id": "resp_1",
        "object": "response",
        "model": "gpt-5",
        "background": True,
        "status": status,
        "usage": None,
        "error": None,
        **more,
    }


START = Ask(
    method="POST",
    url=f"{OPENAI}/responses",
    asked={"model": "gpt-5", "background": True},
    answer=response("queued"),
    customer="acme",
)
POLL = Ask(method="GET", url=f"{OPENAI}/responses/resp_1", answer=response("in_progress"))
DONE = Ask(method="GET", url=f"{OPENAI}/responses/resp_1", answer=response("completed", usage=USAGE))


def events_of(sse: Sequence[dict[str, Any]]) -> bytes:
    """Server-sent events, as OpenAI's Responses are streamed."""
    return b"".join(f"event: {each['type']}\ndata: {json.dumps(each)}\n\n".encode() for each in sse)


@every_way
def test_a_background_answer_counts_once_when_it_is_done(way: Way, host: Host) -> None:
    """Polls before the end are nothing; the end counts once, however often it is asked for."""
    make(way, host.process(), [START, POLL, POLL, DONE, DONE])
    assert told(host.ledger()) == [("acme", "none", None), ("acme", "complete", 18)]


@every_way
def test_another_process_that_asks_bills_the_one_who_started_it(way: Way, host: Host) -> None:
    """Any process of this host finds who that was, and the second one to ask adds nothing."""
    make(way, host.process(customer_id="nobody"), [START])
    make(way, host.process(customer_id="nobody"), [POLL, DONE])
    make(way, host.process(customer_id="nobody"), [DONE])
    assert told(host.ledger()) == [("acme", "none", None), ("acme", "complete", 18)]
    assert host.report()["calls"] == 1


@every_way
def test_failed_polls_are_nothing(way: Way, host: Host) -> None:
    """Asking in vain costs nothing, and is no attempt at a call that does."""
    lost = Ask(method="GET", url=DONE.url, status=404, answer={"error": {"code": "not_found"}})
    make(way, host.process(), [START, lost, DONE])
    assert told(host.ledger()) == [("acme", "none", None), ("acme", "complete", 18)]


@every_way
def test_a_job_that_failed_is_told_once_as_an_error(way: Way, host: Host) -> None:
    """What the provider says of a failure is the end of it, with no usage."""
    failed = response("failed", error={"code": "server_error", "message": "SECRET"})
    poll = Ask(method="GET", url=DONE.url, answer=failed)
    make(way, host.process(), [START, poll, poll])
    *_, event = host.ledger()
    assert len(host.ledger()) == 2
    assert (event.customer_id, event.usage_status, event.outcome) == ("acme", "none", "error")
    assert (event.error_code, event.usage.total_tokens) == ("server_error", None)


@every_way
def test_a_stream_that_is_cut_is_told_whole_by_whoever_asks_later(way: Way, host: Host) -> None:
    """What a cut stream said of usage does not count beside what the whole answer says."""
    created = {"type": "response.created", "response": response("in_progress")}
    start = Ask(
        method="POST",
        url=START.url,
        asked={"model": "gpt-5", "background": True, "stream": True},
        answer=events_of([created]),
        kind="text/event-stream",
        customer="acme",
    )
    completed = {"type": "response.completed", "response": response("completed", usage=USAGE)}
    replay = Ask(
        method="GET",
        url=f"{DONE.url}?stream=true&starting_after=3",
        answer=events_of([created, completed]),
        kind="text/event-stream",
    )
    make(way, host.process(), [start, replay, DONE])
    assert told(host.ledger()) == [("acme", "partial", None), ("acme", "complete", 18)]


@pytest.mark.parametrize("name", ["\ud800", "\x00", "../../jobs", "r" * 5000, "☃\n"], ids=ascii)
def test_a_name_may_be_any_text(name: str, host: Host) -> None:
    """What JSON can say, a lone surrogate too, is the name of a job as any other."""
    start, done = (replace(each, answer={**each.answer, "id": name}) for each in (START, DONE))
    make(WAYS[0], host.process(), [start, done, done])
    assert told(host.ledger()) == [("acme", "none", None), ("acme", "complete", 18)]
    assert {path.parent for path in host.home.rglob("*.json")} <= {host.home / "jobs", host.home / "stats"}


def test_an_answer_that_was_told_whole_is_not_told_again(host: Host) -> None:
    """Only what ran in the background is billed by a later look; any other was, when it was made."""
    whole = response("completed", usage=USAGE, background=False)
    post = Ask(method="POST", url=START.url, asked={"model": "gpt-5"}, answer=whole, customer="acme")
    look = Ask(method="GET", url=DONE.url, answer=whole, customer="globex")
    make(WAYS[0], host.process(), [post, look, look])
    assert told(host.ledger()) == [("acme", "complete", 18)]


def test_ids_of_servers_that_nobody_knows_merge_nothing(host: Host) -> None:
    """Servers that speak the same shape give the same id again and again; each call there counts."""
    url = "https://llm.example/v1/responses"
    same = Ask(method="POST", url=url, asked={}, answer=response("completed", usage=USAGE), customer="acme")
    poll = Ask(method="GET", url=f"{url}/resp_1", answer=response("completed", usage=USAGE))
    make(WAYS[0], host.process(), [same, same, poll])
    assert told(host.ledger()) == [("acme", "complete", 18)] * 2


def test_the_same_id_at_two_hosts_is_two_things(host: Host) -> None:
    """An id is one provider's own."""
    other = "https://acme.openai.azure.com/openai/v1/responses/resp_1"
    make(WAYS[0], host.process(), [DONE, Ask(method="GET", url=other, answer=DONE.answer)])
    assert [each.usage.total_tokens for each in host.ledger()] == [18, 18]


def test_the_hosts_of_one_provider_share_their_ids(host: Host) -> None:
    """Together answers at three hosts; a poll at another one is the same thing's."""
    shape = replace(OPENAI_TABLE, id="triplet", hosts=("one.example", "two.example"), compatible=None)
    tracker = host.process(providers=[shape])
    at = [
        Ask(method="GET", url=f"https://{name}.example/v1/responses/resp_1", answer=DONE.answer)
        for name in ("one", "two")
    ]
    make(WAYS[0], tracker, at)
    assert [each.usage.total_tokens for each in host.ledger()] == [18]


def test_whoever_asked_first_is_billed_where_nobody_knows_who_started_it(host: Host) -> None:
    """A job that was started elsewhere belongs to the context of its first poll."""
    poll = replace(DONE, customer="globex")
    make(WAYS[0], host.process(), [poll, replace(DONE, customer="initech")])
    assert told(host.ledger()) == [("globex", "complete", 18)]


def test_a_later_telling_names_the_customer_whom_the_first_did_not_know(host: Host) -> None:
    """An event without a customer gets one from the first telling that has one, and nothing else."""
    make(WAYS[0], host.process(), [DONE])
    make(WAYS[0], host.process(), [replace(DONE, customer="acme"), replace(DONE, customer="globex")])
    (event,) = host.ledger()
    assert (event.customer_id, event.usage.total_tokens) == ("acme", 18)
    assert host.report()["events"] == 1


def test_where_a_customer_is_required_a_job_needs_one_too(host: Host) -> None:
    """A poll needs no customer of its own; what nobody started for anybody is not recorded."""
    tracker = host.process(require_customer=True)
    make(WAYS[0], tracker, [START, POLL, DONE])
    other = replace(DONE, url=f"{OPENAI}/responses/resp_2", answer={**DONE.answer, "id": "resp_2"})
    make(WAYS[0], tracker, [other])
    assert told(host.ledger()) == [("acme", "none", None), ("acme", "complete", 18)]
    assert tracker.stats()["skipped_no_customer"] == 1
    assert "unattributed" not in tracker.stats()


def test_a_webhook_and_a_poll_are_one(host: Host) -> None:
    """What is recorded by hand from a webhook's body is what a poll would have told."""
    tracker = host.process()
    make(WAYS[0], tracker, [DONE])
    tracker.record_response("openai", DONE.answer, customer_id="acme")
    assert told(host.ledger()) == [("acme", "complete", 18)]


BATCH = {"id": "batch_1", "object": "batch", "status": "in_progress", "output_file_id": None, "usage": None}
BATCH_DONE = {
    **BATCH,
    "status": "completed",
    "output_file_id": "file-out",
    "error_file_id": "file-err",
    "usage": {"input_tokens": 100, "output_tokens": 100, "total_tokens": 200},
}


def line(number: int, body: dict[str, Any], status: int = 200) -> dict[str, Any]:
    """A line of a batch's results."""
    return {
        "id": f"batch_req_{number}",
        "custom_id": f"task-{number}",
        "response": {"status_code": status, "request_id": f"req_{number}", "body": body},
        "error": None,
    }


CHAT = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "model": "gpt-5",
    "choices": [{"finish_reason": "stop", "message": {"content": "SECRET"}}],
    "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7},
}
EMBEDDING = {
    "object": "list",
    "data": [{"object": "embedding", "embedding": "AAAA"}],
    "model": "text-embedding-3-small",
    "usage": {"prompt_tokens": 3, "total_tokens": 3},
}
LINES = [
    line(1, CHAT),
    line(2, EMBEDDING),
    line(3, response("completed", id="resp_9", background=False, usage=USAGE)),
    line(4, {"error": {"code": "invalid", "message": "SECRET"}}, 400),
]


def download(lines: Sequence[Any], file: str = "file-out") -> Ask:
    """The results, as they come from OpenAI."""
    body = b"".join(json.dumps(each).encode() + b"\n" for each in lines)
    return Ask(
        method="GET", url=f"{OPENAI}/files/{file}/content", answer=body, kind="application/octet-stream"
    )


BATCH_STORY = [
    Ask(method="POST", url=f"{OPENAI}/batches", asked={}, answer=BATCH, customer="acme"),
    Ask(method="GET", url=f"{OPENAI}/batches/batch_1", answer=BATCH),
    Ask(method="GET", url=f"{OPENAI}/batches/batch_1", answer=BATCH_DONE),
    download(LINES),
]


@every_way
def test_the_results_of_a_batch_are_billed_and_its_total_is_not(way: Way, host: Host) -> None:
    """Each line counts once, by its own shape and model, for whoever started the batch."""
    make(way, host.process(), [*BATCH_STORY, download(LINES)])
    events = host.ledger()
    assert [(each.customer_id, each.api, each.usage.total_tokens) for each in events] == [
        ("acme", "openai.chat_completions", 7),
        ("acme", "openai.embeddings", 3),
        ("acme", "openai.responses", 18),
        ("acme", "openai.chat_completions", None),
    ]
    assert {each.service_tier for each in events} == {"batch"}
    assert [(each.usage.details or {})["custom_id"] for each in events] == [f"task-{n}" for n in (1, 2, 3, 4)]
    assert [(each.outcome, each.error_code) for each in events[2:]] == [("ok", None), ("error", "invalid")]


class Lookup(dict[str, str]):
    """A mapping that fails for one name, as a database may."""

    def get(self, key: str, default: Any = None) -> Any:
        """What is there for the name."""
        if key == "task-4":
            raise ConnectionError
        return super().get(key, default)


@pytest.mark.parametrize(
    "customers",
    [
        Lookup({"task-1": "globex", "task-3": "initech"}),
        {"task-1": "globex", "task-3": "initech", "task-4": ""}.get,
    ],
    ids=["mapping", "function"],
)
def test_the_results_of_one_batch_may_be_of_many_customers(host: Host, customers: Any) -> None:
    """A result is whose the application says, else the batch's starter's; where it fails to say, nobody's."""
    tracker = host.process(batch_customers=customers)
    make(WAYS[0], tracker, BATCH_STORY)
    assert [each.customer_id for each in host.ledger()] == ["globex", "acme", "initech", None]
    assert tracker.stats()["bad_attribution"] == 1


def test_a_lookup_that_is_none_is_refused() -> None:
    """A wrong option is an error where it is given."""
    with pytest.raises(TrackingSetupError, match="batch_customers= takes a mapping"):
        Tracker([], batch_customers="acme")  # type: ignore[arg-type]


def test_tellings_that_disagree_are_counted(host: Host) -> None:
    """The first telling of a job counts; one with other counts is a conflict that somebody should see."""
    tracker = host.process()
    other = replace(DONE, answer=response("completed", usage={**USAGE, "output_tokens": 8}))
    make(WAYS[0], tracker, [START, DONE, DONE, other])
    assert told(host.ledger()) == [("acme", "none", None), ("acme", "complete", 18)]
    assert (tracker.stats()["duplicates"], tracker.stats()["conflicts"]) == (2, 1)


@pytest.mark.parametrize("sinks", [["jsonl:///usage.jsonl"], ["collect"]], ids=["file", "function"])
def test_a_sink_without_a_key_is_told_once_too(tmp_path: Path, sinks: list[str]) -> None:
    """What is downloaded twice, by two processes, reaches a file or a function once."""
    taken: list[UsageEvent] = []

    def collect(events: list[UsageEvent]) -> None:
        taken.extend(events)

    for before in (0, 4):
        tracker = Tracker([collect if sinks == ["collect"] else sinks[0]], home=tmp_path)
        make(WAYS[0], tracker, BATCH_STORY)
        tracker.close(50)
        assert tracker.stats().get("duplicates", 0) == before
    if (file := tmp_path / "usage.jsonl").exists():
        taken += map(UsageEvent.from_json, file.read_bytes().splitlines())
    assert [each.usage.total_tokens for each in taken] == [7, 3, 18, None]


@pytest.mark.parametrize(
    "body",
    [
        b"%PDF-1.7 \n" + bytes(range(256)) * 400,
        b'{"custom_id": "task-1", "method": "POST", "url": "/v1/chat/completions", "body": {}}\n' * 50,
        b"",
        b"[1, 2]\n",
        b'{"id": 1}',
    ],
    ids=["binary", "what was asked", "empty", "a list", "no line end"],
)
def test_a_file_of_another_purpose_is_none_of_ours(host: Host, body: bytes) -> None:
    """Files are downloaded from the same place as results; what is none gives no event and no loss."""
    tracker = host.process()
    make(WAYS[0], tracker, [replace(download([]), answer=body)])
    assert tracker.flush(50)
    assert set(tracker.stats()) <= {"delivered"}


@pytest.mark.parametrize("place", ["containers/cntr_1", "vector_stores/vs_1"])
def test_a_file_that_a_model_or_a_user_wrote_bills_nobody(place: str, host: Host) -> None:
    """It may say that it is the results of a batch."""
    claim = replace(download(LINES), url=f"{OPENAI}/{place}/files/file-1/content")
    make(WAYS[0], host.process(customer_id="acme"), [claim])
    assert host.ledger() == []


def test_a_job_that_nobody_asked_about_again_is_listed(host: Host) -> None:
    """What was started and never told of can be found, until it is."""
    make(WAYS[0], host.process(), [START, *BATCH_STORY[:3]])
    jobs = Jobs(host.home, lambda *_: None)
    assert {each["name"]: each["customer_id"] for each in jobs.waiting()} == {
        "resp_1": "acme",
        "batch_1": "acme",
    }
    make(WAYS[0], host.process(), [DONE, BATCH_STORY[3]])
    assert list(jobs.waiting()) == []


class TestWhatIsRemembered:
    """`Jobs`, which keeps it in small files."""

    def test_the_first_word_counts(self, tmp_path: Path) -> None:
        """Who started something cannot be changed by anybody who claims it later."""
        jobs = Jobs(tmp_path, lambda *_: None)
        for customer in ("acme", "globex"):
            jobs.remember("api.example", "job/../1", {"customer_id": customer})
        assert Jobs(tmp_path, lambda *_: None).recall("api.example", "job/../1")["customer_id"] == "acme"
        assert jobs.recall("other.example", "job/../1") == {}

    def test_a_file_that_was_not_written_whole_is_as_good_as_none(self, tmp_path: Path) -> None:
        """A process that was killed while it wrote leaves something that is not believed."""
        jobs = Jobs(tmp_path, lambda *_: None)
        jobs.remember("api.example", "1", {"customer_id": "acme"})
        (file,) = (tmp_path / "jobs").iterdir()
        file.write_bytes(file.read_bytes()[:9])
        assert jobs.recall("api.example", "1") == {}

    def test_what_cannot_be_written_is_kept_in_this_process(self, tmp_path: Path) -> None:
        """A home that takes no file costs the other processes the knowledge, and is counted."""
        (tmp_path / "jobs").write_text("in the way")
        counted: list[str] = []
        jobs = Jobs(tmp_path, lambda name, *_: counted.append(name))
        jobs.remember("api.example", "1", {"customer_id": "acme"})
        assert jobs.recall("api.example", "1")["customer_id"] == "acme"
        assert counted == ["job_not_kept"]

    def test_what_no_provider_keeps_any_more_is_forgotten(self, tmp_path: Path) -> None:
        """Old files go when a new process writes its first one."""
        Jobs(tmp_path, lambda *_: None).remember("api.example", "old", {})
        (file,) = (tmp_path / "jobs").iterdir()
        os.utime(file, (0, 0))
        Jobs(tmp_path, lambda *_: None).remember("api.example", "new", {})
        assert len(list((tmp_path / "jobs").iterdir())) == 1
        assert {path.stat().st_mode & 0o777 for path in (tmp_path / "jobs").iterdir()} == {0o600}

    def test_what_is_old_is_found_among_what_is_new(self, tmp_path: Path) -> None:
        """A process that runs for months forgets as it keeps, however many files there are."""
        jobs = Jobs(tmp_path, lambda *_: None)
        for number in range(TIDIED_FIRST + 50):
            jobs.remember("api.example", f"old {number}", {})
        for file in (tmp_path / "jobs").iterdir():
            os.utime(file, (0, 0))
        for number in range(TIDIED_FIRST // 2):
            jobs.remember("api.example", f"new {number}", {})
        assert len(list((tmp_path / "jobs").iterdir())) == TIDIED_FIRST // 2

    @pytest.mark.parametrize("home", [None, Path("/dev/null/nowhere")], ids=["no home", "no room"])
    def test_what_is_held_in_memory_has_a_bound(self, home: Path | None) -> None:
        """Where no file can be kept the newest jobs are known."""
        jobs = Jobs(home, lambda *_: None)
        for number in range(HELD_AT_MOST + 10):
            jobs.remember("api.example", str(number), {"customer_id": "acme"})
        assert jobs.recall("api.example", "9") == {}
        assert jobs.recall("api.example", "10")["customer_id"] == "acme"
        assert jobs.recall("api.example", str(HELD_AT_MOST + 9))["customer_id"] == "acme"


class TestWhatWasSent:
    """`Seen`, which sinks without a key of their own rely on."""

    ID = derived_event_id("api.example", "job-1")

    def test_the_same_record_may_be_sent_again(self, tmp_path: Path) -> None:
        """A delivery that failed is repeated; only another record for the same id is a second telling."""
        seen = Seen(tmp_path, lambda *_: None)
        first, second = line_of(1, event_id=self.ID), line_of(2, event_id=self.ID, model="other")
        assert seen.again([first], "a") == set()
        assert seen.again([first, second], "a") == {1}
        assert Seen(tmp_path, lambda *_: None).again([second, first], "a") == {0}
        assert seen.again([second], "b") == set()

    def test_ids_that_are_random_are_not_looked_up(self, tmp_path: Path) -> None:
        """Nearly every event has one, and costs no file."""
        lines = [line_of(1, event_id=new_event_id(1.0))] * 2
        assert Seen(tmp_path, lambda *_: None).again(lines, "a") == set()
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("event_id", ["job-1", "01890a5d-ac96-774b-8cce-b302099a8057"])
    def test_an_id_of_the_application_s_is_told_once(self, tmp_path: Path, event_id: str) -> None:
        """What it records with an id of its own may come again, and that id may be random too."""
        lines = [line_of(1, event_id=event_id, model=model) for model in ("gpt-5", "other")]
        assert Seen(tmp_path, lambda *_: None).again(lines, "a") == {1}

    def test_it_is_the_event_s_own_id_that_counts(self, tmp_path: Path) -> None:
        """However it is written, and whatever the application's metadata calls an id."""
        metadata = {"event_id": "evt-1"}
        one, other = (line_of(1, event_id=f'order "{name}"', metadata=metadata) for name in "ab")
        again = line_of(2, event_id='order "a"')
        assert Seen(tmp_path, lambda *_: None).again([one, other, again], "a") == {2}

    def test_what_somebody_asks_for_anew_is_sent_again(self, tmp_path: Path) -> None:
        """By another record, too; from then on it is that one's."""
        seen = Seen(tmp_path, lambda *_: None)
        first, second = line_of(1, event_id=self.ID), line_of(2, event_id=self.ID, model="other")
        assert seen.again([first], "a") == set()
        seen.anew([second], "a")
        assert seen.again([second, first], "a") == {1}

    def test_where_nothing_can_be_looked_up_all_is_sent(self, tmp_path: Path) -> None:
        """A second telling can be told by its id; one that is missing is lost."""
        (tmp_path / "seen.db").mkdir()
        counted: list[str] = []
        lines = [line_of(1, event_id=self.ID), line_of(2, event_id=self.ID, model="other")]
        assert Seen(tmp_path, lambda name, *_: counted.append(name)).again(lines, "a") == set()
        assert counted == ["seen_unknown"]

    @pytest.mark.parametrize("begin", [0, 4096], ids=["all of it", "all but the schema"])
    def test_a_damaged_file_is_put_beside_and_another_begun(self, tmp_path: Path, begin: int) -> None:
        """It is said once, what comes from then on is known, and the old file is there to be looked at."""
        counted: list[str] = []
        seen = Seen(tmp_path, lambda name, *_: counted.append(name))
        first, second, third = (line_of(n, event_id=self.ID, model=f"model-{n}") for n in range(3))
        assert seen.again([first], "a") == set()
        path = tmp_path / "seen.db"
        path.write_bytes(path.read_bytes()[:begin] + b"\xa5" * (8192 - begin))
        assert seen.again([second], "a") == set()
        assert seen.again([third, second], "a") == {0}
        assert counted == ["seen_unknown"]
        assert sorted(each.name for each in tmp_path.iterdir()) == ["seen.db", "seen.db.corrupt"]

    @pytest.mark.parametrize("race", range(10))
    def test_of_many_that_find_it_damaged_one_begins_another(self, tmp_path: Path, race: int) -> None:
        """However they race, what one of them has written down since is still known."""
        seen = [Seen(tmp_path, lambda *_: None) for _ in range(8)]
        seen[race % 8].again([line_of(1, event_id=self.ID)], "a")
        (tmp_path / "seen.db").write_bytes(b"this is no database" * 100)

        def look(number: int) -> int:
            return len(seen[number].again([line_of(1, event_id=self.ID, attempt=number)], "a"))

        with ThreadPoolExecutor(8) as threads:
            assert sum(threads.map(look, range(8))) == 7

    def test_of_many_processes_that_are_told_at_once_one_tells(self, tmp_path: Path) -> None:
        """However they race, one record for an id goes to a sink."""

        def look(number: int) -> int:
            return len(
                Seen(tmp_path, lambda *_: None).again([line_of(1, event_id=self.ID, attempt=number)], "a")
            )

        with ThreadPoolExecutor(8) as threads:
            assert sum(threads.map(look, range(16))) == 15
