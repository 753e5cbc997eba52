"""Weights that come with this program, for demonstrations: a safetensors file for each of a few models of timm, and
beside it what it was trained on. Made by `benchmarks/pretrain.py`; read where `weights` is `phantoms`."""

from pathlib import Path


def shipped(model: str) -> Path | None:
    """The file of a backbone's state dict without its classifier; None for a model that has none here."""
    file = Path(__file__).with_name(f"{model}.safetensors")
    return file if file.exists() else None
