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


class RationalSAEError(Exception):
    """Base of every error raised on purpose. `str(error)` is one line: cause, then remedy."""

    def __init__(self, cause: str, remedy: str = "") -> None:
        self.cause = cause
        self.remedy = remedy
        super().__init__(f"{cause}; {remedy}" if remedy else cause)


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
