"""Recordings without a transcript -> what is said in them, and when each word sounds (WhisperX).

    jobs = [Job("audio/talk.wav", digest, chunk(speech), read, speech)]
    transcripts = transcribe(jobs, config.transcribe, config.language, cache)

Whisper hears chunks of up to 30 s, all recordings' in one queue of full batches; then a wav2vec 2.0 model of the
language finds the words' times. Both models are directories on this machine; nothing is ever downloaded from here.
"""

from cosytune.transcribe.chunks import chunk
from cosytune.transcribe.compare import cer
from cosytune.transcribe.models import Models, find_models, has_aligner, is_there
from cosytune.transcribe.queue import transcribe
from cosytune.transcribe.times import align_given
from cosytune.transcribe.transcript import Job, Segment, Transcript, join

__all__ = [
    "Job",
    "Models",
    "Segment",
    "Transcript",
    "align_given",
    "cer",
    "chunk",
    "find_models",
    "has_aligner",
    "is_there",
    "join",
    "transcribe",
]
