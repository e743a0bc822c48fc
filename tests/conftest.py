"""Shapes are checked at run time in tests, and Hypothesis runs without deadlines."""

from hypothesis import settings
from jaxtyping import install_import_hook

install_import_hook("fairlead.algos", "beartype.beartype")
settings.register_profile("fairlead", deadline=None, max_examples=25, derandomize=True)
settings.load_profile("fairlead")
