"""Which answers give events, and when: most at once, some when what they started is done.

Knows resources that are asked for again (`Job`), the results of batches (`Results`), and that each counts
once, for whoever started it. How an event says it is `account`'s; the bytes are `recorder`'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cmdrdata_transport.account import REDIRECT, Account
from cmdrdata_transport.attribution import Attribution, check_customer
from cmdrdata_transport.batch import Result
from cmdrdata_transport.body import Body
from cmdrdata_transport.identity import timestamp
from cmdrdata_transport.providers.reading import Answer, pick
from cmdrdata_transport.providers.table import Job


class Teller(Account):
    """One call, and what it tells of."""

    def _write(self, body: Body | None, error: BaseException | None, *, closed: bool) -> None:
        route = self._route
        answer = body.answer if body is not None else Answer(route.shape)
        if not route.plain:
            self._write_other(body, answer, error, closed=closed)
            return
        parts = answer.parts(self._report)
        status, outcome = self._judge(body, parts, error, closed=closed, elsewhere=False)
        event = self._event(body, answer, self._asked(), error, verdict=(status, outcome))
        self._write_parts(event, parts, "body" if parts[0].counts else None)

    def _write_other(
        self, body: Body | None, answer: Answer, error: BaseException | None, *, closed: bool
    ) -> None:
        """The same for an answer that says more than one usage object does, or is not the whole of it."""
        settings, route, shape = self._settings, self._route, self._route.shape
        if route.guesses or shape.results is not None:
            return  # it looked like nothing we know; or each result has its own event
        asked = self._asked()
        resource: str | None = None
        if shape.job is not None:
            resource = self._resource(shape.job, answer, asked)
            if not self._is_to_be_told(resource, body, answer, asked):
                return
        parts = answer.parts(self._report)
        source = "body" if parts[0].counts else None
        if (source is None or shape.headers_add) and self._status is not None and self._status < REDIRECT:
            elsewhere, parts[0] = self._count_elsewhere(parts[0], asked)
            source = source or elsewhere
        if route.poll and source is None and not answer.failed and not answer.free:
            return  # it is over, and its usage is still to come
        status, outcome = self._judge(
            body, parts, error, closed=closed, elsewhere=source in ("header", "request")
        )
        if status == "complete" and source == "body" and not shape.headers_add:
            self._compare(answer, parts[0])
        if resource is not None and (status in ("partial", "missing") or answer.pending):
            self._remember(resource, self._begun(asked, answer))
            parts = [parts[0]._replace(counts={})]  # all of it is told when it is done
            resource = None
        event = self._event(body, answer, asked, error, verdict=(status, outcome), resource=resource)
        self._write_parts(event, parts, source, resource)
        if route.poll and resource is not None:
            settings.jobs.finish(route.scope, resource, self._who.customer, parts[0].counts)

    def _resource(self, job: Job, answer: Answer, asked: Mapping[str, Any]) -> str | None:
        """The name of what this answer is of, if it can be asked for again."""
        if not self._route.known or not answer.is_job:
            return None
        name = answer.job_id if job.asked is None else pick(asked, (job.asked,)) or answer.job_id
        # xAI does not repeat what it was asked for: the path says it.
        return name if type(name) is str else self._route.job

    def _is_to_be_told(
        self, resource: str | None, body: Body | None, answer: Answer, asked: Mapping[str, Any]
    ) -> bool:
        """Whether this answer gives an event. One that is still to come is remembered instead; of one
        that was asked for, it is whoever started it who pays.
        """
        route, jobs = self._route, self._settings.jobs
        fine = self._status is not None and self._status < REDIRECT and body is not None and body.whole
        if route.poll and (resource is None or not fine):
            return False
        begun: Mapping[str, Any] = {}
        if route.poll and resource is not None:
            begun = jobs.recall(route.scope, resource)
        if fine and resource is not None:
            known = begun if "customer_id" in begun else self._begun(asked, answer)
            for name in answer.yields:
                started = {key: known[key] for key in known if key not in ("told", "counts")}
                self._remember(name, started | {"of": resource})
        if not route.shape.units and not route.shape.lists:  # it only says that there is something
            if fine and resource is not None and not route.poll:
                self._remember(resource, self._begun(asked, answer))
            return False
        if not route.poll:
            return True
        if answer.pending:
            return False
        self._take_over(begun)
        if "told" in begun and (begun["told"] is not None or self._who.customer is None):
            self._lose("duplicates")
            if begun.get("counts") not in (None, answer.parts(lambda _: None)[0].counts):
                self._lose("conflicts")
            return False
        return self._has_owner()

    def _has_owner(self) -> bool:
        """Whether what turns out to be a call only now is to be recorded, as the meter asks of others."""
        return self._who.customer is not None or self._settings.records_nobodys()

    def _take_over(self, begun: Mapping[str, Any]) -> None:
        """From here on the call is that of whoever started what it asks for."""
        if "customer_id" in begun:
            self._begun_as = begun
            self._who = Attribution(
                customer=begun.get("customer_id"), metadata=begun.get("metadata") or {}, track=True
            )

    def _begun(self, asked: Mapping[str, Any], answer: Answer) -> dict[str, Any]:
        """What to remember of this call until what it started is done."""
        said: dict[str, Any] = {}
        self._describe_request(said, asked, answer.details)
        said.pop("attempt", None)
        return said | {
            "customer_id": self._who.customer,
            "metadata": dict(self._who.metadata),
            "provider": self._route.provider,
            "api": self._route.shape.api,
            "timestamp": timestamp(self._started),
        }

    def _remember(self, name: str, begun: Mapping[str, Any]) -> None:
        self._settings.jobs.remember(self._route.scope, name, begun)

    def _write_results(self, results: list[Result]) -> None:
        """The events of the results of a batch, each of them an answer of its own."""
        settings, route = self._settings, self._route
        if route.job is not None and self._begun_as is None:
            self._begun_as = {}
            self._take_over(settings.jobs.recall(route.scope, route.job))
        starter = self._who
        for result in results:
            self._who = self._owner_of(result, starter)
            if not self._has_owner():
                continue
            answer = result.answer
            self._spoiled = False
            parts = answer.parts(self._report)
            status = "none" if answer.failed else "missing"
            if parts[0].counts:
                status = "partial" if self._spoiled else "complete"
            elif not answer.failed:
                self._lose("missing")
            own_name = result.place if result.custom_id is None else result.custom_id
            name = result.id or f"{route.job}/{own_name}"
            asked_model = (self._begun_as or {}).get("request_model")
            event = self._head(name, answer, status, "error" if answer.failed else "ok")
            event |= {
                "operation": result.shape.operation,
                "api": result.shape.api,
                "service_tier": result.service_tier,
                "streaming": False,
            }
            if asked_model is not None:
                event["request_model"] = asked_model
                event.setdefault("model", asked_model)
            if details := {**answer.details, **result.details}:
                event["details"] = details
            self._write_parts(event, parts, "body", name)
        self._who = starter

    def _owner_of(self, result: Result, starter: Attribution) -> Attribution:
        """Whose one result of a batch is: whom the application names for it, else the batch's starter."""
        settings = self._settings
        if settings.batch_customers is None or result.custom_id is None:
            return starter
        try:
            customer = settings.batch_customers(result.custom_id)
            return starter if customer is None else starter._replace(customer=check_customer(customer))
        except Exception as error:
            settings.count("bad_attribution", type(error).__name__)
            return starter._replace(customer=None)

    def _finish_results(self, yields: frozenset[str]) -> None:
        """All results have been seen, of which some may be in further resources."""
        route, jobs = self._route, self._settings.jobs
        for name in yields:
            self._remember(
                name, {**(self._begun_as or self._begun({}, Answer(route.shape))), "of": route.job}
            )
        for told in (route.job, (self._begun_as or {}).get("of")):
            if told is not None:
                jobs.finish(route.scope, told, self._who.customer, None)
