"""The training core against TRL on fixed work: `python -m benchmarks.offline.run --help`."""
