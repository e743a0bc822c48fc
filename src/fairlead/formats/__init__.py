"""Readers and writers of other people's preference, demonstration and vote files: detected, streamed, rejects counted."""
