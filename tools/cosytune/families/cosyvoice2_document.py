"""CosyVoice2's sizes -> the whole of `cosyvoice2.yaml` as specs, in the order of upstream's own configuration.

The same keys as upstream's file, so that its trainer and its inference class find what they look for; the values come
from the family, the text from `cosytune.base.hyperyaml`.
"""

from __future__ import annotations

from typing import Any

from cosytune.families.family import Family, FlowShape, LlmShape, Shape, VocoderShape
from cosytune.families.spec import Apply, Name, New, Ref

_CHUNK_TOKENS = 25
"""Of streaming: the flow's static attention chunk, one second."""
_SEED = 1986


def document(family: Family, shape: Shape) -> dict[str, Any]:
    """The top level of the YAML; `bridge` builds `llm`, `flow` and `hift` of it without any YAML."""
    mel = {**vars(family.mel), "sampling_rate": Ref("sample_rate")}
    return {
        "__set_seed1": Apply("random.seed", (_SEED,)),
        "__set_seed2": Apply("numpy.random.seed", (_SEED,)),
        "__set_seed3": Apply("torch.manual_seed", (_SEED,)),
        "__set_seed4": Apply("torch.cuda.manual_seed_all", (_SEED,)),
        "sample_rate": family.mel.sampling_rate,
        "llm_input_size": shape.llm.hidden_size,
        "llm_output_size": shape.llm.hidden_size,
        "spk_embed_dim": family.speaker_embedding_size,
        "qwen_pretrain_path": "",
        "token_frame_rate": family.token_rate_hz,
        "token_mel_ratio": family.token_mel_ratio,
        "llm": _llm(family, shape.llm),
        "flow": _flow(family, shape.flow),
        "hift": _vocoder(family, shape.vocoder),
        # the spectrogram that the vocoder's own training compares: the whole band, fmax null
        "mel_spec_transform1": Name("matcha.utils.audio.mel_spectrogram", {**mel, "fmax": None}),
        "hifigan": New(
            "cosyvoice.hifigan.hifigan.HiFiGan",
            {
                "generator": Ref("hift"),
                "discriminator": New(
                    "cosyvoice.hifigan.discriminator.MultipleDiscriminator",
                    {
                        "mpd": New("matcha.hifigan.models.MultiPeriodDiscriminator"),
                        "mrd": New("cosyvoice.hifigan.discriminator.MultiResSpecDiscriminator"),
                    },
                ),
                "mel_spec_transform": [Ref("mel_spec_transform1")],
            },
        ),
        **_processors(family, mel),
        "data_pipeline": [Ref(key) for key in _PIPELINE],
        "data_pipeline_gan": [Ref(key) for key in _PIPELINE_GAN],
        "train_conf": _TRAIN_CONF,
        "train_conf_gan": _TRAIN_CONF_GAN,
    }


def _llm(family: Family, shape: LlmShape) -> New:
    return New(
        "cosyvoice.llm.llm.Qwen2LM",
        {
            "llm_input_size": shape.hidden_size,
            "llm_output_size": shape.hidden_size,
            "speech_token_size": family.speech_token_size,
            "length_normalized_loss": True,
            "lsm_weight": 0,
            "mix_ratio": list(family.mix_ratio),
            "llm": New("cosyvoice.llm.llm.Qwen2Encoder", {"pretrain_path": Ref("qwen_pretrain_path")}),
            "sampling": Name(
                "cosyvoice.utils.common.ras_sampling", {"top_p": 0.8, "top_k": 25, "win_size": 10, "tau_r": 0.1}
            ),
        },
    )


def _flow(family: Family, shape: FlowShape) -> New:
    return New(
        "cosyvoice.flow.flow.CausalMaskedDiffWithXvec",
        {
            "input_size": 512,
            "output_size": family.mel.num_mels,
            "spk_embed_dim": family.speaker_embedding_size,
            "output_type": "mel",
            "vocab_size": family.speech_token_size,
            "input_frame_rate": family.token_rate_hz,
            "only_mask_loss": True,
            "token_mel_ratio": family.token_mel_ratio,
            "pre_lookahead_len": 3,
            "encoder": New(
                "cosyvoice.transformer.upsample_encoder.UpsampleConformerEncoder",
                {
                    "output_size": 512,  # hard-coded in upstream's look-ahead and up-sampling layers
                    "attention_heads": shape.encoder_heads,
                    "linear_units": shape.encoder_units,
                    "num_blocks": shape.encoder_blocks,
                    "dropout_rate": 0.1,
                    "positional_dropout_rate": 0.1,
                    "attention_dropout_rate": 0.1,
                    "normalize_before": True,
                    "input_layer": "linear",
                    "pos_enc_layer_type": "rel_pos_espnet",
                    "selfattention_layer_type": "rel_selfattn",
                    "input_size": 512,
                    "use_cnn_module": False,
                    "macaron_style": False,
                    "static_chunk_size": _CHUNK_TOKENS,
                },
            ),
            "decoder": New(
                "cosyvoice.flow.flow_matching.CausalConditionalCFM",
                {
                    "in_channels": 3 * family.mel.num_mels,
                    "n_spks": 1,
                    "spk_emb_dim": family.mel.num_mels,
                    "cfm_params": New("omegaconf.DictConfig", {"content": _CFM}),
                    "estimator": _estimator(family, shape),
                },
            ),
        },
    )


def _estimator(family: Family, shape: FlowShape) -> New:
    return New(
        "cosyvoice.flow.decoder.CausalConditionalDecoder",
        {
            "in_channels": 4 * family.mel.num_mels,  # noisy mel, mean, speaker, prompt
            "out_channels": family.mel.num_mels,
            "channels": [shape.estimator_channels],
            "dropout": 0.0,
            "attention_head_dim": shape.estimator_head_dim,
            "n_blocks": shape.estimator_blocks,
            "num_mid_blocks": shape.estimator_mid_blocks,
            "num_heads": shape.estimator_heads,
            "act_fn": "gelu",
            "static_chunk_size": _CHUNK_TOKENS * family.token_mel_ratio,
            "num_decoding_left_chunks": -1,
        },
    )


def _vocoder(family: Family, shape: VocoderShape) -> New:
    dilations = [[1, 3, 5], [1, 3, 5], [1, 3, 5]]
    return New(
        "cosyvoice.hifigan.generator.HiFTGenerator",
        {
            "in_channels": family.mel.num_mels,
            "base_channels": shape.base_channels,
            "nb_harmonics": 8,
            "sampling_rate": family.mel.sampling_rate,
            "nsf_alpha": 0.1,
            "nsf_sigma": 0.003,
            "nsf_voiced_threshold": 10,
            "upsample_rates": [8, 5, 3],
            "upsample_kernel_sizes": [16, 11, 7],
            "istft_params": {"n_fft": 16, "hop_len": 4},
            "resblock_kernel_sizes": [3, 7, 11],
            "resblock_dilation_sizes": dilations,
            "source_resblock_kernel_sizes": [7, 7, 11],
            "source_resblock_dilation_sizes": dilations,
            "lrelu_slope": 0.1,
            "audio_limit": 0.99,
            "f0_predictor": New(
                "cosyvoice.hifigan.f0_predictor.ConvRNNF0Predictor",
                {"num_class": 1, "in_channels": family.mel.num_mels, "cond_channels": shape.f0_channels},
            ),
        },
    )


def _processors(family: Family, mel: dict[str, Any]) -> dict[str, Any]:
    """The steps of upstream's own data pipeline, which `engine: upstream` runs."""
    step = "cosyvoice.dataset.processor."
    return {
        "parquet_opener": Name(step + "parquet_opener"),
        "get_tokenizer": Name(
            "cosyvoice.tokenizer.tokenizer.get_qwen_tokenizer",
            {"token_path": Ref("qwen_pretrain_path"), "skip_special_tokens": True},
        ),
        "allowed_special": "all",
        "tokenize": Name(
            step + "tokenize", {"get_tokenizer": Ref("get_tokenizer"), "allowed_special": Ref("allowed_special")}
        ),
        "filter": Name(
            step + "filter", {"max_length": 40960, "min_length": 100, "token_max_length": 200, "token_min_length": 1}
        ),
        "resample": Name(step + "resample", {"resample_rate": Ref("sample_rate")}),
        "truncate": Name(step + "truncate", {"truncate_length": 51 * family.mel.hop_size}),
        "feat_extractor": Name("matcha.utils.audio.mel_spectrogram", mel),
        "compute_fbank": Name(
            step + "compute_fbank", {"feat_extractor": Ref("feat_extractor"), "token_mel_ratio": family.token_mel_ratio}
        ),
        "compute_f0": Name(step + "compute_f0", {"sample_rate": Ref("sample_rate"), "hop_size": family.mel.hop_size}),
        "parse_embedding": Name(step + "parse_embedding", {"normalize": True}),
        "shuffle": Name(step + "shuffle", {"shuffle_size": 1000}),
        "sort": Name(step + "sort", {"sort_size": 500}),
        "batch": Name(step + "batch", {"batch_type": "dynamic", "max_frames_in_batch": 2000}),
        "padding": Name(step + "padding", {"use_spk_embedding": False}),
    }


_CFM = {
    "sigma_min": 1e-06,
    "solver": "euler",
    "t_scheduler": "cosine",
    "training_cfg_rate": 0.2,
    "inference_cfg_rate": 0.7,
    "reg_loss_type": "l1",
}
_OPENING = ("parquet_opener", "tokenize", "filter", "resample")
_CLOSING = ("parse_embedding", "shuffle", "sort", "batch", "padding")
_PIPELINE = (*_OPENING, "compute_fbank", *_CLOSING)
_PIPELINE_GAN = (*_OPENING, "truncate", "compute_fbank", "compute_f0", *_CLOSING)
_TRAIN_CONF = {
    "optim": "adam",
    "optim_conf": {"lr": 1e-5},
    "scheduler": "constantlr",
    "scheduler_conf": {"warmup_steps": 2500},
    "max_epoch": 200,
    "grad_clip": 5,
    "accum_grad": 2,
    "log_interval": 100,
    "save_per_step": -1,
}
_TRAIN_CONF_GAN = {
    "optim": "adam",
    "optim_conf": {"lr": 0.0002},
    "scheduler": "constantlr",
    "optim_d": "adam",
    "optim_conf_d": {"lr": 0.0002},
    "scheduler_d": "constantlr",
    "max_epoch": 200,
    "grad_clip": 5,
    "accum_grad": 1,  # upstream asserts it
    "log_interval": 100,
    "save_per_step": -1,
}
