"""One run shared by several processes, devices or machines that have nothing in common but the output folder.

Shard i of n takes every n-th item and writes ``shards/manifest_I_of_N.json``. After every item it also makes
``manifest.json`` anew from the manifests of all shards. There are no locks: who has written ``manifest.json`` reads the
shards again and repeats until it finds nothing new. So the last one to write it has seen everything.
"""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import re
from typing import Any, Dict, Iterable, List, Mapping, Optional, Sequence, Set, TypeVar

from deepetpicker.errors import DeepETPickerError, InputError
from deepetpicker.io.manifest import Manifest, read_manifest, write_content

T = TypeVar("T")
MANIFEST, SHARDS = "manifest.json", "shards"
NOT_COMPARED = ("shard", "resume")  # options that do not change what comes out


@dataclasses.dataclass(frozen=True)
class Shard:
    """Which part of a list a process takes.

    Attributes
    ----------
    index : int
        From 1 to count.
    count : int
        Number of shards, >= 1.
    """

    index: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Return the shard that ``"i/n"`` names.

        Raises
        ------
        InputError
            If it is not of this form with 1 <= i <= n.
        """
        found = re.fullmatch(r"\s*(\d+)\s*/\s*(\d+)\s*", text, re.ASCII)
        index, count = (int(number) for number in found.groups()) if found else (0, 0)
        if not 1 <= index <= count:
            raise InputError(f"shard must be i/n with 1 <= i <= n, such as 2/4 for the second of four, got {text!r}: "
                             "give each of the n processes another i, counted from 1")
        return cls(index, count)

    def choose(self, items: Sequence[T]) -> List[T]:
        """Return items i, i + n, i + 2n, ... (counted from 1) of a list of any length; may be empty."""
        return list(items[self.index - 1::self.count])

    def path(self, folder: pathlib.Path) -> pathlib.Path:
        """Return the shard's manifest in an output folder."""
        return folder / SHARDS / f"manifest_{self.index}_of_{self.count}.json"

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


ALL = Shard(1, 1)  # a run without shards


def shard_manifests(folder: pathlib.Path) -> Dict[Shard, pathlib.Path]:
    """Return the shard manifests in an output folder, by shard, sorted."""
    found = {}
    for path in (folder / SHARDS).glob("manifest_*_of_*.json"):
        match = re.fullmatch(r"manifest_(\d+)_of_(\d+)", path.stem)
        if match:
            found[Shard(int(match[1]), int(match[2]))] = path
    return {shard: found[shard] for shard in sorted(found, key=lambda s: (s.count, s.index))}


def combine(contents: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Dict[str, List[Any]]:
    """Return items, inputs and warnings of several manifests as one run over all items would have listed them.

    Parameters
    ----------
    contents : sequence of mapping
        Contents of manifests; of entries with the same name (inputs: path) the first counts.
    names : sequence of str
        Names of items, in the order of the result. Items of other names are left out.

    Returns
    -------
    dict
        Its members are ``items``, ``inputs`` and ``warnings``.
    """
    entries: Dict[str, Dict[str, Any]] = {}
    inputs: Dict[str, Dict[str, Any]] = {}
    warnings: Dict[str, None] = {}
    for content in contents:
        for item in content["items"]:
            entries.setdefault(item["name"], item)
        for one in content["inputs"]:
            inputs.setdefault(one["path"], one)
        warnings.update(dict.fromkeys(content["warnings"]))
    items = [entries[name] for name in names if name in entries]
    paths = [str(pathlib.Path(item["tomogram"])) for item in items]
    rank = {name: number for number, name in enumerate(names)}
    return {"items": items, "inputs": [inputs[path] for path in paths if path in inputs],
            "warnings": sorted(warnings, key=lambda text: rank.get(text.partition(": ")[0], len(rank)))}


class RunRecord:
    """The manifests of a run in its output folder: ``manifest.json`` and, when it is one of several shards, its own.

    Parameters
    ----------
    folder : path
        Output folder.
    manifest : Manifest
        Of this process; its ``outputs`` hold ``model_sha256``. Items are added to it as they are finished.
    names : sequence of str
        Names of all items, those of other shards included.
    shard : Shard
        Which part this process takes.

    Attributes
    ----------
    path : pathlib.Path
        The manifest that lists this process's items and no others.
    """

    def __init__(self, folder: pathlib.Path, manifest: Manifest, names: Sequence[str], shard: Shard) -> None:
        self._folder, self._shard, self._manifest, self._names = folder, shard, manifest, list(names)
        self._options = _compared(manifest.to_dict())
        self._own_names = shard.choose(self._names)
        self._before: Dict[str, List[Any]] = {"items": [], "inputs": [], "warnings": []}
        self._keep: Optional[Dict[str, Any]] = None
        self.path = folder / MANIFEST
        if shard.count > 1:
            self.path = shard.path(folder)
            manifest.outputs.update(shard=dataclasses.asdict(shard), names=self._names)

    def resume(self) -> List[str]:
        """Take over what earlier runs with the same model and options finished; return the names of those items.

        Earlier runs may have had any number of shards. Items of other shards are not returned, nor are items whose
        pick table is gone.
        """
        main = self._finished([self._folder / MANIFEST])  # read first: shards keep what is in it, then replace it
        shards = self._finished(shard_manifests(self._folder).values())
        if not _names(shards).issuperset(_names(main)):
            self._keep = {**main[0], **combine([*shards, *main], sorted(_names([*shards, *main])))}
        self._before = combine([*shards, *main], self._own_names)
        return [item["name"] for item in self._before["items"]]

    def begin(self, resume: bool) -> None:
        """Write the first manifest. Without resume, forget what runs with another number of shards left behind."""
        if not resume:
            self._remove_others()
        elif self._keep and self._shard.count > 1:  # other shards, which may start later, need it too
            write_content(ALL.path(self._folder), self._keep)
        self.write()

    def write(self) -> List[int]:
        """Write the manifest of this process and, of several shards, that of all; return the shards that are done."""
        content = self._manifest.to_dict()
        content.update(combine([content, self._before], self._own_names))
        if self._shard.count == 1:
            write_content(self.path, content)
            return self._done({1: content})
        written: Dict[int, Dict[str, Any]] = {}
        while True:
            # Every time, new or not: having written into a folder, a network file system looks into it anew.
            write_content(self.path, content)
            parts = {**self._other_shards(), self._shard.index: content}
            if parts == written:
                return self._done(parts)
            write_content(self._folder / MANIFEST, self._merged(parts))
            written = parts

    def end(self) -> List[int]:
        """Write for the last time and return the shards that are done; when these are all, tidy up."""
        done = self.write()
        if len(done) == self._shard.count:
            self._remove_others()
        return done

    def _merged(self, parts: Mapping[int, Dict[str, Any]]) -> Dict[str, Any]:
        """Return manifest.json as a run without shards would have written it, from the shards there are."""
        own, contents = parts[self._shard.index], [parts[index] for index in sorted(parts)]
        outputs = {key: value for key, value in own["outputs"].items() if key not in ("shard", "names")}
        outputs["shards"] = {"n": self._shard.count, "done": self._done(parts)}
        return {**own, "options": {**own["options"], "shard": ""}, "outputs": outputs,
                "started": min(content["started"] for content in contents),
                "seconds": max(content["seconds"] for content in contents), **combine(contents, self._names)}

    def _done(self, parts: Mapping[int, Dict[str, Any]]) -> List[int]:
        """Return the shards whose manifests list all their items."""
        return [index for index in sorted(parts)
                if _names([parts[index]]).issuperset(Shard(index, self._shard.count).choose(self._names))]

    def _other_shards(self) -> Dict[int, Dict[str, Any]]:
        """Return the manifests of the other shards of this run: same model, options, items and number of shards."""
        count = self._shard.count
        indices = [index for index in range(1, count + 1) if index != self._shard.index]
        contents = {index: self._read(Shard(index, count).path(self._folder)) for index in indices}
        return {index: content for index, content in contents.items()
                if content and content["outputs"].get("names") == self._names}

    def _finished(self, paths: Iterable[pathlib.Path]) -> List[Dict[str, Any]]:
        """Return the manifests with the same model and options, each without what did not succeed."""
        contents = []
        for content in filter(None, map(self._read, paths)):
            items = [i for i in content["items"] if i["status"] == "done" and pathlib.Path(i["picks"]).is_file()]
            names = _names([{"items": items}])
            warnings = [text for text in content["warnings"] if text.partition(": ")[0] in names]
            contents.append({**content, "items": items, "warnings": warnings})
        return contents

    def _read(self, path: pathlib.Path) -> Optional[Dict[str, Any]]:
        """Return a manifest made with the same model and options, else None."""
        try:
            content = read_manifest(path)
        except DeepETPickerError:
            return None
        same = content["outputs"].get("model_sha256") == self._manifest.outputs["model_sha256"]
        return content if same and _compared(content) == self._options else None

    def _remove_others(self) -> None:
        """Remove the shard manifests of runs with another number of shards."""
        alone = self._shard.count == 1
        for shard, path in shard_manifests(self._folder).items():
            if alone or shard.count != self._shard.count:
                path.unlink(missing_ok=True)
        if alone:
            with contextlib.suppress(OSError):  # there is none, or something else lies in it
                (self._folder / SHARDS).rmdir()


def _compared(content: Mapping[str, Any]) -> Dict[str, Any]:
    """Return the options of a manifest that decide what comes out."""
    return {name: value for name, value in content["options"].items() if name not in NOT_COMPARED}


def _names(contents: Iterable[Mapping[str, Any]]) -> Set[str]:
    """Return the names of the items in manifests."""
    return {item["name"] for content in contents for item in content["items"]}
