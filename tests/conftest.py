"""Shared by all tests: one thread per process, and in CI a skipped test is a failure."""

from __future__ import annotations

import os
import signal
from typing import Any, Generator

import pytest

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as in a shell's background job; children would inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: small tensors gain nothing from threads


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
    """Register the rule for all test folders, the plugin's included."""
    if os.environ.get("CI", "").lower() in ("1", "true"):
        config.pluginmanager.register(SkipsFail(), "skips-fail")
