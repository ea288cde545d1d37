"""`glam-deploy bench`: what each way of running a bundle costs on this machine, and what it changes in the answers."""
