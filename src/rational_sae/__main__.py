"""`python -m rational_sae` is the command `rsae`."""

from rational_sae.cli import main

main()
