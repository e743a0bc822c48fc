"""The database of the rating application: tables, the way they are opened, and the migrations between their versions.

Needs the extra `web`; nothing else of the store imports it. What the rows mean is said in `schema`, who may write them when in
docs/decisions/0014-votes-are-events.md.
"""
