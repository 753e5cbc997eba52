"""Any backbone of timm as a body, with its own normalisation and, if wanted, pretrained weights."""

import socket
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.layers import DropPath
from timm.models import VGG
from torch import nn

from datasets import InputError, nearest
from datasets.pixels import Interpolation
from trainables.weights import shipped


def backbone(model: str, channels: int, image_size_px: int, pooling: str, weights: str) -> tuple[nn.Module, int, Any]:
    """The network without its classifier, its number of features, and timm's configuration of it (mean, std, …).

    model: a name of timm's, with or without the tag of its weights (`inception_v3.tf_in1k`). Of a VGG the wide dense
    layers belong to the classifier, as in Keras' `include_top=False`: its features are the 512 channels before them.
    pooling: `avg` or `max` over the last map of features; with `flatten` the network gives the map itself.
    weights: `imagenet` (timm's, from the hub or its cache), `none`, `phantoms` (those of `trainables/weights/`; random
    ones for a model that is not there), or the path of a safetensors file of the backbone's state dict; a classifier
    in it is ignored.
    """
    if not timm.is_model(model.split(".")[0]):
        raise InputError(f"unknown model {model!r}{nearest(model, timm.list_models())} Any model of timm will do.")
    if weights == "imagenet" and not _hub_answers():
        # The hub's client would try for a minute; what it has cached it gives without.
        huggingface_hub.constants.HF_HUB_OFFLINE = True
    try:
        module = _created(
            model,
            {
                "in_chans": channels,
                "num_classes": 0,
                "global_pool": "" if pooling == "flatten" else pooling,
                **_pretrained(model, weights),
            },
            # Where it has a fixed size it is given ours. Dropout is the searched head's business: a prefix that is
            # computed once could not have any.
            {"img_size": image_size_px, "drop_rate": 0.0, "drop_path_rate": 0.0},
        )
    except (OSError, RuntimeError) as error:
        if weights != "imagenet":
            raise
        raise InputError(
            f"the ImageNet weights of {model} cannot be fetched ({type(error).__name__}: {_first_line(error)}).\n"
            f"Either give a file that you have: --weights FILE.safetensors\n"
            f"or start from random weights: --weights none"
        ) from error
    if isinstance(module, VGG):
        module.pre_logits = nn.Identity()
    if weights not in ("imagenet", "none", "phantoms"):
        _load_weights(module, model, Path(weights))
    try:
        with torch.inference_mode():  # `num_features` is not what comes out where a layer follows the pooling
            features = module.eval()(torch.zeros(1, channels, image_size_px, image_size_px)).numel()
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"{model} cannot take images of {image_size_px} px: {_first_line(error)}") from error
    return module, features, module.pretrained_cfg


def published_interpolation(model: str) -> Interpolation:
    """With which images were resized for the weights of a model of timm."""
    published = timm.get_pretrained_cfg(model) if timm.is_model(model.split(".")[0]) else None
    return published.interpolation if published else "bilinear"


def _pretrained(model: str, weights: str) -> dict[str, Any]:
    """timm's arguments for weights that it loads, and adapts to gray images and to two stains."""
    file = shipped(model) if weights == "phantoms" else None
    overlay = {"pretrained_cfg_overlay": {"file": str(file)}} if file else {}
    return {"pretrained": weights == "imagenet" or bool(file), **overlay}


def _created(model: str, options: dict[str, Any], wishes: dict[str, Any]) -> nn.Module:
    """timm's model with the options, and with those wishes that it knows."""
    while True:
        try:
            module = timm.create_model(model, **options, **wishes)
            break
        except TypeError as error:
            unexpected = "unexpected keyword argument" in str(error)
            unknown = [name for name in wishes if unexpected and f"'{name}'" in str(error)]
            if not unknown:
                raise
            wishes = {name: value for name, value in wishes.items() if name not in unknown}
    for layer in module.modules():
        if isinstance(layer, nn.modules.dropout._DropoutNd):
            layer.p = 0.0
        elif isinstance(layer, DropPath):
            layer.drop_prob = 0.0
    return module


def _load_weights(module: nn.Module, model: str, file: Path) -> None:
    if not file.is_file():
        raise InputError(f"--weights {file}: no such file; or use `imagenet` or `none`")
    try:
        given = load_file(file)
    except SafetensorError as error:
        raise InputError(f"--weights {file}: not a safetensors file ({error})") from error
    wanted = module.state_dict()
    missing = sorted(wanted.keys() - given.keys())
    wrong = sorted(name for name in wanted.keys() & given.keys() if wanted[name].shape != given[name].shape)
    if missing or wrong:
        example = (missing or wrong)[0]
        raise InputError(
            f"--weights {file}: not the weights of {model}: {len(missing)} of {len(wanted)} tensors are missing, "
            f"{len(wrong)} have another shape ({example}, for one)"
        )
    with torch.no_grad():
        module.load_state_dict({name: given[name] for name in wanted})


def _hub_answers() -> bool:
    """Whether the hub can be connected to; through a proxy it is left to the client to find out."""
    hub = urllib.parse.urlsplit(huggingface_hub.constants.ENDPOINT)
    if urllib.request.getproxies() or not hub.hostname:
        return True
    try:
        socket.create_connection((hub.hostname, hub.port or 443), timeout=5).close()
    except OSError:
        return False
    return True


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0][:200]
