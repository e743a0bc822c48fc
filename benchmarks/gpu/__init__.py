"""The training core on a GPU, alone or against TRL: `python -m benchmarks.gpu.run --help`."""
