"""Artifacts with lineage, and the registries of reward models and policies."""
