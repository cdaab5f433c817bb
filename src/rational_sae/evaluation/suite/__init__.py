"""The 113 tasks of the package sae-probes 0.4.2: texts, read by checksum, and protocol. It is never imported."""
