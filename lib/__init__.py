"""Mixture-of-experts load imbalance: profile it, change it, repair it, and price it on the network."""
