"""The rollout engine and online RL against what a user would pick instead: `python -m benchmarks.online.engine --help`."""
