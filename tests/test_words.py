"""What stands in the repository can be read by whoever has only the repository."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]

PAGES = ("DESIGN", "NUMERICS", "ECOSYSTEM", "INPUTS", "REVIEW", "NEWCOMER", "SECOND_LOOK", "STYLE")
"""Notes that lay beside the repository while it was written. What they said that matters stands in docs/."""

CITED = re.compile(rf"\b({'|'.join(PAGES)})\b(?!-)")

READ = (".py", ".md", ".toml", ".yaml", ".ipynb", ".html", ".txt", ".cff")


def test_no_line_cites_a_page_that_a_stranger_lacks() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    paths = [ROOT / name for name in listed.splitlines() if name.endswith(READ) and name != "tests/test_words.py"]
    assert len(paths) > 200
    cited = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}"
        for path in paths
        if path.is_file()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if CITED.search(line)
    ]
    assert cited == []


def test_the_pages_that_comments_cite_are_there() -> None:
    cited = {
        (path, name)
        for path in (*ROOT.glob("src/**/*.py"), *ROOT.glob("tests/**/*.py"), *ROOT.glob("benchmarks/*.py"))
        for name in re.findall(r"\bdocs/[\w-]+\.md\b", path.read_text(encoding="utf-8"))
    }
    assert len(cited) > 10
    assert [f"{path.relative_to(ROOT)}: {name}" for path, name in sorted(cited) if not (ROOT / name).is_file()] == []
