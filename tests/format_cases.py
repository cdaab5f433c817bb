"""Every format and kind of SAE that is read or refused, each built and saved by its owner's own code.

The parity tests run these cases, and `docs/formats.py` renders the table of docs/formats.md from them.
For formats with no library to install (Gemma Scope, OpenAI, OpenMOSS and those after it) the owner is an independent
transcription of the published formula. x: [n, d_in], z: [n, d_sae].
"""

from __future__ import annotations

import importlib
import json
import warnings
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import peers
import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import Tensor


@dataclass(frozen=True)
class Shape:
    """What to build. k: for TopK; threshold: for a batch's TopK; centred: b_dec subtracted, where there is a choice."""

    d_in: int = 13
    d_sae: int = 37
    k: int = 5
    dtype: torch.dtype = torch.float32
    centred: bool = True
    normalisation: str = "none"


@dataclass(frozen=True)
class Owned:
    """An SAE on disk, and what its owner computes with it."""

    path: Path
    encode: Callable[[Tensor], Tensor]
    decode: Callable[[Tensor, Tensor], Tensor]
    """x̂ of z; x for those that undo a normalisation of it."""


Make = Callable[[Path, Shape], Owned]


@dataclass(frozen=True)
class Case:
    """One kind of SAE that is read."""

    format: str
    files: str
    kind: str
    owner: str
    make: Make
    choices: tuple[dict[str, Any], ...] = field(default=({},))
    """Changes of the default shape that this kind has: b_dec, normalisations."""
    least: int = 1
    """Smallest d_in that the formula is defined for."""
    bfloat16: bool = True
    """Whether its files can hold bfloat16."""


@dataclass(frozen=True)
class Refusal:
    """One kind of SAE that is refused by name."""

    format: str
    kind: str
    make: Callable[[Path], Path]
    word: str
    """In the reason given."""


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def filled(module: Any) -> Any:
    """Random numbers in every parameter; every third threshold is 0."""
    numbers = generator()
    for name, parameter in module.named_parameters():
        parameter.data = torch.randn(parameter.shape, generator=numbers)
        if name == "threshold":
            parameter.data = parameter.data.abs()
            parameter.data[::3] = 0.0
    return module


def batch(shape: Shape, n: int = 257) -> Tensor:
    """Inputs, rounded to the dtype so that both sides are given the same."""
    return (3 * torch.randn(n, shape.d_in, generator=generator(1)) + 0.5).to(shape.dtype)


# SAELens


def saelens(kind: str) -> Make:
    def make(folder: Path, shape: Shape) -> Owned:
        lens = peers.sae_lens()
        config = {
            "d_in": shape.d_in,
            "d_sae": shape.d_sae,
            "apply_b_dec_to_input": shape.centred,
            "normalize_activations": shape.normalisation,
        }
        if kind == "standard":
            theirs = lens.StandardSAE(lens.StandardSAEConfig(**config))
        elif kind == "jumprelu":
            theirs = lens.JumpReLUSAE(lens.JumpReLUSAEConfig(**config))
        elif kind == "gated":
            theirs = lens.GatedSAE(lens.GatedSAEConfig(**config))
        else:
            rescale = kind == "topk, rescaled by the decoder's norm"
            options = config | {"k": shape.k, "rescale_acts_by_decoder_norm": rescale}
            theirs = lens.TopKSAE(lens.TopKSAEConfig(**options))
        theirs = filled(theirs).to(shape.dtype)
        theirs.save_model(folder)
        return Owned(folder, theirs.encode, _after_encode(theirs))

    return make


def _after_encode(theirs: Any) -> Callable[[Tensor, Tensor], Tensor]:
    """SAELens' decode undoes the normalisation that encode noted, once."""

    def decode(z: Tensor, x: Tensor) -> Tensor:
        theirs.encode(x)
        return theirs.decode(z)

    return decode


def saelens_batchtopk(kind: str) -> Make:
    """A training checkpoint, whose owner at inference is what SAELens saves of it as a JumpReLU."""

    def make(folder: Path, shape: Shape) -> Owned:
        lens = peers.sae_lens()
        config = {"d_in": shape.d_in, "d_sae": shape.d_sae, "k": shape.k, "apply_b_dec_to_input": shape.centred}
        if kind == "batchtopk":
            training = lens.BatchTopKTrainingSAE(lens.BatchTopKTrainingSAEConfig(**config))
        else:
            widths = [max(1, shape.d_sae // 2), shape.d_sae]
            options = lens.MatryoshkaBatchTopKTrainingSAEConfig(**config, matryoshka_widths=widths)
            training = lens.MatryoshkaBatchTopKTrainingSAE(options)
        training = filled(training)
        training.topk_threshold.fill_(1.75)
        training = training.to(shape.dtype)
        training.save_model(folder)
        training.save_inference_model(folder.parent / "inference")
        theirs = lens.SAE.load_from_disk(folder.parent / "inference").to(shape.dtype)
        return Owned(folder, theirs.encode, lambda z, _: theirs.decode(z))

    return make


def saelens_transcoder(kind: str) -> Make:
    """What it predicts has another width, so that no matrix can be turned."""

    def make(folder: Path, shape: Shape) -> Owned:
        cls, config = peers.sae_lens().registry.SAE_CLASS_REGISTRY[kind]
        known = {"d_in": shape.d_in, "d_out": shape.d_in + 2, "d_sae": shape.d_sae, "apply_b_dec_to_input": False}
        theirs = filled(cls(config(**known))).to(shape.dtype)
        theirs.save_model(folder)
        return Owned(folder, theirs.encode, _with_skip(theirs))

    return make


def _with_skip(theirs: Any) -> Callable[[Tensor, Tensor], Tensor]:
    """SAELens adds a skip connection in `forward` alone."""
    W_skip = getattr(theirs, "W_skip", None)
    return lambda z, x: theirs.decode(z) + (0 if W_skip is None else x @ W_skip.T)


# Gemma Scope


def gemma_scope(container: str) -> Make:
    def make(folder: Path, shape: Shape) -> Owned:
        numbers = generator()
        draw = lambda *size: torch.randn(size, generator=numbers).to(shape.dtype)  # noqa: E731
        W_enc, W_dec = draw(shape.d_in, shape.d_sae), draw(shape.d_sae, shape.d_in)
        b_enc, b_dec, threshold = draw(shape.d_sae), draw(shape.d_in), draw(shape.d_sae).abs()
        threshold[::3] = 0.0
        named = {"W_enc": W_enc, "W_dec": W_dec, "b_enc": b_enc, "b_dec": b_dec, "threshold": threshold}
        folder.mkdir(parents=True, exist_ok=True)
        if container == "npz":
            np.savez(folder / "params.npz", **{name: tensor.numpy() for name, tensor in named.items()})
        else:
            save_file({name.lower(): tensor for name, tensor in named.items()}, folder / "params.safetensors")

        def encode(x: Tensor) -> Tensor:
            h = x @ W_enc + b_enc
            return (h > threshold) * torch.relu(h)

        return Owned(folder, encode, lambda z, _: z @ W_dec + b_dec)

    return make


def gemma_scope_transcoder(*, skip: bool) -> Make:
    """Of Gemma 3, as SAELens' loader reads it; what it predicts has another width, so that no matrix can be turned."""

    def make(folder: Path, shape: Shape) -> Owned:
        numbers, d_out = generator(), shape.d_in + 2
        draw = lambda *size: torch.randn(size, generator=numbers).to(shape.dtype)  # noqa: E731
        stored = {"w_enc": draw(shape.d_in, shape.d_sae), "w_dec": draw(shape.d_sae, d_out), "b_enc": draw(shape.d_sae)}
        stored |= {"b_dec": draw(d_out), "threshold": draw(shape.d_sae).abs()}
        if skip:
            stored["affine_skip_connection"] = draw(shape.d_in, d_out)
        block = "model.layers.8"
        config = {"architecture": "jump_relu", "model_name": "google/gemma-3-1b-pt", "type": "transcoder", "l0": 10}
        config |= {"hf_hook_point_in": f"{block}.pre_feedforward_layernorm.output", "affine_connection": skip}
        config |= {"hf_hook_point_out": f"{block}.post_feedforward_layernorm.output", "width": shape.d_sae}
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(config))
        save_file(stored, folder / "params.safetensors")
        return owned_by_loader("gemma_3_sae_huggingface_loader", folder, "transcoder/layer_8", shape.dtype)

    return make


def owned_by_loader(loader: str, folder: Path, name: str, dtype: torch.dtype = torch.float32) -> Owned:
    """What SAELens makes of the files in a folder by one of its loaders of other people's repositories. name: what the
    loader is given as the SAE's."""
    lens = peers.sae_lens()
    loaders = importlib.import_module("sae_lens.loading.pretrained_sae_loaders")

    def download(repo_id: str, filename: str, **_: Any) -> str:
        return str(folder / Path(filename).name)

    def shapes(repo_id: str, filename: str) -> dict[str, list[int]]:
        return {key: list(tensor.shape) for key, tensor in load_file(download(repo_id, filename)).items()}

    with (
        mock.patch.object(loaders, "hf_hub_download", download),
        mock.patch.object(loaders, "get_safetensors_tensor_shapes", shapes),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        theirs = lens.SAE.from_pretrained("someone/transcoders", name, converter=getattr(loaders, loader)).to(dtype)
    return Owned(folder, theirs.encode, _with_skip(theirs))


# dictionary_learning

CLASSES = {
    "AutoEncoder": "dictionary",
    "AutoEncoderNew": "dictionary",
    "JumpReluAutoEncoder": "dictionary",
    "GatedAutoEncoder": "dictionary",
    "AutoEncoderTopK": "trainers.top_k",
    "BatchTopKSAE": "trainers.batch_top_k",
    "MatryoshkaBatchTopKSAE": "trainers.matryoshka_batch_top_k",
}


def dictionary(kind: str) -> Make:
    def make(folder: Path, shape: Shape) -> Owned:
        cls = getattr(peers.dictionary_learning(CLASSES[kind]), kind)
        arguments: list[Any] = [shape.d_in, shape.d_sae]
        if "TopK" in kind:
            arguments.append(shape.k)
        if kind.startswith("Matryoshka"):
            first = max(1, shape.d_sae // 3)
            arguments.append([first, shape.d_sae - first])
        theirs = filled(cls(*arguments))
        if hasattr(theirs, "k"):
            theirs.threshold.fill_(1.25)
        theirs = theirs.to(shape.dtype)
        folder.mkdir(parents=True, exist_ok=True)
        trainer = {
            "trainer_class": "Trainer",
            "dict_class": kind,
            "activation_dim": shape.d_in,
            "dict_size": shape.d_sae,
            "layer": 8,
            "lm_name": "EleutherAI/pythia-160m",
            "submodule_name": "resid_post_layer_8",
        }
        config = {"trainer": trainer | ({"k": shape.k} if "TopK" in kind else {}), "buffer": {"ctx_len": 128}}
        (folder / "config.json").write_text(json.dumps(config))
        torch.save({name: tensor.cpu() for name, tensor in theirs.state_dict().items()}, folder / "ae.pt")
        if kind == "AutoEncoder" and shape.dtype == torch.float32:  # what its from_pretrained does by default
            norm = theirs.decoder.weight.norm(dim=0)
            theirs.decoder.weight.data /= norm
            theirs.encoder.weight.data *= norm[:, None]
            theirs.encoder.bias.data *= norm
        elif kind == "AutoEncoder":
            norm = theirs.decoder.weight.norm(dim=0)
            return Owned(folder, lambda x: theirs.encode(x) * norm, lambda z, _: theirs.decode(z / norm))
        return Owned(folder, theirs.encode, lambda z, _: theirs.decode(z))

    return make


# sparsify


def sparsify(folder: Path, shape: Shape) -> Owned:
    module = peers.sparsify()
    config = module.SparseCoderConfig(num_latents=shape.d_sae, k=shape.k)
    theirs = filled(module.SparseCoder(shape.d_in, config)).to(shape.dtype)
    theirs.save_to_disk(folder)

    def encode(x: Tensor) -> Tensor:
        found = theirs.encode(x)
        return torch.zeros_like(found.pre_acts).scatter(-1, found.top_indices, found.top_acts)

    return Owned(folder, encode, lambda z, _: z @ theirs.W_dec + theirs.b_dec)


# OpenAI


def openai(activation: str) -> Make:
    def make(folder: Path, shape: Shape) -> Owned:
        numbers = generator()
        draw = lambda *size: torch.randn(size, generator=numbers).to(shape.dtype)  # noqa: E731
        encoder, decoder = draw(shape.d_sae, shape.d_in), draw(shape.d_in, shape.d_sae)
        latent_bias, pre_bias = draw(shape.d_sae), draw(shape.d_in)
        state: OrderedDict[str, Any] = OrderedDict()
        state["pre_bias"], state["latent_bias"] = pre_bias, latent_bias
        state["stats_last_nonzero"] = torch.zeros(shape.d_sae, dtype=torch.long)
        state["latents_activation_frequency"] = torch.ones(shape.d_sae)
        state["latents_mean_square"] = torch.zeros(shape.d_sae)
        state["encoder.weight"], state["decoder.weight"] = encoder, decoder
        state["activation"] = activation
        state["activation_state_dict"] = {"k": shape.k, "postact_fn": "ReLU"} if activation == "TopK" else {}
        folder.mkdir(parents=True, exist_ok=True)
        torch.save(state, folder / "layer_8.pt")

        def statistics(x: Tensor) -> tuple[Tensor, Tensor]:
            if activation != "TopK":
                return torch.zeros(len(x), 1, dtype=x.dtype), torch.ones(len(x), 1, dtype=x.dtype)
            mean = x.mean(-1, keepdim=True)
            return mean, ((x - mean).pow(2).sum(-1, keepdim=True) / (x.shape[-1] - 1)).sqrt()

        def encode(x: Tensor) -> Tensor:
            mean, std = statistics(x)
            epsilon = 1e-5 if activation == "TopK" else 0.0
            h = ((x - mean) / (std + epsilon) - pre_bias) @ encoder.T + latent_bias
            if activation != "TopK":
                return h.clamp_min(0)
            values, places = h.sort(dim=-1, descending=True)
            return torch.zeros_like(h).scatter(-1, places[:, : shape.k], values[:, : shape.k].clamp_min(0))

        def decode(z: Tensor, x: Tensor) -> Tensor:
            mean, std = statistics(x)
            return (z @ decoder.T + pre_bias) * std + mean

        return Owned(folder / "layer_8.pt", encode, decode)

    return make


# OpenMOSS, Qwen Scope, Goodfire, Nanda


def drawn(shape: Shape) -> dict[str, Tensor]:
    """The four tensors and positive thresholds, as rows of tokens are multiplied by them."""
    numbers = generator()
    draw = lambda *size: torch.randn(size, generator=numbers).to(shape.dtype)  # noqa: E731
    W_enc, W_dec = draw(shape.d_in, shape.d_sae), draw(shape.d_sae, shape.d_in)
    threshold = draw(shape.d_sae).abs() + 0.125
    return {"W_enc": W_enc, "W_dec": W_dec, "b_enc": draw(shape.d_sae), "b_dec": draw(shape.d_in), "t": threshold}


def largest(h: Tensor, k: int) -> Tensor:
    """The k largest of relu(h), and zeros."""
    values, places = h.sort(dim=-1, descending=True)
    return torch.zeros_like(h).scatter(-1, places[:, :k], values[:, :k].clamp_min(0))


def openmoss(kind: str) -> Make:
    """The owner normalises x, and asks its gate with decoder norms; Llama Scope's threshold is in units of x."""

    def make(folder: Path, shape: Shape) -> Owned:
        p = drawn(shape)
        scale, norm = 2.5, p["W_dec"].norm(dim=-1)
        mean_norm = float(shape.d_in) ** 0.5 / scale
        hook = "blocks.8.hook_resid_post"
        config: dict[str, Any] = {
            "hook_point_in": hook,
            "hook_point_out": hook,
            "d_model": shape.d_in,
            "top_k": shape.k,
        }
        config |= {"use_decoder_bias": True, "norm_activation": "dataset-wise", "sparsity_include_decoder_norm": True}
        config |= {"use_glu_encoder": False, "act_fn": "topk" if kind.endswith("topk") else "jumprelu"}
        linear = {"encoder.weight": p["W_enc"].T, "encoder.bias": p["b_enc"]}
        linear |= {"decoder.weight": p["W_dec"].T, "decoder.bias": p["b_dec"]}
        plain = {"W_E": p["W_enc"], "b_E": p["b_enc"], "W_D": p["W_dec"], "b_D": p["b_dec"]}
        plain[f"dataset_average_activation_norm.{hook}"] = torch.tensor(mean_norm)
        if kind == "Llama Scope":
            norms = {"in": mean_norm, "out": mean_norm}
            config |= {"d_sae": shape.d_sae, "jump_relu_threshold": 0.5, "dataset_average_activation_norm": norms}
            config |= {"apply_decoder_bias_to_pre_encoder": False}
            named, stored = "hyperparams.json", linear
        else:
            config |= {"sae_type": "sae", "expansion_factor": shape.d_sae / shape.d_in}
            named, stored = "config.json", plain
            if config["act_fn"] == "jumprelu":
                stored = linear | {name: plain[name] for name in plain if name.startswith("dataset")}
                stored["log_jumprelu_threshold"] = p["t"].log()
        folder.mkdir(parents=True, exist_ok=True)
        (folder / named).write_text(json.dumps(config))
        save_file({name: tensor.contiguous() for name, tensor in stored.items()}, folder / "sae_weights.safetensors")

        def encode(x: Tensor) -> Tensor:
            h = (x * scale) @ p["W_enc"] + p["b_enc"]
            if config["act_fn"] == "topk":
                return largest(h * norm, shape.k)
            threshold = 0.5 * scale if kind == "Llama Scope" else p["t"].log().exp()
            return h * (h * norm > threshold)

        def decode(z: Tensor, _: Tensor) -> Tensor:
            if config["act_fn"] == "topk":  # here codes are read in units of what they add to the output
                z = z / norm
            return (z @ p["W_dec"] + p["b_dec"]) / scale

        return Owned(folder, encode, decode)

    return make


def qwen_scope(folder: Path, shape: Shape) -> Owned:
    p = drawn(shape)
    folder.mkdir(parents=True, exist_ok=True)
    config = {"model_type": "topk_sae", "base_model": "Qwen/Qwen3-1.7B-Base", "hook_point": "resid_post"}
    config |= {"d_model": shape.d_in, "d_sae": shape.d_sae, "k": shape.k, "num_layers": 28, "dtype": "float32"}
    (folder / "config.json").write_text(json.dumps(config))
    stored = {"W_enc": p["W_enc"].T, "W_dec": p["W_dec"].T, "b_enc": p["b_enc"], "b_dec": p["b_dec"]}
    torch.save({name: tensor.contiguous() for name, tensor in stored.items()}, folder / "layer8.sae.pt")
    encode = lambda x: largest(x @ p["W_enc"] + p["b_enc"], shape.k)  # noqa: E731
    return Owned(folder, encode, lambda z, _: z @ p["W_dec"] + p["b_dec"])


def goodfire(folder: Path, shape: Shape) -> Owned:
    encoder, decoder = torch.nn.Linear(shape.d_in, shape.d_sae), torch.nn.Linear(shape.d_sae, shape.d_in)
    layers = torch.nn.ModuleDict({"encoder_linear": encoder, "decoder_linear": decoder}).to(shape.dtype)
    filled(layers)
    layers.to(shape.dtype)
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(layers.state_dict(), folder / "Llama-3.1-8B-Instruct-SAE-l19.pth")
    return Owned(folder, lambda x: encoder(x).relu(), lambda z, _: decoder(z))


def nanda(folder: Path, shape: Shape) -> Owned:
    p = drawn(shape)
    folder.mkdir(parents=True, exist_ok=True)
    config = {"model_name": "gpt2-small", "act_name": "blocks.8.attn.hook_z", "site": "z", "layer": 8, "head": "cat"}
    config |= {"act_size": shape.d_in, "dict_size": shape.d_sae, "seq_len": 128, "concat_heads": True}
    (folder / "gpt2_8_z_cfg.json").write_text(json.dumps(config))
    torch.save({name: p[name] for name in ("W_enc", "b_enc", "W_dec", "b_dec")}, folder / "gpt2_8_z.pt")
    encode = lambda x: ((x - p["b_dec"]) @ p["W_enc"] + p["b_enc"]).relu()  # noqa: E731
    return Owned(folder, encode, lambda z, _: z @ p["W_dec"] + p["b_dec"])


def circuit_tracer(kind: str) -> Make:
    """A layer of a set, with the configs of Hanna's of Qwen 3. SAELens' loader knows neither thresholds nor W_skip; of
    those the owner is a transcription."""

    def make(folder: Path, shape: Shape) -> Owned:
        p, numbers = drawn(shape), generator(2)
        W_skip = torch.randn(shape.d_in, shape.d_in, generator=numbers).to(shape.dtype)
        stored = {"W_enc": p["W_enc"].T, "b_enc": p["b_enc"], "W_dec": p["W_dec"], "b_dec": p["b_dec"]}
        stored |= {"W_skip": W_skip} if kind == "ReLU, W_skip" else {}
        stored |= {"activation_function.threshold": p["t"]} if kind == "JumpReLU" else {}
        folder.mkdir(parents=True, exist_ok=True)
        circuit_tracer_configs(folder, shape, "jumprelu" if kind == "JumpReLU" else "relu")
        save_file({name: tensor.contiguous() for name, tensor in stored.items()}, folder / "layer_8.safetensors")
        if kind == "ReLU":
            return owned_by_loader("mwhanna_transcoder_huggingface_loader", folder, "layer_8.safetensors", shape.dtype)

        def encode(x: Tensor) -> Tensor:
            h = x @ p["W_enc"] + p["b_enc"]
            return h * (h > p["t"]) if kind == "JumpReLU" else h.relu()

        straight = lambda x: x @ W_skip.T if kind == "ReLU, W_skip" else 0  # noqa: E731
        return Owned(folder, encode, lambda z, x: z @ p["W_dec"] + p["b_dec"] + straight(x))

    return make


def circuit_tracer_configs(folder: Path, shape: Shape, act_fn: str = "relu", **changes: Any) -> None:
    """config.yaml and the record of training."""
    config = {"model_name": "Qwen/Qwen3-4B", "model_kind": "transcoder_set", "feature_input_hook": "mlp.hook_in"}
    config |= {"feature_output_hook": "mlp.hook_out"} | changes
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    run = {"d_model": shape.d_in, "d_feature": shape.d_sae, "batch_size": 8192, "act_fn": act_fn}
    (folder / "wandb-config.yaml").write_text(yaml.safe_dump({key: {"value": value} for key, value in run.items()}))


NORMALISED = tuple(
    {"normalisation": name, "centred": centred}
    for name in ("none", "layer_norm", "constant_norm_rescale", "expected_average_only_in")
    for centred in (True, False)
)
LENS = ("SAELens", "cfg.json, sae_weights.safetensors")
DICTIONARY = ("dictionary_learning", "ae.pt, config.json")
CENTRED = ({}, {"centred": False})

CASES = (
    *(
        Case(*LENS, kind, "sae-lens", saelens(kind), NORMALISED, least=2)
        for kind in ("standard", "jumprelu", "gated", "topk", "topk, rescaled by the decoder's norm")
    ),
    *(
        Case(*LENS, kind, "sae-lens", saelens_batchtopk(kind), CENTRED)
        for kind in ("batchtopk", "matryoshka_batchtopk")
    ),
    *(
        Case(*LENS, kind, "sae-lens", saelens_transcoder(kind))
        for kind in ("transcoder", "skip_transcoder", "jumprelu_transcoder", "jumprelu_skip_transcoder")
    ),
    Case("Gemma Scope", "params.npz", "Gemma 2", "a transcription", gemma_scope("npz"), bfloat16=False),
    Case("Gemma Scope", "params.safetensors", "Gemma 3", "a transcription", gemma_scope("safetensors")),
    *(
        Case("Gemma Scope", "params.safetensors", f"transcoder{kind}", "sae-lens", gemma_scope_transcoder(skip=skip))
        for kind, skip in (("", False), (", affine skip connection", True))
    ),
    *(Case(*DICTIONARY, kind, "dictionary-learning", dictionary(kind)) for kind in CLASSES),
    Case("sparsify", "cfg.json, sae.safetensors", "topk", "eai-sparsify", sparsify),
    Case("OpenAI", ".pt", "TopK", "a transcription", openai("TopK"), least=2),
    Case("OpenAI", ".pt", "ReLU", "a transcription", openai("ReLU")),
    Case("OpenMOSS", "hyperparams.json, checkpoints/", "Llama Scope", "a transcription", openmoss("Llama Scope")),
    *(
        Case("OpenMOSS", "config.json, sae_weights.safetensors", kind, "a transcription", openmoss(kind))
        for kind in ("jumprelu", "topk")
    ),
    Case("Qwen Scope", "layerN.sae.pt, config.json", "TopK", "a transcription", qwen_scope),
    Case("Goodfire", ".pt", "ReLU", "a transcription", goodfire),
    Case("1L-Sparse-Autoencoder", "NAME.pt, NAME_cfg.json", "ReLU", "a transcription", nanda),
    Case("circuit-tracer", "layer_N.safetensors, config.yaml", "transcoder", "sae-lens", circuit_tracer("ReLU")),
    *(
        Case("circuit-tracer", "layer_N.safetensors, config.yaml", f"transcoder, {name}", "a transcription", make)
        for name, make in (("W_skip", circuit_tracer("ReLU, W_skip")), ("JumpReLU", circuit_tracer("JumpReLU")))
    ),
)

CONFIG_SUFFIXES = (".json", ".yaml")
"""Files of a case that are no weights."""


def _lens(name: str) -> Callable[[Path], Path]:
    def build(folder: Path) -> Path:
        lens = peers.sae_lens()
        cls, config = lens.registry.SAE_CLASS_REGISTRY[name]
        cls(config(d_in=13, d_sae=37)).save_model(folder)
        return folder

    return build


def _sparse(**options: Any) -> Callable[[Path], Path]:
    def build(folder: Path) -> Path:
        module = peers.sparsify()
        config = module.SparseCoderConfig(num_latents=40, k=5, **options)
        filled(module.SparseCoder(13, config)).save_to_disk(folder)
        return folder

    return build


def _of_type(kind: str) -> Callable[[Path], Path]:
    def build(folder: Path) -> Path:
        gemma_scope_transcoder(skip=False)(folder, Shape())
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"type": kind}))
        return folder

    return build


def cross_layer(folder: Path, *, jumps: bool = False) -> Path:
    """Layer 5 of a cross-layer transcoder that writes to three layers, as circuit-tracer saves it."""
    p, shape = drawn(Shape()), Shape()
    folder.mkdir(parents=True, exist_ok=True)
    hooks = {"feature_input_hook": "hook_resid_mid", "feature_output_hook": "hook_mlp_out"}
    circuit_tracer_configs(folder, shape, model_kind="cross_layer_transcoder", model_name="google/gemma-2-2b", **hooks)
    stored = {"W_enc_5": p["W_enc"].T.contiguous(), "b_enc_5": p["b_enc"], "b_dec_5": p["b_dec"]}
    save_file(stored | ({"threshold_5": p["t"]} if jumps else {}), folder / "W_enc_5.safetensors")
    onward = torch.stack([p["W_dec"], 2 * p["W_dec"].flip(0), -p["W_dec"].flip(1)], 1)
    save_file({"W_dec_5": onward.contiguous()}, folder / "W_dec_5.safetensors")
    return folder / "W_enc_5.safetensors"


def _topk_of_circuit_tracer(folder: Path) -> Path:
    circuit_tracer("ReLU")(folder, Shape())
    circuit_tracer_configs(folder, Shape(), activation="topk", k=5)
    return folder


def _openai(**changes: Any) -> Callable[[Path], Path]:
    def build(folder: Path) -> Path:
        path = openai("TopK")(folder, Shape()).path
        torch.save(torch.load(path, weights_only=True) | changes, path)
        return path

    return build


REFUSALS = (
    Refusal("SAELens", "abstopk", _lens("abstopk"), "abstopk"),
    Refusal("Gemma Scope", "cross-layer transcoder", _of_type("clt"), "cross-layer"),
    Refusal("Gemma Scope", "crosscoder", _of_type("crosscoder"), "crosscoder"),
    Refusal("sparsify", "transcoder", _sparse(transcode=True), "transcode"),
    Refusal("sparsify", "skip connection", _sparse(skip_connection=True), "skip_connection"),
    Refusal("sparsify", "groupmax", _sparse(activation="groupmax"), "groupmax"),
    Refusal(
        "OpenAI", "TopK without ReLU", _openai(activation_state_dict={"k": 5, "postact_fn": "Identity"}), "Identity"
    ),
    Refusal("circuit-tracer", "cross-layer transcoder", cross_layer, "cross-layer"),
    Refusal("circuit-tracer", "TopK without ReLU", _topk_of_circuit_tracer, "topk"),
)


# The hub

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def cached(cache: Path, repository: str) -> Path:
    """The snapshot folder of a repository in the hub's cache layout."""
    top = cache / f"models--{repository.replace('/', '--')}"
    (top / "refs").mkdir(parents=True)
    (top / "refs" / "main").write_text(COMMIT)
    folder = top / "snapshots" / COMMIT
    folder.mkdir(parents=True)
    return folder
