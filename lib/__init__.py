"""Load imbalance of mixtures of experts: profile, change, repair, and price it on the network."""
