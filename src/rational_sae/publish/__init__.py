"""What leaves the machine: model cards, pushes to a hub, plain JumpReLU copies."""
