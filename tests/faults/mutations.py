"""How valid files become broken and hostile ones: changes of bytes, and of what JSON says."""

from __future__ import annotations

import json
from typing import Any, Callable, List

import numpy as np

Generator = Callable[[np.random.Generator], bytes]
TOKENS = (
    b"nan", b"inf", b"-inf", b"1e308", b"1e400", b"-1", b"0", b"9223372036854775808", b"1" * 400, b"1e-320", b"1_000",
    b"0x10", b"-0", b"null", b"true", b"NaN", b"[]", b"{}", b'""', b'"../../x"', b'"/etc/x"', b"[" * 3000,
    b'{"a":' * 3000, b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b'"', b"'", b";", b",", b"\t", b"\n", b"\r", b"#",
    b"loop_\n", b"data_\n", b"_rlnCoordinateX", b"x" * 140000, "é".encode(), "e\u0301".encode(), b"\\u0000",
    b"\x1f\x8b")
WORDS = tuple(np.array([v], kind).tobytes() for kind in ("<i4", ">i4") for v in
              (0, 1, -1, 2, 9, 100, 10 ** 4, 2 ** 31 - 1, -2 ** 31, 10 ** 6, 10 ** 7 - 1, 12, 101, 1024))
STRANGE: List[Any] = [None, True, -1, 0, 1.5, 10 ** 400, 1e308, float("nan"), float("inf"), "", "x", "../x", "/etc/x",
                      "a\0b", [], {}, [[]], [None], {"a": []}, "1" * 5000, 2 ** 63, "NaN", [1, 2, 3], "\ud800",
                      [1e308] * 3]


def mutate(rng: np.random.Generator, content: bytes, other: bytes) -> bytes:
    """Return valid content with one to four changes; other is another valid file to splice with."""
    data = bytearray(content)
    for _ in range(int(rng.integers(1, 5))):
        at = int(rng.integers(0, len(data) + 1))
        if rng.random() < 0.3:  # the interesting part of binary files is their head
            at = min(at, int(rng.integers(0, 256)))
        kind = int(rng.integers(0, 8))
        if kind == 0:
            for _ in range(int(rng.integers(1, 9))):
                if data:
                    data[int(rng.integers(0, len(data)))] ^= 1 << int(rng.integers(0, 8))
        elif kind == 1:
            del data[at:]
        elif kind == 2:
            del data[at:at + int(rng.integers(1, 40))]
        elif kind == 3:
            cut = int(rng.integers(0, len(other) + 1))
            data[at:] = other[cut:]
        elif kind == 4:
            data[at:at] = TOKENS[int(rng.integers(0, len(TOKENS)))]
        elif kind == 5:
            data[at // 4 * 4:at // 4 * 4 + 4] = WORDS[int(rng.integers(0, len(WORDS)))]
        elif kind == 6:
            replace_word(rng, data)
        else:
            data[at:at] = data[at:at + int(rng.integers(1, 60))]
    return bytes(data)


def replace_word(rng: np.random.Generator, data: bytearray) -> None:
    """Replace one run of letters and digits by an extreme one, in place."""
    word = b"0123456789.-+eEabcdefghijklmnopqrstuvwxyz\"_"
    at = int(rng.integers(0, len(data) + 1))
    while at < len(data) and data[at] not in word:
        at += 1
    end = at
    while end < len(data) and data[end] in word and end - at < 60:
        end += 1
    data[at:end] = TOKENS[int(rng.integers(0, len(TOKENS)))]


def strange_json(valid: Callable[[], Any]) -> Generator:
    """Return a generator of JSON like a valid one in which one or two members are strange or missing."""
    def make(rng: np.random.Generator) -> bytes:
        content = valid()
        for _ in range(int(rng.integers(1, 3))):
            content = disturbed(rng, content)
        return json.dumps(content).encode("utf-8", "surrogatepass") + b"\n"

    return make


def disturbed(rng: np.random.Generator, content: Any) -> Any:
    """Return JSON content with one node, anywhere, that is strange or missing."""
    if not isinstance(content, (dict, list)) or not content or rng.random() < 0.15:
        return STRANGE[int(rng.integers(0, len(STRANGE)))]
    keys = list(content) if isinstance(content, dict) else range(len(content))
    key, out = list(keys)[int(rng.integers(0, len(content)))], content.copy()
    if rng.random() < 0.1:
        del out[key]
    else:
        out[key] = disturbed(rng, content[key])
    return out
