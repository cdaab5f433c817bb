"""Hooks, truncated and resumed forwards: on tiny models of four architectures and the real embedded one."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import TINY_DEPTH, TINY_FAMILIES, TINY_VOCABULARY, TINY_WIDTH, tiny_model, tiny_tokenizer
from torch import Tensor

from rational_sae.data.language_model import Hook, Host, load_host, wants_bos
from rational_sae.errors import HostError

pytestmark = pytest.mark.usefixtures("same_products")

BLOCK_PATHS = {
    "gpt2": "transformer.h",
    "gpt_neox": "gpt_neox.layers",
    "gemma2": "model.layers",
    "llama": "model.layers",
}
BOUNDARIES = range(TINY_DEPTH + 1)


@pytest.fixture(params=TINY_FAMILIES)
def tiny(request: pytest.FixtureRequest, tiny_hosts: dict[str, Host]) -> Host:
    return tiny_hosts[request.param]


@pytest.fixture
def ids() -> Tensor:
    return torch.randint(4, len(TINY_VOCABULARY), (3, 12), generator=torch.Generator().manual_seed(1))


def at(boundary: int) -> Hook:
    return Hook("test", boundary)


@torch.no_grad()
def reference(host: Host, ids: Tensor) -> list[Tensor]:
    """The stream at every boundary. HF's last entry has the final norm applied, so a hook gets it."""
    last: list[Tensor] = []

    def catch(_module: Any, _args: Any, output: Any) -> None:
        last.append(output if isinstance(output, Tensor) else output[0])

    handle = host.blocks[len(host.blocks) - 1].register_forward_hook(catch)
    states = host.model(input_ids=ids, output_hidden_states=True, use_cache=False).hidden_states
    handle.remove()
    return [*states[:-1], last[0]]


def assert_stream_agrees(host: Host, ids: Tensor, boundaries: list[int]) -> None:
    states = reference(host, ids)
    clean = host.model(input_ids=ids, use_cache=False).logits
    for boundary in boundaries:
        x = host.residual(ids, at(boundary))
        assert torch.equal(x, states[boundary])
        assert torch.equal(host.logits_from(ids, at(boundary), x), clean)


def test_residual_is_the_stream_at_every_boundary(tiny: Host, ids: Tensor) -> None:
    assert tiny.d_model == TINY_WIDTH
    states = reference(tiny, ids)
    assert len(states) == TINY_DEPTH + 1
    for boundary in BOUNDARIES:
        x = tiny.residual(ids, at(boundary))
        assert torch.equal(x, states[boundary])
        assert not x.requires_grad
    for one, next_one in pairwise(states):
        assert not torch.allclose(one, next_one)  # so that an index off by one would show


def test_the_clean_stream_gives_the_clean_logits_exactly(tiny: Host, ids: Tensor) -> None:
    assert_stream_agrees(tiny, ids, list(BOUNDARIES))


def test_another_stream_gives_other_logits(tiny: Host, ids: Tensor) -> None:
    clean = tiny.model(input_ids=ids, use_cache=False).logits
    for boundary in BOUNDARIES:
        x = tiny.residual(ids, at(boundary))
        assert not torch.allclose(tiny.logits_from(ids, at(boundary), torch.zeros_like(x)), clean)
        x[:, 5] += torch.linspace(-1, 1, TINY_WIDTH)
        changed = (tiny.logits_from(ids, at(boundary), x) != clean).any(-1)
        assert not changed[:, :5].any()  # causal: nothing before the change moves
        assert changed[:, 5].all()


def test_padding_on_the_right_does_not_move_the_stream(tiny: Host, ids: Tensor) -> None:
    padded = torch.cat([ids, torch.zeros(3, 4, dtype=ids.dtype)], dim=1)
    for boundary in BOUNDARIES:
        x = tiny.residual(padded, at(boundary))[:, : ids.shape[1]]
        torch.testing.assert_close(x, tiny.residual(ids, at(boundary)))


def hooks_on(host: Host) -> int:
    """transformers keeps a few of its own once hidden states were asked for, so only the change counts."""
    return sum(len(module._forward_pre_hooks) + len(module._forward_hooks) for module in host.model.modules())


def test_the_model_is_left_as_it_was(tiny: Host, ids: Tensor) -> None:
    clean = tiny.model(input_ids=ids, use_cache=False).logits
    hooks = hooks_on(tiny)
    for boundary in BOUNDARIES:
        x = tiny.residual(ids, at(boundary))
        tiny.logits_from(ids, at(boundary), torch.zeros_like(x))
        assert hooks_on(tiny) == hooks
        assert all("forward" not in vars(block) for block in tiny.blocks)
    assert torch.equal(tiny.model(input_ids=ids, use_cache=False).logits, clean)


def test_the_model_is_left_as_it_was_after_a_failure(tiny: Host, ids: Tensor) -> None:
    hooks = hooks_on(tiny)
    with pytest.raises(RuntimeError):
        tiny.logits_from(ids, at(2), torch.zeros(3, 12, TINY_WIDTH + 1))
    assert hooks_on(tiny) == hooks
    assert all("forward" not in vars(block) for block in tiny.blocks)


def test_both_styles_of_name_are_one_boundary(tiny: Host) -> None:
    path = BLOCK_PATHS[tiny.model.config.model_type]
    for i in range(TINY_DEPTH):
        assert tiny.hook(f"{path}.{i}").boundary == i + 1
        assert tiny.hook(f"blocks.{i}.hook_resid_post").boundary == i + 1
        assert tiny.hook(f"blocks.{i}.hook_resid_pre").boundary == i
    assert tiny.hook("blocks.1.hook_resid_pre").name == "blocks.1.hook_resid_pre"
    assert tiny.hook(f"{path.rpartition('.')[2]}.1").boundary == 2  # as sparsify names it


@pytest.mark.parametrize(
    "spell",
    [
        lambda path: f"{path}.{TINY_DEPTH}",
        lambda path: f"blocks.{TINY_DEPTH}.hook_resid_post",
        lambda path: f"{path}.-1",
        lambda path: "blocks.1.resid_post",
        lambda path: "1",
        lambda path: "",
    ],
)
def test_an_unknown_hook_is_refused_naming_the_nearest(tiny: Host, spell: Callable[[str], str]) -> None:
    with pytest.raises(HostError, match="nearest: ") as error:
        tiny.hook(spell(BLOCK_PATHS[tiny.model.config.model_type]))
    for near in error.value.remedy.removeprefix("nearest: ").split(", "):
        tiny.hook(near)


def test_the_nearest_is_the_one_that_was_meant(tiny_hosts: dict[str, Host]) -> None:
    with pytest.raises(HostError, match=r"blocks\.1\.hook_resid_(pre|post)"):
        tiny_hosts["gpt2"].hook("blocks.1.resid_post")


@pytest.mark.parametrize("family", TINY_FAMILIES)
def test_a_folder_in_the_hubs_layout_loads_as_the_same_model(
    family: str, tiny_hosts: dict[str, Host], ids: Tensor
) -> None:
    loaded = tiny_hosts[family]
    with torch.no_grad():
        assert torch.equal(loaded.model(input_ids=ids).logits, tiny_model(family)(input_ids=ids).logits)
    assert not loaded.model.training
    assert not any(parameter.requires_grad for parameter in loaded.model.parameters())
    assert loaded.tokenizer("w0 w3").input_ids == tiny_tokenizer()("w0 w3").input_ids


def test_a_model_that_cannot_be_loaded_is_refused_in_one_line(tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF but not really")
    for name in [
        str(tmp_path),
        str(tmp_path / "absent"),
        str(tmp_path / "absent.gguf"),
        "nobody/nothing",
        str(broken),
    ]:
        with pytest.raises(HostError) as error:
            load_host(name)
        assert "\n" not in str(error.value)
        assert error.value.remedy


def test_damaged_weights_are_refused_in_one_line(tiny_folders: dict[str, Path], tmp_path: Path) -> None:
    for file in tiny_folders["llama"].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(HostError) as error:
        load_host(str(tmp_path))
    assert "\n" not in str(error.value)


def test_bos_follows_the_models_convention(tiny_hosts: dict[str, Host]) -> None:
    assert wants_bos(tiny_hosts["gemma2"], "auto")  # its tokenizer does not add it, and it needs it
    assert not wants_bos(tiny_hosts["llama"], "auto")
    for tiny in tiny_hosts.values():
        assert wants_bos(tiny, "yes")
        assert not wants_bos(tiny, "no")


def test_smollm2_reads_text_without_bos(host: Host) -> None:
    assert not wants_bos(host, "auto")


def test_smollm2_predicts_sensibly_and_its_stream_can_be_resumed(host: Host) -> None:
    assert (host.d_model, len(host.blocks)) == (576, 30)
    sentence = "The capital of France is Paris, and the capital of Germany is Berlin."
    ids = host.tokenizer(sentence, return_tensors="pt").input_ids
    logits = host.model(input_ids=ids).logits
    loss = torch.nn.functional.cross_entropy(logits[0, :-1], ids[0, 1:])
    assert 1.0 < float(loss) < 2.5  # guessing at random costs log(49152) = 10.8; seen 1.72
    assert_stream_agrees(host, ids[:, :8], [0, 12, 30])


def test_smollm2_hooks(host: Host) -> None:
    assert host.hook("model.layers.11").boundary == host.hook("blocks.11.hook_resid_post").boundary == 12
    assert host.hook("blocks.12.hook_resid_pre").boundary == 12
    with pytest.raises(HostError):
        host.hook("model.layers.30")


def test_a_token_without_a_row_in_the_embedding_is_named_before_the_model_meets_it(tiny: Host, ids: Tensor) -> None:
    ids = ids.index_fill(1, torch.tensor([5]), len(TINY_VOCABULARY))
    wanted = (
        rf"gives token {len(TINY_VOCABULARY)} \(.*\), but its embedding has {len(TINY_VOCABULARY)} rows; give the model"
    )
    with pytest.raises(HostError, match=wanted):
        tiny.residual(ids, at(1))
    with pytest.raises(HostError, match=wanted):
        tiny.logits_from(ids, at(1), torch.zeros(*ids.shape, TINY_WIDTH))
