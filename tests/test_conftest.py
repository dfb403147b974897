"""The rules that hold for all tests."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import pytest

TESTS = pathlib.Path(__file__).resolve().parent


def outcomes(folder: pathlib.Path, rule: str) -> str:
    """Run the tests of a folder under a rule of conftest.py in a process of their own; return what pytest says."""
    code = (f"import sys, pytest; sys.path.insert(0, {str(TESTS)!r}); import conftest; "
            f"sys.exit(pytest.main([{str(folder)!r}, '-q', '-rs', '-p', 'no:cacheprovider', '--rootdir', "
            f"{str(folder)!r}], plugins=[{rule}]))")
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120).stdout


@pytest.mark.long
def test_what_a_python_goes_without_is_skipped_and_other_failures_stay(tmp_path):
    (tmp_path / "test_file.py").write_text("import gone.inside\n")
    (tmp_path / "test_inside.py").write_text(
        "def test_skipped(): import gone\n"
        "def test_wrapped():\n"
        "    try: import gone\n"
        "    except ImportError as error: raise RuntimeError('no engine') from error\n"
        "def test_failed(): import gone_too\n"
        "def test_wrong(): assert False\n"
        "def test_right(): pass\n")
    told = outcomes(tmp_path, "conftest.MissingSkips(['gone'])")
    assert "2 failed, 1 passed, 3 skipped" in told, told
    assert "needs gone" in told
