"""Fine-tuning: one candidate a row, in lockstep."""
