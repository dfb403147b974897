"""An annotation session: particles, negatives, regions and classes of several tomograms, undone without limit.

Every change goes to the journal before it is made, so that what is seen is on disk. State is what replaying the journal
over the last snapshot gives; a close writes a snapshot and empties the journal.
"""

from __future__ import annotations

import contextlib
import json
import pathlib
from typing import Any, Dict, List, Mapping, Optional, Sequence, Type

from deepetpicker.annotation.annotations import Annotations, Kind
from deepetpicker.annotation.journal import Journal, check_sum, folder_lock
from deepetpicker.annotation.records import (
    AnnotatedTomogram,
    Change,
    ClassLook,
    Negative,
    Particle,
    Record,
    change_from_json,
    change_to_json,
)
from deepetpicker.errors import FormatError, InputError
from deepetpicker.io.atomic import write_text
from deepetpicker.io.classes import ParticleClass
from deepetpicker.io.coordinates import CoordinateTable
from deepetpicker.io.regions import Region

FORMAT_VERSION = 1
JOURNAL_FILE, SNAPSHOT_FILE = "journal.jsonl", "annotation.json"
COLOURS = ("#56b4e9", "#e69f00", "#00c896", "#f0e442", "#cc79a7", "#ff6a1f", "#0072b2", "#ffffff",
           "#b15cff", "#a6e22e", "#ff2d7e", "#8ff7ff", "#c49a6c", "#008060")


class Session(Annotations):
    """The annotations in one folder, open for changes. Close it, or use it as a context manager.

    Parameters
    ----------
    folder : path
        Holds journal, snapshot and versions; made when it is missing.

    Raises
    ------
    InputError
        If another window has the folder open.
    OutputError
        If the folder cannot be written.
    FormatError
        If its files are damaged, or of another version of the program.
    """

    def __init__(self, folder: Any) -> None:
        super().__init__(str(folder))
        self.folder = pathlib.Path(folder)
        self._done: List[List[Change]] = []
        self._undone: List[List[Change]] = []
        self.sequence, self.saved = 0, 0
        with contextlib.ExitStack() as stack:
            stack.enter_context(folder_lock(self.folder))
            self._journal = Journal(self.folder / JOURNAL_FILE, self.folder / SNAPSHOT_FILE)
            stack.callback(self._journal.close)
            self._load_snapshot()
            for entry in self._journal.entries:
                self._replay(entry)
            self._stack = stack.pop_all()

    def __enter__(self) -> Session:
        """Return the session."""
        return self

    def __exit__(self, kind: Optional[Type[BaseException]], *error: Any) -> None:
        """Close it."""
        self.close()

    # ---- what comes from outside, and cannot be undone
    def set_tomograms(self, tomograms: Sequence[AnnotatedTomogram]) -> List[str]:
        """Take over tomograms; return the names of those that are new.

        Raises
        ------
        InputError
            If one of a known name has another shape or voxel size.
        """
        known = {one.name: one for one in self.tomograms}
        changes: List[Change] = []
        new = []
        for one in tomograms:
            before = known.get(one.name)
            if before is None:
                new.append(one.name)
            elif (before.shape_zyx != one.shape_zyx
                  or abs(before.voxel_size_ang - one.voxel_size_ang) > 0.01 * one.voxel_size_ang):
                raise InputError(f"{one.name} was annotated as {_form(before)} and is now {_form(one)}: open the "
                                 "tomogram that was annotated (another version of it can be shown in its place), or "
                                 "choose another folder")
            if before != one:
                changes.append(Change("tomogram", one.name, 0, before, one))
        self._keep("start", changes)
        return new

    def set_start(self, tables: Mapping[str, CoordinateTable]) -> None:
        """Take over particles that nobody has looked at yet, by tomogram."""
        changes: List[Change] = []
        for name, table in tables.items():
            for position, class_id, score in zip(table.positions_zyx_vox.tolist(), table.class_ids.tolist(),
                                                 table.scores.tolist()):
                particle = Particle(tuple(position), class_id, score, reviewed=False)
                changes.append(Change("particle", name, self._next + len(changes), None, particle))
        self._keep("start", changes)

    def set_classes(self, classes: Sequence[ParticleClass]) -> None:
        """Take over classes that are not there yet."""
        known = {one.kind.id for one in self.classes}
        new = [one for one in classes if one.id not in known]
        self._keep("start", [Change("class", "", one.id, None, ClassLook(one, self._colour(number)))
                             for number, one in enumerate(new, start=len(known))])

    @staticmethod
    def _colour(number: int) -> str:
        """Return the colour of a class by its number in the list."""
        return COLOURS[number % len(COLOURS)]

    # ---- what the user does
    def add(self, tomogram: str, record: Kind) -> int:
        """Add a particle, negative or region; return its key."""
        key = self._next
        kind = {Particle: "particle", Negative: "negative", Region: "region"}[type(record)]
        self._keep("do", [Change(kind, tomogram, key, None, record)])
        return key

    def change(self, tomogram: str, key: int, record: Kind) -> None:
        """Put a record in the place of one of the same kind: moved, of another class, looked at.

        Raises
        ------
        InputError
            If there is none of that kind with that key.
        """
        kind = {Particle: "particle", Negative: "negative", Region: "region"}[type(record)]
        before = self._known(kind, tomogram, key)
        if before != record:
            self._keep("do", [Change(kind, tomogram, key, before, record)])

    def remove(self, kind: str, tomogram: str, key: int) -> None:
        """Remove a particle, negative or region.

        Raises
        ------
        InputError
            If there is none of that kind with that key.
        """
        self._keep("do", [Change(kind, tomogram, key, self._known(kind, tomogram, key), None)])

    def change_many(self, changes: Sequence[Change]) -> None:
        """Make several changes that are undone together.

        Raises
        ------
        InputError
            If one of them does not begin with what is there.
        """
        for one in changes:
            if self._of(one.kind, one.tomogram).get(one.key) != one.before:
                raise InputError(f"{one.kind} {one.key} in {one.tomogram} is no longer what it was")
        self._keep("do", list(changes))

    @property
    def next_key(self) -> int:
        """The key that the next new record gets."""
        return self._next

    def refuse(self, tomogram: str, key: int) -> int:
        """Make a negative of a particle: this is not one. Return the key of the negative.

        Raises
        ------
        InputError
            If there is no such particle.
        """
        particle = self._known("particle", tomogram, key)
        assert isinstance(particle, Particle)
        new = self._next
        self._keep("do", [Change("particle", tomogram, key, particle, None),
                          Change("negative", tomogram, new, None, Negative(particle.position_zyx_vox))])
        return new

    def set_class(self, look: ClassLook) -> None:
        """Add a class, or change name, diameter or colour of one.

        Raises
        ------
        InputError
            If its name is empty or another class has it.
        """
        if not look.kind.name.strip():
            raise InputError("a class needs a name")
        if any(one.kind.name == look.kind.name and one.kind.id != look.kind.id for one in self.classes):
            raise InputError(f"the name {look.kind.name!r} is given twice: classes need different names")
        before = self._of("class", "").get(look.kind.id)
        if before != look:
            self._keep("do", [Change("class", "", look.kind.id, before, look)])

    def new_class(self, name: str, diameter_ang: float) -> ClassLook:
        """Add a class with the next free id and return it.

        Raises
        ------
        InputError
            As :meth:`set_class`.
        """
        number = max((one.kind.id for one in self.classes), default=0) + 1
        look = ClassLook(ParticleClass(number, name.strip(), diameter_ang), self._colour(len(self.classes)))
        self.set_class(look)
        return look

    def remove_class(self, class_id: int) -> None:
        """Remove a class that no particle has.

        Raises
        ------
        InputError
            If particles have it, or it is unknown.
        """
        used = sum(self.counts(one.name).get(class_id, 0) for one in self.tomograms)
        if used:
            raise InputError(f"class {class_id} has {used} particles: give them another class, or remove them, first")
        self._keep("do", [Change("class", "", class_id, self._known("class", "", class_id), None)])

    def undo(self) -> List[Change]:
        """Take the last change back; return what happened, nothing when there is none."""
        if not self._done:
            return []
        changes = [change.reversed() for change in reversed(self._done[-1])]
        self._write({"undo": True})
        self._undone.append(self._done.pop())
        self._apply(changes)
        return changes

    def redo(self) -> List[Change]:
        """Do again what was taken back last; return what happened, nothing when there is none."""
        if not self._undone:
            return []
        self._write({"redo": True})
        self._done.append(self._undone.pop())
        self._apply(self._done[-1])
        return self._done[-1]

    def _known(self, kind: str, tomogram: str, key: int) -> Record:
        """Return a record, or raise InputError."""
        found = self._of(kind, tomogram).get(key)
        if found is None:
            raise InputError(f"there is no {kind} {key} in {tomogram or self.folder}")
        return found

    # ---- keeping
    def _keep(self, verb: str, changes: List[Change]) -> None:
        """Write changes to the journal, then make them."""
        if not changes:
            return
        self._write({verb: [change_to_json(change) for change in changes]})
        self._apply(changes)
        if verb == "do":
            self._done.append(changes)
            self._undone.clear()

    def _write(self, entry: Dict[str, Any]) -> None:
        """Write an entry with the next number."""
        self._journal.append({"n": self.sequence + 1, **entry})
        self.sequence += 1

    def _replay(self, entry: Mapping[str, Any]) -> None:
        """Take over an entry of the journal that the snapshot does not have."""
        try:
            number = int(entry["n"])
            if number <= self.sequence:
                return
            if number != self.sequence + 1:
                raise FormatError(f"{self.folder / JOURNAL_FILE}: entry {self.sequence + 1} is missing before entry "
                                  f"{number}: lines were removed; put the file back, or begin in another folder")
            if "undo" in entry:
                self._undone.append(self._done.pop())
                self._apply([change.reversed() for change in reversed(self._undone[-1])])
            elif "redo" in entry:
                self._done.append(self._undone.pop())
                self._apply(self._done[-1])
            elif "saved" in entry:
                self.saved = number
            else:
                verb = "do" if "do" in entry else "start"
                changes = [change_from_json(one) for one in entry[verb]]
                self._apply(changes)
                if verb == "do":
                    self._done.append(changes)
                    self._undone.clear()
            self.sequence = number
        except (KeyError, IndexError, TypeError, ValueError, OverflowError, AttributeError) as error:
            if isinstance(error, FormatError):
                raise
            raise FormatError(f"{self.folder / JOURNAL_FILE}: entry {entry.get('n')} makes no sense here ({error!r})"
                              ) from error

    def mark_saved(self) -> None:
        """Note that the tables say everything so far."""
        self._write({"saved": True})
        self.saved = self.sequence

    @property
    def is_saved(self) -> bool:
        """Whether the tables say everything."""
        return self.saved == self.sequence

    def write_snapshot(self, folder: pathlib.Path) -> None:
        """Write everything but the history into a folder, complete or not at all: a copy that can be opened.

        Raises
        ------
        OutputError
            If it cannot be written, or is the session's own folder and another program has changed what is there.
        """
        own = folder.resolve() == self.folder.resolve()
        if own:
            self._journal.check_alone()
        changes = [change_to_json(Change(kind, tomogram, key, None, record))
                   for kind, entries in self._records.items() for tomogram, records in entries.items()
                   for key, record in records.items()]
        content = {"format_version": FORMAT_VERSION, "sequence": self.sequence, "saved": self.saved,
                   "next": self._next, "records": changes}
        write_text(folder / SNAPSHOT_FILE, json.dumps({**content, "sum": check_sum(content)}, allow_nan=False) + "\n")
        if own:
            self._journal.take_over_snapshot()

    def _load_snapshot(self) -> None:
        """Take over the snapshot, where there is one."""
        path = self.folder / SNAPSHOT_FILE
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content["format_version"] != FORMAT_VERSION:
                raise FormatError(f"{path}: expected format version {FORMAT_VERSION}, found "
                                  f"{content['format_version']!r}; use the version of DeepETPicker that wrote it")
            if "sum" in content and content.pop("sum") != check_sum(content):  # those of before have none
                raise ValueError("its check sum differs")
            self._apply([change_from_json(one) for one in content["records"]])
            self.sequence, self.saved = int(content["sequence"]), int(content["saved"])
            self._next = max(self._next, int(content["next"]))
        except FileNotFoundError:
            return
        except OSError as error:
            raise InputError(f"cannot read {path}: {error.strerror or error}") from error
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, FormatError):
                raise
            raise FormatError(f"{path} is damaged ({error!r}): put back a copy, or begin in another folder") from error

    def close(self) -> None:
        """Write a snapshot, empty the journal and free the folder. What cannot be written stays in the journal.

        Raises
        ------
        OutputError
            If the snapshot cannot be written, or another program has changed what is in the folder, which then stays
            as it is; the folder is freed all the same, and nothing is lost.
        """
        if self._journal.is_closed:
            return
        try:
            if self.sequence:
                self.write_snapshot(self.folder)
                self._journal.restart()
        finally:
            self._stack.close()


def _form(tomogram: AnnotatedTomogram) -> str:
    """Return shape and voxel size for a message."""
    return f"{' x '.join(str(n) for n in reversed(tomogram.shape_zyx))} voxels of {tomogram.voxel_size_ang:g} angstrom"
