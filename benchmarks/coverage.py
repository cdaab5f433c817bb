"""How many of the SAEs in SAELens' table can be upgraded as they are, and why the others cannot.

    python benchmarks/coverage.py [--only REGEX] [--share 1.0] [--write]

No network and no published weight: for each id a tiny repository is written in the layout and with the config keys of
the published one (`coverage_layouts`), and `saelens:RELEASE/ID` is read from it, as a user's command would. Codes and
reconstructions must be those of SAELens' own loader for the same files; the model must be the one that this loader
names, by its id on the hub; the hook, and of a transcoder what it predicts, must resolve, on a model of that
architecture and depth, to the block and the places that this loader says. --write: docs/coverage.md and the README's
line. Two minutes for the whole table.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import random
import re
import shutil
import sys
import tempfile
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal
from unittest import mock

import torch
from coverage_layouts import D_IN, D_SAE, LAYOUTS, K, Published

from rational_sae import load
from rational_sae.data.hook_names import KINDS
from rational_sae.data.language_model import Hook, Host
from rational_sae.data.model_names import hub_id
from rational_sae.data.reading import Reading
from rational_sae.errors import HostError, SourceError
from rational_sae.formats.release import AS_PER_LAYER, table
from rational_sae.sae.model import SAE

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import sae_lens
    from sae_lens.loading import pretrained_sae_loaders as loaders
    from sae_lens.saes import sae as lens_sae
    from transformer_lens.loading_from_pretrained import get_official_model_name

ROOT = Path(__file__).parents[1]
PAGE, README = ROOT / "docs" / "coverage.md", ROOT / "README.md"
START, END = "<!-- coverage: written by benchmarks/coverage.py -->", "<!-- end of coverage -->"

Outcome = Literal["upgradable", "refused", "refused for a false reason", "crash", "silently wrong"]

ARROW = " → "
"""Between what a transcoder reads and what it predicts."""

BATCH = 200
"""So many rows lie in the scratch folder at once."""

TOLERANCE = 1e-5
"""Of codes and reconstructions, relative to their norms."""

OTHERS: tuple[tuple[str, str, Callable[[Published], bool]], ...] = (
    ("temporal SAE", "temporal", lambda one: one.loader == "temporal"),
    ("SAE of embeddings", "embedding", lambda one: one.path.startswith("embedding/")),
)
"""What is no SAE that is read here, the word that its refusal has to have, and how a row tells."""

OTHER_MODELS = {"llama_scope_r1_distill": "deepseek-ai/DeepSeek-R1-Distill-Llama-8B"}
"""Of releases for which SAELens' loader says another model (Llama-3.1-8B) than its table and the repository's name."""

MODELS: tuple[tuple[str, str, int], ...] = (
    (r"gpt2$", "GPT2Config", 12),
    (r"pythia-70m", "GPTNeoXConfig", 6),
    (r"gemma-2b", "GemmaConfig", 18),
    (r"gemma-2-2b", "Gemma2Config", 26),
    (r"gemma-2-9b", "Gemma2Config", 42),
    (r"gemma-2-27b", "Gemma2Config", 46),
    (r"gemma-3-270m", "Gemma3TextConfig", 18),
    (r"gemma-3-1b", "Gemma3TextConfig", 26),
    (r"gemma-3-4b", "Gemma3Config", 34),
    (r"gemma-3-12b", "Gemma3Config", 48),
    (r"gemma-3-27b", "Gemma3Config", 62),
    (r"llama.*70b", "LlamaConfig", 80),
    (r"llama", "LlamaConfig", 32),
    (r"mistral-7b", "MistralConfig", 32),
    (r"qwen2.5-7b", "Qwen2Config", 28),
    (r"qwen3-(0.6|1.7)b", "Qwen3Config", 28),
    (r"qwen3-(4|8)b", "Qwen3Config", 36),
    (r"qwen3-14b", "Qwen3Config", 40),
    (r"qwen3-30b", "Qwen3MoeConfig", 48),
    (r"qwen3.5-2b", "Qwen3_5TextConfig", 24),
    (r"qwen3.5-9b", "Qwen3_5TextConfig", 32),
    (r"qwen3.5-27b", "Qwen3_5TextConfig", 64),
    (r"qwen3.5-35b", "Qwen3_5MoeTextConfig", 40),
    (r"gpt-oss-20b", "GptOssConfig", 24),
)
"""Classes and depths of the models that the table is of, from their published configs. The first that fits counts."""

SMALL: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "vocab_size": 97}
GROUPED: dict[str, Any] = {"num_key_value_heads": 2, "head_dim": 12}
VISION: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}


@dataclass(frozen=True)
class Found:
    """What became of one row."""

    one: Published
    what: str
    """The kind of place that it reads, of a transcoder also what it predicts, or what it is instead of an SAE."""
    outcome: Outcome
    said: str = ""
    """The cause of a refusal, or what is wrong."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="releases whose name has this regular expression")
    parser.add_argument("--share", type=float, default=1.0, help="share of the table, with one id of each release")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", action="store_true", help="write docs/coverage.md and the README's line")
    args = parser.parse_args()
    chosen = sample(published(args.only), args.share, args.seed)
    found = [judged for judged in progress(judge_all(chosen), len(chosen))]
    print(page(found))
    if args.write and args.only is None and args.share == 1.0:
        PAGE.write_text(page(found), encoding="utf-8")
        README.write_text(with_line(README.read_text(encoding="utf-8"), found), encoding="utf-8")


def published(only: str | None = None) -> list[Published]:
    """The rows of SAELens' table, in its order."""
    return [
        Published(name, entry.get("conversion_func") or "sae_lens", entry["repo_id"], row, entry["model"])
        for name, entry in table().items()
        if only is None or re.search(only, name)
        for row in entry["saes"]
    ]


def sample(rows: Sequence[Published], share: float, seed: int) -> list[Published]:
    """One row of each release, and others up to a share of all."""
    if share >= 1:
        return list(rows)
    choice, releases = random.Random(seed), defaultdict(list)
    for one in rows:
        releases[one.release].append(one)
    first = [choice.choice(members) for members in releases.values()]
    taken = {(one.release, one.id) for one in first}
    others = [one for one in rows if (one.release, one.id) not in taken]
    return first + choice.sample(others, max(0, min(len(others), round(share * len(rows)) - len(first))))


def judge_all(rows: Sequence[Published]) -> Iterator[Found]:
    """What becomes of each row, as it is known."""
    in_memory = Path("/dev/shm")  # removing folders from a disk takes longer than all the rest
    with tempfile.TemporaryDirectory(dir=in_memory if in_memory.is_dir() else None) as scratch:
        torch.set_num_threads(1)
        for start in range(0, len(rows), BATCH):
            with hub(Path(scratch) / str(start)) as repositories:
                chosen = rows[start : start + BATCH]
                for one in chosen:
                    LAYOUTS[one.loader](repositories / one.repository, one)
                yield from map(judge, chosen)
            shutil.rmtree(Path(scratch) / str(start))


def judge(one: Published) -> Found:
    """What becomes of a row whose repository is there."""
    other = next(((name, word) for name, word, tells in OTHERS if tells(one)), None)
    try:
        sae = load(f"saelens:{one.release}/{one.id}")
    except SourceError as error:
        said = error.cause.split(": ", 1)[-1]
        if other is None:
            return Found(one, "an SAE", "refused for a false reason", said)
        return Found(one, other[0], "refused" if other[1] in said else "refused for a false reason", said)
    except Exception as error:
        return Found(one, other[0] if other else "an SAE", "crash", f"{type(error).__name__}: {error}")
    if other is not None:
        return Found(one, other[0], "silently wrong", f"read as a {sae.metadata.family}")
    with owner_of(one) as theirs:
        places = places_of(theirs)
        what = ARROW.join(kind for kind, _ in places)
        if sae.transcodes != (len(places) > 1):
            return Found(one, what, "silently wrong", f"read as {'a transcoder' if sae.transcodes else 'an SAE'}")
        if wrong := (differs(sae, theirs) or other_input(one, sae, theirs)):
            return Found(one, what, "silently wrong", wrong)
    try:
        options = Reading(context=64).resolved(sae)
        model = host(hub_id(str(options.model)))
        hook = (
            model.pair(str(options.hook), sae.metadata.hook_name_out or "")
            if sae.transcodes
            else model.hook(str(options.hook))
        )
    except (SourceError, HostError) as error:
        by_name = any(kind in KINDS and KINDS[kind] in error.cause for kind, _ in places)
        return Found(one, what, "refused" if by_name else "refused for a false reason", error.cause)
    except Exception as error:
        return Found(one, what, "crash", f"{type(error).__name__}: {error}")
    found = [hook] if hook.out is None else [replace(hook, out=None), hook.out]
    for ours, wanted in zip(found, places, strict=True):
        if not is_at(ours, wanted, model):
            return Found(one, what, "silently wrong", f"{ours.name} is read at {where(ours)}")
    return Found(one, what, "upgradable")


# SAELens' own loader of the same files


@contextlib.contextmanager
def owner_of(one: Published) -> Iterator[Any]:
    """SAELens' SAE of a row. Only shapes are changed in what its loaders know by heart, and Llama Scope's dtype."""
    small: dict[str, Any] = {"d_in": D_IN, "d_sae": D_SAE, "dtype": "float32"}
    if one.loader == "qwen_scope":
        small["activation_fn_kwargs"] = {"k": K}
    if "transcoder" in f"{one.loader} {one.path}":
        small["d_out"] = D_IN
    given = lens_sae.get_config_overrides
    with (
        mock.patch.object(lens_sae, "get_config_overrides", lambda release, sae_id: given(release, sae_id) | small),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        theirs = sae_lens.SAE.from_pretrained(one.release, one.id, device="cpu")
        theirs.turn_off_forward_pass_hook_z_reshaping()  # x has heads side by side
        yield theirs


PLACES = {
    r"blocks\.(\d+)\.hook_(resid_pre|resid_mid|resid_post|attn_out|mlp_out)": None,
    r"blocks\.(\d+)\.attn\.hook_(z)": "hook_z",
    r"blocks\.(\d+)\.mlp\.hook_(in)": "mlp_in",
    r"blocks\.(\d+)\.ln2\.hook_(normalized)": "mlp_in_unscaled",
    r"model\.layers\.(\d+)\.(pre_feedforward_layernorm)\.output": "mlp_in",
}
"""SAELens' names of hooks, and the kind of place that each is."""


def places_of(theirs: Any) -> list[tuple[str, int]]:
    """The kind of place and the block that SAELens' loader says; two of a transcoder, read and predicted.

    Of Gemma Scope 2's transcoders it says hook_mlp_in, which in TransformerLens is before the norm, and beside it the
    module that the owner's config names: that one counts.
    """
    known = theirs.cfg.metadata
    read = known.hf_hook_name if str(known.hook_name).endswith("hook_mlp_in") else known.hook_name
    predicted = [known.hook_name_out] if hasattr(theirs.cfg, "d_out") else []
    return [_place(name) for name in (read, *predicted)]


def _place(name: str) -> tuple[str, int]:
    found, kind = next((match, kind) for pattern, kind in PLACES.items() if (match := re.fullmatch(pattern, name)))
    return kind or found[2], int(found[1])


@torch.no_grad()
def differs(sae: SAE, theirs: Any) -> str | None:
    """How codes or reconstructions differ from SAELens', if they do."""
    x = torch.randn(64, D_IN, generator=torch.Generator().manual_seed(3)) + 0.2
    mean = x.mean(-1, keepdim=True) if sae.centred else torch.zeros(64, 1)  # theirs reads a model that was centred
    z, out = sae.encode(x), sae(x)
    their_z = theirs.encode(x - mean)
    their_out = theirs(x) if sae.transcodes else theirs.decode(their_z) + mean  # a skip connection is in forward alone
    for name, ours, wanted in (("codes", z, their_z), ("reconstructions", out, their_out)):
        error = float((ours - wanted).norm() / wanted.norm())
        if not error <= TOLERANCE:
            return f"{name} differ by {error:.3g}"
    return None


def other_input(one: Published, sae: SAE, theirs: Any) -> str | None:
    """What of the model that an SAE is run on is not what SAELens' loader says."""
    stated = getattr(theirs.cfg.metadata, "model_from_pretrained_kwargs", None) or {}
    if bool(stated.get("center_writing_weights")) != sae.centred:
        return "centring is not as stated"
    ours = hub_id(sae.metadata.model_name or "")
    said = str(OTHER_MODELS.get(one.release, theirs.cfg.metadata.model_name))
    with contextlib.suppress(ValueError):  # of models that TransformerLens does not know, the id is the name
        said = str(get_official_model_name(said))
    # Its loader of dictionary_learning takes the owner's name off.
    same = ours == said or ("/" not in said and ours.partition("/")[2] == said)
    return None if same and ("/" in ours or ours == "gpt2") else f"the model is {ours}, SAELens' loader says {said}"


# Models of the right architecture and depth, without weights


@functools.cache
def host(model: str) -> Host:
    """A model of the class and depth of a hub id, on no device."""
    import transformers

    name, depth = next(found[1:] for found in MODELS if re.search(found[0], model.lower()))
    cls = getattr(transformers, name)
    if name == "GPT2Config":
        config = cls(n_embd=32, n_layer=depth, n_head=4, vocab_size=97)
    elif name == "Gemma3Config":
        text = SMALL | GROUPED | {"num_hidden_layers": depth}
        config = cls(text_config=text, vision_config=VISION | {"image_size": 28, "patch_size": 14})
    else:
        config = cls(**SMALL, **({} if name == "GPTNeoXConfig" else GROUPED), num_hidden_layers=depth)
    with torch.device("meta"):
        return Host(model, transformers.AutoModelForCausalLM.from_config(config), None)


def is_at(hook: Hook, wanted: tuple[str, int], model: Host) -> bool:
    """Whether a hook is where SAELens says; an MLP's output before a norm is that behind it where there is no norm."""
    if where(hook) == ("mlp_raw", wanted[1]):
        behind = model.hook(f"blocks.{wanted[1]}.hook_mlp_out").spot
        assert behind is not None
        return wanted[0] == "mlp_out" and hook.spot == replace(behind, kind="mlp_raw")
    return where(hook) == wanted


def where(hook: Hook) -> tuple[str, int]:
    """The kind of place and the block of a hook; between two blocks, both names of it are right, so the SAE's own."""
    if hook.spot is not None:
        return hook.spot.kind, hook.boundary
    pre = bool(re.search(r"hook_resid_pre|hook_in\b|\.input", hook.name))
    return ("resid_pre", hook.boundary) if pre else ("resid_post", hook.boundary - 1)


# A hub of folders


@contextlib.contextmanager
def hub(scratch: Path) -> Iterator[Path]:
    """A folder of repositories that stands for the hub, for both libraries, while open. Each is listed once."""
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError
    from safetensors import safe_open

    remote, local = scratch / "remote", scratch / "local"
    remote.mkdir(parents=True)

    def download(repo_id: str, filename: str, subfolder: str | None = None, **_: Any) -> str:
        name = f"{subfolder}/{filename}" if subfolder else filename
        if name.endswith("examples.safetensors"):
            raise AssertionError(f"{name} was fetched")
        source, target = remote / repo_id / name, local / repo_id / name
        if not source.exists():
            missing = EntryNotFoundError.__new__(EntryNotFoundError)
            Exception.__init__(missing, f"404: {name}")
            raise missing
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        os.link(source, target)
        return str(target)

    @functools.cache
    def files(repo_id: str) -> list[str]:
        root = remote / repo_id
        return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())

    def listed(_self: Any, repo_id: str, **_: Any) -> list[str]:
        return files(repo_id)

    def shapes(repo_id: str, filename: str) -> dict[str, list[int]]:
        with safe_open(download(repo_id, filename), framework="pt") as file:
            return {name: list(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118

    with (
        mock.patch.object(huggingface_hub, "hf_hub_download", download),
        mock.patch.object(huggingface_hub.HfApi, "list_repo_files", listed),
        mock.patch.object(loaders, "hf_hub_download", download),
        mock.patch.object(loaders, "get_safetensors_tensor_shapes", shapes),
    ):
        yield remote


# What is written


def counts(found: Sequence[Found]) -> Counter[Outcome]:
    """Rows by outcome."""
    return Counter(one.outcome for one in found)


def page(found: Sequence[Found]) -> str:
    """docs/coverage.md."""
    count = counts(found)
    lines = [
        "# Coverage: which published SAEs can be upgraded",
        "",
        f"Of the {len(found):,} SAEs in the table of SAELens {sae_lens.__version__}"
        f" ({len({one.one.release for one in found})} releases) **{count['upgradable']:,}** can be upgraded as they",
        "are: `rsae upgrade saelens:RELEASE/ID --text …` with no other option.",
        f"{count['refused']:,} are refused for what they are; {count['refused for a false reason']:,} for a false"
        f" reason; {count['crash']:,} crash; {count['silently wrong']:,} are silently wrong.",
        "",
        f"{transcoders(found):,} of those that can be are transcoders, which read one place and predict another ("
        "[places.md](places.md#transcoders)).",
        *layers(found),
        "",
        "This page is written by `python benchmarks/coverage.py --write`. For each id it writes a tiny repository in",
        "the published layout, reads it as a user would, and compares codes, reconstructions, model, block and place",
        "with what SAELens' own loader says of the same files. No published weight was read, and no upgrade was run.",
        "",
        "## By loader and place",
        "",
        "| SAELens' loader | reads | ids | upgradable | example |",
        "|---|---|---|---|---|",
    ]
    groups: dict[tuple[str, str], list[Found]] = defaultdict(list)
    for one in found:
        groups[one.one.loader, one.what].append(one)
    for (loader, what), members in sorted(groups.items(), key=lambda item: -len(item[1])):
        able = counts(members)["upgradable"]
        lines.append(f"| `{loader}` | {what} | {len(members):,} | {able:,} | {named(members[0])} |")
    refused: dict[tuple[Outcome, str], list[Found]] = defaultdict(list)
    for one in found:
        if one.outcome != "upgradable":
            refused[one.outcome, re.sub(r"\d+", "N", one.said)].append(one)
    if refused:
        lines += ["", "## What is not upgraded", "", "| outcome | ids | what it says | example |", "|---|---|---|---|"]
    for (outcome, _), members in sorted(refused.items(), key=lambda item: -len(item[1])):
        said = members[0].said.replace("|", "/")[:200]
        lines.append(f"| {outcome} | {len(members):,} | {said} | {named(members[0])} |")
    return "\n".join(lines) + "\n"


def transcoders(found: Sequence[Found]) -> int:
    """How many of the upgradable ones are transcoders."""
    return sum(one.outcome == "upgradable" and ARROW in one.what for one in found)


def layers(found: Sequence[Found]) -> list[str]:
    """What is to be known of layers of a cross-layer transcoder, if there are any."""
    count = sum(one.outcome == "upgradable" and one.one.loader == AS_PER_LAYER for one in found)
    if not count:
        return []
    return [
        f"{count} of these are layers of a cross-layer transcoder, read as SAELens does, with what a latent writes to",
        "all layers summed: codes are right, but it reconstructs no one layer until it is trained. A warning says so.",
    ]


def named(found: Found) -> str:
    """The name of a row, as it is given to a command."""
    return f"`saelens:{found.one.release}/{found.one.id}`"


def with_line(readme: str, found: Sequence[Found]) -> str:
    """The README with its line as it is now."""
    before, rest = readme.split(START)
    _, after = rest.split(END)
    line = (
        f"Of the {len(found):,} SAEs in SAELens' own table {counts(found)['upgradable']:,} can be upgraded as they are;"
        " [docs/coverage.md](docs/coverage.md) has the others by reason."
    )
    return f"{before}{START}\n{line}\n{END}{after}"


def progress(found: Iterator[Found], total: int) -> Iterator[Found]:
    """The same, with a line for every thousand."""
    for number, one in enumerate(found, 1):
        if number % 1000 == 0:
            print(f"{number} of {total}", file=sys.stderr)
        yield one


if __name__ == "__main__":
    main()
