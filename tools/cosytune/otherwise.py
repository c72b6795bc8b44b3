"""Settings as other trainers call them -> what CosyTune calls them, or why it has none.

For names that are far from the right one, that mean something else beside a budget in tokens, or that are old.
"""

from __future__ import annotations

from collections.abc import Sequence

_BUDGET = (
    "batches are cut by tokens; write {at}.max_tokens_per_batch for what fits into memory, {at}.tokens_per_update for "
    "the effective batch"
)
_PRECISION = "write {at}.bf16=true or {at}.fp16=true, or leave it out: auto takes what the card has"
_EPOCHS = "write {at}.num_train_epochs"
_ACCUMULATION = "write {at}.gradient_accumulation_steps, or {at}.tokens_per_update for the effective batch"
_BEST = "leave it out: every evaluation leaves a checkpoint, and stage 5 chooses by what they say"
_CLIPS = "leave it out: no clip is dropped for its length here; audio.min_duration_s and audio.max_duration_s say it"
_WARMUP = "write {at}.warmup_ratio or {at}.warmup_steps"
_SCHEDULE = "write {at}.lr_scheduler_type"
_SAVING = (
    "leave it out: every evaluation leaves a checkpoint; {at}.save_steps adds some between them, to resume from alone"
)
_NORM = "write {at}.max_grad_norm"
_MEETING = "write train.rdzv_endpoint=HOST:PORT"
_WHERE = "leave it out: ./run.sh --exp NAME says where, exp/NAME/<module>"

TRAINING = {
    "per_device_train_batch_size": _BUDGET,
    "per_device_eval_batch_size": _BUDGET,
    "per_gpu_train_batch_size": _BUDGET,
    "train_batch_size": _BUDGET,
    "eval_batch_size": _BUDGET,
    "batch_size": _BUDGET,
    "auto_find_batch_size": "leave it out: where memory runs short, batches get smaller, the effective batch stays",
    "max_frames_in_batch": _BUDGET,
    "group_by_length": "leave it out: clips of about one length always stand together",
    "evaluation_strategy": "write {at}.eval_strategy",
    "load_best_model_at_end": _BEST,
    "metric_for_best_model": _BEST,
    "greater_is_better": _BEST,
    "precision": _PRECISION,
    "mixed_precision": _PRECISION,
    "use_amp": _PRECISION,
    "fp16_opt_level": _PRECISION,
    "fp16_backend": _PRECISION,
    "half_precision_backend": _PRECISION,
    "bf16_full_eval": _PRECISION,
    "fp16_full_eval": _PRECISION,
    "modules": "write train.mode=joint, llm_only or flow_only",
    "lr": "write {at}.learning_rate",
    "max_epochs": _EPOCHS,
    "max_epoch": _EPOCHS,
    "epochs": _EPOCHS,
    "num_epochs": _EPOCHS,
    "accumulate_grad_batches": _ACCUMULATION,
    "accum_grad": _ACCUMULATION,
    "gradient_accumulation": _ACCUMULATION,
    "use_early_stopping": "write {at}.early_stopping_patience: so many evaluations without a better cv loss",
    "early_stopping": "write {at}.early_stopping_patience: so many evaluations without a better cv loss",
    "logging_dir": "leave it out: TensorBoard's files are in exp/<name>/<module>/tensorboard",
    "output_dir": _WHERE,
    "run_name": _WHERE,
    "resume_from_checkpoint": "leave it out: the same command goes on from the newest checkpoint",
    "token_max_length": _CLIPS,
    "token_min_length": _CLIPS,
    "max_length": _CLIPS,
    "min_length": _CLIPS,
    "dataloader_pin_memory": "leave it out: memory is pinned where there is a GPU",
    "pin_memory": "leave it out: memory is pinned where there is a GPU",
    "num_workers": "write {at}.dataloader_num_workers",
    "dataloader_drop_last": "leave it out: every clip is trained on in every epoch, the last ones too",
    "save_strategy": _SAVING,
    "save_per_step": _SAVING,
    "scheduler": _SCHEDULE,
    "lr_scheduler": _SCHEDULE,
    "warmup": _WARMUP,
    "grad_clip": _NORM,
    "gradient_clip_val": _NORM,
    "log_interval": "write {at}.logging_steps",
    "deepspeed": "write train.distributed=deepspeed",
    "train_engine": "write train.distributed=ddp or deepspeed; train.upstream.train_engine is that of engine: upstream",
    "nnodes": "write train.num_nodes",
    "num_machines": "write train.num_nodes",
    "nproc_per_node": "write train.num_processes: those of one node",
    "nproc": "write train.num_processes: those of one node",
    "world_size": "write train.num_nodes and train.num_processes, which are those of one node",
    "master_addr": _MEETING,
    "master_port": _MEETING,
    "main_process_ip": _MEETING,
    "main_process_port": _MEETING,
    "rdzv_conf": "write train.rdzv_timeout_s for how long a node waits for the others",
    "rdzv_backend": "leave it out: it is c10d",
    "node_rank": "leave it out: the nodes find out by themselves which is the first",
    "machine_rank": "leave it out: the nodes find out by themselves which is the first",
    "max_restarts": "leave it out: the same command goes on from the newest checkpoint",
    "ddp_find_unused_parameters": "leave it out: every adapter is used",
}
"""Below train, train.llm and train.flow. {at}: the section in which the key stands."""

LORA = {
    "target_modules": "write {at}.targets: groups (default, minimal, estimator, speaker) or regular expressions",
    "alpha": "write {at}.lora_alpha",
    "rank": "write {at}.r",
    "lora_r": "write {at}.r",
    "lora_rank": "write {at}.r",
    "dropout": "write {at}.lora_dropout",
    "rslora": "write {at}.use_rslora",
    "dora": "write {at}.use_dora",
    "bias": "leave it out: LoRA trains no bias here, so that a voice can be merged and taken out again",
    "modules_to_save": "leave it out: adapters alone are trained; {at}.targets names more layers",
    "task_type": "leave it out: the family knows its modules",
}
"""Below lora, lora.llm and lora.flow."""

_EITHER = "{llm,flow}"
"""As a shell expands it."""


def called_here(location: Sequence[str]) -> str | None:
    """What to write in place of the unknown key at `location`, or None where only its spelling can tell.

    A key outside of every section is taken for one of training.
    """
    section, name = (location[0] if len(location) > 1 else "train"), location[-1]
    if section not in ("train", "lora") or location[:2] == ["train", "upstream"]:
        return None
    module = location[1] if len(location) > 2 else _EITHER
    advice = {"train": TRAINING, "lora": LORA}[section].get(name)
    return advice.replace("{at}", f"{section}.{module}") if advice else None
