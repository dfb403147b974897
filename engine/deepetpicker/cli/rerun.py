"""``deepetpicker rerun``: repeat a run from its manifest and tell whether the result is the same."""

from __future__ import annotations

import argparse
import logging
import pathlib
from typing import Any, Dict, List, Mapping, Sequence

from deepetpicker.errors import InputError

log = logging.getLogger(__name__)
VERBS = ("train", "pick", "propose")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``rerun`` to a parser."""
    parser.description = ("Repeat a run of train, pick or propose from its manifest, with the same command line in the "
                          "same working directory, and tell whether the result is the same, bit for bit. Nothing is "
                          "started when an input has changed or is gone.")
    parser.add_argument("manifest", metavar="MANIFEST", help="manifest.json of the run")
    parser.add_argument("--out", default="", metavar="DIR",
                        help="new folder for the result (default: 'rerun' beside the manifest)")


def main(args: argparse.Namespace) -> int:
    """Repeat the run; return 0 when the result is the same, 1 when it differs."""
    from deepetpicker.io.manifest import read_manifest

    path = pathlib.Path(args.manifest).absolute()
    content = read_manifest(path)
    words = command_of(content)
    problems = changed_inputs(content)
    if problems:
        raise InputError(f"cannot repeat the run of {path}: " + "; ".join(problems))
    folder = (pathlib.Path(args.out) if args.out else path.parent / "rerun").absolute()
    if folder.exists():
        raise InputError(f"expected a new folder to repeat the run in, {folder} exists: remove it, or give another "
                         "--out")
    out = folder / "model.safetensors" if content["command"] == "train" else folder
    repeat([*replaced(words, str(out)), *(["--quiet"] if args.quiet else [])], content["directory"])
    again = read_manifest(out.with_name("model_run") / "manifest.json" if content["command"] == "train" else
                          out / "manifest.json")
    different = differences(content, again)
    for text in different:
        log.warning("differs: %s", text)
    if not different:
        log.info("%s: the same result, bit for bit, in %s", path, folder)
    return int(bool(different))


def command_of(content: Mapping[str, Any]) -> List[str]:
    """Return the words of the command line that made a manifest, from the verb on.

    Raises
    ------
    InputError
        If it was another command, an older version, or not the command line.
    """
    verb, words = content.get("command"), [str(word) for word in content.get("argv") or []]
    if verb not in VERBS:
        raise InputError(f"expected the manifest of {', '.join(VERBS)}, got one of {verb!r}")
    if "directory" not in content:
        raise InputError("the manifest is of an older version, which did not note the working directory: give the "
                         "command again by hand: " + " ".join(words[1:]))
    if verb not in words[1:]:
        raise InputError("the run was not started by the command line (argv has no verb): repeat it as it was started")
    return words[words.index(verb, 1):]


def changed_inputs(content: Mapping[str, Any]) -> List[str]:
    """Return in words which inputs of a run have changed or are gone."""
    import hashlib

    from deepetpicker.io.records import identity

    inputs: List[Dict[str, Any]] = [one for one in content.get("inputs") or [] if isinstance(one, dict)]
    outputs = content.get("outputs") or {}
    if content["command"] == "pick":
        inputs = [{"path": outputs.get("model", ""), "sha256": outputs.get("model_sha256")}, *inputs]
    if isinstance(content.get("params"), dict):
        inputs.append(content["params"])
    problems = []
    for one in inputs:
        path = pathlib.Path(content["directory"], str(one.get("path", "")))
        if not path.exists():
            problems.append(f"{path} is gone")
        elif "sha256" in one:
            same = hashlib.sha256(path.read_bytes()).hexdigest() == one["sha256"]
            problems += [] if same else [f"{path} has changed"]
        elif "sample_sha256" in one:
            facts = identity(path)
            same = (facts["size"], facts["sample"]) == (one.get("bytes"), one["sample_sha256"])
            problems += [] if same else [f"{path} has changed"]
    return problems


def replaced(words: Sequence[str], out: str) -> List[str]:
    """Return a command line with another ``--out``."""
    new, skip = [], False
    for word in words:
        if skip or word.startswith("--out="):
            skip = False
        elif word == "--out":
            skip = True
        else:
            new.append(word)
    return [*new, "--out", out]


def repeat(words: Sequence[str], directory: str) -> None:
    """Run a command in a process of its own; raise InputError when it fails."""
    import subprocess
    import sys

    status = subprocess.run([sys.executable, "-m", "deepetpicker", *words], cwd=directory, check=False).returncode
    if status not in (0, 1):
        raise InputError(f"the repeated run ended with status {status}; its own message is above")


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> List[str]:
    """Return in words how the results of two manifests differ; empty when they are the same bit for bit."""
    if before["command"] == "train":
        from safetensors.numpy import load_file

        old, new = (load_file(str(pathlib.Path(one["directory"], one["outputs"]["model"]))) for one in (before, after))
        found = [f"weights {name}" for name in sorted({*old, *new})
                 if name not in old or name not in new or old[name].tobytes() != new[name].tobytes()]
        kept = [one["outputs"].get(key) for one in (before, after) for key in ("kept_epoch", "threshold")]
        return found + ([] if kept[:2] == kept[2:] else [f"kept epoch and threshold: {kept[2:]} instead of {kept[:2]}"])
    found, others = [], {item["name"]: item for item in after["items"]}
    for item in before["items"]:
        other = others.get(item["name"])
        if other is None or other["status"] != item["status"]:
            found.append(f"{item['name']}: {other['status'] if other else 'missing'} instead of {item['status']}")
            continue
        for key in ("picks", "candidates", "features"):
            if item.get(key) and not _same(before, item[key], after, other.get(key) or ""):
                found.append(f"{item['name']}: another table of {key} ({other.get('n_picks')} picks instead of "
                             f"{item.get('n_picks')})")
    return found


def _same(before: Mapping[str, Any], path: str, after: Mapping[str, Any], other: str) -> bool:
    """Tell whether two files, relative to the directories of their runs, are there and have the same bytes."""
    files = [pathlib.Path(one["directory"], name) for one, name in ((before, path), (after, other))]
    return all(file.is_file() for file in files) and files[0].read_bytes() == files[1].read_bytes()
