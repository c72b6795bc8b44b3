"""CosyTune: a folder of one person's recordings -> a tuned, proven CosyVoice voice."""

__version__ = "0.1.0"
