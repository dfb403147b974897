"""What is shared with others names no folder, no user and no machine: their names are taken out of texts."""

from __future__ import annotations

import contextlib
import getpass
import html
import os
import platform
import re
import socket
from typing import Any, Dict, Iterator, List, Mapping, Set

_END = r"[^\s'\"`,;:()<>\[\]{}|]*"
_PATH = re.compile(rf"(?<![\w/.&~:])(?:file:/?/?)?(?:~[\w.-]*)?/(?=[^\s/])(?:[^\s'\"`,;:()<>\[\]{{}}|/]+/)*{_END}")
_HOMES = re.compile(r"(?:/home|/Users|/users|/u)/([^/\s'\",;:()<>]+)")
_TAG = re.compile(r"(<!--.*?-->|<(?:style|script)\b.*?</(?:style|script)>|<[^>]*>)", re.DOTALL)
_SAID = re.compile(r"(?<=\s)(alt|title|aria-label|content)=(\"[^\"]*\"|'[^']*')")
_KEPT = ("<style", "<script", "<!--")
_EVERYBODY = ("", "localhost", "user", "host")


class Anonymous:
    """Takes paths, user and host names out of texts.

    A path from the root becomes the name of its file, and the names of this machine and its user, and of users whose
    home folders are named, become ``host`` and ``user``.

    Parameters
    ----------
    *contents
        JSON-like values that say where things lie, such as manifests: folders in them are known also where their names
        have blanks.
    """

    def __init__(self, *contents: Any) -> None:
        texts = [text for content in contents for text in _texts(content)]
        folders = {os.path.expanduser("~"), os.getcwd(), os.environ.get("HOME", "")}
        folders |= {folder for text in texts if text.startswith("/") and "\n" not in text for folder in _above(text)}
        folders |= {os.path.realpath(folder) for folder in (os.path.expanduser("~"), os.getcwd())}
        known = sorted((f for f in folders if len(f) > 1), key=len, reverse=True)
        self._known = re.compile("|".join(rf"{re.escape(folder)}(?![\w.-])(?:/{_END})?" for folder in known) or r"(?!)")
        users = {os.path.basename(os.path.expanduser("~")), _user(), *(
            name for text in texts for name in _HOMES.findall(text))}
        hosts = {name for whole in (socket.gethostname(), platform.node()) for name in (whole, whole.split(".")[0])}
        self._names: Dict[str, str] = {**dict.fromkeys(hosts, "host"), **dict.fromkeys(users, "user")}
        words = sorted((re.escape(n) for n in self._names if n not in _EVERYBODY), key=len, reverse=True)
        self._words = re.compile(rf"(?<![^\W_])(?:{'|'.join(words)})(?![^\W_])" if words else r"(?!)")

    def text(self, text: str) -> str:
        """Return a text without paths, user and host names."""
        if text.startswith(("/", "~/")) and "\n" not in text and not re.search(r"[ :,;] ?[/~]", text[1:]):
            text = os.path.basename(text.rstrip("/"))
        text = _PATH.sub(_base, self._known.sub(_base, text))
        return self._words.sub(lambda found: self._names[found[0]], text)

    def value(self, value: Any) -> Any:
        """Return a JSON-like value whose texts, those that are keys included, went through :meth:`text`."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, os.PathLike):
            return self.text(str(value))
        if isinstance(value, Mapping):
            return {self.text(key) if isinstance(key, str) else key: self.value(one) for key, one in value.items()}
        if isinstance(value, (list, tuple)):
            return type(value)(self.value(one) for one in value)
        return value

    def page(self, page: str) -> str:
        """Return an HTML page in which what is to be read went through :meth:`text`; markup and pictures stay."""
        parts: List[str] = _TAG.split(page)
        parts[::2] = [html.escape(self.text(html.unescape(part)), quote=False) for part in parts[::2]]
        parts[1::2] = [_SAID.sub(self._attribute, part) if not part.startswith(_KEPT) else part for part in parts[1::2]]
        return "".join(parts)

    def _attribute(self, found: re.Match[str]) -> str:
        """Return an attribute of a tag with its text gone through :meth:`text`."""
        return f'{found[1]}="{html.escape(self.text(html.unescape(found[2][1:-1])))}"'


def _base(found: re.Match[str]) -> str:
    """Return the name of the file that a path names."""
    return os.path.basename(found[0].rstrip("/"))


def _texts(content: Any) -> Iterator[str]:
    """Yield the texts in a JSON-like value."""
    if isinstance(content, (str, os.PathLike)):
        yield str(content)
    elif isinstance(content, Mapping):
        for key, one in content.items():
            yield from _texts(key)
            yield from _texts(one)
    elif isinstance(content, (list, tuple)):
        for one in content:
            yield from _texts(one)


def _above(path: str) -> Set[str]:
    """Return a path and the folders above it, the root and what lies in it left out."""
    parts = [part for part in path.split("/") if part]
    return {"/" + "/".join(parts[:n]) for n in range(2, len(parts) + 1)}


def _user() -> str:
    """Return the name of the user, empty when nobody knows it."""
    with contextlib.suppress(Exception):  # getpass raises what the system's tables raise
        return getpass.getuser()
    return ""
