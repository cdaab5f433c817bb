"""The sparse autoencoder in memory: model, its sparse step, matched L0, decoder refit. Knows no files."""
