"""A few kills of kill_and_resume.py; fifty are run by hand (docs/reliability.md)."""

# SPDX-License-Identifier: Apache-2.0

import os
import subprocess
import sys
from pathlib import Path


def test_killed_runs_end_as_the_others():
    kills = os.environ.get("SEGFAST_KILLS", "8")
    script = Path(__file__).with_name("kill_and_resume.py")
    command = [sys.executable, "-P", str(script), "--kills", kills]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600 + 60 * int(kills))
    assert done.returncode == 0, done.stderr
    assert f"{kills} resumed to the same bits" in done.stdout
