"""Find the values at known key paths in a sequence of JSON documents, without holding a document.

State is a stack as deep as the longest path, the bytes of at most one key or value, and what was found; everything off
the paths is skipped, whatever its size or depth, and not validated: only brackets and quotes count there.

Documents may follow each other with anything that framings put between them: nothing, blanks, newlines, commas, record
separators, and the brackets of one array around all of them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import orjson

from meter.usage.key_tree import KeyNode, KeyTree, Path
from meter.usage.number import NUMBER_BYTES_MAX, NUMBER_MAX, Number, read_number

TEXT_BYTES_MAX = 256
TEXTS_MAX = 32
"""Different texts kept of one path."""

_QUOTE, _COMMA, _COLON = b'",:'
_OPEN_OBJECT, _CLOSE_OBJECT, _OPEN_ARRAY, _CLOSE_ARRAY = b"{}[]"
_SPACES = b" \t\n\r"
_BETWEEN = re.compile(rb"[^ \t\n\r,\[\]\x1e\xef\xbb\xbf]")

_NOT_SPACE = re.compile(rb"[^ \t\n\r]")
_PLAIN_KEY = re.compile(rb'"([^"\\]*+)"[ \t\n\r]*+:')
_SCALAR_END = re.compile(rb"[ \t\n\r,\]}]")
# Possessive repeats: nothing to backtrack into, so no memory per repetition.
_REST_OF_STRING = rb'[^"\\]*+(?:\\.[^"\\]*+)*+"'
_STRING_END = re.compile(_REST_OF_STRING, re.DOTALL)
_SKIPPED = re.compile(rb'"' + _REST_OF_STRING + rb'|[\[\]{}"]', re.DOTALL)
_NEAR_BYTES = 256
_OPENING = b"{["
_NO_BRACKETS = bytes(set(range(256)) - set(b"{}[]"))
_NOTHING_THERE = (b"null", b"false", b"0")

_Step = Callable[["JsonScanner", bytes, int], int]


class JsonScanner:
    """Push parser: `feed` it documents in any pieces, then look at `numbers`, `texts` and `present`.

    Of several numbers at one path, in one document or in several, the largest counts: counters are told again as they
    grow, and a later zero or null takes nothing back. A number counts once the base object around it is closed, so that
    a document that is cut off never tells half of what belongs together.
    """

    __slots__ = (
        "_cut_escape",
        "_depth",
        "_documents",
        "_member",
        "_pending",
        "_stack",
        "_step",
        "_token",
        "_tree",
        "numbers",
        "present",
        "texts",
    )

    def __init__(self, tree: KeyTree) -> None:
        self._tree = tree
        self.numbers: dict[Path, Number] = {}
        self.texts: dict[Path, list[str]] = {}
        """The different texts at each path, in order, `TEXTS_MAX` at most."""
        self.present: set[Path] = set()
        self._documents = 0
        self._token = bytearray()
        self._forget()

    def _forget(self) -> None:
        self._pending: dict[Path, Number] = {}
        self._stack: list[KeyNode] = []  # objects and entered arrays (their items' nodes) around the position
        self._member: KeyNode | None = None
        self._depth = 0
        self._cut_escape = False
        self._token.clear()
        self._step: _Step = JsonScanner._between

    @property
    def idle(self) -> bool:
        """Whether no document is begun."""
        return self._step is JsonScanner._between

    def feed(self, chunk: bytes) -> None:
        """Scan the next piece. Never raises."""
        position, size = 0, len(chunk)
        while position < size:
            position = self._step(self, chunk, position)

    def feed_whole(self, document: bytes) -> None:
        """Scan what is probably one whole document, in the same way and in a fraction of the time: orjson reads one of
        2 kB in a tenth of it. What it does not take, and numbers that it does not keep exactly, go the ordinary way.
        """
        if self.idle:
            try:
                whole = orjson.loads(document)
            except orjson.JSONDecodeError:
                whole = None
            if isinstance(whole, dict):
                found: dict[Path, Number] = {}
                if self._walk(self._tree.root, whole, found):
                    for path, number in found.items():
                        self.numbers[path] = max(number, self.numbers.get(path, 0))
                    self._documents += 1
                    return
        self.feed(document)

    def _walk(self, node: KeyNode, whole: dict[str, object], found: dict[Path, Number]) -> bool:
        """Notes what is wanted of an object; False for a number that only its digits tell exactly."""
        known = node.names
        for key, value in whole.items():
            child = known.get(key)
            if child is None:
                continue
            if type(value) is int and not child.wants_presence:  # most of what is wanted, and a call less
                if child.wants_number and 0 <= value <= NUMBER_MAX:
                    _count(child, value, found)
            elif not self._walk_value(child, value, found):
                return False
        return True

    def _walk_value(self, node: KeyNode, value: object, found: dict[Path, Number]) -> bool:
        kind = type(value)
        if value and node.wants_presence:
            self.present.add(node.path)
        if kind is int:
            if node.wants_number and 0 <= value <= NUMBER_MAX:  # type: ignore[operator]
                _count(node, value, found)  # type: ignore[arg-type]
        elif kind is dict:
            return not node.names or self._walk(node, value, found)  # type: ignore[arg-type]
        elif kind is str:
            if node.wanted:
                self._read_text(node, value, found)  # type: ignore[arg-type]
        elif kind is list:
            items = node.items
            return items is None or all(self._walk_value(items, item, found) for item in value)  # type: ignore[attr-defined]
        else:
            return not (kind is float and node.wanted)
        return True

    def boundary(self) -> None:
        """No document goes on from here: what is begun is given up."""
        if self._step is not JsonScanner._between:
            self._forget()

    # Every step below reads from `position` on and returns the position after what it read;
    # it either moves forward or hands over to another step.

    def _between(self, chunk: bytes, position: int) -> int:
        found = _BETWEEN.search(chunk, position)
        if found is None:
            return len(chunk)
        position = found.start()
        if chunk[position] != _OPEN_OBJECT:
            return self._break(chunk, position)
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
            return whole.end()
        byte = chunk[position]
        if byte == _QUOTE:
            self._step = JsonScanner._in_key
            return position + 1
        return _after_spaces(chunk, position) if byte in _SPACES else self._break(chunk, position)

    def _in_key(self, chunk: bytes, position: int) -> int:
        quote = self._string_end(chunk, position)
        end = len(chunk) if quote < 0 else quote
        self._keep(chunk, position, end, self._tree.key_bytes_max)
        if quote < 0:
            return end
        key = bytes(self._token)
        self._token.clear()
        self._meet(key)
        self._step = JsonScanner._colon
        return end + 1

    def _meet(self, spelling: bytes) -> None:
        """Turn to the member whose key is spelled like this."""
        self._member = None
        if len(spelling) <= self._tree.key_bytes_max:
            self._member = self._tree.child(self._stack[-1], spelling)
        self._step = JsonScanner._value

    def _colon(self, chunk: bytes, position: int) -> int:
        byte = chunk[position]
        if byte == _COLON:
            self._step = JsonScanner._value
            return position + 1
        return _after_spaces(chunk, position) if byte in _SPACES else self._break(chunk, position)

    def _value(self, chunk: bytes, position: int) -> int:
        byte, member = chunk[position], self._member
        if byte in _SPACES:
            return _after_spaces(chunk, position)
        if byte == _QUOTE:
            self._step = JsonScanner._in_string
            return position + 1
        if byte in (_OPEN_OBJECT, _OPEN_ARRAY):
            if member is not None and member.wants_presence:
                self.present.add(member.path)
            if byte == _OPEN_OBJECT and member is not None and member.children:
                return self._enter(member, position)
            if byte == _OPEN_ARRAY and member is not None and member.items is not None:
                self._stack.append(member)
                self._step = JsonScanner._item
                return position + 1
            self._step = JsonScanner._in_skipped
            return position
        if byte in (_COMMA, _COLON, _CLOSE_OBJECT, _CLOSE_ARRAY):
            return self._break(chunk, position)
        self._step = JsonScanner._in_scalar
        return position

    def _item(self, chunk: bytes, position: int) -> int:
        """The next item of an entered array, or its end."""
        byte = chunk[position]
        if byte in _SPACES or byte == _COMMA:
            return position + 1
        if byte == _CLOSE_ARRAY:
            self._stack.pop()
            self._step = JsonScanner._after_value
            return position + 1
        self._member = self._stack[-1].items
        self._step = JsonScanner._value
        return position

    def _in_string(self, chunk: bytes, position: int) -> int:
        quote = self._string_end(chunk, position)
        end = len(chunk) if quote < 0 else quote
        member = self._member
        if member is not None and member.wanted:
            self._keep(chunk, position, end, TEXT_BYTES_MAX)
        if quote < 0:
            return end
        if member is not None and member.wanted:
            if len(self._token) <= TEXT_BYTES_MAX:
                self._read_text(member, _decoded(bytes(self._token)), self._pending)
            if self._token and member.wants_presence:
                self.present.add(member.path)
            self._token.clear()
        self._step = JsonScanner._after_value
        return quote + 1

    def _read_text(self, member: KeyNode, text: str, found: dict[Path, Number]) -> None:
        if member.wants_number:
            number = read_number(text.strip().encode("utf-8", "replace"))
            _count(member, number, self.numbers if member.alone else found)
        if member.wants_text and text and len(text) <= TEXT_BYTES_MAX:
            texts = self.texts.setdefault(member.path, [])
            if text not in texts and len(texts) < TEXTS_MAX:
                texts.append(text)

    def _in_scalar(self, chunk: bytes, position: int) -> int:
        match = _SCALAR_END.search(chunk, position)
        end = len(chunk) if match is None else match.start()
        member = self._member
        wanted = member is not None and member.wanted
        if wanted:
            self._keep(chunk, position, end, NUMBER_BYTES_MAX)
        if match is None:
            return end
        if wanted and member is not None:
            token = bytes(self._token)
            self._token.clear()
            if member.wants_number:
                self._count(member, read_number(token))
            if member.wants_presence and token not in _NOTHING_THERE:
                self.present.add(member.path)
        self._step = JsonScanner._after_value
        return end

    def _count(self, member: KeyNode, number: Number | None) -> None:
        _count(member, number, self.numbers if member.alone else self._pending)

    def _after_value(self, chunk: bytes, position: int) -> int:
        in_array = self._stack[-1].items is not None and self._member is self._stack[-1].items
        byte = chunk[position]
        if in_array:
            self._step = JsonScanner._item
            return position
        if byte == _COMMA:
            self._step = JsonScanner._key
            return position + 1
        if byte == _CLOSE_OBJECT:
            return self._leave(position)
        return _after_spaces(chunk, position) if byte in _SPACES else self._break(chunk, position)

    def _leave(self, position: int) -> int:
        node = self._stack.pop()
        if node.base:
            self._settle(node)
        if self._stack:
            self._member = node
            self._step = JsonScanner._after_value
        else:
            self._documents += 1
            self._step = JsonScanner._between
        return position + 1

    def _settle(self, node: KeyNode) -> None:
        for path in node.below:
            number = self._pending.pop(path, None)
            if number is not None:
                self.numbers[path] = max(number, self.numbers.get(path, 0))

    def _in_skipped(self, chunk: bytes, position: int) -> int:
        position = self._past_plain(chunk, position)
        for match in _SKIPPED.finditer(chunk, position):
            byte = chunk[match.start()]
            if byte in (_OPEN_OBJECT, _OPEN_ARRAY):
                self._depth += 1
            elif byte in (_CLOSE_OBJECT, _CLOSE_ARRAY):
                self._depth -= 1
                if self._depth == 0:
                    self._step = JsonScanner._after_value
                    return match.end()
            elif match.end() == match.start() + 1:  # a string that does not end in this chunk
                self._step = JsonScanner._in_skipped_string
                return match.end()
            elif chunk.find(b'"', match.end(), match.end() + _NEAR_BYTES) < 0:
                return match.end()  # numbers follow, which are better counted
        return len(chunk)

    def _past_plain(self, chunk: bytes, position: int) -> int:
        """Past everything up to the next quote, unless what is skipped ends before that: its brackets are what is left
        of it when all else is taken out, which takes a tenth of the time of looking for them one by one.
        """
        if self._depth == 0:
            return position
        end = chunk.find(b'"', position)
        end = len(chunk) if end < 0 else end
        depth = self._depth
        for byte in chunk[position:end].translate(None, _NO_BRACKETS):
            depth += 1 if byte in _OPENING else -1
            if depth == 0:
                return position
        self._depth = depth
        return end

    def _in_skipped_string(self, chunk: bytes, position: int) -> int:
        quote = self._string_end(chunk, position)
        if quote < 0:
            return len(chunk)
        self._step = JsonScanner._in_skipped
        return quote + 1

    def _break(self, chunk: bytes, position: int) -> int:
        """This is no JSON. The next line may be, where lines are documents of their own."""
        lines = self._documents > 0 or not self._stack
        self._forget()
        self._step = JsonScanner._in_rubbish if lines else JsonScanner._ended
        return position

    def _in_rubbish(self, chunk: bytes, position: int) -> int:
        newline = chunk.find(b"\n", position)
        if newline < 0:
            return len(chunk)
        self._step = JsonScanner._between
        return newline + 1

    def _ended(self, chunk: bytes, _: int) -> int:
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


def _count(member: KeyNode, number: Number | None, found: dict[Path, Number]) -> None:
    if number is None:
        return
    before = found.get(member.path)
    if before is not None:
        number = before + number if member.sums else max(before, number)
    found[member.path] = number


def _decoded(token: bytes) -> str:
    """The text of a string's bytes; "" for what is none."""
    try:
        return str(json.loads(b'"%b"' % token))
    except ValueError:
        return ""
