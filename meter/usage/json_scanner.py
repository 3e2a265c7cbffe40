"""Find the numbers at known key paths in a JSON document, without holding the document.

State is a stack as deep as the longest path, the bytes of at most one key or number, and the
numbers found; strings and containers off the paths are skipped, whatever their size or depth.
Skipped parts are not validated: only brackets and quotes count there. Arrays are never entered.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from meter.usage.key_tree import KeyNode, KeyTree, Path
from meter.usage.number import NUMBER_BYTES_MAX, Number, read_number

_QUOTE, _COMMA, _COLON = b'",:'
_OPEN_OBJECT, _CLOSE_OBJECT, _OPEN_ARRAY, _CLOSE_ARRAY = b"{}[]"
_SPACES = b" \t\n\r"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"

_NOT_SPACE = re.compile(rb"[^ \t\n\r]")
_PLAIN_KEY = re.compile(rb'"([^"\\]*+)"[ \t\n\r]*+:')
_SCALAR_END = re.compile(rb"[ \t\n\r,\]}]")
# Possessive repeats: nothing to backtrack into, so no memory per repetition.
_REST_OF_STRING = rb'[^"\\]*+(?:\\.[^"\\]*+)*+"'
_STRING_END = re.compile(_REST_OF_STRING, re.DOTALL)
_SKIPPED = re.compile(rb'"' + _REST_OF_STRING + rb'|[\[\]{}"]', re.DOTALL)

_Step = Callable[["JsonScanner", bytes, int], int]


class JsonScanner:
    """Push parser: `feed` it a document in any pieces, then look at `values`.

    `values` holds the last number met at each path; a later duplicate key wins even if it holds no
    number, as in `json.loads`. Malformed input ends the scan, with the values found before it.
    """

    __slots__ = (
        "_cut_escape",
        "_depth",
        "_member",
        "_stack",
        "_step",
        "_token",
        "_tree",
        "complete",
        "values",
    )

    def __init__(self, tree: KeyTree) -> None:
        self._tree = tree
        self._token = bytearray()
        self.reset()

    def reset(self) -> None:
        """Forget everything and expect a new document."""
        self.values: dict[Path, Number] = {}
        self.complete = False
        """Whether the top-level object was closed."""
        self._stack: list[KeyNode] = []
        self._member: KeyNode | None = None
        self._depth = 0
        self._cut_escape = False
        self._token.clear()
        self._step: _Step = JsonScanner._start

    @property
    def done(self) -> bool:
        """Whether no further byte can change the values."""
        return self._step is JsonScanner._ended

    def is_open(self, path: Path) -> bool:
        """Whether the scan stands inside the object at `path`: more of its members may follow."""
        return any(node.path == path for node in self._stack)

    def feed(self, chunk: bytes) -> None:
        """Scan the next piece of the document. Never raises."""
        position, size = 0, len(chunk)
        while position < size:
            position = self._step(self, chunk, position)

    # Every step below reads from `position` on and returns the position after what it read;
    # it either moves forward or hands over to another step.

    def _start(self, chunk: bytes, position: int) -> int:
        byte = chunk[position]
        if byte in _SPACES or byte in _BYTE_ORDER_MARK:
            return position + 1
        if byte != _OPEN_OBJECT:
            return self._end(chunk)
        return self._enter(self._tree.root, position)

    def _enter(self, node: KeyNode, position: int) -> int:
        self._stack.append(node)
        self._step = JsonScanner._first_key
        return position + 1

    def _first_key(self, chunk: bytes, position: int) -> int:
        if chunk[position] == _CLOSE_OBJECT:
            return self._leave(position)
        return self._key(chunk, position)

    def _key(self, chunk: bytes, position: int) -> int:
        whole = _PLAIN_KEY.match(chunk, position)
        if whole is not None:
            self._meet(whole[1])
            self._step = JsonScanner._value
            return whole.end()
        byte = chunk[position]
        if byte == _QUOTE:
            self._step = JsonScanner._in_key
            return position + 1
        return _after_spaces(chunk, position) if byte in _SPACES else self._end(chunk)

    def _in_key(self, chunk: bytes, position: int) -> int:
        quote = self._string_end(chunk, position)
        end = len(chunk) if quote < 0 else quote
        self._keep(chunk, position, end, self._tree.key_bytes_max)
        if quote < 0:
            return end
        self._meet(bytes(self._token))
        self._token.clear()
        self._step = JsonScanner._colon
        return end + 1

    def _meet(self, spelling: bytes) -> None:
        """Turn to the member whose key is spelled like this, forgetting an earlier duplicate."""
        member = None
        if len(spelling) <= self._tree.key_bytes_max:
            member = self._tree.child(self._stack[-1], spelling)
        if member is not None:
            for path in member.below:
                self.values.pop(path, None)
        self._member = member

    def _colon(self, chunk: bytes, position: int) -> int:
        byte = chunk[position]
        if byte == _COLON:
            self._step = JsonScanner._value
            return position + 1
        return _after_spaces(chunk, position) if byte in _SPACES else self._end(chunk)

    def _value(self, chunk: bytes, position: int) -> int:
        byte = chunk[position]
        if byte in _SPACES:
            return _after_spaces(chunk, position)
        if byte == _QUOTE:
            self._step = JsonScanner._in_string
            return position + 1
        if byte == _OPEN_OBJECT and self._member is not None and self._member.children:
            return self._enter(self._member, position)
        if byte in (_OPEN_OBJECT, _OPEN_ARRAY):
            self._step = JsonScanner._in_skipped
            return position
        if byte in (_COMMA, _COLON, _CLOSE_OBJECT, _CLOSE_ARRAY):
            return self._end(chunk)
        self._step = JsonScanner._in_scalar
        return position

    def _in_string(self, chunk: bytes, position: int) -> int:
        quote = self._string_end(chunk, position)
        if quote < 0:
            return len(chunk)
        self._step = JsonScanner._after_value
        return quote + 1

    def _in_scalar(self, chunk: bytes, position: int) -> int:
        match = _SCALAR_END.search(chunk, position)
        end = len(chunk) if match is None else match.start()
        wanted = self._member is not None and self._member.wanted
        if wanted:
            self._keep(chunk, position, end, NUMBER_BYTES_MAX)
        if match is None:
            return end
        if wanted and self._member is not None:
            number = read_number(bytes(self._token))
            if number is not None:
                self.values[self._member.path] = number
            self._token.clear()
        self._step = JsonScanner._after_value
        return end

    def _after_value(self, chunk: bytes, position: int) -> int:
        byte = chunk[position]
        if byte == _COMMA:
            self._step = JsonScanner._key
            return position + 1
        if byte == _CLOSE_OBJECT:
            return self._leave(position)
        return _after_spaces(chunk, position) if byte in _SPACES else self._end(chunk)

    def _leave(self, position: int) -> int:
        self._stack.pop()
        if self._stack:
            self._step = JsonScanner._after_value
        else:
            self.complete = True
            self._step = JsonScanner._ended
        return position + 1

    def _in_skipped(self, chunk: bytes, position: int) -> int:
        for match in _SKIPPED.finditer(chunk, position):
            byte = chunk[match.start()]
            if byte in (_OPEN_OBJECT, _OPEN_ARRAY):
                self._depth += 1
            elif byte != _QUOTE:
                self._depth -= 1
                if self._depth == 0:
                    self._step = JsonScanner._after_value
                    return match.end()
            elif match.end() == match.start() + 1:  # a lone quote: the string is cut
                self._step = JsonScanner._in_skipped_string
                return match.end()
        return len(chunk)

    def _in_skipped_string(self, chunk: bytes, position: int) -> int:
        quote = self._string_end(chunk, position)
        if quote < 0:
            return len(chunk)
        self._step = JsonScanner._in_skipped
        return quote + 1

    def _ended(self, chunk: bytes, position: int) -> int:
        del position
        return len(chunk)

    def _end(self, chunk: bytes) -> int:
        self._step = JsonScanner._ended
        return len(chunk)

    def _string_end(self, chunk: bytes, position: int) -> int:
        """Where the quote is that closes the string around `position`, -1 if not in this chunk."""
        if self._cut_escape:
            self._cut_escape = False
            position += 1
        quote = chunk.find(b'"', position)
        if chunk.find(b"\\", position, len(chunk) if quote < 0 else quote) < 0:
            return quote
        match = _STRING_END.match(chunk, position)
        if match is not None:
            return match.end() - 1
        rest = chunk[position:]
        backslashes = len(rest) - len(rest.rstrip(b"\\"))
        self._cut_escape = backslashes % 2 == 1
        return -1

    def _keep(self, chunk: bytes, start: int, end: int, limit: int) -> None:
        """Add to the token, up to one byte beyond the limit: enough to know it is too long."""
        room = limit + 1 - len(self._token)
        if room > 0:
            self._token += chunk[start : min(end, start + room)]


def _after_spaces(chunk: bytes, position: int) -> int:
    match = _NOT_SPACE.search(chunk, position)
    return len(chunk) if match is None else match.start()
