"""What can go wrong, drawn as a tree. Every message is one line: the cause, then the remedy.

RationalSAEError              refused; the command line prints the line and exits 1
├── SourceError               an SAE's files are missing, truncated, malformed or not what they claim
│   └── ImplausibleSAEError   the SAE loads but does not explain real activations (`--accept-implausible` overrides)
├── HostError                 the language model or its hook cannot be used
├── TextError                 no text, or too little of it
├── FitError                  a rational fit did not reach what was asked of it
├── TrainingError             fine-tuning diverged or an unsafe SAE would have been saved
├── ProcessLostError          another process of a data-parallel job ended early
├── OutputError               the output folder cannot be written, or holds something else
├── SettingsError             a settings file cannot be used
└── MissingExtraError         an optional dependency is not installed; names the install command
"""

from __future__ import annotations

import re

LONGEST_CAUSE, LONGEST_REMEDY = 1200, 400
"""Characters. What a message quotes may come from a damaged or hostile file; a path and a list of names fit in."""


def bounded(text: str, longest: int) -> str:
    """One line of at most so many characters; of a longer text the head and the tail.

    >>> bounded("0123456789\\nabcdefghij", 15)
    '012345 … efghij'
    """
    # Cut first, so that a text of megabytes costs nothing; room for what the joining of lines takes away.
    if len(text) > 4 * longest:
        text = text[: 2 * longest] + text[-2 * longest :]
    text = re.sub(r"\s*[\r\n\v\f\x1c-\x1e\x85\u2028\u2029]+\s*", " ", text).strip()
    if len(text) <= longest:
        return text
    half = (longest - 3) // 2
    return f"{text[:half]} … {text[-half:]}"


class RationalSAEError(Exception):
    """Base of every error raised on purpose. `str(error)` is one line of bounded length: cause, then remedy."""

    def __init__(self, cause: str, remedy: str = "") -> None:
        self.cause = bounded(cause, LONGEST_CAUSE)
        self.remedy = bounded(remedy, LONGEST_REMEDY)
        super().__init__(f"{self.cause}; {self.remedy}" if remedy else self.cause)


class SourceError(RationalSAEError):
    """An SAE's files are missing, truncated, malformed or not what they claim."""


class ImplausibleSAEError(SourceError):
    """The SAE loads but does not explain real activations; probably the wrong formula, hook or model."""


class HostError(RationalSAEError):
    """The language model or its hook cannot be used."""


class TextError(RationalSAEError):
    """No text, or too little of it for the splits that a job needs."""


class FitError(RationalSAEError):
    """A rational fit did not reach what was asked of it."""


class TrainingError(RationalSAEError):
    """Fine-tuning diverged, or an unsafe SAE would have been saved as a success."""


class ProcessLostError(RationalSAEError):
    """Another process of a data-parallel job ended early, or did not answer."""


class OutputError(RationalSAEError):
    """The output folder cannot be written, or already holds another job."""


class SettingsError(RationalSAEError):
    """A settings file cannot be read, or holds what is no setting."""


class MissingExtraError(RationalSAEError):
    """An optional dependency is not installed.

    >>> str(MissingExtraError("sae-lens", extra="saelens"))
    "sae-lens is not installed; run: pip install 'rational-sae[saelens]'"
    """

    def __init__(self, package: str, *, extra: str) -> None:
        super().__init__(f"{package} is not installed", f"run: pip install 'rational-sae[{extra}]'")
