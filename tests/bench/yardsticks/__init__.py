"""Upstream's trainer in two forms, and ours, on the same clips: what tests/bench/compare_training.py measures."""

import os

os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"  # looking for a GPU must not start CUDA: it does not survive a fork
os.environ["TOKENIZERS_PARALLELISM"] = "false"  # nor do the threads of the text tokenizer
