"""Peak memory of an upgrade at GPT-2 small's width with 24 576 latents, both default controls included.

    python benchmarks/memory.py        # about five minutes on two cores

Weights are random (memory does not care), so the job runs with --accept-implausible. Prints one JSON line.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import transformers

from rational_sae.data.language_model import load_host
from rational_sae.formats.save import save
from rational_sae.gates.topk import TopKGate
from rational_sae.sae.model import SAE, Metadata

D_IN, D_SAE, K = 768, 24_576, 32


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        model = transformers.AutoModelForCausalLM.from_config(transformers.GPT2Config())
        model.save_pretrained(folder / "model")
        load_host("smollm2").tokenizer.save_pretrained(folder / "model")  # its vocabulary fits into GPT-2's
        _random_sae(str(folder / "model"), folder / "teacher")
        command = [sys.executable, "-m", "rational_sae", "upgrade", str(folder / "teacher"), "--text", "news"]
        command += ["--out", str(folder / "out"), "--steps", "6", "--eval-tokens", "2048", "--accept-implausible"]
        run = subprocess.run(command, check=False, capture_output=True, text=True)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    print(json.dumps({"d_in": D_IN, "d_sae": D_SAE, "exit": run.returncode, "peak_gb": round(peak, 2)}))
    if run.returncode:
        sys.exit(run.stderr[-2000:])


def _random_sae(model: str, folder: Path) -> None:
    W_dec = torch.nn.functional.normalize(torch.randn(D_SAE, D_IN, generator=torch.Generator().manual_seed(0)), dim=-1)
    metadata = Metadata(family="topk", model_name=model, hook_name="transformer.h.5", context_size=128)
    zeros = torch.zeros(D_SAE), torch.zeros(D_IN)
    save(SAE(W_dec.T, zeros[0], W_dec, zeros[1], TopKGate(K), metadata=metadata), folder)


if __name__ == "__main__":
    main()
