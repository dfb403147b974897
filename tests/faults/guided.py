"""Feed a reader with files that coverage leads to: what reaches new lines of ours is changed further.

``python tests/faults/guided.py READER [-max_total_time=60]``, with any option of libFuzzer. It needs the package
atheris, which is no part of the environment: ``pip install atheris`` (Python 3.11 to 3.13, Linux). A file that is
neither read nor refused with a documented error ends it and is left as ``crash-*``; so does one that takes 5 s or 4 GB.
"""

from __future__ import annotations

import contextlib
import io
import logging
import pathlib
import sys
import tempfile
import warnings

import atheris

with atheris.instrument_imports(include=["deepetpicker", "starfile"]):
    from readers import READERS, seeds

    from deepetpicker.errors import DeepETPickerError


def main() -> None:
    """Run the command line; libFuzzer ends the process."""
    reader = READERS[sys.argv[1]]
    if reader.mutate:
        sys.exit(f"{reader.name} reads folders: fuzz.py feeds those")
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    work = pathlib.Path(tempfile.mkdtemp())
    path = work / "in" / reader.filename
    path.parent.mkdir(parents=True)
    (work / "corpus").mkdir()
    for number, content in enumerate(seeds(reader, work / "seeds")):
        (work / "corpus" / str(number)).write_bytes(content)

    def read(data: bytes) -> None:
        path.write_bytes(data)
        with contextlib.suppress(DeepETPickerError), contextlib.redirect_stderr(io.StringIO()):
            reader.read(path)

    atheris.Setup([sys.argv[0], str(work / "corpus"), "-timeout=5", "-rss_limit_mb=4096", "-max_len=20000",
                   *sys.argv[2:]], read)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
