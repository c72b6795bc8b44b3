"""Synthetic speech -> our own small CosyVoice2 that speaks, its two judges, and the figures that say how well."""
