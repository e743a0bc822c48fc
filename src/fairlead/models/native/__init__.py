"""Kernels in C for what PyTorch has none for on a CPU: built by the machine's own compiler in a second, kept, and never required.

Where there is no compiler, or no processor that they are for, the callers use torch and give the same results up to rounding;
`fairlead doctor` says which.
"""
