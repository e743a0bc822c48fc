"""Running untrusted programs: in namespaces of their own, under limits, killed for certain.

    run.py (in the worker) -- JSON --> launcher.py (watches, has the clock) -- fork --> init, process 1 of the box -- fork --> the program

launcher.py, namespaces.py and seccomp.py use the standard library only, for they run without site-packages; driver.py runs inside.
"""

from fairlead.rewards.sandbox.run import Limits, Ran, require_sandbox, run_python

__all__ = ["Limits", "Ran", "require_sandbox", "run_python"]
