"""Float32 products by oneDNN: equal to torch's to rounding, gradients too, and a model's layers go through them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from rational_sae.kernels import products
from rational_sae.kernels.products import LEAST_ROWS, linear, onednn_works, quick_products

pytestmark = pytest.mark.skipif(not onednn_works(), reason="this build of torch has no oneDNN")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Shapes that oneDNN multiplied, on any processor."""
    seen: list[tuple[int, ...]] = []
    real = products._onednn

    def counted(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        seen.append(tuple(x.shape))
        return real(x, weight, bias)

    monkeypatch.setattr(products, "onednn_gains", lambda: True)
    monkeypatch.setattr(products, "_onednn", counted)
    return seen


@pytest.mark.parametrize("shape", [(64, 48), (4, 16, 48), (16, 1, 48), (48,), (1, 48), (0, 48)], ids=str)
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("strided", [True, False], ids=["transposed", "contiguous"])
def test_a_product_equals_the_exact_one_to_rounding(
    calls: list[tuple[int, ...]], shape: tuple[int, ...], bias: bool, strided: bool
) -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(shape), torch.randn(48, 24).T if strided else torch.randn(24, 48)
    b = torch.randn(24) if bias else None
    found = linear(x, weight, b)
    exact = nn.functional.linear(x.double(), weight.double(), None if b is None else b.double())
    assert found.dtype == torch.float32
    assert found.shape == exact.shape
    torch.testing.assert_close(found.double(), exact, rtol=0, atol=48 * 2.0**-24 * 40)
    assert len(calls) == (x.dim() > 1 and x.numel() >= LEAST_ROWS * 48)


@pytest.mark.parametrize("trained", ["x", "weight", "bias"])
def test_gradients_are_those_of_torch(calls: list[tuple[int, ...]], trained: str) -> None:
    torch.manual_seed(0)
    tensors = {"x": torch.randn(4, 8, 48), "weight": torch.randn(24, 48), "bias": torch.randn(24)}
    tensors[trained].requires_grad_()
    g = torch.randn(4, 8, 24)
    found = torch.autograd.grad(linear(**tensors), tensors[trained], g)[0]
    wanted = torch.autograd.grad(nn.functional.linear(*tensors.values()), tensors[trained], g)[0]
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_dtypes_are_left_to_torch(calls: list[tuple[int, ...]], dtype: torch.dtype) -> None:
    x, weight = torch.randn(32, 48, dtype=dtype), torch.randn(24, 48, dtype=dtype)
    assert torch.equal(linear(x, weight), nn.functional.linear(x, weight))
    assert not calls


@pytest.mark.parametrize("model", ["llama", "gpt2"])
def test_a_models_layers_go_through_it_while_it_is_open(calls: list[tuple[int, ...]], model: str) -> None:
    torch.manual_seed(0)
    if model == "llama":
        sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
        made: nn.Module = LlamaForCausalLM(LlamaConfig(**sizes, num_key_value_heads=1, vocab_size=50)).eval()
    else:
        made = GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=2, n_head=2, vocab_size=50, n_positions=32)).eval()
    ids = torch.randint(50, (2, 16))
    with torch.no_grad():
        plain = made(input_ids=ids).logits
        assert not calls
        with quick_products():
            quick = made(input_ids=ids).logits
    assert len(calls) == (2 * 7 + 1 if model == "llama" else 2 * 4 + 1)
    torch.testing.assert_close(quick, plain, rtol=1e-5, atol=1e-5)


def test_where_nothing_is_gained_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "onednn_gains", lambda: False)
    monkeypatch.setattr(products, "_onednn", lambda *_: pytest.fail("oneDNN was used"))
    x, weight = torch.randn(64, 48), torch.randn(24, 48)
    with quick_products():
        assert torch.equal(linear(x, weight), nn.functional.linear(x, weight))
