"""What hardware takes: measuring exchanges, experts and layers on GPUs, and calibrating on them."""
