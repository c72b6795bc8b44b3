"""Every setting, its type, its default and its meaning: the one place where a default is written.

The layers above (`config.py`) only override what stands here. An unknown key or a wrong type is an error.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from cosytune import presets

PositiveInt = Annotated[int, Field(gt=0)]
Positive = Annotated[float, Field(gt=0)]
Module = Literal["llm", "flow"]
Fraction = Annotated[float, Field(ge=0, lt=1)]


class Section(BaseModel):
    """A part of the config: frozen, no unknown keys, no silent conversion of numbers to strings, finite numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class UpstreamConfig(Section):
    source: Literal["auto", "wheel", "git", "path"] = "auto"
    """auto: the wheel, else git. path: a checkout of your own, left as it is and only read."""
    path: str | None = None
    """The checkout for `source: path`."""
    git_url: str = "https://github.com/FunAudioLLM/CosyVoice.git"


class DownloadConfig(Section):
    """Where stage -1 gets the files of `base: real` that are not in pretrained_models/ yet."""

    source: Literal["huggingface", "modelscope", "path"] = "huggingface"
    """path: a directory of your own with the same files; they are copied, and compared like all others."""
    path: str | None = None
    """The directory for `source: path`; a relative one starts at the repository."""
    endpoint: str | None = None
    """URL of a mirror that speaks the source's protocol; null: the hub, or what HF_ENDPOINT or MODELSCOPE_ENDPOINT
    says."""
    revision: str | None = None
    """Of the repository; null: the pinned one. Sizes and sha256 have to be the known ones whatever it is."""
    offline: bool = False
    """Open no connection, say what is missing; HF_HUB_OFFLINE=1 does the same."""

    @model_validator(mode="after")
    def _fit(self) -> Self:
        if (self.source == "path") != (self.path is not None):
            raise ValueError("source: path and path: DIRECTORY go together; set both or neither")
        if self.endpoint is not None and not self.endpoint.startswith(("http://", "https://")):
            raise ValueError(f"endpoint = {self.endpoint} is no URL; write https://...")
        if self.source == "path" and (self.endpoint or self.revision):
            raise ValueError("a directory has no endpoint and no revision; leave them out")
        return self


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
    threads: PositiveInt | Literal["auto"] = "auto"
    """Clips at a time on a CPU; auto: one for each processor core."""


class SlurmConfig(Section):
    """How `shards.launcher: slurm` asks for machines; null: what the cluster takes without being told."""

    partition: str | None = None
    account: str | None = None
    time_min: PositiveInt = 240
    """Minutes that a shard may take."""
    memory_gb: Positive | None = None
    cluster: Literal["slurm", "local"] = "slurm"
    """local: submitit runs the same jobs on this machine, without Slurm: to try it."""


class RayConfig(Section):
    address: str | None = None
    """auto: the Ray cluster that this machine belongs to; or its address; null: Ray is started here for the stage."""


class ShardsConfig(Section):
    """How stages 0, 1 and 2 spread what they do for each recording or clip; the result is the same for every value."""

    launcher: Literal["pool", "slurm", "ray"] = "pool"
    """pool: processes of this machine. slurm: an array of jobs. ray: Ray Data (tools/install.sh --cluster)."""
    nj: PositiveInt | Literal["auto"] = "auto"
    """Shards of a step; at most one for each of its items. auto: one for 10 hours of sound with pool, one for each hour
    with slurm and ray. 1 with pool: no shards, the stage does it itself."""
    at_a_time: PositiveInt = 256
    """Shards that slurm and ray run side by side, if there is room for them; pool: as audio.nj (stage 0) and
    features.threads (stages 1 and 2) say."""
    cpus: PositiveInt = 1
    """Processor cores for a shard with slurm and ray."""
    gpus: Annotated[int, Field(ge=0)] = 0
    """GPUs for a shard of stages 1 and 2 with slurm and ray."""
    slurm: SlurmConfig = SlurmConfig()
    ray: RayConfig = RayConfig()


class LoraConfig(Section):
    """The names of PEFT's LoraConfig."""

    r: PositiveInt = 16
    lora_alpha: PositiveInt = 32
    lora_dropout: Fraction = 0.05
    use_rslora: bool = False
    use_dora: bool = False
    targets: list[str] = Field(default=["default"], min_length=1)
    """Groups of layers or regular expressions over module names. default: attention and feed-forward; minimal: queries
    and values alone; of the flow also estimator: those of default without the encoder, which says what is spoken and
    not by whom; speaker: what carries timbre besides."""


class ModuleTrainConfig(Section):
    """The names of transformers' TrainingArguments where one exists. `auto` is settled by stage 4, from the card that
    it runs on; it changes memory and speed, not which clips make up an update.
    """

    learning_rate: Positive = 1e-4
    num_train_epochs: PositiveInt = 10
    max_steps: int = -1
    """Updates; above 0 it wins over num_train_epochs, which -1 leaves in charge."""
    lr_scheduler_type: Literal[
        "linear",
        "cosine",
        "cosine_with_restarts",
        "polynomial",
        "constant",
        "constant_with_warmup",
        "inverse_sqrt",
    ] = "cosine"
    lr_scheduler_kwargs: dict[str, float | int] = Field(default_factory=dict)
    """num_cycles of cosine (0.5: down to 0) and cosine_with_restarts (1); power (1) and lr_end (1e-7) of polynomial."""
    warmup_ratio: Fraction = 0.05
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    """Above 0 it wins over warmup_ratio."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    adam_beta1: Fraction = 0.9
    adam_beta2: Fraction = 0.999
    adam_epsilon: Positive = 1e-8
    max_grad_norm: Positive = 1.0
    optim: Literal["auto", "adamw_torch", "adamw_torch_fused", "adamw_8bit"] = "auto"
    loss_weight: Positive = 1.0
    """Accepted because guides name it: LLM and flow share no parameter, and Adam undoes a constant factor."""
    bf16: bool | Literal["auto"] = "auto"
    fp16: bool | Literal["auto"] = "auto"
    """Both auto: bf16 from compute capability 8.0 up, fp16 with loss scaling below, fp32 on a CPU. Both false: fp32.
    One of them false: the other where the card has it."""
    gradient_checkpointing: bool | Literal["auto"] = "auto"
    """Compute activations twice instead of keeping them: a third slower, a tenth of the memory for each token. auto:
    where the card would not have room for a batch without it."""
    torch_compile: bool = False
    tokens_per_update: PositiveInt | Literal["auto"] = "auto"
    """The effective batch: text and speech tokens between two updates, over all processes (flow: speech tokens); auto:
    2000, or less so that an epoch has 4 updates."""
    max_tokens_per_batch: PositiveInt | Literal["auto"] = "auto"
    """What one forward pass holds, padding included: memory, not learning. auto: what the card has room for."""
    gradient_accumulation_steps: PositiveInt | Literal["auto"] = "auto"
    """A number: tokens_per_update is that many times max_tokens_per_batch, which has to be a number, too. auto: as many
    as it takes."""
    dataloader_num_workers: Annotated[int, Field(ge=0)] | Literal["auto"] = "auto"
    logging_steps: PositiveInt = 5
    eval_strategy: Literal["epoch", "steps"] = "epoch"
    eval_steps: PositiveInt = 50
    """Updates between two evaluations, for eval_strategy: steps. Each one leaves a checkpoint to choose from."""
    save_steps: PositiveInt | None = None
    """Updates between two checkpoints that are there to resume from alone; null: none but those of evaluations."""
    save_total_limit: PositiveInt = 3
    """Checkpoints of evaluations kept beside the best one."""
    report_to: list[Literal["tensorboard", "wandb", "mlflow"]] = Field(default=["tensorboard"])
    early_stopping_patience: PositiveInt = 3
    """Evaluations without a better cv loss."""
    early_stopping_threshold: Annotated[float, Field(ge=0)] = 0.0
    loss_floor: Annotated[float, Field(ge=0)] | None = None
    """Training ends at the first evaluation before which the train loss was at or below it."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] | None = None
    """null: the recipe's."""

    @field_validator("max_steps")
    @classmethod
    def _a_number_of_updates(cls, steps: int) -> int:
        if steps > 0 or steps == -1:
            return steps
        raise ValueError("write a number of updates, or -1 for num_train_epochs")

    @field_validator("lr_scheduler_kwargs")
    @classmethod
    def _suit_the_schedule(cls, given: dict[str, float | int], info: ValidationInfo) -> dict[str, float | int]:
        if "lr_scheduler_type" in info.data:  # else it has a fault of its own
            _check_schedule(info.data["lr_scheduler_type"], given, info.data.get("learning_rate"))
        return given

    @field_validator("fp16")
    @classmethod
    def _one_precision(cls, fp16: bool | str, info: ValidationInfo) -> bool | str:
        if fp16 is True and info.data.get("bf16") is True:
            raise ValueError("bf16 is true, too; leave one of them out")
        return fp16

    @field_validator("gradient_accumulation_steps")
    @classmethod
    def _one_effective_batch(cls, steps: int | str, info: ValidationInfo) -> int | str:
        if steps == "auto":
            return steps
        if (tokens := info.data.get("tokens_per_update", "auto")) != "auto":
            raise ValueError(
                f"tokens_per_update = {tokens} says it already: one follows from the other; leave one of them out"
            )
        if info.data.get("max_tokens_per_batch") == "auto":
            raise ValueError(
                "a number of batches means nothing while max_tokens_per_batch is auto; set that to a number, too, or "
                "set tokens_per_update instead"
            )
        return steps

    @field_validator("report_to")
    @classmethod
    def _each_once(cls, trackers: list[str]) -> list[str]:
        if twice := sorted({name for name in trackers if trackers.count(name) > 1}):
            raise ValueError(f"{', '.join(twice)} stands twice")
        return trackers


_SCHEDULE_TAKES = {
    "cosine": ("num_cycles",),
    "cosine_with_restarts": ("num_cycles",),
    "polynomial": ("power", "lr_end"),
}


def _check_schedule(kind: str, given: Mapping[str, float | int], learning_rate: float | None) -> None:
    """What transformers would refuse after the model was loaded, or leave out without a word."""
    takes = _SCHEDULE_TAKES.get(kind, ())
    if others := [name for name in given if name not in takes]:
        holders = [f"{name} takes {' and '.join(names)}" for name, names in _SCHEDULE_TAKES.items()]
        raise ValueError(f"{kind} takes {' and '.join(takes) or 'none'}, not {', '.join(others)}; {', '.join(holders)}")
    if wrong := [name for name, value in given.items() if value < 0 or (value == 0 and name != "lr_end")]:
        raise ValueError(f"{' and '.join(wrong)} must be greater than 0")
    if kind == "cosine_with_restarts" and given.get("num_cycles", 1) % 1:
        raise ValueError("num_cycles of cosine_with_restarts must be a whole number")
    if learning_rate is not None and given.get("lr_end", 0) >= learning_rate:
        raise ValueError(f"lr_end must be less than learning_rate ({learning_rate})")


class LlmTrainConfig(ModuleTrainConfig):
    bistream_probability: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Share of the clips with more than 3 speech tokens per text token that are interleaved 5:15 for streaming."""


class FlowTrainConfig(ModuleTrainConfig):
    streaming_probability: Annotated[float, Field(ge=0, le=1)] = 0.5
    cv_time_steps: PositiveInt = 4
    """Flow time steps drawn per cv clip: more make its loss less noisy."""


class UpstreamTrainConfig(Section):
    """For engine: upstream, in upstream's own words: a full fine-tune by its train.py."""

    train_engine: Literal["torch_ddp", "deepspeed"] = "torch_ddp"
    learning_rate: Positive = 1e-5
    max_epoch: PositiveInt = 10
    accum_grad: PositiveInt = 2
    max_frames_in_batch: PositiveInt = 2000
    log_interval: PositiveInt = 10
    num_workers: Annotated[int, Field(ge=0)] = 1
    """Each reads every clip while there are fewer parquet files than workers."""
    prefetch: PositiveInt = 100
    use_amp: bool = False
    timeout_s: PositiveInt = 60


class TrainConfig(Section):
    mode: Literal["joint", "llm_only", "flow_only"] = "joint"
    """joint: both in one stage, each with its own learning rate, stop rule and best checkpoint."""
    side_by_side: bool | Literal["auto"] = "auto"
    """Both modules at the same time, in two processes; auto: where the GPU's memory has room for both."""
    engine: Literal["cosytune", "upstream"] = "cosytune"
    num_processes: PositiveInt | Literal["auto"] = "auto"
    """Of each module; auto: one for each GPU."""
    distributed: Literal["ddp", "deepspeed"] = "ddp"
    """deepspeed: ZeRO-2, whose optimizer state is shared out among the processes."""
    launcher: Literal["auto", "torchrun", "srun"] = "auto"
    """Who starts stage 4's processes. auto: the stage, on this machine. torchrun: the same command on each node. srun:
    the stage in a Slurm allocation, one task for each process, on all of its nodes."""
    num_nodes: PositiveInt | Literal["auto"] = "auto"
    """auto: those of the Slurm allocation with srun, else one."""
    rdzv_endpoint: str | None = Field(default=None, validate_default=True)
    """HOST:PORT where the nodes meet, on one of them. srun needs none: the first node, a port by the job's number."""
    rdzv_id: str | None = None
    """Name of the meeting, for several trainings at one endpoint; null: <recipe>/<exp>."""
    rdzv_timeout_s: PositiveInt = 600
    """How long a node waits for the others."""
    audio_samples: bool | Literal["auto"] = "auto"
    """Let two cv texts be heard at every evaluation; auto: yes, but for low_memory."""
    llm: LlmTrainConfig = LlmTrainConfig()
    flow: FlowTrainConfig = FlowTrainConfig()
    upstream: UpstreamTrainConfig = UpstreamTrainConfig()

    @field_validator("launcher")
    @classmethod
    def _can_start_it(cls, launcher: str, info: ValidationInfo) -> str:
        if launcher != "auto" and info.data.get("engine") == "upstream":
            raise ValueError(
                "engine = upstream trains on one machine; set train.launcher=auto or train.engine=cosytune"
            )
        if launcher != "auto" and info.data.get("side_by_side") is True:
            raise ValueError("it trains one module after the other; set train.side_by_side=auto")
        return launcher

    @field_validator("num_nodes")
    @classmethod
    def _have_a_launcher(cls, nodes: int | str, info: ValidationInfo) -> int | str:
        if nodes not in (1, "auto") and info.data.get("launcher") == "auto":
            raise ValueError(
                "auto is for one machine; set train.launcher=torchrun and call the same command on each node, or "
                "train.launcher=srun in a Slurm allocation"
            )
        return nodes

    @field_validator("rdzv_endpoint")
    @classmethod
    def _can_meet(cls, endpoint: str | None, info: ValidationInfo) -> str | None:
        nodes = info.data.get("num_nodes", "auto")
        if endpoint is None and nodes not in (1, "auto") and info.data.get("launcher") == "torchrun":
            raise ValueError(f"{nodes} nodes have to meet; write HOST:29500, where HOST is one of them")
        if endpoint is not None and not re.fullmatch(r"[^\s:/]+:\d{1,5}", endpoint):
            raise ValueError("write HOST:PORT, such as node0:29500, where HOST is a node that all of them can reach")
        return endpoint

    @property
    def modules(self) -> tuple[Module, ...]:
        by_mode: dict[str, tuple[Module, ...]] = {"llm_only": ("llm",), "flow_only": ("flow",)}
        return by_mode.get(self.mode, ("llm", "flow"))


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
    ablation: bool = False
    """Also let the tuned LLM speak with the base's flow, and the base's LLM with the tuned flow, and measure which of
    them learned what: a table with intervals. It takes its time: four voices, every sentence, every seed."""
    ablation_seeds: PositiveInt = 2
    """Times that everyone says every sentence, each with another seed."""
    ablation_sentences: Annotated[int, Field(ge=0)] = 20
    """Sentences for the ablation besides those of the players; fewer where the language's list has no more."""


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
    base: Literal["real", "tiny", "random", "full-random"] = "real"
    model_dir: str | None = None
    """A model directory of your own instead of pretrained_models/<base's name>."""
    download: DownloadConfig = DownloadConfig()
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 1986
    device: Literal["auto", "cpu", "cuda"] = "auto"
    hardware: str = presets.AUTO
    """auto: the card at hand settles what is auto in train.*; or a preset of tools/cosytune/presets by name, whose
    values conf.yaml and key=value override. A preset changes the effective batch and the adapters' ranks, too."""
    low_memory: bool = False
    """For cards of 4 to 8 GB: the smallest batches, activations computed twice, no audio samples. What train.* sets by
    value, or a preset does, stays."""
    upstream: UpstreamConfig = UpstreamConfig()
    audio: AudioConfig = AudioConfig()
    transcribe: TranscribeConfig = TranscribeConfig()
    split: SplitConfig = SplitConfig()
    features: FeaturesConfig = FeaturesConfig()
    shards: ShardsConfig = ShardsConfig()
    lora: LoraPerModule = LoraPerModule()
    train: TrainConfig = TrainConfig()
    export: ExportConfig = ExportConfig()
    evaluate: EvaluateConfig = EvaluateConfig()

    @field_validator("hardware")
    @classmethod
    def _a_preset(cls, name: str) -> str:
        known = presets.names()
        if name in (presets.AUTO, *known):
            return name
        (near,) = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.0)
        raise ValueError(f"no such preset; did you mean '{near}'? There are auto, {', '.join(known)}")
