"""The rating application under load and under faults: its own programs, over real HTTP, on both databases."""
