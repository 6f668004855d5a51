"""From the bytes of a batch's results to the answers in them.

Knows that results come one a line, or as a list in one document, and tells what each of them is by how it
looks. What is no result, the file of another purpose say, is left alone. No I/O, no clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from cmdrdata_transport.body import LARGEST_DOCUMENT
from cmdrdata_transport.providers.reading import LONGEST_TEXT, Answer, pick, read_error, says_one_of
from cmdrdata_transport.providers.table import Results, Shape
from cmdrdata_transport.wire.json import parsed


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What came of one call of a batch. `id` tells it from all others, if it says one."""

    shape: Shape
    answer: Answer
    id: str | None
    custom_id: str | None
    place: int
    """Which one it is in its body, from 0."""
    service_tier: str

    @property
    def details(self) -> Mapping[str, Any]:
        """What its event says beside what its answer does."""
        return {} if self.custom_id is None else {"custom_id": self.custom_id}


class Batch:
    """A body of results. `take` gives those that have come since it was asked last."""

    streaming = False
    over = False
    eager = False

    def __init__(self, shape: Shape, words: Results, lose: Callable[[str], None]) -> None:
        self.answer = Answer(shape)
        self.whole = False
        self._words = words
        self._lose = lose
        self._rest = bytearray()
        self._found: list[Result] = []
        self._given_up = False
        self.read = 0
        """How many results there were."""

    def add(self, pieces: Iterable[bytes]) -> None:
        """Read the lines that are whole, or keep the document."""
        for piece in pieces:
            if self._given_up:
                return
            self._rest += piece
            if not self._words.at:
                self._read_lines()
            if len(self._rest) > LARGEST_DOCUMENT:
                self._lose("too_large")
                self._give_up()

    def finish(self, *, at_end: bool) -> None:
        """Read what is left; a last line may have no end."""
        self.whole = at_end and not self._given_up
        if self._rest and not self._given_up:
            if self._words.at:
                document = parsed(self._rest)
                self.answer.absorb(document)
                listed = pick(document, self._words.at)
                for each in listed if type(listed) is list else ():
                    self._add_result(each)
            else:
                self._read_line(bytes(self._rest))
        self._rest.clear()

    def take(self) -> list[Result]:
        """The results that have not been taken yet."""
        found, self._found = self._found, []
        return found

    def _read_lines(self) -> None:
        end = self._rest.rfind(b"\n") + 1
        if not end:
            return
        block = bytes(self._rest[:end])
        del self._rest[:end]
        for line in block.splitlines():
            if line.strip() and not self._given_up:
                self._read_line(line)

    def _read_line(self, line: bytes) -> None:
        # The first line tells: a file that was uploaded may hold anything, also gigabytes of it.
        if not self._add_result(parsed(line)) and not self.read:
            self._give_up()

    def _give_up(self) -> None:
        self._given_up = True
        self._rest.clear()

    def _add_result(self, document: Any) -> bool:
        words = self._words
        if type(document) is not dict:
            return False
        found = pick(document, words.answer)
        refused = pick(document, words.error)
        if found is None and refused is None and pick(document, words.marks) is None:
            return False
        place, self.read = self.read, self.read + 1
        shape = next((each for each in words.shapes if says_one_of(found, each.looks)), words.shapes[0])
        answer = Answer(shape)
        answer.absorb(found)
        if refused is not None:
            answer.failed = True
            answer.errors = {**read_error({"error": refused}), **answer.errors}
        if answer.usage is not None or answer.objects or answer.failed:
            self._found.append(
                Result(
                    shape=shape,
                    answer=answer,
                    id=_text(pick(document, words.id)),
                    custom_id=_text(pick(document, words.custom_id)),
                    place=place,
                    service_tier=words.service_tier,
                )
            )
        return True


def _text(value: Any) -> str | None:
    return value[:LONGEST_TEXT] if type(value) is str else None
