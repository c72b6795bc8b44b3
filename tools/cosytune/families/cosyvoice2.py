"""CosyVoice2-0.5B, in numbers.

Sources: upstream's own configuration and classes at 6e01309; sizes and hashes of the published files as the model's
Hugging Face repository lists them at the revision named here (the YAML's hash was recomputed from upstream's example,
the speech tokenizer's stands in the s3tokenizer package).
"""

from __future__ import annotations

from cosytune.families.cosyvoice2_document import document
from cosytune.families.family import Family, FlowShape, LlmShape, Mel, Published, Shape, VocoderShape

_MEL = Mel(n_fft=1920, num_mels=80, sampling_rate=24000, hop_size=480, win_size=1920, fmin=0, fmax=8000, center=False)

_REAL = Shape(
    llm=LlmShape(
        hidden_size=896,
        num_hidden_layers=24,
        num_attention_heads=14,
        num_key_value_heads=2,
        intermediate_size=4864,
        vocab_size=151936,
        initializer_range=0.02,
    ),
    flow=FlowShape(
        encoder_blocks=6,
        encoder_units=2048,
        encoder_heads=8,
        estimator_channels=256,
        estimator_blocks=4,
        estimator_mid_blocks=12,
        estimator_heads=8,
        estimator_head_dim=64,
    ),
    vocoder=VocoderShape(base_channels=512, f0_channels=512),
)
_RANDOM = Shape(
    llm=LlmShape(
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=128,
        vocab_size=2048,
        # 1 / sqrt(hidden_size): at 0.02 so narrow a layer passes nothing on, and a LoRA on it hardly learns
        initializer_range=0.125,
    ),
    flow=FlowShape(
        encoder_blocks=1,
        encoder_units=128,
        encoder_heads=8,
        estimator_channels=64,
        estimator_blocks=1,
        estimator_mid_blocks=2,
        estimator_heads=4,
        estimator_head_dim=16,
    ),
    vocoder=VocoderShape(base_channels=64, f0_channels=64),
)
_TINY = Shape(
    llm=LlmShape(
        hidden_size=256,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=768,
        vocab_size=512,
        initializer_range=0.02,
    ),
    flow=FlowShape(
        encoder_blocks=1,
        encoder_units=256,
        encoder_heads=8,
        estimator_channels=128,
        estimator_blocks=1,
        estimator_mid_blocks=4,
        estimator_heads=4,
        estimator_head_dim=32,
    ),
    vocoder=VocoderShape(base_channels=160, f0_channels=128),
    scripts={"ja": "katakana"},  # kanji would be too much to learn
)


_LLM_LAYERS = r"llm\.model\.model\.layers\.\d+\.(self_attn\.[qkvo]_proj|mlp\.(gate|up|down)_proj)"
_FLOW_ESTIMATOR = r"decoder\.estimator\..*\.(attn1\.(to_[qkv]|to_out\.0)|ff\.net\.(0\.proj|2))"
_FLOW_LAYERS = (
    r"encoder\.(encoders|up_encoders)\.\d+\.(self_attn\.linear_(q|k|v|out|pos)|feed_forward\.w_[12])"
    rf"|{_FLOW_ESTIMATOR}"
)
_LLM_MINIMUM = r"llm\.model\.model\.layers\.\d+\.self_attn\.[qv]_proj"
_FLOW_MINIMUM = r"encoder\.(encoders|up_encoders)\.\d+\.self_attn\.linear_[qv]|decoder\.estimator\..*\.attn1\.to_[qv]"

COSYVOICE2 = Family(
    name="cosyvoice2-0.5b",
    title="CosyVoice2-0.5B",
    huggingface="FunAudioLLM/CosyVoice2-0.5B",
    modelscope="iic/CosyVoice2-0.5B",
    revision="eec1ae6c79877dbd9379285cf8789c9e0879293d",
    modelscope_revision="master",
    published={
        "cosyvoice2.yaml": Published(7330, "0af2c0d010c477187c39f3e8fd5f1ae2e4e6f90ad03ba37c10ed6c6a87b05959"),
        "llm.pt": Published(2023316821, "b144ef55b51ce8cfb79a73c90dbba0bdaba4e451c0ebcfab20f769264f84a608"),
        "flow.pt": Published(450575567, "ff4c2f867674411e0a08cee702996df13fa67c1cd864c06108da88d16d088541"),
        "hift.pt": Published(83390254, "3386cc880324d4e98e05987b99107f49e40ed925b8ecc87c1f4939432d429879"),
        "campplus.onnx": Published(28303423, "a6ac6a63997761ae2997373e2ee1c47040854b4b759ea41ec48e4e42df0f4d73"),
        "speech_tokenizer_v2.onnx": Published(
            496082973, "d43342aa12163a80bf07bffb94c9de2e120a8df2f9917cd2f642e7f4219c6f71"
        ),
        "CosyVoice-BlankEN/config.json": Published(
            659, "168aa1bd401abc3bc262ba15ba4e499627a8b4e006e9d050b47c22de20660185"
        ),
        "CosyVoice-BlankEN/generation_config.json": Published(
            242, "e558847a8b4402616f1273797b015104dc266fe4b520056fca88823ba8f8ebe6"
        ),
        "CosyVoice-BlankEN/merges.txt": Published(
            1402109, "ac8ff86a72bee70828fbc1119bc4398c6f3a9a6e490d7b0dbe917be025478bd0"
        ),
        "CosyVoice-BlankEN/model.safetensors": Published(
            988097824, "130282af0dfa9fe5840737cc49a0d339d06075f83c5a315c3372c9a0740d0b96"
        ),
        "CosyVoice-BlankEN/tokenizer_config.json": Published(
            1287, "482bd979881423375ca5414e4e0d94cd7c5349dbb17fffd46b4d36d71e62a1bc"
        ),
        "CosyVoice-BlankEN/vocab.json": Published(
            2776833, "ca10d7e9fb3ed18575dd1e277a2579c16d108e32f27439684afa0e10b1440910"
        ),
    },
    upstream_commit="6e01309e01bc93bbeb83bdd996b1182a81aaf11e",
    sample_rate_hz=_MEL.sampling_rate,
    token_rate_hz=25,
    token_mel_ratio=2,
    speech_token_size=3**8,
    mix_ratio=(5, 15),
    speaker_embedding_size=192,
    mel=_MEL,
    yaml="cosyvoice2.yaml",
    llm="llm.pt",
    flow="flow.pt",
    vocoder="hift.pt",
    speaker_encoder="campplus.onnx",
    speech_tokenizer="speech_tokenizer_v2.onnx",
    text_tokenizer="CosyVoice-BlankEN",
    real=_REAL,
    random=_RANDOM,
    tiny=_TINY,
    qwen={
        "attention_dropout": 0.0,
        "bos_token_id": 151643,
        "eos_token_id": 151645,
        "hidden_act": "silu",
        "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-06,
        "rope_theta": 1000000.0,
        "sliding_window": None,
        "tie_word_embeddings": True,
        "use_cache": True,
        "use_sliding_window": False,
    },
    lora_targets={
        "llm": {"default": _LLM_LAYERS, "minimal": _LLM_MINIMUM},
        "flow": {
            "default": _FLOW_LAYERS,
            "minimal": _FLOW_MINIMUM,
            "estimator": _FLOW_ESTIMATOR,
            "speaker": "spk_embed_affine_layer|encoder_proj",
        },
    },
    scripts={},
    document=document,
)
