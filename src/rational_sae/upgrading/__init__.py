"""From a teacher to a rational SAE of the same shape and sparsity: initialise, calibrate, fine-tune, compare."""
