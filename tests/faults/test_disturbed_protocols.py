"""A protocol of Scipion that is disturbed in any way is continued, and ends as if nothing had happened."""

from __future__ import annotations

import os
import pathlib
import tempfile

import numpy as np
import pytest
from protocols import NEED_ROOT, Bench, places, survive
from pyworkflow.tests import BaseTest

pytestmark = pytest.mark.scipion
SAMPLE = ("SIGKILL both", "pick")


class TestDisturbedProtocols(BaseTest):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.bench = Bench(pathlib.Path(folder.name), ["pick"])

    def problem(self, kind, verb, seed):
        return survive(self.bench, kind, verb, np.random.default_rng([seed, *kind.encode()]))

    def test_a_disturbed_protocol_is_continued_to_the_same_result(self):
        assert self.problem(*SAMPLE, seed=5) == ""

    @pytest.mark.slow
    def test_every_kind_of_fault_is_survived_everywhere(self):
        for kind, verb in places():
            if os.geteuid() == 0 or kind not in NEED_ROOT:
                with self.subTest(kind=kind, verb=verb):
                    assert self.problem(kind, verb, seed=0) == ""
