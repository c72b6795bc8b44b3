"""What becomes of the checkpoints: the voice bundle, what it says, how well it says it, and the report."""
