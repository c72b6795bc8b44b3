"""CosyTune: a folder of one person's recordings -> a tuned, proven CosyVoice voice."""

import logging

__version__ = "0.1.0"

# On a CPU it warns, whoever imports it, that a 4-bit kernel could not be fetched. Nothing here is 4-bit.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
