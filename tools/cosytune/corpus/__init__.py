"""Stage 0's work, from sources to a corpus: takes (decoded, listened to) -> drafts of clips -> clips -> verdicts."""
