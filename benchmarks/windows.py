"""Opening time, peak memory and redraw time of the annotation window; needs a display (``xvfb-run`` makes one).

    python benchmarks/windows.py [--folder DIR] [--shape Z,Y,X] [--types int8,int16,float16,float32]

Each case runs in a process of its own: from its start until the first picture is on the screen, then 30 steps along
each axis with 500 particles marked, and the circles alone. Times are on the wall and, in brackets, of the processor.
"""

from __future__ import annotations

import argparse
import functools
import json
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any, Callable, Dict, List, Union

import numpy as np

PARTICLES = 500
Times = List[float]  # on the wall and of the processor, in milliseconds


def make(path: pathlib.Path, shape: tuple, kind: str) -> None:
    """Write a tomogram of noise plane by plane."""
    from deepetpicker.io.volumes import VolumeWriter

    rng = np.random.default_rng(0)
    with VolumeWriter(path, shape, kind, 10.0) as writer:
        for z in range(shape[0]):
            writer.write(z, (rng.normal(size=(1, *shape[1:])) * 20).astype(kind))


def measure(path: str, folder: str, began: float, steps: int) -> Dict[str, Union[float, Times]]:
    """Open the window on a tomogram and return seconds, milliseconds and megabytes."""
    from deepetpicker.annotation.session import Session
    from deepetpicker.io.classes import ParticleClass
    from deepetpicker.io.coordinates import CoordinateTable
    from deepetpicker.windows.inputs import find_tomograms, prepare_session
    from deepetpicker.windows.linked import annotate_window
    from deepetpicker.windows.scene import Scene
    from deepetpicker.windows.window import open_screen

    scene = Scene(find_tomograms([path]), [])
    (name,) = scene.names
    places = np.random.default_rng(1).random((PARTICLES, 3)) * scene.shape_zyx(name)
    with Session(folder) as session:
        prepare_session(session, scene, {name: CoordinateTable.from_positions(places)}, [ParticleClass(1, "a", 200.0)])
        root = open_screen()
        window = annotate_window(session, scene, parent=root).open()
        root.update()
        found: Dict[str, Union[float, Times]] = {"open s": time.time() - began}
        for axis, label in enumerate("zyx"):
            found[f"step {label} ms (CPU)"] = median_ms(root, functools.partial(window.panel.step, axis, 2), steps)
        found["circles ms (CPU)"] = median_ms(root, window.panel.changed, steps)
        window.panel.zoom(4.0)
        found["zoomed z ms (CPU)"] = median_ms(root, lambda: window.panel.step(0, -1), steps)
        found["peak MB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        root.destroy()
    return found


def median_ms(root: Any, action: Callable[[], Any], steps: int) -> Times:
    """Return the median time until Tk has shown what an action changed, and that of the processor, in milliseconds."""
    times = []
    for _ in range(steps):
        start, spent = time.perf_counter(), time.process_time()
        action()
        root.update()
        times.append((1000 * (time.perf_counter() - start), 1000 * (time.process_time() - spent)))
    return [statistics.median(column) for column in zip(*times)]


def words_of(value: Union[float, Times]) -> str:
    """Return a figure, or a time with that of the processor."""
    return f"{value[0]:.0f} ({value[1]:.0f})" if isinstance(value, list) else f"{value:.3g}"


def main() -> None:
    """Measure every case and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", default="", help="where tomograms are made, and kept (default: a temporary one)")
    parser.add_argument("--shape", default="200,512,512", help="z,y,x")
    parser.add_argument("--types", default="int8,int16,float16,float32")
    parser.add_argument("--steps", type=int, default=30, help="steps along each axis (%(default)s)")
    parser.add_argument("--one", nargs=2, metavar=("TOMO", "BEGAN"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        with tempfile.TemporaryDirectory() as kept:
            print(json.dumps(measure(args.one[0], kept, float(args.one[1]), args.steps)))
        return
    shape = tuple(int(n) for n in args.shape.split(","))
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(args.folder or temporary)
        for kind in args.types.split(","):
            path = folder / f"{kind}_{args.shape.replace(',', '_')}.mrc"
            if not path.exists():
                make(path, shape, kind)
            words = [sys.executable, __file__, "--one", str(path), str(time.time()), "--steps", str(args.steps)]
            found = json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
            figures = "  ".join(f"{name} {words_of(value)}" for name, value in found.items())
            print(f"{kind:8} {args.shape:14} {figures}")


if __name__ == "__main__":
    main()
