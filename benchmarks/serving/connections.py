"""Speaks gRPC over HTTP/2, and HTTP/1.1, as bytes in and bytes out, for a load generator.

A client library spends more on a call than a quick server does. What a load needs of HTTP/2 is
little: one header block that never changes, sent in full once and by its indices in the peer's
    table from then on; data
frames; and the status of what comes back. The server is asked for a header table of size 0, so that
its header blocks mean the same whenever they come.
"""

import re
import struct
from collections import deque
from collections.abc import Iterator
from typing import Generic, NamedTuple, Protocol, TypeVar

Tag = TypeVar("Tag")

_FRAME = struct.Struct(">BHBBI")  # length (24 bits), type, flags, stream
_DATA = 0
_HEADERS = 1
_RST = 3
_SETTINGS = 4
_PING = 6
_GOAWAY = 7
_WINDOW = 8
_END_STREAM = 1
_ACK = 1
_END_HEADERS = 4
_LARGEST_WINDOW = 2**31 - 1
_FIRST_WINDOW = 65_535
_LARGEST_FRAME = 16_384
_FIRST_DYNAMIC = 62
_STATUS = re.compile(rb"grpc-status[\x01\x02](\d+)")
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)


class Completion(NamedTuple, Generic[Tag]):
    """The end of a call: its tag, and the status of gRPC or HTTP, or "reset" or "broken"."""

    tag: Tag
    code: str
    size: int
    """Bytes of the reply's body."""


class Connection(Protocol[Tag]):
    """The part of a connection that does not depend on sockets."""

    out: bytearray
    """Bytes to send."""
    closing: bool
    """The server takes no more calls here."""

    def has_room(self) -> bool:
        """Returns true if another call can be sent now."""

    def call(self, body: bytes, tag: Tag) -> None:
        """Puts a call into `out`."""

    def receive(self, data: bytes) -> Iterator[Completion[Tag]]:
        """Takes what came; gives the calls that ended."""

    def broken(self) -> Iterator[Completion[Tag]]:
        """Gives the calls that end because the server ended the connection."""


class Http2(Generic[Tag]):
    """Unary gRPC calls of one method, any number at once.

    Args:
        authority: host:port.
        method: "/package.Service/Method".
        timeout_ms: the deadline that each call carries; 0 is none.
    """

    def __init__(self, authority: str, method: str, timeout_ms: int = 0) -> None:
        fields = [(":authority", authority), (":path", method), ("te", "trailers")]
        fields += [("content-type", "application/grpc")]
        if timeout_ms:
            fields.append(("grpc-timeout", f"{timeout_ms}m"))
        self._first = b"\x83\x86" + b"".join(_indexed_literal(*field) for field in fields)
        last = _FIRST_DYNAMIC + len(fields) - 1
        self._later = b"\x83\x86" + bytes(0x80 | (last - place) for place in range(len(fields)))
        settings = b"".join(
            struct.pack(">HI", *pair) for pair in ((1, 0), (2, 0), (4, _LARGEST_WINDOW))
        )
        self.out = bytearray(
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(_SETTINGS, 0, 0, settings)
        )
        self.out += _frame(_WINDOW, 0, 0, struct.pack(">I", _LARGEST_WINDOW - _FIRST_WINDOW))
        self.closing = False
        self._stream = 1
        self._calls: dict[int, Tag] = {}
        self._sizes: dict[int, int] = {}
        self._window = _FIRST_WINDOW
        self._received = 0
        self._rest = b""
        self._waiting: deque[tuple[bytes, Tag]] = deque()
        """Calls that the server's flow control does not let through yet."""

    def has_room(self) -> bool:
        return not self.closing

    def call(self, body: bytes, tag: Tag) -> None:
        if len(body) + 5 > _FIRST_WINDOW:
            raise ValueError(
                f"a request of {len(body)} bytes found, expected at most {_FIRST_WINDOW - 5}"
            )
        if self._waiting or len(body) + 5 > self._window:
            self._waiting.append((body, tag))
            return
        stream = self._stream
        self._stream = self._stream + 2
        headers = self._later if stream > 1 else self._first
        self._calls[stream] = tag
        message = b"\0" + struct.pack(">I", len(body)) + body
        self._window -= len(message)
        self.out += _frame(_HEADERS, _END_HEADERS, stream, headers)
        for start in range(0, len(message), _LARGEST_FRAME):
            part = message[start : start + _LARGEST_FRAME]
            last = start + _LARGEST_FRAME >= len(message)
            self.out += _frame(_DATA, _END_STREAM if last else 0, stream, part)

    def receive(self, data: bytes) -> Iterator[Completion[Tag]]:
        data = self._rest + data
        at = 0
        while at + 9 <= len(data):
            high, low, kind, flags, stream = _FRAME.unpack_from(data, at)
            end = at + 9 + (high << 16 | low)
            if end > len(data):
                break
            if kind == _DATA:
                self._received += end - at - 9
                self._sizes[stream] = self._sizes.get(stream, 0) + end - at - 9
            elif kind == _HEADERS:
                if flags & _END_STREAM and stream in self._calls:
                    code = _grpc_status(data[at + 9 : end])
                    yield Completion(self._calls.pop(stream), code, self._sizes.pop(stream, 5) - 5)
            elif kind == _RST:
                if stream in self._calls:
                    self._sizes.pop(stream, 0)
                    yield Completion(self._calls.pop(stream), "reset", 0)
            else:
                self._control(kind, flags, stream, data[at + 9 : end])
            at = end
        self._rest = data[at:]
        if self._received > _LARGEST_WINDOW // 2:
            self.out += _frame(_WINDOW, 0, 0, struct.pack(">I", self._received))
            self._received = 0

    def broken(self) -> Iterator[Completion[Tag]]:
        self.closing = True
        for tag in (*self._calls.values(), *(tag for _, tag in self._waiting)):
            yield Completion(tag, "broken", 0)

    def _control(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == _SETTINGS and not flags & _ACK:
            self.out += _frame(_SETTINGS, _ACK, 0, b"")
        elif kind == _PING and not flags & _ACK:
            self.out += _frame(_PING, _ACK, 0, payload)
        elif kind == _GOAWAY:
            self.closing = True
        elif kind == _WINDOW and not stream:
            self._window += struct.unpack(">I", payload)[0]
            waiting = self._waiting
            self._waiting = deque()
            for body, tag in waiting:
                self.call(body, tag)


class Http1(Generic[Tag]):
    """POSTs of one path, one at a time, on a connection that is kept.

    Args:
        authority: host:port.
        path: "/recommend".
        content_type: of the requests.
    """

    def __init__(self, authority: str, path: str, content_type: str = "application/json") -> None:
        head = f"POST {path} HTTP/1.1\r\nhost: {authority}\r\ncontent-type: {content_type}\r\n"
        self._head = head.encode()
        self.out = bytearray()
        self.closing = False
        self._call: Tag | None = None
        self._rest = b""

    def has_room(self) -> bool:
        return self._call is None and not self.closing

    def call(self, body: bytes, tag: Tag) -> None:
        self._call = tag
        self.out += self._head + b"content-length: %d\r\n\r\n" % len(body) + body

    def receive(self, data: bytes) -> Iterator[Completion[Tag]]:
        self._rest += data
        head, found, body = self._rest.partition(b"\r\n\r\n")
        if not found or self._call is None:
            return
        length = _LENGTH.search(head + b"\r\n")
        if length is None:
            raise ValueError(f"a reply without a content-length found: {head[:200]!r}")
        if len(body) >= int(length[1]):
            tag = self._call
            self._call = None
            self._rest = b""
            self.closing = b"\r\nconnection: close" in head.lower()
            yield Completion(tag, head[9:12].decode(), int(length[1]))

    def broken(self) -> Iterator[Completion[Tag]]:
        self.closing = True
        if self._call is not None:
            yield Completion(self._call, "broken", 0)


def _grpc_status(block: bytes) -> str:
    found = _STATUS.search(block)
    if found is None:
        raise ValueError(f"a header block without a readable grpc-status found: {block[:200]!r}")
    return found[1].decode()


def _indexed_literal(name: str, value: str) -> bytes:
    """Encodes a header field for the peer's table (RFC 7541, 6.2.1), without Huffman coding."""
    return b"\x40" + b"".join(_string(text.encode()) for text in (name, value))


def _string(text: bytes) -> bytes:
    if len(text) > 126:
        raise ValueError(f"a header of {len(text)} bytes found, expected at most 126")
    return bytes([len(text)]) + text


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return _FRAME.pack(len(payload) >> 16, len(payload) & 0xFFFF, kind, flags, stream) + payload
