"""What leaves the machine: model cards, pushes to a hub, plain JumpReLU copies."""

from rational_sae.publish.push import push_sae
from rational_sae.sae.storage import offer

offer("push_to_hub", push_sae)
