"""Rollouts: requests in, sampled completions with their logprobs out."""
