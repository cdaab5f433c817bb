"""From pre-activations to codes: every gate, how it gets its gradient, and how it is stored.

Gate (base.py)            what the rest of the program asks of a gate
├── ReLUGate              z = max(h, 0)
├── TopKGate              the k largest h of a token, then ReLU
├── ThresholdGate         JumpReLU: z = h where h > τ_j
└── RationalGate          z = gain·s_j·r(h/s_j) on a support
    ├── HardGate              where h > τ_j
    │   └── TokenScaledGate   of earlier versions: read, no longer trained
    ├── SmoothGate            everywhere
    │   └── SafePadeGate      in the paper's form
    └── RationalTopKGate      on the k largest h > 0 of a token

`registry.py` names those that can be trained.
"""
