"""A Kafka topic as a source: every partition is assigned at the ledger's offset, and none is ever committed to the broker."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from labelwright.errors import SettingsError, SourceError
from labelwright.streams.source import Lag, Piece, Position

_PATIENCE = 5.0
"""Seconds after which a partition that gives nothing no longer holds back the others."""


class KafkaSource:
    """A topic. servers: ``host:port,host:port``. options: of librdkafka. connect: seconds to wait for the brokers at the start.

    A delivery takes as much from each partition as there is, evenly, in the order of the partitions: what is in it depends on
    the position and on what the topic holds, so a batch that a crash cut short is the same again.
    """

    def __init__(self, servers: str, topic: str, *, options: Mapping[str, str] | None = None, connect: float = 30.0):
        self.name, self.servers, self.topic, self.connect = topic, servers, topic, connect
        self.options = dict(options or {})
        self._next: dict[int, int] = {}
        self._end: dict[int, int] = {}
        self._held: dict[int, deque[tuple[int, bytes]]] = {}
        self._paused: set[int] = set()
        self._told: list[str] = []
        self._down: float | None = None
        self._follow = False

    def open(self, position: Position, *, follow: bool) -> None:
        """See :class:`~labelwright.streams.source.Source`."""
        self._consumer = self._client()
        self._follow, start = follow, time.monotonic()
        while True:
            try:
                partitions = self._partitions()
                if partitions:
                    break
                problem = f"there is no topic {self.topic!r}"
            except SourceError as error:
                problem = str(error)
            if time.monotonic() - start > self.connect:
                raise SourceError(f"{problem} at {self.servers}; check that the brokers run, and the names")
            time.sleep(0.2)
        for number in partitions:
            self._begin(number, position.get(self._part(number)))
        self._assign()

    def _client(self) -> Any:
        try:
            from confluent_kafka import Consumer, KafkaException
        except ModuleNotFoundError as error:
            raise SettingsError("Kafka needs confluent-kafka; run: pip install 'labelwright[streams]'") from error
        fixed = {
            "bootstrap.servers": self.servers,
            "group.id": "labelwright",
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "error",
            "enable.partition.eof": False,
            "error_cb": self._failed,
            "log_level": 0,
        }
        bounded = {"queued.max.messages.kbytes": 65536, "fetch.message.max.bytes": 16 << 20, "fetch.wait.max.ms": 100}
        bounded |= {"reconnect.backoff.max.ms": 2000}
        try:
            return Consumer({**bounded, **self.options, **fixed})
        except (KafkaException, ValueError, TypeError) as error:
            raise SettingsError(
                f"librdkafka does not take these settings ({error}); see its CONFIGURATION.md"
            ) from error

    def _failed(self, error: Any) -> None:
        """Called by librdkafka, which tries again by itself."""
        if error.name() in ("_ALL_BROKERS_DOWN", "_TRANSPORT", "_RESOLVE") and self._down is None:
            self._down = time.monotonic()
            self._told.append(f"the brokers at {self.servers} cannot be reached ({error.str()}); waiting for them")

    def _part(self, number: int) -> str:
        return f"kafka:{self.topic}[{number}]"

    def _partitions(self) -> list[int]:
        from confluent_kafka import KafkaException

        try:
            told = self._consumer.list_topics(self.topic, timeout=min(5.0, self.connect)).topics[self.topic]
        except KafkaException as error:
            raise SourceError(f"the brokers cannot be asked ({error.args[0].str()})") from error
        return sorted(told.partitions) if told.error is None else []

    def _marks(self, number: int) -> tuple[int, int]:
        from confluent_kafka import KafkaException, TopicPartition

        place = TopicPartition(self.topic, number)
        try:
            low, high = self._consumer.get_watermark_offsets(place, timeout=self.connect)
        except (KafkaException, TypeError) as error:
            raise SourceError(
                f"partition {number} of {self.topic!r} cannot be asked for its offsets ({error})"
            ) from error
        return int(low), int(high)

    def _begin(self, number: int, place: int | None) -> None:
        low, high = self._marks(number)
        if place is not None and place > high:
            raise SourceError(
                f"partition {number} of {self.topic!r} ends at offset {high}, but the ledger has read up to {place}: the topic was "
                "made anew. Use another --state folder for it"
            )
        if place is not None and place < low:
            self._told.append(
                f"{low - place} messages of partition {number} of {self.topic!r} were deleted before they were read "
                f"(offsets {place} to {low - 1}); keep messages longer"
            )
        self._next[number] = max(low, place or 0)
        self._end[number] = high
        self._held.setdefault(number, deque())

    def _assign(self) -> None:
        from confluent_kafka import TopicPartition

        places = []
        for number, held in self._held.items():
            places.append(TopicPartition(self.topic, number, held[-1][0] + 1 if held else self._next[number]))
        self._paused.clear()
        self._consumer.assign(places)

    def fetch(self, limit: int, wait: float) -> list[Piece]:
        """See :class:`~labelwright.streams.source.Source`."""
        start = time.monotonic()
        while True:
            share = shares({number: self._there(number) for number in self._held}, limit)
            short = [number for number, count in share.items() if len(self._held[number]) < count]
            waited = time.monotonic() - start
            some = any(self._held.values())
            if (not short and some) or (waited > wait and (not some or waited > _PATIENCE)):
                break
            self._poll(limit, 0.05)
        return [self._taken(number, count) for number, count in share.items() if min(count, len(self._held[number]))]

    def _there(self, number: int) -> int:
        """How many messages of a partition are there to be fetched, as far as is known."""
        return max(len(self._held[number]), self._end[number] - self._next[number], 0)

    def _poll(self, limit: int, wait: float) -> None:
        """Take in what librdkafka has. A partition that is far ahead of the others waits."""
        from confluent_kafka import TopicPartition

        self._balance(limit)
        for message in self._consumer.consume(num_messages=max(1, min(limit, 100_000)), timeout=wait):
            error = message.error()
            if error is not None:
                self._trouble(error, message.partition())
                continue
            if self._down is not None:
                self._told.append(f"the brokers are back after {time.monotonic() - self._down:.0f} s")
                self._down = None
            number, offset = message.partition(), message.offset()
            held = self._held[number]
            if offset >= (held[-1][0] + 1 if held else self._next[number]) and (
                self._follow or offset < self._end[number]
            ):
                held.append((offset, message.value() or b""))
        for number in self._held if self._follow else ():
            known = self._consumer.get_watermark_offsets(TopicPartition(self.topic, number), cached=True)
            if known and known[1] >= 0:
                self._end[number] = max(self._end[number], known[1])
        self._gaps()

    def _gaps(self) -> None:
        """Offsets without a message (transactions, compaction) at the end of a partition: its position tells."""
        from confluent_kafka import TopicPartition

        open_ends = [n for n in self._held if not self._held[n] and self._next[n] < self._end[n]]
        if not open_ends:
            return
        for place in self._consumer.position([TopicPartition(self.topic, number) for number in open_ends]):
            if place.offset >= self._end[place.partition]:
                self._next[place.partition] = self._end[place.partition]

    def _balance(self, limit: int) -> None:
        from confluent_kafka import TopicPartition

        full = {number for number, held in self._held.items() if len(held) >= max(2 * limit, 1000)}
        for numbers, act in ((full - self._paused, self._consumer.pause), (self._paused - full, self._consumer.resume)):
            if numbers:
                act([TopicPartition(self.topic, number) for number in numbers])
        self._paused = full

    def _trouble(self, error: Any, number: int) -> None:
        if error.name() in ("_AUTO_OFFSET_RESET", "OFFSET_OUT_OF_RANGE"):
            self._begin(number, self._next[number])
            self._held[number].clear()
            self._assign()
        elif error.fatal() or error.name() in (
            "UNKNOWN_TOPIC_OR_PART",
            "TOPIC_AUTHORIZATION_FAILED",
            "_AUTHENTICATION",
        ):
            raise SourceError(f"the topic {self.topic!r} cannot be read ({error.str()}); everything so far is safe")

    def _taken(self, number: int, count: int) -> Piece:
        held = self._held[number]
        rows = [held.popleft() for _ in range(min(count, len(held)))]
        self._next[number] = rows[-1][0] + 1
        names = [f"{self.topic}[{number}]@{offset}" for offset, _ in rows]
        return Piece(self._part(number), [offset + 1 for offset, _ in rows], names, [value for _, value in rows])

    def ended(self) -> bool:
        """See :class:`~labelwright.streams.source.Source`."""
        return not self._follow and not any(self._there(number) for number in self._held)

    def lag(self) -> Lag:
        """See :class:`~labelwright.streams.source.Source`."""
        if not self._follow:
            return self._lag({number: self._there(number) for number in self._held})
        from confluent_kafka import TopicPartition

        for number in self._held:
            known = self._consumer.get_watermark_offsets(TopicPartition(self.topic, number), cached=True)
            if known and known[1] >= 0:
                self._end[number] = max(self._end[number], known[1])
        return self._lag({number: self._there(number) for number in self._held})

    def _lag(self, behind: dict[int, int]) -> Lag:
        return Lag(sum(behind.values()), {self._part(number): count for number, count in behind.items()})

    def done(self, pieces: Sequence[Piece]) -> None:
        """Nothing: the ledger has the position."""

    def notes(self) -> list[str]:
        """See :class:`~labelwright.streams.source.Source`."""
        told, self._told = self._told, []
        return told

    def close(self) -> None:
        """See :class:`~labelwright.streams.source.Source`."""
        if hasattr(self, "_consumer"):
            self._consumer.close()


def shares(there: Mapping[int, int], limit: int) -> dict[int, int]:
    """How many rows to take of each partition: evenly, and what one lacks goes to the others.

    >>> shares({0: 100, 1: 2, 2: 100}, 11)
    {0: 5, 1: 2, 2: 4}
    """
    left, out = limit, dict.fromkeys(sorted(there), 0)
    open_ones = [number for number in out if there[number] > 0]
    while left > 0 and open_ones:
        each, extra = divmod(left, len(open_ones))
        for at, number in enumerate(list(open_ones)):
            more = min(there[number] - out[number], each + (at < extra))
            out[number] += more
            left -= more
        open_ones = [number for number in open_ones if out[number] < there[number]]
    return out


__all__ = ["KafkaSource", "shares"]
