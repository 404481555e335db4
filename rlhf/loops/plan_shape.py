"""Sizes of models for `rlhf plan`, from their configs alone; no weights are loaded."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from rlhf.loops import learners, teacher
from rlhf.loops.settings import Settings
from rlhf.loops.teacher import TeacherConfig
from rlhf.models.load import DTYPES
from rlhf.runtime.memory import Shape


def of_teacher(cfg: TeacherConfig, settings: Settings, student: Shape) -> Shape:
    """That of a teacher; one that is an earlier stage is like its student."""
    path = teacher.path_of(cfg, needed=True, stages=settings.stages)
    if path is None:
        return student
    model = settings.model
    return model_shape(learners.local(settings, path), dtype=model.dtype, trust_remote_code=model.trust_remote_code)


def model_shape(folder: Path, *, dtype: str = "auto", trust_remote_code: bool) -> Shape:
    """Sizes of the model in a folder.

    Args:
        dtype: a key of `DTYPES`, of the weights.
    """
    config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code, local_files_only=True)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
    text = config.get_text_config()
    told = vars(text)
    heads = text.num_attention_heads
    names = [name for name, _ in model.named_parameters()]
    of_experts = (told.get("moe_intermediate_size") or 0) * (told.get("num_experts_per_tok") or 0)
    chosen = DTYPES[dtype]
    return Shape(
        parameters=sum(p.numel() for p in model.parameters()),
        layers=text.num_hidden_layers,
        hidden=text.hidden_size,
        intermediate=of_experts or told.get("intermediate_size") or told.get("n_inner") or 4 * text.hidden_size,
        heads=heads,
        kv_heads=told.get("num_key_value_heads") or heads,
        head_dim=told.get("head_dim") or text.hidden_size // heads,
        vocabulary=text.vocab_size,
        gated=any(".gate_proj." in name or ".gate_up_proj" in name for name in names),
        head_norms=any(name.endswith("q_norm.weight") for name in names),
        positions=told.get("max_position_embeddings") or told.get("n_positions"),
        bytes_per_value=(next(model.parameters()).dtype if isinstance(chosen, str) else chosen).itemsize,
    )
