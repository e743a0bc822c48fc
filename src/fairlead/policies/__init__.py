"""Stage: training of policies: SFT, DPO, PPO."""
