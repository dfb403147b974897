"""The script that starts the engine hands over every word as it is, whatever is in it."""

import os
import subprocess
import sys
import tempfile
import unittest

from deepetpicker_plugin.engine.process import exitCode, writeScript

ODD = ('a b', "it's", 'say "x"', '$HOME', '`touch ran`', '$(touch ran)', ';touch ran', '&& touch ran', '100%d',
       '%(GPU)s', 'back\\slash', 'line\nend', 'caf\u00e9', 'cafe\u0301', '{pid}', '-n', '*', '~', '', '!x', '#x',
       'x' * 200)


class TestScript(unittest.TestCase):
    """writeScript with words that a shell could take for something else."""

    def test_words_reach_the_engine_as_they_are_and_nothing_else_runs(self):
        top, before = tempfile.mkdtemp(), os.getcwd()
        work = os.path.join(top, "pro ject;$x 'y'")
        folder = "Runs/00 1 'a'$HOME;touch ran"
        os.makedirs(os.path.join(work, folder))
        teller = os.path.join(top, "py thon")
        with open(teller, "w") as stream:
            stream.write(f'#!{sys.executable}\nimport os, sys\n'
                         'open("words", "wb").write(b"\\0".join(map(os.fsencode, sys.argv[3:])))\n')
        os.chmod(teller, 0o755)

        class Plugin:
            """Knows an interpreter that writes down its words."""

            @staticmethod
            def getActivation():
                return ""

            @staticmethod
            def getPython():
                return teller

        try:
            os.chdir(work)
            script = writeScript(folder, ODD, Plugin)
            done = subprocess.run(["bash", script], capture_output=True, text=True, timeout=60)
            self.assertEqual(done.returncode, 0, done.stderr)
            with open("words", "rb") as stream:
                self.assertEqual([os.fsdecode(word) for word in stream.read().split(b"\0")], list(ODD))
            self.assertEqual(exitCode(folder), 0)
            self.assertEqual(sorted(os.listdir(work)), ["Runs", "words"])
        finally:
            os.chdir(before)
