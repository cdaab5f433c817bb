"""From pre-activations to codes: every gate, how it gets its gradient, and how it is stored."""
