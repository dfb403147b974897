"""Disturb commands at random moments in many ways, go on with them, and compare with undisturbed runs.

``python tests/faults/disturb.py --faults 300 --seed 1`` prints a table: kind of fault, place, tried, survived, seconds.
Each fault depends on its number and the seed alone: ``--first 217`` leaves out the first 217 of them. With
``--scipion`` the plugin's protocols are disturbed, in a project of their own.
"""

from __future__ import annotations

import argparse
import collections
import importlib
import os
import pathlib
import sys
import tempfile
import time
from typing import Any

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[2]


def main() -> int:
    """Run the command line; return 1 when something was not survived."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--faults", type=int, default=60)
    parser.add_argument("--first", type=int, default=0, help="number of the first fault, which are numbered from 0")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="*", default=[], metavar="KIND", help="default: all")
    parser.add_argument("--verbs", nargs="*", default=[], metavar="VERB", help="default: all")
    parser.add_argument("--scipion", action="store_true", help="disturb Scipion's protocols in place of commands")
    args = parser.parse_args()
    harness = scipion() if args.scipion else importlib.import_module("kinds")
    verbs = args.verbs or list(harness.VERBS)
    chosen = [pair for pair in harness.places() if pair[0] in (args.kinds or harness.KINDS) and pair[1] in verbs]
    if os.geteuid():
        print(f"left out, only root can mount file systems: {', '.join(harness.NEED_ROOT)}", flush=True)
        chosen = [pair for pair in chosen if pair[0] not in harness.NEED_ROOT]
    if not chosen:
        parser.error(f"expected kinds among {', '.join(harness.KINDS)} and verbs among {', '.join(harness.VERBS)}")
    tried, survived, seconds = (collections.Counter() for _ in range(3))
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        bench = harness.Bench(pathlib.Path(folder), [verb for verb in harness.VERBS if verb in verbs])
        for index in range(args.first, args.faults):
            kind, verb = chosen[index % len(chosen)]
            start, rng = time.monotonic(), np.random.default_rng([args.seed, index])
            problem = harness.survive(bench, kind, verb, rng)
            tried[kind, verb] += 1
            survived[kind, verb] += not problem
            seconds[kind, verb] += time.monotonic() - start
            print(f"{index:4} {kind:20}{verb:10}{problem or 'survived'}", flush=True)
    print(f"\n{'kind':20}{'place':10}{'tried':>6}{'survived':>9}{'seconds':>9}")
    for key in sorted(tried):
        print(f"{key[0]:20}{key[1]:10}{tried[key]:6}{survived[key]:9}{seconds[key]:9.0f}")
    print(f"{'in all':30}{sum(tried.values()):6}{sum(survived.values()):9}{time.monotonic() - begin:9.0f}")
    return int(tried != survived)


def scipion() -> Any:
    """Return the harness of protocols; processes start warm in it."""
    sys.path.insert(0, str(ROOT))
    configured = importlib.import_module("conftest")
    if configured.warm:
        configured.warm.start()
    return importlib.import_module("protocols")


if __name__ == "__main__":
    sys.exit(main())
