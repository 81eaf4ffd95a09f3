"""A Redis stream as a source: read from the ledger's position on, or shared by a consumer group."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from labelwright.errors import SettingsError, SourceError
from labelwright.streams.source import Lag, Piece, Position

FIELD = b"message"
_START = "0-0"
_PORTION = 64 << 20
_PACKED = """
local ids, sizes, data = {}, {}, {}
for at, entry in ipairs(redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[2], 'COUNT', ARGV[3])) do
  local message, fields = '', entry[2]
  for field = 1, #fields, 2 do
    if fields[field] == 'message' then message = fields[field + 1] end
  end
  ids[at], sizes[at], data[at] = entry[1], #message, message
end
return {table.concat(ids, ' '), table.concat(sizes, ' '), table.concat(data)}
"""
_FORGOTTEN_MS = 60_000
"""An entry that a member of the group took and has not acknowledged for so long is taken over."""


class RedisSource:
    """A stream whose entries hold a message in the field ``message``.

    url: ``redis://host:port/db``. group: read as a member of this consumer group (entries are acknowledged once the ledger has
    them; those that another member left behind are taken over); else from the ledger's position on, which needs no group and
    keeps the order. patience: seconds to wait for a server that is not there at the start.
    """

    def __init__(self, url: str, stream: str, *, group: str = "", consumer: str = "labelwright", patience: float = 30):
        self.name, self.url, self.stream, self.group, self.consumer = stream, url, stream, group, consumer
        self.patience, self._told = patience, list[str]()
        self._at, self._end, self._follow = _START, _START, False
        self._read, self._own, self._claimed = 0, True, 0.0
        self._ended = False

    @property
    def _part(self) -> str:
        return f"redis:{self.stream}"

    def open(self, position: Position, *, follow: bool) -> None:
        """See :class:`~labelwright.streams.source.Source`."""
        try:
            import redis
        except ModuleNotFoundError as error:
            raise SettingsError("Redis needs redis-py; run: pip install 'labelwright[streams]'") from error
        self._redis = redis
        try:
            from redis.backoff import NoBackoff
            from redis.retry import Retry

            once = Retry(NoBackoff(), 0)  # the waiting is done here, where it is told and can be stopped
            self._client = redis.Redis.from_url(self.url, socket_timeout=30, socket_connect_timeout=5, retry=once)
        except ValueError as error:
            raise SettingsError(f"{error}; expected redis://host:port/db/stream") from error
        self._follow = follow
        self._at, self._read = position.get(self._part, [_START, 0])
        about = self._about(self.patience)
        self._end = about["last"]
        if self.group:
            self._join()
            return
        if before(self._end, self._at):
            raise SourceError(
                f"the stream {self.stream!r} ends at entry {self._end}, but the ledger has read up to {self._at}: it was made anew "
                "or came back without its latest entries. Use another --state folder for it"
            )
        lost = about["added"] - about["length"] - self._read
        if before(self._at, about["first"]) and lost > 0:
            self._told.append(
                f"{lost} entries of the stream {self.stream!r} were deleted before they were read; trim it later"
            )
            self._read += lost

    def _join(self) -> None:
        try:
            self._client.xgroup_create(self.stream, self.group, id="0", mkstream=True)
        except self._redis.ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise SourceError(f"the group {self.group!r} of {self.stream!r} cannot be joined ({error})") from error

    def _about(self, patience: float) -> dict[str, Any]:
        """first and last entry's id, length, entries ever added."""
        try:
            told = self._asked(lambda: self._client.xinfo_stream(self.stream), patience)
        except SourceError as error:
            if "no such key" not in str(error):
                raise
            if not self._follow:
                raise SourceError(f"there is no stream {self.stream!r} at this Redis; check the name") from error
            return {"first": _START, "last": _START, "length": 0, "added": 0}
        if told is None:
            raise SourceError("Redis is away, and the run is to end")
        first = told["first-entry"]
        return {
            "first": first[0].decode() if first else _START,
            "last": told["last-generated-id"].decode(),
            "length": int(told["length"]),
            "added": int(told.get("entries-added", told["length"])),
        }

    def _asked(self, question: Callable[[], Any], patience: float = float("inf")) -> Any:
        """The answer, from a server that may be away for a while."""
        start, pause, told = time.monotonic(), 0.05, False
        while True:
            try:
                answer = question()
                if told:
                    self._told.append(f"Redis is back after {time.monotonic() - start:.0f} s")
                return answer
            except (self._redis.ConnectionError, self._redis.TimeoutError) as error:
                if isinstance(error, self._redis.AuthenticationError):
                    raise SourceError(
                        f"Redis does not let this user in ({error}); put the password into the URL"
                    ) from error
                if time.monotonic() - start > patience:
                    raise SourceError(f"Redis cannot be reached ({error}); check that it runs, and the URL") from error
                if not told:
                    self._told.append(f"Redis cannot be reached ({error}); waiting for it")
                told = True
            except self._redis.ResponseError as error:
                raise SourceError(f"Redis refuses to read {self.stream!r} ({error})") from error
            if self._stopped():
                return None
            time.sleep(pause)
            pause = min(2.0, 2 * pause)

    stopping: Callable[[], bool] | None = None
    """Asked while the server is away, so that a run can be stopped then too."""

    def _stopped(self) -> bool:
        return self.stopping is not None and self.stopping()

    def fetch(self, limit: int, wait: float) -> list[Piece]:
        """See :class:`~labelwright.streams.source.Source`."""
        entries = self._shared(limit, wait) if self.group else self._after(limit)
        if self._follow and not self.group and not entries:
            entries = self._replied(
                lambda: self._client.xread({self.stream: self._at}, count=limit, block=max(1, int(wait * 1000)))
            )
        self._ended = not entries
        if not entries:
            self._check()
            return []
        ids = [key.decode() for key, _ in entries]
        first = self._read
        self._read += len(ids)
        self._at = max(ids[-1], self._at, key=_order)
        places = [[key, first + count] for count, key in enumerate(ids, 1)]
        names = [f"{self.stream}@{key}" for key in ids]
        return [Piece(self._part, places, names, [(fields or {}).get(FIELD, b"") for _, fields in entries])]

    def _after(self, limit: int) -> list[Any]:
        """The entries after the position that are there now, no more than about 64 MB of them.

        They come packed by a script, as redis-py takes most of its time to take a reply of many small parts apart; a server that
        runs no scripts for this user answers the plain way.
        """
        count = min(limit, max(1, _PORTION // self._mean)) if self._mean else min(limit, 1000)
        start, end = f"({self._at}", "+" if self._follow else self._end
        if self._packs:
            send: Callable[..., Any] = self._client.execute_command
            try:
                reply = self._asked(lambda: send("EVAL_RO", _PACKED, 1, self.stream, start, end, count))
                return self._weighed(unpacked(reply) if reply else [])
            except SourceError:
                self._packs = False
        return self._weighed(self._asked(lambda: self._client.xrange(self.stream, start, end, count=count)) or [])

    def _weighed(self, entries: list[Any]) -> list[Any]:
        if entries:
            self._mean = 1 + sum(len((fields or {}).get(FIELD, b"")) for _, fields in entries) // len(entries)
        return entries

    _packs, _mean = True, 0

    def _check(self) -> None:
        """A stream that was deleted and begun again under a reader that waits for more."""
        if self._follow and not self.group and not self._stopped() and time.monotonic() - self._claimed > 5:
            self._claimed = time.monotonic()
            about = self._about(float("inf"))
            if before(about["last"], self._at):
                raise SourceError(
                    f"the stream {self.stream!r} was made anew while it was read (it ends at {about['last']}, read up to {self._at}); "
                    "everything so far is safe. Use another --state folder for it"
                )

    def _replied(self, question: Callable[[], Any]) -> list[Any]:
        """The entries of a reply about one stream."""
        reply = self._asked(question)
        if not reply:
            return []
        return list((list(reply.values()) if isinstance(reply, dict) else [reply[0][1]])[0])

    def _shared(self, limit: int, wait: float) -> list[Any]:
        """As a member of the group: first what this member took before a crash, then what others left behind, then news."""
        if self._own:
            mine = self._replied(
                lambda: self._client.xreadgroup(self.group, self.consumer, {self.stream: self._claim_from}, count=limit)
            )
            if mine:
                self._claim_from = mine[-1][0].decode()
                return mine
            self._own, self._claimed = False, time.monotonic()
        if time.monotonic() - self._claimed > _FORGOTTEN_MS / 2000:
            self._claimed = time.monotonic()
            late = self._asked(
                lambda: self._client.xautoclaim(
                    self.stream, self.group, self.consumer, min_idle_time=_FORGOTTEN_MS, count=limit
                )
            )
            if late and late[1]:
                return list(late[1])
        block = max(1, int(wait * 1000))
        return self._replied(
            lambda: self._client.xreadgroup(self.group, self.consumer, {self.stream: ">"}, count=limit, block=block)
        )

    _claim_from = _START

    def ended(self) -> bool:
        """See :class:`~labelwright.streams.source.Source`."""
        return not self._follow and self._ended and not (self.group and self._own)

    def lag(self) -> Lag:
        """See :class:`~labelwright.streams.source.Source`."""
        try:
            about = self._about(5.0)
        except SourceError:
            return Lag(None)
        behind = max(0, min(about["length"], about["added"] - self._read)) if not self.group else self._group_lag()
        return Lag(behind, {self._part: behind})

    def _group_lag(self) -> int | None:
        for told in self._asked(lambda: self._client.xinfo_groups(self.stream), 5.0) or []:
            if told["name"] == (self.group).encode():
                return None if told.get("lag") is None else int(told["lag"])
        return None

    def done(self, pieces: Sequence[Piece]) -> None:
        """Tell the group that the ledger has these entries."""
        ids = [place[0] for piece in pieces for place in piece.places]
        for start in range(0, len(ids) if self.group else 0, 5000):
            part = ids[start : start + 5000]
            self._asked(lambda: self._client.xack(self.stream, self.group, *part))  # noqa: B023  (called at once)

    def notes(self) -> list[str]:
        """See :class:`~labelwright.streams.source.Source`."""
        told, self._told = self._told, []
        return told

    def close(self) -> None:
        """See :class:`~labelwright.streams.source.Source`."""
        if hasattr(self, "_client"):
            self._client.close()


def _order(entry: str) -> tuple[int, int]:
    time_ms, _, count = entry.partition("-")
    return int(time_ms), int(count or 0)


def unpacked(reply: Sequence[bytes]) -> list[tuple[bytes, dict[bytes, bytes]]]:
    """Entries out of the script's three strings: ids, sizes, messages.

    >>> unpacked([b"1-0 1-1", b"2 3", b"abxyz"])
    [(b'1-0', {b'message': b'ab'}), (b'1-1', {b'message': b'xyz'})]
    """
    ids, sizes, data = reply
    out, start = [], 0
    for key, size in zip(ids.split(), map(int, sizes.split()), strict=True):
        out.append((key, {FIELD: data[start : start + size]}))
        start += size
    return out


def before(one: str, other: str) -> bool:
    """Whether an entry's id comes before another's.

    >>> before("9-1", "10-0"), before("5-2", "5-2")
    (True, False)
    """
    return _order(one) < _order(other)


__all__ = ["FIELD", "RedisSource", "before"]
