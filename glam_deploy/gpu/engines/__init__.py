"""Engines that run a stage on an NVIDIA GPU. `glam_deploy.engines.registry` opens them by name."""
