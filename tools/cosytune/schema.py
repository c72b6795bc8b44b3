"""Every setting, its type, its default and its meaning: the one place where a default is written.

The layers above (`config.py`) only override what stands here. An unknown key or a wrong type is an error.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

PositiveInt = Annotated[int, Field(gt=0)]
Positive = Annotated[float, Field(gt=0)]
Module = Literal["llm", "flow"]
Fraction = Annotated[float, Field(ge=0, lt=1)]


def _each_once(modules: list[Module]) -> list[Module]:
    if len(set(modules)) < len(modules):
        raise ValueError("name each module once")
    return modules


class Section(BaseModel):
    """A part of the config: frozen, no unknown keys, no silent conversion of numbers to strings, finite numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class UpstreamConfig(Section):
    source: Literal["auto", "wheel", "git", "path"] = "auto"
    """auto: the wheel, else git. path: a checkout of your own, left as it is and only read."""
    path: str | None = None
    """The checkout for `source: path`."""
    git_url: str = "https://github.com/FunAudioLLM/CosyVoice.git"


class SegmentConfig(Section):
    """How a long recording is cut into clips."""

    min_s: Positive = 3.0
    max_s: Positive = 10.0
    margin_s: Annotated[float, Field(ge=0)] = 0.2
    """Natural silence kept before and after the speech of a clip."""
    speech_threshold: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """The detector's probability from which a frame of 32 ms is speech."""
    min_pause_s: Positive = 0.1
    """A shorter gap between two words is no place to cut, as long as there is a longer one."""

    @model_validator(mode="after")
    def _fit(self) -> Self:
        if not 2 * self.margin_s < self.min_s < self.max_s:
            raise ValueError("two times margin_s must be less than min_s, and min_s less than max_s")
        return self


class GatesConfig(Section):
    """What a clip must be like; outside these it goes to quarantine. null switches a gate off."""

    max_clipped_share: Annotated[float, Field(ge=0, le=1)] | None = 0.0015
    """Share of the samples that stand at full scale two or more in a row, in the recording as it was given."""
    min_loudness_lufs: float | None = -55.0
    min_snr_db: float | None = 12.0
    """Level of the speech against the level of the pauses."""
    max_silence_share: Annotated[float, Field(ge=0, le=1)] | None = 0.7
    min_bandwidth_hz: Positive | None = 5000.0
    """Up to where there is sound: a telephone recording ends below 4 kHz, however it was up-sampled."""
    max_dc_offset: Annotated[float, Field(ge=0, le=1)] | None = 0.05
    """Mean of the samples, full scale = 1. A smaller one is removed and no harm."""
    max_edge_level_db: float | None = -13.0
    """Level of the first and last 10 ms against the level of the speech: higher, and a word is cut off."""
    min_voice_similarity: Annotated[float, Field(ge=-1, le=1)] | None = 0.7
    """Cosine between the voice of the clip and the centre of the speaker's clips."""
    near_duplicate_similarity: Annotated[float, Field(ge=0, le=1)] | None = 0.95
    """Likeness of two clips' spectra over time from which one of them is enough."""
    max_cer: Annotated[float, Field(ge=0)] | None = 0.4
    """Character error rate between the transcript and what Whisper hears, where that is known."""
    min_transcript_logprob: float | None = -1.0
    """Mean log-probability of a token of what Whisper heard: its own limit for a text that it does not trust."""
    max_transcript_repetition: Positive | None = 2.4
    """How well zlib packs what Whisper heard: its own limit for a text that says one thing over and over."""
    max_rate_deviation: Positive | None = 4.0
    """Spoken letters per second: distance from the speaker's median in robust standard deviations."""


class AudioConfig(Section):
    speakers: Literal["auto", "single", "by_folder"] = "auto"
    """single: all recordings are one person's. by_folder: every folder in audio/ is a speaker. auto: single, but
    folders that look like several speakers are an error."""
    nj: PositiveInt | Literal["auto"] = "auto"
    """Processes at work on recordings; auto: one for each processor core."""
    sample_rate_hz: PositiveInt = 24000
    min_duration_s: Positive = 1.0
    max_duration_s: Positive = 30.0
    """A recording with a transcript is one clip if it lasts no longer than this."""
    loudness_lufs: Annotated[float, Field(le=0)] = -23.0
    peak_ceiling_dbfs: Annotated[float, Field(le=0)] = -1.0
    segment: SegmentConfig = SegmentConfig()
    gates: GatesConfig = GatesConfig()
    keep: list[str] = Field(default_factory=list)
    """Ids of clips that stay whatever the gates say."""

    @model_validator(mode="after")
    def _fit(self) -> Self:
        longest_s = self.max_duration_s
        shorter = {"min_duration_s": self.min_duration_s, "segment.max_s": self.segment.max_s}
        if wrong := [f"{name} ({value_s})" for name, value_s in shorter.items() if value_s > longest_s]:
            raise ValueError(f"{' and '.join(wrong)} must not be above max_duration_s ({longest_s})")
        return self


class TranscribeConfig(Section):
    """How recordings without a transcript get one (WhisperX)."""

    model: str = "large-v3"
    """A faster-whisper model by name (looked for in pretrained_models/faster-whisper-<name>) or its directory.
    none: nothing is transcribed; such recordings are cut, and their clips wait in quarantine for a text."""
    align_model: str = "auto"
    """What finds the times of the words: auto (the usual wav2vec 2.0 model of the language, in pretrained_models/), a
    directory, or none (clips are cut at pauses first and transcribed one by one)."""
    language: Literal["recipe", "detect"] = "recipe"
    """recipe: the recordings' language is `language`. detect: Whisper says it for each recording."""
    check_given: Literal["auto", "always", "never"] = "auto"
    """Whether clips with a transcript are heard, too, to find a mismatch; auto: if the model is there."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    compute_type: Literal["auto", "float32", "float16", "int8", "int8_float16"] = "auto"
    """auto: float16 on a GPU, int8 on a CPU."""
    batch_size: PositiveInt = 16
    beam_size: PositiveInt = 5


class SplitConfig(Section):
    cv_fraction: Fraction = 0.1
    """Share of the clips for cross-validation, at least 1 clip; never training data."""
    test_fraction: Fraction = 0.05
    """Share of the clips kept for the report, at least 1 clip from 10 clips up."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] | None = None
    """null: the recipe's seed. One of its own keeps the sets when that one changes."""


class FeaturesConfig(Section):
    provider: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the ONNX models run; what the session really got is printed."""
    threads: PositiveInt = 2


class LoraConfig(Section):
    """The names of PEFT's LoraConfig."""

    r: PositiveInt = 16
    lora_alpha: PositiveInt = 32
    lora_dropout: Fraction = 0.05
    use_rslora: bool = False
    use_dora: bool = False
    targets: list[str] = Field(default=["default"], min_length=1)
    """Groups of layers (default, speaker) or regular expressions over module names."""


class ModuleTrainConfig(Section):
    """The names of transformers' TrainingArguments where one exists."""

    learning_rate: Positive = 1e-4
    num_train_epochs: PositiveInt = 10
    max_steps: int = -1
    """Updates; above 0 it wins over num_train_epochs."""
    lr_scheduler_type: Literal["linear", "cosine", "constant", "constant_with_warmup", "cosine_with_restarts"] = (
        "cosine"
    )
    warmup_ratio: Fraction = 0.05
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    max_grad_norm: Positive = 1.0
    gradient_accumulation_steps: PositiveInt = 1
    max_tokens_per_batch: PositiveInt | Literal["auto"] = "auto"
    """Text and speech tokens of one micro-batch, padding included; auto: at most 2000, 4 updates an epoch or more."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    logging_steps: PositiveInt = 5
    save_total_limit: PositiveInt = 3
    """Checkpoints kept beside the best one; one is written after every epoch."""
    early_stopping_patience: PositiveInt = 3
    """Epochs without a better cv loss."""
    early_stopping_threshold: Annotated[float, Field(ge=0)] = 0.0


class LlmTrainConfig(ModuleTrainConfig):
    bistream_probability: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Share of the clips with more than 3 speech tokens per text token that are interleaved 5:15 for streaming."""


class FlowTrainConfig(ModuleTrainConfig):
    streaming_probability: Annotated[float, Field(ge=0, le=1)] = 0.5
    cv_time_steps: PositiveInt = 4
    """Flow time steps drawn per cv clip: more make its loss less noisy."""


class TrainConfig(Section):
    modules: Annotated[list[Module], Field(min_length=1), AfterValidator(_each_once)] = Field(default=["llm", "flow"])
    llm: LlmTrainConfig = LlmTrainConfig()
    flow: FlowTrainConfig = FlowTrainConfig()


class LoraPerModule(Section):
    llm: LoraConfig = LoraConfig()
    flow: LoraConfig = LoraConfig()


class ExportConfig(Section):
    merged: bool = True
    """Also write merged llm.pt and flow.pt (drop-in files for upstream); false ships the adapters alone."""


class EvaluateConfig(Section):
    sentences: list[str] = Field(default_factory=list)
    """What the report lets the voice say, beside the texts of the test clips."""
    max_sentences: PositiveInt = 4
    max_test_clips: PositiveInt = 4
    """Texts of test clips that it says too, to be compared with the real clips."""


class Config(Section):
    speaker: str | None = None
    """Default: the name of the recipe's directory."""
    description: str = ""
    licence: str = "not stated"
    """Of the recordings; it goes into the voice bundle."""
    consent: str = "not stated"
    """Who agreed to this voice and how; it goes into the voice bundle."""
    language: Literal["ja", "zh", "en", "ko", "yue", "de", "fr", "es", "it", "ru"] = "ja"
    model: Literal["cosyvoice2-0.5b"] = "cosyvoice2-0.5b"
    base: Literal["real", "tiny", "full-random"] = "real"
    model_dir: str | None = None
    """A model directory of your own instead of pretrained_models/<base's name>."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 1986
    device: Literal["auto", "cpu", "cuda"] = "auto"
    upstream: UpstreamConfig = UpstreamConfig()
    audio: AudioConfig = AudioConfig()
    transcribe: TranscribeConfig = TranscribeConfig()
    split: SplitConfig = SplitConfig()
    features: FeaturesConfig = FeaturesConfig()
    lora: LoraPerModule = LoraPerModule()
    train: TrainConfig = TrainConfig()
    export: ExportConfig = ExportConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
