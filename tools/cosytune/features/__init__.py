"""Clips -> speaker embeddings, speech tokens and mel: what the models are trained on, computed once."""
