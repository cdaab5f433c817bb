"""SAEBench's own core and sparse-probing evaluations on exported SAEs, without a hub.

    python benchmarks/saebench.py demo/teachers/topk runs/demo/sae --out runs/saebench

SAEs are SAELens folders, as `rsae upgrade` writes them. SAEBench runs in an environment of its own
(`saebench_env.py`) through its public interface (`saebench_run.py`). It asks the hub for models and data sets by name;
both are looked for as folders first, so the working folder holds them under the names that it asks for:

    smollm2/                       the embedded model, as Hugging Face files
    text/train.jsonl               documents of the test split, for the core evaluation
    fancyzhx/ag_news/*.jsonl       four classes of an embedded task, in place of this four-class task of SAEBench's
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
from pathlib import Path

from saebench_env import VARIABLES, interpreter

from rational_sae.data.language_model import Host, load_host
from rational_sae.data.text import open_text
from rational_sae.evaluation.tasks import open_task
from rational_sae.formats import load

CLASSES = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("saes", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--text", default="news")
    parser.add_argument("--probe", default="question-type", help="a task of four classes or more")
    parser.add_argument("--probe-train", type=int, default=1600)
    parser.add_argument("--probe-context", type=int, default=32)
    parser.add_argument("--batches", type=int, default=8, help="of four sequences, for the core evaluation")
    parser.add_argument("--context", type=int, default=128, help="tokens of such a sequence")
    args = parser.parse_args()
    folder = args.out.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    host = load_host(args.model)
    model = write_model(host, folder)
    write_text(args.text, folder / "text", documents=args.batches * 8)
    write_task(args.probe, folder / "fancyzhx" / "ag_news", args.probe_train)
    settings = {
        "model": model,
        "saes": {path.name if path.name != "sae" else path.parent.name: str(path.absolute()) for path in args.saes},
        "boundary": host.hook(str(load(str(args.saes[0])).metadata.hook_name)).boundary,
        "batches": args.batches,
        "context": args.context,
        "probe_train": args.probe_train,
        "probe_context": args.probe_context,
    }
    (folder / "settings.json").write_text(json.dumps(settings, indent=2))
    run_saebench(folder)
    print((folder / "results.json").read_text())


def run_saebench(folder: Path) -> None:
    """Run `saebench_run.py` on a prepared folder."""
    script = str(Path(__file__).with_name("saebench_run.py"))
    subprocess.run([interpreter(), script], cwd=folder, env={**os.environ, **VARIABLES}, check=True)


def write_model(host: Host, folder: Path) -> str:
    """A folder of the model's weights and tokenizer in the one where SAEBench runs; returns its name."""
    short = Path(host.name).name
    if not (folder / short).exists():
        host.model.save_pretrained(folder / short)
        host.tokenizer.save_pretrained(folder / short)
    return short


def write_text(name: str, folder: Path, documents: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    test = (text for text, _ in zip(open_text(name).documents("test"), range(documents), strict=False))
    (folder / "train.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in test))


def write_task(name: str, folder: Path, train: int) -> None:
    """The four largest classes of a task, as train.jsonl and test.jsonl with labels 0 to 3."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = open_task(name).texts
    largest = sorted(texts, key=lambda label: -len(texts[label]))[:CLASSES]
    half, test = train // 2, train // 8
    for part, start, stop in (("train", 0, half), ("test", half, half + test)):
        rows = [
            {"text": text, "label": number} for number, label in enumerate(largest) for text in texts[label][start:stop]
        ]
        (folder / f"{part}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


if __name__ == "__main__":
    main()
