"""Peaks of memory."""

import subprocess
import sys

import numpy as np
import pytest

SCRIPT = """
import numpy
from fairlead.models.memory import PeakMemory
peak = PeakMemory()
before = peak.of_run
block = numpy.ones(64 << 20, dtype=numpy.uint8)
print(before, peak.of_run)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems tell less")
def test_the_peak_is_of_this_process_and_not_of_the_one_that_started_it():
    held = np.ones(1 << 30, dtype=np.uint8)
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    before, after = map(float, done.stdout.split())
    assert held[-1] == 1
    assert before < 1000 and 60 < after - before < 80
