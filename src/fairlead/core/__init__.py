"""The words everyone shares: records, protocols, gates, errors, recipe loading, file input and output.

Nothing is re-exported here: `config` needs pydantic and `io` may need pyarrow, and a bare training machine has neither.
"""
