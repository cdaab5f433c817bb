"""Measurements against known answers, on a real (tiny, random) Llama."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from rational_sae.data.activations import Reader
from rational_sae.data.language_model import Host
from rational_sae.data.text import Text
from rational_sae.data.tokens import Tokeniser
from rational_sae.evaluation import measure, results
from rational_sae.formats.save import save
from rational_sae.gates.relu import ReLUGate
from rational_sae.gates.threshold import ThresholdGate
from rational_sae.sae.model import SAE

D = 32
TOKENS = 600


@pytest.fixture
def reader(tiny_hosts: dict[str, Host], tiny_text: Text) -> Reader:
    host = tiny_hosts["llama"]
    return Reader(host, host.hook("model.layers.1"), tiny_text, Tokeniser(host.tokenizer, 20))


def perfect() -> SAE:
    eye = torch.eye(D)
    return SAE(torch.cat([eye, -eye], 1), torch.zeros(2 * D), torch.cat([eye, -eye]), torch.zeros(D), ReLUGate())


def empty() -> SAE:
    return SAE(torch.zeros(D, 8), torch.zeros(8), torch.zeros(8, D), torch.zeros(D), ReLUGate())


def rough(threshold: float = 0.3) -> SAE:
    W = torch.randn(D, 4 * D, generator=torch.Generator().manual_seed(0)) / D**0.5
    return SAE(W, torch.zeros(4 * D), W.T / 2, torch.zeros(D), ThresholdGate(torch.full((4 * D,), threshold)))


def test_a_perfect_sae_changes_nothing(reader: Reader) -> None:
    row = results(measure(reader, {"teacher": perfect()}, TOKENS, torch.zeros(D)), []).rows["teacher"]
    assert row["fvu"] < 1e-10
    assert abs(row["delta_ce"]) < 1e-5
    assert abs(row["kl"]) < 1e-6
    assert row["loss_recovered"] == pytest.approx(1, abs=1e-3)
    assert row["l0"] == D
    assert row["alive_fraction"] == 1


def test_an_sae_that_writes_nothing_is_zero_ablation(reader: Reader) -> None:
    row = results(measure(reader, {"teacher": empty()}, TOKENS, torch.zeros(D)), []).rows["teacher"]
    assert row["ce_sae"] == pytest.approx(row["ce_zero"], abs=1e-7)
    assert row["ce_mean"] == pytest.approx(row["ce_zero"], abs=1e-7), "x̄ = 0 was given"
    assert row["loss_recovered"] == pytest.approx(0, abs=1e-6)
    assert row["l0"] == 0
    assert row["alive_fraction"] == 0


def test_figures_equal_a_plain_loop_over_sequences(reader: Reader) -> None:
    sae, host = rough(), reader.host
    row = results(measure(reader, {"teacher": sae}, TOKENS, torch.zeros(D)), []).rows["teacher"]
    xs, errors, losses, clean_losses, counts = [], [], [], [], []
    with torch.no_grad():
        for batch in reader.held_out("test", TOKENS):
            for ids, keep in zip(batch.input_ids, batch.keep, strict=True):
                if not keep.any():
                    continue
                x, logits = host.residual(ids[None], reader.hook), host.model(input_ids=ids[None]).logits
                x_hat, z, _ = sae.outputs(x[0, keep])
                edited = x.clone()
                edited[0, keep] = x_hat
                changed = host.logits_from(ids[None], reader.hook, edited)
                xs.append(x[0, keep])
                errors.append((x[0, keep] - x_hat).pow(2).sum(-1))
                counts.append((z != 0).sum(-1))
                predicting = keep[:-1].nonzero()[:, 0]
                losses.append(functional.cross_entropy(changed[0, predicting], ids[predicting + 1], reduction="none"))
                clean_losses.append(
                    functional.cross_entropy(logits[0, predicting], ids[predicting + 1], reduction="none")
                )
    x = torch.cat(xs).double()
    error = torch.cat(errors).double()
    assert row["mse"] == pytest.approx(float(error.mean()), rel=1e-5)
    assert row["fvu"] == pytest.approx(float(error.sum() / (x - x.mean(0)).pow(2).sum()), rel=1e-5)
    assert row["l0"] == pytest.approx(float(torch.cat(counts).double().mean()), rel=1e-6)
    assert row["ce_sae"] == pytest.approx(float(torch.cat(losses).mean()), rel=1e-5)
    assert row["ce_clean"] == pytest.approx(float(torch.cat(clean_losses).mean()), rel=1e-5)


@pytest.mark.parametrize("bos", [False, True], ids=["no BOS", "BOS"])
@torch.no_grad()
def test_the_ce_loss_score_is_what_saelens_computes(
    tiny_hosts: dict[str, Host], tiny_text: Text, tmp_path: Path, bos: bool
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import sae_lens
        from sae_lens.evals import ActivationScaler, get_recons_loss
        from transformer_lens import HookedTransformer, HookedTransformerConfig
        from transformer_lens.pretrained.weight_conversions import convert_gpt2_weights

        host = tiny_hosts["gpt2"]
        shape = {"n_layers": 3, "d_model": D, "n_ctx": 64, "d_head": D // 4, "n_heads": 4, "d_vocab": 64}
        config = HookedTransformerConfig(**shape, act_fn="gelu_new", normalization_type="LN", device="cpu")
        theirs = HookedTransformer(config)
        theirs.load_state_dict(convert_gpt2_weights(host.model, config), strict=False)
    sae = rough()
    sae.b_dec.fill_(0.5)
    sae.metadata.hook_name = "blocks.1.hook_resid_post"
    save(sae, tmp_path / "sae")
    reader = Reader(host, host.hook("transformer.h.1"), tiny_text, Tokeniser(host.tokenizer, 20, bos=bos))
    ids = torch.cat([batch.input_ids for batch in reader.held_out("test", TOKENS)])
    torch.testing.assert_close(theirs(ids), host.model(ids).logits, atol=1e-4, rtol=1e-4)  # the same model
    named = sae_lens.SAE.load_from_disk(tmp_path / "sae")
    losses = get_recons_loss(named, theirs, ActivationScaler(), ids, compute_kl=False, compute_ce_loss=True)
    clean, zero, with_sae = (
        float(losses[f"ce_loss_{kind}"].double().mean()) for kind in ("without_sae", "with_ablation", "with_sae")
    )
    sums = measure(reader, {"teacher": sae}, TOKENS, torch.zeros(D))
    row = results(sums, []).rows["teacher"]
    assert float(sums.everywhere["predictions"].sum()) == losses["ce_loss_without_sae"].numel()
    assert row["ce_loss_score"] == pytest.approx((zero - with_sae) / (zero - clean), rel=1e-4)
    assert row["ce_loss_score"] != pytest.approx(row["loss_recovered"], rel=1e-2), "first positions count"


def test_differences_are_paired(reader: Reader) -> None:
    one = rough()
    found = results(
        measure(reader, {"teacher": one, "rsae": copy.deepcopy(one)}, TOKENS, torch.zeros(D)), [("rsae", "teacher")]
    )
    for difference in found.differences["rsae - teacher"].values():
        assert difference["value"] == pytest.approx(0, abs=1e-6)
        assert difference["interval"] == pytest.approx([0, 0], abs=1e-6)
    low, high = found.intervals["teacher"]["fvu"]
    assert low < found.rows["teacher"]["fvu"] < high


def test_figures_at_the_teachers_l0_undo_a_mere_shift_of_thresholds(reader: Reader) -> None:
    saes = {"teacher": rough(0.3), "rsae": rough(0.5)}
    rows = results(measure(reader, saes, TOKENS, torch.zeros(D)), []).rows
    assert rows["rsae"]["l0"] < 0.9 * rows["teacher"]["l0"]
    assert rows["rsae"]["fvu_at_l0"] == pytest.approx(rows["teacher"]["fvu"], rel=1e-3)
    assert rows["rsae"]["delta_ce_at_l0"] == pytest.approx(rows["teacher"]["delta_ce"], rel=0.02, abs=1e-4)
    assert float(saes["rsae"].gate.threshold.detach().mean()) == pytest.approx(0.5)  # type: ignore[union-attr]


def test_what_nobody_asks_for_is_not_run(
    tiny_hosts: dict[str, Host], tiny_text: Text, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every other figure is the same to the bit, and each row saves a forward a batch."""
    host, sae = tiny_hosts["gpt2"], rough()
    reader = Reader(host, host.hook("transformer.h.1"), tiny_text, Tokeniser(host.tokenizer, 20))
    forwards: list[int] = []
    run = host.logits_from
    monkeypatch.setattr(host, "logits_from", lambda *given: (forwards.append(1), run(*given))[1])
    rows = {"teacher": sae, "rsae": sae}
    whole = results(measure(reader, rows, TOKENS, torch.zeros(D)), [("rsae", "teacher")])
    of_all = len(forwards)
    less = results(measure(reader, rows, TOKENS, torch.zeros(D), everywhere=["rsae"]), [("rsae", "teacher")])
    of_one = len(forwards) - of_all
    none = results(measure(reader, rows, TOKENS, torch.zeros(D), everywhere=()), [("rsae", "teacher")])
    of_none = len(forwards) - of_all - of_one
    assert of_all > of_one > of_none + 1, "the ablation to zero everywhere is left out too"
    assert "ce_loss_score" in less.rows["rsae"]
    assert "ce_loss_score" not in less.rows["teacher"] | none.rows["rsae"]
    for name, row in none.rows.items():
        assert row == {key: value for key, value in whole.rows[name].items() if key != "ce_loss_score"}
