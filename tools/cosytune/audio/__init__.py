"""Recordings as people have them -> clips at one rate and one loudness, each with its transcript, id and speaker."""
