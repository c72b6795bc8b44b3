"""Cached features -> LoRA adapters: plan, draws, losses, the loop, and its checkpoints."""
