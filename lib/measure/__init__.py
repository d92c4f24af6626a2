"""What hardware takes: measuring all-to-alls, experts and layers on GPUs, and calibrating the simulator."""
