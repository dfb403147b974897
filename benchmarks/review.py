"""Time to rank candidates, and to draw a page of the review window; the latter needs a display (``xvfb-run``).

    python benchmarks/review.py [--folder DIR] [--shape Z,Y,X] [--tomograms N] [--picks N]

Ranking: candidates of all tomograms with 22 and with 300 features, 30 examples and 50 refused. Review: a page of 100
crops (one cut, then all three) of tomograms of int16 noise, in an order that mixes the tomograms; an answer; and the
order of all picks. Times are on the wall and, in brackets, of the processor, medians.
"""

from __future__ import annotations

import argparse
import pathlib
import resource
import tempfile
import time

import numpy as np
from windows import make, median_ms, words_of

TILES = 100


def ranking(repeats: int) -> None:
    """Print how long it takes to rank candidates."""
    from deepetpicker.proposing.ranking import rank_like

    rng = np.random.default_rng(0)
    for tomograms, features in ((10, 22), (50, 22), (10, 300), (50, 300)):
        rows = rng.normal(size=(500 * tomograms, features)).astype(np.float32)
        times = []
        for _ in range(repeats):
            start, spent = time.perf_counter(), time.process_time()
            rank_like(rows, rows[:30], rows[30:80])
            times.append((1000 * (time.perf_counter() - start), 1000 * (time.process_time() - spent)))
        print(f"rank 500 x {tomograms} candidates of {features} features: "
              f"{words_of(np.median(times, axis=0).tolist())} ms")


def pages(folder: pathlib.Path, shape: tuple, args: argparse.Namespace) -> None:
    """Print how long the review window takes."""
    from deepetpicker.annotation.session import Session
    from deepetpicker.io.classes import ParticleClass
    from deepetpicker.io.coordinates import CoordinateTable
    from deepetpicker.windows.inputs import find_tomograms, prepare_session
    from deepetpicker.windows.linked import review_window
    from deepetpicker.windows.scene import Scene
    from deepetpicker.windows.window import open_screen

    paths = [folder / f"review_{n}_{args.shape.replace(',', '_')}.mrc" for n in range(args.tomograms)]
    for path in paths:
        if not path.exists():
            make(path, shape, "int16")
    scene, rng = Scene(find_tomograms(list(map(str, paths))), []), np.random.default_rng(1)
    count = args.picks // args.tomograms
    start = {name: CoordinateTable(rng.random((count, 3)) * np.subtract(shape, 1), np.ones(count, int),
                                   rng.random(count)) for name in scene.names}
    with tempfile.TemporaryDirectory() as kept, Session(kept) as session:
        prepare_session(session, scene, start, [ParticleClass(1, "a", 250.0)])
        root, began = open_screen(), time.perf_counter()
        window = review_window(session, scene, parent=root).open()
        root.update()
        print(f"{args.shape} int16, {args.tomograms} tomograms, {args.picks} picks: opens "
              f"{time.perf_counter() - began:.2f} s")
        for cuts, edge in (((0,), 70), ((0, 1, 2), 36)):
            window.sheet.cuts, window.sheet.edge_px = cuts, edge
            window.fit()
            page = median_ms(root, lambda: window.turn(1), args.repeats)
            tiles = len(window.sheet.tiles)
            answer = median_ms(root, window.accept, args.repeats)
            print(f"  page of {tiles} tiles, {tiles * len(cuts)} crops: {words_of(page)} ms; for {TILES} tiles "
                  f"{words_of([ms * TILES / tiles for ms in page])} ms; an answer {words_of(answer)} ms")
        print(f"  order of all picks: {words_of(median_ms(root, window.arrange, args.repeats))} ms; peak "
              f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")
        root.destroy()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", default="", help="where tomograms are made, and kept (default: a temporary one)")
    parser.add_argument("--shape", default="200,512,512", help="z,y,x")
    parser.add_argument("--tomograms", type=int, default=5)
    parser.add_argument("--picks", type=int, default=5000)
    parser.add_argument("--repeats", type=int, default=9)
    args = parser.parse_args()
    ranking(args.repeats)
    with tempfile.TemporaryDirectory() as temporary:
        pages(pathlib.Path(args.folder or temporary), tuple(int(n) for n in args.shape.split(",")), args)


if __name__ == "__main__":
    main()
