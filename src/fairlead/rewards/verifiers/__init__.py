"""Verifiers: scorers that know the right answer, or a rule that the answer must obey.

Sections are in config.py, kinds in registry.py; each other file holds one family. What they check is untrusted text, so they run in the
worker processes of rewards/pool.py.
"""

from fairlead.rewards.verifiers.config import VerifierBase, VerifierSection
from fairlead.rewards.verifiers.registry import (
    VERIFIERS,
    Verifier,
    build_verifier,
    make_verifier,
    read_section,
    validate_prompts,
)

__all__ = [
    "VERIFIERS",
    "Verifier",
    "VerifierBase",
    "VerifierSection",
    "build_verifier",
    "make_verifier",
    "read_section",
    "validate_prompts",
]
