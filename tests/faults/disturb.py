"""Disturb commands at random moments in many ways, go on with them, and compare with undisturbed runs.

``python tests/faults/disturb.py --faults 300 --seed 1`` prints a table: kind of fault, place, tried, survived, seconds.
Each fault depends on its number and the seed alone: ``--first 217`` leaves out the first 217 of them.
"""

from __future__ import annotations

import argparse
import collections
import os
import pathlib
import sys
import tempfile
import time

import numpy as np
from bench import VERBS, Bench
from kinds import KINDS, places, survive


def main() -> int:
    """Run the command line; return 1 when something was not survived."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--faults", type=int, default=60)
    parser.add_argument("--first", type=int, default=0, help="number of the first fault, which are numbered from 0")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="*", default=list(KINDS), choices=KINDS, metavar="KIND")
    parser.add_argument("--verbs", nargs="*", default=list(VERBS), choices=VERBS)
    args = parser.parse_args()
    chosen = [(kind, verb) for kind, verb in places() if kind in args.kinds and verb in args.verbs]
    if os.geteuid():
        print("full disk: left out, only root can mount a small file system", flush=True)
        chosen = [pair for pair in chosen if pair[0] != "full disk"]
    tried, survived, seconds = (collections.Counter() for _ in range(3))
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(pathlib.Path(folder), [verb for verb in VERBS if verb in args.verbs])
        for index in range(args.first, args.faults):
            kind, verb = chosen[index % len(chosen)]
            start, rng = time.monotonic(), np.random.default_rng([args.seed, index])
            problem = survive(bench, kind, verb, rng)
            tried[kind, verb] += 1
            survived[kind, verb] += not problem
            seconds[kind, verb] += time.monotonic() - start
            print(f"{index:4} {kind:20}{verb:10}{problem or 'survived'}", flush=True)
    print(f"\n{'kind':20}{'place':10}{'tried':>6}{'survived':>9}{'seconds':>9}")
    for key in sorted(tried):
        print(f"{key[0]:20}{key[1]:10}{tried[key]:6}{survived[key]:9}{seconds[key]:9.0f}")
    print(f"{'in all':30}{sum(tried.values()):6}{sum(survived.values()):9}{time.monotonic() - begin:9.0f}")
    return int(tried != survived)


if __name__ == "__main__":
    sys.exit(main())
