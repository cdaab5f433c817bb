"""Is an SAE what its files say? Measured on real activations, and its formula in words."""
