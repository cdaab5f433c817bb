"""Real upgrades at parts of a block: a teacher trained for each, its upgrade and its controls on the same tokens.

    python demo/train_teachers.py configs/teachers-places.yaml --out runs/teachers-places
    python benchmarks/places.py runs/teachers-places      # both together about half an hour on two free cores

The model computes in bfloat16, three times as quick here; what that changes stands in docs/performance.md.

A transcoder of the same block's MLP is trained here, because SAELens trains none: a TopK from random directions, by
`rational_sae.finetune`. Writes docs/data/places.json, and its table into docs/places.md: of each place the teacher, the
row `init`, the native control and the rational SAE, FVU and ΔCE at the teacher's L0 on held-out documents, and the
differences with their intervals.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from torch.nn.functional import normalize

import rational_sae
from rational_sae.data.activations import Reader
from rational_sae.data.language_model import load_host
from rational_sae.data.text import open_text
from rational_sae.data.tokens import Tokeniser
from rational_sae.gates.topk import TopKGate
from rational_sae.sae.model import SAE, Metadata
from rational_sae.upgrading.api import Options

INTO, PREDICTED = "blocks.5.mlp.hook_in", "blocks.5.hook_mlp_out"
D_SAE, K, TOKENS, STEPS, CONTEXT = 1152, 32, 65_536, 600, 128
"""Of the transcoder; width, k and context are those of configs/teachers-places.yaml."""

OUT = Path(__file__).parents[1] / "docs" / "data" / "places.json"
PAGE = OUT.parents[1] / "places.md"
BEGIN, END = "<!-- upgrades: written by benchmarks/places.py -->", "<!-- end of upgrades -->"
WORDS = {"teacher": "teacher", "init": "start", "control_native": "native control", "rsae": "rational"}
ROWS = ("teacher", "init", "control_native", "rsae")
KEYS = ("l0", "fvu", "fvu_at_l0", "delta_ce", "delta_ce_at_l0", "kl")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("teachers", type=Path, help="folder with one folder a place")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--train-tokens", type=int, default=65_536, help="distinct ones, read again")
    parser.add_argument("--eval-tokens", type=int, default=4096)
    parser.add_argument("--only", nargs="+", help="names of teachers; the others are left out")
    parser.add_argument("--keep", type=Path, help="folder for whole results, which can be measured again")
    args = parser.parse_args()
    wants = not args.only or "transcoder" in args.only
    if wants and not (args.teachers / "transcoder" / "cfg.json").exists():
        transcoder().save_pretrained(args.teachers / "transcoder")
    found = json.loads(OUT.read_text(encoding="utf-8")) if OUT.exists() else {}
    wanted = [path for path in args.teachers.iterdir() if (path / "cfg.json").exists()]
    for teacher in sorted(path for path in wanted if not args.only or path.name in args.only):
        asked: Options = {
            "steps": args.steps,
            "train_tokens": args.train_tokens,
            "eval_tokens": args.eval_tokens,
            "controls": ("native",),
            "precision": "bfloat16",
        }
        done = rational_sae.upgrade(teacher, **asked)
        if args.keep:
            done.save(args.keep / teacher.name, overwrite=True)
        compared = {base: done.compare(base) for base in ROWS if base not in ("rsae", "init")}
        found[teacher.name] = {
            "hook": done.settings.hook,
            **asked,
            "test_documents": len(done.sums.tokens),
            "verdict": done.report()["verdict"],
            "untrained": sorted(done.untrained),
            "warnings": done.warnings,
            "rows": {row: {key: done.rows[row].get(key) for key in KEYS} for row in ROWS},
            "differences": {
                base: {key: [one[key].value, one[key].low, one[key].high] for key in KEYS if key in one}
                for base, one in compared.items()
            },
        }
        OUT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(table(found))
    write_page(found)


def transcoder() -> SAE:
    """A TopK transcoder of one MLP."""
    host = load_host("smollm2", dtype=torch.bfloat16)
    tokeniser = Tokeniser(host.tokenizer, CONTEXT)
    reader = Reader(host, host.pair(INTO, PREDICTED), open_text("news"), tokeniser)
    rows = torch.cat(list(reader.vectors("train", TOKENS, seed=0)))
    x, y = rows[:, : host.d_model], rows[:, host.d_model :]
    generator = torch.Generator().manual_seed(0)
    W_enc = normalize(torch.randn(host.d_model, D_SAE, generator=generator), dim=0)
    W_dec = (
        0.1 * float(y.norm(dim=1).mean() / x.norm(dim=1).mean()) * torch.randn(D_SAE, host.d_model, generator=generator)
    )
    known = Metadata(
        family="topk", model_name="smollm2", hook_name=INTO, hook_name_out=PREDICTED, context_size=CONTEXT,
        prepend_bos=False,
    )  # fmt: skip
    start = SAE(
        W_enc, -x.mean(0) @ W_enc, W_dec / host.d_model**0.5, y.mean(0), TopKGate(K),
        apply_b_dec_to_input=False, transcodes=True, metadata=known,
    )  # fmt: skip
    return rational_sae.finetune(start, rows, steps=STEPS, lr=2e-3).sae


def table(found: dict) -> str:
    """FVU and ΔCE of each row at the teacher's L0, KL at its own; what the rational SAE differs by from two of them."""
    lines = ["| place | L0 | | " + " | ".join(WORDS[row] for row in ROWS) + " | − teacher | − native control |"]
    lines.append("|---" * (len(ROWS) + 5) + "|")
    for place, one in sorted(found.items()):
        rows, differences = one["rows"], one["differences"]
        for key, words in (("fvu", "FVU"), ("delta_ce", "ΔCE"), ("kl", "KL")):
            best = [rows[row].get(f"{key}_at_l0") or rows[row][key] for row in ROWS]
            apart = [differences[base].get(f"{key}_at_l0") or differences[base][key] for base in differences]
            cells = [f"{value:.4f}" for value in best]
            cells += ["{:+.4f} [{:+.4f}, {:+.4f}]".format(*three) for three in apart]
            first = [f"`{place}`", f"{rows['teacher']['l0']:.0f}"] if key == "fvu" else ["", ""]
            lines.append(f"| {' | '.join([*first, words, *cells])} |")
    return "\n".join(lines)


def write_page(found: dict) -> None:
    """Put the table into its page."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    PAGE.write_text(f"{before}{BEGIN}\n{table(found)}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
