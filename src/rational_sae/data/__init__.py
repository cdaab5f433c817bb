"""Text, tokens, language models and the activations that SAEs read."""
