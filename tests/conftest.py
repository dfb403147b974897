"""Shared by all tests: one thread per process, in CI a skip is a failure, on Python 3.8 tests of what it lacks skip."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any, Generator, Optional, Sequence

import pytest

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as in a shell's background job; children would inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: small tensors gain nothing from threads


# Packages of the engine that Python 3.8 goes without (docs/dependencies.rst).
NOT_ON_3_8 = ("torch", "lightning", "safetensors", "starfile", "pandas", "tensorboard", "jinja2", "zarr", "numcodecs",
              "distributed", "dask", "dask_jobqueue")


class MissingSkips:
    """Skips tests and files that need packages which this Python goes without.

    Parameters
    ----------
    packages : sequence of str
        Their names; what else is missing stays a failure.
    """

    def __init__(self, packages: Sequence[str]) -> None:
        self._packages = packages

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: Any) -> Generator[None, Any, Any]:
        """Change the report of a test that failed for want of a package."""
        report = yield
        return self._skipped(report, call.excinfo.value if call.excinfo else None, str(item.path))

    @pytest.hookimpl(wrapper=True)
    def pytest_make_collect_report(self, collector: Any) -> Generator[None, Any, Any]:
        """Change the report of a file that cannot be imported for want of a package."""
        report = yield
        excinfo = report.call.excinfo if getattr(report, "call", None) else None
        return self._skipped(report, excinfo.value if excinfo else None, str(collector.path))

    def _skipped(self, report: Any, error: Optional[BaseException], path: str) -> Any:
        """Return the report, made one of a skip where an error or its cause is that a package is missing."""
        while error is not None and not isinstance(error, ModuleNotFoundError):
            error = error.__cause__
        if report.failed and error is not None and str(error.name).split(".")[0] in self._packages:
            report.outcome, report.longrepr = "skipped", (path, 0, f"Skipped: needs {error.name}")
        return report


class SkipsFail:
    """Turns skipped tests into failed ones; those marked ``gpu`` may be skipped, CI machines have none."""

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Generator[None, Any, Any]:
        """Change the report of a test that was skipped while it ran, or by a mark."""
        report = yield
        if report.skipped and not hasattr(report, "wasxfail") and item.get_closest_marker("gpu") is None:
            fail(report)
        return report

    @pytest.hookimpl(wrapper=True)
    def pytest_make_collect_report(self) -> Generator[None, Any, Any]:
        """Change the report of a file that was skipped as a whole."""
        report = yield
        if report.outcome == "skipped":
            fail(report)
        return report


def fail(report: Any) -> None:
    """Make a report of a skip one of a failure that says why it was skipped."""
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    report.outcome, report.longrepr = "failed", f"In CI nothing may be skipped: {reason}"


def pytest_configure(config: pytest.Config) -> None:
    """Register the rules for all test folders, the plugin's included."""
    if sys.version_info < (3, 9):
        config.pluginmanager.register(MissingSkips(NOT_ON_3_8), "missing-skips")
    if os.environ.get("CI", "").lower() in ("1", "true"):
        config.pluginmanager.register(SkipsFail(), "skips-fail")
