"""Artifacts with lineage, and the registries of reward models and policies.

`artifacts` keeps what stages make, named by content; `registry` says which of it was approved and released; `gc` deletes what
nothing needs any more; `code_version` ties a result to the code that made it.
"""
