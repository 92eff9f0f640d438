"""What every other package may use: errors, seeds, devices, progress, registries."""
